//! What callers hand to the engine and get back.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::nn::Rows;

/// Which line a job queues in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Somebody waits for the answer: goes first.
    #[default]
    Interactive,
    /// Archives and streams: fills the room that is left, and is never starved.
    Bulk,
}

impl Lane {
    /// The lane that this one is not.
    pub(super) fn other(self) -> Self {
        match self {
            Self::Interactive => Self::Bulk,
            Self::Bulk => Self::Interactive,
        }
    }
}

/// On whose behalf a job runs. The engine shares its time and room fairly between
/// clients, and does not know what one is; all jobs of the default are of one client.
///
/// It is cheap to clone. It should be short, since each client at work is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(Arc<str>);

impl ClientId {
    /// The client called `name`; the empty name is the default's.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What happens to a job for which the queue has no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Admission {
    /// It is refused at once with [`EngineError::Overloaded`](super::EngineError::Overloaded).
    #[default]
    Reject,
    /// It waits for room, behind earlier jobs of its client and in turn with those of
    /// others, until its deadline. This is back-pressure for streams. Over `max_waiting_tokens` of
    /// [`EngineConfig`](super::EngineConfig) it is refused likewise.
    Wait,
}

/// A document's windows, to be encoded and answered together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Job {
    /// Token ids of every window, special tokens included. At least one
    /// sequence, and none is empty.
    pub sequences: Vec<Vec<u32>>,
    /// On whose behalf.
    pub client: ClientId,
    /// The line to queue in.
    pub lane: Lane,
    /// What happens if there is no room.
    pub admission: Admission,
    /// When the caller stops caring; `None`: never.
    pub deadline: Option<Instant>,
}

/// The answer to a [`Job`].
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// One row a sequence, in the job's order: `[sequences, width of the encoder]`.
    pub rows: Rows,
    /// Where the time went.
    pub timing: JobTiming,
}

/// Where the time of a job went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JobTiming {
    /// From admission to the start of its first batch, and while its batches paused for
    /// urgent ones.
    pub queue: Duration,
    /// The rest, to the end of its last batch.
    pub inference: Duration,
    /// Tokens in its first batch, those of other jobs included.
    pub batch_tokens: usize,
}

/// One `T` for each [`Lane`].
#[derive(Debug, Default)]
pub(super) struct PerLane<T> {
    /// That of [`Lane::Interactive`].
    pub(super) interactive: T,
    /// That of [`Lane::Bulk`].
    pub(super) bulk: T,
}

impl<T> PerLane<T> {
    pub(super) fn get(&self, lane: Lane) -> &T {
        match lane {
            Lane::Interactive => &self.interactive,
            Lane::Bulk => &self.bulk,
        }
    }

    pub(super) fn each(&self) -> [&T; 2] {
        [&self.interactive, &self.bulk]
    }

    pub(super) fn get_mut(&mut self, lane: Lane) -> &mut T {
        match lane {
            Lane::Interactive => &mut self.interactive,
            Lane::Bulk => &mut self.bulk,
        }
    }
}
