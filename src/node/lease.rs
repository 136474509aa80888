//! The node's heartbeat: a Lease in `kube-node-lease` that is renewed at a
//! quarter of its duration. Without it the control plane gives the node up, so
//! this loop waits for nothing else and outlives any absence of the API server.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::NodeUid;
use super::task::FIRST_PAUSE;
use crate::apiserver::{ApiError, Backoff, Disposition, LeasePort};
use crate::error::chain;

const NAMESPACE: &str = "kube-node-lease";
/// Updates that are tried before the Lease is read anew.
const UPDATES: u32 = 5;
/// Renewals are spread by up to this part of their period.
const JITTER: f64 = 0.04;

/// The loop's state.
pub struct LeaseTask {
    port: Arc<dyn LeasePort>,
    node_name: String,
    duration: Duration,
    /// Whom the Lease belongs to and dies with.
    registered: watch::Receiver<Option<NodeUid>>,
    /// As the API server has it, if that is known.
    latest: Option<Lease>,
}

impl LeaseTask {
    /// `duration`: `nodeLeaseDurationSeconds`. `registered` comes from
    /// [`NodeTask::new`](super::NodeTask::new).
    #[must_use]
    pub fn new(
        port: Arc<dyn LeasePort>,
        node_name: String,
        duration: Duration,
        registered: watch::Receiver<Option<NodeUid>>,
    ) -> Self {
        Self {
            port,
            node_name,
            duration,
            registered,
            latest: None,
        }
    }

    /// Renews until shutdown.
    pub async fn run(mut self, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(self.renew_for_ever()).await;
    }

    async fn renew_for_ever(&mut self) {
        loop {
            self.renew().await;
            let pause = (self.duration / 4).mul_f64(1.0 + JITTER * rand::random::<f64>());
            tokio::time::sleep(pause).await;
        }
    }

    /// One renewal. Comes back when it is done, or when there is no Node yet
    /// that a new Lease could belong to.
    async fn renew(&mut self) {
        if self.latest.is_some() && self.update_known().await {
            return;
        }
        self.latest = None;
        let mut backoff = Backoff::starting_at(FIRST_PAUSE);
        let found = loop {
            match self.get_or_create().await {
                Ok(found) => break found,
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "cannot read or create the node lease");
                    tokio::time::sleep(backoff.after(error.disposition())).await;
                }
            }
        };
        match found {
            Found::Created(lease) => self.latest = Some(lease),
            Found::NoOwner => {}
            Found::Existing(lease) => {
                self.latest = Some(lease);
                if !self.update_known().await {
                    tracing::warn!("the node lease could not be renewed; it will be read again");
                    self.latest = None;
                }
            }
        }
    }

    /// Tries to renew the known Lease; false if that keeps failing.
    async fn update_known(&mut self) -> bool {
        for _ in 0..UPDATES {
            let Some(latest) = &self.latest else {
                return false;
            };
            let wanted = self.wanted(Some(latest));
            match self.port.replace(&wanted).await {
                Ok(lease) => {
                    self.latest = Some(lease);
                    return true;
                }
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "cannot renew the node lease");
                    match error.disposition() {
                        Disposition::Retry(None) => {}
                        Disposition::Retry(Some(pause)) => {
                            tokio::time::sleep(pause.min(self.duration / 4)).await;
                        }
                        Disposition::NotFound | Disposition::Conflict | Disposition::Permanent => {
                            return false;
                        }
                    }
                }
            }
        }
        false
    }

    async fn get_or_create(&self) -> Result<Found, ApiError> {
        match self.port.get().await {
            Err(error) if error.disposition() == Disposition::NotFound => {}
            answer => return answer.map(Found::Existing),
        }
        if self.registered.borrow().is_none() {
            return Ok(Found::NoOwner);
        }
        let created = self.port.create(&self.wanted(None)).await;
        created.map(Found::Created)
    }

    fn wanted(&self, base: Option<&Lease>) -> Lease {
        let uid = self.registered.borrow().clone();
        let seconds = i32::try_from(self.duration.as_secs()).unwrap_or(i32::MAX);
        let now = Timestamp::now();
        renewed(base, &self.node_name, uid.as_ref(), seconds, now)
    }
}

/// The Lease on the API server.
enum Found {
    /// From before; has to be renewed.
    Existing(Lease),
    /// Made and renewed just now.
    Created(Lease),
    /// There is none, and no Node yet that it could belong to. A Lease without
    /// an owner would stay behind when the Node is deleted.
    NoOwner,
}

/// The Lease as it should be at `now`: `base` or a new one. Pure.
fn renewed(
    base: Option<&Lease>,
    node_name: &str,
    uid: Option<&NodeUid>,
    seconds: i32,
    now: Timestamp,
) -> Lease {
    let mut lease = base.cloned().unwrap_or_else(|| Lease {
        metadata: ObjectMeta {
            name: Some(node_name.to_owned()),
            namespace: Some(NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        },
        spec: None,
    });
    if let Some(uid) = uid {
        lease.metadata.owner_references = Some(vec![OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: node_name.to_owned(),
            uid: uid.0.clone(),
            ..OwnerReference::default()
        }]);
    }
    lease.spec = Some(LeaseSpec {
        holder_identity: Some(node_name.to_owned()),
        lease_duration_seconds: Some(seconds),
        renew_time: Some(MicroTime(now)),
        ..lease.spec.unwrap_or_default()
    });
    lease
}

#[cfg(test)]
mod tests;
