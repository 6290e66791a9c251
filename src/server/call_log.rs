//! The log line of a call: its ids, method, code, duration. Never what the call carries.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderMap;
use tonic::Code;
use tracing::Level;

/// Characters of a method's path that are logged; what a client asks for can be anything.
const MAX_PATH_CHARS: usize = 80;

/// The header in which a caller may name its request.
const REQUEST_ID: &str = "x-request-id";
const MAX_REQUEST_ID_CHARS: usize = 64;

/// A call under way.
#[derive(Debug)]
pub(crate) struct CallLog {
    method: String,
    ids: Ids,
}

/// What the log lines of a call have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ids {
    /// The name that the caller gave the request, or else a number of ours.
    pub(crate) request: String,
    /// The trace that the call belongs to, if any.
    pub(crate) trace: Option<String>,
}

impl Ids {
    /// Those of a call with `headers`. A name that is long or of odd characters is not taken: it
    /// could fill the log, or look like another line.
    pub(crate) fn new(headers: &HeaderMap, trace: Option<String>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);

        let plain = |id: &&str| {
            (1..=MAX_REQUEST_ID_CHARS).contains(&id.len())
                && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
        };
        let theirs = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).filter(plain);
        let ours = || NEXT.fetch_add(1, Ordering::Relaxed).to_string();
        Self { request: theirs.map_or_else(ours, str::to_owned), trace }
    }
}

impl CallLog {
    /// A call that starts now. `path` is that of its HTTP request.
    pub(crate) fn start(path: &str, ids: Ids) -> Self {
        let method = path.trim_start_matches('/').chars().take(MAX_PATH_CHARS).collect();
        Self { method, ids }
    }

    /// The call ended with `code` after `time`.
    pub(crate) fn end(&self, code: Code, time: Duration) {
        let method = self.method.as_str();
        let (request_id, trace_id) = (self.ids.request.as_str(), self.ids.trace.as_deref());
        let duration_us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        // The level of an event is fixed where it is written.
        macro_rules! log {
            ($level:ident, $message:literal) => {
                tracing::$level!(request_id, trace_id, method, ?code, duration_us, $message)
            };
        }
        match level(code) {
            Level::ERROR => log!(error, "call failed"),
            Level::DEBUG if code != Code::Ok => log!(debug, "call refused"),
            _ => log!(debug, "call answered"),
        }
    }
}

/// Faults of the server are errors. Those of a client, and work refused or cancelled, are told
/// to who asks: a client could fill the log with them.
fn level(code: Code) -> Level {
    match code {
        Code::Internal | Code::Unknown | Code::DataLoss => Level::ERROR,
        _ => Level::DEBUG,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What `work` logs.
    fn logged(work: impl Fn()) -> Vec<String> {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(Level::TRACE)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        // tracing may miss an event that a thread of another test meets for the first time just
        // now, so it is asked to look again. The bound only turns a hang into a failure.
        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..10_000 {
                tracing::callsite::rebuild_interest_cache();
                work();
                if !lines.0.lock().unwrap().is_empty() {
                    break;
                }
            }
        });
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_call_is_logged_with_its_ids_method_and_code() {
        let lines = logged(|| {
            let ids = Ids { request: "r7".to_owned(), trace: Some("4bf9".to_owned()) };
            let log = CallLog::start("/tasnif.v1.Classifier/Classify", ids);
            log.end(Code::Internal, Duration::from_millis(2));
        });
        let [line] = &lines[..] else { panic!("{lines:?}") };
        for part in [
            "ERROR",
            "tasnif.v1.Classifier/Classify",
            "Internal",
            "duration_us=2000",
            "request_id=\"r7\"",
            "trace_id=\"4bf9\"",
        ] {
            assert!(line.contains(part), "{line}");
        }
    }

    #[test]
    fn a_name_that_could_pass_for_more_is_not_taken() {
        let ids = |name: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, http::HeaderValue::from_bytes(name).unwrap());
            Ids::new(&headers, None).request
        };
        assert_eq!(ids(b"a-1.b_2:c"), "a-1.b_2:c");
        for bad in [&b""[..], b"a b", b"a\tb", b"\"", "م".as_bytes(), &[b'x'; 65]] {
            assert!(ids(bad).bytes().all(|byte| byte.is_ascii_digit()), "{bad:?}");
        }
    }

    #[test]
    fn only_faults_of_the_server_are_errors() {
        for code in [Code::Internal, Code::Unknown, Code::DataLoss] {
            assert_eq!(level(code), Level::ERROR, "{code:?}");
        }
        for code in [
            Code::InvalidArgument,
            Code::NotFound,
            Code::Cancelled,
            Code::DeadlineExceeded,
            Code::ResourceExhausted,
            Code::Unavailable,
            Code::Unimplemented,
        ] {
            assert_eq!(level(code), Level::DEBUG, "{code:?}");
        }
        assert_eq!(level(Code::Ok), Level::DEBUG);
    }

    #[test]
    fn the_path_of_a_stranger_is_cut() {
        let log = CallLog::start(&format!("/{}", "x".repeat(10_000)), Ids::default());
        assert_eq!(log.method.len(), MAX_PATH_CHARS);
    }
}
