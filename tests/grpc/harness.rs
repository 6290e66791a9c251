//! A server on a free port, with the tiny model behind a gate that a test can shut.

use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use tasnif::bundle::Bundle;
use tasnif::engine::{EngineConfig, EngineStats};
use tasnif::nn::{self, Encoder, PrecisionChoice};
use tasnif::pipeline::{Classifier, DocumentLimits, LoadError, Models};
use tasnif::server::proto::classifier_client::ClassifierClient;
use tasnif::server::proto::{self, item_result::Outcome};
use tasnif::server::telemetry::{MonitoringConfig, Tracing};
use tasnif::server::{
    Listen, Observability, ServeError, ServeReport, ServerConfig, bind, serve_observed,
};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

use crate::support::tiny_bundle;
use crate::support::wrapped::wrapped;

/// Longest that a test waits for what must happen; far more than it ever takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Sentences for documents of any length.
pub(crate) const SENTENCES: [&str; 4] = [
    "قال الوزير إن الحكومة وافقت على المشروع الجديد.",
    "ارتفعت أسعار النفط في الأسواق العالمية اليوم.",
    "فاز الفريق بالمباراة بعد أداء قوي في الشوط الثاني.",
    "حذرت هيئة الأرصاد من أمطار غزيرة على الساحل!",
];

/// A server that runs until [`stop`](Self::stop), or until it is dropped.
pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
    /// Where `/metrics` is.
    pub(crate) monitoring: SocketAddr,
    pub(crate) gate: Arc<Gate>,
    pub(crate) models: Models,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<ServeReport, ServeError>>,
    _bundle: TempDir,
}

/// Lets batches through, or holds each of them until it is opened.
#[derive(Default)]
pub(crate) struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    shut: bool,
    entered: usize,
    panics: usize,
}

impl TestServer {
    /// A server that is ready.
    pub(crate) async fn start() -> Self {
        Self::start_with(ServerConfig::default(), EngineConfig::default()).await
    }

    /// A server with these settings that is ready.
    pub(crate) async fn start_with(config: ServerConfig, engine: EngineConfig) -> Self {
        let server = Self::warming_up(config, engine, Gate::default()).await;
        server.until("", ServingStatus::Serving).await;
        server
    }

    /// A server with these settings that may still warm up, for those that plain calls cannot ask.
    pub(crate) async fn begin(config: ServerConfig) -> Self {
        Self::warming_up(config, EngineConfig::default(), Gate::default()).await
    }

    /// A server that has begun to warm up.
    pub(crate) async fn warming_up(config: ServerConfig, engine: EngineConfig, gate: Gate) -> Self {
        Self::observed(config, engine, gate, MonitoringConfig::default(), None).await
    }

    /// A server that has begun to warm up, monitored and traced like this.
    pub(crate) async fn observed(
        config: ServerConfig,
        engine: EngineConfig,
        gate: Gate,
        monitoring: MonitoringConfig,
        tracing: Option<Tracing>,
    ) -> Self {
        let bundle = tempfile::tempdir().unwrap();
        let gate = Arc::new(gate);
        let models = Models::new(vec![
            classifier(&bundle, "tiny", engine, &gate),
            classifier(&bundle, "other", engine, &gate),
        ])
        .unwrap();
        Self::start_serving(models, config, gate, bundle, monitoring, tracing).await
    }

    /// A server of `models`, whose files are in `bundle`, that has begun to warm up.
    pub(crate) async fn serving(
        models: Models,
        config: ServerConfig,
        gate: Arc<Gate>,
        bundle: TempDir,
    ) -> Self {
        let monitoring = MonitoringConfig::default();
        Self::start_serving(models, config, gate, bundle, monitoring, None).await
    }

