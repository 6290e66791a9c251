//! Valid messages of every RPC on the port: what mutations start from.

use prost::Message;
use tasnif::server::oip::proto::infer_parameter::ParameterChoice;
use tasnif::server::oip::proto::model_infer_request::{
    InferInputTensor, InferRequestedOutputTensor,
};
use tasnif::server::oip::proto::{
    InferParameter, InferTensorContents, ModelInferRequest, ModelMetadataRequest, ModelReadyRequest,
};
use tasnif::server::proto::{
    ClassifyBatchRequest, ClassifyRequest, ClassifyStreamRequest, Options, TokenizeRequest,
};
use tonic_health::pb::HealthCheckRequest;
use tonic_reflection::pb::{v1, v1alpha};

use crate::random::Random;
use crate::steady::document;

pub(crate) const CLASSIFY: &str = "/tasnif.v1.Classifier/Classify";
pub(crate) const CLASSIFY_BATCH: &str = "/tasnif.v1.Classifier/ClassifyBatch";
pub(crate) const CLASSIFY_STREAM: &str = "/tasnif.v1.Classifier/ClassifyStream";
pub(crate) const TOKENIZE: &str = "/tasnif.v1.Classifier/Tokenize";
pub(crate) const LIST_MODELS: &str = "/tasnif.v1.Classifier/ListModels";
pub(crate) const MODEL_INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
pub(crate) const MODEL_READY: &str = "/inference.GRPCInferenceService/ModelReady";
pub(crate) const MODEL_METADATA: &str = "/inference.GRPCInferenceService/ModelMetadata";
pub(crate) const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";
pub(crate) const HEALTH_WATCH: &str = "/grpc.health.v1.Health/Watch";
pub(crate) const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
pub(crate) const REFLECTION_ALPHA: &str =
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";

/// A path on the port, and a message that it takes.
pub(crate) struct Rpc {
    pub(crate) path: &'static str,
    pub(crate) message: fn(&mut Random) -> Vec<u8>,
}

/// Every RPC, and some that do not exist.
pub(crate) const RPCS: [Rpc; 18] = [
    Rpc { path: CLASSIFY, message: classify },
    Rpc { path: CLASSIFY_BATCH, message: classify_batch },
    Rpc { path: CLASSIFY_STREAM, message: classify_stream },
    Rpc { path: TOKENIZE, message: tokenize },
    Rpc { path: LIST_MODELS, message: empty },
    Rpc { path: "/inference.GRPCInferenceService/ServerLive", message: empty },
    Rpc { path: "/inference.GRPCInferenceService/ServerReady", message: empty },
    Rpc { path: "/inference.GRPCInferenceService/ServerMetadata", message: empty },
    Rpc { path: MODEL_READY, message: model_ready },
    Rpc { path: MODEL_METADATA, message: model_metadata },
    Rpc { path: MODEL_INFER, message: model_infer },
    Rpc { path: HEALTH_CHECK, message: health },
    Rpc { path: HEALTH_WATCH, message: health },
    Rpc { path: REFLECTION, message: reflection },
    Rpc { path: REFLECTION_ALPHA, message: reflection_alpha },
    Rpc { path: "/tasnif.v1.Classifier/Train", message: classify },
    Rpc { path: "/grpc.channelz.v1.Channelz/GetServers", message: empty },
    Rpc { path: "/", message: empty },
];

/// Options whose every field may be set, and may be wrong.
pub(crate) fn options(random: &mut Random) -> Option<Options> {
    if random.once_in(2) {
        return None;
    }
    let names = ["", "topic", "sentiment", "tiny", "سياسة", "\u{0}"];
    Some(Options {
        model: if random.once_in(4) { (*random.pick(&names)).to_owned() } else { String::new() },
        tasks: (0..random.below(3)).map(|_| (*random.pick(&names)).to_owned()).collect(),
        top_k: *random.pick(&[0, 1, 3, u32::MAX]),
        min_score: *random.pick(&[0.0, 0.5, -1.0, f32::NAN, f32::INFINITY]),
        priority: *random.pick(&[0, 1, 2, 3, i32::MIN]),
        long_text: *random.pick(&[0, 1, 2, 3, -1]),
        with_logits: random.once_in(2),
        evidence: *random.pick(&[0, 0, 1, 2, u32::MAX]),
    })
}

fn classify(random: &mut Random) -> Vec<u8> {
    let document = Some(document(random.below(20)));
    ClassifyRequest { document, options: options(random) }.encode_to_vec()
}

fn classify_batch(random: &mut Random) -> Vec<u8> {
    let documents = (0..random.below(6)).map(document).collect();
    ClassifyBatchRequest { documents, options: options(random) }.encode_to_vec()
}

fn classify_stream(random: &mut Random) -> Vec<u8> {
    let document = Some(document(random.below(20)));
    ClassifyStreamRequest { document, options: options(random) }.encode_to_vec()
}

