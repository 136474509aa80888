//! A serving certificate from the cluster's signer (`serverTLSBootstrap`).
//!
//! In: the addresses that our Node object shows, and the signer
//! `kubernetes.io/kubelet-serving`. Out: the certificate, now and whenever it
//! is renewed. It is kept as `kubelet-server-<time>.pem`, certificate and key,
//! behind the link `kubelet-server-current.pem`, so that a restart asks nobody.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;
use rcgen::{CertificateParams, DnType, KeyPair, SanType};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::key_pair::{self, make_directory, validity, write_private};
use super::{Serving, TlsError};
use crate::apiserver::{NodeFeed, Signing, SigningOutcome, SigningRequest};
use crate::error::chain;

const SIGNER: &str = "kubernetes.io/kubelet-serving";
const USAGES: &[&str] = &["digital signature", "server auth"];
/// Pauses between requests that came to nothing.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(5 * 60);
/// Longest sleep before a renewal: the clock may be set meanwhile.
const NAP: Duration = Duration::from_secs(3600);

/// Whose certificate it is, and where it is kept.
#[derive(Debug, Clone)]
pub struct Identity {
    pub node_name: String,
    /// `--cert-dir`.
    pub directory: PathBuf,
}

/// The task that gets the certificate and renews it in time.
pub struct ServingBootstrap {
    signing: Arc<dyn Signing>,
    identity: Identity,
    node: NodeFeed,
    out: watch::Sender<Option<Arc<CertifiedKey>>>,
}

/// The names that a certificate is good for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Names {
    dns: BTreeSet<String>,
    ips: BTreeSet<IpAddr>,
}

/// A certificate in use.
struct Held {
    pair: Arc<CertifiedKey>,
    names: Names,
    renew_at: Timestamp,
    expires_at: Timestamp,
}

impl ServingBootstrap {
    #[must_use]
    pub fn new(signing: Arc<dyn Signing>, identity: Identity, node: NodeFeed) -> (Self, Serving) {
        let (out, serving) = watch::channel(None);
        let task = Self {
            signing,
            identity,
            node,
            out,
        };
        (task, Serving::Signed(serving))
    }

    /// Runs until shutdown.
    pub async fn run(mut self, shutdown: CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.keep() => {}
        }
    }

    async fn keep(&mut self) {
        let mut held = self.load();
        let mut pause = RETRY_MIN;
        loop {
            let now = Timestamp::now();
            self.publish(held.as_ref(), now);
            let names = self.node.borrow_and_update().as_deref().map(names_of);
            let Some(names) = names.filter(|names| !names.ips.is_empty()) else {
                if self.node.changed().await.is_err() {
                    return;
                }
                continue;
            };
            if let Some(rest) = held.as_ref().and_then(|held| held.rest(&names, now)) {
                pause = RETRY_MIN;
                tokio::select! {
                    () = tokio::time::sleep(rest.min(NAP)) => {}
                    changed = self.node.changed() => if changed.is_err() { return },
                }
                continue;
            }
            match self.obtain(&names).await {
                Some(new) => held = Some(new),
                None => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_MAX);
                }
            }
        }
    }

    /// An expired certificate is worse than none: callers would be told a lie.
    fn publish(&self, held: Option<&Held>, now: Timestamp) {
        let good = held.filter(|held| now < held.expires_at);
        self.out.send_if_modified(|shown| {
            let next = good.map(|held| Arc::clone(&held.pair));
            let is_same = match (&*shown, &next) {
                (Some(old), Some(new)) => Arc::ptr_eq(old, new),
                (old, new) => old.is_none() && new.is_none(),
            };
            *shown = next;
            !is_same
        });
    }

    async fn obtain(&self, names: &Names) -> Option<Held> {
        match self.request(names).await {
            Ok(Some(held)) => {
                info!(expires = %held.expires_at, "got a serving certificate");
                Some(held)
            }
            Ok(None) => None,
            Err(error) => {
                warn!(error = %chain(&error), "cannot use a new serving certificate");
                None
            }
        }
    }

    /// `Ok(None)`: refused or not decided, which has been told.
    async fn request(&self, names: &Names) -> Result<Option<Held>, TlsError> {
        let failed = |source| TlsError::Generate { source };
        let key = KeyPair::generate().map_err(failed)?;
        let params = params(&self.identity.node_name, names).map_err(failed)?;
        let request = SigningRequest {
            pem: params
                .serialize_request(&key)
                .and_then(|request| request.pem())
                .map_err(failed)?,
            signer: SIGNER,
            usages: USAGES,
        };
        info!(?names, "asking for a serving certificate");
        match self.signing.sign(&request).await {
            Ok(SigningOutcome::Issued(pem)) => self.store(&pem, &key).map(Some),
            Ok(SigningOutcome::Refused(why)) => {
                warn!(why, "the serving certificate was refused");
                Ok(None)
            }
            Ok(SigningOutcome::Undecided) => {
                warn!("nobody approved the serving certificate; asking once more");
                Ok(None)
            }
            Err(error) => {
                warn!(error = %chain(&error), "cannot ask for a serving certificate");
                Ok(None)
            }
        }
    }

    fn current(&self) -> PathBuf {
        self.identity.directory.join("kubelet-server-current.pem")
    }

    fn load(&self) -> Option<Held> {
        let current = self.current();
        let pair = key_pair::read(&current, &current).ok()?;
        Held::of(pair)
    }

    fn store(&self, pem: &[u8], key: &KeyPair) -> Result<Held, TlsError> {
        let directory = &self.identity.directory;
        let name = format!(
            "kubelet-server-{}.pem",
            Timestamp::now().strftime("%Y-%m-%d-%H-%M-%S")
        );
        make_directory(directory)?;
        let path = directory.join(&name);
        write_private(&path, &[pem, key.serialize_pem().as_bytes()].concat())?;
        let held = Held::of(key_pair::read(&path, &path)?).ok_or_else(|| TlsError::Pem {
            path: path.clone(),
            reason: "not a certificate with a validity".to_owned(),
        })?;
        let link = directory.join("kubelet-server-updated.pem");
        let point = || {
            match std::fs::remove_file(&link) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            std::os::unix::fs::symlink(&name, &link)?;
            std::fs::rename(&link, self.current())
        };
        point().map_err(|source| TlsError::Write {
            path: self.current(),
            source,
        })?;
        Ok(held)
    }
}

