//! `inference.GRPCInferenceService`: the Open Inference Protocol, version 2, which clients of KServe
//! and Triton speak.
//!
//! | file | what it does |
//! |---|---|
//! | `service` | the six RPCs |
//! | `inputs` | tensors of texts to documents |
//! | `outputs` | the tensors that a model gives, and those that a request asks for |
//! | `values` | the elements of a tensor, typed and raw |
//! | `parameters` | what Triton's clients add to a request and a tensor |
//! | `metadata` | a model's tensors and properties |
//!
//! What a call asks for runs through the same `Work` as that of the API's own
//! service, so limits, lanes, deadlines and statuses are the same.

mod inputs;
mod metadata;
mod outputs;
mod parameters;
pub mod proto;
mod service;
mod values;

pub(crate) use proto::grpc_inference_service_server::SERVICE_NAME;
pub(crate) use service::server;

use super::status::CallError;

/// What a request says in `field` is not what it must be.
fn invalid(
    field: impl Into<String>,
    value: impl Into<String>,
    expected: impl Into<String>,
) -> CallError {
    CallError::InvalidTensor { field: field.into(), value: value.into(), expected: expected.into() }
}
