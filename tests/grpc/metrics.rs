//! What `/metrics` says, before the first request and after some.

use std::sync::Arc;

use tasnif::engine::EngineConfig;
use tasnif::server::ServerConfig;
use tasnif::server::proto::{self, ClassifyBatchRequest, ClassifyStreamRequest, ListModelsRequest};
use tonic::Code;
use tonic::codegen::http::uri::PathAndQuery;

use crate::harness::{PATIENCE, SENTENCES, TestServer, document, plain, request, text};
use crate::oip;
use crate::scrape::{Scrape, scrape};

const CLASSIFY: (&str, &str) = ("method", "tasnif.v1.Classifier/Classify");
const TINY: (&str, &str) = ("model", "tiny");

/// Scrapes until it is as `reached` says: the end of a call is counted just after its caller has
/// the answer.
async fn until(server: &TestServer, reached: impl Fn(&Scrape) -> bool) -> Scrape {
    let waiting = async {
        loop {
            let scrape = scrape(server.monitoring).await;
            if reached(&scrape) {
                return scrape;
            }
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("the metrics get there")
}

#[tokio::test]
async fn every_series_is_there_before_the_first_request() {
    let server = TestServer::start().await;
    let scrape = scrape(server.monitoring).await;
    for code in ["OK", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "INTERNAL", "CANCELLED"] {
        assert_eq!(scrape.value("tasnif_requests_total", &[CLASSIFY, ("code", code)]), 0.0);
    }
    for method in ["tasnif.v1.Classifier/ClassifyStream", "other"] {
        let method = [("method", method)];
        assert_eq!(scrape.value("tasnif_request_duration_seconds_count", &method), 0.0);
        assert_eq!(scrape.value("tasnif_requests_in_flight", &method), 0.0);
    }
    let models = server.client().await.list_models(ListModelsRequest {}).await.unwrap();
    for model in models.into_inner().models {
        let name = ("model", model.name.as_str());
        for lane in ["interactive", "bulk"] {
            for metric in ["tokenize", "queue", "inference"] {
                let metric = format!("tasnif_document_{metric}_seconds_count");
                assert_eq!(scrape.value(&metric, &[name, ("lane", lane)]), 0.0);
            }
            assert_eq!(scrape.value("tasnif_documents_total", &[name, ("lane", lane)]), 0.0);
        }
        for task in &model.tasks {
            let task_name = ("task", task.name.as_str());
            assert_eq!(scrape.value("tasnif_abstentions_total", &[name, task_name]), 0.0);
            assert_eq!(scrape.value("tasnif_label_score_count", &[name, task_name]), 0.0);
            for label in &task.labels {
                let label = ("label", label.label.as_str());
                assert_eq!(scrape.value("tasnif_labels_total", &[name, task_name, label]), 0.0);
            }
        }
        assert_eq!(scrape.value("tasnif_queued_tokens", &[name]), 0.0);
        let info = [name, ("digest", model.digest.as_str()), ("precision", "f32")];
        assert_eq!(scrape.value("tasnif_model_info", &info), 1.0);
    }
    for reason in ["OVERLOADED", "EMPTY_TEXT", "PANICKED", "other"] {
        for scope in ["call", "document"] {
            let labels = [("scope", scope), ("reason", reason)];
            assert_eq!(scrape.value("tasnif_errors_total", &labels), 0.0);
        }
    }
    let plain = [
        "tasnif_cache_hits_total",
        "tasnif_cache_misses_total",
        "tasnif_cache_coalesced_total",
        "tasnif_cache_bytes",
    ];
    for name in plain {
        assert_eq!(scrape.value(name, &[]), 0.0);
    }
    assert_eq!(scrape.sum("tasnif_reloads_total", &[]), 0.0);
    assert_eq!(scrape.sum("tasnif_connections_refused_total", &[]), 0.0);
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    assert_eq!(scrape.value("tasnif_build_info", &version), 1.0);
}

#[tokio::test]
async fn names_follow_the_conventions_and_have_types_and_help() {
    let server = TestServer::start().await;
    let scrape = scrape(server.monitoring).await;
    assert!(scrape.described.len() > 40);
    for (name, (kind, help)) in &scrape.described {
        assert!(name.starts_with("tasnif_") || name.starts_with("process_"), "{name}");
        assert!(!help.is_empty() && !kind.is_empty(), "{name}");
        for unit in ["_ms", "_us", "_millis", "_micros", "_kb", "_mb", "_percent"] {
            assert!(!name.ends_with(unit), "{name} is not in base units");
        }
    }
    for name in scrape.names() {
        let metric = ["_total", "_bucket", "_sum", "_count", "_info"]
            .iter()
            .find_map(|suffix| scrape.described.get(name.strip_suffix(suffix)?))
            .or_else(|| scrape.described.get(name));
        let (kind, _) = metric.unwrap_or_else(|| panic!("{name} is not described"));
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_process_says_how_much_it_uses() {
    let server = TestServer::start().await;
    let scrape = scrape(server.monitoring).await;
    let value = |name: &str| scrape.value(name, &[]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let age = now.as_secs_f64() - value("process_start_time_seconds");
    // The kernel counts in ticks and whole seconds.
    assert!((-2.0..86_400.0).contains(&age), "{age}");
    let resident = value("process_resident_memory_bytes");
    assert!((1e6..1e12).contains(&resident), "{resident}");
    assert!(value("process_virtual_memory_bytes") >= resident);
    assert!(value("process_open_fds") >= 3.0);
    assert!(value("process_max_fds") >= value("process_open_fds"));
    assert!(value("process_threads") >= 1.0);
    assert!(value("process_cpu_seconds_total") >= 0.0);
}

#[tokio::test]
async fn calls_are_counted_by_method_and_code() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    client.classify(plain(document(0))).await.unwrap();
    client.classify(plain(document(1))).await.unwrap();
    client.classify(plain(proto::Document::default())).await.unwrap_err();
    let odd = proto::Options { min_score: 7.0, ..Default::default() };
    client.classify(request(odd)).await.unwrap_err();

    let mut stranger = tonic::client::Grpc::new(server.channel().await);
    stranger.ready().await.unwrap();
    let path = PathAndQuery::from_static("/tasnif.v1.Classifier/Steal");
    let codec = tonic_prost::ProstCodec::<ListModelsRequest, ListModelsRequest>::default();
    let asked = tonic::Request::new(ListModelsRequest {});
    let status = stranger.unary(asked, path, codec).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);

    let other = ("method", "other");
    let scrape = until(&server, |scrape| {
        scrape.value("tasnif_request_duration_seconds_count", &[CLASSIFY]) == 4.0
            && scrape.value("tasnif_request_duration_seconds_count", &[other]) == 1.0
    })
    .await;
    let requests = |labels: &[_]| scrape.value("tasnif_requests_total", labels);
    assert_eq!(requests(&[CLASSIFY, ("code", "OK")]), 2.0);
    assert_eq!(requests(&[CLASSIFY, ("code", "INVALID_ARGUMENT")]), 2.0);
    assert_eq!(requests(&[other, ("code", "UNIMPLEMENTED")]), 1.0);
    let errors = |scope, reason| {
        scrape.value("tasnif_errors_total", &[("scope", scope), ("reason", reason)])
    };
    assert_eq!(errors("call", "EMPTY_TEXT"), 1.0);
    assert_eq!(errors("call", "INVALID_OPTION"), 1.0);
    assert_eq!(errors("call", "other"), 1.0);
    assert_eq!(scrape.sum("tasnif_errors_total", &[("scope", "document")]), 0.0);
    assert!(scrape.value("tasnif_connections_total", &[]) >= 2.0);
    assert!(scrape.value("tasnif_connections_open", &[]) >= 2.0);
}

#[tokio::test]
async fn documents_are_counted_by_what_became_of_them() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let long = proto::Document { text: text(40), ..document(2) };
    let head = proto::Options { long_text: proto::LongText::Head.into(), ..Default::default() };
    let batch = ClassifyBatchRequest {
        documents: vec![document(0), document(1), proto::Document::default(), long.clone()],
        options: Some(head),
    };
    let reply = client.classify_batch(batch).await.unwrap().into_inner();
    assert_eq!(reply.results.len(), 4);
    let bulk = proto::Options { priority: proto::Priority::Bulk.into(), ..Default::default() };
    let whole = proto::ClassifyRequest { document: Some(long), options: Some(bulk) };
    let whole = client.classify(whole).await.unwrap().into_inner().classification.unwrap();
    let windows = whole.usage.unwrap().windows;
    assert!(windows > 1);

    let scrape = until(&server, |scrape| {
        scrape.value("tasnif_request_duration_seconds_count", &[CLASSIFY]) == 1.0
    })
    .await;
    let documents = |lane| scrape.value("tasnif_documents_total", &[TINY, ("lane", lane)]);
    assert_eq!((documents("interactive"), documents("bulk")), (3.0, 1.0));
    assert_eq!(scrape.sum("tasnif_documents_total", &[("model", "other")]), 0.0);
    assert_eq!(scrape.value("tasnif_documents_truncated_total", &[TINY]), 1.0);
    assert_eq!(scrape.value("tasnif_document_windows_sum", &[TINY]), f64::from(3 + windows));
    let empty = [("scope", "document"), ("reason", "EMPTY_TEXT")];
    assert_eq!(scrape.value("tasnif_errors_total", &empty), 1.0);
    assert_eq!(scrape.sum("tasnif_errors_total", &[("scope", "call")]), 0.0);
    for task in ["topic", "sentiment"] {
        let task = ("task", task);
        assert_eq!(scrape.sum("tasnif_labels_total", &[TINY, task]), 4.0);
        assert_eq!(scrape.value("tasnif_label_score_count", &[TINY, task]), 4.0);
    }
    let best = &whole.tasks[0];
    let labels = [TINY, ("task", best.task.as_str()), ("label", best.label.as_str())];
    assert!(scrape.value("tasnif_labels_total", &labels) >= 1.0);
    // The engine's own count has the warm-up in it.
    assert!(scrape.value("tasnif_sequences_total", &[TINY]) >= f64::from(4 + windows));
    let batches = scrape.value("tasnif_batches_total", &[TINY]);
    assert!(batches >= 2.0);
    for metric in ["tokens", "sequences", "duration_seconds"] {
        let metric = format!("tasnif_batch_{metric}_count");
        assert!(scrape.value(&metric, &[TINY]) >= batches, "{metric}");
    }
    assert!(scrape.value("tasnif_batch_tokens_sum", &[TINY]) >= whole.usage.unwrap().tokens.into());
}

#[tokio::test]
async fn an_error_is_that_of_a_document_only_where_the_call_goes_on() {
    let server = TestServer::start().await;
    let failed = |scrape: &Scrape| {
        ["call", "document"].map(|scope| {
            scrape.value("tasnif_errors_total", &[("scope", scope), ("reason", "EMPTY_TEXT")])
        })
    };
    let infer = oip::request(vec![oip::input("text", &[SENTENCES[0], ""])]);
    oip::client(&server).await.model_infer(infer).await.unwrap_err();
    let scrape = until(&server, |scrape| failed(scrape)[0] > 0.0).await;
    assert_eq!(failed(&scrape), [1.0, 0.0]);

    let empty = ClassifyStreamRequest { document: Some(proto::Document::default()), options: None };
    let requests = tokio_stream::iter([empty]);
    let reply = server.client().await.classify_stream(requests).await.unwrap();
    let mut responses = reply.into_inner();
    while responses.message().await.unwrap().is_some() {}
    let scrape = until(&server, |scrape| failed(scrape)[1] > 0.0).await;
    assert_eq!(failed(&scrape), [1.0, 1.0]);
}

#[tokio::test]
async fn what_waits_and_runs_is_seen_while_it_does() {
    let engine = EngineConfig { max_batch_tokens: 1, ..EngineConfig::default() };
    let server = TestServer::start_with(ServerConfig::default(), engine).await;
    let gate = Arc::clone(&server.gate);
    gate.shut();
    let before = gate.entered();
    let clients = [server.client().await, server.client().await];
    let calls = clients
        .map(|mut client| tokio::spawn(async move { client.classify(plain(document(0))).await }));
    gate.until_entered_after(before).await;
    // One runs alone, for it fills the batch; the other is queued.
    server.until_stats(|stats| stats.running_batches == 1 && stats.queued_sequences == 1).await;
    let scrape = scrape(server.monitoring).await;
    assert_eq!(scrape.value("tasnif_requests_in_flight", &[CLASSIFY]), 2.0);
    assert_eq!(scrape.value("tasnif_open_jobs", &[TINY]), 2.0);
    assert_eq!(scrape.value("tasnif_running_batches", &[TINY]), 1.0);
    assert_eq!(scrape.value("tasnif_queued_sequences", &[TINY]), 1.0);
    assert!(scrape.value("tasnif_queued_tokens", &[TINY]) > 1.0);
    gate.open();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    let scrape =
        until(&server, |scrape| scrape.value("tasnif_requests_in_flight", &[CLASSIFY]) == 0.0)
            .await;
    assert_eq!(scrape.value("tasnif_queued_tokens", &[TINY]), 0.0);
    assert_eq!(scrape.value("tasnif_batch_sequences_bucket", &[TINY, ("le", "1.0")]), 3.0);
}

#[tokio::test]
async fn a_panic_is_seen_and_a_call_that_is_left_is_cancelled() {
    let server = TestServer::start().await;
    let gate = Arc::clone(&server.gate);
    gate.panic_next();
    let mut client = server.client().await;
    client.classify(plain(document(0))).await.unwrap_err();
    gate.shut();
    let before = gate.entered();
    let left = tokio::spawn(async move { client.classify(plain(document(1))).await });
    gate.until_entered_after(before).await;
    left.abort();
    let scrape = until(&server, |scrape| {
        scrape.value("tasnif_requests_total", &[CLASSIFY, ("code", "CANCELLED")]) == 1.0
    })
    .await;
    gate.open();
    assert_eq!(scrape.value("tasnif_worker_restarts_total", &[TINY]), 1.0);
    assert_eq!(scrape.value("tasnif_worker_restarts_total", &[("model", "other")]), 0.0);
    let panicked = [("scope", "call"), ("reason", "WORKER_PANICKED")];
    assert_eq!(scrape.value("tasnif_errors_total", &panicked), 1.0);
    // To leave is no error.
    assert_eq!(scrape.sum("tasnif_errors_total", &[]), 1.0);
}

#[tokio::test]
async fn two_servers_in_one_process_count_apart() {
    let (one, other) = (TestServer::start().await, TestServer::start().await);
    one.client().await.classify(plain(document(0))).await.unwrap();
    let document = ("lane", "interactive");
    until(&one, |scrape| scrape.value("tasnif_documents_total", &[TINY, document]) == 1.0).await;
    let untouched = scrape(other.monitoring).await;
    assert_eq!(untouched.value("tasnif_documents_total", &[TINY, document]), 0.0);
    assert_eq!(untouched.sum("tasnif_requests_total", &[CLASSIFY]), 0.0);
}
