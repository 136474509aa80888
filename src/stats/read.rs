//! One cgroup's files as one [`Reading`], on v1 and on v2.
//!
//! In: a path below the hierarchy's root, and how much is wanted. Out: what the
//! kernel tells. Only the files that are needed for that are opened.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;

use super::files::Files;
use super::model::{
    Cpu, CpuLimit, Detail, DeviceIo, DeviceNumber, Limit, Memory, More, MoreMemory, Pressures,
    Processes, Reading, ReadsWrites, Swap,
};
use super::parse;
use crate::cgroup::{CgroupPath, Hierarchy};

/// What is asked of one cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) detail: Detail,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Holds other cgroups.
    Inner,
    /// Holds processes.
    Leaf,
}

/// Reads cgroups of one hierarchy.
#[derive(Debug)]
pub(super) struct CgroupReader {
    mounts: Mounts,
    swap: SwapSpace,
    files: Files,
}

/// Whether this machine has swap space at all. Without it nothing needs to be
/// read to know that nothing is swapped out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SwapSpace {
    None,
    Some,
}

#[derive(Debug)]
enum Mounts {
    V1(Box<V1>),
    V2(PathBuf),
}

/// Where the controllers that we read are mounted.
#[derive(Debug, Default)]
struct V1 {
    cpu: Option<PathBuf>,
    cpuacct: Option<PathBuf>,
    memory: Option<PathBuf>,
    pids: Option<PathBuf>,
    blkio: Option<PathBuf>,
}

impl CgroupReader {
    pub(super) fn new(hierarchy: &Hierarchy, swap: SwapSpace) -> Self {
        let at = |controller| hierarchy.mount_of(controller).map(Path::to_owned);
        let mounts = match hierarchy {
            Hierarchy::V1(_) => Mounts::V1(Box::new(V1 {
                cpu: at("cpu"),
                cpuacct: at("cpuacct"),
                memory: at("memory"),
                pids: at("pids"),
                blkio: at("blkio"),
            })),
            Hierarchy::V2 { mount, .. } => Mounts::V2(mount.clone()),
        };
        Self {
            mounts,
            swap,
            files: Files::new(),
        }
    }

    /// The buffer, for other files of the kernel.
    pub(super) fn files(&mut self) -> &mut Files {
        &mut self.files
    }

    /// The directory by which the cgroup's existence can be told.
    pub(super) fn directory(&self, path: &CgroupPath) -> Option<PathBuf> {
        match &self.mounts {
            Mounts::V1(v1) => v1.memory.as_ref().map(|mount| path.below(mount)),
            Mounts::V2(mount) => Some(path.below(mount)),
        }
    }

    /// The processes in this very cgroup.
    pub(super) fn processes(&mut self, path: &CgroupPath) -> Option<Processes> {
        let directory = self.directory(path)?;
        let processes = self.files.list(&directory, "cgroup.procs");
        processes.map(parse::processes)
    }

    /// `None`: there is no such cgroup (any more).
    pub(super) fn read(
        &mut self,
        path: &CgroupPath,
        wanted: Wanted,
        now: Timestamp,
    ) -> Option<Reading> {
        let swap = self.swap;
        match &self.mounts {
            Mounts::V1(v1) => {
                let at = |mount: &Option<PathBuf>| mount.as_ref().map(|mount| path.below(mount));
                let group = V1 {
                    cpu: at(&v1.cpu),
                    cpuacct: at(&v1.cpuacct),
                    memory: at(&v1.memory),
                    pids: at(&v1.pids),
                    blkio: at(&v1.blkio),
                };
                group.read(&mut self.files, wanted, swap, now)
            }
            Mounts::V2(mount) => {
                let group = V2 {
                    directory: path.below(mount),
                };
                group.read(&mut self.files, wanted, swap, now)
            }
        }
    }
}

// === v1 ===

impl V1 {
    fn read(
        &self,
        files: &mut Files,
        wanted: Wanted,
        swap: SwapSpace,
        now: Timestamp,
    ) -> Option<Reading> {
        let cpuacct = self.cpuacct.as_deref()?;
        let total = files
            .value(cpuacct, "cpuacct.usage")
            .and_then(parse::number)?;
        let mut memory = None;
        let mut swapped = None;
        if let Some(directory) = &self.memory {
            (memory, swapped) = v1_memory(files, directory, wanted.detail);
        }
        let processes = (wanted.detail >= Detail::Summary && wanted.kind == Kind::Leaf)
            .then(|| files.list(cpuacct, "cgroup.procs").map(parse::processes))
            .flatten();
        let first = processes.and_then(|processes| processes.first);
        let more = (wanted.detail >= Detail::Metrics).then(|| Box::new(self.more(files, first)));
        Some(Reading {
            at: now,
            cpu: Cpu {
                total: Duration::from_nanos(total),
                nano_cores: None,
            },
            memory,
            swap: match swap {
                SwapSpace::None => Some(NO_SWAP),
                SwapSpace::Some => swapped.map(|usage| Swap {
                    usage,
                    limit: self.swap_limit(files),
                }),
            },
            pressure: Pressures::default(),
            processes,
            more,
        })
    }

