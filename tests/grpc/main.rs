//! The API over a real socket, with the client that tonic generates from the same .proto file.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

mod batch;
mod cache;
mod classify;
mod deadline;
mod drain;
mod errors;
mod harness;
mod health;
mod overload;
mod reload;
mod replaceable;
mod stream;
