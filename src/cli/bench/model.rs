//! The model that is measured in this process.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use rayon::prelude::*;

use super::args::EngineArgs;
use super::ids::Sequences;
use super::lines::Numbered;
use super::report;
use crate::bundle::Bundle;
use crate::cli::exit::Failure;
use crate::cli::local;
use crate::engine::EngineConfig;
use crate::nn::{self, Compute, Encoder};
use crate::pipeline::{Document, DocumentLimits, LoadError, LongText, token_windows};

/// A model, ready for engines to run.
pub(super) struct Loaded {
    pub(super) bundle: Bundle,
    pub(super) encoder: Arc<dyn Encoder>,
    /// What it computes with.
    pub(super) compute: Compute,
    pub(super) threads: usize,
    /// Batches that run at the same time.
    pub(super) workers: usize,
}

impl Loaded {
    /// Loads what `args` names and sets up the threads of this process.
    ///
    /// # Errors
    /// If there is no such model.
    pub(super) fn load(args: &EngineArgs) -> anyhow::Result<Self> {
        let precision = args.precision.unwrap_or_default();
        let threads = args.threads.map_or_else(nn::default_threads, usize::from);
        nn::configure_threads(threads).context("threads cannot be set up")?;
        let path = local::directory(args.model.as_ref())?;
        let loaded = Bundle::load(&path).map_err(LoadError::from).and_then(|bundle| {
            let encoder: Arc<dyn Encoder> = Arc::new(nn::load(&bundle, precision)?);
            let (compute, workers) = (encoder.computes_with(), nn::batches(precision, threads));
            Ok(Self { bundle, encoder, compute, threads, workers })
        });
        Ok(loaded.map_err(|source| refusal(path, source))?)
    }

    /// What the report says of it.
    pub(super) fn describe(&self) -> report::Model {
        report::Model {
            name: self.bundle.name.clone(),
            revision: self.bundle.revision.clone(),
            digest: self.bundle.digest.clone(),
            architecture: self.bundle.config.architecture.to_string(),
            device: "cpu".to_owned(),
            kernels: self.compute.kernels.clone(),
        }
    }

    /// The windows in which each of `documents`, which come from `source`, is read.
    ///
    /// # Errors
    /// If one cannot be read; its line is named.
    pub(super) fn windows(
        &self,
        source: &str,
        documents: &[Numbered<Document>],
    ) -> Result<Vec<Sequences>, Failure> {
        let (text, tokenizer) = (&self.bundle.text, &self.bundle.tokenizer);
        let limits = DocumentLimits::default();
        let cut = |(line, document): &Numbered<Document>| {
            let windows = token_windows(document, text, tokenizer, LongText::Windows, &limits);
            windows.map_err(|error| Failure::Usage(format!("{source}, line {line}: {error}")))
        };
        // Collected first, so that of several faults the first is told.
        let windows: Vec<_> = documents.par_iter().map(cut).collect();
        windows.into_iter().collect()
    }

    /// The operations that each document takes.
    pub(super) fn operations(&self, documents: &[Sequences]) -> Vec<f64> {
        let poolings = self.bundle.poolings();
        let of = |document: &Sequences| {
            self.bundle.config.operations(&poolings, document.iter().map(Vec::len))
        };
        documents.iter().map(of).collect()
    }
}

/// What loading the model at `path` failed with.
pub(super) fn refusal(path: PathBuf, source: LoadError) -> Failure {
    Failure::Model { path: path.display().to_string(), source: Box::new(source) }
}

/// The batches to measure.
pub(super) fn batch_tokens(args: &EngineArgs) -> Result<Vec<usize>, Failure> {
    super::args::check_values("batch-tokens", args.batch_tokens.len())?;
    if args.batch_tokens.is_empty() {
        return Ok(vec![EngineConfig::default().max_batch_tokens]);
    }
    Ok(args.batch_tokens.iter().map(|&tokens| tokens as usize).collect())
}

/// How engines are set up: as a server's, but that one client may have the whole queue, since
/// here one stands for all.
pub(super) fn engine_config(max_batch_tokens: usize, workers: usize) -> EngineConfig {
    let default = EngineConfig::default();
    let max_queued_tokens = default.max_queued_tokens.max(2 * max_batch_tokens);
    EngineConfig {
        max_batch_tokens,
        max_queued_tokens,
        max_queued_tokens_per_client: usize::MAX,
        workers,
        ..default
    }
}
