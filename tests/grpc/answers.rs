//! Answers that nobody reads: the memory that they may take, and who is told so.

use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::client::{ResponseFuture, SendRequest};
use prost::Message;
use tasnif::engine::EngineConfig;
use tasnif::server::proto::classifier_client::ClassifierClient;
use tasnif::server::proto::{self, ClassifyStreamRequest, TokenizeRequest, TokenizeResponse};
use tasnif::server::{AuthConfig, ServerConfig};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status};
use tonic_health::ServingStatus;

use crate::connections::{framed, head};
use crate::harness::{
    PATIENCE, TestServer, assert_status, document, plain, says_when_to_retry, text,
};
use crate::scrape::scrape;

const TOKENS: &str =
    "flood flood-token-0123456789\nother other-token-0123456789\nthird third-token-0123456789\n";
const FLOOD: &str = "Bearer flood-token-0123456789";
const OTHER: &str = "Bearer other-token-0123456789";
const THIRD: &str = "Bearer third-token-0123456789";
/// Calls of a flood, whose answers together are far over any limit here.
const CALLS: usize = 64;
/// What all answers may hold, and one client a half of.
const MAX_BYTES: usize = 512 * 1024;

/// A client that lets the server send nothing until it opens its window.
struct Deaf {
    token: &'static str,
    send: SendRequest<Bytes>,
    open: oneshot::Sender<()>,
}

async fn start() -> (TestServer, tempfile::TempDir) {
    start_with_room(MAX_BYTES).await
}

async fn start_with_room(max_received_bytes: usize) -> (TestServer, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tokens");
    std::fs::write(&file, TOKENS).unwrap();
    let config = ServerConfig {
        auth: AuthConfig { tokens_file: Some(file), ..AuthConfig::default() },
        max_message_bytes: 32 * 1024,
        max_received_bytes,
        response_timeout: PATIENCE,
        ..ServerConfig::default()
    };
    (TestServer::start_with(config, EngineConfig::default()).await, directory)
}

/// Some thousand tokens.
fn tokenize() -> TokenizeRequest {
    tokenize_sentences(100)
}

fn tokenize_sentences(count: usize) -> TokenizeRequest {
    let document = proto::Document { text: text(count), ..document(0) };
    TokenizeRequest { document: Some(document), model: String::new() }
}

fn with_token<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let token: MetadataValue<_> = token.parse().unwrap();
    request.metadata_mut().insert("authorization", token);
    request
}

impl Deaf {
    async fn connect(server: &TestServer, token: &'static str) -> Self {
        let stream = TcpStream::connect(server.address).await.unwrap();
        let mut builder = h2::client::Builder::new();
        let (send, mut connection) =
            builder.initial_window_size(0).handshake(stream).await.unwrap();
        let (open, opened) = oneshot::channel();
        tokio::spawn(async move {
            tokio::select! {
                _ = &mut connection => return,
                opened = opened => if opened.is_err() { return },
            }
            connection.set_initial_window_size(1 << 20).unwrap();
            let _ = connection.await;
        });
        Self { token, send, open }
    }

    /// Begins a call and sends its messages.
    async fn call(&mut self, server: &TestServer, method: &str, messages: Bytes) -> ResponseFuture {
        let mut head = head(server, method);
        head.headers_mut().insert("authorization", self.token.parse().unwrap());
        let mut send = self.send.clone().ready().await.unwrap();
        let (response, mut body) = send.send_request(head, false).unwrap();
        body.send_data(messages, true).unwrap();
        response
    }

    /// Makes many calls, and reads the answers of none. Returns those that were begun.
    async fn flood(&mut self, server: &TestServer) -> Vec<RecvStream> {
        let message = framed(&tokenize());
        let mut responses = Vec::new();
        for _ in 0..CALLS {
            responses.push(self.call(server, "Tokenize", message.clone()).await);
        }
        let mut begun = Vec::new();
        for response in responses {
            let response = tokio::time::timeout(PATIENCE, response).await.expect("an answer");
            let (head, body) = response.unwrap().into_parts();
            match Status::from_header_map(&head.headers) {
                Some(status) => assert_busy(&status),
                None => begun.push(body),
            }
        }
        begun
    }
}

fn assert_busy(status: &Status) {
    assert_status(status, Code::ResourceExhausted, "BUSY");
    assert!(says_when_to_retry(status), "{status:?}");
}

