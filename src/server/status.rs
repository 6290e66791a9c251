//! The one place where an error becomes a gRPC status.
//!
//! Each status carries an `ErrorInfo` (a stable reason in the domain `tasnif`, and the figures as
//! metadata); one that is the caller's fault also has a `BadRequest` naming the field; one that is
//! worth trying again has a `RetryInfo`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::engine::EngineError;
use crate::pipeline::ClassifyError;

/// `ErrorInfo.domain` of every error.
const DOMAIN: &str = "tasnif";

/// Every `ErrorInfo.reason`, for those who count them.
pub(crate) const REASONS: &[&str] = &[
    "BATCH_SIZE",
    "BUSY",
    "CLIENT_OVERLOADED",
    "CONNECTION_AGE",
    "DEADLINE_EXCEEDED",
    "DOCUMENT_TOO_LARGE",
    "DRAINING",
    "EMPTY_TEXT",
    "ENCODER_FAILED",
    "FIELD_TOO_LONG",
    "INVALID_JOB",
    "INVALID_OPTION",
    "INVALID_TENSOR",
    "INVALID_TIMEOUT",
    "MALFORMED_MESSAGE",
    "MESSAGE_TIMEOUT",
    "MESSAGE_TOO_LARGE",
    "MISSING_DOCUMENT",
    "OVERLOADED",
    "PANICKED",
    "TEXT_TOO_LONG",
    "TOKENIZER_FAILED",
    "TOO_MANY_FIELDS",
    "TOO_MANY_WINDOWS",
    "UNAUTHENTICATED",
    "UNKNOWN_MODEL",
    "UNKNOWN_TASK",
    "UNKNOWN_VERSION",
    "WARMING_UP",
    "WORKER_PANICKED",
    "WOULD_EXPIRE",
];

/// Characters of a message, and of a value in the details. A status travels in HTTP/2 headers, of
/// which clients take 8 to 16 KiB, and an error may quote what the client sent.
const MAX_MESSAGE_CHARS: usize = 400;
const MAX_VALUE_CHARS: usize = 120;

/// Why a call, or one document of it, has no answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum CallError {
    /// The document or its options.
    #[error(transparent)]
    Classify(#[from] ClassifyError),
    /// A model that is not served.
    #[error("no model is called {model:?}{}", served(.known))]
    UnknownModel { field: &'static str, model: String, known: Vec<String> },
    /// A version that the model has not.
    #[error(
        "model {model:?} has no version {:?}{}",
        clip(.version, MAX_VALUE_CHARS),
        versions(.known)
    )]
    UnknownVersion { field: &'static str, version: String, model: String, known: String },
    /// A part of an Open Inference request that the model cannot take.
    #[error("{field} is {}; it must be {expected}", clip(.value, MAX_VALUE_CHARS))]
    InvalidTensor { field: String, value: String, expected: String },
    /// One document of a call which therefore fails as a whole.
    #[error("document {index}: {error}")]
    OfDocument { index: usize, error: Box<CallError> },
    /// A request without a document.
    #[error("document is missing")]
    MissingDocument,
    /// A batch that is empty or too large.
    #[error("documents has {actual} entries; it must have 1 to {limit}")]
    BatchSize { limit: usize, actual: usize },
    /// A `grpc-timeout` header that is not one.
    #[error("grpc-timeout is {value:?}; it must be 1 to 8 digits and one of H, M, S, m, u or n")]
    InvalidTimeout { value: String },
    /// A message over the limit. How large it was is known where the transport says so.
    #[error("the message has {}; the limit is {limit} bytes", bytes(.actual))]
    MessageTooLarge { limit: usize, actual: Option<usize> },
    /// A repeated field of more entries than any request needs.
    #[error("{field} has {actual} entries over all of the message; the limit is {limit}")]
    TooManyFields { field: &'static str, limit: usize, actual: usize },
    /// Messages, or answers that nobody has read, take as much memory as they may.
    #[error("messages or unread answers hold all that they may of {limit} bytes; retry in {} ms",
        .retry_after.as_millis())]
    NoRoom { limit: usize, retry_after: Duration },
    /// Bytes that are not the message that the call takes.
    #[error("the message cannot be read: {0}")]
    MalformedMessage(String),
    /// A call without a valid token.
    #[error("authorization {problem}; send the header `authorization: Bearer TOKEN`")]
    Unauthenticated { problem: &'static str },
    /// A message that does not arrive.
    #[error("no whole message arrived within {} ms", .limit.as_millis())]
    MessageTimeout { limit: Duration },
    /// The models are still loading.
    #[error("the server is warming up; try again in {} ms", .retry_after.as_millis())]
    WarmingUp { retry_after: Duration },
    /// The server is shutting down.
    #[error("the server is shutting down; try again in {} ms, or another one", .retry_after.as_millis())]
    ShuttingDown { retry_after: Duration },
    /// The connection is as old as it may get.
    #[error("the connection has reached its age; go on over a new one")]
    ConnectionAge { retry_after: Duration },
    /// The caller's deadline passed.
    #[error("the deadline passed before the answer was ready")]
    DeadlineExceeded,
    /// A bug: the code that answers the call panicked.
    #[error("the call failed because of a bug in the server, which goes on; its log says more")]
    Panicked,
}

