//! `inference.GRPCInferenceService`: what a request that cannot be answered is told.

use tasnif::server::ServerConfig;
use tasnif::server::oip::proto::{
    InferParameter, InferTensorContents, ModelInferRequest, ModelMetadataRequest,
    ModelReadyRequest, ServerLiveRequest, ServerLiveResponse, infer_parameter::ParameterChoice,
};
use tonic::{Code, Request, Status};

use crate::harness::{SENTENCES, TestServer, assert_status, figure};
use crate::oip::{client, input, prefixed, raw, request, wanted, whole};
use tasnif::engine::EngineConfig;

async fn refusal(server: &TestServer, request: ModelInferRequest) -> Status {
    client(server).await.model_infer(request).await.unwrap_err()
}

/// A good request, changed.
fn changed(change: impl FnOnce(&mut ModelInferRequest)) -> ModelInferRequest {
    let mut request = request(vec![input("text", &SENTENCES[..2]), input("title", &["", "ب"])]);
    change(&mut request);
    request
}

/// A good raw request, changed.
fn raw_changed(change: impl FnOnce(&mut ModelInferRequest)) -> ModelInferRequest {
    let mut request = raw(changed(|_| ()));
    change(&mut request);
    request
}

fn text_parameter(value: &str) -> InferParameter {
    InferParameter { parameter_choice: Some(ParameterChoice::StringParam(value.to_owned())) }
}

