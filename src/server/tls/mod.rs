//! TLS of the node's API: protocol, the serving certificate, and whose client
//! certificates count.
//!
//! In: files, or the cluster's signer. Out: a [`rustls::ServerConfig`] whose
//! certificate follows its files, and a [`ClientCa`] that does the same.
//!
//! | file | what |
//! |---|---|
//! | `protocol` | versions and cipher suites by their configured names; pure |
//! | `fresh` | values read from files, read again when those change |
//! | `key_pair` | certificate and key: from files, self-signed |
//! | `client_ca` | who signs the certificates of callers |
//! | `bootstrap` | a serving certificate from the cluster's signer, and its renewal |

mod bootstrap;
mod client_ca;
mod fresh;
mod key_pair;
mod protocol;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;

pub use bootstrap::ServingBootstrap;
pub use client_ca::{ClientCa, ClientCertificateError};
pub use protocol::ProtocolError;

use crate::certificate::PemError;
use client_ca::ProofOfPossession;
use fresh::Fresh;

/// The application protocols that are served, best first.
const ALPN: &[&[u8]] = &[b"h2", b"http/1.1"];

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error(transparent)]
    Files(#[from] PemError),
    #[error("cannot make a certificate")]
    Generate {
        #[source]
        source: rcgen::Error,
    },
    #[error("cannot set TLS up")]
    Protocol {
        #[source]
        source: ProtocolError,
    },
}

/// The certificate that is served.
#[derive(Debug)]
pub enum Serving {
    /// From files, read again when they change.
    Files(Fresh<CertifiedKey>),
    /// From the cluster's signer; handshakes fail until it has signed.
    Signed(watch::Receiver<Option<Arc<CertifiedKey>>>),
}

impl Serving {
    /// `tlsCertFile` and `tlsPrivateKeyFile`.
    ///
    /// # Errors
    /// If they cannot be read or do not go together.
    pub fn files(certificate: PathBuf, key: PathBuf) -> Result<Self, TlsError> {
        key_pair::from_files(certificate, key).map(Self::Files)
    }

    /// `kubelet.crt` and `kubelet.key` in the certificate directory, made anew
    /// if they are missing, unusable or about to expire.
    ///
    /// # Errors
    /// If they cannot be made.
    pub fn self_signed(directory: &std::path::Path, node_name: &str) -> Result<Self, TlsError> {
        key_pair::self_signed(directory, node_name).map(Self::Files)
    }
}

impl ResolvesServerCert for Serving {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        match self {
            Self::Files(files) => Some(files.get()),
            Self::Signed(signed) => signed.borrow().clone(),
        }
    }
}

/// The listener's TLS: `versions` and `suites` as they are configured, an empty
/// list of suites leaving the choice to the library. Client certificates are
/// asked for, not demanded, and judged later ([`ClientCa::verify`]).
///
/// # Errors
/// If nothing is left to speak.
pub fn server_config(
    serving: Serving,
    min_version: Option<&str>,
    suites: &[String],
) -> Result<ServerConfig, TlsError> {
    let failed = |source| TlsError::Protocol { source };
    let provider = Arc::new(protocol::provider(suites).map_err(failed)?);
    let versions = protocol::versions(min_version).map_err(failed)?;
    let proof = ProofOfPossession::new(&provider);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)
        .map_err(|source| failed(ProtocolError::Nothing { source }))?
        .with_client_cert_verifier(Arc::new(proof))
        .with_cert_resolver(Arc::new(serving));
    config.alpn_protocols = ALPN.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}
