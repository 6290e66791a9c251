//! How the server is set up: addresses, limits and times. Every limit is bounded by default.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::auth::AuthConfig;
use super::listen::Listen;
use super::tls::TlsConfig;
use crate::pipeline::{SettingError, check_times};

/// Documents that a `ClassifyBatch` may be allowed to have.
pub(crate) const MAX_BATCH_DOCUMENTS: usize = 65_536;

/// The receive window that every connection begins with, and the largest there is (RFC 9113,
/// 6.9).
const CONNECTION_WINDOWS: RangeInclusive<u32> = 65_535..=(1 << 31) - 1;

/// What is expected of an address that other machines reach.
const PLAINTEXT: &str = "an address of this machine alone, unless there is TLS or \
                         allow_plaintext says that the network is trusted";

/// The server's settings. [`Default`] is what `tasnif serve` uses.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct ServerConfig {
    /// Where to listen.
    pub listen: Listen,
    /// Whether other machines may connect without TLS.
    pub allow_plaintext: bool,
    /// TLS.
    pub tls: TlsConfig,
    /// Who may call.
    pub auth: AuthConfig,
    /// Bytes that one message from a client may have, after decompression.
    pub max_message_bytes: usize,
    /// Bytes that all messages may hold together, from their first byte until they are answered;
    /// and bytes that all answers may hold, until their last byte is sent. One client may hold half
    /// of each, and while its answers wait, so much less of messages. Each document of a stream or
    /// batch counts as at least 6 KiB until its answer is taken, and an answer as at least 8 KiB.
    pub max_received_bytes: usize,
    /// Bytes that one connection may have sent and no call has read: its receive window of HTTP/2.
    /// One call may have a thirty-second of them.
    pub connection_window_bytes: u32,
    /// Bytes that the headers of one call may have.
    pub max_header_bytes: u32,
    /// Documents that one `ClassifyBatch` may have.
    pub max_batch_documents: usize,
    /// Documents of one `ClassifyStream` or `ClassifyBatch` that are worked on at a time. What a
    /// stream's reader has not taken yet counts, so this bounds what a slow reader can pile up. At
    /// most 65,536.
    pub max_stream_in_flight: usize,
    /// Calls that one connection may have open.
    pub max_concurrent_streams: u32,
    /// Connections that may be open.
    pub max_connections: usize,
    /// Connections that may be open from one IP address.
    pub max_connections_per_address: usize,
    /// How long a new connection may take until HTTP/2 begins, TLS included.
    #[serde(with = "humantime_serde")]
    pub handshake_timeout: Duration,
    /// How long the message of a call may take to arrive, from the call's start.
    #[serde(with = "humantime_serde")]
    pub message_timeout: Duration,
    /// How long a stream may be without a whole message.
    #[serde(with = "humantime_serde")]
    pub stream_idle_timeout: Duration,
    /// How long an answer may wait for its reader to take any of it (16 KiB, or what there is)
    /// before the connection is cut.
    #[serde(with = "humantime_serde")]
    pub response_timeout: Duration,
    /// How long a connection may have no call open before it is closed.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
    /// How often a silent connection is asked whether it is still alive.
    #[serde(with = "humantime_serde")]
    pub keepalive_interval: Duration,
    /// How long it may take to say so before it is closed.
    #[serde(with = "humantime_serde")]
    pub keepalive_timeout: Duration,
    /// Age at which a connection takes no new calls, so that clients spread over new servers;
    /// `None`: never.
    #[serde(with = "humantime_serde")]
    pub max_connection_age: Option<Duration>,
    /// From then, how long calls may go on until streams are told to end, and as long again until
    /// the connection is cut.
    #[serde(with = "humantime_serde")]
    pub max_connection_age_grace: Duration,
    /// How often the files of TLS and of tokens are looked at for changes.
    #[serde(with = "humantime_serde")]
    pub refresh_interval: Duration,
    /// How long a shutdown may take, from the signal to the return of [`serve`](super::serve).
    #[serde(with = "humantime_serde")]
    pub drain_timeout: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: Listen::default(),
            allow_plaintext: false,
            tls: TlsConfig::default(),
            auth: AuthConfig::default(),
            max_message_bytes: 4 * 1024 * 1024,
            max_received_bytes: 256 * 1024 * 1024,
            connection_window_bytes: 512 * 1024,
            max_header_bytes: 16 * 1024,
            max_batch_documents: 256,
            max_stream_in_flight: 64,
            max_concurrent_streams: 256,
            max_connections: 512,
            max_connections_per_address: 256,
            handshake_timeout: Duration::from_secs(10),
            message_timeout: Duration::from_secs(30),
            stream_idle_timeout: Duration::from_secs(10 * 60),
            response_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(15 * 60),
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(20),
            max_connection_age: None,
            max_connection_age_grace: Duration::from_secs(60),
            refresh_interval: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(30),
        }
    }
}

