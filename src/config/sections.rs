//! The resolved configuration, one struct per module that reads it.
//!
//! These are plain data: no field is "unset means default" any more, `None` always means
//! "off", "unlimited" or "not given" as its comment says. Values come from
//! `KubeletConfiguration` (`kubelet.config.k8s.io/v1beta1`) unless a comment names a flag.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::Taint;
use serde::Serialize;

use super::credential_providers::CredentialProvider;
use super::duration::{as_go_string, option_as_go_string};
use super::gates::FeatureGates;
use super::proxy::ServiceProxyConfig;

/// Everything the agent is told at start. Immutable for the life of the process.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Config {
    /// Who this node is and how it reports itself.
    pub node: NodeConfig,
    /// How the API server is reached, or that it is not.
    pub api: ApiConfig,
    /// Where static pods come from.
    pub source: SourceConfig,
    /// The container runtime's sockets.
    pub runtime: RuntimeConfig,
    /// Image pulls and image garbage collection.
    pub images: ImageConfig,
    /// Settings that apply to every pod.
    pub pod: PodConfig,
    /// What pods are given for name resolution.
    pub dns: DnsConfig,
    /// The cgroup tree.
    pub cgroup: CgroupConfig,
    /// Resources withheld from pods.
    pub reserved: ReservedConfig,
    /// Node-pressure eviction.
    pub eviction: EvictionConfig,
    /// Rotation of container logs.
    pub container_logs: ContainerLogConfig,
    /// Directories the agent owns.
    pub paths: PathsConfig,
    /// Event rate limits.
    pub events: EventConfig,
    /// The agent's own HTTP listeners.
    pub server: ServerConfig,
    /// The service proxy, and whether it runs.
    pub proxy: ServiceProxyConfig,
    /// The agent's own process attributes.
    pub process: ProcessConfig,
    /// The agent's own log.
    pub log: LogConfig,
    /// Feature gates, defaults included.
    pub gates: FeatureGates,
    /// All of it as one file would have it, defaults included, for `/configz`.
    #[serde(skip)]
    pub effective: serde_json::Value,
}

/// Who this node is and how it reports itself.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NodeConfig {
    /// `metadata.name` of the Node: `--hostname-override` or the hostname, trimmed, lower case.
    pub name: String,
    /// `--node-ip`.
    pub ips: NodeIps,
    /// `--node-labels`, already checked against the namespaces a node may set.
    pub labels: BTreeMap<String, String>,
    /// Taints set when the Node is created (`registerWithTaints`).
    pub taints: Vec<Taint>,
    /// `spec.providerID` set when the Node is created.
    pub provider_id: Option<String>,
    /// Create the Node if it does not exist. `false`: status is still sent.
    pub register: bool,
    /// `--cloud-provider=external`: start with the cloud controller's "uninitialized" taint.
    pub external_cloud_provider: bool,
    /// Upper bound of pods on the node.
    pub max_pods: u32,
    /// Upper bound of pods per CPU; `None`: only [`NodeConfig::max_pods`] counts.
    pub pods_per_core: Option<NonZeroU32>,
    /// How often node status is computed.
    #[serde(serialize_with = "as_go_string")]
    pub status_update_frequency: Duration,
    /// How often an unchanged node status is sent nevertheless.
    #[serde(serialize_with = "as_go_string")]
    pub status_report_frequency: Duration,
    /// `spec.leaseDurationSeconds` of the node Lease; renewed at a quarter of it.
    #[serde(serialize_with = "as_go_string")]
    pub lease_duration: Duration,
    /// Most images listed in node status; `None`: all of them.
    pub max_images: Option<usize>,
    /// Volumes of this node are attached by the controller manager, not by the node.
    pub controller_attach_detach: bool,
    /// Report and enforce `ephemeral-storage`.
    pub local_storage_capacity_isolation: bool,
    /// Pod address range given to the runtime when there is no API server to assign one.
    pub standalone_pod_cidr: Option<String>,
    /// Ensure the `KUBE-*` utility chains in iptables.
    pub make_iptables_util_chains: bool,
}

