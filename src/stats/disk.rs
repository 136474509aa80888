//! What pods take of the node's disk, and what is left of it.
//!
//! In: directories of pods, of their logs, of the runtime. Out: [`FsUsage`]s.
//! Sizes of directories are found by walking them, which costs: a pod is looked
//! at anew only when what is known of it has grown old, and one collection walks
//! no more than so many files.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use nix::sys::statvfs::statvfs;
use procfs::process::Process;
use walkdir::WalkDir;

use super::model::{DirectorySize, FsUsage, VolumeKind, VolumeUsage};
use crate::pod::{PodName, PodUid};

/// Plugins whose volumes are on the node's own disk and go with the pod.
const LOCAL_EPHEMERAL: [&str; 2] = ["kubernetes.io~empty-dir", "kubernetes.io~configmap"];
/// How many files one collection walks at most; about half a second's worth.
const WALK_LIMIT: u64 = 200_000;
/// How long sizes of log files are good for.
const LOGS_PERIOD: Duration = Duration::from_secs(10);
const BLOCK: u64 = 512;

/// Where things are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskSettings {
    pub root_dir: PathBuf,
    pub pod_logs_dir: PathBuf,
    /// `volumeStatsAggPeriod`: how long sizes of volumes are good for. `None`:
    /// volumes are not looked at.
    pub volume_period: Option<Duration>,
}

/// What is known of pods' directories.
#[derive(Debug)]
pub(super) struct Disk {
    settings: DiskSettings,
    pods: HashMap<PodUid, KnownPod>,
    devices: HashMap<u64, Option<Arc<str>>>,
}

#[derive(Debug, Default)]
struct KnownPod {
    logs: Known<HashMap<String, DirectorySize>>,
    volumes: Known<Vec<Volume>>,
    seen: bool,
}

/// Something with the time it was found at, on a clock that does not jump.
#[derive(Debug, Default)]
struct Known<T> {
    value: T,
    at: Option<Duration>,
}

#[derive(Debug, Clone)]
struct Volume {
    name: String,
    kind: VolumeKind,
    directory: PathBuf,
    /// `None`: the whole file system is the volume.
    size: Option<DirectorySize>,
    at: Timestamp,
}

/// One collection's time, and what it may still spend.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) now: Timestamp,
    /// On a clock that does not jump.
    pub(super) clock: Duration,
    walk_left: u64,
    filesystems: HashMap<PathBuf, Option<FsUsage>>,
}

/// What was found of one pod.
#[derive(Debug, Default)]
pub(super) struct PodDisk {
    /// By container.
    pub(super) logs: HashMap<String, FsUsage>,
    pub(super) volumes: Vec<VolumeUsage>,
    pub(super) files: Option<DirectorySize>,
}

impl Round {
    pub(super) fn new(now: Timestamp, clock: Duration) -> Self {
        Self {
            now,
            clock,
            walk_left: WALK_LIMIT,
            filesystems: HashMap::new(),
        }
    }
}

impl Disk {
    pub(super) fn new(settings: DiskSettings) -> Self {
        Self {
            settings,
            pods: HashMap::new(),
            devices: HashMap::new(),
        }
    }

    /// The file system of the agent's root directory, with all that is used
    /// of it.
    pub(super) fn root(&mut self, round: &mut Round) -> Option<FsUsage> {
        let root_dir = self.settings.root_dir.clone();
        self.filesystem(&root_dir, round)
    }

    /// The file system that the directory is on, with all that is used of it.
    /// Each is asked for once a round.
    pub(super) fn filesystem(&mut self, directory: &Path, round: &mut Round) -> Option<FsUsage> {
        if let Some(known) = round.filesystems.get(directory) {
            return known.clone();
        }
        let usage = self.measure(directory, round.now);
        round
            .filesystems
            .insert(directory.to_owned(), usage.clone());
        usage
    }

    fn measure(&mut self, directory: &Path, at: Timestamp) -> Option<FsUsage> {
        let sizes = statvfs(directory).ok()?;
        let device = fs::metadata(directory).ok()?.dev();
        let unit = sizes.fragment_size();
        let (blocks, free) = (sizes.blocks(), sizes.blocks_free());
        Some(FsUsage {
            at,
            device: self.device(device),
            available: Some(sizes.blocks_available() * unit),
            capacity: Some(blocks * unit),
            used: Some(blocks.saturating_sub(free) * unit),
            inodes_free: Some(sizes.files_free()),
            inodes: Some(sizes.files()),
            inodes_used: sizes.files().checked_sub(sizes.files_free()),
        })
    }

    /// What is mounted from a device; mounts are read when an unknown one
    /// turns up.
    fn device(&mut self, number: u64) -> Option<Arc<str>> {
        self.devices
            .entry(number)
            .or_insert_with(|| mount_source(number))
            .clone()
    }

    /// Logs, volumes and files of a pod.
    pub(super) fn pod(&mut self, uid: &PodUid, name: &PodName, round: &mut Round) -> PodDisk {
        let directory = self.settings.root_dir.join("pods").join(uid.as_str());
        let logs = format!("{}_{}_{uid}", name.namespace, name.name);
        let logs = self.settings.pod_logs_dir.join(logs);
        let volume_period = self.settings.volume_period;
        let known = self.pods.entry(uid.clone()).or_default();
        known.seen = true;
        known
            .logs
            .renew(round.clock, LOGS_PERIOD, || log_sizes(&logs));
        if let Some(period) = volume_period.filter(|_| round.walk_left > 0) {
            let (now, left) = (round.now, &mut round.walk_left);
            known.volumes.renew(round.clock, period, || {
                volumes(&directory.join("volumes"), now, left)
            });
        }
        let logs_at = self.part_of_root(round);
        let known = self.pods.get(uid);
        let sizes = known
            .map(|known| known.logs.value.clone())
            .unwrap_or_default();
        let volumes = known
            .map(|known| known.volumes.value.clone())
            .unwrap_or_default();
        PodDisk {
            logs: sizes
                .into_iter()
                .filter_map(|(container, size)| Some((container, part(logs_at.clone()?, size))))
                .collect(),
            volumes: volumes
                .into_iter()
                .filter_map(|volume| self.volume(volume, round))
                .collect(),
            files: file_size(&directory.join("etc-hosts")),
        }
    }

