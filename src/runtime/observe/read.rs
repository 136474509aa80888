//! Reads from the runtime: one pod, or the list of everything.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, future, stream};
use jiff::Timestamp;

use super::super::client::CriClient;
use super::super::{RuntimeError, cri, decode, encode, termination};
use crate::pod::{ObservedContainer, ObservedPod, ObservedSandbox, PodName, PodUid};

/// Status calls of one pod at a time.
const PARALLEL_CALLS: usize = 4;

/// What the runtime's lists have of one pod.
#[derive(Debug, Clone)]
pub(super) struct ListedPod {
    pub(super) uid: PodUid,
    pub(super) name: PodName,
    sandboxes: Vec<cri::PodSandbox>,
    containers: Vec<cri::Container>,
    /// When the lists were asked for.
    listed_at: Timestamp,
}

/// Lists one pod and reads it; see [`assemble`].
pub(super) async fn pod(
    client: &CriClient,
    uid: &PodUid,
    name: &PodName,
    known: &ObservedPod,
) -> Result<ObservedPod, RuntimeError> {
    let listed_at = Timestamp::now();
    let (sandboxes, containers) = future::try_join(
        client.list_pod_sandboxes(encode::sandboxes_of(uid)),
        client.list_containers(encode::containers_of(uid)),
    )
    .await?;
    let owners = sandboxes.iter().map(|sandbox| &sandbox.labels);
    let name = owners
        .chain(containers.iter().map(|container| &container.labels))
        .find_map(decode::owner)
        .map_or_else(|| name.clone(), |(_, name)| name);
    let listed = ListedPod {
        uid: uid.clone(),
        name,
        sandboxes,
        containers,
        listed_at,
    };
    assemble(client, listed, known).await
}

/// Reads a listed pod. `known` is an earlier reading; what the lists show
/// unchanged since then is taken from it.
pub(super) async fn assemble(
    client: &CriClient,
    listed: ListedPod,
    known: &ObservedPod,
) -> Result<ObservedPod, RuntimeError> {
    let (mut sandboxes, mut containers) = future::try_join(
        all(listed.sandboxes, |listed| sandbox(client, listed, known)),
        all(listed.containers, |listed| container(client, listed, known)),
    )
    .await?;
    sandboxes.sort_by_key(|s| Reverse((s.attempt, s.created_at)));
    containers.sort_by_key(|c| Reverse((c.attempt, c.created_at)));
    Ok(ObservedPod {
        uid: listed.uid,
        name: listed.name,
        sandboxes,
        containers,
        observed_at: listed.listed_at,
    })
}

/// Reads all that is listed, without what went away in between.
async fn all<L, T, R>(listed: Vec<L>, read: impl Fn(L) -> R) -> Result<Vec<T>, RuntimeError>
where
    R: Future<Output = Result<T, RuntimeError>>,
{
    stream::iter(listed)
        .map(read)
        .buffer_unordered(PARALLEL_CALLS)
        .filter_map(|result| {
            future::ready(match result {
                Err(RuntimeError::NotFound { .. }) => None,
                other => Some(other),
            })
        })
        .try_collect()
        .await
}

async fn sandbox(
    client: &CriClient,
    listed: cri::PodSandbox,
    known: &ObservedPod,
) -> Result<ObservedSandbox, RuntimeError> {
    let previous = known.sandboxes.iter().find(|s| s.id.0 == listed.id);
    if let Some(previous) = previous
        && decode::sandbox_is_as_listed(listed.state(), previous)
    {
        return Ok(previous.clone());
    }
    let status = client.pod_sandbox_status(&listed.id).await?;
    decode::sandbox(&status, previous)
}