/// What `--node-ip` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum NodeIps {
    /// Not given: the default route's address, IPv4 first.
    Auto,
    /// `0.0.0.0` or `::`: the default route's address of this family first.
    PreferFamily(IpFamily),
    /// Exactly this address.
    One(IpAddr),
    /// A dual-stack pair; the first decides the primary family.
    Pair(IpAddr, IpAddr),
}

/// An IP address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum IpFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// How the API server is reached, or that it is not.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ApiConfig {
    /// `--kubeconfig`; `None`: standalone, static pods alone are the desired state.
    pub kubeconfig: Option<PathBuf>,
    /// `--bootstrap-kubeconfig`: used to obtain [`ApiConfig::kubeconfig`] when that file is
    /// missing or unusable.
    pub bootstrap_kubeconfig: Option<PathBuf>,
    /// Client-side request limit, events and leases excluded.
    pub rate: RateLimit,
    /// Renew the client certificate before it expires.
    pub rotate_certificates: bool,
    /// `--cert-dir`.
    pub cert_dir: PathBuf,
}

impl ApiConfig {
    /// True when there is no API server to talk to.
    pub fn is_standalone(&self) -> bool {
        self.kubeconfig.is_none()
    }
}

/// A token bucket. "No limit" is expressed as `Option::<RateLimit>::None` where it is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RateLimit {
    /// Tokens added per second.
    pub per_second: NonZeroU32,
    /// Size of the bucket.
    pub burst: u32,
}

/// Where static pods come from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SourceConfig {
    /// A directory of manifests, or one manifest file; `None`: no static pods.
    pub static_pod_path: Option<PathBuf>,
    /// Period of the full rescan that backs up inotify.
    #[serde(serialize_with = "as_go_string")]
    pub file_check_frequency: Duration,
}

/// The container runtime's sockets.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RuntimeConfig {
    /// Unix socket of the CRI runtime service.
    pub endpoint: PathBuf,
    /// Unix socket of the CRI image service; the same as `endpoint` unless set.
    pub image_endpoint: PathBuf,
    /// Deadline of every CRI call except the long ones (pull, stop, exec).
    #[serde(serialize_with = "as_go_string")]
    pub request_timeout: Duration,
    /// `--runtime-cgroups`: cgroup of the runtime daemon, for its own statistics.
    pub runtime_cgroup: Option<String>,
}

/// Image pulls and image garbage collection.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ImageConfig {
    /// Most pulls at the same time; `Some(1)` when pulls are serialized, `None`: no cap.
    pub max_parallel_pulls: Option<NonZeroU32>,
    /// Pulls started per second; `None`: no limit.
    pub pull_rate: Option<RateLimit>,
    /// When an image already on the node still needs its pull credentials checked.
    pub verification: ImageVerification,
    /// Programs that are asked for registry credentials.
    pub credential_providers: Vec<CredentialProvider>,
    /// Images younger than this are never collected.
    #[serde(serialize_with = "as_go_string")]
    pub gc_min_age: Duration,
    /// Unused images older than this are collected regardless of disk use; `None`: never.
    #[serde(serialize_with = "option_as_go_string")]
    pub gc_max_age: Option<Duration>,
    /// Disk use in percent at which collection starts.
    pub gc_high_threshold_percent: u8,
    /// Disk use in percent at which collection stops.
    pub gc_low_threshold_percent: u8,
}

/// When an image already on the node still needs its pull credentials checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum ImageVerification {
    /// Any pod may use any image present.
    Never,
    /// Images the agent did not pull itself are free to use.
    NeverForPreloaded,
    /// Only preloaded images matching one of these patterns are free to use.
    NeverForAllowlisted(Vec<String>),
    /// Every image is checked.
    Always,
}

