//! What was read, as plain numbers. `None` is "the kernel or the runtime does
//! not tell", never zero.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::pod::{PodName, PodUid};

/// How much is read of each cgroup. A richer reading serves whoever wants less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detail {
    /// CPU time, memory and swap: what autoscalers ask for every few seconds.
    CpuAndMemory,
    /// And limits, pressure, processes, networks, disks: `/stats/summary`.
    Summary,
    /// And throttling, block I/O, settings of the cgroup: Prometheus.
    Metrics,
}

/// Everything, read in one go.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    pub detail: Detail,
    pub node: NodeUsage,
    pub groups: Vec<GroupUsage>,
    /// Pods with a sandbox that is up, by UID.
    pub pods: Vec<PodUsage>,
}

/// The machine as a whole.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeUsage {
    /// When the machine booted.
    pub started_at: Timestamp,
    pub cgroup: CgroupUsage,
    pub network: Option<NodeNetwork>,
    pub disk: NodeDisk,
    pub processes: Option<NodeProcesses>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct NodeNetwork {
    /// The interface of the default route.
    pub primary: Option<String>,
    pub network: Network,
}

/// The file systems that a node has to watch.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NodeDisk {
    /// Of the agent's root directory.
    pub root: Option<FsUsage>,
    pub images: Option<FsUsage>,
    /// Of writable layers.
    pub containers: Option<FsUsage>,
    /// By device number, over all file systems.
    pub devices: Vec<DiskCounters>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeProcesses {
    pub at: Timestamp,
    /// The most process IDs that the kernel gives out.
    pub max: u64,
    /// Processes and threads that there are.
    pub current: u64,
}

/// A cgroup that is neither the root's nor a pod's.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupUsage {
    pub role: GroupRole,
    /// When the cgroup was made, as far as its directory tells.
    pub started_at: Option<Timestamp>,
    pub cgroup: CgroupUsage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupRole {
    /// All pods together.
    Pods,
    /// The pods of one QoS class, where they have a cgroup of their own.
    Class,
    /// This agent.
    Agent,
    /// The container runtime.
    Runtime,
}

#[derive(Debug, Clone, PartialEq)]
pub struct PodUsage {
    pub uid: PodUid,
    pub name: PodName,
    /// When its sandbox was made.
    pub started_at: Timestamp,
    /// Its cgroup; `None` where pods have none.
    pub cgroup: Option<CgroupUsage>,
    /// Of [`Detail::Metrics`] alone.
    pub sandbox: Option<ContainerUsage>,
    /// Those that run, by name.
    pub containers: Vec<ContainerUsage>,
    /// `None` for a pod on the host's network.
    pub network: Option<Network>,
    pub volumes: Vec<VolumeUsage>,
    /// What the pod's own files take that belong to no container and no volume.
    pub files: Option<DirectorySize>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ContainerUsage {
    /// The runtime's ID.
    pub id: String,
    /// Empty for a sandbox.
    pub name: String,
    /// Empty for a sandbox, whose image the runtime does not tell.
    pub image: String,
    pub created_at: Timestamp,
    pub cgroup: CgroupUsage,
    /// The writable layer, and the file system that it is on.
    pub rootfs: Option<FsUsage>,
    pub logs: Option<FsUsage>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct VolumeUsage {
    /// As in the pod's spec.
    pub name: String,
    pub kind: VolumeKind,
    pub fs: FsUsage,
}

/// Whether what is in a volume counts as the pod's ephemeral storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VolumeKind {
    /// On the node's disk, and gone with the pod.
    LocalEphemeral,
    Other,
}

/// One cgroup: where it is below the hierarchy's root, and what was read.
#[derive(Debug, Clone, PartialEq)]
pub struct CgroupUsage {
    pub path: Arc<str>,
    pub reading: Reading,
}

/// The files of one cgroup, understood.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    pub at: Timestamp,
    pub cpu: Cpu,
    pub memory: Option<Memory>,
    pub swap: Option<Swap>,
    pub pressure: Pressures,
    /// Processes in this very cgroup, without those below it.
    pub processes: Option<Processes>,
    /// Of [`Detail::Metrics`] alone.
    pub more: Option<Box<More>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cpu {
    /// CPU time since the cgroup was made.
    pub total: Duration,
    /// Billionths of a CPU, since an earlier reading; `None` without one that is
    /// recent enough.
    pub nano_cores: Option<u64>,
}

/// In bytes, unless said otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    pub usage: u64,
    /// What cannot be had back without effort: `usage` without `inactive_file`.
    pub working_set: u64,
    pub rss: u64,
    pub cache: u64,
    pub mapped_file: u64,
    pub active_file: u64,
    pub inactive_file: u64,
    /// Counts, of this cgroup and those below it.
    pub faults: Faults,
    /// Counts, of this cgroup alone where the kernel tells them apart (v1).
    pub own_faults: Faults,
    pub limit: Option<Limit>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    pub all: u64,
    pub major: u64,
}

