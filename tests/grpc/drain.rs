//! Shutting down: accepted work is answered, the rest is refused, and it ends in time.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use tasnif::engine::EngineConfig;
use tasnif::server::ServerConfig;
use tasnif::server::proto::classifier_client::ClassifierClient;
use tasnif::server::proto::{ClassifyBatchRequest, ClassifyStreamRequest, ListModelsRequest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::harness::{
    PATIENCE, TestServer, answer, assert_status, document, plain, says_when_to_retry,
};

/// One call; whether it was answered. Panics if it was lost.
async fn answered_or_refused(mut client: ClassifierClient<Channel>, index: usize) -> bool {
    match client.classify(plain(document(index))).await {
        Ok(reply) => {
            assert_eq!(reply.into_inner().classification.unwrap().id, index.to_string());
            true
        }
        Err(status) if status.code() == Code::Unavailable || never_sent(&status) => false,
        Err(status) => panic!("call {index} was lost: {status:?}"),
    }
}

/// Whether the call still waited in the client when its connection closed: hyper cancels those and
/// no others.
fn never_sent(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled) {
            return true;
        }
        source = error.source();
    }
    false
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_200_calls_is_answered_or_refused() {
    let server = TestServer::start().await;
    // What must not keep the server: a connection without a call, a stream that sends nothing,
    // and a watcher of its health.
    let _idle = server.channel().await;
    let (_sender, requests) = mpsc::channel::<ClassifyStreamRequest>(1);
    let mut streaming = server.client().await;
    let stream = streaming.classify_stream(ReceiverStream::new(requests)).await.unwrap();

    server.gate.shut();
    let before = server.gate.entered();
    let clients = [server.client().await, server.client().await, server.client().await];
    let calls: Vec<_> = (0..200)
        .map(|index| tokio::spawn(answered_or_refused(clients[index % 3].clone(), index)))
        .collect();
    let gate = Arc::clone(&server.gate);
    gate.until_entered_after(before).await;
    let stopped = server.stop_soon();
    gate.open();
    let report = tokio::time::timeout(PATIENCE, stopped).await.unwrap();
    assert!(report.closed_in_time);

    let mut answered = 0;
    for call in calls {
        answered += usize::from(call.await.unwrap());
    }
    assert!(answered > 0, "the call that ran when the signal came was not answered");
    let end = stream.into_inner().message().await.unwrap_err();
    assert_status(&end, Code::Unavailable, "DRAINING");
}

#[tokio::test]
async fn a_call_on_an_open_connection_is_refused_while_others_finish() {
    let server = TestServer::start().await;
    server.gate.shut();
    let before = server.gate.entered();
    let (mut running, mut late) = (server.client().await, server.client().await);
    let mut watch = {
        let mut health = tonic_health::pb::health_client::HealthClient::new(server.channel().await);
        let request = tonic_health::pb::HealthCheckRequest::default();
        health.watch(request).await.unwrap().into_inner()
    };
    let running = tokio::spawn(async move { running.classify(plain(document(0))).await });
    let gate = Arc::clone(&server.gate);
    gate.until_entered_after(before).await;
    let stopped = server.stop_soon();
    while watch.message().await.unwrap().unwrap().status == 1 {}

    let status = late.classify(plain(document(1))).await.unwrap_err();
    assert_status(&status, Code::Unavailable, "DRAINING");
    assert!(says_when_to_retry(&status));
    let status = late.list_models(ListModelsRequest {}).await.unwrap_err();
    assert_status(&status, Code::Unavailable, "DRAINING");

    gate.open();
    running.await.unwrap().unwrap();
    let report = stopped.await;
    assert!(report.closed_in_time);
    let names: Vec<_> = report.models.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["tiny", "other"]);
    assert_eq!(report.models[0].1.abandoned, 0);
}

