//! Health and reflection: what probes and tools see.

use tasnif::engine::EngineConfig;
use tasnif::server::ServerConfig;
use tasnif::server::proto::ListModelsRequest;
use tokio_stream::StreamExt;
use tonic::Code;
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::{v1, v1alpha};

use crate::harness::{Gate, TestServer, assert_status, document, plain, says_when_to_retry};

const SERVICES: [&str; 3] = ["", "tasnif.v1.Classifier", "inference.GRPCInferenceService"];

fn about(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

#[tokio::test]
async fn a_server_that_warms_up_listens_and_refuses() {
    let gate = Gate::shut_from_the_start();
    let server =
        TestServer::warming_up(ServerConfig::default(), EngineConfig::default(), gate).await;
    let mut health = HealthClient::new(server.channel().await);
    for service in SERVICES {
        let reply = health.check(about(service)).await.unwrap().into_inner();
        assert_eq!(reply.status, ServingStatus::NotServing as i32, "{service:?}");
    }
    let client = &mut server.client().await;
    let status = client.classify(plain(document(0))).await.unwrap_err();
    assert_status(&status, Code::Unavailable, "WARMING_UP");
    assert!(says_when_to_retry(&status));
    let status = client.list_models(ListModelsRequest {}).await.unwrap_err();
    assert_status(&status, Code::Unavailable, "WARMING_UP");

    server.gate.open();
    for service in SERVICES {
        server.until(service, ServingStatus::Serving).await;
    }
    client.classify(plain(document(0))).await.unwrap();
}

#[tokio::test]
async fn a_server_can_be_stopped_while_it_warms_up() {
    let gate = Gate::shut_from_the_start();
    let server =
        TestServer::warming_up(ServerConfig::default(), EngineConfig::default(), gate).await;
    server.gate.until_entered_after(0).await;
    let gate = std::sync::Arc::clone(&server.gate);
    let stopped = server.stop_soon();
    gate.open();
    assert!(stopped.await.closed_in_time);
}

#[tokio::test]
async fn a_watcher_sees_the_shutdown_first_and_then_the_end() {
    let server = TestServer::start().await;
    let mut health = HealthClient::new(server.channel().await);
    for service in SERVICES {
        let reply = health.check(about(service)).await.unwrap().into_inner();
        assert_eq!(reply.status, ServingStatus::Serving as i32, "{service:?}");
    }
    let mut watch = health.watch(about("tasnif.v1.Classifier")).await.unwrap().into_inner();
    let first = watch.message().await.unwrap().unwrap();
    assert_eq!(first.status, ServingStatus::Serving as i32);
    assert!(server.stop().await.closed_in_time);
    let second = watch.message().await.unwrap().unwrap();
    assert_eq!(second.status, ServingStatus::NotServing as i32);
    assert_eq!(watch.message().await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn health_of_a_service_that_is_not_there_is_not_found() {
    let server = TestServer::start().await;
    let mut health = HealthClient::new(server.channel().await);
    assert_eq!(health.check(about("nothing")).await.unwrap_err().code(), Code::NotFound);
}

/// Services, and files that describe the given symbol, of a version of the reflection service.
macro_rules! reflect {
    ($version:ident, $server:expr, $symbol:expr) => {{
        use $version::server_reflection_client::ServerReflectionClient;
        use $version::server_reflection_request::MessageRequest;
        use $version::server_reflection_response::MessageResponse;
        let request = |message| $version::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(message),
        };
        let requests = tokio_stream::iter([
            request(MessageRequest::ListServices(String::new())),
            request(MessageRequest::FileContainingSymbol($symbol.to_owned())),
        ]);
        let mut client = ServerReflectionClient::new($server.channel().await);
        let replies = client.server_reflection_info(requests).await.unwrap().into_inner();
        let replies: Vec<_> = replies.map(|reply| reply.unwrap().message_response).collect().await;
        let [
            Some(MessageResponse::ListServicesResponse(services)),
            Some(MessageResponse::FileDescriptorResponse(files)),
        ] = <[_; 2]>::try_from(replies).unwrap()
        else {
            panic!("other replies")
        };
        let services: Vec<_> = services.service.into_iter().map(|service| service.name).collect();
        (services, files.file_descriptor_proto)
    }};
}

#[tokio::test]
async fn reflection_describes_every_service_in_both_versions() {
    let server = TestServer::start().await;
    let both = [
        reflect!(v1, server, "tasnif.v1.Classifier"),
        reflect!(v1alpha, server, "tasnif.v1.Classifier"),
    ];
    let (_, files) = reflect!(v1, server, "inference.GRPCInferenceService");
    assert!(files.iter().any(|file| file.windows(10).any(|bytes| bytes == b"ModelInfer")));
    for (services, files) in both {
        for service in SERVICES.iter().skip(1).copied().chain(["grpc.health.v1.Health"]) {
            assert!(services.iter().any(|name| name == service), "{services:?}");
        }
        let named = |name: &[u8]| {
            files.iter().any(|file| file.windows(name.len()).any(|bytes| bytes == name))
        };
        assert!(named(b"ClassifyStream"), "the file of the API is not there");
    }
}