/// In bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Swap {
    pub usage: u64,
    pub limit: Option<Limit>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    Unlimited,
    At(u64),
}

/// Time lost waiting (PSI). Kernels without it, and cgroup v1, have none.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Pressures {
    pub cpu: Option<Pressure>,
    pub memory: Option<Pressure>,
    pub io: Option<Pressure>,
}

#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Pressure {
    /// Some task waited.
    pub some: Stall,
    /// All tasks waited.
    pub full: Stall,
}

#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Stall {
    /// Percent of the last 10, 60 and 300 seconds.
    pub avg10: f64,
    pub avg60: f64,
    pub avg300: f64,
    /// Microseconds since the beginning.
    pub total: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Processes {
    pub count: u64,
    /// One of them.
    pub first: Option<u32>,
}

/// What only Prometheus asks for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct More {
    pub user: Option<Duration>,
    pub system: Option<Duration>,
    pub cpu_limit: CpuLimit,
    pub throttling: Option<Throttling>,
    pub memory: MoreMemory,
    /// Threads and processes in this cgroup and below.
    pub threads: Option<u64>,
    pub threads_max: Option<Limit>,
    /// Soft `RLIMIT_NOFILE` of one of the cgroup's own processes.
    pub max_open_files: Option<Limit>,
    pub devices: Vec<DeviceIo>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CpuLimit {
    /// In the scale of v1: 1024 is one CPU's.
    pub shares: Option<u64>,
    /// Microseconds in each period.
    pub quota: Option<Limit>,
    /// Microseconds.
    pub period: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Throttling {
    pub periods: u64,
    pub throttled_periods: u64,
    pub throttled: Duration,
    pub burst_periods: u64,
    pub burst: Duration,
}

/// In bytes, unless said otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MoreMemory {
    pub kernel: Option<u64>,
    /// The highest that usage has been.
    pub peak: Option<u64>,
    /// How often usage ran into the limit.
    pub limit_hits: Option<u64>,
    /// How many processes were killed for want of memory.
    pub oom_kills: Option<u64>,
    /// What reclaim leaves alone.
    pub reservation: Option<Limit>,
}

/// Block I/O of a cgroup on one device.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeviceIo {
    pub number: DeviceNumber,
    /// `/dev/vda`, or `254:0` for a device without a name.
    pub device: String,
    pub bytes: ReadsWrites,
    /// Counts.
    pub operations: ReadsWrites,
}

/// Major and minor number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct DeviceNumber {
    pub major: u32,
    pub minor: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReadsWrites {
    pub reads: u64,
    pub writes: u64,
}

/// What the kernel counts for a whole disk (`/proc/diskstats`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DiskCounters {
    pub device: String,
    pub completed: ReadsWrites,
    pub merged: ReadsWrites,
    /// Of 512 bytes.
    pub sectors: ReadsWrites,
    pub read_time: Duration,
    pub write_time: Duration,
    pub in_progress: u64,
    pub busy: Duration,
    /// Busy time, weighted by what was in progress.
    pub weighted: Duration,
}

/// Counters of a network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    pub at: Timestamp,
    /// By name, without loopback and the host's ends of pods' links.
    pub interfaces: Vec<Interface>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Interface {
    pub name: String,
    pub received: Traffic,
    pub sent: Traffic,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    pub bytes: u64,
    pub packets: u64,
    pub errors: u64,
    pub dropped: u64,
}

/// A file system, or a part of one: `used` of the part, the rest of the whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FsUsage {
    pub at: Timestamp,
    /// `/dev/vda1`, or what the file system is called that has no device.
    pub device: Option<Arc<str>>,
    /// Bytes.
    pub available: Option<u64>,
    pub capacity: Option<u64>,
    pub used: Option<u64>,
    pub inodes_free: Option<u64>,
    pub inodes: Option<u64>,
    pub inodes_used: Option<u64>,
}

/// What a directory and all in it take of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DirectorySize {
    pub bytes: u64,
    pub inodes: u64,
}

impl Limit {
    /// The kernel's "no limit" is a number, and not always the same.
    const UNLIMITED_FROM: u64 = 1 << 62;

    /// A limit as v1 writes it.
    #[must_use]
    pub fn of_bytes(bytes: u64) -> Self {
        if bytes > Self::UNLIMITED_FROM {
            Self::Unlimited
        } else {
            Self::At(bytes)
        }
    }

    #[must_use]
    pub fn bound(self) -> Option<u64> {
        match self {
            Self::Unlimited => None,
            Self::At(bound) => Some(bound),
        }
    }
}