/// Settings that apply to every pod.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PodConfig {
    /// Longest time between two looks at a pod in which nothing happened.
    #[serde(serialize_with = "as_go_string")]
    pub sync_frequency: Duration,
    /// Cap of the crash back-off.
    #[serde(serialize_with = "as_go_string")]
    pub crash_backoff_max: Duration,
    /// `pids.max` of each pod; `None`: the node's limit.
    pub pids_limit: Option<u64>,
    /// Enforce CPU limits by CFS quota.
    pub cpu_cfs_quota: bool,
    /// CFS period used with quotas, 1 ms to 1 s.
    #[serde(serialize_with = "as_go_string")]
    pub cpu_cfs_quota_period: Duration,
    /// `RuntimeDefault` is the seccomp profile of containers that name none.
    pub seccomp_default: bool,
    /// Unsafe sysctls (or `prefix*` patterns) pods may set.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// What containers may do with swap.
    pub swap: SwapBehavior,
    /// Refuse to start while the machine has swap on.
    pub fail_swap_on: bool,
    /// Length of a pod's user-namespace id range.
    pub user_namespace_ids: u32,
    /// How long sizes of volumes are good for; `None`: they are not looked at.
    #[serde(serialize_with = "option_as_go_string")]
    pub volume_stats_period: Option<Duration>,
}

/// What containers may do with swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum SwapBehavior {
    /// No swap for containers.
    NoSwap,
    /// Burstable containers get a share in proportion to their memory request.
    LimitedSwap,
}

/// What pods are given for name resolution.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DnsConfig {
    /// Name servers of `ClusterFirst` pods.
    pub cluster_dns: Vec<IpAddr>,
    /// Domain searched by `ClusterFirst` pods.
    pub cluster_domain: Option<String>,
    /// The file `Default` pods inherit; `None`: they get an empty one.
    pub resolv_conf: Option<PathBuf>,
}

/// The cgroup tree.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CgroupConfig {
    /// Driver to use when the runtime does not tell its own.
    pub driver: CgroupDriver,
    /// Parent of `kubepods`, as a cgroupfs path; `/` unless set.
    pub root: String,
    /// Put pods below one cgroup per QoS class.
    pub per_qos: bool,
    /// Refuse to start on cgroup v1.
    pub fail_on_v1: bool,
    /// OOM kill takes one process instead of the container (v2); `None`: not told.
    pub single_process_oom_kill: Option<bool>,
    /// Which allocatable limits are written.
    pub enforce: BTreeSet<Enforcement>,
    /// Existing cgroup of the node's own daemons, for [`Enforcement::KubeReserved`].
    pub kube_reserved_cgroup: Option<String>,
    /// Existing cgroup of the system's daemons, for [`Enforcement::SystemReserved`].
    pub system_reserved_cgroup: Option<String>,
    /// Cgroup the agent moves itself to.
    pub kubelet_cgroup: Option<String>,
    /// Cgroup the system's other processes are moved to.
    pub system_cgroup: Option<String>,
    /// Kernel tunables must already have the wanted values instead of being written.
    pub protect_kernel_defaults: bool,
}

/// Who names the cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CgroupDriver {
    /// The agent writes the tree itself.
    Cgroupfs,
    /// systemd owns the tree; names are slices and scopes.
    Systemd,
}

/// One allocatable limit to write (`enforceNodeAllocatable`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Enforcement {
    /// `kubepods` as a whole.
    Pods,
    /// All resources of the system-reserved cgroup.
    SystemReserved,
    /// Only CPU of the system-reserved cgroup.
    SystemReservedCompressible,
    /// All resources of the kube-reserved cgroup.
    KubeReserved,
    /// Only CPU of the kube-reserved cgroup.
    KubeReservedCompressible,
}

