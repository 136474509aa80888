//! Taking down the volumes of a pod and removing its directory. Blocking.
//!
//! Nothing is ever deleted through a mount: mounts are taken down first, and
//! [`remove_tree`] refuses to enter one. What a hostPath volume shows is not
//! below the pod's directory and is never touched.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::VolumeError;
use super::layout::{EPHEMERAL, PodLayout, SUB_PATHS};
use super::mounts::{mounted_below, unmount_below};
use super::path::component;
use super::remove::remove_tree;
use crate::pod::PodUid;

/// Unmounts and removes all volumes of a pod. Goes on after a failure and
/// answers the first.
pub(super) fn tear_down(layout: &PodLayout) -> Result<(), VolumeError> {
    let pod = layout.pod();
    unmount_below(&pod).map_err(|error| VolumeError::tear_down(&pod, error))?;
    remove(&pod, OsStr::new(SUB_PATHS))?;
    // First the markers: a volume that is half removed must not look ready.
    remove(&layout.pod(), OsStr::new("plugins"))?;
    let volumes = layout.volumes();
    let mut first_error = None;
    for plugin in children(&volumes)? {
        let is_ephemeral = EPHEMERAL.iter().any(|name| plugin.ends_with(name));
        for volume in children(&plugin)? {
            let removed = match volume.file_name() {
                Some(name) if is_ephemeral => remove(&plugin, name),
                // Somebody's data may be there although nothing is mounted.
                _ => remove_empty(&volume),
            };
            if let Err(error) = removed {
                first_error.get_or_insert(error);
            }
        }
    }
    if let Some(error) = first_error {
        return Err(error);
    }
    for plugin in children(&volumes)? {
        remove_empty(&plugin)?;
    }
    remove_empty(&volumes)
}

/// Removes what [`tear_down`] leaves; refuses as long as there is a mount or a
/// volume.
pub(super) fn remove_pod_directory(layout: &PodLayout) -> Result<(), VolumeError> {
    let pod = layout.pod();
    let mounted = mounted_below(&pod).map_err(|error| VolumeError::tear_down(&pod, error))?;
    if let Some(mount_point) = mounted.first() {
        return Err(VolumeError::tear_down(
            mount_point,
            io::ErrorKind::ResourceBusy.into(),
        ));
    }
    for plugin in children(&layout.volumes())? {
        remove_empty(&plugin)?;
    }
    remove(layout.parent(), OsStr::new(layout.uid().as_str()))
}

/// Names of the pods' directories. Anything else there is not ours.
pub(super) fn pods_on_disk(pods: &Path) -> Result<Vec<PodUid>, VolumeError> {
    let directories = children(pods)?.into_iter().filter(|path| {
        let metadata = fs::symlink_metadata(path);
        metadata.is_ok_and(|metadata| metadata.is_dir())
    });
    Ok(directories
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?;
            component(name).ok().map(PodUid::from)
        })
        .collect())
}

fn remove(parent: &Path, name: &OsStr) -> Result<(), VolumeError> {
    remove_tree(parent, name).map_err(|error| VolumeError::tear_down(&parent.join(name), error))
}

/// Removes a directory that must be empty. It may be absent.
fn remove_empty(directory: &Path) -> Result<(), VolumeError> {
    match fs::remove_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(VolumeError::tear_down(directory, error))
        }
        _ => Ok(()),
    }
}

/// Entries of a directory in order; none if it is absent.
fn children(directory: &Path) -> Result<Vec<PathBuf>, VolumeError> {
    let entries = fs::read_dir(directory).and_then(|entries| {
        entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<io::Result<Vec<_>>>()
    });
    match entries {
        Ok(mut entries) => {
            entries.sort();
            Ok(entries)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(VolumeError::tear_down(directory, error)),
    }
}
