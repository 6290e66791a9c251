//! The way of a row: read, prepared, classified, written, each on a thread of its
//! own with bounded room between them, so that all four overlap.
//!
//! Rows go in groups that fill a batch. One group is classified at a time, so it has
//! the model for itself and its batches follow from its rows alone. Groups end where
//! parts end. So the scores of a part depend on nothing but its rows and the texts
//! remembered before it, and a resumed run repeats them to the last bit.

mod prepare;
mod read;
mod score;
mod write;

pub(super) use self::prepare::Preparer;
pub(super) use self::read::read;
pub(super) use self::score::Scorer;
pub(super) use self::write::Writer;

use super::columns::Fields;
use super::error::ArchiveError;
use super::memory::{Outcome, TextKey};
use super::row::{Reject, RejectReason};
use crate::pipeline::Prepared;

/// Chunks or groups between two stages.
pub(super) const CHANNEL: usize = 3;

/// What goes from stage to stage. `None`, the end, or an error is the last; a stage
/// that ends without either has failed.
pub(super) type Sent<T> = Result<Option<T>, ArchiveError>;

/// A row that is to be written.
pub(super) struct Item {
    file: usize,
    row: u64,
    position: u64,
    fields: Fields,
    work: Work,
}

/// What there is to do for a row.
enum Work {
    /// It cannot be scored, whatever its text.
    Refused(Reject),
    /// A text for the first time, with its key if it is remembered.
    Text(Option<TextKey>, Result<Prepared, Reject>),
    /// A text whose number is known.
    Again(u64),
    /// A text with its outcome.
    Done(Option<TextKey>, Outcome),
}

/// Rows that are classified together.
#[derive(Default)]
pub(super) struct Group {
    items: Vec<Item>,
    tokens: usize,
    bytes: usize,
    /// Whether a part ends after it.
    ends_part: bool,
}

fn no_answer(message: &str) -> Reject {
    Reject::new(RejectReason::NoAnswer, format!("the model gave no answer: {message}"))
}
