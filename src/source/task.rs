//! The loop that keeps the merged snapshot current.
//!
//! In: one `watch` per source. Out: `watch<DesiredPods>`, written only when
//! something differs from what is already there.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::manifest::ManifestSnapshot;
use super::merge::{DroppedPod, merge};
use crate::apiserver::PodSnapshot;
use crate::pod::DesiredPods;

#[cfg(test)]
mod tests;

/// The inputs of [`run`].
#[derive(Debug)]
pub struct Sources {
    /// `None`: standalone, there is no API server.
    pub api: Option<watch::Receiver<PodSnapshot>>,
    pub manifests: watch::Receiver<ManifestSnapshot>,
}

/// Publishes the union of all sources until `shutdown`.
///
/// A source that goes away is left at its last snapshot: that a pod's source
/// cannot be heard is no reason to stop the pod.
pub async fn run(
    mut sources: Sources,
    out: watch::Sender<DesiredPods>,
    shutdown: CancellationToken,
) {
    let mut reported = Vec::new();
    loop {
        publish(&mut sources, &out, &mut reported);
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = changed(sources.api.as_mut()) => {}
            () = changed(Some(&mut sources.manifests)) => {}
        }
    }
}

fn publish(
    sources: &mut Sources,
    out: &watch::Sender<DesiredPods>,
    reported: &mut Vec<DroppedPod>,
) {
    let api = sources
        .api
        .as_mut()
        .map(|api| api.borrow_and_update().clone());
    let manifests = sources.manifests.borrow_and_update().clone();
    let merged = merge(&out.borrow(), api.as_ref(), &manifests);

    for drop in &merged.dropped {
        if !reported.contains(drop) {
            tracing::warn!(pod = %drop.name, uid = %drop.uid, reason = %drop.reason,
                "a pod of the API server is ignored");
        }
    }
    *reported = merged.dropped;

    let desired = merged.desired;
    out.send_if_modified(|current| {
        let same = Arc::ptr_eq(&current.pods, &desired.pods)
            && Arc::ptr_eq(&current.mirrors, &desired.mirrors)
            && current.ready == desired.ready;
        if same {
            return false;
        }
        tracing::debug!(pods = desired.pods.len(), mirrors = desired.mirrors.len(),
            ready = ?desired.ready, "desired pods changed");
        *current = desired;
        true
    });
}

/// Resolves when the source has something new; never for one that is absent or
/// has ended.
pub(super) async fn changed<T>(source: Option<&mut watch::Receiver<T>>) {
    if let Some(source) = source
        && source.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}
