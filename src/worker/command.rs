//! What other parts of the agent may ask of the manager. Commands, not state:
//! each is obeyed once.

use std::time::Duration;

use crate::pod::PodUid;

/// Commands that may wait for the manager: a whole node's pods at once are
/// hardly more, and whoever sends more than that can wait.
pub const COMMANDS: usize = 128;

/// A command about one pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PodCommand {
    /// End the pod with phase `Failed`. Cannot be taken back; a pod that ends
    /// already, or that nobody knows, is left alone.
    Evict {
        uid: PodUid,
        /// `None`: the pod's own grace period.
        grace: Option<Duration>,
        /// `status.reason`, and the reason of the event.
        reason: &'static str,
        message: String,
        /// What the pod's condition `DisruptionTarget` says.
        disruption: String,
    },
}
