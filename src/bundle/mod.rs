//! A model directory on disk, validated before anything runs.
//!
//! Two kinds load: a bundle, which has a `tasnif.json` next to the encoder, and a
//! plain directory of a Hugging Face sequence classifier, which gives one task.
//! What is missing or inconsistent is refused here, by file and key.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::text::Profile;

mod config;
mod error;
mod files;
mod huggingface;
mod identity;
mod manifest;
mod precision;
mod record;
mod tokenizer;
mod weights;

pub use config::{Architecture, EncoderConfig, positions};
pub use error::BundleError;
pub use identity::Stamp;
pub use precision::Precision;
pub(crate) use record::replace;
pub use tokenizer::{Tokenizer, Tokens};
pub use weights::Weights;

use config::{CONFIG_FILE, ConfigFile};
use manifest::{MANIFEST_FILE, Manifest};
use tokenizer::TOKENIZER_FILE;

/// Hexadecimal digits of the digest that stand for the revision of a directory
/// which does not say its own.
const REVISION_DIGITS: usize = 12;

/// A model that can be loaded.
#[derive(Debug)]
pub struct Bundle {
    /// Where it is.
    pub path: PathBuf,
    /// Name of the directory.
    pub name: String,
    /// The author's revision; for a plain directory, the start of the digest.
    pub revision: String,
    /// SHA-256 of the weights, in hexadecimal.
    pub digest: String,
    /// SHA-256, in hexadecimal, of all that decides what the model answers: the digest, the
    /// files beside the weights, and the profile.
    pub fingerprint: String,
    /// The files as they were when they were read.
    pub stamp: Stamp,
    /// Languages that it was trained for, as BCP 47 tags; empty if not known.
    pub languages: Vec<String>,
    /// Precisions in which it was found to answer as it does in f32.
    pub precisions: Vec<Precision>,
    /// Shape of the encoder.
    pub config: EncoderConfig,
    /// How text is read.
    pub text: TextConfig,
    /// What it answers, in the order of its logits.
    pub tasks: Vec<Task>,
    /// Text to token ids.
    pub tokenizer: Tokenizer,
    /// The tensors.
    pub weights: Weights,
    /// What works less well than it could, for people to read.
    pub warnings: Vec<String>,
}

/// How text is read for a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextConfig {
    /// Normalisation.
    pub profile: Profile,
    /// Longest sequence, in tokens, special ones included.
    pub window: usize,
    /// Tokens of text by which each window starts after the one before.
    pub stride: usize,
    /// Tokens of a title that are read, at most.
    pub max_title_tokens: usize,
    /// Whether the suffix stands between title and text.
    pub title_separator: bool,
}

/// A question that a model answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// Its name.
    pub name: String,
    /// Any number of labels may hold (sigmoid), not exactly one (softmax).
    pub multi_label: bool,
    /// What of the encoder's output the head reads.
    pub pooling: Pooling,
    /// The head.
    pub head: HeadKind,
    /// Logits are divided by it; above 0.
    pub temperature: f32,
    /// A best label of a lower probability is no answer, in `[0, 1]`.
    pub abstain_below: f32,
    /// What it may answer, in the order of its logits; ids are unique.
    pub labels: Vec<Label>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Stable id.
    pub id: String,
    /// Arabic name.
    pub name_ar: String,
    /// English name.
    pub name_en: String,
    /// Code in an outside scheme; empty where there is none.
    pub code: String,
}

/// How a sequence becomes one row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// The mean over all tokens.
    #[default]
    Mean,
    /// The first token.
    Cls,
}

impl Pooling {
    /// Whether `poolings`, of all tasks, read no more than the first token.
    pub fn read_first_alone(poolings: &[Self]) -> bool {
        poolings == [Self::Cls]
    }
}

/// The layers between a pooled row and the logits of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadKind {
    /// One linear layer, `heads.<task>`.
    Linear,
    /// BERT's pooler (dense, tanh), then `classifier`.
    BertPooler,
    /// `classifier.dense`, tanh, `classifier.out_proj`.
    Roberta,
    /// `classifier.dense`, GELU, `classifier.out_proj`.
    Electra,
}

impl Bundle {
    /// Loads and validates the model directory at `path`.
    ///
    /// # Errors
    /// [`BundleError`], naming the file, the key, what was expected and what was found.
    pub fn load(path: &Path) -> Result<Self, BundleError> {
        let name = directory_name(path)?;
        let stamp = Stamp::of(path);
        let config_file = ConfigFile::read(path)?;
        let config = config_file.encoder(path)?;
        let tokenizer = Tokenizer::load(path)?;
        let weights = Weights::open(path)?;
        check_vocabulary(path, &config, &tokenizer, &weights)?;
        check_layers(path, &config, &weights)?;
        let digest = weights.digest();
        let (revision, languages, precisions, text, tasks, warnings) = if path
            .join(MANIFEST_FILE)
            .exists()
        {
            let manifest = Manifest::read(path)?;
            let (text, tasks) = manifest.validate(path, &config, &tokenizer)?;
            (manifest.revision, manifest.languages, manifest.precisions, text, tasks, vec![])
        } else {
            let found =
                huggingface::classifier(path, &name, &config_file, &config, &tokenizer, &weights)?;
            let revision = digest.chars().take(REVISION_DIGITS).collect();
            (revision, vec![], vec![], found.text, vec![found.task], found.warnings)
        };
        for task in &tasks {
            let shape = [task.labels.len(), config.hidden_size];
            let layer = task.head.output_layer(&task.name);
            weights.check(&format!("{layer}.weight"), &shape)?;
        }
        weights.check_finite()?;
        let fingerprint = identity::fingerprint(path, &digest, text.profile)?;
        if Stamp::of(path) != stamp {
            return Err(BundleError::Changed { directory: path.to_owned() });
        }
        Ok(Self {
            path: path.to_owned(),
            name,
            revision,
            digest,
            fingerprint,
            stamp,
            languages,
            precisions,
            config,
            text,
            tasks,
            tokenizer,
            weights,
            warnings,
        })
    }
}

