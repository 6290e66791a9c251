//! What `build.rs` generates from `proto/inference/open_inference_grpc.proto`: messages, server and
//! client.

// The fields are documented by the specification, and where Tasnif adds to it by the .proto file.
#![allow(missing_docs)]

tonic::include_proto!("inference");
