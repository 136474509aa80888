//! What must be set up for a pod's volumes.
//!
//! In: the pod and what this node can give. Out: one [`VolumeSetup`] for every
//! volume that some container mounts, in the order of the spec; volumes that
//! nothing mounts cost nothing. Pure.

use std::collections::BTreeSet;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, EmptyDirVolumeSource, HostPathVolumeSource, KeyToPath, Pod, PodSpec,
    ProjectedVolumeSource, Volume, VolumeProjection,
};

use super::VolumeError;
use super::path::{PathError, component};
use crate::pod::facts::ComputeResources;
use crate::pod::quantity::{ParseQuantityError, Quantity};
use crate::pod::resources::{Overhead, requests_limits};

/// `defaultMode` where a spec has none.
const DEFAULT_MODE: u32 = 0o644;
/// `expirationSeconds` where a spec has none.
const DEFAULT_TOKEN_SECONDS: i64 = 3600;

/// One volume to set up.
#[derive(Debug, Clone, PartialEq)]
pub struct VolumeSetup {
    pub name: String,
    pub kind: VolumeKind,
}

#[derive(Debug, Clone, PartialEq)]
pub enum VolumeKind {
    /// A fresh directory that lives as long as the pod.
    EmptyDir { medium: Medium },
    /// A path of the host; nothing is mounted, only the type is checked.
    HostPath { path: PathBuf, check: HostPathCheck },
    /// Files made from API objects, tokens and the pod itself.
    Files(FilesVolume),
}

/// Where a volume's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    /// The file system of the root directory.
    Disk,
    /// A tmpfs of at most `size` bytes.
    Memory { size: u64 },
}

/// `hostPath.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostPathCheck {
    Anything,
    DirectoryOrCreate,
    Directory,
    FileOrCreate,
    File,
    Socket,
    CharDevice,
    BlockDevice,
}

/// A read-only volume whose files the atomic writer keeps.
#[derive(Debug, Clone, PartialEq)]
pub struct FilesVolume {
    pub kind: FilesKind,
    pub medium: Medium,
    /// Mode of files that have none of their own.
    pub default_mode: u32,
    /// In order: a later source wins on the same path.
    pub sources: Vec<FileSource>,
}

/// Which volume type of the API the files belong to; decides the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FilesKind {
    ConfigMap,
    Secret,
    DownwardApi,
    Projected,
}

#[derive(Debug, Clone, PartialEq)]
pub enum FileSource {
    ServiceAccountToken { key: TokenKey, path: String },
    ConfigMap(ObjectSource),
    Secret(ObjectSource),
    DownwardApi(Vec<DownwardAPIVolumeFile>),
}

/// Which keys of an object become files.
#[derive(Debug, Clone, PartialEq)]
pub struct ObjectSource {
    pub name: String,
    /// Empty: every key, under its own name.
    pub items: Vec<KeyToPath>,
    pub presence: Presence,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    Required,
    Optional,
}

/// What tells one service-account token of a pod from another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenKey {
    pub service_account: String,
    /// `None`: the API server's own audience.
    pub audience: Option<String>,
    pub expiration_seconds: i64,
}

