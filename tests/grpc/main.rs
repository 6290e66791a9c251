//! The API over a real socket, with the client that tonic generates from the same .proto file.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

mod answers;
mod auth;
mod batch;
mod cache;
mod certs;
mod classify;
mod compression;
mod connections;
mod dashboards;
mod deadline;
mod drain;
mod errors;
mod harness;
mod health;
mod metrics;
mod monitoring;
mod oip;
mod oip_errors;
mod overload;
mod reload;
mod replaceable;
mod scrape;
mod stream;
mod tls;
mod traces;
