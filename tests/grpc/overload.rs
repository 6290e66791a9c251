//! More work than the queue takes: refused with a time to come back, or made to wait.

use tasnif::engine::{ClientId, EngineConfig};
use tasnif::nn::PrecisionChoice;
use tasnif::pipeline::{Classifier, ClassifyError, Document, DocumentLimits};
use tasnif::server::ServerConfig;
use tasnif::server::proto::{
    self, ClassifyBatchRequest, ClassifyRequest, ClassifyStreamRequest, Options, Priority,
};
use tonic::Code;

use crate::harness::{
    TestServer, answer, assert_status, document, error, plain, says_when_to_retry, text,
};
use crate::scrape::scrape;
use crate::support::tiny_bundle;

/// A queue with room for one document of [`long`] and not for two, in either lane.
async fn small_server() -> TestServer {
    let engine =
        EngineConfig { max_batch_tokens: 64, max_queued_tokens: 88, ..EngineConfig::default() };
    TestServer::start_with(ServerConfig::default(), engine).await
}

fn with_priority(priority: Priority, index: usize) -> ClassifyRequest {
    let options = Options { priority: priority as i32, ..Options::default() };
    ClassifyRequest { document: Some(long(index)), options: Some(options) }
}

/// A document of 50 to 64 tokens.
fn long(index: usize) -> proto::Document {
    let text = text(3).chars().take(68).collect();
    proto::Document { text, ..document(index) }
}

/// Runs `test` while one document is in a batch and one fills the queue.
async fn while_full(server: &TestServer, test: impl AsyncFnOnce()) {
    server.gate.shut();
    let before = server.gate.entered();
    let (mut first, mut second) = (server.client().await, server.client().await);
    let running = tokio::spawn(async move { first.classify(plain(long(0))).await });
    server.gate.until_entered_after(before).await;
    let queued = tokio::spawn(async move { second.classify(plain(long(1))).await });
    server.until_stats(|stats| stats.queued_tokens > 0).await;
    test().await;
    server.gate.open();
    running.await.unwrap().unwrap();
    queued.await.unwrap().unwrap();
}

#[tokio::test]
async fn interactive_work_over_the_limit_is_told_when_to_come_back() {
    let server = small_server().await;
    let tokens = server.client().await.classify(plain(long(0))).await.unwrap().into_inner();
    let tokens = tokens.classification.unwrap().usage.unwrap().tokens;
    assert!((50..=64).contains(&tokens), "{tokens}");
    while_full(&server, async || {
        let client = &mut server.client().await;
        let status = client.classify(plain(long(2))).await.unwrap_err();
        assert_status(&status, Code::ResourceExhausted, "OVERLOADED");
        assert!(says_when_to_retry(&status), "{status:?}");

        // A batch of which no document has room is refused as a whole.
        let documents = vec![long(3), long(4)];
        let batch = ClassifyBatchRequest { documents, options: None };
        let status = client.classify_batch(batch).await.unwrap_err();
        assert_status(&status, Code::ResourceExhausted, "OVERLOADED");
        assert!(says_when_to_retry(&status), "{status:?}");
        let failed_documents = async || {
            let scrape = scrape(server.monitoring).await;
            scrape.sum("tasnif_errors_total", &[("scope", "document")])
        };
        assert_eq!(failed_documents().await, 0.0, "the call has failed");

        // One with a document that is bad by itself has something to say about each.
        let documents = vec![long(3), proto::Document::default()];
        let batch = ClassifyBatchRequest { documents, options: None };
        let reply = client.classify_batch(batch).await.unwrap().into_inner();
        assert_eq!(error(&reply.results[0]).0, Code::ResourceExhausted);
        assert_eq!(error(&reply.results[1]).0, Code::InvalidArgument);
        assert_eq!(failed_documents().await, 2.0);
    })
    .await;
}

#[tokio::test]
async fn bulk_work_waits_for_room() {
    let server = small_server().await;
    let mut clients = [server.client().await, server.client().await, server.client().await];
    let [one, many, stream] = &mut clients;
    server.gate.shut();
    let before = server.gate.entered();
    // More than the queue takes at once, of every kind.
    let one = one.classify(with_priority(Priority::Bulk, 0));
    let documents = (0..12).map(long).collect();
    let many = many.classify_batch(ClassifyBatchRequest { documents, options: None });
    let requests: Vec<_> = (0..12)
        .map(|index| ClassifyStreamRequest { document: Some(long(index)), options: None })
        .collect();
    let stream = async {
        let reply = stream.classify_stream(tokio_stream::iter(requests)).await;
        let mut responses = reply.unwrap().into_inner();
        let mut items = Vec::new();
        while let Some(response) = responses.message().await.unwrap() {
            items.push(response.result.unwrap());
        }
        items
    };
    let open = async {
        server.gate.until_entered_after(before).await;
        server.gate.open();
    };
    let (one, many, items, ()) = tokio::join!(one, many, stream, open);
    one.unwrap();
    for item in many.unwrap().into_inner().results.iter().chain(&items) {
        answer(item);
    }
    assert_eq!(items.len(), 12);
}

#[tokio::test]
async fn a_document_that_never_fits_is_refused_for_good() {
    let server = small_server().await;
    let huge = proto::Document { text: text(40), ..document(0) };
    let status = server.client().await.classify(plain(huge)).await.unwrap_err();
    let fields = assert_status(&status, Code::InvalidArgument, "DOCUMENT_TOO_LARGE");
    assert_eq!(fields, ["document"]);
    assert!(!says_when_to_retry(&status));
}

#[tokio::test]
async fn a_document_that_is_only_tokenised_needs_room_too() {
    let bundle = tempfile::tempdir().unwrap();
    tiny_bundle(bundle.path());
    let limits = DocumentLimits { max_open_bytes: 1_024, ..DocumentLimits::default() };
    let (precision, engine) = (PrecisionChoice::default(), EngineConfig::default());
    let model = Classifier::load(bundle.path(), None, precision, engine, limits).unwrap();
    let tokenize = async |sentences| {
        let document = Document { text: text(sentences), ..Document::default() };
        model.tokenize(document, ClientId::default()).await
    };
    assert!(tokenize(1).await.is_ok());
    let refused = tokenize(40).await.unwrap_err();
    let ClassifyError::FieldTooLong { field, limit, .. } = refused else { panic!("{refused:?}") };
    assert_eq!((field, limit), ("document", 1_024));
}
