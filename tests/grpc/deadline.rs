//! Deadlines that the server keeps. tonic's client would answer CANCELLED by itself, so these tests
//! use one without a timer.

use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tasnif::server::proto::classifier_client::ClassifierClient;
use tasnif::server::proto::{ClassifyBatchRequest, ClassifyStreamRequest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::{Code, Request};

use crate::harness::{TestServer, assert_status, document, plain};

pub(crate) type Timerless = ClassifierClient<Client<HttpConnector, Body>>;

pub(crate) fn client(server: &TestServer) -> Timerless {
    let http = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    ClassifierClient::with_origin(http, format!("http://{}", server.address).parse().unwrap())
}

pub(crate) fn within<T>(timeout: &'static str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("grpc-timeout", timeout.parse().unwrap());
    request
}

#[tokio::test]
async fn a_deadline_that_is_over_runs_nothing() {
    let server = TestServer::start().await;
    let before = server.gate.entered();
    let status = client(&server).classify(within("1n", plain(document(0)))).await.unwrap_err();
    assert_status(&status, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
    assert_eq!(server.gate.entered(), before);
}

#[tokio::test]
async fn an_answer_that_would_come_too_late_is_deadline_exceeded() {
    let server = TestServer::start().await;
    server.gate.shut();
    let status = client(&server).classify(within("50m", plain(document(0)))).await.unwrap_err();
    assert_status(&status, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");

    let documents = (0..20).map(document).collect();
    let batch = ClassifyBatchRequest { documents, options: None };
    let status = client(&server).classify_batch(within("50m", batch)).await.unwrap_err();
    assert_status(&status, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
    server.gate.open();
}

#[tokio::test]
async fn a_stream_ends_at_its_deadline() {
    let server = TestServer::start().await;
    // The sender stays, so nothing but the deadline can end the stream.
    let (_sender, requests) = mpsc::channel::<ClassifyStreamRequest>(1);
    let request = within("200m", ReceiverStream::new(requests));
    let end = match client(&server).classify_stream(request).await {
        Ok(reply) => reply.into_inner().message().await.unwrap_err(),
        Err(status) => status,
    };
    assert_status(&end, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
}

#[tokio::test]
async fn an_answer_in_time_is_an_answer() {
    let server = TestServer::start().await;
    client(&server).classify(within("99999999H", plain(document(0)))).await.unwrap();
}

#[tokio::test]
async fn a_timeout_that_is_not_one_is_refused() {
    let server = TestServer::start().await;
    let status = client(&server).classify(within("soon", plain(document(0)))).await.unwrap_err();
    let fields = assert_status(&status, Code::InvalidArgument, "INVALID_TIMEOUT");
    assert_eq!(fields, ["grpc-timeout"]);
}
