//! What rendering and status need to know about this node. Collected once by
//! `node` and handed in, so that nothing in `pod` looks around by itself.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::spec::DnsSpec;

/// Facts and settings that do not change while the agent runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NodeFacts {
    pub node_name: String,
    /// Primary first; at most one per family. Empty until known.
    pub host_ips: Vec<IpAddr>,
    pub capacity: ComputeResources,
    pub allocatable: ComputeResources,
    /// Page sizes as CRI spells them, e.g. `2MB`.
    pub hugepage_sizes: Vec<String>,
    pub cgroup: CgroupFacts,
    pub dns: NodeDns,
    pub root_dir: PathBuf,
    pub pod_logs_dir: PathBuf,
    /// `seccompDefault`: profile for containers that ask for none.
    pub seccomp_default: bool,
    /// Directories that tell how hot CPUs are, which containers must not see.
    pub thermal_paths: Vec<String>,
    /// `<runtime>` in `<runtime>://<container id>`, from CRI `Version`.
    pub runtime_name: String,
    /// The most a crash back-off grows to.
    pub max_crash_backoff: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct ComputeResources {
    pub milli_cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes.
    pub ephemeral_storage: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CgroupFacts {
    pub version: CgroupVersion,
    /// Cgroup under which `kubepods` stands, as a path: `/` or `/something`.
    pub root: String,
    /// `cgroupsPerQOS`: without it pods get no cgroup of their own.
    pub per_qos: bool,
    /// `cpuCFSQuota`: whether CPU limits become quotas.
    pub enforce_cpu_quota: bool,
    pub cpu_quota_period: Duration,
    /// `podPidsLimit`; `None` = unlimited.
    pub pids_limit: Option<i64>,
    /// `singleProcessOOMKill`, resolved (always true on v1).
    pub single_process_oom_kill: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum CgroupVersion {
    V1,
    V2,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct NodeDns {
    /// `clusterDNS`.
    pub cluster_servers: Vec<IpAddr>,
    /// `clusterDomain`.
    pub cluster_domain: String,
    /// Parsed `resolvConf`; what pods with `dnsPolicy: Default` get.
    pub host: DnsSpec,
}
