//! When `tasnif serve` reads its models again: on SIGHUP, and when their files change.

use anyhow::Context;

use crate::pipeline::Reloader;

/// Hears SIGHUP, where there is such a signal, from its creation on: before it, the signal would
/// end the process.
pub(super) struct Hangup {
    #[cfg(unix)]
    signal: tokio::signal::unix::Signal,
}

impl Hangup {
    /// Starts to listen. A signal is kept until it is waited for.
    #[cfg(unix)]
    pub(super) fn listen() -> anyhow::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let signal = signal(SignalKind::hangup()).context("SIGHUP cannot be listened for")?;
        Ok(Self { signal })
    }

    /// There is nothing to hear.
    #[cfg(not(unix))]
    pub(super) fn listen() -> anyhow::Result<Self> {
        Ok(Self {})
    }

    async fn heard(&mut self) {
        #[cfg(unix)]
        if self.signal.recv().await.is_some() {
            return;
        }
        std::future::pending::<()>().await;
    }
}

/// Reloads on every hangup, and when files change if `watch` says so. Runs until it is dropped.
pub(super) async fn reload(reloader: Reloader, mut hangup: Hangup, watch: bool) {
    let on_hangup = async {
        loop {
            hangup.heard().await;
            reloader.reload().await;
        }
    };
    let on_change = async {
        if watch {
            reloader.watch().await;
        }
    };
    tokio::join!(on_hangup, on_change);
}
