//! Traces, as a collector receives them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use tasnif::engine::EngineConfig;
use tasnif::server::oip::proto::ServerLiveRequest;
use tasnif::server::proto::{self, ClassifyBatchRequest};
use tasnif::server::telemetry::{MonitoringConfig, Tracing, TracingConfig};
use tasnif::server::{AuthConfig, ServerConfig};
use tokio::sync::mpsc;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};
use tonic_health::ServingStatus;

use crate::harness::{Gate, TestServer, document, plain};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// A collector that keeps what it is sent.
struct Collector(mpsc::UnboundedSender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let _ = self.0.send(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn collector() -> (SocketAddr, mpsc::UnboundedReceiver<ExportTraceServiceRequest>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, received) = mpsc::unbounded_channel();
    let service = TraceServiceServer::new(Collector(sender));
    let incoming = TcpListenerStream::new(listener);
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(incoming));
    (address, received)
}

async fn traced(config: TracingConfig) -> TestServer {
    traced_at(ServerConfig::default(), config).await
}

async fn traced_at(server: ServerConfig, config: TracingConfig) -> TestServer {
    let tracing = Tracing::start(&config).unwrap();
    assert!(tracing.is_some());
    let (engine, monitoring) = (EngineConfig::default(), MonitoringConfig::default());
    let server = TestServer::observed(server, engine, Gate::default(), monitoring, tracing).await;
    server.until("", ServingStatus::Serving).await;
    server
}

fn to(address: SocketAddr) -> TracingConfig {
    let otlp_endpoint = Some(format!("http://{address}"));
    TracingConfig { otlp_endpoint, ..TracingConfig::default() }
}

/// Stops the server, which flushes, and returns every span with the resource's attributes.
async fn spans(
    server: TestServer,
    mut received: mpsc::UnboundedReceiver<ExportTraceServiceRequest>,
) -> Vec<(BTreeMap<String, Value>, Span)> {
    server.stop().await;
    let mut spans = Vec::new();
    while let Ok(request) = received.try_recv() {
        for of_resource in request.resource_spans {
            let resource = attributes(of_resource.resource.unwrap().attributes);
            let found = of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            spans.extend(found.map(|span| (resource.clone(), span)));
        }
    }
    spans
}

fn attributes(
    pairs: Vec<opentelemetry_proto::tonic::common::v1::KeyValue>,
) -> BTreeMap<String, Value> {
    let value = |pair: opentelemetry_proto::tonic::common::v1::KeyValue| {
        (pair.key, pair.value.unwrap().value.unwrap())
    };
    pairs.into_iter().map(value).collect()
}

