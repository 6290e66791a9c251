//! One connection: who is on the other end, and which calls it has open.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

/// What is known of a connection. Travels in the extensions of its requests.
#[derive(Debug)]
pub(crate) struct Connection {
    client: Arc<str>,
    calls: Mutex<Calls>,
    ending: watch::Sender<bool>,
}

#[derive(Debug)]
struct Calls {
    next: u64,
    open: BTreeMap<u64, Unsent>,
    /// When the last call ended.
    quiet_since: Instant,
}

/// What of an open call's answer its reader has not taken.
#[derive(Debug, Default)]
struct Unsent {
    pieces: usize,
    /// Since when none was taken; `None` while there are none.
    since: Option<Instant>,
}

/// An open call of a connection; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionCall {
    connection: Arc<Connection>,
    id: u64,
}

impl Connection {
    /// A new connection of the client that `certificate` or else `ip` names.
    pub(crate) fn new(certificate: Option<Arc<str>>, ip: Option<IpAddr>) -> Self {
        let calls = Calls { next: 0, open: BTreeMap::new(), quiet_since: Instant::now() };
        let client = certificate.unwrap_or_else(|| client_at(ip));
        Self { client, calls: Mutex::new(calls), ending: watch::Sender::new(false) }
    }

    /// Names who is on the other end, as far as the connection tells.
    pub(crate) fn client(&self) -> &Arc<str> {
        &self.client
    }

    /// Notes the start of a call.
    pub(crate) fn begin(self: &Arc<Self>) -> ConnectionCall {
        let mut calls = self.calls.lock();
        let id = calls.next;
        calls.next += 1;
        calls.open.insert(id, Unsent::default());
        ConnectionCall { connection: Arc::clone(self), id }
    }

    /// Whether no call has been open for `timeout`.
    pub(crate) fn is_idle(&self, timeout: Duration) -> bool {
        let calls = self.calls.lock();
        calls.open.is_empty() && calls.quiet_since.elapsed() >= timeout
    }

    /// Whether the reader of a call has taken nothing of what is ready for `timeout`.
    pub(crate) fn is_stalled(&self, timeout: Duration) -> bool {
        let calls = self.calls.lock();
        let mut waiting = calls.open.values().filter_map(|unsent| unsent.since);
        waiting.any(|since| since.elapsed() >= timeout)
    }

    /// Tells calls that go on for as long as the client likes to end.
    pub(crate) fn end(&self) {
        self.ending.send_replace(true);
    }

    /// Waits until calls should end.
    pub(crate) fn ending(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut ending = self.ending.subscribe();
        async move {
            // An error: the connection is gone, and its calls with it.
            let _ = ending.wait_for(|ending| *ending).await;
        }
    }
}

impl ConnectionCall {
    /// A piece of the answer is ready for its reader.
    pub(crate) fn ready(&self) {
        if let Some(unsent) = self.connection.calls.lock().open.get_mut(&self.id) {
            unsent.pieces += 1;
            unsent.since.get_or_insert_with(Instant::now);
        }
    }

    /// The reader has taken a piece.
    pub(crate) fn taken(&self) {
        if let Some(unsent) = self.connection.calls.lock().open.get_mut(&self.id) {
            unsent.pieces = unsent.pieces.saturating_sub(1);
            unsent.since = (unsent.pieces > 0).then(Instant::now);
        }
    }
}

impl Drop for ConnectionCall {
    fn drop(&mut self) {
        let mut calls = self.connection.calls.lock();
        calls.open.remove(&self.id);
        calls.quiet_since = Instant::now();
    }
}

/// The addresses that count as one: of IPv6 all of a /64, which one host may have.
pub(super) fn network(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip) >> 64 << 64).into(),
    }
}

/// Names a client by its address: all of an IPv4 address, and of an IPv6 address the half that
/// one client cannot choose.
fn client_at(ip: Option<IpAddr>) -> Arc<str> {
    match ip.map(network) {
        None => "unix".into(),
        Some(IpAddr::V4(ip)) => ip.to_string().into(),
        Some(IpAddr::V6(network)) => format!("{network}/64").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_without_calls_and_stalled_with_an_untaken_answer() {
        let minute = Duration::from_secs(60);
        let connection = Arc::new(Connection::new(None, None));
        tokio::time::advance(minute).await;
        assert!(connection.is_idle(minute));
        let call = connection.begin();
        let quiet = connection.begin();
        tokio::time::advance(minute).await;
        assert!(!connection.is_idle(minute) && !connection.is_stalled(minute));
        call.ready();
        call.ready();
        tokio::time::advance(minute).await;
        assert!(connection.is_stalled(minute));
        call.taken();
        assert!(!connection.is_stalled(minute));
        tokio::time::advance(minute).await;
        assert!(connection.is_stalled(minute), "the second piece");
        call.taken();
        assert!(!connection.is_stalled(minute));
        call.ready();
        drop((call, quiet));
        assert!(!connection.is_idle(minute));
        tokio::time::advance(minute).await;
        assert!(connection.is_idle(minute) && !connection.is_stalled(minute));
    }

    #[test]
    fn a_client_is_its_certificate_or_its_address() {
        let name = |ip: &str| Connection::new(None, Some(ip.parse().unwrap())).client().to_string();
        assert_eq!(name("10.0.0.7"), "10.0.0.7");
        assert_eq!(name("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64");
        assert_eq!(Connection::new(None, None).client().as_ref(), "unix");
        let shown = Connection::new(Some("certificate 00".into()), None);
        assert_eq!(shown.client().as_ref(), "certificate 00");
    }
}
