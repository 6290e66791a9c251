//! What goes into the pipeline and what comes out of it.

use std::time::Duration;

use tokio::time::Instant;

use crate::engine::{Admission, ClientId, EngineError, Lane};

/// A piece of news.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    /// The caller's own id, echoed.
    pub id: String,
    /// Optional headline.
    pub title: String,
    /// The article.
    pub text: String,
}

impl Document {
    /// Bytes of all its fields.
    pub(crate) fn bytes(&self) -> usize {
        self.id.len() + self.title.len() + self.text.len()
    }
}

/// What to do with a document of more than one window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LongText {
    /// Read all of it in overlapping windows and aggregate.
    #[default]
    Windows,
    /// Read the first window only; the result says that it is truncated.
    Head,
    /// Refuse it.
    Reject,
}

/// How to classify, and what to report.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// Tasks to report; empty: every task of the model.
    pub tasks: Vec<String>,
    /// Labels listed a task; 0: all.
    pub top_k: usize,
    /// Labels below this probability are not listed, in `[0, 1]`.
    pub min_score: f32,
    /// The lane in which the document queues.
    pub lane: Lane,
    /// What to do with a document of more than one window.
    pub long_text: LongText,
    /// Whether to report logits.
    pub with_logits: bool,
    /// Sentences of evidence a task, at most; 0: none.
    pub evidence: usize,
}

/// How a document enters the queue, and for whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Submission {
    /// On whose behalf: clients share the engine fairly.
    pub client: ClientId,
    /// What happens if there is no room.
    pub admission: Admission,
    /// When the caller stops caring; `None`: never.
    pub deadline: Option<Instant>,
}

/// The answer for one document.
#[derive(Clone, Debug, PartialEq)]
pub struct Classification {
    /// The document's id.
    pub id: String,
    /// Name of the model that answered.
    pub model: String,
    /// One result a task, in the order asked for, or the model's.
    pub tasks: Vec<TaskResult>,
    /// What was read.
    pub usage: Usage,
    /// Where the time went.
    pub timing: Timing,
}

/// The answer of one task.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskResult {
    /// The task's name.
    pub task: String,
    /// The best label's id, also when the model abstains.
    pub label: String,
    /// The best label's calibrated probability.
    pub score: f32,
    /// Whether `score` is under the task's threshold.
    pub abstained: bool,
    /// Labels, best first, as `top_k` and `min_score` allow.
    pub labels: Vec<LabelScore>,
    /// Sentences that moved `label` most, strongest first.
    pub evidence: Vec<Evidence>,
}

/// One label of a task.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelScore {
    /// Stable id.
    pub label: String,
    /// Arabic name.
    pub name_ar: String,
    /// English name.
    pub name_en: String,
    /// Code in an outside scheme, such as `medtop:11000000`; empty where there is none.
    pub code: String,
    /// Calibrated probability.
    pub score: f32,
    /// Aggregated logit before calibration, if asked for.
    pub logit: Option<f32>,
}

/// A sentence that speaks for the best label.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evidence {
    /// First Unicode scalar of the sentence in the document's text.
    pub start: usize,
    /// One past its last.
    pub end: usize,
    /// How far the label's score falls without it.
    pub weight: f32,
}

/// What was read for a document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens read by the model, special tokens included.
    pub tokens: usize,
    /// Windows they were read in.
    pub windows: usize,
    /// Whether a part of the document was not read.
    pub truncated: bool,
    /// Whether an identical document was read in its place, before or at the same time.
    pub cached: bool,
}

/// Where the time of a document went. Of one that was not read itself, only `total` is not zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// Normalising, tokenising and cutting windows.
    pub tokenize: Duration,
    /// From admission to the start of the first window's batch, and while batches paused
    /// for more urgent work.
    pub queue: Duration,
    /// The rest, to the end of the last window's batch.
    pub inference: Duration,
    /// All of it.
    pub total: Duration,
    /// Tokens in the batch in which the first window ran.
    pub batch_tokens: usize,
}

/// The tokens of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokenization {
    /// Tokens of the text, without those of the title and the special ones.
    pub tokens: Vec<TextToken>,
    /// Windows that the document takes.
    pub windows: usize,
}

/// A token of a document's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextToken {
    /// Id in the vocabulary.
    pub id: u32,
    /// The vocabulary's entry.
    pub text: String,
    /// First Unicode scalar in the document's text as sent.
    pub start: usize,
    /// One past its last.
    pub end: usize,
}

/// Why a document has no answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ClassifyError {
    /// Nothing to read is left after normalisation.
    #[error("document.text is empty, or holds nothing to read after normalisation")]
    Empty,
    /// A field of the document is over its limit.
    #[error("{field} has {actual} {unit}; the limit is {limit}")]
    FieldTooLong {
        /// The field, such as `document.text`.
        field: &'static str,
        /// What is counted, such as `characters`.
        unit: &'static str,
        /// The most allowed.
        limit: usize,
        /// What was sent.
        actual: usize,
    },
    /// The document does not fit one window and `LongText::Reject` was asked for.
    #[error(
        "the document has {actual} tokens; one window holds {limit} and long_text says to reject \
         longer ones"
    )]
    TooLong {
        /// Tokens that one window holds, special tokens included.
        limit: usize,
        /// Tokens of the document, special tokens included.
        actual: usize,
    },
    /// The document takes more windows than allowed.
    #[error("the document takes {actual} windows; the limit is {limit}")]
    TooManyWindows {
        /// The most allowed.
        limit: usize,
        /// What it takes.
        actual: usize,
    },
    /// The model has as many documents in hand as it may.
    #[error(
        "the documents in hand hold {limit} bytes, the most allowed; retry in {} ms",
        .retry_after.as_millis()
    )]
    Busy {
        /// The most allowed, in bytes.
        limit: usize,
        /// When to try again.
        retry_after: Duration,
    },
    /// A task that the model does not have.
    #[error("options.tasks names {task:?}; model {model:?} has {}", .known.join(", "))]
    UnknownTask {
        /// The task asked for.
        task: String,
        /// The model asked.
        model: String,
        /// The tasks it has.
        known: Vec<String>,
    },
    /// An option outside its range.
    #[error("{field} is {value}; it must be {expected}")]
    InvalidOption {
        /// The field, such as `options.min_score`.
        field: &'static str,
        /// What was sent.
        value: String,
        /// What is allowed.
        expected: String,
    },
    /// The tokenizer failed.
    #[error("the tokenizer failed: {0}")]
    Tokenizer(String),
    /// The engine refused or failed the document.
    #[error(transparent)]
    Engine(#[from] EngineError),
}