fn text(value: &str) -> Value {
    Value::StringValue(value.to_owned())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn with(traceparent: &str) -> Request<proto::ClassifyRequest> {
    let mut request = Request::new(plain(document(0)));
    request.metadata_mut().insert("traceparent", traceparent.parse().unwrap());
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_continues_the_trace_of_its_caller() {
    let (address, received) = collector().await;
    let server = traced(to(address)).await;
    let mut request = with(&format!("00-{TRACE}-{PARENT}-01"));
    request.metadata_mut().insert("tracestate", "vendor=value".parse().unwrap());
    let answer = server.client().await.classify(request).await.unwrap().into_inner();
    let spans = spans(server, received).await;

    let names: Vec<_> = spans.iter().map(|(_, span)| span.name.as_str()).collect();
    let one = |name: &str| {
        let found: Vec<_> = spans.iter().filter(|(_, span)| span.name == name).collect();
        assert_eq!(found.len(), 1, "{name} in {names:?}");
        &found[0].1
    };
    assert_eq!(spans.len(), 5, "health is not traced: {names:?}");
    for (resource, span) in &spans {
        assert_eq!(hex(&span.trace_id), TRACE);
        assert_eq!(span.trace_state, "vendor=value");
        assert_eq!(resource["service.name"], text("tasnif"));
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
    }
    let call = one("tasnif.v1.Classifier/Classify");
    assert_eq!(hex(&call.parent_span_id), PARENT);
    assert_eq!(call.kind, 2, "a server's");
    let said = attributes(call.attributes.clone());
    assert_eq!(said["rpc.system"], text("grpc"));
    assert_eq!(said["rpc.service"], text("tasnif.v1.Classifier"));
    assert_eq!(said["rpc.method"], text("Classify"));
    assert_eq!(said["rpc.grpc.status_code"], Value::IntValue(0));

    let document = one("document");
    assert_eq!(document.parent_span_id, call.span_id);
    let usage = answer.classification.unwrap().usage.unwrap();
    let said = attributes(document.attributes.clone());
    assert_eq!(said["tasnif.tokens"], Value::IntValue(usage.tokens.into()));
    assert_eq!(said["tasnif.model"], text("tiny"));
    let mut at = document.start_time_unix_nano;
    for stage in ["tokenize", "queue", "inference"].map(one) {
        assert_eq!(stage.parent_span_id, document.span_id);
        assert_eq!(stage.start_time_unix_nano, at, "stages follow each other");
        at = stage.end_time_unix_nano;
    }
    assert!(at <= document.end_time_unix_nano);
    let said = attributes(one("inference").attributes.clone());
    assert_eq!(said["tasnif.batch_tokens"], Value::IntValue(usage.tokens.into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_traceparent_that_is_none_is_ignored() {
    let (address, received) = collector().await;
    let server = traced(to(address)).await;
    let mut client = server.client().await;
    let zeros = "0".repeat(32);
    for bad in [
        "x".to_owned(),
        format!("00-{zeros}-{PARENT}-01"),
        format!("00-{TRACE}-{PARENT}"),
        format!("00-{TRACE}zz-{PARENT}-01"),
        "9".repeat(4_000),
    ] {
        client.classify(with(&bad)).await.unwrap();
    }
    let spans = spans(server, received).await;
    let calls: Vec<_> = spans.iter().filter(|(_, span)| span.kind == 2).collect();
    assert_eq!(calls.len(), 5);
    for (_, call) in calls {
        assert!(call.parent_span_id.is_empty());
        assert!(call.trace_id.iter().any(|byte| *byte != 0) && hex(&call.trace_id) != TRACE);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_caller_decides_first_and_the_ratio_otherwise() {
    let (address, received) = collector().await;
    let server = traced(TracingConfig { sample_ratio: 0.0, ..to(address) }).await;
    let mut client = server.client().await;
    client.classify(plain(document(0))).await.unwrap();
    client.classify(with(&format!("00-{TRACE}-{PARENT}-00"))).await.unwrap();
    client.classify(with(&format!("00-{TRACE}-{PARENT}-01"))).await.unwrap();
    let spans = spans(server, received).await;
    assert_eq!(spans.iter().filter(|(_, span)| span.kind == 2).count(), 1);
    assert!(spans.iter().all(|(_, span)| hex(&span.trace_id) == TRACE));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_call_has_no_say_in_what_is_traced() {
    let (address, received) = collector().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tokens");
    std::fs::write(&file, "news token-0123456789").unwrap();
    let auth = AuthConfig { tokens_file: Some(file), open_health: true };
    let server = ServerConfig { auth, ..ServerConfig::default() };
    let server = traced_at(server, TracingConfig { sample_ratio: 0.0, ..to(address) }).await;
    let mut client = server.client().await;
    let sampled = format!("00-{TRACE}-{PARENT}-01");
    assert!(client.classify(with(&sampled)).await.is_err());
    let mut wrong = with(&sampled);
    wrong.metadata_mut().insert("authorization", "Bearer token-9876543210".parse().unwrap());
    assert!(client.classify(wrong).await.is_err());
    // Open to all, so nobody's to trace.
    let mut live = Request::new(ServerLiveRequest {});
    live.metadata_mut().insert("traceparent", sampled.parse().unwrap());
    crate::oip::client(&server).await.server_live(live).await.unwrap();
    let mut right = with(&sampled);
    right.metadata_mut().insert("authorization", "Bearer token-0123456789".parse().unwrap());
    client.classify(right).await.unwrap();
    let spans = spans(server, received).await;
    let calls: Vec<_> = spans.iter().filter(|(_, span)| span.kind == 2).collect();
    assert_eq!(calls.len(), 1);
    let said = attributes(calls[0].1.attributes.clone());
    assert_eq!(said["rpc.grpc.status_code"], Value::IntValue(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_is_in_its_span_and_a_large_batch_has_a_bound() {
    let (address, received) = collector().await;
    let server = traced(to(address)).await;
    let mut client = server.client().await;
    client.classify(plain(proto::Document::default())).await.unwrap_err();
    server.gate.panic_next();
    client.classify(plain(document(0))).await.unwrap_err();
    let documents = (0..100).map(document).collect();
    client.classify_batch(ClassifyBatchRequest { documents, options: None }).await.unwrap();
    let spans = spans(server, received).await;
    let ends: Vec<_> = spans
        .iter()
        .filter(|(_, span)| span.name == "tasnif.v1.Classifier/Classify")
        .map(|(_, span)| {
            let said = attributes(span.attributes.clone());
            let failed = span.status.as_ref().is_some_and(|status| status.code == 2);
            (said["rpc.grpc.status_code"].clone(), said["error.type"].clone(), failed)
        })
        .collect();
    // The client's fault is no error of the server's.
    assert!(ends.contains(&(Value::IntValue(3), text("EMPTY_TEXT"), false)), "{ends:?}");
    assert!(ends.contains(&(Value::IntValue(13), text("WORKER_PANICKED"), true)), "{ends:?}");
    assert_eq!(spans.iter().filter(|(_, span)| span.name == "document").count(), 32);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_not_there_holds_nobody_up() {
    // A port that nobody listens on, and one that takes connections and never answers.
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addresses = [closed.local_addr().unwrap(), silent.local_addr().unwrap()];
    drop(closed);
    for address in addresses {
        let server = traced(to(address)).await;
        let mut client = server.client().await;
        for index in 0..50 {
            client.classify(plain(document(index))).await.unwrap();
        }
        assert!(server.stop().await.closed_in_time);
    }
}