/// Resources withheld from pods. Keys are `cpu`, `memory`, `ephemeral-storage`, `pid`;
/// values are Kubernetes quantities, already checked to parse and to be non-negative.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReservedConfig {
    /// For the node's Kubernetes daemons.
    pub kube: BTreeMap<String, String>,
    /// For everything else on the machine. `reservedSystemCPUs`, when set, replaces `cpu`
    /// here by its count and removes it from [`ReservedConfig::kube`].
    pub system: BTreeMap<String, String>,
    /// `reservedSystemCPUs`: these CPUs, by number.
    pub cpus: BTreeSet<u32>,
}

/// Node-pressure eviction.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EvictionConfig {
    /// Thresholds acted on at once; they also lower allocatable.
    pub hard: BTreeMap<EvictionSignal, ThresholdValue>,
    /// Thresholds acted on after a grace period.
    pub soft: BTreeMap<EvictionSignal, SoftThreshold>,
    /// Reclaim at least this much beyond the threshold.
    pub minimum_reclaim: BTreeMap<EvictionSignal, ThresholdValue>,
    /// How long a pressure condition stays after it was last seen.
    #[serde(serialize_with = "as_go_string")]
    pub pressure_transition_period: Duration,
    /// Cap of pod grace periods in soft evictions; `None`: the pod's own period counts.
    #[serde(serialize_with = "option_as_go_string")]
    pub max_pod_grace_period: Option<Duration>,
    /// `--experimental-allocatable-ignore-eviction`: hard thresholds do not lower allocatable.
    pub ignored_in_allocatable: bool,
}

/// A resource that eviction watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum EvictionSignal {
    /// Memory not in any working set.
    #[serde(rename = "memory.available")]
    MemoryAvailable,
    /// Memory below `kubepods` not in any working set.
    #[serde(rename = "allocatableMemory.available")]
    AllocatableMemoryAvailable,
    /// Bytes free on the root directory's filesystem.
    #[serde(rename = "nodefs.available")]
    NodeFsAvailable,
    /// Inodes free on the root directory's filesystem.
    #[serde(rename = "nodefs.inodesFree")]
    NodeFsInodesFree,
    /// Bytes free on the image filesystem.
    #[serde(rename = "imagefs.available")]
    ImageFsAvailable,
    /// Inodes free on the image filesystem.
    #[serde(rename = "imagefs.inodesFree")]
    ImageFsInodesFree,
    /// Bytes free on the writable-layer filesystem.
    #[serde(rename = "containerfs.available")]
    ContainerFsAvailable,
    /// Inodes free on the writable-layer filesystem.
    #[serde(rename = "containerfs.inodesFree")]
    ContainerFsInodesFree,
    /// Process ids left.
    #[serde(rename = "pid.available")]
    PidAvailable,
}

/// A threshold: an absolute quantity or a share of the resource's capacity.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum ThresholdValue {
    /// A Kubernetes quantity, checked to parse and to be positive.
    Quantity(String),
    /// Percent of capacity, between 0 and 100.
    Percent(f64),
}

/// A threshold that must hold for a while.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SoftThreshold {
    /// The threshold.
    pub value: ThresholdValue,
    /// For how long it must be crossed.
    #[serde(serialize_with = "as_go_string")]
    pub grace_period: Duration,
}

/// Rotation of container logs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ContainerLogConfig {
    /// Bytes at which a log file is rotated; `None`: never.
    pub max_bytes: Option<u64>,
    /// Most files kept per container, the live one included; at least 2.
    pub max_files: u32,
    /// Rotations done at the same time.
    pub workers: NonZeroU32,
    /// Period of the size check.
    #[serde(serialize_with = "as_go_string")]
    pub monitor_interval: Duration,
}

/// Directories the agent owns.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PathsConfig {
    /// `--root-dir`, absolute and clean.
    pub root_dir: PathBuf,
    /// Where pods' log directories are made.
    pub pod_logs_dir: PathBuf,
    /// FlexVolume drivers.
    pub volume_plugin_dir: PathBuf,
    /// `--lock-file`: held for the life of the process.
    pub lock_file: Option<PathBuf>,
    /// `--exit-on-lock-contention`: exit when another process opens the lock file.
    pub exit_on_lock_contention: bool,
}

