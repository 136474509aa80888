//! The port through which workers and the node use cgroups.

use async_trait::async_trait;

use crate::pod::PodUid;
use crate::pod::cgroup::{PodCgroup, QosShares};

/// Writes cgroups. All verbs are idempotent.
#[async_trait]
pub trait PodCgroups: Send + Sync {
    /// Creates the pod's cgroup, or brings its values up to date.
    async fn ensure(&self, cgroup: &PodCgroup) -> Result<(), CgroupError>;
    /// Kills what still runs in it and removes it, with everything below.
    async fn remove(&self, uid: &PodUid) -> Result<(), CgroupError>;
    /// Shares of the burstable class; they follow the sum of its pods.
    async fn set_qos_shares(&self, shares: QosShares) -> Result<(), CgroupError>;
    /// Pods that have a cgroup.
    async fn pods_on_disk(&self) -> Result<Vec<PodUid>, CgroupError>;
}

#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("cannot {action} {path}")]
    File {
        action: &'static str,
        path: std::path::PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("processes {pids:?} in {path} survive SIGKILL")]
    Busy {
        path: std::path::PathBuf,
        pids: Vec<i32>,
    },
    #[error("cgroup controllers are missing: {0:?}")]
    MissingControllers(Vec<String>),
}