    async fn start_serving(
        models: Models,
        config: ServerConfig,
        gate: Arc<Gate>,
        bundle: TempDir,
        monitoring: MonitoringConfig,
        tracing: Option<Tracing>,
    ) -> Self {
        // A port that is free.
        let free = Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)));
        let listen = if config.listen == Listen::default() { free } else { config.listen };
        let config = ServerConfig { listen, ..config };
        let listener = bind(&config.listen).await.unwrap();
        let address = match listener.address() {
            Listen::Tcp(address) => *address,
            Listen::Unix(_) => SocketAddr::from(([0, 0, 0, 0], 0)),
        };
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let monitored = port.local_addr().unwrap();
        let mut observability = Observability::new(&models);
        observability.monitoring = Some((port, monitoring));
        observability.tracing = tracing;
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            let _ = stopped.await;
        };
        let serving =
            tokio::spawn(serve_observed(models.clone(), listener, config, observability, shutdown));
        Self { address, monitoring: monitored, gate, models, stop, serving, _bundle: bundle }
    }

    /// Shuts down, and waits until the server has ended.
    pub(crate) async fn stop(self) -> ServeReport {
        self.stop_soon().await
    }

    /// Signals the shutdown; the future waits until the server has ended.
    pub(crate) fn stop_soon(self) -> impl Future<Output = ServeReport> {
        let Self { stop, serving, _bundle, .. } = self;
        stop.send(()).unwrap();
        async move {
            let _bundle = _bundle;
            tokio::time::timeout(PATIENCE, serving).await.expect("serve returns").unwrap().unwrap()
        }
    }

    /// A connection of its own.
    pub(crate) async fn channel(&self) -> Channel {
        self.endpoint().connect().await.unwrap()
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint::from_shared(format!("http://{}", self.address)).unwrap()
    }

    /// A client with a connection of its own.
    pub(crate) async fn client(&self) -> ClassifierClient<Channel> {
        ClassifierClient::new(self.channel().await)
    }

    /// Waits until the counters of the default model's engine are as `reached` says.
    pub(crate) async fn until_stats(&self, reached: impl Fn(EngineStats) -> bool) {
        let classifier = self.models.get("").unwrap();
        let waiting = async {
            while !reached(classifier.stats()) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("the engine gets there");
    }

    /// Waits until health says `status` of `service`.
    pub(crate) async fn until(&self, service: &str, status: ServingStatus) {
        let mut client = HealthClient::new(self.channel().await);
        let request = HealthCheckRequest { service: service.to_owned() };
        let mut watch = client.watch(request).await.unwrap().into_inner();
        let reached =
            async { while watch.message().await.unwrap().unwrap().status != status as i32 {} };
        tokio::time::timeout(PATIENCE, reached).await.expect("health changes");
    }
}

fn classifier(
    bundle: &TempDir,
    name: &str,
    engine: EngineConfig,
    gate: &Arc<Gate>,
) -> Arc<Classifier> {
    let path = bundle.path().join(name);
    tiny_bundle(&path);
    let bundle = Bundle::load(&path).unwrap();
    Arc::new(gated(bundle, name, engine, gate).unwrap())
}

/// The model of `bundle` behind `gate`.
pub(crate) fn gated(
    bundle: Bundle,
    name: &str,
    engine: EngineConfig,
    gate: &Arc<Gate>,
) -> Result<Classifier, LoadError> {
    gated_within(bundle, name, engine, gate, DocumentLimits::default())
}

/// The same, with these limits.
pub(crate) fn gated_within(
    bundle: Bundle,
    name: &str,
    engine: EngineConfig,
    gate: &Arc<Gate>,
    limits: DocumentLimits,
) -> Result<Classifier, LoadError> {
    let gate = Arc::clone(gate);
    let gated =
        wrapped(nn::load(&bundle, PrecisionChoice::default())?, move |encoder, batch, pause| {
            gate.pass();
            encoder.encode(batch, pause)
        });
    Classifier::new(bundle, Some(name), Arc::new(gated), engine, limits)
}

impl Gate {
    /// A gate that is shut from the start.
    pub(crate) fn shut_from_the_start() -> Self {
        let gate = Self::default();
        gate.shut();
        gate
    }

