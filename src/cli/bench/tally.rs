//! What is counted of a load.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::load::Load;

/// The longest latency that is told from longer ones, in microseconds: an hour.
const MAX_LATENCY_US: u64 = 3_600_000_000;
/// Digits to which latencies are kept.
const DIGITS: u8 = 3;

/// What one document's answer cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Done {
    pub(super) tokens: u64,
    /// 0 if they are not known.
    pub(super) operations: f64,
    /// Whether the answer was kept from before, so that nothing was computed.
    pub(super) cached: bool,
}

/// The answer to a document, or the code of the error in its place.
pub(super) type Outcome = Result<Done, String>;

/// The time that is measured, between two moments.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) begin: Instant,
    pub(super) end: Instant,
}

impl Window {
    pub(super) fn contains(&self, moment: Instant) -> bool {
        self.begin <= moment && moment < self.end
    }

    fn length(&self) -> Duration {
        self.end.duration_since(self.begin)
    }
}

/// Counts of one measurement.
pub(super) struct Tally {
    window: Window,
    load: Load,
    /// The first answers from the window's begin on, and from its end on.
    answered: [Option<Instant>; 2],
    /// Documents answered within the window, whenever they were sent: the throughput.
    documents: u64,
    tokens: u64,
    operations: f64,
    cached: u64,
    /// Of the documents that are sampled.
    errors: BTreeMap<String, u64>,
    latencies: Histogram<u64>,
}

/// One measurement of a point.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) documents_per_s: f64,
    pub(super) tokens_per_s: f64,
    pub(super) operations_per_s: f64,
    /// Documents answered without computing, of those of `documents_per_s`.
    pub(super) cached: u64,
    /// Documents that were not answered, by code.
    pub(super) errors: BTreeMap<String, u64>,
    /// Latencies of the others in microseconds.
    pub(super) latencies: Histogram<u64>,
}

impl Tally {
    pub(super) fn new(window: Window, load: Load) -> Self {
        let (answered, documents, tokens, operations, cached) = ([None; 2], 0, 0, 0.0, 0);
        let (errors, latencies) = (BTreeMap::new(), histogram());
        Self { window, load, answered, documents, tokens, operations, cached, errors, latencies }
    }

    /// Counts a document that was to be sent at `due` and was answered at `finished`. It is
    /// `sampled` if its latency, or its error, is one of those of the window.
    pub(super) fn record(
        &mut self,
        due: Instant,
        finished: Instant,
        sampled: bool,
        outcome: Outcome,
    ) {
        match outcome {
            Ok(done) => {
                let edges = [self.window.begin, self.window.end];
                for (first, edge) in self.answered.iter_mut().zip(edges) {
                    if edge <= finished && first.is_none_or(|first| finished < first) {
                        *first = Some(finished);
                    }
                }
                if self.window.contains(finished) {
                    self.documents += 1;
                    self.tokens += done.tokens;
                    self.operations += done.operations;
                    self.cached += u64::from(done.cached);
                }
                if sampled {
                    let latency = micros(finished.saturating_duration_since(due));
                    self.latencies.saturating_record(latency);
                }
            }
            Err(code) if sampled => self.fail(&code, 1),
            Err(_) => {}
        }
    }

    /// Counts `documents` that were not answered.
    pub(super) fn fail(&mut self, code: &str, documents: u64) {
        if documents > 0 {
            *self.errors.entry(code.to_owned()).or_default() += documents;
        }
    }

    /// What throughput is over: the window; but in a closed loop the time from the first answer in
    /// it to the first after it. Answers come a batch at a time, and what the window's ends cut of
    /// one would count as a whole one or none. If that is less than half the window, so that much
    /// of it passed without an answer, it is the window after all.
    fn seconds(&self) -> f64 {
        let whole = self.window.length();
        let time = match (self.load, self.answered) {
            (Load::Closed { .. }, [Some(first), Some(after)]) => after.duration_since(first),
            _ => whole,
        };
        if time < whole / 2 { whole.as_secs_f64() } else { time.as_secs_f64() }
    }

    /// What was counted.
    pub(super) fn sample(&self) -> Sample {
        let seconds = self.seconds();
        Sample {
            documents_per_s: self.documents as f64 / seconds,
            tokens_per_s: self.tokens as f64 / seconds,
            operations_per_s: self.operations / seconds,
            cached: self.cached,
            errors: self.errors.clone(),
            latencies: self.latencies.clone(),
        }
    }
}

/// Of microseconds.
#[allow(clippy::expect_used)] // The bounds are constants of which the library approves.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(MAX_LATENCY_US, DIGITS).expect("bounds of a histogram")
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOSED: Load = Load::Closed { concurrency: 1 };
    const OPEN: Load = Load::Open { rate: 1.0 };

    /// The tally of answers of 10 tokens at these halves of a second, of a window of two seconds.
    fn answered_at(load: Load, halves: &[u32]) -> Sample {
        let begin = Instant::now();
        let second = Duration::from_secs(1);
        let mut tally = Tally::new(Window { begin, end: begin + 2 * second }, load);
        for half in halves {
            let done = Done { tokens: 10, operations: 5.0, cached: false };
            tally.record(begin, begin + second / 2 * *half, false, Ok(done));
        }
        tally.sample()
    }

    #[test]
    fn throughput_is_of_answers_within_the_window() {
        let per_s = |load, halves: &[u32]| answered_at(load, halves).documents_per_s;
        // From the first in the window, at half a second, to the first after, at two and a half.
        assert_eq!(per_s(CLOSED, &[1, 2, 5, 6]), 1.0);
        assert_eq!(per_s(CLOSED, &[6, 2, 5, 1]), 1.0);
        // From one second to two, and by the window.
        assert_eq!(per_s(CLOSED, &[2, 2, 3, 4]), 3.0);
        assert_eq!(per_s(OPEN, &[2, 2, 3, 4]), 1.5);
        // None after, none within, and one just before the end.
        assert_eq!(per_s(CLOSED, &[2, 3]), 1.0);
        assert_eq!(per_s(CLOSED, &[5]), 0.0);
        assert_eq!(per_s(CLOSED, &[3, 4]), 0.5);
        let sample = answered_at(OPEN, &[0, 1]);
        assert_eq!((sample.tokens_per_s, sample.operations_per_s), (10.0, 5.0));
    }

    #[test]
    fn latencies_and_errors_are_of_those_sampled() {
        let begin = Instant::now();
        let second = Duration::from_secs(1);
        let mut tally = Tally::new(Window { begin, end: begin + 2 * second }, OPEN);
        let done = Done { tokens: 10, operations: 5.0, cached: false };
        let at = |halves: u32| begin + second / 2 * halves;
        tally.record(at(0), at(3), true, Ok(done));
        tally.record(at(1), at(2), true, Ok(Done { cached: true, ..done }));
        // After the window: sampled, but not of its throughput.
        tally.record(at(3), at(5), true, Ok(done));
        tally.record(at(3), at(5), false, Ok(done));
        tally.record(at(3), at(3), true, Err("overloaded".to_owned()));
        tally.record(at(3), at(3), false, Err("overloaded".to_owned()));
        tally.fail("unfinished", 0);
        let sample = tally.sample();
        assert_eq!((sample.documents_per_s, sample.cached), (1.0, 1));
        assert_eq!(sample.errors, BTreeMap::from([("overloaded".to_owned(), 1)]));
        assert_eq!(sample.latencies.len(), 3);
        assert!(sample.latencies.max().abs_diff(1_500_000) < 2_000);
    }
}
