//! Every metric that calls and documents count.
//!
//! The registry is the server's own, so that servers in one process are not mixed up. Every series
//! whose labels are known when the server starts is there from the start: a rate over a counter
//! that springs into being with its first event misses that event.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tonic::Code;

use super::engine::{CacheCollector, EngineCollector};
use super::process::ProcessCollector;
use super::series::{
    Buckets, CallLabels, DocumentLabels, ErrorLabels, Histograms, LabelLabels, METHODS,
    MethodLabels, ModelLabels, OTHER, OutcomeLabels, RefusalLabels, SCORES, SECONDS, TOKENS,
    TaskLabels, WINDOWS, code_name, lane_name,
};
use crate::engine::Lane;
use crate::pipeline::{CacheStats, Classification, ModelInfo, Models, ReloadOutcome};
use crate::server::status::REASONS;

/// What one server counts.
pub struct Metrics {
    registry: Registry,
    requests: Family<CallLabels, Counter>,
    request_seconds: Histograms<MethodLabels>,
    requests_in_flight: Family<MethodLabels, Gauge>,
    errors: Family<ErrorLabels, Counter>,
    documents: Family<DocumentLabels, Counter>,
    tokenize_seconds: Histograms<DocumentLabels>,
    queue_seconds: Histograms<DocumentLabels>,
    inference_seconds: Histograms<DocumentLabels>,
    document_tokens: Histograms<ModelLabels>,
    document_windows: Histograms<ModelLabels>,
    truncated: Family<ModelLabels, Counter>,
    labels: Family<LabelLabels, Counter>,
    abstentions: Family<TaskLabels, Counter>,
    scores: Histograms<TaskLabels>,
    connections_open: Gauge,
    connections: Counter,
    connections_refused: Family<RefusalLabels, Counter>,
    connections_stalled: Counter,
    held_bytes: HeldBytes,
    reloads: Family<OutcomeLabels, Counter>,
    serving: Gauge,
    cache: Arc<RwLock<CacheSource>>,
}

/// Reads the cache's counters.
pub(super) type CacheSource = Box<dyn Fn() -> CacheStats + Send + Sync>;

/// Why a connection was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionRefusal {
    /// There were as many as there may be.
    Limit,
    /// TLS or HTTP/2 did not begin, or not in time.
    Handshake,
    /// The system gave none, such as for want of file descriptors.
    Accept,
}

/// The memory that messages take.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeldBytes {
    received: Gauge,
    answers: Gauge,
}

/// A connection. It is open until this is dropped.
#[derive(Debug)]
pub struct OpenConnection(Gauge);

/// Whose answer an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// That of a call as a whole.
    Call,
    /// That of one document of a batch or a stream.
    Document,
}

impl Metrics {
    /// Those of a server of `models`, all zero.
    pub fn new(models: &Models) -> Self {
        let family = |bounds| Histograms::new_with_constructor(Buckets(bounds));
        let mut metrics = Self {
            registry: Registry::default(),
            requests: Family::default(),
            request_seconds: Histograms::new_with_constructor(Buckets(SECONDS)),
            requests_in_flight: Family::default(),
            errors: Family::default(),
            documents: Family::default(),
            tokenize_seconds: family(SECONDS),
            queue_seconds: family(SECONDS),
            inference_seconds: family(SECONDS),
            document_tokens: Histograms::new_with_constructor(Buckets(TOKENS)),
            document_windows: Histograms::new_with_constructor(Buckets(WINDOWS)),
            truncated: Family::default(),
            labels: Family::default(),
            abstentions: Family::default(),
            scores: Histograms::new_with_constructor(Buckets(SCORES)),
            connections_open: Gauge::default(),
            connections: Counter::default(),
            connections_refused: Family::default(),
            connections_stalled: Counter::default(),
            held_bytes: HeldBytes::default(),
            reloads: Family::default(),
            serving: Gauge::default(),
            cache: Arc::new(RwLock::new(Box::new(CacheStats::default))),
        };
        metrics.register(models);
        metrics.create_known_series();
        for classifier in models.iter() {
            metrics.add_model(classifier.info());
        }
        metrics
    }

