//! `ClassifyStream`: documents in, outcomes out in the same order, for as long as the caller sends.
//!
//! A task reads the requests and starts on them; what it has started waits, in order, in a bounded
//! channel for the response. A caller that does not read its responses so fills the channel, which
//! stops the reading, which through HTTP/2's flow control stops the caller from sending.
//!
//! A bad document fails alone. The stream as a whole ends with a status when its options are bad,
//! when a message is over the limit or unreadable (where it ends, and the next one begins, can then
//! not be told), at its deadline, when nothing comes for too long, and when the server drains or the
//! connection is too old before the caller has sent everything: then every document that was begun has
//! its outcome first, and the status is UNAVAILABLE, so that a caller that goes on after the last
//! outcome loses nothing.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

use super::batch;
use super::connection::Connection;
use super::convert;
use super::deadline::Deadline;
use super::lifecycle::{OpenCall, shutting_down};
use super::proto::{ClassifyStreamRequest, ClassifyStreamResponse};
use super::received::{Budget, Hold};
use super::sending::LEAST_BYTES;
use super::status::{CallError, precise};
use super::work::{CallContext, LastingWork, RunningItem};
use crate::engine::Lane;
use crate::pipeline::{Document, Models};

/// The outcomes of a stream.
pub(crate) type Responses =
    Pin<Box<dyn Stream<Item = Result<ClassifyStreamResponse, Status>> + Send>>;

/// What a stream needs of its server.
pub(crate) struct StreamContext {
    /// The loaded models.
    pub(crate) models: Arc<Models>,
    /// Documents read and not yet taken by the caller, at most; 2 or more.
    pub(crate) in_flight: usize,
    /// Bytes that a message may have.
    pub(crate) max_message_bytes: usize,
    /// What its documents hold a part of.
    pub(crate) budget: Option<Arc<Budget>>,
    /// What the call brings along.
    pub(crate) call: CallContext,
    /// The call, open until the responses are dropped.
    pub(crate) open: OpenCall,
    /// The connection that the call is on, if it is on one.
    pub(crate) connection: Option<Arc<Connection>>,
}

/// What the response says next: a document's outcome, or the status that ends the stream.
type Next = Result<RunningItem, Status>;

/// Answers `requests`. Dropping the responses cancels what is under way.
pub(crate) fn respond<S>(requests: S, context: StreamContext) -> Responses
where
    S: Stream<Item = Result<ClassifyStreamRequest, Status>> + Send + 'static,
{
    // One more document is in the hands of the response.
    let (started, waiting) = mpsc::channel(context.in_flight.saturating_sub(1).max(1));
    let context = Arc::new(context);
    tokio::spawn(read(requests, started, Arc::clone(&context)));
    Box::pin(ReceiverStream::new(waiting).then(move |next| outcome(next, Arc::clone(&context))))
}

async fn outcome(
    next: Next,
    context: Arc<StreamContext>,
) -> Result<ClassifyStreamResponse, Status> {
    let outcome = next?.finish().await;
    let result = batch::item(outcome, context.call.observer.as_ref());
    Ok(ClassifyStreamResponse { result: Some(result) })
}

/// Starts on every request, and says last how the stream ends if it is not well.
async fn read<S>(requests: S, started: mpsc::Sender<Next>, context: Arc<StreamContext>)
where
    S: Stream<Item = Result<ClassifyStreamRequest, Status>>,
{
    let deadline = Deadline::from(context.call.deadline);
    let end = match deadline.limit(start_all(requests, &started, &context)).await {
        Ok(end) => end,
        Err(late) => Err(late.into()),
    };
    if let Err(status) = end {
        // The caller may be gone; then nobody is there to be told.
        let _ = started.send(Err(status)).await;
    }
}

/// Starts on every request until the last, or until the caller or the server leaves.
async fn start_all<S>(
    requests: S,
    started: &mpsc::Sender<Next>,
    context: &StreamContext,
) -> Result<(), Status>
where
    S: Stream<Item = Result<ClassifyStreamRequest, Status>>,
{
    let mut requests = pin!(requests);
    let mut ending = pin!(ending(context));
    let mut work = None;
    loop {
        // The place first, then the request: a document for which there is no place stays unread.
        let Ok(place) = started.reserve().await else { return Ok(()) };
        let request = tokio::select! {
            biased;
            () = started.closed() => return Ok(()),
            reason = &mut ending => return Err(reason.into()),
            request = requests.next() => request,
        };
        let request = match request {
            None => return Ok(()),
            Some(Ok(request)) => request,
            Some(Err(status)) => {
                let error = precise(&status, context.max_message_bytes);
                return Err(error.map_or(status, Status::from));
            }
        };
        let begins = work.is_none();
        let work = match &work {
            Some(work) => work,
            None => work.insert(first(context, request.options)?),
        };
        let document = convert::document(request.document);
        // A document for which there is no room holds the stream up, as one without a place does.
        let held = match &context.budget {
            Some(budget) => {
                let client = context.call.client.as_str().into();
                // The first holds what the stream's answer is encoded into.
                let least = if begins { LEAST_BYTES } else { 0 };
                let bytes = document.as_ref().map_or(0, Document::bytes).max(least);
                tokio::select! {
                    biased;
                    () = started.closed() => return Ok(()),
                    reason = &mut ending => return Err(reason.into()),
                    held = Hold::wait(Arc::clone(budget), client, bytes) => Some(held),
                }
            }
            None => None,
        };
        place.send(Ok(work.start(document, held)?));
    }
}

/// Waits until the stream should read no more, and says why.
async fn ending(context: &StreamContext) -> CallError {
    let connection = async {
        match &context.connection {
            Some(connection) => connection.ending().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = context.open.draining() => shutting_down(),
        () = connection => CallError::ConnectionAge { retry_after: Duration::ZERO },
    }
}

/// The work that the options of a stream's first message ask for. Its documents wait for room in
/// the queue whatever their lane: the stream has a way to make its caller wait, too.
fn first(
    context: &StreamContext,
    options: Option<super::proto::Options>,
) -> Result<LastingWork, Status> {
    let asked = convert::options(options)?;
    let call = context.call.clone();
    Ok(LastingWork::resolve(&context.models, asked, Lane::Bulk, call)?)
}