    /// Holds the batches that come from now on.
    pub(crate) fn shut(&self) {
        self.state.lock().unwrap().shut = true;
    }

    /// Lets all batches through.
    pub(crate) fn open(&self) {
        self.state.lock().unwrap().shut = false;
        self.changed.notify_all();
    }

    /// Makes the next batch panic.
    pub(crate) fn panic_next(&self) {
        self.state.lock().unwrap().panics += 1;
    }

    /// Batches that have come to the gate so far.
    pub(crate) fn entered(&self) -> usize {
        self.state.lock().unwrap().entered
    }

    /// Waits until more than `before` batches have come to the gate.
    pub(crate) async fn until_entered_after(self: &Arc<Self>, before: usize) {
        let gate = Arc::clone(self);
        let waiting = tokio::task::spawn_blocking(move || {
            let state = gate.state.lock().unwrap();
            let condition = |state: &mut GateState| state.entered <= before;
            let (_state, waited) =
                gate.changed.wait_timeout_while(state, PATIENCE, condition).unwrap();
            assert!(!waited.timed_out(), "no batch came to the gate");
        });
        waiting.await.unwrap();
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.entered += 1;
        self.changed.notify_all();
        if state.panics > 0 {
            state.panics -= 1;
            drop(state);
            panic!("the test asked for this");
        }
        let _state = self.changed.wait_while(state, |state| state.shut).unwrap();
    }
}

/// A text of `count` sentences.
pub(crate) fn text(count: usize) -> String {
    SENTENCES.iter().cycle().take(count).copied().collect::<Vec<_>>().join(" ")
}

/// A document of one sentence, which differs with `index`.
pub(crate) fn document(index: usize) -> proto::Document {
    let sentence = SENTENCES[index % SENTENCES.len()];
    proto::Document {
        id: index.to_string(),
        title: String::new(),
        text: format!("{index} {sentence}"),
    }
}

/// A document of one sentence with options.
pub(crate) fn request(options: proto::Options) -> proto::ClassifyRequest {
    proto::ClassifyRequest { document: Some(document(0)), options: Some(options) }
}

/// A document alone.
pub(crate) fn plain(document: proto::Document) -> proto::ClassifyRequest {
    proto::ClassifyRequest { document: Some(document), options: None }
}

/// Asserts the code and the reason of a status, and returns the fields that it names.
#[track_caller]
pub(crate) fn assert_status(status: &Status, code: Code, reason: &str) -> Vec<String> {
    assert_eq!(status.code(), code, "{status:?}");
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no ErrorInfo: {status:?}"));
    assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason, "tasnif"));
    let violations = details.bad_request().map_or(&[][..], |bad| &bad.field_violations);
    violations.iter().map(|violation| violation.field.clone()).collect()
}

/// A figure in the details of a status.
pub(crate) fn figure(status: &Status, key: &str) -> String {
    let info = status.get_details_error_info().unwrap();
    info.metadata.get(key).unwrap_or_else(|| panic!("no {key}: {info:?}")).clone()
}

/// Whether a status says when to try again.
pub(crate) fn says_when_to_retry(status: &Status) -> bool {
    let delay = status.get_details_retry_info().and_then(|retry| retry.retry_delay);
    delay.is_some_and(|delay| !delay.is_zero())
}

/// The answer in an item.
#[track_caller]
pub(crate) fn answer(item: &proto::ItemResult) -> &proto::Classification {
    match &item.outcome {
        Some(Outcome::Classification(answer)) => answer,
        other => panic!("{}: {other:?}", item.id),
    }
}

/// The code and the message of an item without an answer.
#[track_caller]
pub(crate) fn error(item: &proto::ItemResult) -> (Code, &str) {
    match &item.outcome {
        Some(Outcome::Error(error)) => (Code::from(error.code), &error.message),
        other => panic!("{}: {other:?}", item.id),
    }
}
