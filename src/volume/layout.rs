//! Where a pod's things are under the root directory. The names are upstream's,
//! so that either agent can take over the other's pods.

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use super::VolumeError;
use super::path::component;
use super::plan::FilesKind;
use crate::pod::PodUid;

/// Mode of every directory that is not itself a volume.
const DIRECTORY_MODE: u32 = 0o750;

pub(super) const EMPTY_DIR: &str = "kubernetes.io~empty-dir";
const CONFIG_MAP: &str = "kubernetes.io~configmap";
const SECRET: &str = "kubernetes.io~secret";
const DOWNWARD_API: &str = "kubernetes.io~downward-api";
const PROJECTED: &str = "kubernetes.io~projected";

/// The directory of parts of volumes in a pod's.
pub(super) const SUB_PATHS: &str = "volume-subpaths";

/// Volume types whose directories hold nothing that outlives the pod.
pub(super) const EPHEMERAL: [&str; 5] = [EMPTY_DIR, CONFIG_MAP, SECRET, DOWNWARD_API, PROJECTED];

/// The directory of all pods.
pub(super) fn pods(root_dir: &Path) -> PathBuf {
    root_dir.join("pods")
}

/// The directory of one pod. Whoever has one knows that the UID is a file name.
#[derive(Debug, Clone)]
pub(super) struct PodLayout {
    pods: PathBuf,
    uid: PodUid,
}

impl PodLayout {
    pub(super) fn new(root_dir: &Path, uid: &PodUid) -> Result<Self, VolumeError> {
        component(uid.as_str()).map_err(|error| VolumeError::Name(error.into()))?;
        Ok(Self {
            pods: pods(root_dir),
            uid: uid.clone(),
        })
    }

    pub(super) fn uid(&self) -> &PodUid {
        &self.uid
    }

    /// The directory of all pods.
    pub(super) fn parent(&self) -> &Path {
        &self.pods
    }

    pub(super) fn pod(&self) -> PathBuf {
        self.pods.join(self.uid.as_str())
    }

    pub(super) fn volumes(&self) -> PathBuf {
        self.pod().join("volumes")
    }

    /// What volume types keep beside their volumes.
    pub(super) fn plugins(&self) -> PathBuf {
        self.pod().join("plugins")
    }

    pub(super) fn empty_dir(&self, volume: &str) -> PathBuf {
        self.volumes().join(EMPTY_DIR).join(volume)
    }

    pub(super) fn files(&self, kind: FilesKind, volume: &str) -> PathBuf {
        let plugin = match kind {
            FilesKind::ConfigMap => CONFIG_MAP,
            FilesKind::Secret => SECRET,
            FilesKind::DownwardApi => DOWNWARD_API,
            FilesKind::Projected => PROJECTED,
        };
        self.volumes().join(plugin).join(volume)
    }

    /// Directory of the marker that an emptyDir was set up completely.
    pub(super) fn empty_dir_meta(&self, volume: &str) -> PathBuf {
        self.plugins().join(EMPTY_DIR).join(volume)
    }

    /// Where a container's mount number `index` finds its part of a volume.
    pub(super) fn sub_path(&self, volume: &str, container: &str, index: usize) -> PathBuf {
        let container = self.pod().join(SUB_PATHS).join(volume).join(container);
        container.join(index.to_string())
    }

    pub(super) fn etc_hosts(&self) -> PathBuf {
        self.pod().join("etc-hosts")
    }

    /// Which IDs of the host the pod's users are.
    pub(super) fn user_namespace(&self) -> PathBuf {
        self.pod().join("userns")
    }

    /// Termination logs of one container's instances.
    pub(super) fn container(&self, container: &str) -> PathBuf {
        self.pod().join("containers").join(container)
    }
}

/// Makes a directory and its parents, as private as upstream's.
pub(super) fn make_directory(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(path)
}
