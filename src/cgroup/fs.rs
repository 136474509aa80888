//! The cgroupfs driver: directories and plain file writes.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::kill::{self, file_error};
use super::names::{CgroupPath, QosParent, parse_pod, pod_path};
use super::values::{self, IfMissing, Setting};
use super::{CgroupError, Hierarchy, PodCgroups};
use crate::pod::PodUid;
use crate::pod::cgroup::{PodCgroup, QosShares};
use crate::pod::facts::CgroupVersion;

/// The least shares that v1 takes: best-effort pods get what is left over.
const BEST_EFFORT_SHARES: u64 = 2;
/// Controllers handed down to pods on v2, where they are there.
const DELEGATED: [&str; 5] = ["cpu", "cpuset", "memory", "pids", "hugetlb"];

/// How often processes are killed anew before a cgroup counts as stuck.
const KILL_ROUNDS: u32 = 5;
/// How long killed processes are given to vanish, in each round.
const KILL_WAIT: Duration = Duration::from_millis(500);
const KILL_POLL: Duration = Duration::from_millis(5);

/// Where our tree stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupSettings {
    /// `cgroupRoot`: the cgroup under which `kubepods` stands; `/` or empty for
    /// the hierarchy's root. Made if it is not there.
    pub root: String,
    pub hierarchy: Hierarchy,
}

/// Limits for all pods together, or for the node's daemons
/// (`enforceNodeAllocatable`). For pods, `None` lifts the limit, also one that an
/// earlier process has set; for daemons it leaves what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RootLimits {
    /// cgroup v1 scale.
    pub cpu_shares: Option<u64>,
    /// Bytes.
    pub memory_limit: Option<u64>,
    pub pids_limit: Option<i64>,
}

/// Cgroups by file operations. Cheap to clone; clones are the same thing.
#[derive(Debug, Clone)]
pub struct CgroupFs {
    tree: Arc<Tree>,
}

impl CgroupFs {
    /// `driver` is what the runtime says it uses, or `cgroupDriver`.
    ///
    /// # Errors
    /// For any driver but cgroupfs, and for a root that is not a cgroup path.
    pub fn new(driver: &str, settings: CgroupSettings) -> Result<Self, CgroupError> {
        if driver != "cgroupfs" {
            return Err(CgroupError::UnsupportedDriver(driver.to_owned()));
        }
        let root = match settings.root.as_str() {
            "" => "/",
            root => root,
        };
        let tree = Tree {
            root: CgroupPath::parse(root)?,
            hierarchy: settings.hierarchy,
        };
        Ok(Self {
            tree: Arc::new(tree),
        })
    }

    /// Makes `kubepods` and the cgroups of the QoS classes. Shares of the
    /// burstable class are left as they are: they follow its pods.
    ///
    /// # Errors
    /// When a directory or file refuses.
    pub async fn ensure_classes(&self) -> Result<(), CgroupError> {
        self.blocking(Tree::ensure_classes).await
    }

    /// Sets the limits of `kubepods`, which must exist.
    ///
    /// # Errors
    /// When a file refuses; notably v1's memory limit, as long as running pods
    /// use more than that. Worth another try later.
    pub async fn set_root_limits(&self, limits: &RootLimits) -> Result<(), CgroupError> {
        let limits = *limits;
        self.blocking(move |tree| {
            let kubepods = QosParent::Guaranteed.path(&tree.root);
            let settings = values::of_root(tree.hierarchy.version(), &limits);
            tree.write(&kubepods, &settings)
        })
        .await
    }

