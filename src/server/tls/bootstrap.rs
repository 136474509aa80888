//! A serving certificate from the cluster's signer (`serverTLSBootstrap`).
//!
//! In: the addresses that our Node object shows, and the signer
//! `kubernetes.io/kubelet-serving`. Out: the certificate, now and whenever it
//! is renewed. It is kept in a store, so that a restart asks nobody.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use rustls::sign::CertifiedKey;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Serving;
use crate::apiserver::{NodeFeed, Signing, enrol};
use crate::certificate::{Names, Store, Wish, certified_names, renew_at, validity};
use crate::error::chain;

const SIGNER: &str = "kubernetes.io/kubelet-serving";
const USAGES: &[&str] = &["digital signature", "server auth"];
/// Pauses between requests that came to nothing.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(5 * 60);
/// Longest sleep before a renewal: the clock may be set meanwhile.
const NAP: Duration = Duration::from_secs(3600);

/// The task that gets the certificate and renews it in time.
pub struct ServingBootstrap {
    signing: Arc<dyn Signing>,
    node_name: String,
    store: Store,
    node: NodeFeed,
    out: watch::Sender<Option<Arc<CertifiedKey>>>,
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
    pub fn new(
        signing: Arc<dyn Signing>,
        node_name: String,
        store: Store,
        node: NodeFeed,
    ) -> (Self, Serving) {
        let (out, serving) = watch::channel(None);
        let task = Self {
            signing,
            node_name,
            store,
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

    /// `None`: nothing came of it, which has been told.
    async fn obtain(&self, names: &Names) -> Option<Held> {
        info!(?names, "asking for a serving certificate");
        let wish = Wish {
            node_name: self.node_name.clone(),
            signer: SIGNER,
            usages: USAGES,
            names: names.clone(),
        };
        match enrol(&*self.signing, &self.store, &wish).await {
            Ok(pair) => {
                let held = Held::of(pair)?;
                info!(expires = %held.expires_at, "got a serving certificate");
                Some(held)
            }
            Err(error) => {
                warn!(error = %chain(&error), "no serving certificate; trying again");
                None
            }
        }
    }

    fn load(&self) -> Option<Held> {
        self.store.load().ok().flatten().and_then(Held::of)
    }
}

impl Held {
    fn of(pair: CertifiedKey) -> Option<Self> {
        let (from, to) = validity(&pair)?;
        let names = certified_names(&pair)?;
        Some(Self {
            pair: Arc::new(pair),
            names,
            renew_at: renew_at((from, to), rand::random_range(0.0..1.0)),
            expires_at: to,
        })
    }

    /// Time until the renewal; `None`: it is due, as of now or of other names.
    fn rest(&self, names: &Names, now: Timestamp) -> Option<Duration> {
        let rest = self.renew_at.duration_since(now);
        (self.names == *names && rest.is_positive()).then(|| rest.unsigned_abs())
    }
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

#[cfg(test)]
mod tests {
    use super::*;

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
        let wanted = Names {
            dns: ["worker".to_owned()].into(),
            ips: ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()].into(),
        };
        assert_eq!(names_of(&node), wanted);
    }
}