impl ServerConfig {
    /// Checks every setting.
    ///
    /// # Errors
    /// Names the first field that cannot work, with its value and what is allowed.
    pub fn validate(&self) -> Result<(), SettingError> {
        let counts = [
            ("max_message_bytes", self.max_message_bytes, 1, "at least 1"),
            ("max_batch_documents", self.max_batch_documents, 1, "at least 1"),
            // One that the reader takes and one that runs.
            ("max_stream_in_flight", self.max_stream_in_flight, 2, "at least 2"),
            ("max_concurrent_streams", self.max_concurrent_streams as usize, 1, "at least 1"),
            ("max_connections", self.max_connections, 1, "at least 1"),
            ("max_connections_per_address", self.max_connections_per_address, 1, "at least 1"),
            // What a call's own headers take.
            ("max_header_bytes", self.max_header_bytes as usize, 1_024, "at least 1024"),
        ];
        for (field, value, least, expected) in counts {
            if value < least {
                return Err(SettingError { field, value: value.to_string(), expected });
            }
        }
        for (field, value) in [
            ("max_batch_documents", self.max_batch_documents),
            ("max_stream_in_flight", self.max_stream_in_flight),
        ] {
            if value > MAX_BATCH_DOCUMENTS {
                let value = value.to_string();
                return Err(SettingError { field, value, expected: "at most 65536" });
            }
        }
        // The length of a gRPC message is a u32.
        if u32::try_from(self.max_message_bytes).is_err() {
            return Err(SettingError {
                field: "max_message_bytes",
                value: self.max_message_bytes.to_string(),
                expected: "under 4 GiB",
            });
        }
        // A client has half: so much that a document and what came behind it fit.
        if self.max_received_bytes / 4 < self.max_message_bytes {
            let (field, value) = ("max_received_bytes", self.max_received_bytes.to_string());
            return Err(SettingError {
                field,
                value,
                expected: "at least four times max_message_bytes",
            });
        }
        if !CONNECTION_WINDOWS.contains(&self.connection_window_bytes) {
            let (field, value) =
                ("connection_window_bytes", self.connection_window_bytes.to_string());
            return Err(SettingError { field, value, expected: "from 65535 to 2147483647" });
        }
        check_times([
            ("handshake_timeout", self.handshake_timeout),
            ("message_timeout", self.message_timeout),
            ("stream_idle_timeout", self.stream_idle_timeout),
            ("response_timeout", self.response_timeout),
            ("idle_timeout", self.idle_timeout),
            ("max_connection_age_grace", self.max_connection_age_grace),
            ("keepalive_interval", self.keepalive_interval),
            ("keepalive_timeout", self.keepalive_timeout),
            ("refresh_interval", self.refresh_interval),
            ("drain_timeout", self.drain_timeout),
        ])?;
        check_times(self.max_connection_age.map(|age| ("max_connection_age", age)))?;
        let TlsConfig { cert, key, client_ca } = &self.tls;
        let files =
            [("tls.cert", cert, key), ("tls.key", key, cert), ("tls.cert", cert, client_ca)];
        if let Some((field, ..)) =
            files.iter().find(|(_, needed, given)| needed.is_none() && given.is_some())
        {
            let (value, expected) = ("missing".to_owned(), "a file, as there are others of TLS");
            return Err(SettingError { field, value, expected });
        }
        if !self.listen.is_local() && cert.is_none() && !self.allow_plaintext {
            let (field, value) = ("listen", self.listen.to_string());
            return Err(SettingError { field, value, expected: PLAINTEXT });
        }
        Ok(())
    }

    /// The shortest time after which something about a connection alone may end it.
    pub(crate) fn shortest_connection_timeout(&self) -> Duration {
        self.idle_timeout.min(self.response_timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid() {
        assert_eq!(ServerConfig::default().validate(), Ok(()));
    }

    #[test]
    fn a_setting_that_cannot_work_is_named() {
        let no_batch = ServerConfig { max_batch_documents: 0, ..ServerConfig::default() };
        let error = no_batch.validate().unwrap_err();
        assert_eq!(error.to_string(), "max_batch_documents is 0; it must be at least 1");

        let open = ServerConfig { listen: "0.0.0.0:1".parse().unwrap(), ..ServerConfig::default() };
        assert_eq!(open.validate().unwrap_err().field, "listen");
        assert_eq!(ServerConfig { allow_plaintext: true, ..open }.validate(), Ok(()));

        let half = TlsConfig { key: Some("key.pem".into()), ..TlsConfig::default() };
        let half = ServerConfig { tls: half, ..ServerConfig::default() };
        assert_eq!(half.validate().unwrap_err().field, "tls.cert");

        let no_drain = ServerConfig { drain_timeout: Duration::ZERO, ..ServerConfig::default() };
        assert_eq!(no_drain.validate().unwrap_err().field, "drain_timeout");

        let endless = ServerConfig { message_timeout: Duration::MAX, ..ServerConfig::default() };
        assert_eq!(endless.validate().unwrap_err().field, "message_timeout");

        let narrow = ServerConfig { connection_window_bytes: 65_534, ..ServerConfig::default() };
        let error = narrow.validate().unwrap_err().to_string();
        assert_eq!(error, "connection_window_bytes is 65534; it must be from 65535 to 2147483647");

        let crowded = ServerConfig { max_stream_in_flight: usize::MAX, ..ServerConfig::default() };
        let error = crowded.validate().unwrap_err().to_string();
        assert!(error.starts_with("max_stream_in_flight is") && error.ends_with("at most 65536"));

        // A document of a stream, with the beginning of the next behind it, must fit into a client's half.
        let with = |messages: usize| {
            let max_received_bytes = messages * ServerConfig::default().max_message_bytes;
            ServerConfig { max_received_bytes, ..ServerConfig::default() }.validate()
        };
        assert_eq!(with(4), Ok(()));
        assert_eq!(with(3).unwrap_err().field, "max_received_bytes");

        let huge = ServerConfig { max_message_bytes: 1 << 32, ..ServerConfig::default() };
        assert_eq!(huge.validate().unwrap_err().field, "max_message_bytes");
    }
}
