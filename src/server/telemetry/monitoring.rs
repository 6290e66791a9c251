//! `/metrics`, `/healthz` and `/readyz`, on a port of their own.
//!
//! The port must not be a way in: only GET and HEAD of these three paths are answered, no body is
//! read, and headers, connections and times have bounds. Whoever is over them is cut off.

use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::metrics::Metrics;
use crate::pipeline::{SettingError, check_times};
use crate::server::lifecycle::{Lifecycle, Phase};

/// Bytes that the head of a request may have, and headers in it.
const MAX_HEAD_BYTES: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;

/// Pause after a failed accept, which would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// The monitoring port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct MonitoringConfig {
    /// Where to listen; `None`: nowhere.
    pub listen: Option<SocketAddr>,
    /// Connections at a time; one more waits until one ends.
    pub max_connections: usize,
    /// How long a client may take to send the head of a request.
    #[serde(with = "humantime_serde")]
    pub header_timeout: Duration,
    /// How long a connection may last. It ends between two requests, and a request under way has
    /// as long again.
    #[serde(with = "humantime_serde")]
    pub max_connection_age: Duration,
}

impl Default for MonitoringConfig {
    fn default() -> Self {
        Self {
            listen: None,
            max_connections: 32,
            header_timeout: Duration::from_secs(5),
            max_connection_age: Duration::from_secs(60),
        }
    }
}

impl MonitoringConfig {
    /// Checks every setting.
    ///
    /// # Errors
    /// Names the first that cannot work, with its value and what is allowed.
    pub fn validate(&self) -> Result<(), SettingError> {
        if !(1..=1024).contains(&self.max_connections) {
            return Err(SettingError {
                field: "monitoring.max_connections",
                value: self.max_connections.to_string(),
                expected: "from 1 to 1024",
            });
        }
        check_times([
            ("monitoring.header_timeout", self.header_timeout),
            ("monitoring.max_connection_age", self.max_connection_age),
        ])
    }
}

/// The task that answers the monitoring port. Dropping it closes the port and its connections.
#[derive(Debug)]
pub(crate) struct Monitoring {
    _task: JoinSet<()>,
}

/// What the answers need.
struct Answers {
    metrics: Arc<Metrics>,
    lifecycle: Arc<Lifecycle>,
}

impl Monitoring {
    /// Answers on `listener`.
    pub(crate) fn start(
        listener: TcpListener,
        config: MonitoringConfig,
        metrics: Arc<Metrics>,
        lifecycle: Arc<Lifecycle>,
    ) -> Self {
        let mut task = JoinSet::new();
        task.spawn(accept(listener, config, Arc::new(Answers { metrics, lifecycle })));
        Self { _task: task }
    }
}

async fn accept(listener: TcpListener, config: MonitoringConfig, answers: Arc<Answers>) {
    let places = Arc::new(Semaphore::new(config.max_connections));
    let mut connections = JoinSet::new();
    loop {
        // The place first: who finds none stays with the operating system, whose line is bounded.
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let answers = Arc::clone(&answers);
                connections.spawn(async move {
                    let _place = place;
                    serve(stream, config, answers).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection for monitoring was not accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, config: MonitoringConfig, answers: Arc<Answers>) {
    let answer = service_fn(move |request: Request<hyper::body::Incoming>| {
        let answers = Arc::clone(&answers);
        async move { Ok::<_, Infallible>(answers.answer(request.method(), request.uri().path())) }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(config.header_timeout)
            .max_buf_size(MAX_HEAD_BYTES)
            .max_headers(MAX_HEADERS)
            .serve_connection(TokioIo::new(stream), answer)
    );
    // How a connection ends is its client's business.
    if timeout(config.max_connection_age, &mut connection).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = timeout(config.max_connection_age, connection).await;
    }
}

impl Answers {
    fn answer(&self, method: &Method, path: &str) -> Response<String> {
        let (status, kind, body) = match path {
            _ if !["/metrics", "/healthz", "/readyz"].contains(&path) => {
                (StatusCode::NOT_FOUND, PLAIN, "not found\n".to_owned())
            }
            _ if method != Method::GET && method != Method::HEAD => {
                (StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET and HEAD\n".to_owned())
            }
            "/metrics" => (StatusCode::OK, OPENMETRICS, self.metrics.render()),
            "/healthz" => (StatusCode::OK, PLAIN, "alive\n".to_owned()),
            _ => {
                let (status, phase) = readiness(self.lifecycle.phase());
                (status, PLAIN, format!("{phase}\n"))
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        response
    }
}

fn readiness(phase: Phase) -> (StatusCode, &'static str) {
    match phase {
        Phase::Serving => (StatusCode::OK, "serving"),
        Phase::WarmingUp => (StatusCode::SERVICE_UNAVAILABLE, "warming up"),
        Phase::Draining | Phase::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_cannot_work_is_named() {
        let good = MonitoringConfig::default();
        assert_eq!(good.validate(), Ok(()));
        for (field, bad) in [
            ("monitoring.max_connections", MonitoringConfig { max_connections: 0, ..good }),
            (
                "monitoring.header_timeout",
                MonitoringConfig { header_timeout: Duration::ZERO, ..good },
            ),
            (
                "monitoring.max_connection_age",
                MonitoringConfig { max_connection_age: Duration::ZERO, ..good },
            ),
        ] {
            assert_eq!(bad.validate().unwrap_err().field, field);
        }
    }
}
