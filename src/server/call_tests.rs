//! A call always ends with a status, whatever the service under it does.

use std::future::{pending, ready};
use std::task::Waker;
use std::time::Duration;

use http_body::Body as _;
use tonic_types::StatusExt;

use super::*;
use crate::pipeline::Models;
use crate::server::auth::{Access, AuthConfig};
use crate::server::received::Budget;
use crate::server::telemetry::{HeldBytes, Observability};

/// A service that answers each request with what `F` makes.
#[derive(Clone)]
struct Answering<F>(F);

impl<F, R> Service<Request<Body>> for Answering<F>
where
    F: Fn() -> R,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        let answer = (self.0)();
        Box::pin(async { Ok(answer.await) })
    }
}

/// A body that does what `F` does when it is asked for a frame.
struct Doing<F>(F);

impl<F: FnMut() -> Poll<Option<Result<Frame<BodyData>, Status>>> + Unpin> http_body::Body
    for Doing<F>
{
    type Data = BodyData;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<BodyData>, Status>>> {
        (self.0)()
    }
}

async fn call<F, R>(lifecycle: &Arc<Lifecycle>, timeout: &str, answer: F) -> Response<CallBody>
where
    F: Fn() -> R,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    let intake = Arc::new(Intake {
        access: Access::load(&AuthConfig::default()).unwrap(),
        max_message_bytes: 64,
        message_timeout: Duration::from_secs(30),
        stream_idle_timeout: Duration::from_secs(30),
        budget: Arc::new(Budget::new(64, HeldBytes::default())),
    });
    let observer = Arc::new(Observer::new(&Observability::new(&Models::none())));
    let layer = CallLayer::new(Arc::clone(lifecycle), observer, intake);
    let mut service = layer.layer(Answering(answer));
    let mut request = Request::new(Body::empty());
    if !timeout.is_empty() {
        request.headers_mut().insert("grpc-timeout", timeout.parse().unwrap());
    }
    service.call(request).await.unwrap()
}

fn poll(response: &mut Response<CallBody>) -> Poll<Option<Result<Frame<BodyData>, Status>>> {
    Pin::new(response.body_mut()).poll_frame(&mut Context::from_waker(Waker::noop()))
}

/// The status in the trailers that come next.
fn trailing(response: &mut Response<CallBody>) -> Status {
    let Poll::Ready(Some(Ok(frame))) = poll(response) else { panic!("no frame is ready") };
    Status::from_header_map(frame.trailers_ref().unwrap()).unwrap()
}

fn leading(response: &Response<CallBody>) -> Status {
    Status::from_header_map(response.headers()).unwrap()
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().unwrap().reason
}

#[tokio::test]
async fn a_panic_in_a_handler_is_internal() {
    let lifecycle = Arc::new(Lifecycle::new());
    let response = call(&lifecycle, "", || async { panic!("a document's text") }).await;
    let status = leading(&response);
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Internal, "PANICKED"));
    assert!(!status.message().contains("document's"), "{}", status.message());
}

#[tokio::test]
async fn a_panic_in_a_stream_ends_it_as_internal() {
    let lifecycle = Arc::new(Lifecycle::new());
    let body = || Body::new(Doing(|| panic!("a document's text")));
    let mut response = call(&lifecycle, "", || ready(Response::new(body()))).await;
    let status = trailing(&mut response);
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Internal, "PANICKED"));
    assert!(matches!(poll(&mut response), Poll::Ready(None)));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_too_late_is_deadline_exceeded() {
    let lifecycle = Arc::new(Lifecycle::new());
    let response = call(&lifecycle, "20m", pending).await;
    assert_eq!(leading(&response).code(), Code::DeadlineExceeded);
    let response = call(&lifecycle, "20x", pending).await;
    assert_eq!(leading(&response).code(), Code::InvalidArgument);
}

#[tokio::test]
async fn what_the_transport_refuses_gets_details() {
    let lifecycle = Arc::new(Lifecycle::new());
    let too_large = || ready(Status::out_of_range("found 65 bytes, the limit is: 64").into_http());
    let status = leading(&call(&lifecycle, "", too_large).await);
    assert_eq!(reason(&status), "MESSAGE_TOO_LARGE");
    assert_eq!(status.message(), "the message has 65 bytes; the limit is 64 bytes");
}

#[tokio::test]
async fn what_is_open_when_the_server_stops_is_ended() {
    let lifecycle = Arc::new(Lifecycle::new());
    let mut watch =
        call(&lifecycle, "", || ready(Response::new(Body::new(Doing(|| Poll::Pending))))).await;
    assert!(poll(&mut watch).is_pending());
    lifecycle.advance(Phase::Draining);
    assert!(poll(&mut watch).is_pending());
    lifecycle.advance(Phase::Stopping);
    assert_eq!(trailing(&mut watch).code(), Code::Unavailable);

    let never = call(&lifecycle, "", pending).await;
    assert_eq!(leading(&never).code(), Code::Unavailable);
    // What is ready is sent all the same.
    let done = call(&lifecycle, "", || ready(Response::new(Body::empty()))).await;
    assert!(!done.headers().contains_key(Status::GRPC_STATUS));
}
