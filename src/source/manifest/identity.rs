//! What makes a manifest's pod this node's static pod: name, namespace, UID
//! and the marks by which others know it. Pure.
//!
//! The UID is a hash of what the file says, who runs it and where it lies, so
//! an edited manifest is a new pod and an untouched one stays the same across
//! restarts of the agent. Defaults are not part of it: a release that adds one
//! must not restart every static pod.

use std::path::Path;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus, Toleration};
use sha2::{Digest, Sha256};

use crate::pod::annotation::{CONFIG_HASH, CONFIG_MIRROR, CONFIG_SEEN, CONFIG_SOURCE};
use crate::pod::{PodName, PodUid};

#[cfg(test)]
mod tests;

/// 128 bits, as many as a UUID has.
const UID_BYTES: usize = 16;

/// Turns a manifest's pod, as written, into a static pod of `node_name`.
pub(super) fn adopt(
    mut pod: Pod,
    node_name: &str,
    path: &Path,
    seen: Timestamp,
) -> (PodUid, PodName, Pod) {
    forget_cluster_life(&mut pod);
    let uid = match pod.metadata.uid.as_deref() {
        Some(uid) if !uid.is_empty() => PodUid::from(uid),
        _ => hash(&pod, node_name, path),
    };

    let meta = &mut pod.metadata;
    let base_name = meta.name.as_deref().unwrap_or_default();
    meta.name = Some(format!("{base_name}-{}", node_name.to_lowercase()));
    if meta.namespace.as_deref().unwrap_or_default().is_empty() {
        meta.namespace = Some("default".into());
    }
    meta.uid = Some(uid.to_string());
    meta.annotations.get_or_insert_default().extend([
        (CONFIG_HASH.to_owned(), uid.to_string()),
        (CONFIG_SOURCE.to_owned(), "file".to_owned()),
        (CONFIG_SEEN.to_owned(), format!("{seen:.9}")),
    ]);

    let spec = pod.spec.get_or_insert_default();
    spec.node_name = Some(node_name.to_owned());
    tolerate_no_execute(spec.tolerations.get_or_insert_default());
    pod.status = Some(PodStatus {
        phase: Some("Pending".into()),
        ..PodStatus::default()
    });
    let name = PodName::of(&pod);
    (uid, name, pod)
}

/// Drops what a manifest saved with `kubectl get -o yaml` carries from its life
/// in a cluster and what would be untrue here: a file's pod is no mirror, is
/// not being deleted, and has no status yet.
fn forget_cluster_life(pod: &mut Pod) {
    pod.status = None;
    pod.metadata.deletion_timestamp = None;
    pod.metadata.deletion_grace_period_seconds = None;
    if let Some(annotations) = &mut pod.metadata.annotations {
        for key in [CONFIG_MIRROR, CONFIG_HASH, CONFIG_SOURCE, CONFIG_SEEN] {
            annotations.remove(key);
        }
    }
}

fn hash(pod: &Pod, node_name: &str, path: &Path) -> PodUid {
    let mut hasher = Sha256::new();
    // An API object is maps with string keys, strings and numbers: there is
    // nothing in it that JSON cannot say.
    hasher.update(serde_json::to_vec(pod).unwrap_or_default());
    hasher.update([0]);
    hasher.update(node_name.as_bytes());
    hasher.update([0]);
    hasher.update(path.as_os_str().as_encoded_bytes());
    PodUid::new(hex::encode(&hasher.finalize()[..UID_BYTES]))
}

/// Taints must not evict what no scheduler could place elsewhere.
fn tolerate_no_execute(tolerations: &mut Vec<Toleration>) {
    let wanted = Toleration {
        operator: Some("Exists".into()),
        effect: Some("NoExecute".into()),
        ..Toleration::default()
    };
    if !tolerations.contains(&wanted) {
        tolerations.push(wanted);
    }
}
