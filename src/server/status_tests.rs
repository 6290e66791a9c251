//! Every error has its code, and details that say what to do.

use super::*;

/// What is expected of the status of an error.
struct Expected {
    error: CallError,
    code: Code,
    reason: &'static str,
    field: Option<&'static str>,
    retry_ms: Option<u64>,
    /// Figures that the message must name.
    says: &'static [&'static str],
}

const RETRY: Duration = Duration::from_millis(250);

fn invalid(
    error: impl Into<CallError>,
    reason: &'static str,
    field: Option<&'static str>,
    says: &'static [&'static str],
) -> Expected {
    let code = Code::InvalidArgument;
    Expected { error: error.into(), code, reason, field, retry_ms: None, says }
}

fn failed(error: impl Into<CallError>, code: Code, reason: &'static str) -> Expected {
    Expected { error: error.into(), code, reason, field: None, retry_ms: None, says: &[] }
}

fn retriable(error: impl Into<CallError>, code: Code, reason: &'static str) -> Expected {
    Expected { retry_ms: Some(250), ..failed(error, code, reason) }
}

fn unknown(error: impl Into<CallError>, reason: &'static str, field: &'static str) -> Expected {
    Expected { field: Some(field), ..failed(error, Code::NotFound, reason) }
}

#[rustfmt::skip]
fn table() -> Vec<Expected> {
    vec![
        // The document.
        invalid(ClassifyError::Empty, "EMPTY_TEXT", Some("document.text"), &["document.text"]),
        invalid(
            ClassifyError::FieldTooLong { field: "document.title", unit: "characters", limit: 10, actual: 11 },
            "FIELD_TOO_LONG", Some("document.title"), &["document.title", "11", "10"],
        ),
        invalid(
            ClassifyError::TooLong { limit: 512, actual: 700 },
            "TEXT_TOO_LONG", Some("document.text"), &["512", "700"],
        ),
        invalid(
            ClassifyError::TooManyWindows { limit: 256, actual: 300 },
            "TOO_MANY_WINDOWS", Some("document.text"), &["256", "300"],
        ),
        invalid(
            EngineError::TooLarge { tokens: 9_000, limit: 8_000 },
            "DOCUMENT_TOO_LARGE", Some("document"), &["9000", "8000"],
        ),
        invalid(CallError::MissingDocument, "MISSING_DOCUMENT", Some("document"), &["document"]),
        // The options.
        invalid(
            ClassifyError::InvalidOption {
                field: "options.min_score", value: "2".to_owned(),
                expected: "a number from 0 to 1".to_owned(),
            },
            "INVALID_OPTION", Some("options.min_score"), &["options.min_score", "2", "0 to 1"],
        ),
        unknown(
            ClassifyError::UnknownTask { task: "tone".to_owned(), model: "m".to_owned(), known: vec![] },
            "UNKNOWN_TASK", "options.tasks",
        ),
        unknown(
            CallError::UnknownModel { field: "options.model", model: "x".to_owned(), known: vec![] },
            "UNKNOWN_MODEL", "options.model",
        ),
        // The Open Inference Protocol.
        unknown(
            CallError::UnknownVersion {
                field: "version", version: "9".to_owned(), model: "m".to_owned(), known: "r1".to_owned(),
            },
            "UNKNOWN_VERSION", "version",
        ),
        invalid(
            CallError::InvalidTensor {
                field: "inputs[0].shape".to_owned(), value: "[0]".to_owned(), expected: "[n]".to_owned(),
            },
            "INVALID_TENSOR", Some("inputs[0].shape"), &["inputs[0].shape is [0]; it must be [n]"],
        ),
        invalid(
            CallError::from(ClassifyError::Empty).of_document(3),
            "EMPTY_TEXT", Some("document.text"), &["document 3: document.text"],
        ),
        retriable(
            CallError::WarmingUp { retry_after: RETRY }.of_document(3), Code::Unavailable, "WARMING_UP",
        ),
        // The call.
        invalid(
            CallError::BatchSize { limit: 256, actual: 257 },
            "BATCH_SIZE", Some("documents"), &["256", "257"],
        ),
        invalid(
            CallError::InvalidTimeout { value: "soon".to_owned() },
            "INVALID_TIMEOUT", Some("grpc-timeout"), &["soon"],
        ),
        invalid(
            CallError::MessageTooLarge { limit: 100, actual: Some(101) },
            "MESSAGE_TOO_LARGE", None, &["100", "101"],
        ),
        invalid(
            CallError::MessageTooLarge { limit: 100, actual: None },
            "MESSAGE_TOO_LARGE", None, &["100"],
        ),
        invalid(
            CallError::MalformedMessage("bad wire type".to_owned()),
            "MALFORMED_MESSAGE", None, &["bad wire type"],
        ),
        failed(CallError::DeadlineExceeded, Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
        failed(EngineError::DeadlineExceeded, Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
        // Worth trying again.
        retriable(
            EngineError::Overloaded { queued_tokens: 5, limit: 4, retry_after: RETRY },
            Code::ResourceExhausted, "OVERLOADED",
        ),
        retriable(
            EngineError::ClientOverloaded { queued_tokens: 5, limit: 4, retry_after: RETRY },
            Code::ResourceExhausted, "CLIENT_OVERLOADED",
        ),
        retriable(
            EngineError::WouldExpire { needed: 3 * RETRY, left: RETRY, retry_after: RETRY },
            Code::ResourceExhausted, "WOULD_EXPIRE",
        ),
        retriable(
            ClassifyError::Busy { limit: 9, retry_after: RETRY },
            Code::ResourceExhausted, "BUSY",
        ),
        retriable(EngineError::Draining { retry_after: RETRY }, Code::Unavailable, "DRAINING"),
        retriable(CallError::WarmingUp { retry_after: RETRY }, Code::Unavailable, "WARMING_UP"),
        retriable(CallError::ShuttingDown { retry_after: RETRY }, Code::Unavailable, "DRAINING"),
        retriable(
            CallError::ConnectionAge { retry_after: RETRY }, Code::Unavailable, "CONNECTION_AGE",
        ),
        retriable(
            CallError::NoRoom { limit: 9, retry_after: RETRY }, Code::ResourceExhausted, "BUSY",
        ),
        failed(
            CallError::MessageTimeout { limit: RETRY }, Code::DeadlineExceeded, "MESSAGE_TIMEOUT",
        ),
        Expected {
            field: Some("authorization"),
            ..failed(
                CallError::Unauthenticated { problem: "is missing" }, Code::Unauthenticated,
                "UNAUTHENTICATED",
            )
        },
        invalid(
            CallError::TooManyFields { field: "inputs", limit: 77, actual: 78 },
            "TOO_MANY_FIELDS", Some("inputs"), &["inputs", "77", "78"],
        ),
        // Ours.
        failed(ClassifyError::Tokenizer("t".to_owned()), Code::Internal, "TOKENIZER_FAILED"),
        failed(EngineError::WorkerPanicked, Code::Internal, "WORKER_PANICKED"),
        failed(EngineError::InvalidJob { message: "m".to_owned() }, Code::Internal, "INVALID_JOB"),
        failed(EngineError::Encode { message: "m".to_owned() }, Code::Internal, "ENCODER_FAILED"),
        failed(CallError::Panicked, Code::Internal, "PANICKED"),
    ]
}

#[test]
fn every_reason_is_documented() {
    let page = include_str!("../../docs/api.md");
    for expected in table() {
        assert!(page.contains(&format!("`{}`", expected.reason)), "{}", expected.reason);
        assert!(REASONS.contains(&expected.reason), "{}", expected.reason);
    }
}

#[test]
fn every_error_has_its_code_and_details() {
    for expected in table() {
        let retriable = expected.error.is_retriable();
        let status = Status::from(expected.error.clone());
        let case = format!("{:?}", expected.error);
        assert_eq!(status.code(), expected.code, "{case}");
        assert_eq!(status.code(), expected.error.code(), "{case}");

        let details = status.get_error_details();
        let info = details.error_info().unwrap_or_else(|| panic!("{case}: no ErrorInfo"));
        assert_eq!((info.reason.as_str(), info.domain.as_str()), (expected.reason, "tasnif"));

        let violations = details.bad_request().map_or(&[][..], |bad| &bad.field_violations);
        let fields: Vec<_> = violations.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, Vec::from_iter(expected.field), "{case}");

        let delay = details.retry_info().and_then(|retry| retry.retry_delay);
        assert_eq!(delay, expected.retry_ms.map(Duration::from_millis), "{case}");
        assert_eq!(retriable, expected.retry_ms.is_some(), "{case}");

        for figure in expected.says {
            assert!(status.message().contains(figure), "{case}: {:?}", status.message());
        }
    }
}

#[test]
fn a_status_fits_in_headers_whatever_the_client_sent() {
    let task = "م".repeat(1_000_000);
    let known = vec!["topic".to_owned()];
    let error = ClassifyError::UnknownTask { task, model: "m".to_owned(), known };
    let status = Status::from(CallError::from(error));
    // A character of Arabic takes 6 bytes in grpc-message, which is percent-encoded.
    let header = status.message().chars().count() * 6 + status.details().len() * 4 / 3;
    assert!(header < 8 * 1024, "{header} bytes");
    assert!(status.message().ends_with('…'));
}

#[test]
fn what_the_transport_says_is_made_precise() {
    let large = Status::out_of_range("decoded message length too large: found 71 bytes, limit 64");
    assert_eq!(
        precise(&large, 64),
        Some(CallError::MessageTooLarge { limit: 64, actual: Some(71) })
    );

    let malformed = Status::internal("failed to decode Protobuf message");
    assert_eq!(precise(&malformed, 64).map(|error| error.code()), Some(Code::InvalidArgument));

    // Ours already say all there is to say; a method that does not exist is nobody's limit.
    assert_eq!(precise(&CallError::Panicked.into(), 64), None);
    assert_eq!(precise(&Status::unimplemented(""), 64), None);
}
