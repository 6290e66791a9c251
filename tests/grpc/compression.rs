//! Compressed requests, which may not grow over the limit of a message.

use std::io::Write;
use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, Request};
use prost::Message;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use tasnif::engine::EngineConfig;
use tasnif::server::ServerConfig;
use tasnif::server::proto::{ClassifyRequest, ClassifyResponse, Document};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tonic::{Code, Status};

use crate::harness::{
    PATIENCE, TestServer, assert_status, document, figure, plain, says_when_to_retry,
};

const LIMIT: usize = 100_000;

async fn start() -> TestServer {
    let config = ServerConfig { max_message_bytes: LIMIT, ..ServerConfig::default() };
    TestServer::start_with(config, EngineConfig::default()).await
}

fn gzip(message: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(message).unwrap();
    encoder.finish().unwrap()
}

fn zstd(message: &[u8]) -> Vec<u8> {
    compress_to_vec(message, CompressionLevel::Fastest)
}

/// The answer to `body` sent as one compressed message.
async fn call(
    address: SocketAddr,
    encoding: &str,
    body: &[u8],
) -> Result<ClassifyResponse, Status> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post(format!("http://{address}/tasnif.v1.Classifier/Classify"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-encoding", encoding)
        .body(())
        .unwrap();
    let (response, mut sending) = send.send_request(request, false).unwrap();
    let mut message = BytesMut::new();
    message.put_u8(1);
    message.put_u32(u32::try_from(body.len()).unwrap());
    message.put_slice(body);
    sending.send_data(message.freeze(), true).unwrap();
    let response = response.await.unwrap();
    let mut trailers: HeaderMap = response.headers().clone();
    let mut body = response.into_body();
    let mut received = BytesMut::new();
    while let Some(data) = body.data().await {
        let data: Bytes = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        received.put(data);
    }
    trailers.extend(body.trailers().await.unwrap().unwrap_or_default());
    let status = Status::from_header_map(&trailers).unwrap();
    match status.code() {
        Code::Ok => Ok(ClassifyResponse::decode(&received[5..]).unwrap()),
        _ => Err(status),
    }
}

#[tokio::test]
async fn a_compressed_request_is_answered_as_a_plain_one() {
    let server = start().await;
    let plainly = server.client().await.classify(plain(document(1))).await.unwrap().into_inner();
    let message = plain(document(1)).encode_to_vec();
    for (encoding, body) in [("gzip", gzip(&message)), ("zstd", zstd(&message))] {
        let answer = call(server.address, encoding, &body).await.unwrap();
        assert_eq!(answer.classification, plainly.classification, "{encoding}");
    }
    let unknown = call(server.address, "br", &message).await.unwrap_err();
    assert_eq!(unknown.code(), Code::Unimplemented);
}

#[tokio::test]
async fn a_bomb_is_refused_at_the_limit() {
    let server = start().await;
    let bomb = ClassifyRequest {
        document: Some(Document { text: "ا".repeat(64 * 1024 * 1024), ..document(0) }),
        options: None,
    }
    .encode_to_vec();
    for (encoding, body) in [("gzip", gzip(&bomb)), ("zstd", zstd(&bomb))] {
        // Small enough by itself: only what is in it is too large.
        let body = if body.len() > LIMIT { &body[..LIMIT] } else { &body };
        let status = call(server.address, encoding, body).await.unwrap_err();
        assert_status(&status, Code::InvalidArgument, "MESSAGE_TOO_LARGE");
        assert_eq!(figure(&status, "limit"), LIMIT.to_string(), "{encoding}");
    }
}

#[tokio::test]
async fn what_does_not_decompress_is_refused() {
    let server = start().await;
    for encoding in ["gzip", "zstd"] {
        let status = call(server.address, encoding, b"noise").await.unwrap_err();
        assert_status(&status, Code::InvalidArgument, "MALFORMED_MESSAGE");
    }
}

#[tokio::test]
async fn a_compressed_message_takes_the_room_of_what_is_in_it() {
    // For two such messages of one client, and not for three.
    let config = ServerConfig {
        max_message_bytes: LIMIT,
        max_received_bytes: 4 * LIMIT,
        ..ServerConfig::default()
    };
    let server = TestServer::start_with(config, EngineConfig::default()).await;
    // Spaces, which the normaliser drops.
    let text = format!("{}{}", document(0).text, " ".repeat(80_000));
    let message = plain(Document { text, ..document(0) }).encode_to_vec();
    for (encoding, body) in [("gzip", gzip(&message)), ("zstd", zstd(&message))] {
        assert!(body.len() < 1_000, "{encoding}");
        server.gate.shut();
        let mut calls = JoinSet::new();
        for _ in 0..3 {
            let (address, body) = (server.address, body.clone());
            calls.spawn(async move { call(address, encoding, &body).await });
        }
        let first = tokio::time::timeout(PATIENCE, calls.join_next()).await;
        let refused = first.expect("one is refused").unwrap().unwrap().unwrap_err();
        assert_status(&refused, Code::ResourceExhausted, "BUSY");
        assert!(says_when_to_retry(&refused), "{refused:?}");
        server.gate.open();
        while let Some(answer) = calls.join_next().await {
            answer.unwrap().unwrap();
        }
    }
}
