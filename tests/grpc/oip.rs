//! `inference.GRPCInferenceService`: what clients of KServe and Triton are answered.

use std::collections::BTreeMap;

use tasnif::engine::EngineConfig;
use tasnif::server::ServerConfig;
use tasnif::server::oip::proto::grpc_inference_service_client::GrpcInferenceServiceClient;
use tasnif::server::oip::proto::infer_parameter::ParameterChoice;
use tasnif::server::oip::proto::model_infer_request::{
    InferInputTensor, InferRequestedOutputTensor,
};
use tasnif::server::oip::proto::model_infer_response::InferOutputTensor;
use tasnif::server::oip::proto::{
    InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse,
    ModelMetadataRequest, ModelReadyRequest, ServerLiveRequest, ServerMetadataRequest,
    ServerReadyRequest,
};
use tasnif::server::proto::{self, ClassifyBatchRequest};
use tonic::Code;
use tonic::transport::Channel;
use tonic_health::ServingStatus;

use crate::harness::{
    Gate, PATIENCE, SENTENCES, TestServer, answer, assert_status, document, says_when_to_retry,
};

pub(crate) type Client = GrpcInferenceServiceClient<Channel>;

pub(crate) async fn client(server: &TestServer) -> Client {
    GrpcInferenceServiceClient::new(server.channel().await)
}

/// An input tensor of these elements, typed.
pub(crate) fn input(name: &str, elements: &[&str]) -> InferInputTensor {
    let bytes_contents = elements.iter().map(|element| element.as_bytes().to_vec()).collect();
    InferInputTensor {
        name: name.to_owned(),
        datatype: "BYTES".to_owned(),
        shape: vec![elements.len() as i64],
        contents: Some(Box::new(InferTensorContents { bytes_contents, ..Default::default() })),
        ..Default::default()
    }
}

/// A request for the default model.
pub(crate) fn request(inputs: Vec<InferInputTensor>) -> ModelInferRequest {
    ModelInferRequest { inputs, ..ModelInferRequest::default() }
}

/// The same request with its elements in `raw_input_contents`.
pub(crate) fn raw(mut request: ModelInferRequest) -> ModelInferRequest {
    for input in &mut request.inputs {
        let elements = input.contents.take().unwrap().bytes_contents;
        request
            .raw_input_contents
            .push(elements.iter().flat_map(|bytes| prefixed(bytes)).collect());
    }
    request
}

/// An element of a raw BYTES tensor.
pub(crate) fn prefixed(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_le_bytes(), bytes].concat()
}

/// An output to ask for, with its `classification` parameter if that is not 0.
pub(crate) fn wanted(name: &str, class_count: i64) -> InferRequestedOutputTensor {
    let classification = ("classification".to_owned(), whole(class_count));
    let parameters = if class_count == 0 { vec![] } else { vec![classification] };
    InferRequestedOutputTensor {
        name: name.to_owned(),
        parameters: parameters.into_iter().collect(),
    }
}

pub(crate) fn whole(value: i64) -> InferParameter {
    InferParameter { parameter_choice: Some(ParameterChoice::Int64Param(value)) }
}

async fn infer(server: &TestServer, request: ModelInferRequest) -> ModelInferResponse {
    client(server).await.model_infer(request).await.unwrap().into_inner()
}

fn output<'r>(reply: &'r ModelInferResponse, name: &str) -> &'r InferOutputTensor {
    reply.outputs.iter().find(|output| output.name == name).unwrap_or_else(|| panic!("no {name}"))
}

fn strings(tensor: &InferOutputTensor) -> Vec<String> {
    let bytes = &tensor.contents.as_ref().unwrap().bytes_contents;
    bytes.iter().map(|bytes| String::from_utf8(bytes.clone()).unwrap()).collect()
}

fn scores(tensor: &InferOutputTensor) -> Vec<f32> {
    tensor.contents.as_ref().unwrap().fp32_contents.clone()
}

const TITLES: [&str; 4] = ["قرار الحكومة", "", "فوز", "طقس الساحل"];

