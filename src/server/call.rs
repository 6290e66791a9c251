//! What surrounds each call, in this order: who makes it, the checks of its request, its deadline,
//! containment of panics, precise statuses for what the transport refuses, and a record of its end: metrics, span
//! and log line.

use std::any::Any;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::connection::{Connection, ConnectionCall};
use super::deadline::Deadline;
use super::lifecycle::{Lifecycle, Phase, shutting_down};
use super::received::{Kind, Received};
use super::request::{Answered, Intake, Prepared};
use super::sending::{LEAST_BYTES, Pieces};
use super::status::{CallError, precise};
use super::telemetry::{CallRecord, Observer};

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Wraps the services of a server in [`CallService`].
#[derive(Clone)]
pub(crate) struct CallLayer {
    lifecycle: Arc<Lifecycle>,
    observer: Arc<Observer>,
    intake: Arc<Intake>,
}

/// The services of a server, with what surrounds each call.
#[derive(Clone)]
pub(crate) struct CallService<S> {
    inner: S,
    layer: CallLayer,
}

/// The body of an answer, in pieces. Ends the call's record, and ends itself with a status if the
/// service panics, the server stops, or there is no room for the answer.
pub(crate) struct CallBody {
    inner: Body,
    record: CallRecord,
    lifecycle: Arc<Lifecycle>,
    connection: Option<Arc<ConnectionCall>>,
    /// What the call has received, until the answer takes its place.
    received: Option<Arc<Mutex<Received>>>,
    kind: Kind,
    /// What is encoded and not handed on.
    pieces: Option<Pieces>,
    begun: bool,
    stopping: Option<BoxFuture<()>>,
    ended: bool,
}

impl CallLayer {
    /// The layer of a server whose requests go through `intake`, and whose calls are reported to
    /// `observer`.
    pub(crate) fn new(
        lifecycle: Arc<Lifecycle>,
        observer: Arc<Observer>,
        intake: Arc<Intake>,
    ) -> Self {
        Self { lifecycle, observer, intake }
    }
}

impl<S> Layer<S> for CallLayer {
    type Service = CallService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CallService { inner, layer: self.clone() }
    }
}

impl<S> Service<Request<Body>> for CallService<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<CallBody>;
    type Error = Infallible;
    type Future = BoxFuture<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let CallLayer { lifecycle, observer, intake } = self.layer.clone();
        let name = intake.access.check(request.uri().path(), request.headers());
        let record = observer.call(&mut request, name.is_ok());
        let connection = request.extensions().get::<Arc<Connection>>().map(Connection::begin);
        let answered = Answered::default();
        let prepared = name.and_then(|name| intake.prepare(request, name, answered.clone()));
        let answer = prepared.map(|Prepared { request, deadline, received }| {
            (self.inner.call(request), deadline, received)
        });
        Box::pin(async move {
            let (outcome, received) = match answer {
                Ok((answer, deadline, received)) => {
                    (limited(answer, deadline, &lifecycle).await, Some(received))
                }
                Err(error) => (Err(error), None),
            };
            answered.set();
            let response = refine(outcome, intake.max_message_bytes);
            let held = (connection, received);
            Ok(CallBody::wrap(response, record, lifecycle, held))
        })
    }
}

/// The answer, unless the deadline passes, the service panics, or the server stops before it.
async fn limited<F>(
    answer: F,
    deadline: Deadline,
    lifecycle: &Lifecycle,
) -> Result<Response<Body>, CallError>
where
    F: Future<Output = Result<Response<Body>, Infallible>>,
{
    let answer = contained(answer);
    let stopping = lifecycle.reached(Phase::Stopping);
    let unless_stopped = async {
        tokio::select! {
            // What is ready is sent.
            biased;
            answer = answer => answer,
            () = stopping => Err(shutting_down()),
        }
    };
    match deadline.limit(unless_stopped).await?? {
        Ok(response) => Ok(response),
        Err(never) => match never {},
    }
}

/// Runs `work`; a panic in it is [`CallError::Panicked`].
pub(crate) async fn contained<F: Future>(work: F) -> Result<F::Output, CallError> {
    let mut work = pin!(work);
    // After a panic the work is dropped and never looked at again, so no broken invariant is seen.
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Err(panic) => Poll::Ready(Err(panicked(panic))),
    })
    .await
}