async fn container(
    client: &CriClient,
    listed: cri::Container,
    known: &ObservedPod,
) -> Result<ObservedContainer, RuntimeError> {
    let previous = known.containers.iter().find(|c| c.id.0 == listed.id);
    if let Some(previous) = previous
        && decode::container_is_as_listed(listed.state(), &previous.state)
    {
        return Ok(previous.clone());
    }
    let status = client.container_status(&listed.id).await?;
    let last_words = match decode::last_words(&status) {
        // A blocking read on a thread made for it; the disk may hang. A panic
        // in there loses a message, not the observation.
        Some(words) => tokio::task::spawn_blocking(move || termination::read(&words))
            .await
            .unwrap_or_default(),
        None => String::new(),
    };
    decode::container(&status, &listed.pod_sandbox_id, &last_words)
}

/// All of the runtime's sandboxes and containers that belong to pods.
#[derive(Debug)]
pub(super) struct Listing {
    pods: BTreeMap<PodUid, ListedPod>,
    listed_at: Timestamp,
}

/// Lists everything, in two calls.
pub(super) async fn listing(client: &CriClient) -> Result<Listing, RuntimeError> {
    let listed_at = Timestamp::now();
    let (sandboxes, containers) = future::try_join(
        client.list_pod_sandboxes(cri::PodSandboxFilter::default()),
        client.list_containers(cri::ContainerFilter::default()),
    )
    .await?;
    Ok(Listing::new(sandboxes, containers, listed_at))
}

impl Listing {
    pub(super) fn new(
        sandboxes: Vec<cri::PodSandbox>,
        containers: Vec<cri::Container>,
        listed_at: Timestamp,
    ) -> Self {
        let mut listing = Self {
            pods: BTreeMap::new(),
            listed_at,
        };
        for sandbox in sandboxes {
            if let Some((uid, name)) = decode::owner(&sandbox.labels) {
                listing.entry(uid, name).sandboxes.push(sandbox);
            }
        }
        for container in containers {
            if let Some((uid, name)) = decode::owner(&container.labels) {
                listing.entry(uid, name).containers.push(container);
            }
        }
        listing
    }

    fn entry(&mut self, uid: PodUid, name: PodName) -> &mut ListedPod {
        let nothing = ListedPod {
            uid: uid.clone(),
            name,
            sandboxes: Vec::new(),
            containers: Vec::new(),
            listed_at: self.listed_at,
        };
        self.pods.entry(uid).or_insert(nothing)
    }

    /// The pods whose readings do not agree with the lists: to be read anew.
    /// One that was read and is not listed comes with nothing listed.
    pub(super) fn changed_since(mut self, readings: &[Arc<ObservedPod>]) -> Vec<ListedPod> {
        for reading in readings {
            let listed = self.entry(reading.uid.clone(), reading.name.clone());
            if listed.agrees_with(reading) {
                self.pods.remove(&reading.uid);
            }
        }
        self.pods.into_values().collect()
    }
}

impl ListedPod {
    fn agrees_with(&self, reading: &ObservedPod) -> bool {
        self.sandboxes.len() == reading.sandboxes.len()
            && self.containers.len() == reading.containers.len()
            && self.sandboxes.iter().all(|listed| {
                let read = reading.sandboxes.iter().find(|s| s.id.0 == listed.id);
                read.is_some_and(|read| decode::sandbox_is_as_listed(listed.state(), read))
            })
            && self.containers.iter().all(|listed| {
                let read = reading.containers.iter().find(|c| c.id.0 == listed.id);
                read.is_some_and(|read| decode::container_is_as_listed(listed.state(), &read.state))
            })
    }
}

/// The pod that a sandbox or container with this ID belongs to.
pub(super) async fn owner_of(
    client: &CriClient,
    id: &str,
) -> Result<Option<(PodUid, PodName)>, RuntimeError> {
    let containers = client
        .list_containers(cri::ContainerFilter {
            id: id.to_owned(),
            ..Default::default()
        })
        .await?;
    if let Some(owner) = containers.iter().find_map(|c| decode::owner(&c.labels)) {
        return Ok(Some(owner));
    }
    let sandboxes = client
        .list_pod_sandboxes(cri::PodSandboxFilter {
            id: id.to_owned(),
            ..Default::default()
        })
        .await?;
    Ok(sandboxes.iter().find_map(|s| decode::owner(&s.labels)))
}
