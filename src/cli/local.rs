//! Models loaded into this process.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;

use super::exit::Failure;
use crate::engine::EngineConfig;
use crate::nn;
use crate::pipeline::{Classifier, DocumentLimits, Models};

/// The shipped model, from the repository's root or beside the binary.
const SHIPPED: &str = "models/tasnif-base";

/// A model as the command line names it: `PATH`, or `NAME=PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ModelArg {
    name: Option<String>,
    path: PathBuf,
}

impl std::str::FromStr for ModelArg {
    type Err = String;

    fn from_str(arg: &str) -> Result<Self, Self::Err> {
        let named = arg.split_once('=').filter(|(name, _)| !name.contains(['/', '\\']));
        let (name, path) = match named {
            Some((name, path)) => (Some(name.to_owned()), path),
            None => (None, arg),
        };
        if path.is_empty() || name.as_deref() == Some("") {
            return Err("expected PATH or NAME=PATH".to_owned());
        }
        Ok(Self { name, path: path.into() })
    }
}

/// Loads `models`, or the shipped one if there are none, on `threads` threads or
/// as many as this process may use.
pub(super) fn load(
    models: &[ModelArg],
    threads: Option<usize>,
    engine: EngineConfig,
) -> anyhow::Result<Models> {
    let threads = threads.unwrap_or_else(nn::default_threads);
    nn::configure_threads(threads).context("threads cannot be set up")?;
    let shipped;
    let models = if models.is_empty() {
        shipped = [ModelArg { name: None, path: shipped_model()? }];
        shipped.as_slice()
    } else {
        models
    };
    let load_one = |model: &ModelArg| {
        let limits = DocumentLimits::default();
        let loaded = Classifier::load(&model.path, model.name.as_deref(), engine, limits);
        let classifier = loaded.map_err(|source| Failure::Model {
            path: model.path.display().to_string(),
            source: Box::new(source),
        })?;
        let info = classifier.info();
        for warning in &info.warnings {
            tracing::warn!(model = info.name, "{warning}");
        }
        tracing::info!(
            model = info.name,
            revision = info.revision,
            architecture = info.architecture,
            precision = info.precision,
            device = info.device,
            threads,
            window_tokens = info.max_window_tokens,
            "model loaded"
        );
        Ok(Arc::new(classifier))
    };
    let classifiers = models.iter().map(load_one).collect::<Result<Vec<_>, Failure>>()?;
    Ok(Models::new(classifiers)?)
}

/// Where `model` is, or the shipped one if there is none.
pub(super) fn directory(model: Option<&ModelArg>) -> Result<PathBuf, Failure> {
    model.map_or_else(shipped_model, |model| Ok(model.path.clone()))
}

/// Where the shipped model is: under the working directory, or beside the binary.
fn shipped_model() -> Result<PathBuf, Failure> {
    let here = std::env::current_dir().ok();
    let binary = std::env::current_exe().ok();
    let beside = binary.as_deref().and_then(Path::parent).map(Path::to_owned);
    let places: Vec<PathBuf> =
        [here, beside].into_iter().flatten().map(|place| place.join(SHIPPED)).collect();
    if let Some(place) = places.iter().find(|place| place.is_dir()) {
        return Ok(place.clone());
    }
    let tried: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
    Err(Failure::NoModel(tried.join(" nor at ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_may_have_a_name() {
        let parse = |arg: &str| arg.parse::<ModelArg>();
        let named = parse("news=models/a").unwrap();
        assert_eq!((named.name.as_deref(), named.path), (Some("news"), "models/a".into()));
        let bare = parse("models/v=2/a").unwrap();
        assert_eq!((bare.name, bare.path), (None, "models/v=2/a".into()));
        assert!(parse("=models/a").is_err() && parse("news=").is_err() && parse("").is_err());
    }
}
