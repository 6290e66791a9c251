//! A directory without `tasnif.json`: a sequence classifier as Hugging Face saves it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::config::{CONFIG_FILE, ConfigFile};
use super::tokenizer::{TOKENIZER_CONFIG_FILE, TokenizerConfig};
use super::{
    Architecture, BundleError, EncoderConfig, HeadKind, Label, Pooling, Task, TextConfig,
    Tokenizer, Weights,
};
use crate::text::Profile;

/// Classes of Hugging Face transformers that can be loaded.
const CLASSES: [(&str, Architecture); 4] = [
    ("BertForSequenceClassification", Architecture::Bert),
    ("RobertaForSequenceClassification", Architecture::Roberta),
    ("XLMRobertaForSequenceClassification", Architecture::XlmRoberta),
    ("ElectraForSequenceClassification", Architecture::Electra),
];

/// Window of a model whose tokenizer does not say how long its texts may be.
const DEFAULT_WINDOW: usize = 512;

/// What such a directory amounts to.
pub(super) struct Classifier {
    pub(super) text: TextConfig,
    pub(super) task: Task,
    pub(super) warnings: Vec<String>,
}

/// Derives the text configuration and the only task.
///
/// # Errors
/// If the class is not one of [`CLASSES`], the labels are not numbered from 0
/// without a gap, or it is not a classifier.
pub(super) fn classifier(
    directory: &Path,
    name: &str,
    config: &ConfigFile,
    encoder: &EncoderConfig,
    tokenizer: &Tokenizer,
    weights: &Weights,
) -> Result<Classifier, BundleError> {
    let source = Source { file: directory.join(CONFIG_FILE), config };
    source.check_class(encoder.architecture)?;
    let head = match encoder.architecture {
        Architecture::Bert => HeadKind::BertPooler,
        Architecture::Roberta | Architecture::XlmRoberta => HeadKind::Roberta,
        Architecture::Electra => HeadKind::Electra,
    };
    let named = config.finetuning_task.clone().filter(|name| !name.is_empty());
    let task_name = named.unwrap_or_else(|| "label".to_owned());
    let output = format!("{}.weight", head.output_layer(&task_name));
    let outputs = weights.shape(&output).and_then(|shape| shape.first()).copied();
    let labels = source.labels(outputs)?;
    let multi_label = source.multi_label(labels.len())?;
    let task = Task {
        name: task_name,
        multi_label,
        pooling: Pooling::Cls,
        head,
        temperature: 1.0,
        abstain_below: 0.0,
        labels,
    };
    // A link's name, and that of what it leads to.
    let given = directory.file_name().unwrap_or_default().to_string_lossy();
    let names = [&given, name, config.name_or_path.as_deref().unwrap_or_default()];
    let profile = names.into_iter().map(guess_profile).find(|guess| *guess != Profile::None);
    let max_length = TokenizerConfig::read(directory)?.max_length();
    let text = text_config(profile.unwrap_or(Profile::None), max_length, encoder, tokenizer);
    if text.smallest_capacity(tokenizer) == 0 {
        let (file, key) = if text.window < encoder.max_sequence_tokens() {
            (directory.join(TOKENIZER_CONFIG_FILE), "model_max_length")
        } else {
            (source.file, "max_position_embeddings")
        };
        return Err(BundleError::Invalid {
            file,
            key: key.into(),
            expected: "room for the special tokens and text".into(),
            found: format!("a window of {} tokens", text.window),
        });
    }
    let warnings = names.into_iter().find_map(segmentation_warning).into_iter().collect();
    Ok(Classifier { text, task, warnings })
}

struct Source<'a> {
    file: PathBuf,
    config: &'a ConfigFile,
}

