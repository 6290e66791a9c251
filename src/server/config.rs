//! How the server is set up: addresses, limits and times. Every limit is bounded by default.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// The server's settings. [`Default`] is what `tasnif serve` uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Bytes that one message from a client may have.
    pub max_message_bytes: usize,
    /// Documents that one `ClassifyBatch` may have.
    pub max_batch_documents: usize,
    /// Documents of one `ClassifyStream` or `ClassifyBatch` that are worked on at a time. What a
    /// stream's reader has not taken yet counts, so this bounds what a slow reader can pile up.
    pub max_stream_in_flight: usize,
    /// Calls that one connection may have open.
    pub max_concurrent_streams: u32,
    /// How often a silent connection is asked whether it is still alive.
    pub keepalive_interval: Duration,
    /// How long it may take to say so before it is closed.
    pub keepalive_timeout: Duration,
    /// How long a shutdown may take, from the signal to the return of [`serve`](super::serve).
    pub drain_timeout: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 50051)),
            max_message_bytes: 4 * 1024 * 1024,
            max_batch_documents: 256,
            max_stream_in_flight: 64,
            max_concurrent_streams: 256,
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(20),
            drain_timeout: Duration::from_secs(30),
        }
    }
}

/// A setting that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value}; it must be {expected}")]
pub struct ConfigError {
    /// The field of [`ServerConfig`].
    pub field: &'static str,
    /// Its value.
    pub value: String,
    /// What is allowed.
    pub expected: &'static str,
}

impl ServerConfig {
    /// Checks every setting.
    ///
    /// # Errors
    /// Names the first field that cannot work, with its value and what is allowed.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let counts = [
            ("max_message_bytes", self.max_message_bytes, 1, "at least 1"),
            ("max_batch_documents", self.max_batch_documents, 1, "at least 1"),
            // One that the reader takes and one that runs.
            ("max_stream_in_flight", self.max_stream_in_flight, 2, "at least 2"),
            ("max_concurrent_streams", self.max_concurrent_streams as usize, 1, "at least 1"),
        ];
        for (field, value, least, expected) in counts {
            if value < least {
                return Err(ConfigError { field, value: value.to_string(), expected });
            }
        }
        // The length of a gRPC message is a u32.
        if u32::try_from(self.max_message_bytes).is_err() {
            return Err(ConfigError {
                field: "max_message_bytes",
                value: self.max_message_bytes.to_string(),
                expected: "under 4 GiB",
            });
        }
        let times = [
            ("keepalive_interval", self.keepalive_interval),
            ("keepalive_timeout", self.keepalive_timeout),
            ("drain_timeout", self.drain_timeout),
        ];
        for (field, value) in times {
            if value.is_zero() {
                let value = format!("{value:?}");
                return Err(ConfigError { field, value, expected: "more than no time" });
            }
        }
        Ok(())
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

        let no_drain = ServerConfig { drain_timeout: Duration::ZERO, ..ServerConfig::default() };
        assert_eq!(no_drain.validate().unwrap_err().field, "drain_timeout");

        let huge = ServerConfig { max_message_bytes: 1 << 32, ..ServerConfig::default() };
        assert_eq!(huge.validate().unwrap_err().field, "max_message_bytes");
    }
}
