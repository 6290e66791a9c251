//! TLS and mutual TLS, with certificates that change while the server runs.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tasnif::server::proto::ListModelsRequest;
use tasnif::server::proto::classifier_client::ClassifierClient;
use tasnif::server::{
    ServerConfig, TlsConfig, authorities, certificates, check_files, private_key, provider,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::certs::{Authority, Certified};
use crate::harness::{PATIENCE, TestServer};

/// A server that TLS protects, and what its clients need.
struct Secure {
    directory: TempDir,
    authority: Authority,
    server: TestServer,
}

impl Secure {
    async fn start(mutual: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::new(directory.path(), "authority");
        let Certified { cert, key } = authority.certify(directory.path(), "server");
        let client_ca = mutual.then(|| authority.file.clone());
        let tls = TlsConfig { cert: Some(cert), key: Some(key), client_ca };
        let refresh_interval = Duration::from_millis(10);
        let config = ServerConfig { tls, refresh_interval, ..ServerConfig::default() };
        let server = TestServer::begin(config).await;
        Self { directory, authority, server }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }
}

fn client_config(roots: &Path, shown: Option<&Certified>) -> rustls::ClientConfig {
    let read = |file: &PathBuf| std::fs::read(file).unwrap();
    let roots = authorities(roots, &std::fs::read(roots).unwrap()).unwrap();
    let builder = rustls::ClientConfig::builder_with_provider(provider().unwrap())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match shown {
        None => builder.with_no_client_auth(),
        Some(Certified { cert, key }) => {
            let chain = certificates(cert, &read(cert)).unwrap();
            builder.with_client_auth_cert(chain, private_key(key, &read(key)).unwrap()).unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

async fn connect(address: SocketAddr, tls: &TlsConnector) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    tls.connect(ServerName::from(address.ip()), stream).await
}

async fn channel(
    address: SocketAddr,
    config: rustls::ClientConfig,
) -> Result<Channel, tonic::transport::Error> {
    let tls = TlsConnector::from(Arc::new(config));
    let dial = service_fn(move |_| {
        let tls = tls.clone();
        async move { connect(address, &tls).await.map(TokioIo::new) }
    });
    Endpoint::from_shared(format!("https://{address}")).unwrap().connect_with_connector(dial).await
}

/// Whether a call over a connection with `config` is answered, once the server is up.
async fn is_answered(secure: &Secure, config: rustls::ClientConfig) -> bool {
    let Ok(channel) = channel(secure.server.address, config).await else { return false };
    let mut client = ClassifierClient::new(channel);
    loop {
        match client.list_models(ListModelsRequest {}).await {
            Ok(reply) => return reply.into_inner().models.len() == 2,
            // It warms up.
            Err(status) if status.message().contains("warming up") => {}
            Err(_) => return false,
        }
    }
}

#[tokio::test]
async fn a_client_that_trusts_the_server_is_answered_and_others_do_not_connect() {
    let secure = Secure::start(false).await;
    assert!(is_answered(&secure, client_config(&secure.authority.file, None)).await);
    let stranger = Authority::new(secure.path(), "stranger");
    assert!(!is_answered(&secure, client_config(&stranger.file, None)).await);
    // In the clear there is nobody.
    assert!(
        secure.server.endpoint().connect().await.is_err() || {
            let mut client = ClassifierClient::new(secure.server.endpoint().connect_lazy());
            client.list_models(ListModelsRequest {}).await.is_err()
        }
    );
}

#[tokio::test]
async fn mutual_tls_asks_for_a_certificate_of_the_right_authority() {
    let secure = Secure::start(true).await;
    let roots = &secure.authority.file;
    let known = secure.authority.certify(secure.path(), "client");
    assert!(is_answered(&secure, client_config(roots, Some(&known))).await);
    assert!(!is_answered(&secure, client_config(roots, None)).await);
    let stranger = Authority::new(secure.path(), "stranger").certify(secure.path(), "forged");
    assert!(!is_answered(&secure, client_config(roots, Some(&stranger))).await);
}

#[tokio::test]
async fn a_new_certificate_is_used_without_a_restart_and_a_broken_one_is_not() {
    let secure = Secure::start(false).await;
    let roots = client_config(&secure.authority.file, None);
    assert!(is_answered(&secure, roots.clone()).await);
    let shown = async || {
        let tls = TlsConnector::from(Arc::new(roots.clone()));
        let stream = connect(secure.server.address, &tls).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let first = shown().await;
    // Half of it: key and certificate do not fit, so the old pair stays in use.
    std::fs::write(secure.path().join("server.cert.pem"), "no certificate").unwrap();
    assert_eq!(shown().await, first);
    secure.authority.certify(secure.path(), "server");
    let renewed = async {
        while shown().await == first {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, renewed).await.expect("the new certificate is used");
    assert!(is_answered(&secure, roots.clone()).await);
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_cut() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new(directory.path(), "authority");
    let Certified { cert, key } = authority.certify(directory.path(), "server");
    let config = ServerConfig {
        tls: TlsConfig { cert: Some(cert), key: Some(key), client_ca: None },
        handshake_timeout: Duration::from_secs(1),
        ..ServerConfig::default()
    };
    let server = TestServer::begin(config).await;
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    let mut noisy = TcpStream::connect(server.address).await.unwrap();
    noisy.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    for peer in [&mut silent, &mut noisy] {
        let ended = tokio::time::timeout(PATIENCE, peer.read_to_end(&mut Vec::new())).await;
        drop(ended.expect("the connection ends"));
    }
    // TLS alone is not HTTP/2.
    let roots = client_config(&authority.file, None);
    let tls = TlsConnector::from(Arc::new(roots));
    if let Ok(mut mute) = connect(server.address, &tls).await {
        let ended = tokio::time::timeout(PATIENCE, mute.read_to_end(&mut Vec::new())).await;
        drop(ended.expect("the connection ends"));
    }
}

#[tokio::test]
async fn files_that_are_not_usable_are_named_before_serving() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new(directory.path(), "authority");
    let Certified { cert, key } = authority.certify(directory.path(), "server");
    let other = authority.certify(directory.path(), "other");
    let missing = directory.path().join("missing.pem");
    let cases = [
        (missing.clone(), key.clone(), None, "missing.pem"),
        (key.clone(), key.clone(), None, "holds no certificate"),
        (cert.clone(), cert.clone(), None, "holds no private key"),
        (cert.clone(), other.key, None, "other.key.pem"),
        (cert.clone(), key.clone(), Some(key.clone()), "holds no certificate"),
    ];
    for (cert, key, client_ca, expected) in cases {
        let tls = TlsConfig { cert: Some(cert), key: Some(key), client_ca };
        let config = ServerConfig { tls, ..ServerConfig::default() };
        let error = check_files(&config).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
