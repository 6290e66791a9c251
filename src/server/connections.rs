//! All connections: which are accepted, and when each is closed.
//!
//! This is tonic's own accept loop over hyper, with what that one lacks: bounds on connections,
//! silent and idle ones closed, slow readers cut, an age after which a connection is asked to end
//! before it is, and an end that does not wait for its peer (hyper #4170).

use std::collections::HashMap;
use std::io::Cursor;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tonic::body::Body;
use tonic::service::Routes;
use tower::ServiceExt;

use super::call::CallService;
use super::config::ServerConfig;
use super::connection::{Connection, network};
use super::lifecycle::{Lifecycle, Phase};
use super::listen::{Accepted, ByteStream, Listener};
use super::telemetry::{ConnectionRefusal, Metrics};
use super::tls::{Secured, Tls};

/// Pause after a failed accept. Out of file descriptors, say, the next accept fails at once too,
/// and trying it in a loop would take a core away from the work that frees them.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What a client begins HTTP/2 with (RFC 9113, 3.4); hyper reads it, and only then asks whether the
/// client is alive.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What one call may have of its connection's receive window, in parts: calls whose messages wait
/// must not hold up the others. Nor may they end the connection: h2 does so (ENHANCE_YOUR_CALM) once
/// 256 less the length of each unread frame come to half of the connection's window: one call is far
/// from that with messages of 30 bytes and more, and four with those of 86.
const CALL_WINDOWS: u32 = 32;
/// How often a connection is looked at, in parts of the shortest timeout.
const LOOKS: u32 = 4;
/// Streams that a client may open and reset before they are worked on; more of them are an attack
/// (CVE-2023-44487, "rapid reset").
const MAX_PENDING_RESETS: usize = 64;

/// Accepts connections and serves calls on them.
pub(crate) struct Connections {
    shared: Arc<Shared>,
}

struct Shared {
    service: CallService<Routes>,
    config: ServerConfig,
    tls: Option<Arc<Tls>>,
    lifecycle: Arc<Lifecycle>,
    metrics: Arc<Metrics>,
    places: Arc<Places>,
}

/// How many connections there are, in all and from each address.
#[derive(Debug, Default)]
struct Places {
    taken: Mutex<(usize, HashMap<IpAddr, usize>)>,
}

/// The place of one connection, free again when this is dropped.
#[derive(Debug)]
struct Place {
    places: Arc<Places>,
    ip: Option<IpAddr>,
}

impl Connections {
    /// Connections whose calls `service` answers.
    pub(crate) fn new(
        service: CallService<Routes>,
        config: ServerConfig,
        tls: Option<Arc<Tls>>,
        lifecycle: Arc<Lifecycle>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let places = Arc::default();
        Self { shared: Arc::new(Shared { service, config, tls, lifecycle, metrics, places }) }
    }

    /// Accepts until the server is [`Phase::Stopping`], and returns when every connection has
    /// closed. Dropping the future cuts those that are open.
    pub(crate) async fn run(self, listener: Listener) {
        let mut open = JoinSet::new();
        let mut stopping = pin!(self.shared.lifecycle.reached(Phase::Stopping));
        loop {
            tokio::select! {
                () = &mut stopping => break,
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => self.start(accepted, &mut open),
                    Err(error) => {
                        self.shared.metrics.connection_refused(ConnectionRefusal::Accept);
                        tracing::warn!(%error, "a connection was not accepted");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = open.join_next() => {}
            }
        }
        // Before the wait for the open ones, so that clients find nobody here rather than wait.
        drop(listener);
        while open.join_next().await.is_some() {}
    }

    fn start(&self, accepted: Accepted, open: &mut JoinSet<()>) {
        let Accepted { stream, ip } = accepted;
        let shared = Arc::clone(&self.shared);
        let config = &shared.config;
        let most = (config.max_connections, config.max_connections_per_address);
        let Some(place) = shared.places.take(ip, most) else {
            shared.metrics.connection_refused(ConnectionRefusal::Limit);
            tracing::debug!(?ip, "too many connections; one is closed");
            return;
        };
        let counted = shared.metrics.connection_opened();
        open.spawn(async move {
            shared.connection(stream, ip).await;
            drop((place, counted));
        });
    }
}

impl Shared {
    async fn connection(&self, stream: Box<dyn ByteStream>, ip: Option<IpAddr>) {
        let limit = self.config.handshake_timeout;
        let handshake = tokio::select! {
            () = self.lifecycle.reached(Phase::Stopping) => return,
            handshake = timeout(limit, self.handshake(stream)) => handshake,
        };
        match handshake.unwrap_or_else(|_| Err(format!("no HTTP/2 after {limit:?}"))) {
            Ok(Secured { stream, certificate }) => {
                self.serve(stream, &Arc::new(Connection::new(certificate, ip))).await;
            }
            Err(error) => {
                self.metrics.connection_refused(ConnectionRefusal::Handshake);
                tracing::debug!(?ip, error, "no connection");
            }
        }
    }

