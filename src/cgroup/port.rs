//! The port through which workers and the node use cgroups.

use async_trait::async_trait;

use crate::pod::PodUid;
use crate::pod::cgroup::{PodCgroup, QosShares};

/// Writes cgroups. All verbs are idempotent.
#[async_trait]
pub trait PodCgroups: Send + Sync {
    /// Creates the pod's cgroup, or brings its values up to date.
    async fn ensure(&self, cgroup: &PodCgroup) -> Result<(), CgroupError>;
    /// Bytes that the pod uses; 0 if there is no such cgroup.
    async fn memory_in_use(&self, cgroup: &PodCgroup) -> Result<u64, CgroupError>;
    /// Kills what still runs in it and removes it, with everything below.
    async fn remove(&self, uid: &PodUid) -> Result<(), CgroupError>;
    /// Shares of the burstable class; they follow the sum of its pods.
    async fn set_qos_shares(&self, shares: QosShares) -> Result<(), CgroupError>;
    /// Pods that have a cgroup.
    async fn pods_on_disk(&self) -> Result<Vec<PodUid>, CgroupError>;
}

/// Why cgroups could not be used or changed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// A file or directory of the hierarchy refused an operation.
    #[error("cannot {action} {path}")]
    File {
        action: &'static str,
        path: std::path::PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// Killed processes do not go away; they sit in the kernel, most likely.
    #[error("processes {pids:?} in {path} survive SIGKILL")]
    Busy {
        path: std::path::PathBuf,
        pids: Vec<i32>,
    },
    /// The kernel offers no such controllers, or does not delegate them to us.
    #[error("cgroup controllers are missing: {0:?}")]
    MissingControllers(Vec<String>),
    /// The list of mounts could not be read.
    #[error("cannot read the mounts of this process")]
    Mounts(#[source] procfs::ProcError),
    /// No cgroup file system is mounted.
    #[error("no cgroup hierarchy is mounted")]
    NoHierarchy,
    /// `cgroupDriver` names a driver that does not exist here.
    #[error("cgroup driver {0:?} is not supported; set cgroupDriver to \"cgroupfs\"")]
    UnsupportedDriver(String),
    /// A cgroup's path must be absolute and without `.`, `..` or empty parts.
    #[error("{0:?} is not a cgroup path")]
    InvalidPath(String),
}
