//! A connection to a running server.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, TimeoutExpired};
use tower::service_fn;

use super::exit::Failure;
use crate::server::proto::classifier_client::ClassifierClient;
use crate::server::{authorities, certificates, private_key, provider};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Replies may be larger than gRPC's default of 4 MiB: 400,000 tokens, say.
const MAX_REPLY_BYTES: usize = 64 * 1024 * 1024;
const HTTPS_PORT: u16 = 443;

/// Which server to ask, and how.
#[derive(Debug, Args)]
pub(super) struct ServerArgs {
    /// Ask a running server: http://HOST:PORT, https://HOST:PORT or unix:PATH
    #[arg(long, value_name = "URL")]
    pub(super) server: Option<String>,
    /// Seconds to wait for the server's answer
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    /// A file whose first word is the bearer token to show. The one that TASNIF_TOKEN_FILE names by
    /// default
    #[arg(long, value_name = "FILE", requires = "server")]
    token_file: Option<PathBuf>,
    /// Certificate authorities to trust instead of the system's
    #[arg(long, value_name = "FILE", requires = "server")]
    ca: Option<PathBuf>,
    /// A certificate to show, for mutual TLS
    #[arg(long, value_name = "FILE", requires_all = ["client_key", "server"])]
    client_cert: Option<PathBuf>,
    /// Its private key
    #[arg(long, value_name = "FILE", requires_all = ["client_cert", "server"])]
    client_key: Option<PathBuf>,
}

impl ServerArgs {
    /// Connects to `url`; without a scheme, `http://` is meant.
    pub(super) async fn connect(&self, url: &str) -> Result<ClassifierClient<Channel>, Failure> {
        let usage = |error: &dyn ToString| {
            Failure::Usage(format!("--server {url:?}: {}", error.to_string()))
        };
        let secure = url.starts_with("https://");
        if !secure && (self.ca.is_some() || self.client_cert.is_some()) {
            return Err(usage(&"--ca and --client-cert are for https://"));
        }
        let channel = if let Some(path) = url.strip_prefix("unix:") {
            connect_unix(path.into()).await
        } else {
            let whole = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
            let endpoint = Endpoint::from_shared(whole).map_err(|error| usage(&error))?;
            let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT);
            if secure {
                let tls = TlsConnector::from(Arc::new(self.tls()?));
                endpoint
                    .connect_with_connector(service_fn(move |uri| secured(uri, tls.clone())))
                    .await
            } else {
                endpoint.connect().await
            }
        };
        let channel = channel.map_err(|error| {
            let cause = causes(&error).last().map_or(error.to_string(), ToString::to_string);
            Failure::Unreachable { url: url.to_owned(), message: cause }
        })?;
        Ok(ClassifierClient::new(channel).max_decoding_message_size(MAX_REPLY_BYTES))
    }

    /// `message` as a request with a deadline, and a token if there is one.
    pub(super) fn request<T>(&self, message: T) -> Result<Request<T>, Failure> {
        let mut request = Request::new(message);
        request.set_timeout(Duration::from_secs(self.timeout));
        if let Some(token) = self.token()? {
            request.metadata_mut().insert("authorization", token);
        }
        Ok(request)
    }

    fn token(&self) -> Result<Option<MetadataValue<Ascii>>, Failure> {
        let flag = || self.token_file.clone().map(|file| ("--token-file", file));
        let named = || Some(("TASNIF_TOKEN_FILE", std::env::var_os("TASNIF_TOKEN_FILE")?.into()));
        // A server of this process wants none.
        let given = self.server.as_ref().and_then(|_| flag().or_else(named));
        let Some((origin, file)): Option<(_, PathBuf)> = given else { return Ok(None) };
        let usage =
            |problem: String| Failure::Usage(format!("{origin} {}: {problem}", file.display()));
        let text = std::fs::read_to_string(&file).map_err(|error| usage(error.to_string()))?;
        let token = text.split_whitespace().next().map(|token| format!("Bearer {token}").parse());
        let none = || usage("it holds no token".to_owned());
        token.ok_or_else(none)?.map(Some).map_err(|_| none())
    }

    fn tls(&self) -> Result<rustls::ClientConfig, Failure> {
        let provider = provider().map_err(Failure::Usage)?;
        let read = |file: &PathBuf| {
            std::fs::read(file)
                .map_err(|error| Failure::Usage(format!("{}: {error}", file.display())))
        };
        let usage = |error: &dyn ToString| Failure::Usage(error.to_string());
        let roots = match &self.ca {
            Some(file) => authorities(file, &read(file)?).map_err(|error| usage(&error))?,
            None => {
                let mut roots = rustls::RootCertStore::empty();
                // Those that cannot be read are no worse than missing.
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                roots
            }
        };
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| usage(&error))?
            .with_root_certificates(roots);
        let mut config = match (&self.client_cert, &self.client_key) {
            (Some(cert), Some(key)) => {
                let chain = certificates(cert, &read(cert)?).map_err(|error| usage(&error))?;
                let key = private_key(key, &read(key)?).map_err(|error| usage(&error))?;
                builder.with_client_auth_cert(chain, key).map_err(|error| usage(&error))?
            }
            _ => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

type Secured = TokioIo<tokio_rustls::client::TlsStream<TcpStream>>;

async fn secured(uri: Uri, tls: TlsConnector) -> io::Result<Secured> {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let stream = TcpStream::connect((host.as_str(), uri.port_u16().unwrap_or(HTTPS_PORT))).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(host).map_err(io::Error::other)?;
    Ok(TokioIo::new(tls.connect(name, stream).await?))
}

#[cfg(unix)]
async fn connect_unix(path: PathBuf) -> Result<Channel, tonic::transport::Error> {
    // The host is never looked up, but HTTP/2 wants one.
    let endpoint = Endpoint::from_static("http://localhost").connect_timeout(CONNECT_TIMEOUT);
    let connect = move |_| {
        let path = path.clone();
        async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
    };
    endpoint.connect_with_connector(service_fn(connect)).await
}

#[cfg(not(unix))]
async fn connect_unix(_: PathBuf) -> Result<Channel, tonic::transport::Error> {
    let connect = |_| async {
        let message = "this system has no Unix sockets";
        Err::<TokioIo<TcpStream>, _>(io::Error::new(io::ErrorKind::Unsupported, message))
    };
    Endpoint::from_static("http://localhost").connect_with_connector(service_fn(connect)).await
}

/// Why a call has failed.
pub(super) fn refusal(status: &Status) -> Failure {
    if timed_out(status) {
        return Failure::TimedOut;
    }
    Failure::Refused { code: status.code(), message: status.message().to_owned() }
}

/// The code of a call that has failed: what tonic cancels since time is up counts as that.
pub(super) fn code(status: &Status) -> Code {
    if timed_out(status) { Code::DeadlineExceeded } else { status.code() }
}

/// Whether it was this side that gave up.
fn timed_out(status: &Status) -> bool {
    causes(status).any(<dyn Error>::is::<TimeoutExpired>)
}

fn causes(error: &dyn Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |&cause| cause.source())
}
