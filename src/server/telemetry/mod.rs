//! What the server says of itself: metrics, traces and logs.
//!
//! | file | what it does |
//! |---|---|
//! | `metrics` | every metric that calls and documents count, in a registry of the server's own |
//! | `series` | what those are told apart by: labels, their values, buckets |
//! | `engine`, `process` | metrics that are read when somebody asks: engines, models, the process |
//! | `monitoring` | `/metrics`, `/healthz` and `/readyz` on a port of their own |
//! | `tracing` | spans over OTLP, and the trace context that a caller sends |
//! | `observer` | the one that calls and documents report to, which tells the above |
//! | `logging` | where log lines go and what they look like |
//!
//! The layers below know nothing of it: documents are reported by the call that classifies them,
//! from the timing that the pipeline gives with each answer, and engines are read.

mod engine;
mod logging;
mod metrics;
mod monitoring;
mod observer;
mod process;
mod series;
mod tracing;

use std::sync::Arc;

use tokio::net::TcpListener;

use crate::pipeline::Models;

pub use self::logging::{LogConfig, LogError, LogFormat};
pub(crate) use self::metrics::HeldBytes;
pub use self::metrics::{ConnectionRefusal, Metrics, OpenConnection};
pub(crate) use self::monitoring::Monitoring;
pub use self::monitoring::MonitoringConfig;
pub(crate) use self::observer::{CallObserver, CallRecord, Observer};
pub use self::tracing::{Tracing, TracingConfig, TracingError};

/// How a server is observed, for [`serve_observed`](super::serve_observed).
#[derive(Debug)]
pub struct Observability {
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Where `/metrics`, `/healthz` and `/readyz` are answered; `None`: nowhere.
    pub monitoring: Option<(TcpListener, MonitoringConfig)>,
    /// Where spans go; `None`: nowhere.
    pub tracing: Option<Tracing>,
    /// Whether documents are logged with their texts, at the level debug.
    pub log_documents: bool,
}

impl Observability {
    /// Counts what happens to `models`, and tells nobody.
    pub fn new(models: &Models) -> Self {
        let metrics = Arc::new(Metrics::new(models));
        Self { metrics, monitoring: None, tracing: None, log_documents: false }
    }
}