impl Held {
    fn of(pair: CertifiedKey) -> Option<Self> {
        let (from, to) = validity(&pair)?;
        let names = certified_names(&pair)?;
        Some(Self {
            pair: Arc::new(pair),
            names,
            renew_at: renewal(from, to, rand::random_range(0.0..0.2)),
            expires_at: to,
        })
    }

    /// Time until the renewal; `None`: it is due, as of now or of other names.
    fn rest(&self, names: &Names, now: Timestamp) -> Option<Duration> {
        let rest = self.renew_at.duration_since(now);
        (self.names == *names && rest.is_positive()).then(|| rest.unsigned_abs())
    }
}

/// Between 70 % and 90 % of the certificate's life, so that the nodes of a
/// cluster do not ask all at once.
fn renewal(from: Timestamp, to: Timestamp, jitter: f64) -> Timestamp {
    let life = to.duration_since(from).as_secs_f64();
    let rest = SignedDuration::try_from_secs_f64(life * (0.7 + jitter)).unwrap_or_default();
    from.saturating_add(rest).unwrap_or(to)
}

fn names_of(node: &Node) -> Names {
    let mut names = Names::default();
    let status = node.status.as_ref();
    for address in status
        .iter()
        .flat_map(|status| status.addresses.iter().flatten())
    {
        if address.type_.ends_with("IP") {
            names.ips.extend(address.address.parse::<IpAddr>());
        } else if !address.address.is_empty() {
            names.dns.insert(address.address.clone());
        }
    }
    names
}

fn certified_names(pair: &CertifiedKey) -> Option<Names> {
    let (_, certificate) = X509Certificate::from_der(pair.cert.first()?).ok()?;
    let mut names = Names::default();
    let extension = certificate.subject_alternative_name().ok()?;
    for name in extension
        .iter()
        .flat_map(|names| &names.value.general_names)
    {
        match name {
            GeneralName::DNSName(name) => {
                names.dns.insert((*name).to_owned());
            }
            GeneralName::IPAddress(bytes) => {
                let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                names
                    .ips
                    .extend(v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from)));
            }
            _ => {}
        }
    }
    Some(names)
}

fn params(node_name: &str, names: &Names) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names.dns.iter().cloned().collect::<Vec<_>>())?;
    params
        .subject_alt_names
        .extend(names.ips.iter().copied().map(SanType::IpAddress));
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "system:nodes");
    params
        .distinguished_name
        .push(DnType::CommonName, format!("system:node:{node_name}"));
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_between_seven_and_nine_tenths_of_its_life() {
        let from: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let to: Timestamp = "2026-01-11T00:00:00Z".parse().unwrap();
        assert_eq!(renewal(from, to, 0.0).to_string(), "2026-01-08T00:00:00Z");
        assert_eq!(renewal(from, to, 0.2).to_string(), "2026-01-10T00:00:00Z");
    }

    #[test]
    fn the_request_has_the_nodes_names() {
        let node: Node = serde_json::from_value(serde_json::json!({
            "status": { "addresses": [
                { "type": "InternalIP", "address": "10.0.0.1" },
                { "type": "InternalIP", "address": "fd00::1" },
                { "type": "Hostname", "address": "worker" },
            ]}
        }))
        .unwrap();
        let names = names_of(&node);
        let key = KeyPair::generate().unwrap();
        let certificate = params("worker", &names).unwrap().self_signed(&key).unwrap();
        let (_, parsed) = X509Certificate::from_der(certificate.der()).unwrap();
        assert_eq!(
            parsed.subject().to_string(),
            "O=system:nodes, CN=system:node:worker"
        );
        let signer = rustls::crypto::ring::sign::any_supported_type(
            &rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
        let pair = CertifiedKey::new(vec![certificate.der().clone()], signer);
        assert_eq!(certified_names(&pair), Some(names));
    }
}
