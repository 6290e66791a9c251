//! Connections that are too many, too old, idle, half-open or not read.

use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use prost::Message;
use tasnif::engine::EngineConfig;
use tasnif::server::proto::classifier_client::ClassifierClient;
use tasnif::server::proto::{ClassifyStreamRequest, Document, ListModelsRequest};
use tasnif::server::{Listen, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;

use crate::answers::read;
use crate::harness::{PATIENCE, TestServer, assert_status, document, plain};

const SOON: Duration = Duration::from_millis(100);

async fn start(config: ServerConfig) -> TestServer {
    TestServer::start_with(config, EngineConfig::default()).await
}

/// Waits for the end of a connection.
async fn ended(mut peer: TcpStream) {
    let end = tokio::time::timeout(PATIENCE, peer.read_to_end(&mut Vec::new())).await;
    drop(end.expect("the connection ends"));
}

/// HTTP/2 by hand, with as much room for answers as `window` says.
async fn by_hand(
    server: &TestServer,
    window: u32,
) -> (SendRequest<Bytes>, JoinHandle<Result<(), h2::Error>>) {
    let stream = TcpStream::connect(server.address).await.unwrap();
    let mut builder = h2::client::Builder::new();
    let (send, connection) = builder.initial_window_size(window).handshake(stream).await.unwrap();
    (send, tokio::spawn(connection))
}

pub(crate) fn head(server: &TestServer, method: &str) -> Request<()> {
    Request::post(format!("http://{}/tasnif.v1.Classifier/{method}", server.address))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap()
}

pub(crate) fn framed(message: &impl Message) -> Bytes {
    let message = message.encode_to_vec();
    let mut framed = vec![0];
    framed.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    framed.extend(message);
    framed.into()
}

async fn until_there_is_room(server: &TestServer) {
    let room = async {
        loop {
            if let Ok(channel) = server.endpoint().connect().await {
                let mut client = ClassifierClient::new(channel);
                if client.list_models(ListModelsRequest {}).await.is_ok() {
                    break;
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, room).await.expect("there is room again");
}

#[tokio::test]
async fn connections_over_the_limit_are_closed_and_room_is_found_again() {
    let limits = [
        ServerConfig { max_connections: 3, ..ServerConfig::default() },
        ServerConfig { max_connections_per_address: 3, ..ServerConfig::default() },
    ];
    for config in limits {
        let server = start(config).await;
        let mut first = server.client().await;
        first.list_models(ListModelsRequest {}).await.unwrap();
        let mut others = Vec::new();
        let full = async {
            loop {
                let mut peer = TcpStream::connect(server.address).await.unwrap();
                // The settings of a server that has taken the connection, or its end.
                peer.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
                    .await
                    .unwrap();
                match peer.read(&mut [0; 9]).await {
                    Ok(0) | Err(_) => break,
                    Ok(_) => others.push(peer),
                }
            }
        };
        tokio::time::timeout(PATIENCE, full).await.expect("a connection is one too many");
        assert!(others.len() <= 2);
        // Those inside are served, and so is whoever comes when one has gone.
        first.list_models(ListModelsRequest {}).await.unwrap();
        others.clear();
        until_there_is_room(&server).await;
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let server = start(ServerConfig { idle_timeout: SOON, ..ServerConfig::default() }).await;
    server.gate.shut();
    let mut client = server.client().await;
    let busy = tokio::spawn(async move { client.classify(plain(document(0))).await });
    // One that has said all it will.
    let (_send, quiet) = by_hand(&server, 65_535).await;
    let _ = tokio::time::timeout(PATIENCE, quiet).await.expect("the quiet connection ends");
    server.gate.open();
    busy.await.unwrap().unwrap();
}

#[tokio::test]
async fn connections_on_which_http2_does_not_begin_give_their_places_back() {
    let words = [&b""[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", b"GET / HTTP/1.1\r\n"];
    let config = ServerConfig {
        handshake_timeout: Duration::from_secs(1),
        max_connections: words.len() + 1,
        ..ServerConfig::default()
    };
    let server = start(config).await;
    let mut client = server.client().await;
    client.list_models(ListModelsRequest {}).await.unwrap();
    let mut peers = Vec::new();
    for words in words {
        let mut peer = TcpStream::connect(server.address).await.unwrap();
        peer.write_all(words).await.unwrap();
        peers.push(peer);
    }
    for peer in peers {
        ended(peer).await;
    }
    // Whoever has begun stays without a call, and others find the places.
    client.list_models(ListModelsRequest {}).await.unwrap();
    until_there_is_room(&server).await;
}

#[tokio::test]
async fn silent_connections_do_not_hold_up_a_shutdown() {
    let config = ServerConfig { handshake_timeout: PATIENCE, ..ServerConfig::default() };
    let server = start(config).await;
    let silent = TcpStream::connect(server.address).await.unwrap();
    assert!(server.stop().await.closed_in_time);
    ended(silent).await;
}

#[tokio::test]
async fn what_no_call_has_read_is_bounded() {
    let config = ServerConfig { connection_window_bytes: 65_536, ..ServerConfig::default() };
    let server = start(config).await;
    // What a client may send before anything is read.
    let (mut send, _connection) = by_hand(&server, 65_535).await;
    let (response, mut body) = send.send_request(head(&server, "ClassifyStream"), false).unwrap();
    let _response = response.await.unwrap();
    let room = async |body: &mut h2::SendStream<Bytes>| {
        body.reserve_capacity(1 << 20);
        std::future::poll_fn(|cx| body.poll_capacity(cx)).await.unwrap().unwrap()
    };
    assert_eq!(room(&mut body).await, 2_048);
    let (_response, mut other) = send.send_request(head(&server, "Classify"), false).unwrap();
    assert_eq!(room(&mut other).await, 2_048);
}

/// As gRPC for Go sends them: each message in a frame of its own.
#[tokio::test]
async fn a_stream_of_many_small_frames_waits_and_does_not_end_its_connection() {
    const DOCUMENTS: usize = 2_000;
    let server = TestServer::start().await;
    let (mut send, _connection) = by_hand(&server, 1 << 20).await;
    // After an answer the server's windows are known.
    let (response, mut body) = send.send_request(head(&server, "ListModels"), false).unwrap();
    body.send_data(framed(&ListModelsRequest {}), true).unwrap();
    response.await.unwrap();
    server.gate.shut();
    let (response, mut body) = send.send_request(head(&server, "ClassifyStream"), false).unwrap();
    for index in 0..DOCUMENTS {
        let text = "فاز الفريق".into();
        let document = Document { id: index.to_string(), text, ..Document::default() };
        let item = ClassifyStreamRequest { document: Some(document), options: None };
        body.send_data(framed(&item), index + 1 == DOCUMENTS).unwrap();
    }
    // What the server's window has room for is there by now, and nothing reads it.
    let response = response.await.unwrap();
    tokio::time::sleep(SOON).await;
    server.gate.open();
    let (_, status) = read(response.into_body()).await;
    assert_eq!(status.code(), Code::Ok, "{status:?}");
}

#[tokio::test]
async fn a_message_that_does_not_arrive_ends_its_call() {
    let server = start(ServerConfig { message_timeout: SOON, ..ServerConfig::default() }).await;
    let (mut send, _connection) = by_hand(&server, 65_535).await;
    let message = framed(&plain(document(0)));
    for sent in [0, 3, message.len() - 1] {
        let (response, mut body) = send.send_request(head(&server, "Classify"), false).unwrap();
        body.send_data(message.slice(..sent), false).unwrap();
        let response = tokio::time::timeout(PATIENCE, response).await.expect("an answer").unwrap();
        let status = tonic::Status::from_header_map(response.headers()).unwrap();
        assert_status(&status, Code::DeadlineExceeded, "MESSAGE_TIMEOUT");
    }
    // What is whole is answered on the same connection.
    let (response, mut body) = send.send_request(head(&server, "Classify"), false).unwrap();
    body.send_data(message, true).unwrap();
    assert!(response.await.unwrap().headers().get("grpc-status").is_none());
}

#[tokio::test]
async fn a_stream_may_pause_longer_than_a_message_but_not_for_ever() {
    let config = ServerConfig {
        message_timeout: Duration::from_millis(1),
        stream_idle_timeout: Duration::from_millis(300),
        ..ServerConfig::default()
    };
    let server = start(config).await;
    let (sender, requests) = mpsc::channel(1);
    let mut client = server.client().await;
    let reply = client.classify_stream(ReceiverStream::new(requests)).await.unwrap();
    let mut responses = reply.into_inner();
    for index in 0..2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let request = ClassifyStreamRequest { document: Some(document(index)), options: None };
        sender.send(request).await.unwrap();
        assert!(responses.message().await.unwrap().is_some());
    }
    let end = responses.message().await.unwrap_err();
    assert_status(&end, Code::DeadlineExceeded, "MESSAGE_TIMEOUT");
}

#[tokio::test]
async fn a_stream_of_reflection_may_not_pause_for_ever_either() {
    let config = ServerConfig { stream_idle_timeout: SOON, ..ServerConfig::default() };
    let server = start(config).await;
    let (sender, requests) = mpsc::channel(1);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    sender.send(request).await.unwrap();
    let mut client = ServerReflectionClient::new(server.channel().await);
    let reply = client.server_reflection_info(ReceiverStream::new(requests)).await.unwrap();
    let mut responses = reply.into_inner();
    let end = async { while responses.message().await.unwrap().is_some() {} };
    tokio::time::timeout(PATIENCE, end).await.expect("the stream ends");
    drop(sender);
}

#[tokio::test]
async fn an_old_connection_ends_without_losing_what_it_carries() {
    let config = ServerConfig {
        max_connection_age: Some(SOON),
        max_connection_age_grace: SOON,
        ..ServerConfig::default()
    };
    let server = start(config).await;
    let mut client = server.client().await;
    // Calls one after the other, over as many connections as it takes.
    let (sender, requests) = mpsc::channel(1);
    let mut streaming = server.client().await;
    let reply = streaming.classify_stream(ReceiverStream::new(requests)).await.unwrap();
    let mut responses = reply.into_inner();
    let mut sent = 0;
    let end = loop {
        // A call that meets the connection's end was not begun. Other clients try it again by
        // themselves; tonic's says so.
        while let Err(status) = client.classify(plain(document(sent))).await {
            assert!(status.message().contains("operation was canceled"), "{status:?}");
        }
        let request = ClassifyStreamRequest { document: Some(document(sent)), options: None };
        if sender.send(request).await.is_ok() {
            sent += 1;
        }
        match responses.message().await {
            Ok(response) => {
                assert_eq!(response.unwrap().result.unwrap().id, (sent - 1).to_string());
            }
            Err(status) => break status,
        }
    };
    assert!(sent > 0);
    assert_status(&end, Code::Unavailable, "CONNECTION_AGE");
}

#[tokio::test]
async fn headers_over_the_limit_are_refused() {
    let server = start(ServerConfig { max_header_bytes: 2_048, ..ServerConfig::default() }).await;
    let (mut send, connection) = by_hand(&server, 65_535).await;
    let mut request = head(&server, "ListModels");
    request.headers_mut().insert("x-flood", "x".repeat(4_000).parse().unwrap());
    let (response, _) = send.send_request(request, true).unwrap();
    match response.await {
        Ok(response) => assert_eq!(response.status(), 431),
        Err(error) => assert!(error.is_reset() || error.is_go_away(), "{error}"),
    }
    drop((send, connection));
    server.client().await.list_models(ListModelsRequest {}).await.unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn a_unix_socket_serves_as_an_address_does() {
    use hyper_util::rt::TokioIo;
    use tokio::net::UnixStream;
    use tonic::transport::Endpoint;

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let config = ServerConfig { listen: Listen::Unix(path.clone()), ..ServerConfig::default() };
    let server = TestServer::begin(config).await;
    let socket = path.clone();
    let dial = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    let mut client = ClassifierClient::new(endpoint.connect_with_connector(dial).await.unwrap());
    let answered = async {
        while let Err(status) = client.classify(plain(document(0))).await {
            assert_status(&status, Code::Unavailable, "WARMING_UP");
        }
    };
    tokio::time::timeout(PATIENCE, answered).await.expect("an answer");
    assert!(server.stop().await.closed_in_time);
    assert!(!path.exists());
}