    /// Sets limits of a cgroup that is not ours: of the node's daemons.
    ///
    /// # Errors
    /// When there is no such cgroup, or a file refuses.
    pub async fn set_daemon_limits(
        &self,
        cgroup: &str,
        limits: &RootLimits,
    ) -> Result<(), CgroupError> {
        let (path, limits) = (CgroupPath::parse(cgroup)?, *limits);
        self.blocking(move |tree| {
            let settings = values::of_daemons(tree.hierarchy.version(), &limits);
            tree.write(&path, &settings)
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Tree) -> T + Send + 'static,
    ) -> T {
        let tree = Arc::clone(&self.tree);
        match tokio::task::spawn_blocking(move || work(&tree)).await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Cancelled: the runtime is shutting down, and this task ends
                // with it.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

#[async_trait]
impl PodCgroups for CgroupFs {
    async fn ensure(&self, cgroup: &PodCgroup) -> Result<(), CgroupError> {
        let cgroup = cgroup.clone();
        self.blocking(move |tree| tree.ensure_pod(&cgroup)).await
    }

    async fn memory_in_use(&self, cgroup: &PodCgroup) -> Result<u64, CgroupError> {
        let path = CgroupPath::parse(&cgroup.path)?;
        self.blocking(move |tree| tree.memory_in_use(&path)).await
    }

    async fn remove(&self, uid: &PodUid) -> Result<(), CgroupError> {
        let trees = self.tree.trees_of(uid)?;
        for _ in 0..KILL_ROUNDS {
            if self.kill_and_remove(&trees).await? {
                return Ok(());
            }
        }
        let pids = kill::processes(&trees)?.into_iter().collect();
        // Some tree exists: they were not all removed.
        let path = trees.into_iter().find(|tree| tree.exists());
        match path {
            Some(path) => Err(CgroupError::Busy { path, pids }),
            None => Ok(()),
        }
    }

    async fn set_qos_shares(&self, shares: QosShares) -> Result<(), CgroupError> {
        self.blocking(move |tree| {
            let burstable = QosParent::Burstable.path(&tree.root);
            let setting = values::shares(tree.hierarchy.version(), shares.burstable);
            tree.write(&burstable, &[setting])
        })
        .await
    }

    async fn pods_on_disk(&self) -> Result<Vec<PodUid>, CgroupError> {
        self.blocking(Tree::pods).await
    }
}

impl CgroupFs {
    /// One round; true when nothing is left of the trees.
    async fn kill_and_remove(&self, trees: &[PathBuf]) -> Result<bool, CgroupError> {
        let present: Vec<PathBuf> = trees.iter().filter(|tree| tree.exists()).cloned().collect();
        if present.is_empty() {
            return Ok(true);
        }
        let killed = present.clone();
        let mut left = self.blocking(move |_| kill::kill_all(&killed)).await?;
        let deadline = tokio::time::Instant::now() + KILL_WAIT;
        while !left.is_empty() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(KILL_POLL).await;
            left = kill::processes(&present)?;
        }
        self.blocking(move |_| kill::remove_trees(&present)).await
    }
}

/// The blocking half.
#[derive(Debug)]
struct Tree {
    root: CgroupPath,
    hierarchy: Hierarchy,
}

impl Tree {
    fn ensure_classes(&self) -> Result<(), CgroupError> {
        for class in QosParent::ALL {
            self.make(&class.path(&self.root))?;
        }
        let best_effort = QosParent::BestEffort.path(&self.root);
        let shares = values::shares(self.hierarchy.version(), BEST_EFFORT_SHARES);
        self.write(&best_effort, &[shares])
    }

    fn ensure_pod(&self, pod: &PodCgroup) -> Result<(), CgroupError> {
        let path = CgroupPath::parse(&pod.path)?;
        self.make(&path)?;
        self.write(&path, &values::of_pod(self.hierarchy.version(), pod))
    }

    /// Makes the cgroup in every hierarchy, with those above it.
    fn make(&self, path: &CgroupPath) -> Result<(), CgroupError> {
        match &self.hierarchy {
            Hierarchy::V1(mounts) => mounts.iter().try_for_each(|mount| {
                let has_cpuset = mount.controllers.contains("cpuset");
                descend(&mount.path, path, |parent, child| {
                    make_directory(child)?;
                    if has_cpuset {
                        inherit_cpuset(parent, child)?;
                    }
                    Ok(())
                })
            }),
            Hierarchy::V2 { mount, controllers } => descend(mount, path, |parent, child| {
                delegate(parent, controllers)?;
                make_directory(child)
            }),
        }
    }

    /// Writes those values that are not there already.
    fn write(&self, path: &CgroupPath, settings: &[Setting]) -> Result<(), CgroupError> {
        for setting in settings {
            match self.hierarchy.mount_of(setting.controller) {
                Some(mount) => write_setting(&path.below(mount), setting)?,
                None if setting.if_missing == IfMissing::Skip => {}
                None => {
                    let missing = vec![setting.controller.to_owned()];
                    return Err(CgroupError::MissingControllers(missing));
                }
            }
        }
        Ok(())
    }

    fn memory_in_use(&self, path: &CgroupPath) -> Result<u64, CgroupError> {
        let file = match self.hierarchy.version() {
            CgroupVersion::V1 => "memory.usage_in_bytes",
            CgroupVersion::V2 => "memory.current",
        };
        let Some(mount) = self.hierarchy.mount_of("memory") else {
            return Ok(0);
        };
        let path = path.below(mount).join(file);
        let Some(text) = read_if_exists(&path)? else {
            return Ok(0);
        };
        text.trim().parse().map_err(|error| {
            let error = std::io::Error::new(ErrorKind::InvalidData, error);
            file_error("read", &path, error)
        })
    }

    /// Every place where a cgroup of the pod can be: the class is not known
    /// for a pod that is gone.
    fn trees_of(&self, uid: &PodUid) -> Result<Vec<PathBuf>, CgroupError> {
        let mut trees = Vec::new();
        for class in QosParent::ALL {
            let path = pod_path(&class.path(&self.root), uid)?;
            trees.extend(self.hierarchy.mounts().map(|mount| path.below(mount)));
        }
        Ok(trees)
    }

    fn pods(&self) -> Result<Vec<PodUid>, CgroupError> {
        let mut uids = BTreeSet::new();
        for class in QosParent::ALL {
            let path = class.path(&self.root);
            for mount in self.hierarchy.mounts() {
                uids.extend(pods_below(&path.below(mount))?);
            }
        }
        Ok(uids.into_iter().collect())
    }
}

/// Calls `step(parent, child)` for every level from the mount down to `path`.
fn descend(
    mount: &Path,
    path: &CgroupPath,
    mut step: impl FnMut(&Path, &Path) -> Result<(), CgroupError>,
) -> Result<(), CgroupError> {
    let mut parent = mount.to_owned();
    for part in path.parts() {
        let child = parent.join(part);
        step(&parent, &child)?;
        parent = child;
    }
    Ok(())
}

fn make_directory(path: &Path) -> Result<(), CgroupError> {
    match std::fs::create_dir(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(file_error("create", path, error))
        }
        _ => Ok(()),
    }
}

/// A new v1 cpuset is empty and takes no process until it has CPUs and memory
/// nodes.
fn inherit_cpuset(parent: &Path, child: &Path) -> Result<(), CgroupError> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let target = child.join(file);
        if !read(&target)?.trim().is_empty() {
            continue;
        }
        write(&target, read(&parent.join(file))?.trim())?;
    }
    Ok(())
}