    /// v1 limits memory and swap together.
    fn swap_limit(&self, files: &mut Files) -> Option<Limit> {
        let directory = self.memory.as_deref()?;
        let mut limit = |name| files.value(directory, name).and_then(parse::limit);
        let both = limit("memory.memsw.limit_in_bytes")?;
        let memory = limit("memory.limit_in_bytes")?;
        Some(match (both, memory) {
            (Limit::At(both), Limit::At(memory)) => Limit::At(both.saturating_sub(memory)),
            _ => Limit::Unlimited,
        })
    }

    fn more(&self, files: &mut Files, first: Option<u32>) -> More {
        let mut more = More::default();
        if let Some(directory) = &self.cpuacct {
            let times = files
                .value(directory, "cpuacct.stat")
                .map(parse::cpuacct_stat);
            (more.user, more.system) = times.unwrap_or_default();
        }
        if let Some(directory) = &self.cpu {
            more.throttling = files
                .value(directory, "cpu.stat")
                .and_then(parse::throttling_v1);
            let mut file = |name| files.value(directory, name).and_then(parse::limit);
            more.cpu_limit = CpuLimit {
                shares: file("cpu.shares").and_then(Limit::bound),
                quota: file("cpu.cfs_quota_us"),
                period: file("cpu.cfs_period_us").and_then(Limit::bound),
            };
        }
        if let Some(directory) = &self.memory {
            more.memory = v1_more_memory(files, directory);
        }
        if let Some(directory) = &self.pids {
            (more.threads, more.threads_max) = threads(files, directory);
        }
        if let Some(directory) = &self.blkio {
            let mut file = |name| files.list(directory, name).map(parse::blkio);
            let bytes = file("blkio.throttle.io_service_bytes_recursive").unwrap_or_default();
            let operations = file("blkio.throttle.io_serviced_recursive").unwrap_or_default();
            more.devices = join_devices(bytes, &operations);
        }
        more.max_open_files = max_open_files(files, first);
        more
    }
}

fn v1_memory(files: &mut Files, directory: &Path, detail: Detail) -> (Option<Memory>, Option<u64>) {
    let Some(usage) = files
        .value(directory, "memory.usage_in_bytes")
        .and_then(parse::number)
    else {
        return (None, None);
    };
    let Some(stat) = files.value(directory, "memory.stat") else {
        return (None, None);
    };
    let (mut memory, swap) = parse::memory_v1(stat, usage);
    if detail >= Detail::Summary {
        memory.limit = files
            .value(directory, "memory.limit_in_bytes")
            .and_then(parse::limit);
    }
    (Some(memory), swap)
}

fn v1_more_memory(files: &mut Files, directory: &Path) -> MoreMemory {
    let mut number = |name| files.value(directory, name).and_then(parse::number);
    MoreMemory {
        kernel: number("memory.kmem.usage_in_bytes"),
        peak: number("memory.max_usage_in_bytes"),
        limit_hits: number("memory.failcnt"),
        reservation: number("memory.soft_limit_in_bytes").map(Limit::of_bytes),
        oom_kills: files
            .value(directory, "memory.oom_control")
            .and_then(|text| parse::count(text, "oom_kill")),
    }
}

// === v2 ===

struct V2 {
    directory: PathBuf,
}

impl V2 {
    fn read(
        &self,
        files: &mut Files,
        wanted: Wanted,
        swap: SwapSpace,
        now: Timestamp,
    ) -> Option<Reading> {
        let directory = &self.directory;
        let cpu = parse::cpu_stat_v2(files.value(directory, "cpu.stat")?);
        let (memory, kernel) = self.memory(files, wanted.detail);
        let summary = wanted.detail >= Detail::Summary;
        let processes = (summary && wanted.kind == Kind::Leaf)
            .then(|| files.list(directory, "cgroup.procs").map(parse::processes))
            .flatten();
        let pressure = if summary {
            pressures(
                files,
                directory,
                ["cpu.pressure", "memory.pressure", "io.pressure"],
            )
        } else {
            Pressures::default()
        };
        let first = processes.and_then(|processes| processes.first);
        let more = (wanted.detail >= Detail::Metrics).then(|| {
            let mut more = self.more(files, first);
            (more.user, more.system) = (cpu.user, cpu.system);
            more.throttling = cpu.throttling;
            more.memory.kernel = kernel;
            Box::new(more)
        });
        Some(Reading {
            at: now,
            cpu: Cpu {
                total: cpu.usage?,
                nano_cores: None,
            },
            memory,
            swap: match swap {
                SwapSpace::None => Some(NO_SWAP),
                SwapSpace::Some => self.swap(files),
            },
            pressure,
            processes,
            more,
        })
    }

