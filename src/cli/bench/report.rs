//! What was measured, as JSON.

use std::collections::BTreeMap;
use std::path::Path;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::load::Load;
use super::machine::Machine;
use super::tally::{Sample, histogram};
use super::work::Work;
use crate::cli::exit::Failure;

/// The form of the JSON; changes when a field changes its meaning.
pub(super) const SCHEMA: u32 = 1;

/// A measurement of a model on a machine.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Report {
    pub(super) schema: u32,
    pub(super) tasnif_version: String,
    /// `core` or `serve`.
    pub(super) subject: String,
    /// The server, if it was not one of this process.
    pub(super) server: Option<String>,
    /// When it began, by RFC 3339.
    pub(super) started_at: String,
    /// The machine that made the load, and also did the work unless there is a `server`.
    pub(super) machine: Machine,
    pub(super) model: Model,
    pub(super) precision: String,
    /// Threads that compute; `null` for another's server.
    pub(super) threads: Option<usize>,
    /// The most operations a second that they do in this precision, if it was measured.
    pub(super) peak_operations_per_s: Option<f64>,
    pub(super) work: Work,
    pub(super) settings: Settings,
    /// The best point, field by field.
    #[serde(flatten)]
    pub(super) best: Point,
    /// All of them.
    pub(super) points: Vec<Point>,
}

/// The model that was measured.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Model {
    pub(super) name: String,
    pub(super) revision: String,
    /// SHA-256 of the weights, in hexadecimal.
    pub(super) digest: String,
    pub(super) architecture: String,
    pub(super) device: String,
    /// What computes: an instruction set, or `candle`.
    pub(super) kernels: String,
}

/// How it was measured.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(super) struct Settings {
    pub(super) seconds: f64,
    pub(super) warmup_s: f64,
    pub(super) repeat: u32,
    pub(super) seed: u64,
    /// That the calls of `serve` took in turn.
    #[serde(default)]
    pub(super) connections: Option<u16>,
}

/// How documents were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mode {
    /// `concurrency` documents were open at any time.
    Closed,
    /// `rate` documents arrived a second.
    Open,
}

/// One load on one setting.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(super) struct Point {
    pub(super) mode: Mode,
    pub(super) concurrency: Option<u16>,
    pub(super) rate: Option<f64>,
    /// Tokens in a batch, at most; `null` for another's server.
    pub(super) batch_tokens: Option<usize>,
    /// The median of the repeats, as the next two.
    pub(super) documents_per_s: f64,
    pub(super) tokens_per_s: f64,
    /// Of matrix products; `null` where the model's shape is not known.
    pub(super) operations_per_s: Option<f64>,
    /// They over `peak_operations_per_s`.
    pub(super) share_of_peak: Option<f64>,
    /// Of all repeats together; `null` if nothing was answered.
    pub(super) latency_us: Option<Latency>,
    /// Documents answered from a cache.
    pub(super) cached: u64,
    /// Documents not answered, by code.
    pub(super) errors: BTreeMap<String, u64>,
    /// Whether throughput over latency is best here among the loads of the same kind and setting.
    pub(super) knee: bool,
    pub(super) repeats: Vec<Repeat>,
}

/// One of the times that a point was measured.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(super) struct Repeat {
    pub(super) documents_per_s: f64,
    pub(super) tokens_per_s: f64,
    pub(super) latency_us: Option<Latency>,
}

/// Latencies in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
pub(super) struct Latency {
    pub(super) p50: u64,
    pub(super) p90: u64,
    pub(super) p99: u64,
    pub(super) max: u64,
    pub(super) mean: f64,
    /// Documents that they are of.
    pub(super) count: u64,
}

impl Report {
    /// Precision and kernels, for people.
    pub(super) fn computes_with(&self) -> String {
        format!("{} ({})", self.precision, self.model.kernels)
    }
}

