//! How fast the engine works its queue off, to tell refused callers when to retry.

use std::time::Duration;

/// Shortest and longest time that a refused caller is told to wait.
const MIN_RETRY_AFTER: Duration = Duration::from_millis(10);
const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);
/// Assumed of a worker until its first batch: a small model on a core or two.
const INITIAL_TOKENS_PER_SECOND: f64 = 2_000.0;
/// Share of the newest batch in the average: about the last ten batches count.
const NEWEST: f64 = 0.2;

/// Exponentially weighted speed of the last batches.
///
/// A batch that ran beside others says what one worker does; one that ran alone, what all do
/// together, since the encoder then has every core for it. Of a tiny one that is too little, which
/// is the safe side until a larger one has run.
///
/// Tokens and seconds are averaged apart, so that a batch weighs as much as it
/// holds: a tiny one, which is slow a token, does not look like a slow engine.
#[derive(Debug)]
pub(super) struct DrainRate {
    workers: f64,
    /// Those of all workers, in `seconds`.
    tokens: f64,
    seconds: f64,
    measured: bool,
}

impl DrainRate {
    /// That of an engine whose `workers` have run nothing yet.
    pub(super) fn new(workers: usize) -> Self {
        let workers = workers as f64;
        let tokens = workers * INITIAL_TOKENS_PER_SECOND;
        Self { workers, tokens, seconds: 1.0, measured: false }
    }

    /// Counts a batch of `tokens` that took `time`, `alone` or beside others.
    pub(super) fn observe(&mut self, tokens: usize, time: Duration, alone: bool) {
        if tokens == 0 || time.is_zero() {
            return;
        }
        let newest = if self.measured { NEWEST } else { 1.0 };
        self.measured = true;
        let side_by_side = if alone { 1.0 } else { self.workers };
        self.tokens += newest * (side_by_side * tokens as f64 - self.tokens);
        self.seconds += newest * (time.as_secs_f64() - self.seconds);
    }

    /// Tokens a second over all workers.
    pub(super) fn tokens_per_second(&self) -> f64 {
        self.tokens / self.seconds
    }

    /// Time in which `tokens` should have left the queue, within the bounds for a retry.
    pub(super) fn retry_after(&self, tokens: usize) -> Duration {
        retry_after(self.time_for(tokens))
    }

    /// Time in which a job that ends `tokens` of work can be relied on to have ended;
    /// `None` before the first batch, when nothing is known.
    pub(super) fn safe_time_for(&self, tokens: usize) -> Option<Duration> {
        self.measured.then(|| self.time_for(tokens).saturating_mul(3) / 2)
    }

    fn time_for(&self, tokens: usize) -> Duration {
        let seconds = tokens as f64 / self.tokens_per_second();
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }
}

/// `time`, within the bounds for a retry.
pub(super) fn retry_after(time: Duration) -> Duration {
    time.clamp(MIN_RETRY_AFTER, MAX_RETRY_AFTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_batch_replaces_the_guess_and_later_ones_move_it() {
        let mut rate = DrainRate::new(2);
        assert_eq!(rate.tokens_per_second(), 4_000.0);
        rate.observe(1_000, Duration::from_secs(1), false);
        assert_eq!(rate.tokens_per_second(), 2_000.0);
        for _ in 0..100 {
            rate.observe(4_000, Duration::from_secs(1), false);
        }
        assert!((rate.tokens_per_second() - 8_000.0).abs() < 1.0);
        assert_eq!(rate.retry_after(80_000).as_secs(), 10);
    }

    #[test]
    fn a_batch_that_ran_alone_is_not_taken_for_that_of_one_worker() {
        let mut rate = DrainRate::new(4);
        rate.observe(1_000, Duration::from_secs(1), true);
        assert_eq!(rate.tokens_per_second(), 1_000.0);
        for _ in 0..100 {
            rate.observe(250, Duration::from_secs(1), false);
        }
        assert!((rate.tokens_per_second() - 1_000.0).abs() < 1.0);
    }

    #[test]
    fn a_retry_stays_within_its_bounds() {
        let mut rate = DrainRate::new(1);
        assert_eq!(rate.retry_after(0), MIN_RETRY_AFTER);
        assert_eq!(rate.retry_after(usize::MAX), MAX_RETRY_AFTER);
        rate.observe(1, Duration::MAX, false);
        assert_eq!(rate.retry_after(1), MAX_RETRY_AFTER);
        assert!(rate.safe_time_for(usize::MAX).is_some());
        rate.observe(5, Duration::ZERO, false);
        rate.observe(0, Duration::from_secs(1), false);
        assert!(rate.tokens_per_second().is_finite());
    }

    #[test]
    fn what_can_be_relied_on_is_known_from_the_first_batch_and_has_a_margin() {
        let mut rate = DrainRate::new(1);
        assert_eq!(rate.safe_time_for(1_000), None);
        rate.observe(1_000, Duration::from_secs(1), false);
        assert_eq!(rate.safe_time_for(2_000), Some(Duration::from_secs(3)));
    }

    #[test]
    fn a_tiny_slow_batch_hardly_moves_it() {
        let mut rate = DrainRate::new(1);
        rate.observe(4_000, Duration::from_secs(1), false);
        rate.observe(10, Duration::from_millis(50), false);
        assert!(rate.tokens_per_second() > 3_900.0);
    }
}
