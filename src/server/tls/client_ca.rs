//! Who signs the certificates of callers (`authentication.x509.clientCAFile`).
//!
//! A certificate that nobody of ours signed must not end the handshake: the
//! caller may show a token as well, and has a right to a clear "401". So the
//! handshake only makes sure that the caller holds the key, and
//! [`ClientCa::verify`] judges the chain when a request comes, by the CA as it
//! is then.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};

use super::TlsError;
use super::fresh::Fresh;
use crate::certificate::PemError;

/// The bundle of CA certificates, read again when its file changes.
#[derive(Debug)]
pub struct ClientCa(Fresh<Arc<dyn ClientCertVerifier>>);

/// Why a client's certificate does not count.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ClientCertificateError {
    #[error("it cannot be read, or names no user")]
    Unreadable,
    #[error("{0}")]
    Untrusted(rustls::Error),
}

impl ClientCa {
    /// # Errors
    /// If the file cannot be read or holds no CA certificate.
    pub fn from_file(path: PathBuf) -> Result<Self, TlsError> {
        let files = vec![path.clone()];
        Fresh::new(files, move || read(&path)).map(Self)
    }

    /// Whether this chain, the caller's own certificate first, was signed by
    /// one of ours for a client, and is valid now.
    ///
    /// # Errors
    /// Why not.
    pub fn verify(&self, chain: &[CertificateDer<'_>]) -> Result<(), ClientCertificateError> {
        let (own, others) = chain
            .split_first()
            .ok_or(ClientCertificateError::Unreadable)?;
        self.0
            .get()
            .verify_client_cert(own, others, UnixTime::now())
            .map(drop)
            .map_err(ClientCertificateError::Untrusted)
    }
}

fn read(path: &PathBuf) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let unusable = |reason: String| PemError::Unusable {
        path: path.clone(),
        reason,
    };
    let pem = std::fs::read(path).map_err(|source| PemError::Read {
        path: path.clone(),
        source,
    })?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        roots
            .add(certificate)
            .map_err(|error| unusable(error.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier: Arc<dyn ClientCertVerifier> =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| unusable(error.to_string()))?;
    Ok(verifier)
}

/// Asks for a certificate and checks nothing but the caller's signature with it.
#[derive(Debug)]
pub(super) struct ProofOfPossession {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ProofOfPossession {
    pub(super) fn new(provider: &CryptoProvider) -> Self {
        Self {
            algorithms: provider.signature_verification_algorithms,
        }
    }
}

impl ClientCertVerifier for ProofOfPossession {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
