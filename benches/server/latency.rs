//! Latencies of calls, and how they are printed.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Calls that a p99 is of, at least: of fewer it is a guess.
pub(crate) const ENOUGH: u32 = 1_000;

/// In microseconds, up to a minute.
pub(crate) struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        Self(Histogram::new_with_max(60_000_000, 3).unwrap())
    }
}

impl Latencies {
    pub(crate) fn record(&mut self, taken: Duration) {
        self.0.saturating_record(taken.as_micros() as u64);
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    pub(crate) fn ms(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1_000.0
    }

    /// Prints p50, and p99 where there are [`ENOUGH`] calls.
    pub(crate) fn print(&self, name: &str) {
        print!("  {name:<20} {:>6} calls   p50 {:>8.2} ms", self.count(), self.ms(0.5));
        if self.count() >= u64::from(ENOUGH) {
            print!("   p99 {:>8.2} ms", self.ms(0.99));
        }
        println!();
    }
}

/// Prints `quiet`, `busy` and the ratio of their p99, both of [`ENOUGH`] calls or more.
pub(crate) fn compare(quiet: &Latencies, busy: &Latencies) {
    quiet.print("alone");
    busy.print("beside the load");
    let ratio = busy.ms(0.99) / quiet.ms(0.99);
    println!("  p99 ratio: {ratio:.2}, of {} and {} calls", busy.count(), quiet.count());
}
