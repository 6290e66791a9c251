//! `tasnif.json`: what a bundle answers, and how text is read for it.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::files::read_json;
use super::{
    BundleError, EncoderConfig, HeadKind, Label, Pooling, Precision, Task, TextConfig, Tokenizer,
};
use crate::text::Profile;

pub(super) const MANIFEST_FILE: &str = "tasnif.json";

/// What a manifest says, in the names of the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    pub(super) revision: String,
    #[serde(default)]
    pub(super) languages: Vec<String>,
    #[serde(default)]
    pub(super) precisions: Vec<Precision>,
    text: TextEntry,
    tasks: Vec<TaskEntry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TextEntry {
    profile: Profile,
    window: usize,
    stride: usize,
    max_title_tokens: usize,
    #[serde(default)]
    title_separator: bool,
    #[serde(default, rename = "aggregation")]
    _aggregation: Aggregation,
}

/// How a document's logits come from those of its windows. There is one way, which a bundle may
/// name; one that names another is refused.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Aggregation {
    /// Their mean, weighted by tokens.
    #[default]
    Mean,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TaskEntry {
    name: String,
    #[serde(default)]
    multi_label: bool,
    #[serde(default)]
    pooling: Pooling,
    #[serde(default = "one")]
    temperature: f32,
    #[serde(default)]
    abstain_below: f32,
    labels: Vec<LabelEntry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LabelEntry {
    id: String,
    name_ar: String,
    name_en: String,
    #[serde(default)]
    code: String,
}

impl Manifest {
    /// Reads `tasnif.json` in `directory`.
    ///
    /// # Errors
    /// If it cannot be read, lacks a key, or has one that is not known.
    pub(super) fn read(directory: &Path) -> Result<Self, BundleError> {
        read_json(&directory.join(MANIFEST_FILE))
    }

    /// The text configuration and the tasks, checked.
    ///
    /// # Errors
    /// [`BundleError::Invalid`], naming the key.
    pub(super) fn validate(
        &self,
        directory: &Path,
        encoder: &EncoderConfig,
        tokenizer: &Tokenizer,
    ) -> Result<(TextConfig, Vec<Task>), BundleError> {
        let check = Check { file: directory.join(MANIFEST_FILE) };
        check.that(!self.revision.is_empty(), "revision", "a name", "an empty one")?;
        let text = self.text.validate(&check, encoder, tokenizer)?;
        check.that(!self.tasks.is_empty(), "tasks", "at least one", "none")?;
        let mut names = BTreeSet::new();
        let mut tasks = Vec::new();
        for (index, task) in self.tasks.iter().enumerate() {
            let key = format!("tasks[{index}]");
            let fresh = !task.name.is_empty() && names.insert(task.name.as_str());
            let expected = "a name that no other task has";
            check.that(fresh, &format!("{key}.name"), expected, format!("{:?}", task.name))?;
            tasks.push(task.validate(&check, &key)?);
        }
        Ok((text, tasks))
    }
}

impl TextEntry {
    fn validate(
        &self,
        check: &Check,
        encoder: &EncoderConfig,
        tokenizer: &Tokenizer,
    ) -> Result<TextConfig, BundleError> {
        let text = TextConfig {
            profile: self.profile,
            window: self.window,
            stride: self.stride,
            max_title_tokens: self.max_title_tokens,
            title_separator: self.title_separator,
        };
        let positions = encoder.max_sequence_tokens();
        let expected = format!("at most the model's {positions} positions");
        check.that(text.window <= positions, "text.window", &expected, text.window)?;
        let capacity = text.smallest_capacity(tokenizer);
        let expected = format!(
            "more than the {} special tokens and the {} of a title",
            text.special_tokens(tokenizer),
            text.max_title_tokens
        );
        check.that(capacity > 0, "text.window", &expected, text.window)?;
        // A longer stride would leave out text between the windows of a long title.
        let expected =
            format!("1 to {capacity}, the tokens of text in a window with the longest title");
        let fits = (1..=capacity).contains(&text.stride);
        check.that(fits, "text.stride", &expected, text.stride)?;
        Ok(text)
    }
}

impl TaskEntry {
    fn validate(&self, check: &Check, key: &str) -> Result<Task, BundleError> {
        let temperature = self.temperature;
        let positive = temperature.is_finite() && temperature > 0.0;
        let field = format!("{key}.temperature");
        check.that(positive, &field, "a number above 0", temperature)?;
        let threshold = self.abstain_below;
        let field = format!("{key}.abstain_below");
        check.that((0.0..=1.0).contains(&threshold), &field, "0 to 1", threshold)?;
        let (field, count) = (format!("{key}.labels"), self.labels.len());
        check.that(count > 0, &field, "at least one", "none")?;
        let chosen = count > 1 || self.multi_label;
        let expected = "at least two, of which one is chosen, or multi_label";
        check.that(chosen, &field, expected, count)?;
        let mut ids = BTreeSet::new();
        for (index, label) in self.labels.iter().enumerate() {
            let fresh = !label.id.is_empty() && ids.insert(label.id.as_str());
            let field = format!("{key}.labels[{index}].id");
            let expected = "an id that no other label of the task has";
            check.that(fresh, &field, expected, format!("{:?}", label.id))?;
        }
        let labels = self.labels.iter().map(|label| Label {
            id: label.id.clone(),
            name_ar: label.name_ar.clone(),
            name_en: label.name_en.clone(),
            code: label.code.clone(),
        });
        Ok(Task {
            name: self.name.clone(),
            multi_label: self.multi_label,
            pooling: self.pooling,
            head: HeadKind::Linear,
            temperature,
            abstain_below: threshold,
            labels: labels.collect(),
        })
    }
}

struct Check {
    file: PathBuf,
}

impl Check {
    fn that(
        &self,
        holds: bool,
        key: &str,
        expected: &str,
        found: impl Display,
    ) -> Result<(), BundleError> {
        if holds {
            return Ok(());
        }
        Err(BundleError::Invalid {
            file: self.file.clone(),
            key: key.to_owned(),
            expected: expected.to_owned(),
            found: found.to_string(),
        })
    }
}

fn one() -> f32 {
    1.0
}