#[tokio::test]
async fn a_batch_that_was_accepted_is_answered_to_its_last_document() {
    // Most of its documents are not in the queue yet when the signal comes.
    let config = ServerConfig { max_stream_in_flight: 2, ..ServerConfig::default() };
    let server = TestServer::start_with(config, EngineConfig::default()).await;
    server.gate.shut();
    let before = server.gate.entered();
    let (mut client, mut late) = (server.client().await, server.client().await);
    let batch = ClassifyBatchRequest { documents: (0..9).map(document).collect(), options: None };
    let batch = tokio::spawn(async move { client.classify_batch(batch).await });
    let gate = Arc::clone(&server.gate);
    gate.until_entered_after(before).await;
    let stopped = server.stop_soon();
    let refused = async { while late.list_models(ListModelsRequest {}).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, refused).await.unwrap();
    gate.open();

    for result in batch.await.unwrap().unwrap().into_inner().results {
        answer(&result);
    }
    let report = stopped.await;
    assert!(report.closed_in_time);
    assert_eq!((report.models[0].1.refused, report.models[0].1.abandoned), (0, 0));
}

/// Outcomes of a stream until its end.
async fn read_all(
    responses: &mut tonic::Streaming<tasnif::server::proto::ClassifyStreamResponse>,
) -> (usize, Option<Status>) {
    let mut answers = 0;
    loop {
        match responses.message().await {
            Ok(Some(response)) => {
                answer(&response.result.unwrap());
                answers += 1;
            }
            Ok(None) => return (answers, None),
            Err(status) => return (answers, Some(status)),
        }
    }
}

#[tokio::test]
async fn a_stream_gets_every_outcome_that_was_accepted_and_learns_that_there_is_more() {
    let server = TestServer::start().await;
    let (sender, requests) = mpsc::channel(1);
    let mut client = server.client().await;
    let reply = client.classify_stream(ReceiverStream::new(requests)).await;
    let mut responses = reply.unwrap().into_inner();

    server.gate.shut();
    let before = server.gate.entered();
    let first = ClassifyStreamRequest { document: Some(document(0)), options: None };
    sender.send(first).await.unwrap();
    let gate = Arc::clone(&server.gate);
    gate.until_entered_after(before).await;
    let stopped = server.stop_soon();
    gate.open();

    let (answers, end) = read_all(&mut responses).await;
    assert_eq!(answers, 1);
    let end = end.unwrap();
    assert_status(&end, Code::Unavailable, "DRAINING");
    assert!(says_when_to_retry(&end));
    assert!(stopped.await.closed_in_time);
}

/// A peer that speaks HTTP/2 no further than its first words, and so never says goodbye.
async fn mute_peer(server: &TestServer) -> TcpStream {
    let mut peer = TcpStream::connect(server.address).await.unwrap();
    peer.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    // An empty SETTINGS frame.
    peer.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    // The server has taken it in once it has sent its own settings.
    peer.read_exact(&mut [0; 9]).await.unwrap();
    peer
}

#[tokio::test]
async fn a_peer_that_never_says_goodbye_is_cut() {
    let drain_timeout = Duration::from_millis(300);
    let config = ServerConfig { drain_timeout, ..ServerConfig::default() };
    let server = TestServer::start_with(config, EngineConfig::default()).await;
    let mut peer = mute_peer(&server).await;
    let report = server.stop().await;
    assert!(!report.closed_in_time);
    // The end of the connection, one way or the other.
    let cut = tokio::time::timeout(PATIENCE, peer.read_to_end(&mut Vec::new())).await;
    drop(cut.expect("the connection ends"));
}

#[tokio::test]
async fn work_that_does_not_end_is_given_up_with_a_status() {
    let drain_timeout = Duration::from_secs(2);
    let config = ServerConfig { drain_timeout, ..ServerConfig::default() };
    let server = TestServer::start_with(config, EngineConfig::default()).await;
    server.gate.shut();
    let before = server.gate.entered();
    let mut client = server.client().await;
    let stuck = tokio::spawn(async move { client.classify(plain(document(0))).await });
    let gate = Arc::clone(&server.gate);
    gate.until_entered_after(before).await;
    let report = server.stop().await;
    assert_eq!(report.models[0].1.abandoned, 1);
    let status = stuck.await.unwrap().unwrap_err();
    assert_status(&status, Code::Unavailable, "DRAINING");
    gate.open();
}
