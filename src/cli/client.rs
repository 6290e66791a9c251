//! A connection to a running server.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::exit::Failure;
use crate::server::proto::classifier_client::ClassifierClient;

/// Seconds that a call may take, unless --timeout says otherwise.
pub(super) const CALL_TIMEOUT_S: u64 = 60;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Replies may be larger than gRPC's default of 4 MiB: 400,000 tokens, say.
const MAX_REPLY_BYTES: usize = 64 * 1024 * 1024;

/// Connects to `url`; without a scheme, `http://` is meant.
pub(super) async fn connect(url: &str) -> Result<ClassifierClient<Channel>, Failure> {
    let whole = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let endpoint = Endpoint::from_shared(whole)
        .map_err(|error| Failure::Usage(format!("--server {url:?}: {error}")))?;
    let channel = endpoint.connect_timeout(CONNECT_TIMEOUT).connect().await.map_err(|error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        Failure::Unreachable {
            url: url.to_owned(),
            message: cause.unwrap_or_else(|| error.to_string()),
        }
    })?;
    Ok(ClassifierClient::new(channel).max_decoding_message_size(MAX_REPLY_BYTES))
}

/// `message` as a request with a deadline `timeout_s` seconds from now.
pub(super) fn request<T>(message: T, timeout_s: u64) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(Duration::from_secs(timeout_s));
    request
}

/// What a server's refusal says.
pub(super) fn refusal(status: &Status) -> Failure {
    Failure::Refused { code: status.code(), message: status.message().to_owned() }
}