    fn memory(&self, files: &mut Files, detail: Detail) -> (Option<Memory>, Option<u64>) {
        let directory = &self.directory;
        let own = files
            .value(directory, "memory.current")
            .and_then(parse::number);
        // The root has no such file: it is the machine.
        let Some(usage) = own.or_else(|| machine_used(files, "MemTotal", "MemFree")) else {
            return (None, None);
        };
        let Some(stat) = files.value(directory, "memory.stat") else {
            return (None, None);
        };
        let (mut memory, kernel) = parse::memory_v2(stat, usage);
        if detail >= Detail::Summary {
            memory.limit = files.value(directory, "memory.max").and_then(parse::limit);
        }
        (Some(memory), kernel)
    }

    fn swap(&self, files: &mut Files) -> Option<Swap> {
        let directory = &self.directory;
        let own = files
            .value(directory, "memory.swap.current")
            .and_then(parse::number);
        Some(Swap {
            usage: own.or_else(|| machine_used(files, "SwapTotal", "SwapFree"))?,
            limit: files
                .value(directory, "memory.swap.max")
                .and_then(parse::limit),
        })
    }

    fn more(&self, files: &mut Files, first: Option<u32>) -> More {
        let directory = &self.directory;
        let weight = files.value(directory, "cpu.weight").and_then(parse::number);
        let mut more = More {
            cpu_limit: parse::cpu_limit_v2(files.value(directory, "cpu.max"), weight),
            memory: MoreMemory {
                kernel: None,
                peak: files
                    .value(directory, "memory.peak")
                    .and_then(parse::number),
                reservation: files.value(directory, "memory.min").and_then(parse::limit),
                ..v2_memory_events(files, directory)
            },
            ..More::default()
        };
        (more.threads, more.threads_max) = threads(files, directory);
        let devices = files.list(directory, "io.stat").map(parse::io_stat);
        more.devices = devices
            .unwrap_or_default()
            .into_iter()
            .map(|(number, bytes, operations)| DeviceIo {
                number,
                device: String::new(),
                bytes,
                operations,
            })
            .collect();
        more.max_open_files = max_open_files(files, first);
        more
    }
}

fn v2_memory_events(files: &mut Files, directory: &Path) -> MoreMemory {
    let events = files.value(directory, "memory.events").unwrap_or_default();
    MoreMemory {
        limit_hits: parse::count(events, "max"),
        oom_kills: parse::count(events, "oom_kill"),
        ..MoreMemory::default()
    }
}

// === both ===

const NO_SWAP: Swap = Swap {
    usage: 0,
    limit: Some(Limit::At(0)),
};

/// Pressure by the names that its files have in `directory`.
pub(super) fn pressures(
    files: &mut Files,
    directory: &Path,
    [cpu, memory, io]: [&str; 3],
) -> Pressures {
    let mut file = |name| files.value(directory, name).and_then(parse::pressure);
    Pressures {
        cpu: file(cpu),
        memory: file(memory),
        io: file(io),
    }
}

/// What of the machine's memory is not free, in bytes.
fn machine_used(files: &mut Files, total: &str, free: &str) -> Option<u64> {
    let text = files.value(Path::new("/proc"), "meminfo")?;
    parse::meminfo(text, total)?.checked_sub(parse::meminfo(text, free)?)
}

fn threads(files: &mut Files, directory: &Path) -> (Option<u64>, Option<Limit>) {
    let current = files
        .value(directory, "pids.current")
        .and_then(parse::number);
    let most = files.value(directory, "pids.max").and_then(parse::limit);
    (current, most)
}

fn max_open_files(files: &mut Files, process: Option<u32>) -> Option<Limit> {
    let directory = PathBuf::from(format!("/proc/{}", process?));
    files
        .value(&directory, "limits")
        .and_then(parse::max_open_files)
}

fn join_devices(
    bytes: Vec<(DeviceNumber, ReadsWrites)>,
    operations: &[(DeviceNumber, ReadsWrites)],
) -> Vec<DeviceIo> {
    bytes
        .into_iter()
        .map(|(number, bytes)| DeviceIo {
            number,
            device: String::new(),
            bytes,
            operations: operations
                .iter()
                .find(|(other, _)| *other == number)
                .map(|(_, operations)| *operations)
                .unwrap_or_default(),
        })
        .collect()
}