    /// Everything, in the text format of OpenMetrics.
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail, and what the collectors write is well formed.
        let _ = text::encode(&mut text, &self.registry);
        text
    }

    /// Reads the result cache with `read` from now on.
    pub fn set_cache(&self, read: impl Fn() -> CacheStats + Send + Sync + 'static) {
        *self.cache.write() = Box::new(read);
    }

    /// Counts a connection that was accepted; it is open until the result is dropped.
    pub fn connection_opened(&self) -> OpenConnection {
        self.connections.inc();
        self.connections_open.inc();
        OpenConnection(self.connections_open.clone())
    }

    /// Counts a connection that was not taken.
    pub fn connection_refused(&self, reason: ConnectionRefusal) {
        self.connections_refused.get_or_create(&RefusalLabels { reason: reason.name() }).inc();
    }

    /// Counts a connection that was cut because its client did not take its answers.
    pub fn connection_stalled(&self) {
        self.connections_stalled.inc();
    }

    /// Where the memory that messages take is shown.
    pub(crate) fn held_bytes(&self) -> &HeldBytes {
        &self.held_bytes
    }

    /// Counts the reload of a model; one that was found unchanged is none.
    pub fn reloaded(&self, outcome: &ReloadOutcome) {
        let outcome = match outcome {
            ReloadOutcome::Replaced { new, .. } => {
                self.add_model(new);
                "success"
            }
            ReloadOutcome::Failed(_) => "failure",
            ReloadOutcome::Unchanged => return,
        };
        self.reloads.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// Says whether calls are answered.
    pub(crate) fn set_serving(&self, serving: bool) {
        self.serving.set(i64::from(serving));
    }

    /// The label of the method at `path`, that of an HTTP request.
    pub(super) fn method(path: &str) -> &'static str {
        let path = path.strip_prefix('/').unwrap_or(path);
        METHODS.into_iter().find(|method| *method == path).unwrap_or(OTHER)
    }

    pub(super) fn call_started(&self, method: &'static str) {
        self.requests_in_flight.get_or_create(&MethodLabels { method }).inc();
    }

    pub(super) fn call_ended(&self, method: &'static str, code: Code, time: Duration) {
        self.requests_in_flight.get_or_create(&MethodLabels { method }).dec();
        self.requests.get_or_create(&CallLabels { method, code: code_name(code) }).inc();
        self.request_seconds.get_or_create(&MethodLabels { method }).observe(time.as_secs_f64());
    }

    /// Counts an error for `reason`, one of [`REASONS`] or another.
    pub(super) fn failed(&self, scope: Scope, reason: &str) {
        let reason = REASONS.iter().find(|known| **known == reason).copied().unwrap_or(OTHER);
        self.errors.get_or_create(&ErrorLabels { scope: scope.name(), reason }).inc();
    }

    /// Counts a document that was answered.
    pub(super) fn answered(&self, lane: Lane, answer: &Classification) {
        let document = DocumentLabels { model: answer.model.clone(), lane: lane_name(lane) };
        // One that was known took none of the steps: zeros would hide what the others took.
        if !answer.usage.cached {
            let timing = &answer.timing;
            for (histogram, time) in [
                (&self.tokenize_seconds, timing.tokenize),
                (&self.queue_seconds, timing.queue),
                (&self.inference_seconds, timing.inference),
            ] {
                histogram.get_or_create(&document).observe(time.as_secs_f64());
            }
        }
        self.documents.get_or_create(&document).inc();
        let model = ModelLabels { model: document.model };
        self.document_tokens.get_or_create(&model).observe(answer.usage.tokens as f64);
        self.document_windows.get_or_create(&model).observe(answer.usage.windows as f64);
        if answer.usage.truncated {
            self.truncated.get_or_create(&model).inc();
        }
        for result in &answer.tasks {
            let task = TaskLabels { model: answer.model.clone(), task: result.task.clone() };
            self.scores.get_or_create(&task).observe(f64::from(result.score));
            if result.abstained {
                self.abstentions.get_or_create(&task).inc();
            }
            let TaskLabels { model, task } = task;
            let label = LabelLabels { model, task, label: result.label.clone() };
            self.labels.get_or_create(&label).inc();
        }
    }

    fn register(&mut self, models: &Models) {
        let process = Box::new(ProcessCollector);
        self.registry.register_collector(process);
        let ours = self.registry.sub_registry_with_prefix("tasnif");
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        ours.register("build", "The server", version);
        let serving = "1 while calls are answered, 0 while the server warms up or drains";
        ours.register("serving", serving, self.serving.clone());
        ours.register("requests", "Calls that ended", self.requests.clone());
        let help = "From the start of a call to the end of its answer";
        ours.register("request_duration_seconds", help, self.request_seconds.clone());
        let help = "Calls that have begun and not ended";
        ours.register("requests_in_flight", help, self.requests_in_flight.clone());
        let help = "Errors by reason, of calls and of single documents of batches and streams";
        ours.register("errors", help, self.errors.clone());
        ours.register("documents", "Documents answered", self.documents.clone());
        let help = "Normalising, tokenising and cutting windows of a document";
        ours.register("document_tokenize_seconds", help, self.tokenize_seconds.clone());
        let help = "From a document's admission to the start of its first batch";
        ours.register("document_queue_seconds", help, self.queue_seconds.clone());
        let help = "From there to the end of its last batch";
        ours.register("document_inference_seconds", help, self.inference_seconds.clone());
        ours.register("document_tokens", "Tokens of a document", self.document_tokens.clone());
        ours.register("document_windows", "Windows of a document", self.document_windows.clone());
        let help = "Documents answered of which a part was not read";
        ours.register("documents_truncated", help, self.truncated.clone());
        ours.register("labels", "Documents by their best label", self.labels.clone());
        let help = "Documents whose best label is under the task's threshold";
        ours.register("abstentions", help, self.abstentions.clone());
        let help = "Calibrated probability of the best label";
        ours.register("label_score", help, self.scores.clone());
        let help = "Connections that are open";
        ours.register("connections_open", help, self.connections_open.clone());
        ours.register("connections", "Connections accepted", self.connections.clone());
        let help = "Connections that were not taken";
        ours.register("connections_refused", help, self.connections_refused.clone());
        let help = "Connections cut because their client did not take its answers";
        ours.register("connections_stalled", help, self.connections_stalled.clone());
        let help = "Messages that are not answered yet";
        ours.register("received_bytes", help, self.held_bytes.received.clone());
        let help = "Answers that are not sent yet";
        ours.register("answer_bytes", help, self.held_bytes.answers.clone());
        ours.register("reloads", "Reloads of the models by outcome", self.reloads.clone());
        ours.register_collector(Box::new(EngineCollector(models.clone())));
        ours.register_collector(Box::new(CacheCollector(Arc::clone(&self.cache))));
    }

    /// Creates the series that every server has. Reading one creates it.
    fn create_known_series(&self) {
        for method in METHODS.into_iter().chain([OTHER]) {
            drop(self.request_seconds.get_or_create(&MethodLabels { method }));
            drop(self.requests_in_flight.get_or_create(&MethodLabels { method }));
            for code in (0..=16).map(Code::from_i32).map(code_name) {
                drop(self.requests.get_or_create(&CallLabels { method, code }));
            }
        }
        for reason in REASONS.iter().copied().chain([OTHER]) {
            for scope in [Scope::Call, Scope::Document].map(Scope::name) {
                drop(self.errors.get_or_create(&ErrorLabels { scope, reason }));
            }
        }
        use ConnectionRefusal::{Accept, Handshake, Limit};
        for reason in [Limit, Handshake, Accept].map(ConnectionRefusal::name) {
            drop(self.connections_refused.get_or_create(&RefusalLabels { reason }));
        }
        for outcome in ["success", "failure"] {
            drop(self.reloads.get_or_create(&OutcomeLabels { outcome }));
        }
    }

    /// Creates the series of a model, where they are not there yet. They stay when it is replaced.
    pub(crate) fn add_model(&self, info: &ModelInfo) {
        let model = ModelLabels { model: info.name.clone() };
        for lane in [Lane::Interactive, Lane::Bulk].map(lane_name) {
            let document = DocumentLabels { model: info.name.clone(), lane };
            drop(self.documents.get_or_create(&document));
            for family in [&self.tokenize_seconds, &self.queue_seconds, &self.inference_seconds] {
                drop(family.get_or_create(&document));
            }
        }
        drop(self.document_tokens.get_or_create(&model));
        drop(self.document_windows.get_or_create(&model));
        drop(self.truncated.get_or_create(&model));
        for task in &info.tasks {
            let labels = TaskLabels { model: info.name.clone(), task: task.name.clone() };
            drop(self.scores.get_or_create(&labels));
            drop(self.abstentions.get_or_create(&labels));
            for label in &task.labels {
                drop(self.labels.get_or_create(&LabelLabels {
                    model: info.name.clone(),
                    task: task.name.clone(),
                    label: label.id.clone(),
                }));
            }
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl ConnectionRefusal {
    fn name(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Handshake => "handshake",
            Self::Accept => "accept",
        }
    }
}

impl HeldBytes {
    /// Shows the bytes of messages that are not answered yet, and of answers that are not sent.
    pub(crate) fn set(&self, received: usize, answers: usize) {
        let shown = |bytes: usize| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.received.set(shown(received));
        self.answers.set(shown(answers));
    }
}

impl Scope {
    fn name(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Document => "document",
        }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use prost_types::FileDescriptorSet;

    use super::*;

    /// A method that is added to the API gets series of its own.
    #[test]
    fn every_method_of_the_api_is_known() {
        let ours = FileDescriptorSet::decode(crate::server::proto::DESCRIPTORS).unwrap();
        let methods = ours.file.iter().flat_map(|file| {
            let package = file.package();
            file.service.iter().flat_map(move |service| {
                let of = move |method: &str| format!("/{package}.{}/{method}", service.name());
                service.method.iter().map(move |method| of(method.name()))
            })
        });
        let methods: Vec<String> = methods.collect();
        assert!(methods.len() >= 5, "{methods:?}");
        for method in methods {
            assert_ne!(Metrics::method(&method), OTHER, "{method}");
        }
        assert_eq!(Metrics::method("/tasnif.v1.Classifier/Steal"), OTHER);
    }
}