#[tokio::test]
async fn a_malformed_tensor_is_refused_by_name() {
    let two = |bytes: &[u8]| [prefixed(b"a"), prefixed(bytes)].concat();
    let shape = |shape: &[i64]| {
        let shape = shape.to_vec();
        changed(|request| request.inputs[0].shape = shape)
    };
    let cases = [
        ("inputs", "without \"text\"", changed(|r| r.inputs.clear())),
        ("inputs", "without \"text\"", changed(|r| drop(r.inputs.remove(0)))),
        ("inputs[0].name", "\"body\"", changed(|r| r.inputs[0].name = "body".to_owned())),
        ("inputs[1].name", "\"Text\"", changed(|r| r.inputs[1].name = "Text".to_owned())),
        ("inputs[1].name", "second time", changed(|r| r.inputs[1].name = "text".to_owned())),
        ("inputs[2].name", "second time", changed(|r| r.inputs.push(input("title", &["", ""])))),
        ("inputs[0].datatype", "\"FP32\"", changed(|r| r.inputs[0].datatype = "FP32".to_owned())),
        ("inputs[1].datatype", "\"\"", changed(|r| r.inputs[1].datatype.clear())),
        ("inputs[0].shape", "[]", shape(&[])),
        ("inputs[0].shape", "[0]", shape(&[0])),
        ("inputs[0].shape", "[-1]", shape(&[-1])),
        ("inputs[0].shape", "[-2, 1]", shape(&[-2, 1])),
        ("inputs[0].shape", "[1, 2]", shape(&[1, 2])),
        ("inputs[0].shape", "[2, 1, 1]", shape(&[2, 1, 1])),
        ("inputs[0].shape", "[2, -1]", shape(&[2, -1])),
        ("inputs[0].shape", "[257]", shape(&[257])),
        ("inputs[0].shape", "[9223372036854775807]", shape(&[i64::MAX])),
        ("inputs[0].shape", "[4611686018427387904, 4]", shape(&[1 << 62, 4])),
        ("inputs[0].shape", "[-9223372036854775808, 1]", shape(&[i64::MIN, 1])),
        ("inputs[0].shape", "[1, 1, 1, 1] and 996 dimensions more", shape(&[1; 1_000])),
        ("inputs[0].contents.bytes_contents", "2 entries", shape(&[1])),
        ("inputs[0].contents.bytes_contents", "2 entries", shape(&[3, 1])),
        (
            "inputs[0].contents.bytes_contents",
            "0 entries",
            changed(|r| r.inputs[0].contents = None),
        ),
        ("inputs[1].shape", "[1]", changed(|r| r.inputs[1] = input("title", &[""]))),
        (
            "inputs[0].contents",
            "not all bytes",
            changed(|r| {
                let numbers =
                    InferTensorContents { fp32_contents: vec![0.5], ..Default::default() };
                r.inputs[0].contents = Some(Box::new(numbers));
            }),
        ),
        (
            "element 1 of inputs[0]",
            "from byte 1",
            changed(|r| {
                let contents = r.inputs[0].contents.as_mut().unwrap();
                contents.bytes_contents[1] = vec![b'a', 0xff];
            }),
        ),
        (
            "inputs[0].contents",
            "set",
            raw_changed(|r| r.inputs[0].contents = input("text", &["a", "b"]).contents),
        ),
        ("raw_input_contents", "1 entry", raw_changed(|r| drop(r.raw_input_contents.pop()))),
        ("raw_input_contents", "3 entries", raw_changed(|r| r.raw_input_contents.push(vec![]))),
        ("raw_input_contents[0]", "cut off", raw_changed(|r| r.raw_input_contents[0].clear())),
        (
            "raw_input_contents[0]",
            "element 1 needs 4 bytes at offset 5",
            raw_changed(|r| r.raw_input_contents[0] = [prefixed(b"a"), vec![0, 0, 0]].concat()),
        ),
        (
            "raw_input_contents[0]",
            "element 0 needs 4294967295 bytes at offset 4, where 1 are left",
            raw_changed(|r| r.raw_input_contents[0] = vec![255, 255, 255, 255, b'a']),
        ),
        (
            "raw_input_contents[1]",
            "1 bytes follow the last of 2 elements",
            raw_changed(|r| r.raw_input_contents[1] = [two(b"b"), vec![0]].concat()),
        ),
        (
            "element 1 of inputs[1]",
            "not UTF-8 from byte 0",
            raw_changed(|r| r.raw_input_contents[1] = two(&[0xd8, 0x20])),
        ),
        (
            "inputs[0].parameters.shared_memory_region",
            "set",
            changed(|r| {
                let region = ("shared_memory_region".to_owned(), text_parameter("region"));
                r.inputs[0].parameters.extend([region]);
            }),
        ),
        (
            "outputs[0].parameters.shared_memory_region",
            "set",
            changed(|r| {
                let region = ("shared_memory_region".to_owned(), text_parameter("region"));
                r.outputs.push(wanted("topic.label", 0));
                r.outputs[0].parameters.extend([region]);
            }),
        ),
        ("outputs[0].name", "\"topic\"", changed(|r| r.outputs.push(wanted("topic", 0)))),
        ("outputs[0].name", "\"tone.label\"", changed(|r| r.outputs.push(wanted("tone.label", 0)))),
        (
            "outputs[1].name",
            "second time",
            changed(|r| r.outputs = vec![wanted("topic.scores", 0), wanted("topic.scores", 3)]),
        ),
        (
            "outputs[0].parameters.classification",
            "-1",
            changed(|r| r.outputs = vec![wanted("topic.scores", -1)]),
        ),
        (
            "outputs[0].parameters.classification",
            "2",
            changed(|r| r.outputs = vec![wanted("topic.label", 2)]),
        ),
        (
            "parameters.timeout",
            "-1",
            changed(|r| r.parameters.extend([("timeout".to_owned(), whole(-1))])),
        ),
        (
            "parameters.priority",
            "\"high\"",
            changed(|r| r.parameters.extend([("priority".to_owned(), text_parameter("high"))])),
        ),
    ];
    let server = TestServer::start().await;
    for (field, value, request) in cases {
        let status = refusal(&server, request).await;
        let fields = assert_status(&status, Code::InvalidArgument, "INVALID_TENSOR");
        assert_eq!(fields, [field], "{}", status.message());
        let message = status.message();
        assert!(message.starts_with(&format!("{field} is ")), "{message}");
        assert!(message.contains(value) && message.contains("; it must be "), "{message}");
        assert!(figure(&status, "value").contains(value), "{message}");
    }
    // Nothing of it has hurt the server.
    client(&server).await.model_infer(raw_changed(|_| ())).await.unwrap();
}

