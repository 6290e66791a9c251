//! What `build.rs` generates from `proto/tasnif/v1/tasnif.proto`: messages, server and client.

// Their documentation is the comments of the .proto file, which leaves some fields to their names.
#![allow(missing_docs)]

tonic::include_proto!("tasnif.v1");

/// The encoded `FileDescriptorSet` of the API, for the reflection service.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
