//! What runs, as the runtime tells it: the read side.
//!
//! - [`read`]: reads one pod, asking only for what changed since the last
//!   reading.
//! - [`cache`]: the latest reading of every pod, on a watch each.
//! - [`events`]: containerd's event stream, as signs of change.
//! - [`sign`]: which signs still wait to be seen in an observation. Pure.
//! - [`task`]: the loop that turns signs and a slow relist into readings.
//!
//! In: CRI and events. Out: watches. A reading is never replaced by an older
//! one, whoever made it: the loop, or a worker through [`Observer::refresh`].

mod cache;
mod events;
mod read;
mod sign;
mod task;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use super::client::CriClient;
use super::{KnownPods, Observer, RuntimeError, RuntimeHealth};
use crate::pod::{ObservedPod, PodName, PodUid};
use cache::Cache;
pub(super) use events::NAMESPACE;
pub(super) use task::ObserveTask;

/// The handle that everybody reads through.
pub(super) struct Observations {
    client: CriClient,
    cache: Cache,
    health: Arc<watch::Sender<RuntimeHealth>>,
}

impl Observations {
    pub(super) fn new(client: CriClient, health: Arc<watch::Sender<RuntimeHealth>>) -> Self {
        Self {
            client,
            cache: Cache::default(),
            health,
        }
    }
}

#[async_trait]
impl Observer for Observations {
    async fn refresh(
        &self,
        uid: &PodUid,
        name: &PodName,
    ) -> Result<Arc<ObservedPod>, RuntimeError> {
        let ticket = self.cache.take_ticket();
        let known = self.cache.known(uid, name);
        let pod = read::pod(&self.client, uid, name, &known).await?;
        Ok(self.cache.publish(pod, ticket))
    }

    fn watch(&self, uid: &PodUid, name: &PodName) -> watch::Receiver<Arc<ObservedPod>> {
        self.cache.watch(uid, name)
    }

    fn pods(&self) -> watch::Receiver<KnownPods> {
        self.cache.members()
    }

    fn health(&self) -> watch::Receiver<RuntimeHealth> {
        self.health.subscribe()
    }
}
