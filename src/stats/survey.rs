//! The blocking half of a collection: what to look at in, a [`Snapshot`] out.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::disk::{Disk, PodDisk, Round};
use super::model::{
    CgroupUsage, ContainerUsage, Detail, DeviceNumber, FsUsage, GroupRole, GroupUsage, Limit,
    Network, NodeDisk, NodeUsage, PodUsage, Snapshot,
};
use super::place::CgroupNames;
use super::rate::Rates;
use super::read::{CgroupReader, Kind, Wanted, pressures};
use super::target::{ContainerTarget, PodTarget};
use super::{machine, network, parse};
use crate::cgroup::{CgroupPath, Hierarchy};
use crate::pod::ContainerId;
use crate::pod::qos::QosClass;
use crate::runtime::{DiskUsage, ImageDisk};

const CLASSES: [QosClass; 3] = [
    QosClass::Guaranteed,
    QosClass::Burstable,
    QosClass::BestEffort,
];

/// What the runtime told of the disk.
#[derive(Debug, Default)]
pub(super) struct RuntimeDisk {
    pub(super) layers: HashMap<ContainerId, DiskUsage>,
    pub(super) images: ImageDisk,
}

/// Cgroups by what they are.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) names: CgroupNames,
    pub(super) agent: Option<CgroupPath>,
    pub(super) runtime: Option<CgroupPath>,
}

/// Everything that collections use again.
#[derive(Debug)]
pub(super) struct Survey {
    reader: CgroupReader,
    rates: Rates,
    disk: Disk,
    places: Places,
    /// The machine's, in bytes: the limit of the root.
    memory: u64,
    /// When the machine booted.
    started_at: Option<Timestamp>,
    /// When this began; rates are measured on a clock that does not jump.
    epoch: Instant,
    devices: HashMap<DeviceNumber, String>,
}

/// The cgroup of this process, if it is a systemd service's and so its own.
pub(super) fn own_cgroup(hierarchy: &Hierarchy) -> Option<String> {
    let controller = match hierarchy {
        Hierarchy::V1(_) => "memory",
        Hierarchy::V2 { .. } => "",
    };
    let text = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = parse::cgroup_of(&text, controller)?;
    path.ends_with(".service").then(|| path.to_owned())
}

impl Survey {
    pub(super) fn new(
        reader: CgroupReader,
        rates: Rates,
        disk: Disk,
        places: Places,
        memory: u64,
    ) -> Self {
        Self {
            reader,
            rates,
            disk,
            places,
            memory,
            started_at: boot_time(),
            epoch: Instant::now(),
            devices: HashMap::new(),
        }
    }

    /// `None`: not even the root's cgroup can be read.
    pub(super) fn collect(
        &mut self,
        detail: Detail,
        targets: Vec<PodTarget>,
        runtime: &RuntimeDisk,
        now: Timestamp,
    ) -> Option<Snapshot> {
        let mut round = Round::new(now, self.epoch.elapsed());
        let snapshot = Snapshot {
            detail,
            node: self.node(detail, runtime, &mut round)?,
            groups: self.groups(detail),
            pods: targets
                .into_iter()
                .map(|target| self.pod(detail, target, runtime, &mut round))
                .collect(),
        };
        self.rates.forget_unseen();
        if detail >= Detail::Summary {
            self.disk.forget_unseen();
        }
        Some(snapshot)
    }

    // === the machine ===

    fn node(
        &mut self,
        detail: Detail,
        runtime: &RuntimeDisk,
        round: &mut Round,
    ) -> Option<NodeUsage> {
        let root = CgroupPath::parse("/").ok()?;
        let mut cgroup = self.cgroup(&root, detail, Kind::Inner)?;
        if let Some(memory) = &mut cgroup.reading.memory {
            memory.limit = Some(Limit::At(self.memory));
        }
        let started_at = self.started_at?;
        if detail < Detail::Summary {
            return Some(NodeUsage {
                started_at,
                cgroup,
                network: None,
                disk: NodeDisk::default(),
                processes: None,
            });
        }
        let files = self.reader.files();
        cgroup.reading.pressure =
            pressures(files, Path::new("/proc/pressure"), ["cpu", "memory", "io"]);
        Some(NodeUsage {
            started_at,
            cgroup,
            network: network::node(files, round.now),
            processes: machine::processes(files, round.now),
            disk: NodeDisk {
                root: self.disk.root(round),
                images: self.store(runtime.images.images.as_ref(), round),
                containers: self.store(runtime.images.containers.as_ref(), round),
                devices: match detail {
                    Detail::Metrics => machine::disks(),
                    Detail::CpuAndMemory | Detail::Summary => Vec::new(),
                },
            },
        })
    }

    fn store(&mut self, usage: Option<&DiskUsage>, round: &mut Round) -> Option<FsUsage> {
        usage.map(|usage| self.layer(usage, round))
    }

    /// What the runtime measured, with what is left where it is.
    fn layer(&mut self, usage: &DiskUsage, round: &mut Round) -> FsUsage {
        let whole = self.disk.filesystem(&usage.directory, round);
        FsUsage {
            at: usage.at,
            device: whole.as_ref().and_then(|whole| whole.device.clone()),
            available: whole.as_ref().and_then(|whole| whole.available),
            capacity: whole.as_ref().and_then(|whole| whole.capacity),
            inodes_free: whole.as_ref().and_then(|whole| whole.inodes_free),
            inodes: whole.as_ref().and_then(|whole| whole.inodes),
            used: usage.used_bytes,
            inodes_used: usage.inodes_used,
        }
    }

