//! Who this node is to the API server: its client certificate, got with a bootstrap
//! token and renewed in time.
//!
//! In: `--kubeconfig`, `--bootstrap-kubeconfig`, the store in `--cert-dir`, and the
//! signer `kubernetes.io/kube-apiserver-client-kubelet`. Out: a newer certificate in
//! the store, a kubeconfig that names it, and word to the [`Connection`]. What is to
//! be done when is in `plan`.
//!
//! [`Connection`]: super::Connection

mod metrics;
mod plan;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use rustls::sign::CertifiedKey;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::client::{ApiSettings, Credentials, connect};
use super::enrolment::enrol;
use super::kubeconfig::{self, KubeconfigError};
use super::{Reconnect, Signing};
use crate::certificate::{Names, Store, Wish, is_of_node, renew_at, validity};
use crate::error::chain;

pub use metrics::{IdentityMetrics, register_ttl};
use plan::{Held, Next, Place};
pub use plan::{Renewal, Via};

const SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const USAGES: &[&str] = &["digital signature", "client auth"];
/// Pauses between requests that came to nothing.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Longest sleep before a renewal: the clock may be set, and files be exchanged,
/// meanwhile.
const NAP: Duration = Duration::from_secs(60);

/// Where the node's identity is kept, and how it is got.
#[derive(Debug, Clone)]
pub struct IdentitySettings {
    pub node_name: String,
    /// `--kubeconfig`.
    pub kubeconfig: PathBuf,
    /// `--bootstrap-kubeconfig`.
    pub bootstrap: Option<PathBuf>,
    pub store: Store,
    /// `rotateCertificates`.
    pub renewal: Renewal,
}

/// What there is at a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// A kubeconfig that can be used.
    Known,
    /// Nothing yet but the bootstrap kubeconfig.
    New,
}

/// Who signs for a node that has no certificate yet.
#[async_trait]
pub trait Bootstrap: Send + Sync {
    /// The signer, as of now.
    async fn signing(&self) -> Result<Arc<dyn Signing>, KubeconfigError>;
}

/// A bootstrap kubeconfig. It is read whenever it is needed: tokens expire, and are
/// exchanged for new ones.
pub struct BootstrapFile(pub ApiSettings);

#[async_trait]
impl Bootstrap for BootstrapFile {
    async fn signing(&self) -> Result<Arc<dyn Signing>, KubeconfigError> {
        let (api, _) = connect(&self.0).await?;
        Ok(Arc::new(api))
    }
}

/// The task that gets the certificate and renews it.
pub struct Identity {
    pub settings: IdentitySettings,
    /// As the node itself.
    pub own: Arc<dyn Signing>,
    /// As somebody who may ask for a node's certificate.
    pub bootstrap: Option<Arc<dyn Bootstrap>>,
    pub connection: Arc<dyn Reconnect>,
    pub metrics: IdentityMetrics,
    /// When the certificate in use expires; `None`: there is none.
    pub expires: watch::Sender<Option<Timestamp>>,
}

impl IdentitySettings {
    /// Looks at what there is. An existing kubeconfig wins, unless it, or the
    /// certificate in it, cannot be used and there is a bootstrap kubeconfig.
    ///
    /// # Errors
    /// If there is nothing to start with.
    pub fn standing(&self, now: Timestamp) -> Result<Standing, KubeconfigError> {
        let problem = match usable(&self.kubeconfig) {
            Ok(pair) => match pair.as_ref().and_then(validity) {
                Some((_, end)) if end <= now => None,
                _ => return Ok(Standing::Known),
            },
            Err(error) => Some(error),
        };
        let Some(bootstrap) = &self.bootstrap else {
            return problem.map_or(Ok(Standing::Known), Err);
        };
        match (kubeconfig::read(bootstrap), problem) {
            (Ok(_), problem) => {
                if let Some(error) = problem {
                    info!(
                        reason = %chain(&error),
                        bootstrap = %bootstrap.display(),
                        "no kubeconfig that can be used yet, starting with the bootstrap kubeconfig"
                    );
                }
                Ok(Standing::New)
            }
            (Err(error), None) => {
                warn!(
                    kubeconfig = %self.kubeconfig.display(),
                    error = %chain(&error),
                    "the client certificate has expired, and there is no bootstrap kubeconfig \
                     to get another one with"
                );
                Ok(Standing::Known)
            }
            (Err(error), Some(problem)) => Err(KubeconfigError::Neither {
                bootstrap: chain(&error).to_string(),
                source: Box::new(problem),
            }),
        }
    }
}

/// The client's certificate of a kubeconfig that can be used; `Ok(None)` if it has
/// other credentials.
fn usable(file: &Path) -> Result<Option<CertifiedKey>, KubeconfigError> {
    kubeconfig::read(file)?.key_pair()
}

