//! Tiny model directories with fixed random weights, for tests that need a
//! model which loads in a millisecond and answers the same on every machine.

#![allow(dead_code, unreachable_pub, unused_imports)]
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

pub mod process;
pub mod tiny;
pub mod wrapped;

use std::path::Path;

use tasnif::bundle::Bundle;
use tempfile::TempDir;

pub use tiny::{Tiny, TinyTask};

/// Writes a bundle into `dir`, which is created if need be: a two-layer BERT of
/// 128 positions with a WordPiece tokenizer, windows of 64 tokens, a task `topic`
/// of five labels and a task `sentiment` of three.
///
/// The answers mean nothing, but they differ from text to text.
pub fn tiny_bundle(dir: &Path) {
    Tiny::bundle().write(dir);
}

/// A directory of its own with the files of `tiny`.
pub fn written(tiny: &Tiny) -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    tiny.write(directory.path());
    directory
}

/// The model directory at `path`, which has to load.
pub fn load(path: &Path) -> Bundle {
    Bundle::load(path).unwrap_or_else(|error| panic!("{error}"))
}