fn tokenize(random: &mut Random) -> Vec<u8> {
    let model = (*random.pick(&["", "", "other"])).to_owned();
    TokenizeRequest { document: Some(document(random.below(20))), model }.encode_to_vec()
}

fn empty(_: &mut Random) -> Vec<u8> {
    Vec::new()
}

fn model_ready(random: &mut Random) -> Vec<u8> {
    let version = random.once_in(2).then(|| (*random.pick(&["1", "tiny-1", "9"])).to_owned());
    ModelReadyRequest { name: String::new(), version }.encode_to_vec()
}

fn model_metadata(random: &mut Random) -> Vec<u8> {
    let name = (*random.pick(&["", "x"])).to_owned();
    ModelMetadataRequest { name, version: None }.encode_to_vec()
}

fn model_infer(random: &mut Random) -> Vec<u8> {
    let count = 1 + random.below(3);
    let elements: Vec<Vec<u8>> =
        (0..count).map(|index| document(index).text.into_bytes()).collect();
    let mut request = ModelInferRequest {
        inputs: vec![InferInputTensor {
            name: (*random.pick(&["text", "text", "title", ""])).to_owned(),
            datatype: (*random.pick(&["BYTES", "BYTES", "FP32"])).to_owned(),
            shape: vec![*random.pick(&[count as i64, count as i64, -1, i64::MAX, 0])],
            ..InferInputTensor::default()
        }],
        ..ModelInferRequest::default()
    };
    if random.once_in(3) {
        // An element that says it is longer than it is.
        let longer = if random.once_in(4) { u32::MAX } else { 0 };
        let raw = elements.iter().flat_map(|element| {
            let length = (element.len() as u32).max(longer).to_le_bytes();
            [&length, element.as_slice()].concat()
        });
        request.raw_input_contents = vec![raw.collect()];
    } else {
        let contents = InferTensorContents { bytes_contents: elements, ..Default::default() };
        request.inputs[0].contents = Some(Box::new(contents));
    }
    if random.once_in(3) {
        let choice = match random.below(3) {
            0 => ParameterChoice::Int64Param(i64::MIN),
            1 => ParameterChoice::DoubleParam(f64::NAN),
            _ => ParameterChoice::StringParam("1".to_owned()),
        };
        let parameter = InferParameter { parameter_choice: Some(choice) };
        let name = (*random.pick(&["priority", "timeout", "shared_memory_region"])).to_owned();
        request.parameters.insert(name, parameter.clone());
        request.outputs = vec![InferRequestedOutputTensor {
            name: (*random.pick(&["topic.label", "sentiment.scores", "x"])).to_owned(),
            parameters: [("classification".to_owned(), parameter)].into(),
        }];
    }
    request.encode_to_vec()
}

fn health(random: &mut Random) -> Vec<u8> {
    let service = (*random.pick(&["", "tasnif.v1.Classifier", "x"])).to_owned();
    HealthCheckRequest { service }.encode_to_vec()
}

fn reflection(random: &mut Random) -> Vec<u8> {
    use v1::server_reflection_request::MessageRequest;
    let request = match random.below(3) {
        0 => MessageRequest::ListServices(String::new()),
        1 => MessageRequest::FileContainingSymbol("tasnif.v1.Classifier".to_owned()),
        _ => MessageRequest::FileByFilename("tasnif/v1/tasnif.proto".to_owned()),
    };
    v1::ServerReflectionRequest { host: String::new(), message_request: Some(request) }
        .encode_to_vec()
}

/// The two versions are one message.
fn reflection_alpha(random: &mut Random) -> Vec<u8> {
    let message = reflection(random);
    assert!(v1alpha::ServerReflectionRequest::decode(message.as_slice()).is_ok());
    message
}

/// Headers that are wrong, or mean something, and values of theirs; without one, noise.
pub(crate) const HEADER_TRICKS: [(&str, Option<&[u8]>); 19] = [
    ("content-type", Some(b"application/json")),
    ("content-type", Some(b"application/grpc-web+proto")),
    ("content-type", Some(b"application/grpc+json")),
    ("content-type", None),
    ("grpc-timeout", Some(b"1n")),
    ("grpc-timeout", Some(b"0S")),
    ("grpc-timeout", Some(b"99999999H")),
    ("grpc-timeout", Some(b"999999999999H")),
    ("grpc-timeout", Some(b"-1m")),
    ("grpc-timeout", Some(b"\xd9\xa3S")),
    ("grpc-timeout", None),
    ("grpc-encoding", None),
    ("grpc-accept-encoding", None),
    ("authorization", Some(b"Bearer \xff\xfe")),
    ("authorization", None),
    ("x-noise-bin", None),
    ("traceparent", None),
    ("content-length", Some(b"0")),
    ("grpc-message", Some(b"%ff%00")),
];