#[tokio::test]
async fn a_message_of_very_many_tensors_is_not_even_decoded() {
    let server = TestServer::start().await;
    let many = || (0..100_000).map(|index| (index.to_string(), InferParameter::default()));
    let contents = |contents: InferTensorContents| {
        changed(|r| r.inputs[0].contents = Some(Box::new(contents)))
    };
    let texts = InferTensorContents {
        bytes_contents: vec![Vec::new(); 200_000],
        ..InferTensorContents::default()
    };
    let numbers =
        InferTensorContents { int64_contents: vec![1; 100_000], ..InferTensorContents::default() };
    for (field, limit, request) in [
        ("inputs", "1024", changed(|r| r.inputs.resize(100_000, Default::default()))),
        ("outputs", "1024", changed(|r| r.outputs.resize(100_000, Default::default()))),
        (
            "raw_input_contents",
            "1024",
            changed(|r| r.raw_input_contents.resize(100_000, Vec::new())),
        ),
        ("parameters", "1024", changed(|r| r.parameters.extend(many()))),
        ("inputs.parameters", "1024", changed(|r| r.inputs[1].parameters.extend(many()))),
        (
            "outputs.parameters",
            "1024",
            changed(|r| {
                r.outputs.push(wanted("topic.label", 0));
                r.outputs[0].parameters.extend(many());
            }),
        ),
        ("inputs.shape", "1024", changed(|r| r.inputs[0].shape = vec![1; 2_000])),
        ("inputs.contents.bytes_contents", "131072", contents(texts)),
        ("inputs.contents.int64_contents", "65536", contents(numbers)),
    ] {
        let status = refusal(&server, request).await;
        let fields = assert_status(&status, Code::InvalidArgument, "TOO_MANY_FIELDS");
        assert_eq!(
            (fields.as_slice(), figure(&status, "limit").as_str()),
            (&[field.to_owned()][..], limit)
        );
        let actual: usize = figure(&status, "actual").parse().unwrap();
        assert!(actual > limit.parse().unwrap(), "{field}: {actual}");
    }
}

#[tokio::test]
async fn an_id_is_no_longer_than_a_documents_may_be() {
    let server = TestServer::start().await;
    let request = changed(|request| request.id = "7".repeat(1_025));
    let status = refusal(&server, request).await;
    let fields = assert_status(&status, Code::InvalidArgument, "FIELD_TOO_LONG");
    assert_eq!(fields, ["id"]);
    assert_eq!(
        (figure(&status, "limit"), figure(&status, "actual")),
        ("1024".into(), "1025".into())
    );
}

#[tokio::test]
async fn the_size_of_a_request_is_limited_as_that_of_a_batch() {
    let config = ServerConfig { max_batch_documents: 3, ..ServerConfig::default() };
    let server = TestServer::start_with(config, EngineConfig::default()).await;
    client(&server).await.model_infer(request(vec![input("text", &SENTENCES[..3])])).await.unwrap();
    let status = refusal(&server, request(vec![input("text", &SENTENCES)])).await;
    let fields = assert_status(&status, Code::InvalidArgument, "INVALID_TENSOR");
    assert_eq!(fields, ["inputs[0].shape"]);
    assert!(status.message().contains("from 1 to 3"), "{}", status.message());
}

#[tokio::test]
async fn an_error_that_quotes_the_client_still_fits_in_headers() {
    let server = TestServer::start().await;
    let long = "م".repeat(500_000);
    for request in [
        changed(|r| r.inputs[0].name = long.clone()),
        changed(|r| r.outputs.push(wanted(&long, 0))),
        changed(|r| r.inputs[0].datatype = long.clone()),
    ] {
        let status = refusal(&server, request).await;
        assert_status(&status, Code::InvalidArgument, "INVALID_TENSOR");
        assert!(status.message().contains("it must be"), "{}", status.message());
    }
    let status = refusal(&server, changed(|r| r.model_version = Some(long.clone()))).await;
    assert_status(&status, Code::NotFound, "UNKNOWN_VERSION");
}

#[tokio::test]
async fn one_bad_document_fails_the_request_and_is_named() {
    let server = TestServer::start().await;
    let mut texts = [SENTENCES[0]; 20];
    texts[17] = " \u{640} ";
    let status = refusal(&server, request(vec![input("text", &texts)])).await;
    let fields = assert_status(&status, Code::InvalidArgument, "EMPTY_TEXT");
    assert_eq!(fields, ["document.text"]);
    assert_eq!(figure(&status, "index"), "17");
    assert!(status.message().starts_with("document 17: "), "{}", status.message());

    let title = "م".repeat(2_001);
    let titles = input("title", &["", &title]);
    let status = refusal(&server, request(vec![input("text", &SENTENCES[..2]), titles])).await;
    let fields = assert_status(&status, Code::InvalidArgument, "FIELD_TOO_LONG");
    assert_eq!(fields, ["document.title"]);
    assert_eq!(figure(&status, "index"), "1");
}