/// Waits until the bytes of messages that are not answered, and of answers that are not sent, are
/// as `reached` says.
async fn until_held(server: &TestServer, reached: impl Fn(usize, usize) -> bool) {
    let waiting = async {
        loop {
            let scrape = scrape(server.monitoring).await;
            let received = scrape.value("tasnif_received_bytes", &[]);
            let answers = scrape.value("tasnif_answer_bytes", &[]);
            assert!(answers <= MAX_BYTES as f64, "{answers} bytes");
            if reached(received as usize, answers as usize) {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("the server gets there");
}

/// Reads an answer to its end.
pub(crate) async fn read(mut body: RecvStream) -> (Vec<u8>, Status) {
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        bytes.extend(data);
    }
    let trailers = body.trailers().await.unwrap().unwrap();
    (bytes, Status::from_header_map(&trailers).unwrap())
}

#[tokio::test]
async fn unread_answers_are_bounded_and_none_that_was_promised_is_lost() {
    let (server, _directory) = start().await;
    let mut other = ClassifierClient::new(server.channel().await);
    let expected = other.tokenize(with_token(OTHER, tokenize())).await.unwrap().into_inner();
    assert!(CALLS * expected.encoded_len() > 4 * MAX_BYTES);
    let mut deaf = Deaf::connect(&server, FLOOD).await;
    let begun = deaf.flood(&server).await;
    until_held(&server, |received, answers| {
        assert!(answers <= MAX_BYTES / 2, "{answers} bytes of one client");
        received == 0 && answers > 0
    })
    .await;

    // No more is taken on for that client, on whatever connection; others are served.
    let more = other.tokenize(with_token(FLOOD, tokenize())).await.unwrap_err();
    assert_busy(&more);
    let answer = other.tokenize(with_token(OTHER, tokenize())).await.unwrap().into_inner();
    assert_eq!(answer, expected);
    other.classify(with_token(OTHER, plain(document(0)))).await.unwrap();

    // What there was room for is all there when it is read.
    deaf.open.send(()).unwrap();
    let mut whole = 0;
    // Side by side: they share the connection's window.
    let reading: JoinSet<_> = begun.into_iter().map(read).collect();
    let ends = tokio::time::timeout(PATIENCE, reading.join_all()).await.expect("an end");
    for (bytes, status) in ends {
        if status.code() == Code::Ok {
            assert_eq!(TokenizeResponse::decode(&bytes[5..]).unwrap(), expected);
            whole += 1;
        } else {
            assert_busy(&status);
            assert!(bytes.is_empty());
        }
    }
    assert!(whole > 0);
    until_held(&server, |received, answers| (received, answers) == (0, 0)).await;
    other.tokenize(with_token(FLOOD, tokenize())).await.unwrap();
}

#[tokio::test]
async fn health_is_answered_when_answers_that_nobody_reads_leave_no_room() {
    const ROOM: usize = 128 * 1024;
    let (server, _directory) = start_with_room(ROOM).await;
    // The answer is over what one client may hold, and counts as all of that.
    let message = framed(&tokenize_sentences(300));
    let mut deaf = [Deaf::connect(&server, FLOOD).await, Deaf::connect(&server, OTHER).await];
    let mut unread = Vec::new();
    for client in &mut deaf {
        unread.push(client.call(&server, "Tokenize", message.clone()).await.await.unwrap());
    }
    until_held(&server, |received, answers| (received, answers) == (0, ROOM)).await;
    let mut third = ClassifierClient::new(server.channel().await);
    assert_busy(&third.classify(with_token(THIRD, plain(document(0)))).await.unwrap_err());
    server.until("", ServingStatus::Serving).await;
    drop((deaf, unread));
    until_held(&server, |received, answers| (received, answers) == (0, 0)).await;
    third.classify(with_token(THIRD, plain(document(0)))).await.unwrap();
}

#[tokio::test]
async fn answers_to_a_client_that_has_gone_are_dropped() {
    let (server, _directory) = start().await;
    let mut deaf = Deaf::connect(&server, FLOOD).await;
    let begun = deaf.flood(&server).await;
    until_held(&server, |received, answers| received == 0 && answers > 0).await;
    // Some are given up, and then the connection is.
    drop(begun);
    drop(deaf);
    until_held(&server, |received, answers| (received, answers) == (0, 0)).await;
}

#[tokio::test]
async fn documents_of_a_stream_count_until_their_outcomes_are_read() {
    const DOCUMENTS: usize = 3;
    let (server, _directory) = start().await;
    let mut deaf = Deaf::connect(&server, FLOOD).await;
    server.gate.shut();
    let item = |index| ClassifyStreamRequest { document: Some(document(index)), options: None };
    let messages: Vec<Bytes> = (0..DOCUMENTS).map(|index| framed(&item(index))).collect();
    let response = deaf.call(&server, "ClassifyStream", messages.concat().into()).await;
    // Each as what its outcome will take at least, the first as what the answer begins with.
    until_held(&server, |received, _| received == (8 + 6 * (DOCUMENTS - 1)) * 1_024).await;
    server.gate.open();
    until_held(&server, |_, answers| answers > 0).await;
    deaf.open.send(()).unwrap();
    let (_, status) = read(response.await.unwrap().into_body()).await;
    assert_eq!(status.code(), Code::Ok);
    until_held(&server, |received, answers| (received, answers) == (0, 0)).await;
}

/// A reader that takes the first byte of an answer, or none, is waited for as long as a setting
/// says, not for as long as a connection may be idle.
#[tokio::test]
async fn a_client_that_stops_reading_is_cut() {
    let response_timeout = Duration::from_millis(100);
    let server = TestServer::start_with(
        ServerConfig { response_timeout, ..ServerConfig::default() },
        EngineConfig::default(),
    )
    .await;
    for window in [0, 1] {
        let stream = TcpStream::connect(server.address).await.unwrap();
        let mut builder = h2::client::Builder::new();
        let (mut send, connection) =
            builder.initial_window_size(window).handshake(stream).await.unwrap();
        let connection = tokio::spawn(connection);
        let (response, mut body) = send.send_request(head(&server, "Classify"), false).unwrap();
        body.send_data(framed(&plain(document(0))), true).unwrap();
        let _response = response.await.unwrap();
        let _ = tokio::time::timeout(PATIENCE, connection).await.expect("the connection is cut");
    }
    // Others are served.
    server.client().await.classify(plain(document(0))).await.unwrap();
}
