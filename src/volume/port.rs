//! The port through which workers use volumes.

use std::path::PathBuf;

use async_trait::async_trait;
use tokio::sync::watch;

use super::VolumeError;
use crate::pod::inputs::{ContainerFiles, EnvFile, MountedVolumes, SubPath};
use crate::pod::userns::IdMapping;
use crate::pod::{DesiredPod, PodUid};

/// Volumes of pods. All verbs are idempotent and may be repeated after a crash
/// at any point.
#[async_trait]
pub trait Volumes: Send + Sync {
    /// Makes the pod's directories and sets up every volume that a container
    /// mounts; renews contents that are due.
    async fn ensure(&self, pod: &DesiredPod) -> Result<MountedVolumes, VolumeError>;
    /// Counts the changes of what the pod's volumes show. As long as it is at
    /// [`MountedVolumes::changes`], they are up to date.
    fn changes(&self, uid: &PodUid) -> watch::Receiver<u64>;
    /// Writes the files of one container instance.
    async fn container_files(
        &self,
        request: &ContainerFilesRequest,
    ) -> Result<ContainerFiles, VolumeError>;
    /// The bytes of a file that variables come from; `None` if there is none.
    async fn env_file(&self, request: &EnvFileRequest) -> Result<Option<Vec<u8>>, VolumeError>;
    /// The host's IDs of a pod with a user namespace. They are the pod's until
    /// [`Volumes::tear_down`].
    async fn id_mapping(&self, uid: &PodUid) -> Result<IdMapping, VolumeError>;
    /// Unmounts and removes all of the pod's volumes, and gives its IDs back.
    /// Nothing of the pod may run any more.
    async fn tear_down(&self, uid: &PodUid) -> Result<(), VolumeError>;
    /// Removes the pod's directory, after [`Volumes::tear_down`].
    async fn remove_pod_directory(&self, uid: &PodUid) -> Result<(), VolumeError>;
    /// Pods that have a directory under the root directory.
    async fn pods_on_disk(&self) -> Result<Vec<PodUid>, VolumeError>;
}

/// What one container instance needs on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerFilesRequest {
    pub uid: PodUid,
    pub container: String,
    /// Whole text of `/etc/hosts`; `None`: the container has its own.
    pub etc_hosts: Option<String>,
    /// Whether the container has a termination message path.
    pub termination_log: TerminationLog,
    /// Parts of volumes that the container mounts.
    pub sub_paths: Vec<SubPath>,
}

/// A file in a volume that is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvFileRequest {
    pub uid: PodUid,
    pub file: EnvFile,
    /// Where the volume is on this host.
    pub volume_path: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TerminationLog {
    Wanted,
    NotWanted,
}