#[tokio::test]
async fn answers_equal_those_of_classify_batch() {
    let server = TestServer::start().await;
    let documents = TITLES.iter().zip(SENTENCES).map(|(title, text)| proto::Document {
        id: String::new(),
        title: (*title).to_owned(),
        text: text.to_owned(),
    });
    let native = ClassifyBatchRequest { documents: documents.collect(), options: None };
    let native = server.client().await.classify_batch(native).await.unwrap().into_inner();

    // The order of the inputs is the client's, and a column is as good as a row.
    let mut texts = input("text", &SENTENCES);
    texts.shape.push(1);
    let request = ModelInferRequest {
        id: "request 7".to_owned(),
        ..request(vec![input("title", &TITLES), texts])
    };
    let reply = infer(&server, request).await;
    assert_eq!((reply.model_name.as_str(), reply.model_version.as_str()), ("tiny", "tiny-1"));
    assert_eq!(reply.id, "request 7");
    assert!(reply.raw_output_contents.is_empty());

    let order = BTreeMap::from([
        ("topic", vec!["politics", "economy", "sport", "health", "weather"]),
        ("sentiment", vec!["negative", "neutral", "positive"]),
    ]);
    for (place, task) in ["topic", "sentiment"].into_iter().enumerate() {
        let label = output(&reply, &format!("{task}.label"));
        let score = output(&reply, &format!("{task}.scores"));
        let abstained = output(&reply, &format!("{task}.abstained"));
        let labels = &order[task];
        assert_eq!((label.datatype.as_str(), &label.shape[..]), ("BYTES", &[4][..]));
        assert_eq!(score.datatype, "FP32");
        assert_eq!(score.shape, [4, labels.len() as i64]);
        assert_eq!((abstained.datatype.as_str(), &abstained.shape[..]), ("BOOL", &[4][..]));
        let abstained = &abstained.contents.as_ref().unwrap().bool_contents;
        for (row, item) in native.results.iter().enumerate() {
            let expected = &answer(item).tasks[place];
            assert_eq!(expected.task, task);
            assert_eq!(strings(label)[row], expected.label);
            assert_eq!(abstained[row], expected.abstained);
            let row = &scores(score)[row * labels.len()..][..labels.len()];
            for (name, score) in labels.iter().zip(row) {
                let same = expected.labels.iter().find(|label| label.label == *name).unwrap();
                assert!((same.score - score).abs() < 1e-5, "{name}: {score} {same:?}");
            }
        }
    }
    assert_eq!(reply.outputs.len(), 6);
    assert!(strings(output(&reply, "topic.label")).iter().any(|label| label != "politics"));
}