fn served(known: &[String]) -> String {
    if known.is_empty() { String::new() } else { format!("; served are {}", known.join(", ")) }
}

fn versions(known: &str) -> String {
    if known.is_empty() {
        return String::new();
    }
    format!("; it has {known:?}, which \"1\" stands for too")
}

fn bytes(actual: &Option<usize>) -> String {
    actual.map_or_else(|| "too many bytes".to_owned(), |actual| format!("{actual} bytes"))
}

/// What a status says of an error, the message aside.
struct Facts {
    code: Code,
    reason: &'static str,
    field: Option<Cow<'static, str>>,
    retry_after: Option<Duration>,
    metadata: Vec<(&'static str, String)>,
}

impl Facts {
    fn new(code: Code, reason: &'static str) -> Self {
        Self { code, reason, field: None, retry_after: None, metadata: Vec::new() }
    }

    fn invalid(field: &'static str, reason: &'static str) -> Self {
        Self::new(Code::InvalidArgument, reason).at(field)
    }

    fn at(self, field: &'static str) -> Self {
        self.at_part(Cow::Borrowed(field))
    }

    fn at_part(mut self, field: Cow<'static, str>) -> Self {
        self.field = Some(field.clone());
        self.with("field", field)
    }

    fn retry(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    fn with(mut self, key: &'static str, value: impl ToString) -> Self {
        self.metadata.push((key, clip(&value.to_string(), MAX_VALUE_CHARS)));
        self
    }
}

impl CallError {
    /// The gRPC code of the error.
    pub(crate) fn code(&self) -> Code {
        facts(self).code
    }

    /// The stable name of the error, one of [`REASONS`].
    pub(crate) fn reason(&self) -> &'static str {
        facts(self).reason
    }

    /// Whether the same request may well succeed later.
    pub(crate) fn is_retriable(&self) -> bool {
        facts(self).retry_after.is_some()
    }

    /// The error of the document at `index`, from 0, as that of its call. One that is no fault of
    /// the document's stays as it is.
    pub(crate) fn of_document(self, index: usize) -> Self {
        match self.code() {
            Code::InvalidArgument | Code::Internal => {
                Self::OfDocument { index, error: Box::new(self) }
            }
            _ => self,
        }
    }

    /// The error without the models and versions that there are, for a caller who may not know
    /// them and has asked for `model`.
    pub(crate) fn without_known(self, model: String) -> Self {
        match self {
            Self::UnknownModel { field, .. } => {
                Self::UnknownModel { field, model, known: Vec::new() }
            }
            Self::UnknownVersion { field, version, .. } => {
                Self::UnknownVersion { field, version, model, known: String::new() }
            }
            other => other,
        }
    }