impl Latency {
    fn of(latencies: &Histogram<u64>) -> Option<Self> {
        (!latencies.is_empty()).then(|| Self {
            p50: latencies.value_at_quantile(0.5),
            p90: latencies.value_at_quantile(0.9),
            p99: latencies.value_at_quantile(0.99),
            max: latencies.max(),
            mean: latencies.mean(),
            count: latencies.len(),
        })
    }
}

impl Point {
    /// What `samples`, the repeats, say of `load` with batches of at most `batch_tokens`. The
    /// operations are known or not for the whole measurement.
    pub(super) fn new(
        load: Load,
        batch_tokens: Option<usize>,
        samples: &[Sample],
        known_operations: bool,
        peak: Option<f64>,
    ) -> Self {
        let (mode, concurrency, rate) = match load {
            Load::Closed { concurrency } => (Mode::Closed, Some(concurrency), None),
            Load::Open { rate } => (Mode::Open, None, Some(rate)),
        };
        let mut latencies = histogram();
        let mut errors = BTreeMap::<String, u64>::new();
        for sample in samples {
            // All have the same bounds.
            let _ = latencies.add(&sample.latencies);
            for (code, count) in &sample.errors {
                *errors.entry(code.clone()).or_default() += count;
            }
        }
        let of = |value: fn(&Sample) -> f64| median(samples.iter().map(value));
        let operations_per_s = known_operations.then(|| of(|sample| sample.operations_per_s));
        Self {
            mode,
            concurrency,
            rate,
            batch_tokens,
            documents_per_s: of(|sample| sample.documents_per_s),
            tokens_per_s: of(|sample| sample.tokens_per_s),
            operations_per_s,
            share_of_peak: operations_per_s.zip(peak).map(|(operations, peak)| operations / peak),
            latency_us: Latency::of(&latencies),
            cached: samples.iter().map(|sample| sample.cached).sum(),
            errors,
            knee: false,
            repeats: samples.iter().map(Repeat::of).collect(),
        }
    }

    /// How documents were sent.
    pub(super) fn load(&self) -> String {
        match self.mode {
            Mode::Closed => format!("closed {}", self.concurrency.unwrap_or_default()),
            Mode::Open => format!("open {}/s", self.rate.unwrap_or_default()),
        }
    }

    /// What it has in common with the same point of another measurement.
    pub(super) fn name(&self) -> String {
        match self.batch_tokens {
            Some(tokens) => format!("{}, batch {tokens}", self.load()),
            None => self.load(),
        }
    }

    /// The share of documents that were not answered.
    pub(super) fn share_of_errors(&self) -> f64 {
        let errors: u64 = self.errors.values().sum();
        let answered = self.latency_us.map_or(0, |latency| latency.count);
        errors as f64 / (errors + answered).max(1) as f64
    }

    /// Throughput over latency (Kleinrock's power), which is largest where more load begins to
    /// cost more latency than it gains throughput.
    fn power(&self) -> f64 {
        let mean_us = self.latency_us.map_or(f64::INFINITY, |latency| latency.mean.max(1.0));
        self.documents_per_s / mean_us
    }

    fn series(&self) -> (Mode, Option<usize>) {
        (self.mode, self.batch_tokens)
    }
}

impl Repeat {
    fn of(sample: &Sample) -> Self {
        Self {
            documents_per_s: sample.documents_per_s,
            tokens_per_s: sample.tokens_per_s,
            latency_us: Latency::of(&sample.latencies),
        }
    }
}

/// The points of one kind of load on one setting, in the order in which load grew: one line of a
/// chart each.
pub(super) fn series(points: &[Point]) -> Vec<Vec<&Point>> {
    let mut all: Vec<Vec<&Point>> = Vec::new();
    for point in points {
        let same = |line: &&mut Vec<&Point>| {
            line.first().is_some_and(|first| first.series() == point.series())
        };
        match all.iter_mut().find(same) {
            Some(line) => line.push(point),
            None => all.push(vec![point]),
        }
    }
    for line in &mut all {
        line.sort_by(|a, b| {
            let load =
                |point: &Point| point.rate.or(point.concurrency.map(f64::from)).unwrap_or_default();
            load(a).total_cmp(&load(b))
        });
    }
    all
}