    /// The handshake of TLS, if there is TLS, and the beginning of HTTP/2, which the stream gives
    /// again.
    async fn handshake(&self, stream: Box<dyn ByteStream>) -> Result<Secured, String> {
        let Secured { stream, certificate } = match &self.tls {
            None => Secured { stream, certificate: None },
            Some(tls) => tls.accept(stream).await.map_err(|error| error.to_string())?,
        };
        let (mut read, write) = tokio::io::split(stream);
        let mut preface = Vec::new();
        // Until it is whole, or another protocol's; hyper says so then, as where the stream ends.
        while preface.len() < PREFACE.len() && PREFACE.starts_with(&preface) {
            let rest = (PREFACE.len() - preface.len()) as u64;
            match (&mut read).take(rest).read_buf(&mut preface).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
        let stream = tokio::io::join(Cursor::new(preface).chain(read), write);
        Ok(Secured { stream: Box::new(stream), certificate })
    }

    async fn serve(&self, stream: Box<dyn ByteStream>, connection: &Arc<Connection>) {
        let config = &self.config;
        let of_calls = Arc::clone(connection);
        let service = self.service.clone().map_request(move |request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(Arc::clone(&of_calls));
            request
        });
        let io = TokioIo::new(stream);
        let serving = transport(config).serve_connection(io, TowerToHyperService::new(service));
        let mut serving = pin!(serving);

        let mut looks = interval(config.shortest_connection_timeout() / LOOKS);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stopping = pin!(self.lifecycle.reached(Phase::Stopping));
        let mut age = Age::new(config);
        let mut asked_to_end = false;
        loop {
            tokio::select! {
                ended = &mut serving => {
                    if let Err(error) = ended {
                        tracing::debug!(client = %connection.client(), %error, "a connection failed");
                    }
                    return;
                }
                () = &mut stopping, if !asked_to_end => {
                    asked_to_end = true;
                    serving.as_mut().graceful_shutdown();
                }
                step = age.next() => match step {
                    AgeStep::NoNewCalls => {
                        asked_to_end = true;
                        serving.as_mut().graceful_shutdown();
                    }
                    AgeStep::EndStreams => connection.end(),
                    AgeStep::Cut => return,
                },
                _ = looks.tick() => {
                    if connection.is_stalled(config.response_timeout) {
                        self.metrics.connection_stalled();
                        tracing::debug!(client = %connection.client(), "cut: its answers are not read");
                        return;
                    }
                    if connection.is_idle(config.idle_timeout) {
                        // A peer that does not answer even this is cut at the next look.
                        if asked_to_end {
                            return;
                        }
                        asked_to_end = true;
                        serving.as_mut().graceful_shutdown();
                    }
                }
            }
        }
    }
}

fn transport(config: &ServerConfig) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(config.max_concurrent_streams)
        .initial_connection_window_size(config.connection_window_bytes)
        .initial_stream_window_size(config.connection_window_bytes / CALL_WINDOWS)
        .max_header_list_size(config.max_header_bytes)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .keep_alive_interval(config.keepalive_interval)
        .keep_alive_timeout(config.keepalive_timeout);
    builder
}

/// What happens to a connection as it grows old, step by step.
struct Age {
    next: Option<(AgeStep, Instant)>,
    grace: Duration,
}

#[derive(Clone, Copy)]
enum AgeStep {
    /// The client is asked to make its next calls on another connection.
    NoNewCalls,
    /// Streams answer what they have read, and end.
    EndStreams,
    /// What is left is cut.
    Cut,
}

impl Age {
    fn new(config: &ServerConfig) -> Self {
        let first = config.max_connection_age.and_then(|age| Instant::now().checked_add(age));
        let next = first.map(|at| (AgeStep::NoNewCalls, at));
        Self { next, grace: config.max_connection_age_grace }
    }

    /// The next step, when it is due. Never, if there is none. Cancel safe.
    async fn next(&mut self) -> AgeStep {
        let Some((step, at)) = self.next else { return std::future::pending().await };
        tokio::time::sleep_until(at).await;
        let later = match step {
            AgeStep::NoNewCalls => Some((AgeStep::EndStreams, at + self.grace)),
            AgeStep::EndStreams => Some((AgeStep::Cut, at + self.grace)),
            AgeStep::Cut => None,
        };
        self.next = later;
        step
    }
}

impl Places {
    /// A place for a connection from `ip`, of `most` in all and from one address.
    fn take(self: &Arc<Self>, ip: Option<IpAddr>, most: (usize, usize)) -> Option<Place> {
        let ip = ip.map(network);
        let mut taken = self.taken.lock();
        let (all, by_address) = &mut *taken;
        if *all >= most.0 {
            return None;
        }
        if let Some(ip) = ip {
            let from_there = by_address.entry(ip).or_default();
            if *from_there >= most.1 {
                return None;
            }
            *from_there += 1;
        }
        *all += 1;
        Some(Place { places: Arc::clone(self), ip })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock();
        let (all, by_address) = &mut *taken;
        *all -= 1;
        if let Some(ip) = self.ip
            && let Some(from_there) = by_address.get_mut(&ip)
        {
            *from_there -= 1;
            if *from_there == 0 {
                by_address.remove(&ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_in_all_and_by_address() {
        let places = Arc::new(Places::default());
        let (here, there) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let take = |ip| places.take(ip, (3, 2));
        let first = take(Some(here)).unwrap();
        let _second = take(Some(here)).unwrap();
        assert!(take(Some(here)).is_none());
        let third = take(Some(there)).unwrap();
        assert!(take(None).is_none());
        drop(first);
        let _fourth = take(None).unwrap();
        drop(third);
        assert!(take(Some(here)).is_some());
        assert_eq!(places.taken.lock().1.len(), 1);
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_address() {
        let places = Arc::new(Places::default());
        let take = |ip: &str| places.take(Some(ip.parse().unwrap()), (9, 2));
        let _held = (take("2001:db8::1").unwrap(), take("2001:db8::2:0:0:1").unwrap());
        assert!(take("2001:db8:0:0:ffff::").is_none());
        assert!(take("2001:db8:0:1::1").is_some());
    }
}
