//! The values of a pod's cgroup and of its QoS class; written by the `cgroup`
//! module.

use super::PodUid;

/// One pod's cgroup and the limits written to it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PodCgroup {
    pub uid: PodUid,
    /// Path below the hierarchy's root, e.g. `/kubepods/burstable/pod<uid>`.
    pub path: String,
    /// cgroup v1 scale: 2..=262144.
    pub cpu_shares: u64,
    /// Microseconds per period; `None` = unlimited.
    pub cpu_quota: Option<u64>,
    /// Microseconds.
    pub cpu_period: u64,
    /// Bytes; `None` = unlimited.
    pub memory_limit: Option<u64>,
    /// `None` = unlimited.
    pub pids_limit: Option<i64>,
    /// `(page size such as "2MB", bytes)`, one for every size the node has.
    pub hugepage_limits: Vec<(String, u64)>,
}

/// cgroup v1 scale; converted to weights on v2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct QosShares {
    pub burstable: u64,
}