impl PathsConfig {
    /// The root-only socket `kubelet explain` asks.
    pub fn explain_socket(&self) -> PathBuf {
        explain_socket(&self.root_dir)
    }
}

/// The socket of the agent whose `--root-dir` is `root_dir`.
pub fn explain_socket(root_dir: &Path) -> PathBuf {
    root_dir.join("explain.sock")
}

/// Event rate limits.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EventConfig {
    /// Events sent per second; `None`: no limit.
    pub rate: Option<RateLimit>,
}

/// The agent's own HTTP listeners.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ServerConfig {
    /// Plain HTTP health and metrics listener; `None`: off.
    pub healthz: Option<SocketAddr>,
    /// The authenticated HTTPS listener; `None`: `enableServer: false`.
    pub secure: Option<SocketAddr>,
    /// The unauthenticated read-only listener; `None`: off.
    pub read_only: Option<SocketAddr>,
    /// Who may connect.
    pub authentication: Authentication,
    /// What they may do.
    pub authorization: Authorization,
    /// Certificate and protocol of the HTTPS listener.
    pub tls: TlsConfig,
    /// Which endpoints exist.
    pub handlers: HandlerConfig,
}

/// How callers of the HTTPS listener are identified.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Authentication {
    /// Requests without credentials are `system:anonymous`.
    pub anonymous: bool,
    /// Bearer tokens are reviewed by the API server; the value is the cache TTL.
    #[serde(serialize_with = "option_as_go_string")]
    pub webhook_cache_ttl: Option<Duration>,
    /// CA bundle of client certificates.
    pub client_ca_file: Option<PathBuf>,
}

/// How callers of the HTTPS listener are authorized.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum Authorization {
    /// Everyone authenticated may do everything.
    AlwaysAllow,
    /// The API server decides.
    Webhook {
        /// How long "yes" is remembered.
        #[serde(serialize_with = "as_go_string")]
        allowed_ttl: Duration,
        /// How long "no" is remembered.
        #[serde(serialize_with = "as_go_string")]
        denied_ttl: Duration,
    },
}

/// Certificate and protocol of the HTTPS listener.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TlsConfig {
    /// Certificate and key files; `None`: requested from the API server or self-signed.
    pub key_pair: Option<(PathBuf, PathBuf)>,
    /// Request the serving certificate from the API server.
    pub server_bootstrap: bool,
    /// IANA cipher suite names; empty: the library's choice.
    pub cipher_suites: Vec<String>,
    /// `VersionTLS12` or the like; `None`: the library's choice.
    pub min_version: Option<String>,
}

/// Which endpoints the HTTPS listener has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct HandlerConfig {
    /// logs, exec, attach, port-forward.
    pub debugging: bool,
    /// `/logs/`.
    pub system_logs: bool,
    /// `/logs/?query=`.
    pub system_log_query: bool,
    /// `/debug/pprof`.
    pub profiling: bool,
    /// `/debug/flags/v`.
    pub debug_flags: bool,
}

/// The agent's own process attributes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProcessConfig {
    /// `/proc/self/oom_score_adj`, −1000 to 1000.
    pub oom_score_adj: i32,
    /// `RLIMIT_NOFILE`.
    pub max_open_files: u64,
}

/// The agent's own log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogConfig {
    /// Text for people or JSON for machines.
    pub format: LogFormat,
    /// `-v`.
    pub verbosity: Verbosity,
    /// `--vmodule`: more for source files matching a pattern.
    pub modules: Vec<(String, Verbosity)>,
}

/// Shape of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One line per event, for people.
    Text,
    /// One JSON object per event.
    Json,
}

/// klog verbosity: 0 is state changes only, 4 and above is everything a developer may want.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Verbosity(pub u32);