#[tokio::test]
async fn a_raw_request_gets_the_same_answer_raw() {
    let server = TestServer::start().await;
    let request = request(vec![input("text", &SENTENCES), input("title", &TITLES)]);
    let typed = infer(&server, request.clone()).await;
    let reply = infer(&server, raw(request)).await;
    assert_eq!(reply.outputs.len(), typed.outputs.len());
    assert_eq!(reply.raw_output_contents.len(), typed.outputs.len());
    for ((tensor, bytes), typed) in
        reply.outputs.iter().zip(&reply.raw_output_contents).zip(&typed.outputs)
    {
        assert_eq!((&tensor.name, &tensor.shape), (&typed.name, &typed.shape));
        assert_eq!(tensor.contents, None);
        let contents = typed.contents.as_ref().unwrap();
        match tensor.datatype.as_str() {
            "BYTES" => {
                let expected: Vec<u8> =
                    contents.bytes_contents.iter().flat_map(|bytes| prefixed(bytes)).collect();
                assert_eq!(bytes, &expected);
            }
            "FP32" => {
                let values =
                    bytes.chunks(4).map(|four| f32::from_le_bytes(four.try_into().unwrap()));
                assert_eq!(values.len(), contents.fp32_contents.len());
                for (value, expected) in values.zip(&contents.fp32_contents) {
                    assert!((value - expected).abs() < 1e-5);
                }
            }
            "BOOL" => {
                let flags: Vec<u8> =
                    contents.bool_contents.iter().map(|&flag| flag.into()).collect();
                assert_eq!(bytes, &flags);
            }
            other => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn only_what_is_asked_for_is_sent() {
    let server = TestServer::start().await;
    let request = ModelInferRequest {
        outputs: vec![wanted("sentiment.scores", 0), wanted("topic.label", 0)],
        ..request(vec![input("text", &SENTENCES[..1])])
    };
    let reply = infer(&server, request).await;
    let names: Vec<_> = reply.outputs.iter().map(|output| output.name.as_str()).collect();
    assert_eq!(names, ["sentiment.scores", "topic.label"]);
    let sum: f32 = scores(&reply.outputs[0]).iter().sum();
    assert!((sum - 1.0).abs() < 1e-5, "{sum}");
}

#[tokio::test]
async fn scores_can_be_asked_for_as_classes() {
    let server = TestServer::start().await;
    let all = infer(&server, request(vec![input("text", &SENTENCES)])).await;
    let request = ModelInferRequest {
        // There are three sentiments and no more.
        outputs: vec![wanted("topic.scores", 2), wanted("sentiment.scores", 1_000)],
        ..request(vec![input("text", &SENTENCES)])
    };
    let reply = infer(&server, request).await;
    let [topics, sentiments] = &reply.outputs[..] else { panic!("{reply:?}") };
    assert_eq!((topics.datatype.as_str(), &topics.shape[..]), ("BYTES", &[4, 2][..]));
    assert_eq!(sentiments.shape, [4, 3]);
    let labels = strings(output(&all, "topic.label"));
    let scores = scores(output(&all, "topic.scores"));
    for (row, pair) in strings(topics).chunks(2).enumerate() {
        let parts: Vec<Vec<&str>> = pair.iter().map(|class| class.split(':').collect()).collect();
        let [best, second] = &parts[..] else { panic!("{pair:?}") };
        let value = |class: &[&str]| class[0].parse::<f32>().unwrap();
        assert_eq!(best[2], labels[row]);
        assert!(value(best) >= value(second));
        for class in [best, second] {
            let index: usize = class[1].parse().unwrap();
            assert!((scores[row * 5 + index] - value(class)).abs() < 1e-5, "{class:?}");
        }
    }
}

#[tokio::test]
async fn metadata_names_tensors_and_labels() {
    let server = TestServer::start().await;
    let client = &mut client(&server).await;
    let metadata = client.server_metadata(ServerMetadataRequest {}).await.unwrap().into_inner();
    assert_eq!(metadata.name, "tasnif");
    assert_eq!(metadata.version, env!("CARGO_PKG_VERSION"));
    assert_eq!(metadata.extensions, ["classification", "schedule_policy"]);

    for name in ["", "tiny", "other"] {
        for version in [None, Some(""), Some("1"), Some("tiny-1")] {
            let request =
                ModelMetadataRequest { name: name.to_owned(), version: version.map(str::to_owned) };
            let reply = client.model_metadata(request).await.unwrap().into_inner();
            assert_eq!(reply.name, if name.is_empty() { "tiny" } else { name });
            assert_eq!(reply.versions, ["tiny-1"]);
        }
    }
    let request = ModelMetadataRequest { name: "tiny".to_owned(), version: None };
    let reply = client.model_metadata(request).await.unwrap().into_inner();
    assert_eq!(reply.platform, "tasnif_candle");
    let tensors =
        |tensors: &[tasnif::server::oip::proto::model_metadata_response::TensorMetadata]| {
            let tensor = tensors
                .iter()
                .map(|tensor| format!("{} {} {:?}", tensor.name, tensor.datatype, tensor.shape));
            tensor.collect::<Vec<_>>()
        };
    assert_eq!(tensors(&reply.inputs), ["text BYTES [-1]", "title BYTES [-1]"]);
    assert_eq!(
        tensors(&reply.outputs),
        [
            "topic.label BYTES [-1]",
            "topic.scores FP32 [-1, 5]",
            "topic.abstained BOOL [-1]",
            "sentiment.label BYTES [-1]",
            "sentiment.scores FP32 [-1, 3]",
            "sentiment.abstained BOOL [-1]",
        ]
    );
    assert_eq!(reply.properties["sentiment.labels"], r#"["negative","neutral","positive"]"#);
    assert_eq!(reply.properties["topic.multi_label"], "false");
    assert_eq!(reply.properties["digest"].len(), 64);
}

#[tokio::test]
async fn a_server_is_live_before_it_is_ready_and_ready_until_it_drains() {
    let gate = Gate::shut_from_the_start();
    let server =
        TestServer::warming_up(ServerConfig::default(), EngineConfig::default(), gate).await;
    let client = &mut client(&server).await;
    assert_eq!(state(client).await, (true, false, false));
    let inputs = || request(vec![input("text", &SENTENCES[..1])]);
    let status = client.model_infer(inputs()).await.unwrap_err();
    assert_status(&status, Code::Unavailable, "WARMING_UP");
    assert!(says_when_to_retry(&status));
    let status = client.server_metadata(ServerMetadataRequest {}).await.unwrap_err();
    assert_status(&status, Code::Unavailable, "WARMING_UP");
    let status = client.model_metadata(ModelMetadataRequest::default()).await.unwrap_err();
    assert_status(&status, Code::Unavailable, "WARMING_UP");

    server.gate.open();
    server.until("inference.GRPCInferenceService", ServingStatus::Serving).await;
    assert_eq!(state(client).await, (true, true, true));

    // One call holds the shutdown up until the gate opens; it is answered all the same.
    let gate = std::sync::Arc::clone(&server.gate);
    gate.shut();
    let before = gate.entered();
    let mut other = client.clone();
    let running = tokio::spawn(async move { other.model_infer(inputs()).await });
    gate.until_entered_after(before).await;
    let mut watch = {
        use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
        let request = HealthCheckRequest { service: "inference.GRPCInferenceService".to_owned() };
        HealthClient::new(server.channel().await).watch(request).await.unwrap().into_inner()
    };
    let stopped = tokio::spawn(server.stop_soon());
    while watch.message().await.unwrap().unwrap().status != ServingStatus::NotServing as i32 {}
    // Health turns first; the calls are refused right after it.
    let refused = async { while state(client).await != (true, false, false) {} };
    tokio::time::timeout(PATIENCE, refused).await.expect("the server drains");
    let status = client.model_infer(inputs()).await.unwrap_err();
    assert_status(&status, Code::Unavailable, "DRAINING");
    gate.open();
    assert_eq!(running.await.unwrap().unwrap().into_inner().outputs.len(), 6);
    assert!(stopped.await.unwrap().closed_in_time);
}

/// Whether the server is live, it is ready, and its model is.
async fn state(client: &mut Client) -> (bool, bool, bool) {
    let live = client.server_live(ServerLiveRequest {}).await.unwrap().into_inner().live;
    let ready = client.server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready;
    let model = ModelReadyRequest { name: "other".to_owned(), version: None };
    let model = client.model_ready(model).await.unwrap().into_inner().ready;
    (live, ready, model)
}

#[tokio::test]
async fn a_request_may_hold_as_many_documents_as_a_batch() {
    let server = TestServer::start().await;
    let texts: Vec<String> = (0..256).map(|index| document(index).text).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let reply = infer(&server, raw(request(vec![input("text", &texts)]))).await;
    assert_eq!(output(&reply, "topic.scores").shape, [256, 5]);
    assert_eq!(reply.raw_output_contents[1].len(), 256 * 5 * 4);
}

/// In a queue that is full, interactive work is refused, and bulk waits for room.
#[tokio::test]
async fn the_priority_chooses_the_lane() {
    let engine =
        EngineConfig { max_batch_tokens: 64, max_queued_tokens: 88, ..EngineConfig::default() };
    let server = TestServer::start_with(ServerConfig::default(), engine).await;
    let text: String = SENTENCES.join(" ").chars().take(68).collect();
    let with_priority = |priority: i64| ModelInferRequest {
        parameters: [("priority".to_owned(), whole(priority))].into(),
        ..request(vec![input("text", &[text.as_str()])])
    };
    let client = client(&server).await;
    let spawn = |priority: i64| {
        let (mut client, request) = (client.clone(), with_priority(priority));
        tokio::spawn(async move { client.model_infer(request).await })
    };
    server.gate.shut();
    let before = server.gate.entered();
    let running = spawn(1);
    server.gate.until_entered_after(before).await;
    let queued = spawn(0);
    server.until_stats(|stats| stats.queued_tokens > 0).await;

    let status = client.clone().model_infer(with_priority(1)).await.unwrap_err();
    assert_status(&status, Code::ResourceExhausted, "OVERLOADED");
    assert!(says_when_to_retry(&status));
    let waiting = spawn(2);
    server.until_stats(|stats| stats.waiting_jobs > 0).await;
    server.gate.open();
    for call in [running, queued, waiting] {
        call.await.unwrap().unwrap();
    }
}
