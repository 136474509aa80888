//! What cgroup hierarchies this machine has mounted.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use procfs::process::{MountInfo, Process};

use super::CgroupError;
use crate::pod::facts::CgroupVersion;

/// Where the unified hierarchy is mounted on a machine that runs on v2.
const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// Controllers without which pods cannot be limited.
const REQUIRED: [&str; 4] = ["cpu", "cpuset", "memory", "pids"];

/// The mounted cgroup file systems that we use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hierarchy {
    /// One mount for each controller, or for a few. Machines in "hybrid" mode
    /// count as v1: their controllers are there.
    V1(Vec<V1Mount>),
    /// The unified hierarchy.
    V2 {
        mount: PathBuf,
        /// What the root's `cgroup.controllers` offers.
        controllers: BTreeSet<String>,
    },
}

/// One hierarchy of cgroup v1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct V1Mount {
    /// E.g. `cpu` and `cpuacct`; or `name=systemd` or `unified`, which control
    /// nothing.
    pub controllers: BTreeSet<String>,
    pub path: PathBuf,
}

impl Hierarchy {
    /// Finds out what is mounted in this process's mount namespace.
    ///
    /// # Errors
    /// When mounts cannot be read, nothing is mounted, or a controller that
    /// pods need is missing.
    pub fn detect() -> Result<Self, CgroupError> {
        let mounts = Process::myself()
            .and_then(|process| process.mountinfo())
            .map_err(CgroupError::Mounts)?;
        let hierarchy = match unified_mount(&mounts.0) {
            Some(mount) => Self::V2 {
                controllers: offered_controllers(&mount)?,
                mount,
            },
            None => Self::V1(v1_mounts(&mounts.0)),
        };
        hierarchy.check()?;
        Ok(hierarchy)
    }

    /// The version that the runtime and the kernel go by.
    #[must_use]
    pub fn version(&self) -> CgroupVersion {
        match self {
            Self::V1(_) => CgroupVersion::V1,
            Self::V2 { .. } => CgroupVersion::V2,
        }
    }

    /// Every mount, each the root of a tree of its own.
    pub fn mounts(&self) -> impl Iterator<Item = &Path> {
        let (v1, v2) = match self {
            Self::V1(mounts) => (mounts.as_slice(), None),
            Self::V2 { mount, .. } => (&[][..], Some(mount.as_path())),
        };
        v1.iter().map(|mount| mount.path.as_path()).chain(v2)
    }

    /// The mount that has the controller.
    #[must_use]
    pub fn mount_of(&self, controller: &str) -> Option<&Path> {
        match self {
            Self::V1(mounts) => mounts
                .iter()
                .find(|mount| mount.controllers.contains(controller))
                .map(|mount| mount.path.as_path()),
            Self::V2 { mount, controllers } => {
                controllers.contains(controller).then_some(mount.as_path())
            }
        }
    }

    fn check(&self) -> Result<(), CgroupError> {
        if self.mounts().next().is_none() {
            return Err(CgroupError::NoHierarchy);
        }
        let missing: Vec<String> = REQUIRED
            .iter()
            .filter(|controller| self.mount_of(controller).is_none())
            .map(|controller| (*controller).to_owned())
            .collect();
        if missing.is_empty() {
            Ok(())
        } else {
            Err(CgroupError::MissingControllers(missing))
        }
    }
}

/// The unified hierarchy, if it is what this machine runs on. A cgroup2 mount
/// elsewhere (hybrid mode, a network plugin's own mount) does not count.
fn unified_mount(mounts: &[MountInfo]) -> Option<PathBuf> {
    mounts
        .iter()
        .rev()
        .find(|mount| mount.mount_point == Path::new(CGROUP_ROOT))
        .filter(|mount| mount.fs_type == "cgroup2")
        .map(|mount| mount.mount_point.clone())
}