/// The payload is dropped unread: a panic's message may quote a document (that of a bad `str`
/// slice does).
fn panicked(_payload: Box<dyn Any + Send>) -> CallError {
    CallError::Panicked
}

fn refine(outcome: Result<Response<Body>, CallError>, max_message_bytes: usize) -> Response<Body> {
    let error = match outcome {
        Err(error) => error,
        Ok(response) => {
            // tonic leaves the status of a call that failed before its first message here.
            let status = response.extensions().get::<Status>();
            match status.and_then(|status| precise(status, max_message_bytes)) {
                Some(error) => error,
                None => return response,
            }
        }
    };
    Status::from(error).into_http()
}

impl CallBody {
    fn wrap(
        response: Response<Body>,
        mut record: CallRecord,
        lifecycle: Arc<Lifecycle>,
        (connection, received): (Option<ConnectionCall>, Option<Arc<Mutex<Received>>>),
    ) -> Response<Self> {
        // A call without messages has its status in the headers, and no body to wait for.
        record.end_with_headers(response.headers());
        let kind = response.extensions().get().copied().unwrap_or(Kind::Answer);
        response.map(|inner| Self {
            inner,
            record,
            lifecycle,
            connection: connection.map(Arc::new),
            received,
            kind,
            pieces: None,
            begun: false,
            stopping: None,
            ended: false,
        })
    }

    fn stopping(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let lifecycle = &self.lifecycle;
        let stopping =
            self.stopping.get_or_insert_with(|| Box::pin(lifecycle.reached(Phase::Stopping)));
        stopping.as_mut().poll(cx)
    }

    /// Takes in what the service has encoded.
    fn hold(&mut self, bytes: Bytes) -> Result<Pieces, CallError> {
        let least = if self.begun { 0 } else { LEAST_BYTES };
        self.begun = true;
        let (kind, size) = (self.kind, bytes.len().max(least));
        let held = self.received.as_ref().map(|received| received.lock().answer(kind, size));
        Ok(Pieces::new(bytes, held.transpose()?, self.connection.clone()))
    }

    /// Hands the next piece on.
    fn send(&mut self, pieces: Pieces) -> Poll<Option<Result<Frame<BodyData>, Status>>> {
        let (piece, rest) = pieces.next();
        self.pieces = rest;
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn end_with(&mut self, error: CallError) -> Poll<Option<Result<Frame<BodyData>, Status>>> {
        self.ended = true;
        self.record.end_with_error(&error);
        let status = Status::from(error);
        let mut trailers = HeaderMap::new();
        match status.add_header(&mut trailers) {
            Ok(()) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Err(unsendable) => Poll::Ready(Some(Err(unsendable))),
        }
    }
}

type BodyData = <Body as http_body::Body>::Data;

impl http_body::Body for CallBody {
    type Data = BodyData;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if let Some(pieces) = self.pieces.take() {
            return self.send(pieces);
        }
        if self.ended {
            return Poll::Ready(None);
        }
        let polled = {
            let inner = Pin::new(&mut self.inner);
            catch_unwind(AssertUnwindSafe(|| inner.poll_frame(cx)))
        };
        match polled {
            Err(panic) => self.end_with(panicked(panic)),
            Ok(Poll::Pending) => match self.stopping(cx) {
                Poll::Ready(()) => self.end_with(shutting_down()),
                Poll::Pending => Poll::Pending,
            },
            Ok(Poll::Ready(Some(Ok(frame)))) => match frame.into_data() {
                Ok(bytes) => match self.hold(bytes) {
                    Ok(pieces) => self.send(pieces),
                    Err(error) => self.end_with(error),
                },
                Err(frame) => {
                    if let Some(trailers) = frame.trailers_ref() {
                        self.record.end_with_headers(trailers);
                    }
                    Poll::Ready(Some(Ok(frame)))
                }
            },
            Ok(Poll::Ready(Some(Err(status)))) => {
                self.record.end_with_code(status.code());
                Poll::Ready(Some(Err(status)))
            }
            Ok(Poll::Ready(None)) => {
                self.record.end_with_code(Code::Ok);
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended || (self.pieces.is_none() && self.inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
#[path = "call_tests.rs"]
mod tests;