impl Bundle {
    /// Whether the directory has a `tasnif.json`, and is not a plain one.
    pub fn has_manifest(&self) -> bool {
        self.path.join(MANIFEST_FILE).exists()
    }

    /// The poolings that its tasks ask for, each once, in the order of the first task of each.
    pub fn poolings(&self) -> Vec<Pooling> {
        let mut poolings = Vec::new();
        for task in &self.tasks {
            if !poolings.contains(&task.pooling) {
                poolings.push(task.pooling);
            }
        }
        poolings
    }
}

impl TextConfig {
    /// Only how text is read for the model at `path`: the weights of a bundle need not be there.
    ///
    /// # Errors
    /// As [`Bundle::load`].
    pub fn load(path: &Path) -> Result<(Self, Tokenizer), BundleError> {
        if !path.join(MANIFEST_FILE).exists() {
            return Bundle::load(path).map(|bundle| (bundle.text, bundle.tokenizer));
        }
        let encoder = ConfigFile::read(path)?.encoder(path)?;
        let tokenizer = Tokenizer::load(path)?;
        let (text, _) = Manifest::read(path)?.validate(path, &encoder, &tokenizer)?;
        Ok((text, tokenizer))
    }

    /// Special tokens in a window that has a title.
    pub fn special_tokens(&self, tokenizer: &Tokenizer) -> usize {
        let separator = if self.title_separator { tokenizer.suffix().len() } else { 0 };
        tokenizer.prefix().len() + separator + tokenizer.suffix().len()
    }

    /// Tokens of text in a window that has the longest title; 0 if there is no room.
    pub fn smallest_capacity(&self, tokenizer: &Tokenizer) -> usize {
        let taken = self.special_tokens(tokenizer).saturating_add(self.max_title_tokens);
        self.window.saturating_sub(taken)
    }
}

impl HeadKind {
    /// Name of the layer that gives the logits of `task`.
    pub(crate) fn output_layer(self, task: &str) -> String {
        match self {
            Self::Linear => format!("heads.{task}"),
            Self::BertPooler => "classifier".to_owned(),
            Self::Roberta | Self::Electra => "classifier.out_proj".to_owned(),
        }
    }
}

impl Label {
    fn unnamed(id: String) -> Self {
        Self { name_ar: id.clone(), name_en: id.clone(), code: String::new(), id }
    }
}

/// The name of the directory, also when it is given as `.` or through a link.
fn directory_name(path: &Path) -> Result<String, BundleError> {
    let refuse = |found: String| BundleError::NotADirectory { path: path.to_owned(), found };
    let whole = path.canonicalize().map_err(|error| refuse(error.to_string()))?;
    if !whole.is_dir() {
        return Err(refuse("a file".into()));
    }
    let name = whole.file_name().unwrap_or(whole.as_os_str());
    Ok(name.to_string_lossy().into_owned())
}

/// Every id that the tokenizer may give has a row in the embeddings.
fn check_vocabulary(
    directory: &Path,
    config: &EncoderConfig,
    tokenizer: &Tokenizer,
    weights: &Weights,
) -> Result<(), BundleError> {
    let rows = config.vocab_size;
    let prefix = weights.encoder_prefix()?;
    let embeddings = format!("{prefix}embeddings.word_embeddings.weight");
    weights.check(&embeddings, &[rows, config.hidden_size])?;
    let largest = [
        ("model.vocab", tokenizer.vocab_size() - 1),
        ("post_processor", tokenizer.largest_special_id() as usize),
    ];
    for (key, id) in largest {
        if id >= rows {
            return Err(BundleError::Invalid {
                file: directory.join(TOKENIZER_FILE),
                key: key.into(),
                expected: format!("ids below {rows}, the rows of {embeddings}"),
                found: format!("ids up to {id}"),
            });
        }
    }
    Ok(())
}

/// The weights have no layer that the config leaves out: without it they would answer otherwise.
fn check_layers(
    directory: &Path,
    config: &EncoderConfig,
    weights: &Weights,
) -> Result<(), BundleError> {
    let prefix = weights.encoder_prefix()?;
    let next = format!("{prefix}encoder.layer.{}.attention.self.query.weight", config.layers);
    if weights.shape(&next).is_none() {
        return Ok(());
    }
    Err(BundleError::Invalid {
        file: directory.join(CONFIG_FILE),
        key: "num_hidden_layers".into(),
        expected: format!("more than {}, since there is a tensor {next}", config.layers),
        found: config.layers.to_string(),
    })
}