impl Identity {
    /// Runs until shutdown.
    pub async fn run(self, shutdown: CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.keep() => {}
        }
    }

    async fn keep(&self) {
        let mut pause = RETRY_MIN;
        let mut held = self.look(None, Timestamp::MIN);
        loop {
            let now = Timestamp::now();
            held = self.look(held, now);
            self.expires
                .send_replace(held.as_ref().map(|held| held.expires_at));
            match plan::next(
                held.as_ref(),
                self.settings.renewal,
                self.has_bootstrap(),
                now,
            ) {
                Next::Rest(rest) => {
                    pause = RETRY_MIN;
                    tokio::time::sleep(rest.map_or(NAP, |rest| rest.min(NAP))).await;
                }
                Next::Adopt => {
                    if !self.adopt().await {
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(RETRY_MAX);
                    }
                }
                Next::Request(via) => {
                    if !self.request(via).await {
                        self.metrics.errors.inc();
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(RETRY_MAX);
                    }
                }
            }
        }
    }

    fn has_bootstrap(&self) -> bool {
        self.bootstrap.is_some()
    }

    /// What is held now. `before` keeps its time of renewal if it is the same one.
    /// Another one came at `got`, and its life counts from then: signers date them
    /// back, and what lives for minutes would be due at once.
    fn look(&self, before: Option<Held>, got: Timestamp) -> Option<Held> {
        let now = Timestamp::now();
        let file = usable(&self.settings.kubeconfig);
        let is_named = file.is_ok();
        let kept = self.settings.store.load().unwrap_or_else(|error| {
            warn!(error = %chain(&error), "cannot use the certificate that is kept");
            None
        });
        let kept = kept.map(|pair| {
            (
                pair,
                if is_named {
                    Place::Store
                } else {
                    Place::Unnamed
                },
            )
        });
        let file = file.ok().flatten().map(|pair| (pair, Place::Kubeconfig));
        let judged: Vec<_> = [kept, file]
            .into_iter()
            .flatten()
            .filter_map(|(pair, place)| self.judge(&pair, place, before.as_ref(), got))
            .collect();
        let good = judged.iter().position(|held| now < held.expires_at);
        judged.into_iter().nth(good.unwrap_or(0))
    }

    fn judge(
        &self,
        pair: &CertifiedKey,
        place: Place,
        before: Option<&Held>,
        got: Timestamp,
    ) -> Option<Held> {
        let (from, to) = validity(pair)?;
        let same = before.filter(|before| (before.from, before.expires_at) == (from, to));
        Some(Held {
            from,
            expires_at: to,
            renew_at: same.map_or_else(
                || renew_at((from.max(got), to), rand::random_range(0.0..1.0)),
                |same| same.renew_at,
            ),
            place,
            is_ours: is_of_node(pair, &self.settings.node_name),
        })
    }

    /// Writes the kubeconfig for a certificate that is here without one.
    async fn adopt(&self) -> bool {
        let done = match self.name_certificate() {
            Ok(()) => self.connection.reconnect().await,
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => true,
            Err(error) => {
                warn!(error = %chain(&error), "cannot go on with the certificate that is kept; trying again");
                false
            }
        }
    }

    fn name_certificate(&self) -> Result<(), KubeconfigError> {
        let Some(bootstrap) = &self.settings.bootstrap else {
            return Ok(());
        };
        let bootstrap = kubeconfig::read(bootstrap)?;
        let certificate = self.settings.store.current();
        kubeconfig::write(&self.settings.kubeconfig, &bootstrap, &certificate)?;
        info!(file = %self.settings.kubeconfig.display(), "wrote the kubeconfig");
        Ok(())
    }

    /// Whether there is a new certificate, in use; if not, it has been told why.
    async fn request(&self, via: Via) -> bool {
        let signing = match (via, &self.bootstrap) {
            (Via::Bootstrap, Some(bootstrap)) => match bootstrap.signing().await {
                Ok(signing) => signing,
                Err(error) => {
                    warn!(error = %chain(&error), "cannot use the bootstrap kubeconfig; trying again");
                    return false;
                }
            },
            _ => Arc::clone(&self.own),
        };
        let wish = Wish {
            node_name: self.settings.node_name.clone(),
            signer: SIGNER,
            usages: USAGES,
            names: Names::default(),
        };
        info!(?via, "asking for a client certificate");
        let pair = match enrol(&*signing, &self.settings.store, &wish).await {
            Ok(pair) => pair,
            Err(error) => {
                warn!(error = %chain(&error), "no new client certificate; trying again");
                return false;
            }
        };
        if let Some((_, expires)) = validity(&pair) {
            info!(%expires, "got a client certificate");
        }
        let named = match via {
            Via::Bootstrap => self.name_certificate(),
            Via::Own => Ok(()),
        };
        let used = match named {
            Ok(()) => self.connection.reconnect().await,
            Err(error) => Err(error),
        };
        if let Err(error) = &used {
            warn!(error = %chain(error), "cannot use the new client certificate");
        }
        used.is_ok()
    }
}

impl ApiSettings {
    /// The same with other credentials, for one who has few calls to make.
    #[must_use]
    pub fn with_kubeconfig(&self, file: PathBuf) -> Self {
        Self {
            credentials: Credentials::Kubeconfig(file),
            ..self.clone()
        }
    }
}
