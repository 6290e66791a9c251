//! A row of an archive on its way in.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Characters of a message: some quote what they are about.
const MAX_MESSAGE_CHARS: usize = 300;

/// A value of a column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Cell {
    /// The row has no such column, or null in it.
    #[default]
    Null,
    /// Text.
    Text(String),
    /// Anything else, as JSON: a number, a boolean, a list, an object.
    Json(String),
}

impl Cell {
    /// As text: JSON as it is written, null as nothing.
    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Null => "",
            Self::Text(text) | Self::Json(text) => text,
        }
    }

    /// Bytes that it holds.
    pub(super) fn len(&self) -> usize {
        self.as_str().len()
    }
}

/// A row as a reader gives it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RawRow {
    /// Its number in its file, from 1.
    pub(super) number: u64,
    /// A cell for each column that was selected, in that order; `None` where it is no
    /// document and passed over.
    pub(super) cells: Option<Result<Vec<Cell>, Reject>>,
}

impl RawRow {
    pub(super) fn new(number: u64, cells: Result<Vec<Cell>, Reject>) -> Self {
        Self { number, cells: Some(cells) }
    }
}

/// Why a row is not scored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reject {
    /// What kind of fault it is.
    pub reason: RejectReason,
    /// The fault in words.
    pub message: String,
}

impl Reject {
    pub(super) fn new(reason: RejectReason, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if let Some((end, _)) = message.char_indices().nth(MAX_MESSAGE_CHARS) {
            message.truncate(end);
            message.push('…');
            message.shrink_to_fit();
        }
        Self { reason, message }
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Kinds of faults of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RejectReason {
    /// It is not what the format says: broken JSON, too few fields.
    Malformed,
    /// It holds bytes that are no text in the encoding.
    InvalidEncoding,
    /// It has no text column, or nothing in it.
    MissingText,
    /// The text column holds something else than text.
    NotText,
    /// Nothing to read is left of the text.
    Empty,
    /// The text, title or id is longer than the model takes.
    TooLong,
    /// The row is longer than is read.
    RowTooLarge,
    /// The model gave no answer for it.
    NoAnswer,
    /// The rest of the file cannot be read.
    DamagedFile,
}

impl RejectReason {
    /// As it is written in the file of rejected rows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::InvalidEncoding => "invalid_encoding",
            Self::MissingText => "missing_text",
            Self::NotText => "not_text",
            Self::Empty => "empty",
            Self::TooLong => "too_long",
            Self::RowTooLarge => "row_too_large",
            Self::NoAnswer => "no_answer",
            Self::DamagedFile => "damaged_file",
        }
    }
}