/// Lets the children of `parent` use the controllers.
fn delegate(parent: &Path, controllers: &BTreeSet<String>) -> Result<(), CgroupError> {
    let path = parent.join("cgroup.subtree_control");
    let enabled = read(&path)?;
    let enabled: BTreeSet<&str> = enabled.split_whitespace().collect();
    let wanted: Vec<String> = DELEGATED
        .iter()
        .filter(|name| controllers.contains(**name) && !enabled.contains(**name))
        .map(|name| format!("+{name}"))
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    write(&path, &wanted.join(" "))
}

fn write_setting(directory: &Path, setting: &Setting) -> Result<(), CgroupError> {
    let path = directory.join(&setting.file);
    match read_if_exists(&path)? {
        Some(current) if setting.value.is_told_by(&current) => return Ok(()),
        None if setting.if_missing == IfMissing::Skip => return Ok(()),
        _ => {}
    }
    if let Some(file) = setting.lift_first {
        let path = directory.join(file);
        if path.exists() {
            write(&path, "-1")?;
        }
    }
    write(&path, &setting.value.text())
}

fn pods_below(directory: &Path) -> Result<Vec<PodUid>, CgroupError> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if kill::is_gone(&error) => return Ok(Vec::new()),
        Err(source) => return Err(file_error("list", directory, source)),
    };
    Ok(entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| entry.file_name().to_str().and_then(parse_pod))
        .collect())
}

fn read(path: &Path) -> Result<String, CgroupError> {
    std::fs::read_to_string(path).map_err(|source| file_error("read", path, source))
}

fn read_if_exists(path: &Path) -> Result<Option<String>, CgroupError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(file_error("read", path, source)),
    }
}

/// One `write(2)`: the kernel takes each call as one value. Never creates.
fn write(path: &Path, text: &str) -> Result<(), CgroupError> {
    std::fs::OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|source| file_error("write", path, source))
}

#[cfg(test)]
mod tests;
