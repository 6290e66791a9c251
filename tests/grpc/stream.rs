//! `ClassifyStream`: outcomes in input order, bad documents alone, and a slow reader slows itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tasnif::engine::EngineConfig;
use tasnif::server::ServerConfig;
use tasnif::server::proto::classifier_client::ClassifierClient;
use tasnif::server::proto::{self, ClassifyStreamRequest, ItemResult, Options};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Code, Status};

use crate::harness::{TestServer, answer, assert_status, document, error, figure, plain};

fn item(document: proto::Document) -> ClassifyStreamRequest {
    ClassifyStreamRequest { document: Some(document), options: None }
}

fn tasks(names: &[&str]) -> Option<Options> {
    let tasks = names.iter().map(|name| (*name).to_owned()).collect();
    Some(Options { tasks, ..Options::default() })
}

/// Sends all requests; the outcomes, and the status if the stream does not end well.
async fn run(
    server: &TestServer,
    requests: impl Stream<Item = ClassifyStreamRequest> + Send + 'static,
) -> (Vec<ItemResult>, Option<Status>) {
    let reply = server.client().await.classify_stream(requests).await.unwrap();
    let mut responses = reply.into_inner();
    let mut items = Vec::new();
    loop {
        match responses.message().await {
            Ok(Some(response)) => items.push(response.result.unwrap()),
            Ok(None) => return (items, None),
            Err(status) => return (items, Some(status)),
        }
    }
}

#[tokio::test]
async fn outcomes_come_in_input_order() {
    let server = TestServer::start().await;
    let requests: Vec<_> = (0..500).map(document).map(item).collect();
    let (items, end) = run(&server, tokio_stream::iter(requests)).await;
    assert!(end.is_none(), "{end:?}");
    let ids: Vec<_> = items.iter().map(|item| item.id.clone()).collect();
    let expected: Vec<_> = (0..500).map(|index| index.to_string()).collect();
    assert_eq!(ids, expected);
    assert!(items.iter().all(|item| answer(item).tasks.len() == 2));
}

#[tokio::test]
async fn an_empty_stream_is_answered_with_one() {
    let server = TestServer::start().await;
    let (items, end) = run(&server, tokio_stream::empty()).await;
    assert!(items.is_empty() && end.is_none());
}

#[tokio::test]
async fn a_bad_document_fails_alone() {
    let server = TestServer::start().await;
    let mut requests: Vec<_> = (0..6).map(document).map(item).collect();
    requests[1].document.as_mut().unwrap().text.clear();
    requests[4].document = None;
    let (items, end) = run(&server, tokio_stream::iter(requests)).await;
    assert!(end.is_none(), "{end:?}");
    for index in [0, 2, 3, 5] {
        assert_eq!(answer(&items[index]).id, index.to_string());
    }
    assert_eq!((error(&items[1]).0, items[1].id.as_str()), (Code::InvalidArgument, "1"));
    assert_eq!(error(&items[4]), (Code::InvalidArgument, "document is missing"));
}

#[tokio::test]
async fn options_of_the_first_message_hold_for_the_rest() {
    let server = TestServer::start().await;
    let requests = [
        ClassifyStreamRequest { document: Some(document(0)), options: tasks(&["sentiment"]) },
        ClassifyStreamRequest { document: Some(document(1)), options: None },
        ClassifyStreamRequest { document: Some(document(2)), options: tasks(&["topic"]) },
    ];
    let (items, end) = run(&server, tokio_stream::iter(requests)).await;
    assert!(end.is_none(), "{end:?}");
    for item in &items {
        let names: Vec<_> = answer(item).tasks.iter().map(|task| task.task.as_str()).collect();
        assert_eq!(names, ["sentiment"], "{}", item.id);
    }
    assert_eq!(items.len(), 3);
}

#[tokio::test]
async fn bad_options_end_the_stream() {
    let server = TestServer::start().await;
    let first = ClassifyStreamRequest { document: Some(document(0)), options: tasks(&["tone"]) };
    let (items, end) = run(&server, tokio_stream::iter([first, item(document(1))])).await;
    assert!(items.is_empty());
    assert_status(&end.unwrap(), Code::NotFound, "UNKNOWN_TASK");
}

