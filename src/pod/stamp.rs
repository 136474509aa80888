//! What the agent writes on sandboxes and containers so that any later process
//! (ours, upstream's, a log shipper) can tell what they are.
//!
//! Written by `render`, read by `runtime`. Key names are upstream's; our own
//! one has our prefix.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::hook;
use super::observed::ContainerStamp;

pub const LABEL_POD_NAME: &str = "io.kubernetes.pod.name";
pub const LABEL_POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const LABEL_POD_UID: &str = "io.kubernetes.pod.uid";
pub const LABEL_CONTAINER_NAME: &str = "io.kubernetes.container.name";

pub const ANNOTATION_HASH: &str = "io.kubernetes.container.hash";
pub const ANNOTATION_RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
pub const ANNOTATION_TERMINATION_PATH: &str = "io.kubernetes.container.terminationMessagePath";
pub const ANNOTATION_TERMINATION_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
pub const ANNOTATION_POD_GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";
pub const ANNOTATION_DELETION_GRACE: &str = "io.kubernetes.pod.deletionGracePeriod";
/// The pre-stop hook as JSON, for whoever stops the container without the pod.
pub const ANNOTATION_PRE_STOP: &str = "io.kubernetes.container.preStopHandler";
/// The container's ports as JSON.
pub const ANNOTATION_PORTS: &str = "io.kubernetes.container.ports";
/// Whole seconds of crash back-off in force when the container was created.
pub const ANNOTATION_BACKOFF: &str = "kubelet-rs.dev/crash-backoff-seconds";

impl ContainerStamp {
    /// Adds this stamp to a container's annotations. The hook is written by
    /// `render`, in the API's form.
    pub fn write(&self, annotations: &mut BTreeMap<String, String>) {
        annotations.insert(ANNOTATION_HASH.into(), self.hash.clone());
        if let Some(backoff) = self.backoff {
            annotations.insert(ANNOTATION_BACKOFF.into(), backoff.as_secs().to_string());
        }
    }

    /// Reads the stamp back; what is missing or unreadable counts as not set.
    #[must_use]
    pub fn read(annotations: &HashMap<String, String>) -> Self {
        Self {
            hash: annotations
                .get(ANNOTATION_HASH)
                .cloned()
                .unwrap_or_default(),
            backoff: annotations
                .get(ANNOTATION_BACKOFF)
                .and_then(|seconds| seconds.parse().ok())
                .map(Duration::from_secs),
            pre_stop: hook::stamped_pre_stop(annotations),
        }
    }
}