    fn groups(&mut self, detail: Detail) -> Vec<GroupUsage> {
        let class = |class| self.places.names.class(class).ok();
        let mut wanted = vec![
            (GroupRole::Pods, class(QosClass::Guaranteed)),
            (GroupRole::Agent, self.places.agent.clone()),
            (GroupRole::Runtime, self.places.runtime.clone()),
        ];
        if detail == Detail::Metrics {
            wanted.push((GroupRole::Class, class(QosClass::Burstable)));
            wanted.push((GroupRole::Class, class(QosClass::BestEffort)));
        }
        let groups = wanted.into_iter();
        groups
            .filter_map(|(role, path)| {
                let path = path?;
                let directory = self.reader.directory(&path);
                Some(GroupUsage {
                    role,
                    started_at: directory.and_then(|directory| made_at(&directory)),
                    cgroup: self.cgroup(&path, detail, Kind::Inner)?,
                })
            })
            .collect()
    }

    // === pods ===

    fn pod(
        &mut self,
        detail: Detail,
        target: PodTarget,
        runtime: &RuntimeDisk,
        round: &mut Round,
    ) -> PodUsage {
        let path = self.pod_path(&target);
        let cgroup = path
            .as_ref()
            .and_then(|path| self.cgroup(path, detail, Kind::Inner));
        let mut disk = PodDisk::default();
        let mut network = None;
        if detail >= Detail::Summary {
            disk = self.disk.pod(&target.uid, &target.name, round);
            network = path
                .as_ref()
                .filter(|_| !target.host_network)
                .and_then(|path| self.network(path, &target.sandbox, round.now));
        }
        let sandbox = path
            .as_ref()
            .filter(|_| detail == Detail::Metrics)
            .and_then(|path| self.container(detail, path, &target.sandbox));
        let mut containers = Vec::new();
        for wanted in &target.containers {
            let Some(mut container) = path
                .as_ref()
                .and_then(|path| self.container(detail, path, wanted))
            else {
                continue;
            };
            container.logs = disk.logs.remove(&wanted.name);
            let layer = runtime.layers.get(&ContainerId(wanted.id.clone()));
            container.rootfs = self.store(layer, round);
            containers.push(container);
        }
        PodUsage {
            uid: target.uid,
            name: target.name,
            started_at: target.sandbox.created_at,
            cgroup,
            sandbox,
            containers,
            network,
            volumes: disk.volumes,
            files: disk.files,
        }
    }

    /// A pod that nobody wants any more is looked for in every class.
    fn pod_path(&self, target: &PodTarget) -> Option<CgroupPath> {
        let path = |class| self.places.names.pod(class, &target.uid).ok();
        match target.class {
            Some(class) => path(class),
            None => CLASSES.into_iter().filter_map(path).find(|path| {
                let directory = self.reader.directory(path);
                directory.is_some_and(|directory| directory.exists())
            }),
        }
    }

    /// The network of a sandbox is that of its process.
    fn network(
        &mut self,
        pod: &CgroupPath,
        sandbox: &ContainerTarget,
        now: Timestamp,
    ) -> Option<Network> {
        let path = self.places.names.container(pod, &sandbox.id).ok()?;
        let process = self.reader.processes(&path)?.first?;
        network::of_process(self.reader.files(), process, now)
    }

    fn container(
        &mut self,
        detail: Detail,
        pod: &CgroupPath,
        wanted: &ContainerTarget,
    ) -> Option<ContainerUsage> {
        let path = self.places.names.container(pod, &wanted.id).ok()?;
        Some(ContainerUsage {
            cgroup: self.cgroup(&path, detail, Kind::Leaf)?,
            id: wanted.id.clone(),
            name: wanted.name.clone(),
            image: wanted.image.clone(),
            created_at: wanted.created_at,
            rootfs: None,
            logs: None,
        })
    }

    // === any cgroup ===

    fn cgroup(&mut self, path: &CgroupPath, detail: Detail, kind: Kind) -> Option<CgroupUsage> {
        // Each reading has its own time: the last of many is made later.
        let clock = self.epoch.elapsed();
        let wanted = Wanted { detail, kind };
        let mut reading = self.reader.read(path, wanted, Timestamp::now())?;
        let path: Arc<str> = path.as_str().into();
        reading.cpu.nano_cores = self.rates.observe(&path, clock, reading.cpu.total);
        if let Some(more) = &mut reading.more {
            for io in &mut more.devices {
                let name = self.devices.entry(io.number);
                io.device
                    .clone_from(name.or_insert_with(|| device_name(io.number)));
            }
        }
        Some(CgroupUsage { path, reading })
    }
}

/// `/dev/vda` for 254:0; the number itself for a device without a name, for no
/// two may be called the same.
fn device_name(number: DeviceNumber) -> String {
    let number = format!("{}:{}", number.major, number.minor);
    let link = std::fs::read_link(Path::new("/sys/dev/block").join(&number)).ok();
    let name = link.as_deref().and_then(Path::file_name);
    name.and_then(|name| name.to_str())
        .map_or(number, |name| format!("/dev/{name}"))
}

fn boot_time() -> Option<Timestamp> {
    let seconds = procfs::boot_time_secs().ok()?;
    Timestamp::from_second(i64::try_from(seconds).ok()?).ok()
}

/// A cgroup's directory is as old as its last change of children, or older:
/// kernels keep no better time.
fn made_at(directory: &Path) -> Option<Timestamp> {
    let metadata = std::fs::metadata(directory).ok()?;
    let since = Duration::new(
        u64::try_from(metadata.mtime()).ok()?,
        u32::try_from(metadata.mtime_nsec()).ok()?,
    );
    Timestamp::UNIX_EPOCH.checked_add(since).ok()
}
