//! Certificates that a test makes for itself.

use std::path::{Path, PathBuf};

use graviola::hashing::Sha256;
use graviola::signing::ecdsa::{P256, SigningKey};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyIdMethod, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm,
};

/// The bytes of an uncompressed point of P-256, which end its public key.
const POINT_BYTES: usize = 65;

/// A certificate authority, in a file.
pub(crate) struct Authority {
    issuer: Issuer<'static, Key>,
    /// Its own certificate.
    pub(crate) file: PathBuf,
}

/// A certificate and its key, in files.
pub(crate) struct Certified {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

struct Key {
    signing: SigningKey<P256>,
    point: Vec<u8>,
}

impl Key {
    fn generate() -> Self {
        let signing = SigningKey::generate().unwrap();
        let mut buffer = [0; 256];
        let public = signing.to_spki_der(&mut buffer).unwrap();
        let point = public[public.len() - POINT_BYTES..].to_vec();
        Self { signing, point }
    }

    fn pem(&self) -> String {
        let mut buffer = [0; 512];
        let der = self.signing.to_pkcs8_der(&mut buffer).unwrap();
        pem::encode(&pem::Pem::new("PRIVATE KEY", der))
    }
}

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        &self.point
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let mut buffer = [0; 128];
        Ok(self.signing.sign_asn1::<Sha256>(&[message], &mut buffer).unwrap().to_vec())
    }
}

impl Authority {
    /// A new authority called `name`, whose certificate is in `directory`.
    pub(crate) fn new(directory: &Path, name: &str) -> Self {
        let key = Key::generate();
        let mut params = params(name, &key, Vec::new());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let file = directory.join(format!("{name}.pem"));
        std::fs::write(&file, params.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: Issuer::new(params, key), file }
    }

    /// Certifies `name` for 127.0.0.1, as server and client, in files of `directory`.
    pub(crate) fn certify(&self, directory: &Path, name: &str) -> Certified {
        let key = Key::generate();
        let mut params = params(name, &key, vec!["127.0.0.1".to_owned()]);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files = Certified {
            cert: directory.join(format!("{name}.cert.pem")),
            key: directory.join(format!("{name}.key.pem")),
        };
        std::fs::write(&files.cert, certificate.pem()).unwrap();
        std::fs::write(&files.key, key.pem()).unwrap();
        files
    }
}

fn params(name: &str, key: &Key, names: Vec<String>) -> CertificateParams {
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    // Any that differ; the first bytes of a point are as good as random.
    params.serial_number = Some(key.point[1..17].to_vec().into());
    params.key_identifier_method = KeyIdMethod::PreSpecified(key.point[1..21].to_vec());
    params
}