/// Marks the knee of each series that has more than one point.
pub(super) fn mark_knees(points: &mut [Point]) {
    let best: Vec<Point> = series(points)
        .into_iter()
        .filter(|line| line.len() > 1)
        .filter_map(|line| line.into_iter().max_by(|a, b| a.power().total_cmp(&b.power())).cloned())
        .collect();
    for point in points {
        point.knee = best.contains(point);
    }
}

/// The point of the highest throughput, of those without errors if there are any.
pub(super) fn best(points: &[Point]) -> Option<&Point> {
    let answered = || points.iter().filter(|point| point.latency_us.is_some());
    let highest = |a: &&Point, b: &&Point| a.tokens_per_s.total_cmp(&b.tokens_per_s);
    let without_errors = answered().filter(|point| point.errors.is_empty());
    without_errors.max_by(highest).or_else(|| answered().max_by(highest))
}

/// The middle one of `values`, or the mean of the two in the middle.
pub(super) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or_default();
    f64::midpoint(at(values.len().saturating_sub(1) / 2), at(values.len() / 2))
}

/// Reads the report in `path`.
///
/// # Errors
/// If there is none.
pub(super) fn read(path: &Path) -> Result<Report, Failure> {
    #[derive(Deserialize)]
    struct Form {
        schema: u32,
    }
    let name = path.display();
    let refuse = |problem: String| Failure::Usage(format!("{name}: {problem}"));
    let bytes = std::fs::read(path).map_err(|error| refuse(format!("cannot open: {error}")))?;
    let not_one = |error: serde_json::Error| {
        refuse(format!("it is not what `tasnif bench --json` writes: {error}"))
    };
    let Form { schema } = serde_json::from_slice(&bytes).map_err(not_one)?;
    if schema != SCHEMA {
        return Err(refuse(format!("its schema is {schema}; this version reads {SCHEMA}")));
    }
    serde_json::from_slice(&bytes).map_err(not_one)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(concurrency: u16, documents_per_s: f64, mean: f64) -> Point {
        let sample = Sample {
            documents_per_s,
            tokens_per_s: 10.0 * documents_per_s,
            operations_per_s: 100.0 * documents_per_s,
            cached: 0,
            errors: BTreeMap::new(),
            latencies: histogram(),
        };
        let mut point =
            Point::new(Load::Closed { concurrency }, Some(64), &[sample], true, Some(20_000.0));
        point.latency_us = Some(Latency { p50: 1, p90: 1, p99: 1, max: 1, mean, count: 1 });
        point
    }

    #[test]
    fn the_knee_is_where_latency_begins_to_cost_more_than_it_gains() {
        let mut points = vec![point(64, 105.0, 600.0), point(1, 50.0, 20.0), point(2, 98.0, 21.0)];
        mark_knees(&mut points);
        let knees: Vec<bool> = points.iter().map(|point| point.knee).collect();
        assert_eq!(knees, [false, false, true]);
        assert_eq!(best(&points).unwrap().concurrency, Some(64));
        points[0].errors.insert("overloaded".to_owned(), 1);
        assert_eq!(best(&points).unwrap().concurrency, Some(2), "errors go last");
        assert_eq!(points[2].share_of_peak, Some(0.49));
        mark_knees(&mut points[..1]);
        assert!(!points[0].knee, "one point has no knee");
    }

    #[test]
    fn the_median_is_in_the_middle() {
        let of = |values: &[f64]| median(values.iter().copied());
        assert_eq!((of(&[3.0, 1.0, 2.0]), of(&[4.0, 1.0]), of(&[])), (2.0, 2.5, 0.0));
    }
}
