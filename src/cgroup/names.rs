//! Names of our cgroups, as the cgroupfs driver spells them. Pure.

use std::path::{Path, PathBuf};

use super::CgroupError;
use crate::pod::PodUid;

/// An absolute path below the root of a cgroup hierarchy, e.g.
/// `/kubepods/burstable`; `/` is the root itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CgroupPath(String);

impl CgroupPath {
    /// Checks that `path` is absolute and has no `.`, `..` or empty parts, so
    /// that it cannot lead out of the hierarchy.
    ///
    /// # Errors
    /// [`CgroupError::InvalidPath`] with the text as given.
    pub fn parse(path: &str) -> Result<Self, CgroupError> {
        let invalid = || CgroupError::InvalidPath(path.to_owned());
        let below = path.strip_prefix('/').ok_or_else(invalid)?;
        if !below.is_empty() && below.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(invalid());
        }
        Ok(Self(path.to_owned()))
    }

    /// The cgroup `name` directly below this one.
    fn child(&self, name: &str) -> Self {
        Self(format!("{}/{name}", self.0.trim_end_matches('/')))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where this cgroup is in the hierarchy mounted at `mount`.
    #[must_use]
    pub fn below(&self, mount: &Path) -> PathBuf {
        mount.join(self.0.trim_start_matches('/'))
    }

    /// The names on the way from the hierarchy's root to this cgroup.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|part| !part.is_empty())
    }
}

/// The cgroups under which pods stand: one for each QoS class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QosParent {
    /// Guaranteed pods stand directly below `kubepods`.
    Guaranteed,
    Burstable,
    BestEffort,
}

impl QosParent {
    /// All three, parents before children.
    pub const ALL: [Self; 3] = [Self::Guaranteed, Self::Burstable, Self::BestEffort];

    /// The class's cgroup, where `kubepods` stands below `root`.
    #[must_use]
    pub fn path(self, root: &CgroupPath) -> CgroupPath {
        let kubepods = root.child("kubepods");
        match self {
            Self::Guaranteed => kubepods,
            Self::Burstable => kubepods.child("burstable"),
            Self::BestEffort => kubepods.child("besteffort"),
        }
    }
}

/// A pod's cgroup below the cgroup of its class.
pub(super) fn pod_path(parent: &CgroupPath, uid: &PodUid) -> Result<CgroupPath, CgroupError> {
    CgroupPath::parse(parent.child(&format!("pod{uid}")).as_str())
}

/// The pod whose cgroup has this directory name; `None` for all other names.
pub(super) fn parse_pod(directory: &str) -> Option<PodUid> {
    directory
        .strip_prefix("pod")
        .filter(|uid| !uid.is_empty())
        .map(PodUid::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_cannot_lead_out_of_the_hierarchy() {
        for good in ["/", "/kubepods", "/a/b-c/pod1"] {
            assert_eq!(CgroupPath::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "kubepods", "//", "/a/", "/a//b", "/a/../b", "/./a"] {
            assert!(CgroupPath::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn class_and_pod_paths() {
        let uid = PodUid::from("8dd2-f7");
        for (root, class, expected) in [
            ("/", QosParent::Guaranteed, "/kubepods/pod8dd2-f7"),
            ("/", QosParent::Burstable, "/kubepods/burstable/pod8dd2-f7"),
            (
                "/x",
                QosParent::BestEffort,
                "/x/kubepods/besteffort/pod8dd2-f7",
            ),
        ] {
            let root = CgroupPath::parse(root).unwrap();
            let path = pod_path(&class.path(&root), &uid).unwrap();
            assert_eq!(path.as_str(), expected);
            let name = path.parts().last().unwrap();
            assert_eq!(parse_pod(name), Some(uid.clone()));
        }
    }

    #[test]
    fn a_uid_with_a_slash_is_refused() {
        let root = CgroupPath::parse("/").unwrap();
        let parent = QosParent::Burstable.path(&root);
        assert!(pod_path(&parent, &PodUid::from("/../../x")).is_err());
    }

    #[test]
    fn other_directories_are_not_pods() {
        for name in ["burstable", "besteffort", "pod", "xpod1", ""] {
            assert_eq!(parse_pod(name), None, "{name}");
        }
    }
}