#[tokio::test]
async fn an_unknown_model_or_version_is_not_found() {
    let server = TestServer::start().await;
    let client = &mut client(&server).await;
    let status = refusal(&server, changed(|r| r.model_name = "large".to_owned())).await;
    assert_eq!(assert_status(&status, Code::NotFound, "UNKNOWN_MODEL"), ["model_name"]);
    assert!(status.message().contains("tiny, other"), "{}", status.message());
    let status = refusal(&server, changed(|r| r.model_version = Some("2".to_owned()))).await;
    assert_eq!(assert_status(&status, Code::NotFound, "UNKNOWN_VERSION"), ["model_version"]);
    assert!(status.message().contains("\"tiny-1\""), "{}", status.message());

    for (name, version, reason, field) in [
        ("large", None, "UNKNOWN_MODEL", "name"),
        ("tiny", Some("2"), "UNKNOWN_VERSION", "version"),
    ] {
        let (name, version) = (name.to_owned(), version.map(str::to_owned));
        let ready = ModelReadyRequest { name: name.clone(), version: version.clone() };
        let status = client.model_ready(ready).await.unwrap_err();
        assert_eq!(assert_status(&status, Code::NotFound, reason), [field]);
        // Nobody needs a token to ask this, so nobody is told what there is.
        for told in ["other", "tiny-1"] {
            assert!(!status.message().contains(told), "{}", status.message());
        }
        let metadata = ModelMetadataRequest { name, version };
        let status = client.model_metadata(metadata).await.unwrap_err();
        assert_eq!(assert_status(&status, Code::NotFound, reason), [field]);
    }
}

#[tokio::test]
async fn the_timeout_of_a_request_is_a_deadline() {
    let server = TestServer::start().await;
    server.gate.shut();
    let late =
        |r: &mut ModelInferRequest| r.parameters.extend([("timeout".to_owned(), whole(20_000))]);
    let status = refusal(&server, changed(late)).await;
    assert_status(&status, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
    server.gate.open();
    let ample = ("timeout".to_owned(), whole(i64::MAX));
    let request = changed(|r| r.parameters.extend([ample]));
    client(&server).await.model_infer(request).await.unwrap();
}

#[tokio::test]
async fn parameters_that_ask_for_nothing_here_are_ignored() {
    let server = TestServer::start().await;
    let request = changed(|r| {
        let flag = InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(true)) };
        r.parameters.extend([
            ("sequence_id".to_owned(), whole(3)),
            ("sequence_start".to_owned(), flag.clone()),
            ("sequence_end".to_owned(), flag.clone()),
            ("mine".to_owned(), text_parameter("ب")),
            ("nothing".to_owned(), InferParameter::default()),
        ]);
        r.inputs[0].parameters.extend([("binary_data".to_owned(), flag)]);
    });
    client(&server).await.model_infer(request).await.unwrap();
}

#[tokio::test]
async fn a_panic_of_the_model_fails_its_request_and_not_the_server() {
    let server = TestServer::start().await;
    server.gate.panic_next();
    let status = refusal(&server, changed(|_| ())).await;
    assert_status(&status, Code::Internal, "WORKER_PANICKED");
    client(&server).await.model_infer(changed(|_| ())).await.unwrap();
}

#[tokio::test]
async fn rpcs_that_only_triton_has_are_unimplemented() {
    let server = TestServer::start().await;
    for method in ["ModelConfig", "ModelStatistics", "RepositoryIndex", "ModelStreamInfer"] {
        let mut grpc = tonic::client::Grpc::new(server.channel().await);
        grpc.ready().await.unwrap();
        let path = format!("/inference.GRPCInferenceService/{method}").parse().unwrap();
        let codec = tonic_prost::ProstCodec::<ServerLiveRequest, ServerLiveResponse>::default();
        let status = grpc.unary(Request::new(ServerLiveRequest {}), path, codec).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{method}");
    }
}