fn v1_mounts(mounts: &[MountInfo]) -> Vec<V1Mount> {
    let mut found: Vec<V1Mount> = Vec::new();
    for mount in mounts {
        let controllers = match mount.fs_type.as_str() {
            "cgroup" => v1_controllers(mount),
            // Hybrid mode: it controls nothing, but the runtime puts its
            // containers there as well, below the pod's path.
            "cgroup2" if mount.mount_point.starts_with(CGROUP_ROOT) => {
                BTreeSet::from(["unified".to_owned()])
            }
            _ => continue,
        };
        // The same hierarchy may be mounted again elsewhere.
        if !controllers.is_empty() && found.iter().all(|known| known.controllers != controllers) {
            found.push(V1Mount {
                controllers,
                path: mount.mount_point.clone(),
            });
        }
    }
    found
}

/// Controllers are given among the options of the file system.
fn v1_controllers(mount: &MountInfo) -> BTreeSet<String> {
    const FLAGS: [&str; 7] = [
        "rw",
        "ro",
        "xattr",
        "noprefix",
        "clone_children",
        "cpuset_v2_mode",
        "favordynmods",
    ];
    mount
        .super_options
        .iter()
        .filter_map(|(key, value)| match (key.as_str(), value) {
            ("name", Some(name)) => Some(format!("name={name}")),
            (_, Some(_)) => None,
            (flag, None) if FLAGS.contains(&flag) => None,
            (controller, None) => Some(controller.to_owned()),
        })
        .collect()
}

fn offered_controllers(mount: &Path) -> Result<BTreeSet<String>, CgroupError> {
    let path = mount.join("cgroup.controllers");
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(text.split_whitespace().map(str::to_owned).collect()),
        Err(source) => Err(CgroupError::File {
            action: "read",
            path,
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use procfs::FromRead;
    use procfs::process::MountInfos;

    fn mounts(text: &str) -> Vec<MountInfo> {
        MountInfos::from_read(text.as_bytes()).unwrap().0
    }

    #[test]
    fn v1_mounts_are_known_by_their_controllers() {
        let mounts = mounts(
            "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
             32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
             34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset,clone_children\n\
             35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
             36 31 0:33 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids\n\
             40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/x,name=systemd\n\
             41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n\
             50 27 0:29 / /srv/again rw,relatime - cgroup cgroup rw,cpu,cpuacct\n",
        );
        assert_eq!(unified_mount(&mounts), None);
        let hierarchy = Hierarchy::V1(v1_mounts(&mounts));
        hierarchy.check().unwrap();
        assert_eq!(hierarchy.version(), CgroupVersion::V1);
        assert_eq!(hierarchy.mounts().count(), 6);
        for controller in ["cpu", "cpuacct"] {
            let found = hierarchy.mount_of(controller);
            assert_eq!(found, Some(Path::new("/sys/fs/cgroup/cpu,cpuacct")));
        }
        let named = hierarchy.mount_of("name=systemd");
        assert_eq!(named, Some(Path::new("/sys/fs/cgroup/systemd")));
        assert_eq!(hierarchy.mount_of("hugetlb"), None);
    }

    #[test]
    fn a_unified_mount_wins_over_a_stray_v1_mount() {
        let mounts = mounts(
            "31 23 0:28 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n\
             60 27 0:60 / /run/net_cls rw,relatime - cgroup net_cls rw,net_cls\n",
        );
        assert_eq!(unified_mount(&mounts), Some(CGROUP_ROOT.into()));
    }

    #[test]
    fn missing_controllers_are_named() {
        let hierarchy = Hierarchy::V2 {
            mount: CGROUP_ROOT.into(),
            controllers: ["cpu", "memory", "io"].map(str::to_owned).into(),
        };
        match hierarchy.check() {
            Err(CgroupError::MissingControllers(missing)) => {
                assert_eq!(missing, ["cpuset", "pids"]);
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(
            Hierarchy::V1(Vec::new()).check(),
            Err(CgroupError::NoHierarchy)
        ));
    }
}
