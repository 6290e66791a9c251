//! `ClassifyBatch`: results in request order, and a bad document fails alone.

use tasnif::server::proto::{self, ClassifyBatchRequest, ClassifyBatchResponse, Options};
use tonic::Code;

use crate::harness::{TestServer, answer, assert_status, document, error, plain};

async fn classify(server: &TestServer, documents: Vec<proto::Document>) -> ClassifyBatchResponse {
    let request = ClassifyBatchRequest { documents, options: None };
    server.client().await.classify_batch(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn results_come_in_request_order_and_equal_single_ones() {
    let server = TestServer::start().await;
    let reply = classify(&server, (0..256).map(document).collect()).await;
    assert_eq!(reply.results.len(), 256);
    for (index, item) in reply.results.iter().enumerate() {
        assert_eq!(item.id, index.to_string());
        assert_eq!(answer(item).id, item.id);
    }
    let timing = reply.timing.unwrap();
    assert!(timing.total_us > 0 && timing.batch_tokens > 0);

    let client = &mut server.client().await;
    for index in [0, 100, 255] {
        let single = client.classify(plain(document(index))).await.unwrap().into_inner();
        let single = single.classification.unwrap();
        let batched = answer(&reply.results[index]);
        for (one, other) in batched.tasks.iter().zip(&single.tasks) {
            assert_eq!(one.label, other.label);
            assert!((one.score - other.score).abs() < 1e-5, "{one:?} {other:?}");
        }
    }
}

#[tokio::test]
async fn documents_of_a_batch_run_together() {
    let server = TestServer::start().await;
    // While the first are held at the gate, the others arrive, and run in the next batch.
    server.gate.shut();
    let before = server.gate.entered();
    let batch = classify(&server, (0..8).map(document).collect());
    let open = async {
        server.until_stats(|stats| stats.open_jobs == 8).await;
        server.gate.open();
    };
    let (reply, ()) = tokio::join!(batch, open);
    assert_eq!(reply.results.len(), 8);
    assert_eq!(server.gate.entered() - before, 2);
}

#[tokio::test]
async fn a_bad_document_fails_alone() {
    let server = TestServer::start().await;
    let mut documents: Vec<_> = (0..5).map(document).collect();
    documents[1].text.clear();
    documents[3].title = "م".repeat(3_000);
    let reply = classify(&server, documents).await;
    for index in [0, 2, 4] {
        answer(&reply.results[index]);
    }
    let (code, message) = error(&reply.results[1]);
    assert_eq!((code, reply.results[1].id.as_str()), (Code::InvalidArgument, "1"));
    assert!(message.contains("document.text"), "{message}");
    let (code, message) = error(&reply.results[3]);
    assert_eq!(code, Code::InvalidArgument);
    assert!(message.contains("document.title") && message.contains("3000"), "{message}");
}

#[tokio::test]
async fn a_batch_of_bad_documents_is_answered() {
    let server = TestServer::start().await;
    let empty = proto::Document::default();
    let reply = classify(&server, vec![empty.clone(), empty]).await;
    for item in &reply.results {
        assert_eq!(error(item).0, Code::InvalidArgument);
    }
}

#[tokio::test]
async fn what_is_wrong_for_all_documents_fails_the_call() {
    let server = TestServer::start().await;
    let client = &mut server.client().await;
    let with = |options| ClassifyBatchRequest { documents: vec![document(0)], options };
    let model = Options { model: "large".to_owned(), ..Options::default() };
    let status = client.classify_batch(with(Some(model))).await.unwrap_err();
    assert_status(&status, Code::NotFound, "UNKNOWN_MODEL");
    let tasks = Options { tasks: vec!["tone".to_owned()], ..Options::default() };
    let status = client.classify_batch(with(Some(tasks))).await.unwrap_err();
    assert_status(&status, Code::NotFound, "UNKNOWN_TASK");
}
