//! Serving, from the first connection to the last.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tower::Layer;

use super::auth::Access;
use super::call::CallLayer;
use super::config::ServerConfig;
use super::connections::Connections;
use super::lifecycle::{Lifecycle, Phase};
use super::listen::{Listen, Listener};
use super::oip;
use super::proto::DESCRIPTORS;
use super::proto::classifier_server::{ClassifierServer, SERVICE_NAME};
use super::received::Budget;
use super::request::Intake;
use super::service::Service;
use super::telemetry::{Metrics, Monitoring, Observability, Observer};
use super::tls::Tls;
use super::watched::FileError;
use crate::engine::DrainReport;
use crate::pipeline::{Models, SettingError, WarmUpError};

/// How a server ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServeReport {
    /// What became of the work that the shutdown found, by model; last, that of models which a
    /// reload had replaced and which were not done.
    pub models: Vec<(String, DrainReport)>,
    /// Whether every connection closed by itself. Otherwise some were cut when the time for the
    /// shutdown was over.
    pub closed_in_time: bool,
}

/// Why a server does not serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// A setting cannot work.
    #[error("server setting {0}")]
    Config(#[from] SettingError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: Listen,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// A model loads but does not run.
    #[error(transparent)]
    WarmUp(#[from] WarmUpError),
    /// The API's own description cannot be read.
    #[error("the reflection service does not start: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// A certificate or a file of tokens is not usable.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Reads the files that `config` names, as [`serve`] would.
///
/// # Errors
/// One of them is not usable.
pub fn check_files(config: &ServerConfig) -> Result<(), FileError> {
    Access::load(&config.auth)?;
    Tls::load(&config.tls)?;
    Ok(())
}

/// Serves `models` on `listener` until `shutdown`, observed by nobody.
///
/// # Errors
/// As [`serve_observed`].
pub async fn serve(
    models: Models,
    listener: Listener,
    config: ServerConfig,
    shutdown: impl Future<Output = ()>,
) -> Result<ServeReport, ServeError> {
    let observability = Observability::new(&models);
    serve_observed(models, listener, config, observability, shutdown).await
}

/// Serves `models` on `listener` until `shutdown`, and reports to `observability`.
///
/// Connections are taken at once, but health says NOT_SERVING and calls are refused as UNAVAILABLE
/// until every model has run once. On `shutdown` health says NOT_SERVING first; then calls are
/// refused, what was accepted is answered, and when that is done the listener and the connections
/// are closed. All of it takes at most `config.drain_timeout`: whatever is still there then is cut.
/// The monitoring port is answered until then; spans that are left have the time for their flush
/// besides.
///
/// # Errors
/// See [`ServeError`]. Connections are cut.
pub async fn serve_observed(
    models: Models,
    listener: Listener,
    config: ServerConfig,
    mut observability: Observability,
    shutdown: impl Future<Output = ()>,
) -> Result<ServeReport, ServeError> {
    let report = serve_until(models, listener, config, &mut observability, shutdown).await;
    if let Some(tracing) = observability.tracing {
        tracing.finish().await;
    }
    report
}

async fn serve_until(
    models: Models,
    listener: Listener,
    config: ServerConfig,
    observability: &mut Observability,
    shutdown: impl Future<Output = ()>,
) -> Result<ServeReport, ServeError> {
    config.validate()?;
    let observer = Arc::new(Observer::new(observability));
    let metrics = observer.metrics();
    let server = Running {
        models: Arc::new(models),
        lifecycle: Arc::new(Lifecycle::new()),
        health: HealthReporter::new(),
        metrics: Arc::clone(metrics),
        drain_timeout: config.drain_timeout,
    };
    server.report(ServingStatus::NotServing).await;
    let _monitoring = match observability.monitoring.take() {
        Some((listener, config)) => {
            config.validate()?;
            let lifecycle = Arc::clone(&server.lifecycle);
            Some(Monitoring::start(listener, config, Arc::clone(metrics), lifecycle))
        }
        None => None,
    };
    let access = Access::load(&config.auth)?;
    let tls = Tls::load(&config.tls)?.map(Arc::new);
    let intake = Arc::new(Intake {
        access,
        max_message_bytes: config.max_message_bytes,
        message_timeout: config.message_timeout,
        stream_idle_timeout: config.stream_idle_timeout,
        budget: Arc::new(Budget::new(config.max_received_bytes, metrics.held_bytes().clone())),
    });
    let _refresh = AbortOnDrop(tokio::spawn(refresh(
        config.refresh_interval,
        Arc::clone(&intake),
        tls.clone(),
    )));
    let service = CallLayer::new(Arc::clone(&server.lifecycle), Arc::clone(&observer), intake)
        .layer(server.routes(&config)?.prepare());
    let (lifecycle, metrics) = (Arc::clone(&server.lifecycle), Arc::clone(metrics));
    let mut connections =
        pin!(Connections::new(service, config, tls, lifecycle, metrics).run(listener));
    let (bound, mut report) = tokio::select! {
        // Connections end only after the server itself has come to its end.
        () = &mut connections => return Ok(ServeReport::default()),
        report = server.live(shutdown) => report?,
    };
    server.lifecycle.advance(Phase::Stopping);
    report.closed_in_time = timeout_at(bound, &mut connections).await.is_ok();
    Ok(report)
}

/// Looks at the files of TLS and tokens every `interval`.
async fn refresh(interval: Duration, intake: Arc<Intake>, tls: Option<Arc<Tls>>) {
    loop {
        tokio::time::sleep(interval).await;
        let (intake, tls) = (Arc::clone(&intake), tls.clone());
        let look = move || {
            intake.access.refresh();
            if let Some(tls) = tls {
                tls.refresh();
            }
        };
        // A panic leaves what was read before in use.
        drop(tokio::task::spawn_blocking(look).await);
    }
}

/// A task that ends when this is dropped.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A server under way.
struct Running {
    models: Arc<Models>,
    lifecycle: Arc<Lifecycle>,
    health: HealthReporter,
    metrics: Arc<Metrics>,
    drain_timeout: Duration,
}

impl Running {
    fn routes(&self, config: &ServerConfig) -> Result<Routes, ServeError> {
        let service = Service::new(Arc::clone(&self.models), Arc::clone(&self.lifecycle), config);
        let classifier = ClassifierServer::new(service)
            .max_decoding_message_size(config.max_message_bytes)
            .accept_compressed(CompressionEncoding::Gzip);
        let inference = oip::server(Arc::clone(&self.models), Arc::clone(&self.lifecycle), config);
        let health = tonic_health::pb::health_server::HealthServer::new(
            tonic_health::server::HealthService::from_health_reporter(self.health.clone()),
        );
        // Clients have moved to v1, but grpcurl and others still ask for v1alpha.
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let mut routes = Routes::builder();
        routes
            .add_service(classifier)
            .add_service(inference)
            .add_service(health)
            .add_service(reflection().build_v1()?)
            .add_service(reflection().build_v1alpha()?);
        Ok(routes.routes())
    }

    /// Warms up, serves until `shutdown`, and drains. Returns when the shutdown has to be over.
    async fn live(
        &self,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(Instant, ServeReport), ServeError> {
        let mut shutdown = pin!(shutdown);
        tokio::select! {
            () = &mut shutdown => {}
            warm = self.models.warm_up() => {
                warm?;
                self.lifecycle.advance(Phase::Serving);
                self.report(ServingStatus::Serving).await;
                tracing::info!("serving");
                shutdown.await;
            }
        }
        Ok(self.drain().await)
    }

    async fn drain(&self) -> (Instant, ServeReport) {
        let bound = Instant::now() + self.drain_timeout;
        self.report(ServingStatus::NotServing).await;
        self.lifecycle.advance(Phase::Draining);
        tracing::info!(timeout = ?self.drain_timeout, "draining");
        // The engines go on until the accepted calls are answered: documents of theirs may still be
        // on their way into a queue.
        let end_of_work = bound - time_to_refuse(self.drain_timeout);
        let _ = timeout_at(end_of_work, self.lifecycle.idle()).await;
        let left = end_of_work.saturating_duration_since(Instant::now());
        let mut drains = JoinSet::new();
        let models = self.models.iter().chain(self.models.retiring());
        for (index, classifier) in models.enumerate() {
            drains.spawn(async move {
                let report = classifier.drain(left).await;
                (index, (classifier.info().name.clone(), report))
            });
        }
        let mut models = drains.join_all().await;
        models.sort_by_key(|(index, _)| *index);
        let models = models.into_iter().map(|(_, report)| report).collect();
        // Answered by the engine is not answered yet: replies are still on their way out. Half of
        // what is left is for the refusals of calls that are open even then.
        let refuse = bound - self.drain_timeout / 20;
        let _ = timeout_at(refuse, self.lifecycle.idle()).await;
        (bound, ServeReport { models, closed_in_time: false })
    }

    /// Says how the server as a whole and its two services are.
    async fn report(&self, status: ServingStatus) {
        self.metrics.set_serving(status == ServingStatus::Serving);
        for service in ["", SERVICE_NAME, oip::SERVICE_NAME] {
            self.health.set_service_status(service, status).await;
        }
    }
}

/// The end of a shutdown in which what is not answered by then is told so.
fn time_to_refuse(drain_timeout: Duration) -> Duration {
    (drain_timeout / 10).max(Duration::from_secs(1)).min(drain_timeout / 2)
}