/// Why a volume cannot be set up as its spec says.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum PlanError {
    #[error("volume type {0} is not supported yet")]
    VolumeType(&'static str),
    #[error("volume type emptyDir with medium {0} is not supported yet")]
    Medium(String),
    #[error("projected source {0} is not supported yet")]
    Source(&'static str),
    #[error("invalid HostPath `{0}`: must not contain '..'")]
    HostPathBackstep(String),
    #[error("{0} is an invalid volume type")]
    HostPathType(String),
    #[error("unusable volume name")]
    Name(#[source] PathError),
    #[error("cannot size the tmpfs")]
    Size(#[source] ParseQuantityError),
}

/// Lists the set-ups that a pod needs.
///
/// # Errors
/// [`VolumeError::SetUp`], naming the first volume that this agent cannot set
/// up and why.
pub fn plan(pod: &Pod, allocatable: &ComputeResources) -> Result<Vec<VolumeSetup>, VolumeError> {
    let Some(spec) = &pod.spec else {
        return Ok(Vec::new());
    };
    let mounted = mounted_names(spec);
    spec.volumes
        .iter()
        .flatten()
        .filter(|volume| mounted.contains(volume.name.as_str()))
        .map(|volume| {
            let kind = plan_volume(volume, pod, spec, allocatable)
                .map_err(|error| VolumeError::set_up(&volume.name, error))?;
            Ok(VolumeSetup {
                name: volume.name.clone(),
                kind,
            })
        })
        .collect()
}

/// Names of the volumes that some container uses: as files, as a device, or for
/// its variables.
fn mounted_names(spec: &PodSpec) -> BTreeSet<&str> {
    let containers = spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers)
        .map(|c| (&c.volume_mounts, &c.volume_devices, &c.env));
    let ephemeral = spec.ephemeral_containers.iter().flatten();
    containers
        .chain(ephemeral.map(|c| (&c.volume_mounts, &c.volume_devices, &c.env)))
        .flat_map(|(mounts, devices, env)| {
            let mounts = mounts.iter().flatten().map(|mount| mount.name.as_str());
            let devices = devices.iter().flatten().map(|device| device.name.as_str());
            let variables = env.iter().flatten().filter_map(|variable| {
                let file = variable.value_from.as_ref()?.file_key_ref.as_ref()?;
                Some(file.volume_name.as_str())
            });
            mounts.chain(devices).chain(variables)
        })
        .collect()
}

fn plan_volume(
    volume: &Volume,
    pod: &Pod,
    spec: &PodSpec,
    allocatable: &ComputeResources,
) -> Result<VolumeKind, PlanError> {
    component(&volume.name).map_err(PlanError::Name)?;
    let memory = |limit| tmpfs(pod, allocatable, limit);
    if let Some(source) = &volume.empty_dir {
        return plan_empty_dir(source, memory);
    }
    if let Some(source) = &volume.host_path {
        return plan_host_path(source);
    }
    if let Some((kind, default_mode, sources)) = plan_files(volume, spec)? {
        let medium = match kind {
            FilesKind::ConfigMap => Medium::Disk,
            FilesKind::Secret | FilesKind::DownwardApi | FilesKind::Projected => {
                memory(Quantity::ZERO)
            }
        };
        return Ok(VolumeKind::Files(FilesVolume {
            kind,
            medium,
            default_mode: mode(default_mode).unwrap_or(DEFAULT_MODE),
            sources,
        }));
    }
    match unsupported_type(volume) {
        Some(name) => Err(PlanError::VolumeType(name)),
        // The API server's default for a volume without a source.
        None => Ok(VolumeKind::EmptyDir {
            medium: Medium::Disk,
        }),
    }
}

/// Kind, `defaultMode` and sources of a volume of files.
type FilesPlan = (FilesKind, Option<i32>, Vec<FileSource>);

/// `None` if the volume is not one of files.
fn plan_files(volume: &Volume, spec: &PodSpec) -> Result<Option<FilesPlan>, PlanError> {
    if let Some(source) = &volume.projected {
        let sources = plan_projected(source, spec)?;
        return Ok(Some((FilesKind::Projected, source.default_mode, sources)));
    }
    if let Some(source) = &volume.config_map {
        let object = ObjectSource::new(&source.name, source.items.as_ref(), source.optional);
        let sources = vec![FileSource::ConfigMap(object)];
        return Ok(Some((FilesKind::ConfigMap, source.default_mode, sources)));
    }
    if let Some(source) = &volume.secret {
        let name = source.secret_name.as_deref().unwrap_or_default();
        let object = ObjectSource::new(name, source.items.as_ref(), source.optional);
        let sources = vec![FileSource::Secret(object)];
        return Ok(Some((FilesKind::Secret, source.default_mode, sources)));
    }
    Ok(volume.downward_api.as_ref().map(|source| {
        let items = source.items.clone().unwrap_or_default();
        let sources = vec![FileSource::DownwardApi(items)];
        (FilesKind::DownwardApi, source.default_mode, sources)
    }))
}

fn plan_empty_dir(
    source: &EmptyDirVolumeSource,
    memory: impl Fn(Quantity) -> Medium,
) -> Result<VolumeKind, PlanError> {
    let medium = match source.medium.as_deref().unwrap_or_default() {
        "" => Medium::Disk,
        "Memory" => {
            let limit = source.size_limit.as_ref().map(Quantity::try_from);
            let limit = limit.transpose().map_err(PlanError::Size)?;
            memory(limit.unwrap_or_default())
        }
        other => return Err(PlanError::Medium(other.to_owned())),
    };
    Ok(VolumeKind::EmptyDir { medium })
}

fn plan_host_path(source: &HostPathVolumeSource) -> Result<VolumeKind, PlanError> {
    if source.path.split('/').any(|part| part == "..") {
        return Err(PlanError::HostPathBackstep(source.path.clone()));
    }
    let check = match source.type_.as_deref().unwrap_or_default() {
        "" => HostPathCheck::Anything,
        "DirectoryOrCreate" => HostPathCheck::DirectoryOrCreate,
        "Directory" => HostPathCheck::Directory,
        "FileOrCreate" => HostPathCheck::FileOrCreate,
        "File" => HostPathCheck::File,
        "Socket" => HostPathCheck::Socket,
        "CharDevice" => HostPathCheck::CharDevice,
        "BlockDevice" => HostPathCheck::BlockDevice,
        other => return Err(PlanError::HostPathType(other.to_owned())),
    };
    Ok(VolumeKind::HostPath {
        path: PathBuf::from(&source.path),
        check,
    })
}

fn plan_projected(
    source: &ProjectedVolumeSource,
    spec: &PodSpec,
) -> Result<Vec<FileSource>, PlanError> {
    source
        .sources
        .iter()
        .flatten()
        .map(|projection| plan_projection(projection, spec))
        .filter_map(Result::transpose)
        .collect()
}

/// `None` for a projection without any source, which upstream passes over too.
fn plan_projection(
    projection: &VolumeProjection,
    spec: &PodSpec,
) -> Result<Option<FileSource>, PlanError> {
    if projection.cluster_trust_bundle.is_some() {
        return Err(PlanError::Source("clusterTrustBundle"));
    }
    if projection.pod_certificate.is_some() {
        return Err(PlanError::Source("podCertificate"));
    }
    if let Some(token) = &projection.service_account_token {
        let service_account = spec.service_account_name.as_deref();
        return Ok(Some(FileSource::ServiceAccountToken {
            key: TokenKey {
                service_account: service_account.unwrap_or("default").to_owned(),
                audience: token
                    .audience
                    .clone()
                    .filter(|audience| !audience.is_empty()),
                expiration_seconds: token.expiration_seconds.unwrap_or(DEFAULT_TOKEN_SECONDS),
            },
            path: token.path.clone(),
        }));
    }
    if let Some(source) = &projection.config_map {
        let object = ObjectSource::new(&source.name, source.items.as_ref(), source.optional);
        return Ok(Some(FileSource::ConfigMap(object)));
    }
    if let Some(source) = &projection.secret {
        let object = ObjectSource::new(&source.name, source.items.as_ref(), source.optional);
        return Ok(Some(FileSource::Secret(object)));
    }
    let items = projection.downward_api.as_ref();
    Ok(items.map(|source| FileSource::DownwardApi(source.items.clone().unwrap_or_default())))
}

/// The type of a volume that this agent knows by name only.
fn unsupported_type(volume: &Volume) -> Option<&'static str> {
    let types = [
        (
            volume.persistent_volume_claim.is_some(),
            "persistentVolumeClaim",
        ),
        (volume.ephemeral.is_some(), "ephemeral"),
        (volume.csi.is_some(), "csi"),
        (volume.image.is_some(), "image"),
        (volume.nfs.is_some(), "nfs"),
        (volume.iscsi.is_some(), "iscsi"),
        (volume.fc.is_some(), "fc"),
        (volume.flex_volume.is_some(), "flexVolume"),
        (volume.git_repo.is_some(), "gitRepo"),
        (
            volume.aws_elastic_block_store.is_some(),
            "awsElasticBlockStore",
        ),
        (volume.azure_disk.is_some(), "azureDisk"),
        (volume.azure_file.is_some(), "azureFile"),
        (volume.cephfs.is_some(), "cephfs"),
        (volume.cinder.is_some(), "cinder"),
        (volume.flocker.is_some(), "flocker"),
        (volume.gce_persistent_disk.is_some(), "gcePersistentDisk"),
        (volume.glusterfs.is_some(), "glusterfs"),
        (
            volume.photon_persistent_disk.is_some(),
            "photonPersistentDisk",
        ),
        (volume.portworx_volume.is_some(), "portworxVolume"),
        (volume.quobyte.is_some(), "quobyte"),
        (volume.rbd.is_some(), "rbd"),
        (volume.scale_io.is_some(), "scaleIO"),
        (volume.storageos.is_some(), "storageos"),
        (volume.vsphere_volume.is_some(), "vsphereVolume"),
    ];
    types
        .into_iter()
        .find_map(|(present, name)| present.then_some(name))
}

/// The smallest of what the node can give, what the pod may use if that is
/// bounded, and the volume's own limit if it has one.
fn tmpfs(pod: &Pod, allocatable: &ComputeResources, limit: Quantity) -> Medium {
    let bounds = [
        Some(Quantity::from_value(allocatable.memory)),
        memory_limit(pod),
        Some(limit),
    ];
    let size = bounds
        .into_iter()
        .flatten()
        .filter(|bound| bound.is_positive())
        .min();
    let bytes = size.unwrap_or_default().value();
    Medium::Memory {
        // A size of 0, when nothing is known, means unbounded to the kernel.
        size: u64::try_from(bytes).unwrap_or(0),
    }
}

/// The memory that a pod as a whole may use, if it is bounded.
fn memory_limit(pod: &Pod) -> Option<Quantity> {
    let resources = requests_limits(pod, Overhead::Included);
    resources.memory_limited.then(|| resources.limits.memory())
}

/// Permission bits of a spec; `None` if it has none or they make no sense.
pub(super) fn mode(mode: Option<i32>) -> Option<u32> {
    mode.and_then(|mode| u32::try_from(mode).ok())
        .map(|mode| mode & 0o7777)
}

impl ObjectSource {
    fn new(name: &str, items: Option<&Vec<KeyToPath>>, optional: Option<bool>) -> Self {
        Self {
            name: name.to_owned(),
            items: items.cloned().unwrap_or_default(),
            presence: if optional == Some(true) {
                Presence::Optional
            } else {
                Presence::Required
            },
        }
    }
}

#[cfg(test)]
mod tests;
