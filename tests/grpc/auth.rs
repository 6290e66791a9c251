//! Bearer tokens: who needs one, and how they are replaced.

use std::time::Duration;

use tasnif::server::proto::classifier_client::ClassifierClient;
use tasnif::server::proto::{ClassifyStreamRequest, ListModelsRequest};
use tasnif::server::{AuthConfig, ServerConfig, check_files};
use tempfile::TempDir;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::harness::{PATIENCE, TestServer, assert_status, document, plain};

const OLD: &str = "old-token-0123456789";
const NEW: &str = "new-token-0123456789";

type Show = Box<dyn Fn(Request<()>) -> Result<Request<()>, Status> + Send>;
type Showing = ClassifierClient<InterceptedService<Channel, Show>>;

async fn start(tokens: &str, open_health: bool) -> (TestServer, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tokens");
    std::fs::write(&file, tokens).unwrap();
    let config = ServerConfig {
        auth: AuthConfig { tokens_file: Some(file), open_health },
        refresh_interval: Duration::from_millis(10),
        ..ServerConfig::default()
    };
    let server = TestServer::begin(config).await;
    (server, directory)
}

/// A client that sends `value` as the header `authorization`.
async fn showing(server: &TestServer, value: &str) -> Showing {
    let value = value.parse::<tonic::metadata::MetadataValue<_>>().unwrap();
    let show: Show = Box::new(move |mut request| {
        request.metadata_mut().insert("authorization", value.clone());
        Ok(request)
    });
    ClassifierClient::with_interceptor(server.channel().await, show)
}

/// What becomes of a call with this header, once the server is up.
async fn code(server: &TestServer, value: &str) -> Code {
    let mut client = showing(server, value).await;
    loop {
        match client.classify(plain(document(0))).await {
            Ok(_) => return Code::Ok,
            Err(status) if status.code() == Code::Unavailable => {}
            Err(status) => {
                assert_eq!(
                    assert_status(&status, status.code(), "UNAUTHENTICATED"),
                    ["authorization"]
                );
                return status.code();
            }
        }
    }
}

#[tokio::test]
async fn every_call_needs_a_valid_token() {
    let (server, _directory) = start(&format!("news {OLD}"), true).await;
    assert_eq!(code(&server, &format!("Bearer {OLD}")).await, Code::Ok);
    assert_eq!(code(&server, &format!("bearer {OLD}")).await, Code::Ok);
    for wrong in
        ["Bearer", "Bearer ", OLD, "Basic abc", "Bearer old-token", &format!("Bearer {NEW}")]
    {
        assert_eq!(code(&server, wrong).await, Code::Unauthenticated, "{wrong:?}");
    }
    let mut none = server.client().await;
    for _ in 0..2 {
        let status = none.list_models(ListModelsRequest {}).await.unwrap_err();
        assert_status(&status, Code::Unauthenticated, "UNAUTHENTICATED");
        assert!(!status.message().contains(OLD), "{status:?}");
    }
    let request = ClassifyStreamRequest { document: Some(document(0)), options: None };
    let status = none.classify_stream(tokio_stream::once(request)).await.unwrap_err();
    assert_status(&status, Code::Unauthenticated, "UNAUTHENTICATED");
}

#[tokio::test]
async fn health_is_open_unless_it_is_closed() {
    for open in [true, false] {
        let (server, _directory) = start(&format!("news {OLD}"), open).await;
        let mut health = HealthClient::new(server.channel().await);
        let checked = health.check(HealthCheckRequest::default()).await;
        let expected = if open { Code::Ok } else { Code::Unauthenticated };
        assert_eq!(checked.map_or_else(|status| status.code(), |_| Code::Ok), expected);
    }
}

#[tokio::test]
async fn tokens_are_replaced_while_both_are_valid() {
    let (server, directory) = start(&format!("news {OLD}"), true).await;
    let file = directory.path().join("tokens");
    let (old, new) = (format!("Bearer {OLD}"), format!("Bearer {NEW}"));
    let until = async |value: &str, expected: Code| {
        let changed = async { while code(&server, value).await != expected {} };
        tokio::time::timeout(PATIENCE, changed).await.expect("the file is read again");
    };
    assert_eq!(code(&server, &new).await, Code::Unauthenticated);
    std::fs::write(&file, format!("news {OLD}\nnews {NEW}")).unwrap();
    until(&new, Code::Ok).await;
    assert_eq!(code(&server, &old).await, Code::Ok);
    std::fs::write(&file, format!("news {NEW}")).unwrap();
    until(&old, Code::Unauthenticated).await;
    // A file that is not usable changes nothing.
    std::fs::write(&file, "news short").unwrap();
    assert_eq!(code(&server, &new).await, Code::Ok);
}

#[test]
fn a_file_that_is_not_usable_is_named_without_its_secrets() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tokens");
    std::fs::write(&file, "news secret").unwrap();
    let auth = AuthConfig { tokens_file: Some(file), open_health: true };
    let error = check_files(&ServerConfig { auth, ..ServerConfig::default() }).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("tokens: line 1") && !error.contains("secret"), "{error}");
}
