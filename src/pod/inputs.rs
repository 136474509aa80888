//! What other modules hand in before a container can be rendered: mounted
//! volumes, per-container files, the objects a spec refers to, and what the
//! runtime is to this pod.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, FileKeySelector, Secret};
use serde::Serialize;

use super::userns::IdMapping;

/// Where each volume of a pod is on this host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct MountedVolumes {
    pub volumes: BTreeMap<String, MountedVolume>,
    /// When some content (a service-account token) must be written anew.
    pub refresh_at: Option<Timestamp>,
    /// How many changes of the objects that they show had been heard of when
    /// these were read.
    pub changes: u64,
    /// What they show of the pod itself: [`shown`](super::downward::shown).
    pub shown: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MountedVolume {
    pub host_path: PathBuf,
    /// The volume itself is read-only, whatever the mount says.
    pub read_only: bool,
}

/// A file in a volume that variables come from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct EnvFile {
    pub volume: String,
    pub path: String,
}

impl EnvFile {
    #[must_use]
    pub fn of(selector: &FileKeySelector) -> Self {
        Self {
            volume: selector.volume_name.clone(),
            path: selector.path.clone(),
        }
    }
}

/// Files of one container under the pod's directory.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ContainerFiles {
    /// Mounted at `/etc/hosts`; `None` if the container mounts its own.
    pub etc_hosts: Option<PathBuf>,
    /// Mounted at `terminationMessagePath`.
    pub termination_log: Option<PathBuf>,
    /// What mounts with a sub-path show, by their place among the container's
    /// `volumeMounts`.
    pub sub_paths: BTreeMap<usize, PathBuf>,
}

/// A part of a volume that a container mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubPath {
    /// The mount's place among the container's `volumeMounts`.
    pub index: usize,
    pub volume: String,
    /// Where the whole volume is on this host.
    pub volume_path: PathBuf,
    /// Relative, and without `..`.
    pub path: String,
}

/// Names of the API objects that a pod's environment refers to. Collected
/// before rendering, so that rendering stays a pure function.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct PodRefs {
    pub config_maps: BTreeSet<String>,
    pub secrets: BTreeSet<String>,
    /// `imagePullSecrets`; a missing one is not fatal.
    pub pull_secrets: BTreeSet<String>,
}

/// The objects behind [`PodRefs`]. An object that does not exist is absent
/// from its map; whether that is an error is for the reader to say.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ResolvedRefs {
    pub config_maps: BTreeMap<String, ConfigMap>,
    pub secrets: BTreeMap<String, Secret>,
    /// Text of the files that variables come from.
    pub files: BTreeMap<EnvFile, String>,
    /// Service environment variables, in no particular order.
    pub service_env: Vec<(String, String)>,
}

/// What runs a pod.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct PodRuntime {
    /// The runtime's handler, from the RuntimeClass; empty for the default one.
    pub handler: String,
    pub features: RuntimeFeatures,
    /// The host's IDs of the pod's users, if it has a user namespace.
    pub users: Option<IdMapping>,
}

/// What the runtime says it can do, with one handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct RuntimeFeatures {
    pub recursive_read_only_mounts: bool,
    pub user_namespaces: bool,
    pub supplemental_groups_policy: bool,
}
