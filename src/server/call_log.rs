//! The log line of a call: method, code, duration. Never what the call carries.

use std::time::Instant;

use tonic::Code;
use tracing::Level;

/// Characters of a method's path that are logged; what a client asks for can be anything.
const MAX_PATH_CHARS: usize = 80;

/// A call under way. Logs its end once, and as cancelled if it is dropped before that.
#[derive(Debug)]
pub(crate) struct CallLog {
    method: String,
    started: Instant,
    ended: bool,
}

impl CallLog {
    /// A call that starts now. `path` is that of its HTTP request.
    pub(crate) fn start(path: &str) -> Self {
        let method = path.trim_start_matches('/').chars().take(MAX_PATH_CHARS).collect();
        Self { method, started: Instant::now(), ended: false }
    }

    /// The call ended with `code`. What comes after the first end is ignored.
    pub(crate) fn end(&mut self, code: Code) {
        if self.ended {
            return;
        }
        self.ended = true;
        let method = self.method.as_str();
        let micros = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        // The level of an event is fixed where it is written.
        match level(code) {
            Level::ERROR => tracing::error!(method, ?code, duration_us = micros, "call failed"),
            Level::DEBUG if code != Code::Ok => {
                tracing::debug!(method, ?code, duration_us = micros, "call refused");
            }
            _ => tracing::debug!(method, ?code, duration_us = micros, "call answered"),
        }
    }
}

impl Drop for CallLog {
    fn drop(&mut self) {
        self.end(Code::Cancelled);
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
    fn a_call_is_logged_once_with_its_method_and_code() {
        let lines = logged(|| {
            let mut log = CallLog::start("/tasnif.v1.Classifier/Classify");
            log.end(Code::Internal);
            log.end(Code::Ok);
        });
        let [line] = &lines[..] else { panic!("{lines:?}") };
        for part in ["ERROR", "tasnif.v1.Classifier/Classify", "Internal", "duration_us="] {
            assert!(line.contains(part), "{line}");
        }
    }

    #[test]
    fn a_call_that_is_left_is_logged_as_cancelled() {
        let lines = logged(|| drop(CallLog::start("/tasnif.v1.Classifier/Classify")));
        assert!(lines.len() == 1 && lines[0].contains("Cancelled"), "{lines:?}");
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
        let log = CallLog::start(&format!("/{}", "x".repeat(10_000)));
        assert_eq!(log.method.len(), MAX_PATH_CHARS);
    }
}