    /// The error in words, short enough to send.
    pub(crate) fn message(&self) -> String {
        clip(&self.to_string(), MAX_MESSAGE_CHARS)
    }
}

impl From<EngineError> for CallError {
    fn from(error: EngineError) -> Self {
        Self::Classify(ClassifyError::Engine(error))
    }
}

impl From<CallError> for Status {
    fn from(error: CallError) -> Self {
        let facts = facts(&error);
        let message = error.message();
        let metadata = facts.metadata.into_iter().map(|(key, value)| (key.to_owned(), value));
        let mut details = ErrorDetails::new();
        details.set_error_info(facts.reason, DOMAIN, metadata.collect::<HashMap<_, _>>());
        if let Some(field) = facts.field {
            details.add_bad_request_violation(field, message.as_str());
        }
        if let Some(after) = facts.retry_after {
            details.set_retry_info(Some(after));
        }
        Status::with_error_details(facts.code, message, details)
    }
}

/// Replaces a status that the transport made by one with a precise code and details, or says with
/// `None` that there is nothing to add. `limit` is the size that a message may have, in bytes.
///
/// tonic answers OUT_OF_RANGE or RESOURCE_EXHAUSTED to a message over the limit, and INTERNAL to one
/// that it cannot decode; both are the client's and will not get better by trying again:
/// INVALID_ARGUMENT.
pub(crate) fn precise(status: &Status, limit: usize) -> Option<CallError> {
    if !status.details().is_empty() {
        return None;
    }
    match status.code() {
        Code::OutOfRange => {
            let actual = first_number(status.message());
            Some(CallError::MessageTooLarge { limit, actual })
        }
        // What tonic says of a message that grows over the limit as it is decompressed.
        Code::ResourceExhausted => Some(CallError::MessageTooLarge { limit, actual: None }),
        Code::Internal => Some(CallError::MalformedMessage(status.message().to_owned())),
        _ => None,
    }
}

fn facts(error: &CallError) -> Facts {
    match error {
        CallError::Classify(error) => classify_facts(error),
        CallError::UnknownModel { field, model, .. } => {
            Facts::new(Code::NotFound, "UNKNOWN_MODEL").at(field).with("model", model)
        }
        CallError::UnknownVersion { field, version, model, .. } => {
            Facts::new(Code::NotFound, "UNKNOWN_VERSION")
                .at(field)
                .with("version", version)
                .with("model", model)
        }
        CallError::InvalidTensor { field, value, .. } => {
            Facts::new(Code::InvalidArgument, "INVALID_TENSOR")
                .at_part(Cow::Owned(field.clone()))
                .with("value", value)
        }
        CallError::OfDocument { index, error } => facts(error).with("index", index),
        CallError::MissingDocument => Facts::invalid("document", "MISSING_DOCUMENT"),
        CallError::BatchSize { limit, actual } => {
            Facts::invalid("documents", "BATCH_SIZE").with("limit", limit).with("actual", actual)
        }
        CallError::InvalidTimeout { value } => {
            Facts::invalid("grpc-timeout", "INVALID_TIMEOUT").with("value", value)
        }
        CallError::MessageTooLarge { limit, actual } => {
            let facts = Facts::new(Code::InvalidArgument, "MESSAGE_TOO_LARGE").with("limit", limit);
            match actual {
                Some(actual) => facts.with("actual", actual),
                None => facts,
            }
        }
        CallError::TooManyFields { field, limit, actual } => {
            Facts::invalid(field, "TOO_MANY_FIELDS").with("limit", limit).with("actual", actual)
        }
        CallError::NoRoom { limit, retry_after } => Facts::new(Code::ResourceExhausted, "BUSY")
            .with("unit", "bytes")
            .with("limit", limit)
            .retry(*retry_after),
        CallError::MalformedMessage(_) => Facts::new(Code::InvalidArgument, "MALFORMED_MESSAGE"),
        CallError::Unauthenticated { .. } => {
            Facts::new(Code::Unauthenticated, "UNAUTHENTICATED").at("authorization")
        }
        CallError::MessageTimeout { limit } => {
            Facts::new(Code::DeadlineExceeded, "MESSAGE_TIMEOUT")
                .with("limit_ms", limit.as_millis())
        }
        CallError::WarmingUp { retry_after } => {
            Facts::new(Code::Unavailable, "WARMING_UP").retry(*retry_after)
        }
        CallError::ShuttingDown { retry_after } => {
            Facts::new(Code::Unavailable, "DRAINING").retry(*retry_after)
        }
        CallError::ConnectionAge { retry_after } => {
            Facts::new(Code::Unavailable, "CONNECTION_AGE").retry(*retry_after)
        }
        CallError::DeadlineExceeded => Facts::new(Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
        CallError::Panicked => Facts::new(Code::Internal, "PANICKED"),
    }
}

fn classify_facts(error: &ClassifyError) -> Facts {
    match error {
        ClassifyError::Empty => Facts::invalid("document.text", "EMPTY_TEXT"),
        ClassifyError::FieldTooLong { field, unit, limit, actual } => {
            Facts::invalid(field, "FIELD_TOO_LONG")
                .with("unit", unit)
                .with("limit", limit)
                .with("actual", actual)
        }
        ClassifyError::TooLong { limit, actual } => {
            Facts::invalid("document.text", "TEXT_TOO_LONG")
                .with("unit", "tokens")
                .with("limit", limit)
                .with("actual", actual)
        }
        ClassifyError::TooManyWindows { limit, actual } => {
            Facts::invalid("document.text", "TOO_MANY_WINDOWS")
                .with("unit", "windows")
                .with("limit", limit)
                .with("actual", actual)
        }
        ClassifyError::Busy { limit, retry_after } => Facts::new(Code::ResourceExhausted, "BUSY")
            .with("unit", "bytes")
            .with("limit", limit)
            .retry(*retry_after),
        ClassifyError::UnknownTask { task, model, .. } => {
            Facts::new(Code::NotFound, "UNKNOWN_TASK")
                .at("options.tasks")
                .with("task", task)
                .with("model", model)
        }
        ClassifyError::InvalidOption { field, value, .. } => {
            Facts::invalid(field, "INVALID_OPTION").with("value", value)
        }
        ClassifyError::Tokenizer(_) => Facts::new(Code::Internal, "TOKENIZER_FAILED"),
        ClassifyError::Engine(error) => engine_facts(error),
    }
}

fn engine_facts(error: &EngineError) -> Facts {
    match error {
        EngineError::Overloaded { queued_tokens, limit, retry_after } => {
            Facts::new(Code::ResourceExhausted, "OVERLOADED")
                .with("queued_tokens", queued_tokens)
                .with("limit", limit)
                .retry(*retry_after)
        }
        EngineError::ClientOverloaded { queued_tokens, limit, retry_after } => {
            Facts::new(Code::ResourceExhausted, "CLIENT_OVERLOADED")
                .with("queued_tokens", queued_tokens)
                .with("limit", limit)
                .retry(*retry_after)
        }
        EngineError::WouldExpire { needed, left, retry_after } => {
            Facts::new(Code::ResourceExhausted, "WOULD_EXPIRE")
                .with("needed_ms", needed.as_millis())
                .with("left_ms", left.as_millis())
                .retry(*retry_after)
        }
        EngineError::TooLarge { tokens, limit } => Facts::invalid("document", "DOCUMENT_TOO_LARGE")
            .with("unit", "tokens")
            .with("limit", limit)
            .with("actual", tokens),
        EngineError::Draining { retry_after } => {
            Facts::new(Code::Unavailable, "DRAINING").retry(*retry_after)
        }
        EngineError::DeadlineExceeded => Facts::new(Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
        EngineError::WorkerPanicked => Facts::new(Code::Internal, "WORKER_PANICKED"),
        EngineError::InvalidJob { .. } => Facts::new(Code::Internal, "INVALID_JOB"),
        EngineError::Encode { .. } => Facts::new(Code::Internal, "ENCODER_FAILED"),
    }
}

/// At most `chars` characters of `text`; a cut is marked.
fn clip(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

fn first_number(text: &str) -> Option<usize> {
    text.split(|c: char| !c.is_ascii_digit()).find_map(|digits| digits.parse().ok())
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
