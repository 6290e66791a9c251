//! What a loaded model is, and why one could not be loaded.

use std::time::SystemTime;

use crate::bundle::{BundleError, Task};
use crate::engine::StartError;
use crate::nn::NnError;

/// Why a model could not be made ready to serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The model directory is not usable.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The encoder could not be built.
    #[error(transparent)]
    Encoder(#[from] NnError),
    /// The engine did not start.
    #[error(transparent)]
    Engine(#[from] StartError),
    /// No queue of bulk work would ever hold a window of the model.
    #[error(
        "engine.max_queued_tokens is {queued}, for bulk work {bulk}; it must hold a window, \
         {window} tokens"
    )]
    Queue {
        /// Tokens that may be queued.
        queued: usize,
        /// Those of them that bulk work may have.
        bulk: usize,
        /// Tokens of a window.
        window: usize,
    },
}

/// What a loaded model is.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelInfo {
    /// The name that requests call it by.
    pub name: String,
    /// The bundle's revision.
    pub revision: String,
    /// SHA-256 of the weights, in hexadecimal.
    pub digest: String,
    /// SHA-256, in hexadecimal, of all in the bundle that decides what the model answers.
    pub fingerprint: String,
    /// When it was loaded.
    pub loaded_at: SystemTime,
    /// `bert`, `roberta`, `xlm-roberta` or `electra`.
    pub architecture: String,
    /// Effective precision: `f32`, `bf16` or `int8`.
    pub precision: String,
    /// What computes, see [`Compute::kernels`](crate::nn::Compute::kernels).
    pub kernels: String,
    /// Effective device: `cpu`.
    pub device: String,
    /// In which form it reads text, see [`Profile`](crate::text::Profile).
    pub profile: String,
    /// Tokens of a window, special ones included.
    pub max_window_tokens: usize,
    /// What it answers.
    pub tasks: Vec<Task>,
    /// What works less well than it could, for people to read.
    pub warnings: Vec<String>,
}
