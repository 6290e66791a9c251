//! How large the engine's batches are and how long they take, as histograms.

use std::time::Duration;

const TOKENS: &[f64] =
    &[16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16_384.0];
const SEQUENCES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];
const SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Counts of values by size.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    bounds: &'static [f64],
    /// One a bound, and one for what is over the last.
    counts: Vec<u64>,
    sum: f64,
}

/// The batches that have run since the start, failed ones included.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchHistograms {
    /// Tokens in a batch.
    pub tokens: Histogram,
    /// Sequences in a batch.
    pub sequences: Histogram,
    /// Seconds that a batch took.
    pub seconds: Histogram,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    fn observe(&mut self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.sum += value;
    }

    /// The upper bound of each bucket, which belongs to it, and how many values are in it and in
    /// no lower one. The last bound is `f64::MAX`: it has none.
    pub fn buckets(&self) -> Vec<(f64, u64)> {
        let bounds = self.bounds.iter().copied().chain([f64::MAX]);
        bounds.zip(self.counts.iter().copied()).collect()
    }

    /// How many values there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The sum of all values.
    pub fn sum(&self) -> f64 {
        self.sum
    }
}

impl Default for BatchHistograms {
    fn default() -> Self {
        Self {
            tokens: Histogram::new(TOKENS),
            sequences: Histogram::new(SEQUENCES),
            seconds: Histogram::new(SECONDS),
        }
    }
}

impl BatchHistograms {
    pub(super) fn observe(&mut self, tokens: usize, sequences: usize, time: Duration) {
        self.tokens.observe(tokens as f64);
        self.sequences.observe(sequences as f64);
        self.seconds.observe(time.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket_and_what_is_over_all_is_counted() {
        let mut sizes = Histogram::new(&[1.0, 4.0]);
        for value in [1.0, 1.5, 4.0, 5.0, 100.0] {
            sizes.observe(value);
        }
        assert_eq!(sizes.buckets(), [(1.0, 1), (4.0, 2), (f64::MAX, 2)]);
        assert_eq!((sizes.count(), sizes.sum()), (5, 111.5));
    }
}
