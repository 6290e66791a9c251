//! Settings of the engine.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::StartError;
use super::job::Lane;

/// Longest time that a free worker may be told to wait for a fuller batch.
const MAX_LINGER: Duration = Duration::from_secs(10);
/// Batches that may run at the same time, at most.
const MAX_WORKERS: usize = 1_024;

/// Settings of an [`Engine`](super::Engine).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct EngineConfig {
    /// Tokens in a batch, at most. A sequence that is longer by itself runs alone. More
    /// than the default gain a CPU next to nothing and make urgent work wait longer.
    pub max_batch_tokens: usize,
    /// Tokens queued, at most: over them jobs are refused or wait. Bulk jobs may
    /// hold three quarters of it, so that interactive ones always find room.
    pub max_queued_tokens: usize,
    /// Tokens of one client queued, at most, so that one alone cannot fill the queue;
    /// at `max_queued_tokens` or more it can. Of them its bulk jobs may hold three
    /// quarters. Likewise its jobs that wait for room in a lane. A job that is longer by
    /// itself may enter, or wait, while its client has no other in the lane.
    pub max_queued_tokens_per_client: usize,
    /// Tokens of the jobs that wait for room in a lane, at most: over them a job is
    /// refused even if it would wait. Each lane has a line of its own, so that bulk
    /// jobs never shut interactive ones out. A job that is longer by itself may
    /// wait while nobody else does.
    pub max_waiting_tokens: usize,
    /// Batches that run at the same time, each on a thread of its own.
    pub workers: usize,
    /// Batches of interactive work while bulk work is queued, at most, before one of bulk
    /// work. That may be interrupted, but by no more tokens than it has.
    pub max_interactive_run: usize,
    /// How long a free worker, not one that can interrupt its batch, waits for a batch to fill, from the admission of the
    /// oldest job; zero: it takes what is there.
    #[serde(with = "humantime_serde")]
    pub linger: Duration,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            max_batch_tokens: 512,
            max_queued_tokens: 262_144,
            max_queued_tokens_per_client: 131_072,
            max_waiting_tokens: 262_144,
            workers: 1,
            max_interactive_run: 4,
            linger: Duration::ZERO,
        }
    }
}

impl EngineConfig {
    /// Tokens in a batch of urgent work that runs within another, at most.
    pub(super) fn max_urgent_tokens(&self) -> usize {
        (self.max_batch_tokens / 4).max(1)
    }

    /// Tokens that `lane` may have queued, at most.
    pub(crate) fn lane_limit(&self, lane: Lane) -> usize {
        share(self.max_queued_tokens, lane)
    }

    /// Tokens that one client may have queued in `lane`, at most.
    pub(super) fn client_limit(&self, lane: Lane) -> usize {
        share(self.max_queued_tokens_per_client, lane)
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// If a field is outside its range.
    pub fn validate(&self) -> Result<(), StartError> {
        let counts = [
            ("max_batch_tokens", self.max_batch_tokens),
            ("max_queued_tokens", self.max_queued_tokens),
            ("max_queued_tokens_per_client", self.max_queued_tokens_per_client),
            ("max_waiting_tokens", self.max_waiting_tokens),
            ("max_interactive_run", self.max_interactive_run),
        ];
        if !(1..=MAX_WORKERS).contains(&self.workers) {
            let (value, expected) = (self.workers.to_string(), "1 to 1024");
            return Err(StartError::InvalidConfig { field: "workers", value, expected });
        }
        for (field, value) in counts {
            if value == 0 {
                let (value, expected) = (value.to_string(), "at least 1");
                return Err(StartError::InvalidConfig { field, value, expected });
            }
        }
        if self.linger > MAX_LINGER {
            let value = format!("{:?}", self.linger);
            let expected = "at most 10 seconds";
            return Err(StartError::InvalidConfig { field: "linger", value, expected });
        }
        Ok(())
    }
}

/// What `lane` may hold of `tokens`.
fn share(tokens: usize, lane: Lane) -> usize {
    match lane {
        Lane::Interactive => tokens,
        Lane::Bulk => tokens - tokens / 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_out_of_range_is_named() {
        let good = EngineConfig::default();
        assert!(good.validate().is_ok());
        let bad = [
            ("max_batch_tokens", EngineConfig { max_batch_tokens: 0, ..good }),
            ("max_queued_tokens", EngineConfig { max_queued_tokens: 0, ..good }),
            (
                "max_queued_tokens_per_client",
                EngineConfig { max_queued_tokens_per_client: 0, ..good },
            ),
            ("max_waiting_tokens", EngineConfig { max_waiting_tokens: 0, ..good }),
            ("workers", EngineConfig { workers: 0, ..good }),
            ("workers", EngineConfig { workers: 1_025, ..good }),
            ("max_interactive_run", EngineConfig { max_interactive_run: 0, ..good }),
            ("linger", EngineConfig { linger: Duration::from_secs(11), ..good }),
        ];
        for (field, config) in bad {
            let message = config.validate().unwrap_err().to_string();
            assert!(message.contains(field), "{message}");
        }
    }

    #[test]
    fn the_bulk_lane_holds_three_quarters_and_at_least_one_token() {
        let of = |max_queued_tokens| EngineConfig { max_queued_tokens, ..Default::default() };
        assert_eq!(of(400).lane_limit(Lane::Bulk), 300);
        assert_eq!(of(400).lane_limit(Lane::Interactive), 400);
        assert_eq!(of(1).lane_limit(Lane::Bulk), 1);
    }
}
