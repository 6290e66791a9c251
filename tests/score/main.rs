//! `tasnif score` through its arguments, files and exit codes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(clippy::print_stdout)]

mod evaluation;
mod formats;
mod harness;
mod inputs;
mod limits;
mod pages;
mod properties;
mod rejects;
mod report;
mod resume;
#[path = "../support/mod.rs"]
mod support;
mod warc;