    fn part_of_root(&mut self, round: &mut Round) -> Option<FsUsage> {
        let directory = self.settings.pod_logs_dir.clone();
        self.filesystem(&directory, round)
    }

    fn volume(&mut self, volume: Volume, round: &mut Round) -> Option<VolumeUsage> {
        let whole = match volume.size {
            // A file system of its own is not worth remembering by its path.
            None => self.measure(&volume.directory, round.now)?,
            Some(size) => {
                let root = self.root(round)?;
                FsUsage {
                    at: volume.at,
                    ..part(root, size)
                }
            }
        };
        Some(VolumeUsage {
            name: volume.name,
            kind: volume.kind,
            fs: whole,
        })
    }

    /// Forgets pods that the round did not ask for.
    pub(super) fn forget_unseen(&mut self) {
        self.pods.retain(|_, known| std::mem::take(&mut known.seen));
    }
}

impl<T> Known<T> {
    fn renew(&mut self, clock: Duration, period: Duration, look: impl FnOnce() -> T) {
        let age = self.at.map(|at| clock.saturating_sub(at));
        if age.is_none_or(|age| age >= period) {
            self.value = look();
            self.at = Some(clock);
        }
    }
}

/// `size` of the file system.
fn part(whole: FsUsage, size: DirectorySize) -> FsUsage {
    FsUsage {
        used: Some(size.bytes),
        inodes_used: Some(size.inodes),
        ..whole
    }
}

fn mount_source(device: u64) -> Option<Arc<str>> {
    let number = format!("{}:{}", nix::libc::major(device), nix::libc::minor(device));
    let mounts = Process::myself().and_then(|own| own.mountinfo()).ok()?;
    let mount = mounts.0.into_iter().find(|mount| mount.majmin == number)?;
    mount.mount_source.map(Arc::from)
}

/// The log files of each container of a pod.
fn log_sizes(directory: &Path) -> HashMap<String, DirectorySize> {
    let containers = fs::read_dir(directory).into_iter().flatten().flatten();
    containers
        .filter_map(|container| {
            let name = container.file_name().into_string().ok()?;
            let files = fs::read_dir(container.path()).ok()?.flatten();
            let mut sum = DirectorySize::default();
            for metadata in files.filter_map(|file| file.metadata().ok()) {
                sum.add(&metadata);
            }
            Some((name, sum))
        })
        .collect()
}

/// The volumes of a pod: `<plugin>/<name>` below `directory`. One that is too
/// large to be walked is left out.
fn volumes(directory: &Path, at: Timestamp, walk_left: &mut u64) -> Vec<Volume> {
    let Ok(own_device) = fs::metadata(directory).map(|metadata| metadata.dev()) else {
        return Vec::new();
    };
    let below = |directory: &Path| fs::read_dir(directory).into_iter().flatten().flatten();
    let mut volumes = Vec::new();
    for plugin in below(directory) {
        let is_local = LOCAL_EPHEMERAL
            .iter()
            .any(|name| plugin.file_name() == *name);
        for volume in below(&plugin.path()) {
            let (Ok(name), Ok(metadata)) = (volume.file_name().into_string(), volume.metadata())
            else {
                continue;
            };
            let is_mount = metadata.dev() != own_device;
            let kind = if is_local && !is_mount {
                VolumeKind::LocalEphemeral
            } else {
                VolumeKind::Other
            };
            let size = if is_mount {
                None
            } else if let Some(size) = directory_size(&volume.path(), walk_left) {
                Some(size)
            } else {
                continue;
            };
            volumes.push(Volume {
                name,
                kind,
                directory: volume.path(),
                size,
                at,
            });
        }
    }
    volumes.sort_by(|a, b| a.name.cmp(&b.name));
    volumes
}

/// A directory with all in it that is on the same file system; files with
/// several names count once. `None` once `walk_left` is used up.
fn directory_size(path: &Path, walk_left: &mut u64) -> Option<DirectorySize> {
    let mut sum = DirectorySize::default();
    let mut linked = HashSet::new();
    for entry in WalkDir::new(path).same_file_system(true) {
        *walk_left = walk_left.checked_sub(1)?;
        // Files come and go while they are counted.
        let Some(metadata) = entry.ok().and_then(|entry| entry.metadata().ok()) else {
            continue;
        };
        if metadata.nlink() < 2 || metadata.is_dir() || linked.insert(metadata.ino()) {
            sum.add(&metadata);
        }
    }
    Some(sum)
}

fn file_size(path: &Path) -> Option<DirectorySize> {
    let mut sum = DirectorySize::default();
    sum.add(&fs::symlink_metadata(path).ok()?);
    Some(sum)
}

impl DirectorySize {
    fn add(&mut self, metadata: &fs::Metadata) {
        self.bytes += metadata.blocks() * BLOCK;
        self.inodes += 1;
    }
}

#[cfg(test)]
mod tests;
