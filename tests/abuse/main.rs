//! Abuse: what reaches the port, the files and the standard input of `tasnif` and means it no good.
//! The server is the real binary in a process of its own, so that "it lives" is seen from outside.
//!
//! Everything is drawn from a seed, which is printed: `TASNIF_ABUSE_SEED=N` draws it again, and
//! `TASNIF_ABUSE_REQUESTS=100000` says how many hostile requests there are.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(clippy::print_stderr)] // The seed, and what was seen.

#[path = "../support/mod.rs"]
mod support;

mod bundles;
mod connections;
mod drain;
mod encoders;
mod frames;
mod messages;
mod mutations;
mod process;
mod random;
mod requests;
mod restart;
mod steady;
mod texts;
mod wire;
