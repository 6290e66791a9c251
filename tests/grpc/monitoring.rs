//! The monitoring port: health for orchestrators, and no way in.

use std::sync::Arc;
use std::time::Duration;

use tasnif::engine::EngineConfig;
use tasnif::server::ServerConfig;
use tasnif::server::telemetry::MonitoringConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic_health::ServingStatus;

use crate::harness::{Gate, PATIENCE, TestServer, document, plain};
use crate::scrape::{ask, scrape, send};

#[tokio::test]
async fn a_server_is_ready_from_its_warm_up_to_its_drain() {
    let (config, engine) = (ServerConfig::default(), EngineConfig::default());
    let server = TestServer::warming_up(config, engine, Gate::shut_from_the_start()).await;
    let port = server.monitoring;
    let early = ask(port, "GET", "/readyz").await;
    assert_eq!((early.status, early.body.as_str()), (503, "warming up\n"));
    assert_eq!(ask(port, "GET", "/healthz").await.status, 200);
    assert_eq!(scrape(port).await.value("tasnif_serving", &[]), 0.0);

    let gate = Arc::clone(&server.gate);
    gate.open();
    server.until("", ServingStatus::Serving).await;
    let ready = ask(port, "GET", "/readyz").await;
    assert_eq!((ready.status, ready.body.as_str()), (200, "serving\n"));
    assert_eq!(scrape(port).await.value("tasnif_serving", &[]), 1.0);

    // A call that runs keeps the server in its drain.
    gate.shut();
    let before = gate.entered();
    let mut client = server.client().await;
    let running = tokio::spawn(async move { client.classify(plain(document(0))).await });
    gate.until_entered_after(before).await;
    let mut health = tonic_health::pb::health_client::HealthClient::new(server.channel().await);
    let mut watch = health.watch(tonic_health::pb::HealthCheckRequest::default()).await.unwrap();
    let stopped = server.stop_soon();
    while watch.get_mut().message().await.unwrap().unwrap().status == 1 {}
    // Health is told first, the phase follows at once.
    let draining = async { while ask(port, "GET", "/readyz").await.status != 503 {} };
    tokio::time::timeout(PATIENCE, draining).await.unwrap();
    assert_eq!(ask(port, "GET", "/readyz").await.body, "draining\n");
    assert_eq!(ask(port, "GET", "/healthz").await.status, 200);
    gate.open();
    running.await.unwrap().unwrap();
    stopped.await;
    assert!(TcpStream::connect(port).await.is_err(), "the port outlives the server");
}

#[tokio::test]
async fn only_get_and_head_of_three_paths_are_answered() {
    let server = TestServer::start().await;
    let port = server.monitoring;
    for path in ["/", "/metrics/", "/debug", "/../etc/passwd", "/tasnif.v1.Classifier/Classify"] {
        assert_eq!(ask(port, "GET", path).await.status, 404, "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "BREW"] {
        let refused = ask(port, method, "/metrics").await;
        assert_eq!(refused.status, 405, "{method}");
        assert!(refused.headers.contains("allow: get, head"), "{refused:?}");
    }
    let head = ask(port, "HEAD", "/metrics").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    let query = ask(port, "GET", "/readyz?verbose=1").await;
    assert_eq!(query.status, 200);
}

#[tokio::test]
async fn what_is_no_request_or_too_long_is_cut_off() {
    let server = TestServer::start().await;
    let port = server.monitoring;
    let many = "a: b\r\n".repeat(1_000);
    let long = "x".repeat(1024 * 1024);
    for hostile in [
        "\0\u{1}\u{2}\r\n\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        format!("GET /metrics HTTP/1.1\r\n{many}\r\n"),
        format!("GET /metrics HTTP/1.1\r\na: {long}\r\n\r\n"),
        format!("GET /{long} HTTP/1.1\r\n\r\n"),
    ] {
        let answer = send(port, hostile.as_bytes()).await;
        assert!(!answer.contains("200 OK"), "{:?} was answered", &hostile[..20]);
    }
    // A body is not read: it ends the connection, and does not pass for a second request.
    let smuggled = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    let length = 1_000_000;
    let body =
        format!("POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{smuggled}");
    let answer = send(port, body.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 405") && !answer.contains("alive"), "{answer:?}");
    assert_eq!(ask(port, "GET", "/healthz").await.status, 200);
}

#[tokio::test]
async fn a_client_that_does_not_finish_its_request_is_cut_off() {
    let monitoring = MonitoringConfig {
        max_connections: 1,
        header_timeout: Duration::from_millis(50),
        ..MonitoringConfig::default()
    };
    let (config, engine) = (ServerConfig::default(), EngineConfig::default());
    let server = TestServer::observed(config, engine, Gate::default(), monitoring, None).await;
    server.until("", ServingStatus::Serving).await;
    let mut slow = TcpStream::connect(server.monitoring).await.unwrap();
    slow.write_all(b"GET /metrics HTT").await.unwrap();
    // It holds the only place, so this waits until it has been cut off.
    assert_eq!(ask(server.monitoring, "GET", "/healthz").await.status, 200);
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, slow.read_to_end(&mut rest)).await.unwrap();
    assert!(!String::from_utf8_lossy(&rest).contains("200 OK"));
}
