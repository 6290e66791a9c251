//! The models that one process serves.

use std::sync::Arc;

use super::classifier::Classifier;

/// The served models, by name; the first is the default.
#[derive(Clone)]
pub struct Models {
    classifiers: Vec<Arc<Classifier>>,
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
        Ok(Self { classifiers })
    }

    /// No models, for tests of what does not depend on any.
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Self { classifiers: Vec::new() }
    }

    /// The model of this name; the empty name is the default's.
    pub fn get(&self, name: &str) -> Option<&Arc<Classifier>> {
        if name.is_empty() {
            return self.classifiers.first();
        }
        self.iter().find(|classifier| classifier.info().name == name)
    }

    /// All of them, the default first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Classifier>> + '_ {
        self.classifiers.iter()
    }
}
