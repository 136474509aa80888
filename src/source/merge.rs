//! The union of all sources. Pure: two snapshots and the previous result in,
//! the next result out.
//!
//! What did not change keeps its `Arc`, so readers may compare by pointer.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;

use super::manifest::ManifestSnapshot;
use crate::apiserver::PodSnapshot;
use crate::pod::annotation::CONFIG_MIRROR;
use crate::pod::{
    DesiredPod, DesiredPods, Intent, Origin, PodName, PodUid, SourcesReady, Termination,
    TerminationReason,
};

#[cfg(test)]
mod tests;

/// The result of [`merge()`].
#[derive(Debug, Clone, Default)]
pub struct Merged {
    pub desired: DesiredPods,
    /// Objects that cannot be pods here, in UID order.
    pub dropped: Vec<DroppedPod>,
}

/// An object of the API server that was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DroppedPod {
    pub uid: PodUid,
    pub name: PodName,
    pub reason: DropReason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropReason {
    /// `metadata.uid`, `.name` or `.namespace` is missing.
    NoIdentity,
    /// A static pod's manifest gives it this very UID.
    UidOfStaticPod,
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoIdentity => "the object lacks a uid, a name or a namespace",
            Self::UidOfStaticPod => "a static pod's manifest claims the same uid",
        })
    }
}

/// Joins the sources. `api` is `None` in standalone mode, where the API server
/// counts as ready because nobody will ever hear from it.
#[must_use]
pub fn merge(
    previous: &DesiredPods,
    api: Option<&PodSnapshot>,
    manifests: &ManifestSnapshot,
) -> Merged {
    let mut pods = BTreeMap::new();
    let mut mirrors = BTreeMap::new();
    let mut dropped = Vec::new();

    for (uid, pod) in manifests.pods.iter() {
        pods.insert(uid.clone(), keep_unchanged(previous, Arc::clone(pod)));
    }
    for (uid, pod) in api.iter().flat_map(|api| api.pods.iter()) {
        let name = PodName::of(pod);
        let mut leave_out = |reason| {
            dropped.push(DroppedPod {
                uid: uid.clone(),
                name: name.clone(),
                reason,
            });
        };
        if uid.as_str().is_empty() || name.name.is_empty() || name.namespace.is_empty() {
            leave_out(DropReason::NoIdentity);
        } else if is_mirror(pod) {
            mirrors.insert(name, Arc::clone(pod));
        } else if pods.contains_key(uid) {
            leave_out(DropReason::UidOfStaticPod);
        } else {
            pods.insert(uid.clone(), desired_from_api(previous, uid, name, pod));
        }
    }

    Merged {
        desired: DesiredPods {
            pods: reuse_map(&previous.pods, pods),
            mirrors: reuse_map(&previous.mirrors, mirrors),
            ready: SourcesReady {
                api: api.is_none_or(|api| api.synced),
                manifests: manifests.synced,
            },
        },
        dropped,
    }
}

fn is_mirror(pod: &Pod) -> bool {
    pod.metadata
        .annotations
        .as_ref()
        .is_some_and(|annotations| annotations.contains_key(CONFIG_MIRROR))
}

fn desired_from_api(
    previous: &DesiredPods,
    uid: &PodUid,
    name: PodName,
    pod: &Arc<Pod>,
) -> Arc<DesiredPod> {
    // The object decides everything else about an API pod, so the same object
    // needs no deep comparison.
    if let Some(old) = previous.pods.get(uid)
        && old.origin == Origin::Api
        && Arc::ptr_eq(&old.pod, pod)
    {
        return Arc::clone(old);
    }
    keep_unchanged(
        previous,
        Arc::new(DesiredPod {
            uid: uid.clone(),
            name,
            pod: Arc::clone(pod),
            origin: Origin::Api,
            intent: intent_of(pod),
        }),
    )
}

fn intent_of(pod: &Pod) -> Intent {
    if pod.metadata.deletion_timestamp.is_none() {
        return Intent::Run;
    }
    let grace = pod.metadata.deletion_grace_period_seconds;
    Intent::Terminate(Termination {
        grace: grace.map(|seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0))),
        reason: TerminationReason::Deleted,
    })
}

fn keep_unchanged(previous: &DesiredPods, pod: Arc<DesiredPod>) -> Arc<DesiredPod> {
    match previous.pods.get(&pod.uid) {
        Some(old) if Arc::ptr_eq(old, &pod) || **old == *pod => Arc::clone(old),
        _ => pod,
    }
}

/// The previous map if the next one has the same keys and the same `Arc`s.
fn reuse_map<K: Ord, V>(
    previous: &Arc<BTreeMap<K, Arc<V>>>,
    next: BTreeMap<K, Arc<V>>,
) -> Arc<BTreeMap<K, Arc<V>>> {
    let same = previous.len() == next.len()
        && previous
            .iter()
            .zip(&next)
            .all(|((old_key, old), (key, new))| old_key == key && Arc::ptr_eq(old, new));
    if same {
        Arc::clone(previous)
    } else {
        Arc::new(next)
    }
}
