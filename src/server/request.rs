//! What is done to a request before its service sees it: who calls, its deadline, bounds on how long
//! its message may take and on the memory of all, and decompression.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;
use tonic::body::Body;

use super::auth::Access;
use super::connection::Connection;
use super::deadline::Deadline;
use super::received::{Budget, Received};
use super::status::CallError;
use super::zstd;

/// Who makes a call: the name of its token, or else what its connection tells. Travels in the
/// request's extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller(pub(crate) Arc<str>);

/// Prepares requests.
pub(crate) struct Intake {
    pub(crate) access: Access,
    pub(crate) max_message_bytes: usize,
    pub(crate) message_timeout: Duration,
    pub(crate) budget: Arc<Budget>,
}

/// A request as its service sees it, and what goes with its call.
pub(crate) struct Prepared {
    pub(crate) request: Request<Body>,
    pub(crate) deadline: Deadline,
    /// What the call has received; it counts until this is dropped.
    pub(crate) received: Arc<Mutex<Received>>,
}

/// Says that a call's answer has begun, after which its messages may take their time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answered(Arc<AtomicBool>);

/// A request's body whose message has to arrive in time and finds room.
struct BoundedBody {
    inner: Body,
    limit: Duration,
    until: Instant,
    alarm: Option<Pin<Box<Sleep>>>,
    answered: Answered,
    received: Arc<Mutex<Received>>,
}

impl Intake {
    /// The request as its service sees it.
    ///
    /// # Errors
    /// The caller may not make it, or its headers are not valid.
    pub(crate) fn prepare(
        &self,
        mut request: Request<Body>,
        answered: Answered,
    ) -> Result<Prepared, CallError> {
        let name = self.access.check(request.uri().path(), request.headers())?;
        let deadline = Deadline::starting_now(request.headers())?;
        let connection = request.extensions().get::<Arc<Connection>>();
        let name = name.or_else(|| connection.map(|connection| Arc::clone(connection.client())));
        let name = name.unwrap_or_default();
        let received = Received::new(Arc::clone(&self.budget), Arc::clone(&name));
        let received = Arc::new(Mutex::new(received));
        request.extensions_mut().insert(Caller(name));
        request.extensions_mut().insert(deadline);
        request.extensions_mut().insert(Arc::clone(&self.budget));
        let (limit, now) = (self.message_timeout, Instant::now());
        let counted = Arc::clone(&received);
        let request = request.map(|inner| {
            let (until, received) = (now + limit, counted);
            Body::new(BoundedBody { inner, limit, until, alarm: None, answered, received })
        });
        let request = zstd::decompress(request, self.max_message_bytes);
        Ok(Prepared { request, deadline, received })
    }
}

impl Answered {
    /// The answer begins.
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl BoundedBody {
    /// Counts what has come in. A call whose answer has begun before its message is a stream.
    fn add(&self, data: &[u8]) -> Result<(), CallError> {
        self.received.lock().add(data, self.answered.get())
    }
}

impl HttpBody for BoundedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            if let Some(Ok(frame)) = &frame
                && let Some(data) = frame.data_ref()
                && let Err(error) = self.add(data)
            {
                return Poll::Ready(Some(Err(error.into())));
            }
            return Poll::Ready(frame);
        }
        if self.answered.get() {
            return Poll::Pending;
        }
        let until = self.until;
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(until)));
        match alarm.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => {
                let late = CallError::MessageTimeout { limit: self.limit };
                Poll::Ready(Some(Err(late.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
