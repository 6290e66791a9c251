//! TLS: the server's certificate, and the clients' where they must show one.
//!
//! rustls with the cryptography of graviola, which builds with Rust alone.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio_rustls::TlsAcceptor;

use super::listen::ByteStream;
use super::watched::{FileError, Watched};

/// What TLS says of the protocol inside: HTTP/2, and nothing else.
const ALPN: &[u8] = b"h2";

/// The files of TLS, in PEM. They are read again when they change. Without any, everything is
/// sent in the clear.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct TlsConfig {
    /// The server's certificate, and those between it and its authority.
    pub cert: Option<PathBuf>,
    /// Its private key.
    pub key: Option<PathBuf>,
    /// The authorities whose clients may connect; `None`: clients need no certificate.
    pub client_ca: Option<PathBuf>,
}

/// Makes TLS connections, always with the newest certificate.
pub(crate) struct Tls {
    config: Watched<rustls::ServerConfig>,
}

/// A connection after its handshake.
pub(crate) struct Secured {
    /// The bytes in the clear.
    pub(crate) stream: Box<dyn ByteStream>,
    /// Names the client's certificate, if it has shown one.
    pub(crate) certificate: Option<Arc<str>>,
}

impl Tls {
    /// Reads the files; `None` if there are none.
    ///
    /// # Errors
    /// A file cannot be read or does not hold what it should, or this processor cannot do TLS.
    pub(crate) fn load(config: &TlsConfig) -> Result<Option<Self>, FileError> {
        let TlsConfig { cert: Some(cert), key: Some(key), client_ca } = config.clone() else {
            return Ok(None);
        };
        let files = [Some(cert.clone()), Some(key.clone()), client_ca.clone()];
        let provider = provider().map_err(|problem| FileError::new(&cert, problem))?;
        let parse = move |contents: &[Vec<u8>]| {
            let content = |index: usize| contents.get(index).map(Vec::as_slice).unwrap_or_default();
            let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()
                .map_err(|error| FileError::new(&cert, error))?;
            let builder = match &client_ca {
                None => builder.with_no_client_auth(),
                Some(file) => {
                    let roots = Arc::new(authorities(file, content(2))?);
                    let provider = Arc::clone(&provider);
                    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                    let verifier = verifier.build().map_err(|error| FileError::new(file, error))?;
                    builder.with_client_cert_verifier(verifier)
                }
            };
            let (chain, private) =
                (certificates(&cert, content(0))?, private_key(&key, content(1))?);
            let mut tls = builder
                .with_single_cert(chain, private)
                .map_err(|error| FileError::new(&key, error))?;
            tls.alpn_protocols = vec![ALPN.to_vec()];
            Ok(tls)
        };
        let config = Watched::load(files.into_iter().flatten().collect(), parse)?;
        Ok(Some(Self { config }))
    }

    /// Reads the files again if they have changed. Connections that are open stay as they are.
    pub(crate) fn refresh(&self) {
        self.config.refresh();
    }

    /// Does the handshake.
    ///
    /// # Errors
    /// It fails.
    pub(crate) async fn accept(&self, stream: Box<dyn ByteStream>) -> io::Result<Secured> {
        let stream = TlsAcceptor::from(self.config.get()).accept(stream).await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let certificate = shown.map(|shown| fingerprint(shown).into());
        Ok(Secured { stream: Box::new(stream), certificate })
    }
}

/// The cryptography that TLS uses, for servers and clients.
///
/// # Errors
/// This processor lacks what it needs, in words.
pub fn provider() -> Result<Arc<CryptoProvider>, String> {
    // graviola panics on others, at its first use.
    #[cfg(target_arch = "x86_64")]
    let able = std::arch::is_x86_feature_detected!("aes")
        && std::arch::is_x86_feature_detected!("pclmulqdq")
        && std::arch::is_x86_feature_detected!("bmi1")
        && std::arch::is_x86_feature_detected!("adx")
        && std::arch::is_x86_feature_detected!("avx")
        && std::arch::is_x86_feature_detected!("avx2");
    #[cfg(target_arch = "aarch64")]
    let able = std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull")
        && std::arch::is_aarch64_feature_detected!("sha2");
    if able {
        Ok(Arc::new(rustls_graviola::default_provider()))
    } else {
        Err("TLS needs a processor with AES, PCLMULQDQ, BMI1, ADX and AVX2 (x86), \
             or AES, PMULL and SHA-2 (ARM)"
            .to_owned())
    }
}

/// The certificate authorities in `pem`, the content of `file`.
///
/// # Errors
/// There is none, or one is not usable.
pub fn authorities(file: &Path, pem: &[u8]) -> Result<RootCertStore, FileError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file, pem)? {
        roots.add(certificate).map_err(|error| FileError::new(file, error))?;
    }
    Ok(roots)
}

/// The certificates in `pem`, the content of `file`.
///
/// # Errors
/// There is none, or the file is not PEM.
pub fn certificates(file: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err(FileError::new(file, "it holds no certificate")),
        Ok(found) => Ok(found),
        Err(error) => Err(FileError::new(file, error)),
    }
}

/// The private key in `pem`, the content of `file`.
///
/// # Errors
/// There is none.
pub fn private_key(file: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, FileError> {
    PrivateKeyDer::from_pem_slice(pem)
        .map_err(|_| FileError::new(file, "it holds no private key in PEM"))
}

/// The start of a certificate's SHA-256, enough to tell clients apart.
fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let hash = Sha256::digest(certificate);
    let start: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("certificate {start}")
}