impl Source<'_> {
    fn check_class(&self, architecture: Architecture) -> Result<(), BundleError> {
        let classes = &self.config.architectures;
        if CLASSES
            .iter()
            .any(|(class, of)| *of == architecture && classes.iter().any(|c| c == class))
        {
            return Ok(());
        }
        let supported: Vec<&str> = CLASSES.iter().map(|(class, _)| *class).collect();
        let expected = format!(
            "one of {} that matches model_type \"{architecture}\", or a tasnif.json",
            supported.join(", ")
        );
        self.refuse("architectures", expected, format!("{classes:?}"))
    }

    /// The labels in order. Hugging Face writes no `id2label` for two labels
    /// without names, so their number is taken from the head.
    fn labels(&self, outputs: Option<usize>) -> Result<Vec<Label>, BundleError> {
        let count = self.config.num_labels.or(outputs).unwrap_or_default();
        let ids: Vec<String> = match &self.config.id2label {
            Some(map) => {
                let numbered = |index: usize| map.get(&index.to_string()).cloned();
                match (0..map.len()).map(numbered).collect() {
                    Some(ids) => ids,
                    None => {
                        let expected = format!("the keys \"0\" to \"{}\"", map.len() - 1);
                        let keys: Vec<&String> = map.keys().collect();
                        return self.refuse("id2label", expected, format!("{keys:?}"));
                    }
                }
            }
            // More outputs than this are a wrong number, and would be named one by one.
            None if count > 100_000 => {
                return self.refuse("num_labels", "at most 100000".into(), count.to_string());
            }
            None => (0..count).map(|index| format!("LABEL_{index}")).collect(),
        };
        if ids.is_empty() {
            return self.refuse("id2label", "at least one label".into(), "none".into());
        }
        let mut known = BTreeSet::new();
        for (index, id) in ids.iter().enumerate() {
            if id.is_empty() || !known.insert(id) {
                let expected = "labels that differ and are not empty".to_owned();
                return self.refuse("id2label", expected, format!("{id:?} as label {index}"));
            }
        }
        Ok(ids.into_iter().map(Label::unnamed).collect())
    }

    /// One output without a `problem_type` is a regression in Hugging Face's
    /// reading; one that is declared multi-label is a yes or no by sigmoid.
    fn multi_label(&self, labels: usize) -> Result<bool, BundleError> {
        let several = "\"single_label_classification\" or \"multi_label_classification\"";
        match self.config.problem_type.as_deref() {
            Some("multi_label_classification") => Ok(true),
            None | Some("single_label_classification") if labels > 1 => Ok(false),
            None | Some("single_label_classification") => self.refuse(
                "problem_type",
                "\"multi_label_classification\" for a model of one label".into(),
                format!("{:?}", self.config.problem_type),
            ),
            Some(other) => self.refuse("problem_type", several.into(), format!("{other:?}")),
        }
    }

    fn refuse<T>(&self, key: &str, expected: String, found: String) -> Result<T, BundleError> {
        Err(BundleError::Invalid { file: self.file.clone(), key: key.into(), expected, found })
    }
}

/// Windows of the tokenizer's length, three quarters of one apart, and titles of
/// up to an eighth; for 512 positions: 512, 384 and 64.
fn text_config(
    profile: Profile,
    max_length: Option<usize>,
    encoder: &EncoderConfig,
    tokenizer: &Tokenizer,
) -> TextConfig {
    let window = max_length.unwrap_or(DEFAULT_WINDOW).min(encoder.max_sequence_tokens());
    let mut text = TextConfig {
        profile,
        window,
        stride: 1,
        max_title_tokens: window / 8,
        title_separator: false,
    };
    text.stride = (window * 3 / 4).min(text.smallest_capacity(tokenizer)).max(1);
    text
}

/// The normalisation that a family of checkpoints was trained with.
fn guess_profile(name: &str) -> Profile {
    let name = name.to_lowercase();
    if name.contains("camelbert") {
        Profile::Camelbert
    } else if name.contains("arabert") || name.contains("araelectra") {
        Profile::Arabert
    } else {
        Profile::None
    }
}

/// AraBERT v1 and v2 (not v0.1 and v0.2) read text segmented by Farasa.
fn segmentation_warning(name: &str) -> Option<String> {
    let name = name.to_lowercase();
    let segmented = ["arabertv1", "arabertv2", "arabert-v1", "arabert-v2"];
    let segmented = segmented.iter().any(|version| name.contains(version))
        || name.ends_with("bert-base-arabert")
        || name.ends_with("bert-large-arabert");
    segmented.then(|| {
        format!(
            "{name} was trained on text segmented by Farasa, which this program does not do: \
             expect lower accuracy than its card says (AraBERT v0.2 needs no segmentation)"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_follow_the_names_of_the_checkpoints() {
        for (name, profile) in [
            ("aubmindlab/bert-base-arabertv02", Profile::Arabert),
            ("aubmindlab/bert-base-arabertv2", Profile::Arabert),
            ("CAMeL-Lab/bert-base-arabic-camelbert-msa", Profile::Camelbert),
            ("aubmindlab/araelectra-base-discriminator", Profile::Arabert),
            ("UBC-NLP/MARBERTv2", Profile::None),
            ("xlm-roberta-base", Profile::None),
        ] {
            assert_eq!(guess_profile(name), profile, "{name}");
        }
    }

    #[test]
    fn only_the_segmented_versions_of_arabert_are_warned_about() {
        for (name, warned) in [
            ("aubmindlab/bert-base-arabert", true),
            ("aubmindlab/bert-base-arabertv2", true),
            ("aubmindlab/bert-large-arabertv2", true),
            ("aubmindlab/bert-base-arabertv01", false),
            ("aubmindlab/bert-base-arabertv02", false),
            ("aubmindlab/bert-base-arabertv02-twitter", false),
            ("CAMeL-Lab/bert-base-arabic-camelbert-msa", false),
        ] {
            assert_eq!(segmentation_warning(name).is_some(), warned, "{name}");
        }
    }
}
