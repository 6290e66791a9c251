//! The deadline that a caller sets with the `grpc-timeout` header.

use std::future::Future;
use std::time::Duration;

use http::HeaderMap;
use tokio::time::{Instant, timeout_at};
use tonic::Request;

use super::status::CallError;

const HEADER: &str = "grpc-timeout";

/// When the caller stops waiting, if it said so. Travels in the request's extensions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    /// The deadline of a call that starts now.
    ///
    /// # Errors
    /// A header that is not a timeout. Ignoring it would leave a caller that wants to wait a
    /// second waiting for ever.
    pub(crate) fn starting_now(headers: &HeaderMap) -> Result<Self, CallError> {
        let Some(value) = headers.get(HEADER) else { return Ok(Self(None)) };
        let text = value.to_str().unwrap_or_default();
        let Some(timeout) = parse(text) else {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            return Err(CallError::InvalidTimeout { value });
        };
        // A timeout past what the clock can count is none.
        Ok(Self(Instant::now().checked_add(timeout)))
    }

    /// The deadline of the call that `request` came with.
    pub(crate) fn of<T>(request: &Request<T>) -> Option<Instant> {
        request.extensions().get::<Self>().and_then(|deadline| deadline.0)
    }

    /// Runs `work` until the deadline. A deadline that is over already runs nothing.
    ///
    /// # Errors
    /// [`CallError::DeadlineExceeded`]; `work` is dropped.
    pub(crate) async fn limit<F: Future>(self, work: F) -> Result<F::Output, CallError> {
        let Some(deadline) = self.0 else { return Ok(work.await) };
        if Instant::now() >= deadline {
            return Err(CallError::DeadlineExceeded);
        }
        timeout_at(deadline, work).await.map_err(|_| CallError::DeadlineExceeded)
    }
}

impl From<Option<Instant>> for Deadline {
    fn from(deadline: Option<Instant>) -> Self {
        Self(deadline)
    }
}

/// Reads a timeout as the gRPC protocol writes it: 1 to 8 digits and a unit.
fn parse(text: &str) -> Option<Duration> {
    let unit = text.chars().next_back()?;
    let digits = text.strip_suffix(unit)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    match unit {
        'H' => Some(Duration::from_secs(value * 3_600)),
        'M' => Some(Duration::from_secs(value * 60)),
        'S' => Some(Duration::from_secs(value)),
        'm' => Some(Duration::from_millis(value)),
        'u' => Some(Duration::from_micros(value)),
        'n' => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use http::HeaderValue;

    use super::*;

    fn headers(value: &[u8]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, HeaderValue::from_bytes(value).unwrap());
        headers
    }

    #[test]
    fn every_unit_of_the_protocol_is_read() {
        let cases = [
            ("2H", Duration::from_secs(7_200)),
            ("3M", Duration::from_secs(180)),
            ("0S", Duration::ZERO),
            ("250m", Duration::from_millis(250)),
            ("7u", Duration::from_micros(7)),
            ("99999999n", Duration::from_nanos(99_999_999)),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_timeout_is_refused_by_name() {
        let bad =
            ["", "S", "5", "5s", "123456789S", "-1S", "+1S", "1.5S", " 1S", "1S ", "١S", "1س"];
        for text in bad {
            assert_eq!(parse(text), None, "{text:?}");
        }
        let error = Deadline::starting_now(&headers(b"\xff\xfe")).unwrap_err();
        assert!(matches!(error, CallError::InvalidTimeout { .. }), "{error:?}");
        let error = Deadline::starting_now(&headers(b"soon")).unwrap_err();
        assert_eq!(error, CallError::InvalidTimeout { value: "soon".to_owned() });
    }

    #[tokio::test(start_paused = true)]
    async fn work_runs_until_the_deadline() {
        let deadline = Deadline::starting_now(&headers(b"100m")).unwrap();
        assert_eq!(deadline.limit(ready(7)).await, Ok(7));
        let start = Instant::now();
        assert_eq!(deadline.limit(pending::<()>()).await, Err(CallError::DeadlineExceeded));
        assert_eq!(start.elapsed(), Duration::from_millis(100));
        // It is over now, so not even work that is ready runs.
        assert_eq!(deadline.limit(ready(7)).await, Err(CallError::DeadlineExceeded));
    }

    #[tokio::test(start_paused = true)]
    async fn no_header_or_a_boundless_one_is_no_deadline() {
        let none = Deadline::starting_now(&HeaderMap::new()).unwrap();
        assert_eq!(none.limit(ready(1)).await, Ok(1));
        let far = Deadline::starting_now(&headers(b"99999999H")).unwrap();
        assert_eq!(far.limit(ready(2)).await, Ok(2));
    }
}