#[tokio::test]
async fn an_interactive_stream_is_answered_too() {
    let server = TestServer::start().await;
    let options = Options { priority: proto::Priority::Interactive as i32, ..Options::default() };
    let first = ClassifyStreamRequest { document: Some(document(0)), options: Some(options) };
    let (items, end) = run(&server, tokio_stream::iter([first, item(document(1))])).await;
    assert!(end.is_none() && items.len() == 2, "{end:?}");
}

#[tokio::test]
async fn a_message_over_the_limit_ends_the_stream_after_what_came_before() {
    let config = ServerConfig { max_message_bytes: 4_096, ..ServerConfig::default() };
    let server = TestServer::start_with(config, EngineConfig::default()).await;
    let large = proto::Document { text: "a".repeat(5_000), ..document(2) };
    let requests = [item(document(0)), item(document(1)), item(large), item(document(3))];
    let (items, end) = run(&server, tokio_stream::iter(requests)).await;
    assert_eq!(items.len(), 2);
    let end = end.unwrap();
    assert_status(&end, Code::InvalidArgument, "MESSAGE_TOO_LARGE");
    assert_eq!(figure(&end, "limit"), "4096");
}

#[tokio::test]
async fn a_caller_may_wait_for_each_outcome_before_the_next_document() {
    let server = TestServer::start().await;
    let (sender, requests) = mpsc::channel(1);
    let reply = server.client().await.classify_stream(ReceiverStream::new(requests)).await;
    let mut responses = reply.unwrap().into_inner();
    for index in 0..20 {
        sender.send(item(document(index))).await.unwrap();
        let response = responses.message().await.unwrap().unwrap();
        assert_eq!(response.result.unwrap().id, index.to_string());
    }
    drop(sender);
    assert!(responses.message().await.unwrap().is_none());
}

#[tokio::test]
async fn a_caller_that_leaves_takes_its_documents_along() {
    let server = TestServer::start().await;
    server.gate.shut();
    let (sender, requests) = mpsc::channel(1);
    let reply = server.client().await.classify_stream(ReceiverStream::new(requests)).await;
    let responses = reply.unwrap().into_inner();
    for index in 0..20 {
        sender.send(item(document(index))).await.unwrap();
    }
    server.until_stats(|stats| stats.open_jobs == 20).await;
    // tonic's client tells the server once nothing of the call is left.
    drop((sender, responses));
    // The gate is shut, so nothing but their going can empty the engine.
    server.until_stats(|stats| stats.open_jobs == 0 && stats.queued_tokens == 0).await;
    server.gate.open();
}

/// A caller that sends a whole archive and reads nothing must not fill the server's memory, nor
/// keep others waiting.
#[tokio::test]
async fn a_slow_reader_slows_itself_only() {
    const DOCUMENTS: usize = 800;
    let config = ServerConfig { max_stream_in_flight: 4, ..ServerConfig::default() };
    let server = TestServer::start_with(config, EngineConfig::default()).await;
    // A window that a few outcomes fill.
    let endpoint = server.endpoint().initial_stream_window_size(4_096);
    let mut slow = ClassifierClient::new(endpoint.connect().await.unwrap());

    let taken = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&taken);
    let requests = tokio_stream::iter(0..DOCUMENTS).map(move |index| {
        counter.fetch_add(1, Ordering::Relaxed);
        // Space that the normaliser drops: large to send, quick to classify.
        let text = format!("{}{}", document(index).text, " ".repeat(20_000));
        item(proto::Document { text, ..document(index) })
    });
    let mut responses = slow.classify_stream(requests).await.unwrap().into_inner();

    // Others are answered meanwhile, often enough for a server that does not hold back to have
    // taken the whole archive.
    let client = &mut server.client().await;
    for index in 0..100 {
        client.classify(plain(document(index))).await.unwrap();
    }
    let unread = taken.load(Ordering::Relaxed);
    // What fits in the windows of HTTP/2 on both sides, about 2 MB, and in flight.
    assert!(unread < 400, "{unread} documents were taken, and no outcome was");

    for index in 0..DOCUMENTS {
        let response = responses.message().await.unwrap().unwrap();
        let item = response.result.unwrap();
        assert_eq!(item.id, index.to_string());
        answer(&item);
    }
    assert!(responses.message().await.unwrap().is_none());
    assert_eq!(taken.load(Ordering::Relaxed), DOCUMENTS);
}
