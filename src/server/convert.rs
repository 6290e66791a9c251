//! Messages of the API to and from the pipeline's own types.
//!
//! What comes in is checked here as far as it can be without a model; the pipeline checks the rest.

use std::time::{Duration, SystemTime};

use super::proto;
use super::status::CallError;
use crate::bundle;
use crate::engine::Lane;
use crate::pipeline::{
    Classification, ClassifyError, Document, Evidence, LabelScore, LongText, ModelInfo, Options,
    TaskResult, TextToken, Timing, Tokenization,
};

/// The options of a call, checked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CallOptions {
    /// The model's name; empty: the default.
    pub(crate) model: String,
    /// The lane, if the caller has chosen one.
    pub(crate) lane: Option<Lane>,
    /// The rest. Its lane is the default one.
    pub(crate) options: Options,
}

/// The document of a request.
///
/// # Errors
/// It is missing.
pub(crate) fn document(raw: Option<proto::Document>) -> Result<Document, CallError> {
    let proto::Document { id, title, text } = raw.ok_or(CallError::MissingDocument)?;
    Ok(Document { id, title, text })
}

/// The options of a request; without any, the defaults.
///
/// # Errors
/// Names the first value that no enum has; the pipeline checks the ranges.
pub(crate) fn options(raw: Option<proto::Options>) -> Result<CallOptions, CallError> {
    let raw = raw.unwrap_or_default();
    let lane = lane(raw.priority)?;
    let options = Options {
        tasks: raw.tasks,
        top_k: to_usize(raw.top_k),
        min_score: raw.min_score,
        long_text: long_text(raw.long_text)?,
        with_logits: raw.with_logits,
        evidence: to_usize(raw.evidence),
        ..Options::default()
    };
    Ok(CallOptions { model: raw.model, lane, options })
}

fn lane(raw: i32) -> Result<Option<Lane>, ClassifyError> {
    match proto::Priority::try_from(raw) {
        Ok(proto::Priority::Unspecified) => Ok(None),
        Ok(proto::Priority::Interactive) => Ok(Some(Lane::Interactive)),
        Ok(proto::Priority::Bulk) => Ok(Some(Lane::Bulk)),
        Err(_) => Err(invalid(
            "options.priority",
            raw,
            "0 (PRIORITY_UNSPECIFIED), 1 (PRIORITY_INTERACTIVE) or 2 (PRIORITY_BULK)",
        )),
    }
}

fn long_text(raw: i32) -> Result<LongText, ClassifyError> {
    match proto::LongText::try_from(raw) {
        Ok(proto::LongText::Unspecified | proto::LongText::Windows) => Ok(LongText::Windows),
        Ok(proto::LongText::Head) => Ok(LongText::Head),
        Ok(proto::LongText::Reject) => Ok(LongText::Reject),
        Err(_) => Err(invalid(
            "options.long_text",
            raw,
            "0 (LONG_TEXT_UNSPECIFIED), 1 (LONG_TEXT_WINDOWS), 2 (LONG_TEXT_HEAD) or 3 \
             (LONG_TEXT_REJECT)",
        )),
    }
}

fn invalid(field: &'static str, value: impl ToString, expected: &'static str) -> ClassifyError {
    ClassifyError::InvalidOption { field, value: value.to_string(), expected: expected.to_owned() }
}

/// The answer for one document, without its timing.
pub(crate) fn classification(from: Classification) -> proto::Classification {
    let usage = proto::Usage {
        tokens: to_u32(from.usage.tokens),
        windows: to_u32(from.usage.windows),
        truncated: from.usage.truncated,
        cached: from.usage.cached,
    };
    proto::Classification {
        id: from.id,
        model: from.model,
        tasks: from.tasks.into_iter().map(task_result).collect(),
        usage: Some(usage),
    }
}

fn task_result(from: TaskResult) -> proto::TaskResult {
    proto::TaskResult {
        task: from.task,
        label: from.label,
        score: from.score,
        abstained: from.abstained,
        labels: from.labels.into_iter().map(label_score).collect(),
        evidence: from.evidence.into_iter().map(evidence_of).collect(),
    }
}

fn label_score(from: LabelScore) -> proto::LabelScore {
    proto::LabelScore {
        label: from.label,
        name_ar: from.name_ar,
        name_en: from.name_en,
        code: from.code,
        score: from.score,
        logit: from.logit,
    }
}

fn evidence_of(from: Evidence) -> proto::Evidence {
    proto::Evidence { start: to_u32(from.start), end: to_u32(from.end), weight: from.weight }
}

