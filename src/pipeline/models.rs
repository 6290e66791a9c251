//! The models that one process serves.

use std::sync::{Arc, Weak};

use parking_lot::RwLock;

use super::classifier::Classifier;
use super::types::ClassifyError;

/// The served models, by name; the first is the default. Clones share them.
///
/// The names stay; the model behind one may be replaced at any time. Whoever has asked for it
/// keeps the one that it got, which lives until the last of them lets go.
#[derive(Clone)]
pub struct Models {
    served: Arc<[Served]>,
}

struct Served {
    name: String,
    current: RwLock<Arc<Classifier>>,
    /// The one that had the name before, which may still have documents to answer.
    replaced: RwLock<Weak<Classifier>>,
}

/// Why models cannot be served together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ModelsError {
    /// There is no model at all.
    #[error("there is no model to serve")]
    None,
    /// Two models have one name.
    #[error("two models are named {0:?}; give one another name with --model NAME=PATH")]
    SameName(String),
}

/// A model that loads does not run.
#[derive(Debug, thiserror::Error)]
#[error("model {model:?} fails on its first document: {source}")]
pub struct WarmUpError {
    /// Its name.
    pub model: String,
    /// Why it fails.
    pub source: ClassifyError,
}

impl Models {
    /// Puts `classifiers` together; the first is the default.
    ///
    /// # Errors
    /// If there is none, or two have one name.
    pub fn new(classifiers: Vec<Arc<Classifier>>) -> Result<Self, ModelsError> {
        if classifiers.is_empty() {
            return Err(ModelsError::None);
        }
        let mut names: Vec<&str> = classifiers.iter().map(|c| c.info().name.as_str()).collect();
        names.sort_unstable();
        let mut pairs = names.iter().zip(names.iter().skip(1));
        if let Some((name, _)) = pairs.find(|(a, b)| a == b) {
            return Err(ModelsError::SameName((*name).to_owned()));
        }
        let served = classifiers.into_iter().map(|classifier| Served {
            name: classifier.info().name.clone(),
            current: RwLock::new(classifier),
            replaced: RwLock::default(),
        });
        Ok(Self { served: served.collect() })
    }

    /// No models, for tests of what does not depend on any.
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Self { served: Vec::new().into() }
    }

    /// The model that now has this name; the empty name is the default's.
    pub fn get(&self, name: &str) -> Option<Arc<Classifier>> {
        self.find(name).map(Served::get)
    }

    /// All of them as they are now, the default first.
    pub fn iter(&self) -> impl Iterator<Item = Arc<Classifier>> + '_ {
        self.served.iter().map(Served::get)
    }

    /// Runs a window of full length through each, see [`Classifier::warm_up`].
    ///
    /// # Errors
    /// That of the first that fails.
    pub async fn warm_up(&self) -> Result<(), WarmUpError> {
        for classifier in self.iter() {
            let failed = |source| WarmUpError { model: classifier.info().name.clone(), source };
            classifier.warm_up().await.map_err(failed)?;
        }
        Ok(())
    }

    /// Those that were replaced and are still at their last documents.
    pub(crate) fn retiring(&self) -> impl Iterator<Item = Arc<Classifier>> + '_ {
        self.served.iter().filter_map(|served| served.replaced.read().upgrade())
    }

    /// Gives the name of `classifier` to it from now on, and returns the model that had it, if
    /// the name is one of those served.
    pub(super) fn replace(&self, classifier: Arc<Classifier>) -> Option<Arc<Classifier>> {
        let served = self.find(&classifier.info().name)?;
        let mut current = served.current.write();
        // Before anybody can see the new one: a drain in between would forget the old one.
        *served.replaced.write() = Arc::downgrade(&current);
        Some(std::mem::replace(&mut *current, classifier))
    }

    fn find(&self, name: &str) -> Option<&Served> {
        if name.is_empty() {
            return self.served.first();
        }
        self.served.iter().find(|served| served.name == name)
    }
}

impl Served {
    fn get(&self) -> Arc<Classifier> {
        Arc::clone(&self.current.read())
    }
}
