//! Bounds on one document, and what a setting that cannot work is told.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Times that a setting may be: a clock can be asked for them without running over.
const TIMES: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(365 * 24 * 60 * 60);

/// A setting that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value}; it must be {expected}")]
pub struct SettingError {
    /// The field; one of the server's own without its table.
    pub field: &'static str,
    /// Its value.
    pub value: String,
    /// What is allowed.
    pub expected: &'static str,
}

/// Bounds on one document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct DocumentLimits {
    /// Unicode scalars in a title, at most.
    pub max_title_chars: usize,
    /// Unicode scalars in a text, at most.
    pub max_text_chars: usize,
    /// Tokens in a text, at most.
    pub max_text_tokens: usize,
    /// Windows that a document may take, at most.
    pub max_windows: usize,
    /// Sentences tried for evidence, at most.
    pub max_evidence_sentences: usize,
    /// Tokens read for the evidence of a document, at most: its own, for each sentence.
    pub max_evidence_tokens: usize,
    /// Bytes of all documents that a model has in hand at a time, at most: those that
    /// wait to be tokenised too, so it bounds memory before the engine counts tokens.
    pub max_open_bytes: usize,
    /// Bytes in a document's id, at most.
    pub max_id_bytes: usize,
}

impl Default for DocumentLimits {
    fn default() -> Self {
        Self {
            max_title_chars: 2_000,
            max_text_chars: 400_000,
            max_text_tokens: 262_144,
            max_windows: 256,
            max_evidence_sentences: 64,
            max_evidence_tokens: 65_536,
            max_open_bytes: 256 * 1024 * 1024,
            max_id_bytes: 1_024,
        }
    }
}

impl DocumentLimits {
    /// Checks every limit. None of a title or an id, and no evidence, are limits too.
    ///
    /// # Errors
    /// Names the first that leaves no document, with its value and what is allowed.
    pub fn validate(&self) -> Result<(), SettingError> {
        let limits = [
            ("documents.max_text_chars", self.max_text_chars, 1, "at least 1"),
            ("documents.max_text_tokens", self.max_text_tokens, 1, "at least 1"),
            ("documents.max_windows", self.max_windows, 1, "at least 1"),
            // The least that a document counts for.
            ("documents.max_open_bytes", self.max_open_bytes, 1_024, "at least 1024"),
        ];
        match limits.into_iter().find(|(_, limit, least, _)| limit < least) {
            None => Ok(()),
            Some((field, limit, _, expected)) => {
                Err(SettingError { field, value: limit.to_string(), expected })
            }
        }
    }
}

/// Checks the times of settings, each after its field.
///
/// # Errors
/// Names the first that is too short or too long, with its value and what is allowed.
pub(crate) fn check_times(
    times: impl IntoIterator<Item = (&'static str, Duration)>,
) -> Result<(), SettingError> {
    match times.into_iter().find(|(_, time)| !TIMES.contains(time)) {
        None => Ok(()),
        Some((field, time)) => {
            let value = format!("{time:?}");
            Err(SettingError { field, value, expected: "from 1 ms to 1 year" })
        }
    }
}