/// One entry of a batch or stream.
pub(crate) fn item_result(
    id: String,
    outcome: Result<Classification, CallError>,
) -> proto::ItemResult {
    use proto::item_result::Outcome;
    let outcome = match outcome {
        Ok(answer) => Outcome::Classification(classification(answer)),
        Err(error) => Outcome::Error(proto::ItemError {
            code: i32::from(error.code()),
            message: error.message(),
        }),
    };
    proto::ItemResult { id, outcome: Some(outcome) }
}

/// Where the time went.
pub(crate) fn timing(from: &Timing) -> proto::Timing {
    proto::Timing {
        tokenize_us: micros(from.tokenize),
        queue_us: micros(from.queue),
        inference_us: micros(from.inference),
        total_us: micros(from.total),
        batch_tokens: to_u32(from.batch_tokens),
    }
}

/// A loaded model.
pub(crate) fn model(from: &ModelInfo) -> proto::Model {
    proto::Model {
        name: from.name.clone(),
        revision: from.revision.clone(),
        digest: from.digest.clone(),
        architecture: from.architecture.clone(),
        precision: from.precision.clone(),
        device: from.device.clone(),
        max_window_tokens: to_u32(from.max_window_tokens),
        tasks: from.tasks.iter().map(task).collect(),
        loaded_at_ms: unix_ms(from.loaded_at),
        kernels: from.kernels.clone(),
    }
}

fn task(from: &bundle::Task) -> proto::Task {
    proto::Task {
        name: from.name.clone(),
        multi_label: from.multi_label,
        abstain_below: from.abstain_below,
        labels: from.labels.iter().map(label).collect(),
    }
}

fn label(from: &bundle::Label) -> proto::Label {
    proto::Label {
        label: from.id.clone(),
        name_ar: from.name_ar.clone(),
        name_en: from.name_en.clone(),
        code: from.code.clone(),
    }
}

/// The tokens of a document.
pub(crate) fn tokenization(from: Tokenization) -> proto::TokenizeResponse {
    proto::TokenizeResponse {
        tokens: from.tokens.into_iter().map(token).collect(),
        windows: to_u32(from.windows),
    }
}

fn token(from: TextToken) -> proto::Token {
    proto::Token { id: from.id, text: from.text, start: to_u32(from.start), end: to_u32(from.end) }
}

fn to_usize(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// Counts stay far below the limit of a u32; should one not, the largest is the closest.
fn to_u32(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// A clock set before 1970 gives 0.
fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    /// The field that options are refused for.
    fn refused(raw: proto::Options) -> &'static str {
        match options(Some(raw)) {
            Err(CallError::Classify(ClassifyError::InvalidOption { field, .. })) => field,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn no_options_are_the_defaults() {
        let expected =
            CallOptions { model: String::new(), lane: None, options: Options::default() };
        assert_eq!(options(None), Ok(expected.clone()));
        assert_eq!(options(Some(proto::Options::default())), Ok(expected));
    }

    #[test]
    fn every_option_arrives() {
        let raw = proto::Options {
            model: "m".to_owned(),
            tasks: vec!["topic".to_owned()],
            top_k: 3,
            min_score: 0.25,
            priority: proto::Priority::Bulk as i32,
            long_text: proto::LongText::Reject as i32,
            with_logits: true,
            evidence: 2,
        };
        let expected = CallOptions {
            model: "m".to_owned(),
            lane: Some(Lane::Bulk),
            options: Options {
                tasks: vec!["topic".to_owned()],
                top_k: 3,
                min_score: 0.25,
                lane: Lane::default(),
                long_text: LongText::Reject,
                with_logits: true,
                evidence: 2,
            },
        };
        assert_eq!(options(Some(raw)), Ok(expected));
    }

    #[test]
    fn an_unknown_enum_value_is_refused_by_name() {
        let default = proto::Options::default;
        assert_eq!(refused(proto::Options { priority: 3, ..default() }), "options.priority");
        assert_eq!(refused(proto::Options { priority: -1, ..default() }), "options.priority");
        assert_eq!(refused(proto::Options { long_text: 4, ..default() }), "options.long_text");
    }

    #[test]
    fn a_bad_item_says_why_in_its_place() {
        let item = item_result("7".to_owned(), Err(ClassifyError::Empty.into()));
        let Some(proto::item_result::Outcome::Error(error)) = item.outcome else {
            panic!("{item:?}")
        };
        assert_eq!((item.id.as_str(), error.code), ("7", i32::from(Code::InvalidArgument)));
        assert_eq!(error.message, ClassifyError::Empty.to_string());
    }

    #[test]
    fn a_missing_document_is_refused() {
        assert_eq!(document(None), Err(CallError::MissingDocument));
    }
}
