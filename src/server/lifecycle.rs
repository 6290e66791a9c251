//! Where the server is in its life, and which calls are open.

use std::time::Duration;

use tokio::sync::watch;

use super::status::CallError;

/// When to try again while the server cannot answer yet, or no longer.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The server's life, in order; it never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Listening, and refusing calls until the models have run once.
    WarmingUp,
    /// Answering.
    Serving,
    /// Finishing what was accepted, and refusing the rest.
    Draining,
    /// All accepted work is done: what is still open (health watches, requests that never came)
    /// is ended.
    Stopping,
}

/// The server's phase and its open calls.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    phase: watch::Sender<Phase>,
    /// Carries nothing: its receivers are the open calls.
    calls: watch::Sender<()>,
}

/// An accepted call. It is open until this is dropped.
#[derive(Debug)]
pub(crate) struct OpenCall {
    phase: watch::Receiver<Phase>,
    _open: watch::Receiver<()>,
}

impl Lifecycle {
    /// A server that warms up.
    pub(crate) fn new() -> Self {
        Self { phase: watch::Sender::new(Phase::WarmingUp), calls: watch::Sender::new(()) }
    }

    /// Goes on to `phase`; has no effect if the server is past it.
    pub(crate) fn advance(&self, phase: Phase) {
        self.phase.send_if_modified(|current| {
            let advances = phase > *current;
            if advances {
                *current = phase;
            }
            advances
        });
    }

    /// Waits until the server is in `phase` or past it.
    pub(crate) fn reached(&self, phase: Phase) -> impl Future<Output = ()> + Send + use<> {
        reached(self.phase.subscribe(), phase)
    }

    /// The phase now.
    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Accepts a call.
    ///
    /// # Errors
    /// The server is warming up, or shutting down; both are worth trying again.
    pub(crate) fn accept(&self) -> Result<OpenCall, CallError> {
        // Subscribed before the phase is read, so that a drain which has seen no open call cannot
        // be followed by an accepted one.
        let call = OpenCall { phase: self.phase.subscribe(), _open: self.calls.subscribe() };
        let phase = *self.phase.borrow();
        match phase {
            Phase::Serving => Ok(call),
            Phase::WarmingUp => Err(CallError::WarmingUp { retry_after: RETRY_AFTER }),
            Phase::Draining | Phase::Stopping => Err(shutting_down()),
        }
    }

    /// Waits until no call is open.
    pub(crate) async fn idle(&self) {
        self.calls.closed().await;
    }
}

impl OpenCall {
    /// Waits until the server drains.
    pub(crate) fn draining(&self) -> impl Future<Output = ()> + Send + use<> {
        reached(self.phase.clone(), Phase::Draining)
    }
}

/// The answer to what cannot be done because the server shuts down.
pub(crate) fn shutting_down() -> CallError {
    CallError::ShuttingDown { retry_after: RETRY_AFTER }
}

async fn reached(mut current: watch::Receiver<Phase>, phase: Phase) {
    // The server is gone, and with it all its phases.
    let _ = current.wait_for(|current| *current >= phase).await;
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[tokio::test]
    async fn calls_are_accepted_while_serving_only() {
        let lifecycle = Lifecycle::new();
        let early = lifecycle.accept().unwrap_err();
        assert!(matches!(early, CallError::WarmingUp { .. }));
        lifecycle.advance(Phase::Serving);
        assert!(lifecycle.accept().is_ok());
        lifecycle.advance(Phase::Draining);
        let late = lifecycle.accept().unwrap_err();
        assert_eq!((late.code(), late.is_retriable()), (Code::Unavailable, true));
        // There is no way back.
        lifecycle.advance(Phase::Serving);
        assert!(lifecycle.accept().is_err());
    }

    #[tokio::test]
    async fn idle_waits_for_the_last_open_call() {
        let lifecycle = Lifecycle::new();
        lifecycle.advance(Phase::Serving);
        let (first, second) = (lifecycle.accept().unwrap(), lifecycle.accept().unwrap());
        drop(first);
        tokio::select! {
            biased;
            () = lifecycle.idle() => panic!("a call is open"),
            () = std::future::ready(()) => {}
        }
        drop(second);
        lifecycle.idle().await;
    }

    #[tokio::test]
    async fn an_open_call_learns_of_the_drain() {
        let lifecycle = Lifecycle::new();
        lifecycle.advance(Phase::Serving);
        let call = lifecycle.accept().unwrap();
        let draining = tokio::spawn(call.draining());
        lifecycle.advance(Phase::Stopping);
        draining.await.unwrap();
        lifecycle.reached(Phase::Draining).await;
    }
}
