//! Metrics that are read from the engines and the cache when somebody asks for them.

use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::metrics::CacheSource;
use crate::engine::{BatchHistograms, EngineStats, Histogram};
use crate::pipeline::{Classifier, ModelInfo, Models};

/// Reads every model's engine. Gauges count what a replaced one still has in hand; counters, histograms and the
/// speed are of the model that serves, and begin anew with it.
pub(super) struct EngineCollector(pub(super) Models);

/// Reads the result cache.
pub(super) struct CacheCollector(pub(super) Arc<RwLock<CacheSource>>);

/// A model and what its engine said at one time.
struct Reading {
    info: ModelInfo,
    stats: EngineStats,
    batches: BatchHistograms,
    /// What the engine of the model that it has replaced said, while that is at its last documents.
    retiring: Option<EngineStats>,
}

type GaugeOf = fn(&EngineStats) -> f64;
type CounterOf = fn(&EngineStats) -> u64;
type HistogramOf = fn(&BatchHistograms) -> &Histogram;

const GAUGES: [(&str, &str, GaugeOf); 9] = [
    ("open_jobs", "Documents accepted and not answered", |s| s.open_jobs as f64),
    ("waiting_jobs", "Documents that wait for room in the queue", |s| s.waiting_jobs as f64),
    ("queued_tokens", "Tokens queued, in no batch yet", |s| s.queued_tokens as f64),
    ("queued_bulk_tokens", "Those of them in the bulk lane", |s| s.queued_bulk_tokens as f64),
    ("queued_clients", "Clients with documents queued, counted in each lane", |s| {
        s.queued_clients as f64
    }),
    ("waiting_tokens", "Tokens that wait for room in the queue", |s| s.waiting_tokens as f64),
    ("queued_sequences", "Windows queued, in no batch yet", |s| s.queued_sequences as f64),
    ("running_tokens", "Tokens in batches that run", |s| s.running_tokens as f64),
    ("running_batches", "Batches that run", |s| s.running_batches as f64),
];

const COUNTERS: [(&str, &str, CounterOf); 5] = [
    ("tokens", "Tokens encoded", |s| s.finished_tokens),
    ("sequences", "Windows encoded", |s| s.finished_sequences),
    ("batches", "Batches that ended, failed ones too", |s| s.batches),
    ("preemptions", "Batches that ran while another paused for them", |s| s.preemptions),
    ("worker_restarts", "Panics after which the engine went on", |s| s.worker_restarts),
];

const HISTOGRAMS: [(&str, &str, HistogramOf); 3] = [
    ("batch_tokens", "Tokens in a batch", |b| &b.tokens),
    ("batch_sequences", "Windows in a batch", |b| &b.sequences),
    ("batch_duration_seconds", "Time that a batch took", |b| &b.seconds),
];

impl Collector for EngineCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let retiring: Vec<_> = self.0.retiring().collect();
        let reading = |model: Arc<Classifier>| Reading {
            info: model.info().clone(),
            stats: model.stats(),
            batches: model.batches(),
            retiring: retiring
                .iter()
                .find(|old| old.info().name == model.info().name)
                .map(|old| old.stats()),
        };
        let readings: Vec<Reading> = self.0.iter().map(reading).collect();
        let mut family = |name: &str, help: &str, kind: MetricType, write: &Write<'_>| {
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            for reading in &readings {
                let labels = [("model", reading.info.name.as_str())];
                write(family.encode_family(&labels)?, reading)?;
            }
            Ok(())
        };
        for (name, help, value) in GAUGES {
            family(name, help, MetricType::Gauge, &|mut to, reading| {
                let retiring = reading.retiring.as_ref().map_or(0.0, value);
                to.encode_gauge(&(value(&reading.stats) + retiring))
            })?;
        }
        let speed = ("drain_tokens_per_second", "Speed of the last batches");
        family(speed.0, speed.1, MetricType::Gauge, &|mut to, reading| {
            to.encode_gauge(&reading.stats.tokens_per_second)
        })?;
        for (name, help, value) in COUNTERS {
            family(name, help, MetricType::Counter, &|mut to, reading| {
                to.encode_counter::<NoLabelSet, _, f64>(&value(&reading.stats), None)
            })?;
        }
        for (name, help, values) in HISTOGRAMS {
            family(name, help, MetricType::Histogram, &|mut to, reading| {
                let values = values(&reading.batches);
                let buckets = values.buckets();
                to.encode_histogram::<NoLabelSet>(values.sum(), values.count(), &buckets, None)
            })?;
        }
        let help = "The models that are served";
        let mut models = encoder.encode_descriptor("model", help, None, MetricType::Info)?;
        for Reading { info, .. } in &readings {
            models.encode_info(&[
                ("model", info.name.as_str()),
                ("revision", &info.revision),
                ("digest", &info.digest),
                ("architecture", &info.architecture),
                ("precision", &info.precision),
                ("device", &info.device),
            ])?;
        }
        Ok(())
    }
}

type Write<'a> = dyn Fn(MetricEncoder<'_>, &Reading) -> fmt::Result + 'a;

impl Collector for CacheCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stats = self.0.read()();
        for (name, help, value) in [
            ("cache_hits", "Documents answered from the cache", stats.hits),
            ("cache_misses", "Documents looked for in the cache and not found", stats.misses),
            (
                "cache_coalesced",
                "Documents answered by the run of an identical one",
                stats.coalesced,
            ),
            ("cache_evictions", "Answers dropped from the cache to make room", stats.evictions),
        ] {
            encoder
                .encode_descriptor(name, help, None, MetricType::Counter)?
                .encode_counter::<NoLabelSet, _, f64>(&value, None)?;
        }
        for (name, help, value) in [
            ("cache_entries", "Answers in the cache", stats.entries),
            ("cache_bytes", "Bytes that the answers in the cache take", stats.bytes),
        ] {
            encoder
                .encode_descriptor(name, help, None, MetricType::Gauge)?
                .encode_gauge(&(value as f64))?;
        }
        Ok(())
    }
}

impl fmt::Debug for EngineCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EngineCollector")
    }
}

impl fmt::Debug for CacheCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CacheCollector")
    }
}
