//! Versions and cipher suites: Kubernetes' names to what the TLS library has.

use rustls::SupportedProtocolVersion;
use rustls::crypto::{CryptoProvider, ring};
use rustls::version::{TLS12, TLS13};

/// A protocol that cannot be spoken.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ProtocolError {
    #[error("none of the configured cipher suites is supported: {}", names.join(", "))]
    Suites { names: Vec<String> },
    #[error("{name:?} is not a TLS version")]
    Version { name: String },
    #[error("no configured cipher suite goes with a configured TLS version")]
    Nothing {
        #[source]
        source: rustls::Error,
    },
}

/// The versions from `min` on. TLS 1.0 and 1.1 are not spoken: asking for
/// either as the least gives 1.2.
pub(super) fn versions(
    min: Option<&str>,
) -> Result<Vec<&'static SupportedProtocolVersion>, ProtocolError> {
    match min {
        None | Some("" | "VersionTLS10" | "VersionTLS11" | "VersionTLS12") => {
            Ok(vec![&TLS13, &TLS12])
        }
        Some("VersionTLS13") => Ok(vec![&TLS13]),
        Some(other) => Err(ProtocolError::Version {
            name: other.to_owned(),
        }),
    }
}

/// The library, cut down to these suites. As with upstream, the list is about
/// TLS 1.2 and those of 1.3 are always on. Names that are not supported are left
/// out, as long as one is left: no client is served worse than asked for.
pub(super) fn provider(names: &[String]) -> Result<CryptoProvider, ProtocolError> {
    let mut provider = ring::default_provider();
    if names.is_empty() {
        return Ok(provider);
    }
    let is_named = |suite: &rustls::SupportedCipherSuite| {
        let own = format!("{:?}", suite.suite());
        // Without the "13" that the library puts into them.
        let iana = own.replacen("TLS13_", "TLS_", 1);
        names.contains(&iana)
    };
    if !provider.cipher_suites.iter().any(is_named) {
        return Err(ProtocolError::Suites {
            names: names.to_vec(),
        });
    }
    provider
        .cipher_suites
        .retain(|suite| suite.tls13().is_some() || is_named(suite));
    Ok(provider)
}
