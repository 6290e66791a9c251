//! Models loaded into this process.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::exit::Failure;
use super::settings::Settings;
use crate::bundle::Bundle;
use crate::nn::{self, PrecisionChoice};
use crate::pipeline::{Cache, Classifier, Models, Reloader, Source};

/// The shipped model, from the repository's root or beside the binary.
const SHIPPED: &str = "models/tasnif-base";

/// A model as the command line names it: `PATH`, or `NAME=PATH`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct ModelArg {
    name: Option<String>,
    path: PathBuf,
}

impl From<ModelArg> for String {
    fn from(ModelArg { name, path }: ModelArg) -> Self {
        let path = path.display();
        name.map_or_else(|| path.to_string(), |name| format!("{name}={path}"))
    }
}

impl TryFrom<String> for ModelArg {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
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

/// Models that may be replaced while they serve.
pub(super) struct Reloadable {
    pub(super) models: Models,
    pub(super) reloader: Reloader,
    /// Their cache, if there is one.
    pub(super) cache: Option<Arc<Cache>>,
}

/// Loads `models`, or the shipped one if there are none.
pub(super) fn load(models: &[ModelArg], precision: PrecisionChoice) -> anyhow::Result<Models> {
    let settings = Settings { models: models.to_vec(), precision, ..Settings::default() };
    Ok(load_reloadable(&settings)?.models)
}

/// Loads the models of a server: with one cache for all of them, and what it takes to replace them.
pub(super) fn load_reloadable(settings: &Settings) -> anyhow::Result<Reloadable> {
    let threads = settings.threads.map_or_else(nn::default_threads, usize::from);
    nn::configure_threads(threads).context("threads cannot be set up")?;
    let shipped;
    let models = if settings.models.is_empty() {
        shipped = [ModelArg { name: None, path: shipped_model()? }];
        shipped.as_slice()
    } else {
        settings.models.as_slice()
    };
    let cache = Cache::new(settings.cache);
    let (precision, limits) = (settings.precision, settings.documents);
    let engine = settings.engine(threads);
    let build = {
        let cache = cache.clone();
        move |bundle: Bundle, name: &str| {
            let classifier =
                Classifier::from_bundle(bundle, Some(name), precision, engine, limits)?;
            Ok(classifier.with_cache(cache.clone()))
        }
    };
    let load_one = |model: &ModelArg| {
        let bundle = Bundle::load(&model.path);
        let loaded = bundle.map_err(Into::into).and_then(|bundle| {
            let name = model.name.clone().unwrap_or_else(|| bundle.name.clone());
            build(bundle, &name)
        });
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
            kernels = info.kernels,
            device = info.device,
            threads,
            profile = info.profile,
            window_tokens = info.max_window_tokens,
            "model loaded"
        );
        Ok(Arc::new(classifier))
    };
    let classifiers = models.iter().map(load_one).collect::<Result<Vec<_>, Failure>>()?;
    let source = |(model, loaded): (&ModelArg, &Arc<Classifier>)| Source {
        model: loaded.info().name.clone(),
        path: model.path.clone(),
    };
    let sources = models.iter().zip(&classifiers).map(source).collect();
    let models = Models::new(classifiers)?;
    let reloader = Reloader::new(models.clone(), sources, Box::new(build), settings.reload)?;
    Ok(Reloadable { models, reloader, cache })
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
