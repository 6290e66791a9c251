//! The settings of `tasnif serve`, from four layers: the defaults, a TOML file, the environment
//! and flags, each over those before it.
//!
//! `tasnif.example.toml` is their reference; a test keeps it equal to the defaults.

mod layers;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub(super) use self::layers::{Flag, Layers, environment};
use super::exit::Failure;
use super::local::ModelArg;
use crate::engine::EngineConfig;
use crate::nn::{self, PrecisionChoice};
use crate::pipeline::{CacheConfig, DocumentLimits, ReloadConfig};
use crate::server::telemetry::{MonitoringConfig, TracingConfig};
use crate::server::{LogConfig, ServerConfig};

/// Everything that can be set, as the file lays it out.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Settings {
    /// Model directories, as `PATH` or `NAME=PATH`; the first is the default. The shipped model
    /// if there are none.
    pub(super) models: Vec<ModelArg>,
    /// Threads that compute; as many cores as the process may use if it is not set.
    pub(super) threads: Option<u16>,
    /// In what models are computed.
    pub(super) precision: PrecisionChoice,
    /// Where and to whom to serve.
    pub(super) server: ServerConfig,
    /// Batching. No workers are as many as there are threads.
    pub(super) engine: EngineConfig,
    /// Bounds on one document.
    pub(super) documents: DocumentLimits,
    /// Answers to documents that come again.
    pub(super) cache: CacheConfig,
    /// How models are replaced while they serve.
    pub(super) reload: ReloadConfig,
    /// `/metrics`, `/healthz` and `/readyz`.
    pub(super) monitoring: MonitoringConfig,
    /// Spans over OTLP.
    pub(super) tracing: TracingConfig,
    /// Log lines.
    pub(super) log: LogConfig,
}

/// The log of a command that has no settings, as the environment and `flags` say.
///
/// # Errors
/// If they say what cannot be.
pub(super) fn log(flags: Vec<Flag>) -> Result<LogConfig, Failure> {
    let mut environment = environment();
    environment.retain(|(variable, _)| layers::is_of_log(variable));
    let layers = Layers { file: None, environment, flags, pairs: Vec::new() };
    let settled = layers.settle().map_err(|error| Failure::Usage(error.to_string()));
    Ok(settled?.0.log)
}

impl Settings {
    /// The settings of an engine in a process of `threads` threads.
    pub(super) fn engine(&self, threads: usize) -> EngineConfig {
        let workers = match self.engine.workers {
            0 => nn::batches(self.precision, threads),
            workers => workers,
        };
        EngineConfig { workers, ..self.engine }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            models: Vec::new(),
            threads: None,
            precision: PrecisionChoice::default(),
            server: ServerConfig::default(),
            engine: EngineConfig { workers: 0, ..EngineConfig::default() },
            documents: DocumentLimits::default(),
            cache: CacheConfig::default(),
            reload: ReloadConfig::default(),
            monitoring: MonitoringConfig::default(),
            tracing: TracingConfig::default(),
            log: LogConfig::default(),
        }
    }
}
