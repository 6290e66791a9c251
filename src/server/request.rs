//! What is done to a request before its service sees it: who calls, its deadline, bounds on how long
//! its messages may take and on the memory of all, and decompression.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tonic::Status;
use tonic::body::Body;

use super::auth::{Access, asks_health};
use super::connection::Connection;
use super::deadline::Deadline;
use super::decompression::decompress;
use super::received::{Budget, Received};
use super::status::CallError;

/// Who makes a call: the name of its token, or else what its connection tells. Travels in the
/// request's extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller(pub(crate) Arc<str>);

/// Prepares requests.
pub(crate) struct Intake {
    pub(crate) access: Access,
    pub(crate) max_message_bytes: usize,
    pub(crate) message_timeout: Duration,
    pub(crate) stream_idle_timeout: Duration,
    pub(crate) budget: Arc<Budget>,
}

/// A request as its service sees it, and what goes with its call.
pub(crate) struct Prepared {
    pub(crate) request: Request<Body>,
    pub(crate) deadline: Deadline,
    /// What the call has received; it counts until this is dropped.
    pub(crate) received: Arc<Mutex<Received>>,
}

/// Says that a call's answer has begun: it is a stream, whose messages may take longer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answered(Arc<AtomicBool>);

/// A request's body whose messages have to arrive in time and find room.
struct BoundedBody {
    inner: Body,
    /// How long its message may take, or the first of a stream whose answer waits for it.
    limit: Duration,
    until: Instant,
    alarm: Option<Pin<Box<Sleep>>>,
    /// How long a stream may be waited for with no whole message.
    idle_limit: Duration,
    idle_alarm: Option<Pin<Box<Sleep>>>,
    answered: Answered,
    received: Arc<Mutex<Received>>,
}

impl Intake {
    /// The request as its service sees it. `name` is the caller's, if its token says it.
    ///
    /// # Errors
    /// Its headers are not valid.
    pub(crate) fn prepare(
        &self,
        mut request: Request<Body>,
        name: Option<Arc<str>>,
        answered: Answered,
    ) -> Result<Prepared, CallError> {
        let deadline = Deadline::starting_now(request.headers())?;
        let connection = request.extensions().get::<Arc<Connection>>();
        let name = name.or_else(|| connection.map(|connection| Arc::clone(connection.client())));
        let name = name.unwrap_or_default();
        let budget = if asks_health(request.uri().path()) {
            Budget::of_health()
        } else {
            Arc::clone(&self.budget)
        };
        let received = Received::new(Arc::clone(&budget), Arc::clone(&name));
        let received = Arc::new(Mutex::new(received));
        request.extensions_mut().insert(Caller(name));
        request.extensions_mut().insert(deadline);
        request.extensions_mut().insert(budget);
        request.extensions_mut().insert(Arc::clone(&received));
        let limit = self.message_timeout;
        let body = |inner| BoundedBody {
            inner,
            limit,
            until: Instant::now() + limit,
            alarm: None,
            idle_limit: self.stream_idle_timeout,
            idle_alarm: None,
            answered,
            received: Arc::clone(&received),
        };
        let request = request.map(|inner| Body::new(body(inner)));
        let request = decompress(request, self.max_message_bytes, &received);
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
    fn add(&mut self, data: &[u8]) -> Result<(), CallError> {
        if self.received.lock().add(data, self.answered.get())? {
            self.idle_alarm = None;
        }
        Ok(())
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
        let Self { limit, until, alarm, idle_limit, idle_alarm, answered, .. } = &mut *self;
        let (limit, alarm) = if answered.get() {
            // From now: until a stream is read, it is the server that it waits for.
            let limit = *idle_limit;
            (limit, idle_alarm.get_or_insert_with(|| Box::pin(sleep(limit))))
        } else {
            (*limit, alarm.get_or_insert_with(|| Box::pin(sleep_until(*until))))
        };
        ready!(alarm.as_mut().poll(cx));
        Poll::Ready(Some(Err(CallError::MessageTimeout { limit }.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
