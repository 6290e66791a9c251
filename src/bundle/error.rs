//! Why a model directory was refused.

use std::path::PathBuf;

use thiserror::Error;

/// Why a model directory was refused. Every message names the file, and the key
/// in it, what was expected there and what was found.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The path is not a directory.
    #[error("{}: expected a model directory; found {found}", .path.display())]
    NotADirectory {
        /// The path given.
        path: PathBuf,
        /// What is there.
        found: String,
    },
    /// A file that the model needs is not there.
    #[error("{}: expected {expected}; found no such file{hint}", .directory.display())]
    Missing {
        /// The model directory.
        directory: PathBuf,
        /// The file, or files of which one would do.
        expected: &'static str,
        /// What to do about it; empty, or starts with a separator.
        hint: &'static str,
    },
    /// A file was replaced or written to while the directory was read, so what was read may be of
    /// two models.
    #[error(
        "{}: expected files that stay as they are while they are read; found that they changed",
        .directory.display()
    )]
    Changed {
        /// The model directory.
        directory: PathBuf,
    },
    /// A file cannot be read.
    #[error("{}: cannot be read: {source}", .file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("{}: cannot be written: {source}", .file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file is not the JSON that was expected; the cause names the key and line.
    #[error("{}: {source}", .file.display())]
    Json {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A value in a file is not one that works.
    #[error("{}: {key}: expected {expected}; found {found}", .file.display())]
    Invalid {
        /// The file.
        file: PathBuf,
        /// The key in it.
        key: String,
        /// What would work.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A weights file is truncated or corrupt.
    #[error("{}: not a whole safetensors file: {source}", .file.display())]
    Safetensors {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        source: safetensors::SafeTensorError,
    },
    /// A tensor is missing, or has another shape or type.
    #[error("{}: tensor {key}: expected {expected}; found {found}", .file.display())]
    Tensor {
        /// The weights file, or their index.
        file: PathBuf,
        /// The tensor's name.
        key: String,
        /// Its shape and types that would work.
        expected: String,
        /// What is there.
        found: String,
    },
    /// The tokenizer's own library refused its file.
    #[error("{}: not a usable tokenizer: {message}", .file.display())]
    Tokenizer {
        /// The file.
        file: PathBuf,
        /// What the library says.
        message: String,
    },
}
