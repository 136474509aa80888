//! What is mounted into a container, and where.
//!
//! Parts of volumes take two steps: [`sub_paths`] says which are wanted, and
//! when they have been prepared, [`of_container`] mounts what came of it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Container, VolumeMount};

use super::{ContainerInput, RenderError};
use crate::pod::env::{self, Env};
use crate::pod::hosts::{self, ETC_HOSTS};
use crate::pod::inputs::{MountedVolume, MountedVolumes, RuntimeFeatures, SubPath};
use crate::pod::spec::{MountPropagation, MountSpec};

/// Where a container leaves its last words unless it says otherwise.
const DEFAULT_TERMINATION_LOG: &str = "/dev/termination-log";

/// The container's volumes in its own order, then `/etc/hosts` and the
/// termination log.
pub(super) fn of_container(
    container: &Container,
    input: &ContainerInput<'_>,
) -> Result<Vec<MountSpec>, RenderError> {
    let files = input.files;
    if let Some(device) = container.volume_devices.iter().flatten().next() {
        return Err(RenderError::config_message(format!(
            "cannot find volume {:?} to pass into container {:?}",
            device.name, container.name
        )));
    }
    let wanted = container.volume_mounts.iter().flatten();
    let mut mounts = wanted
        .enumerate()
        .map(|(index, wanted)| mount(index, wanted, container, input))
        .collect::<Result<Vec<_>, _>>()?;
    if !hosts::mounts_own(container) {
        mounts.extend(files.etc_hosts.clone().map(|path| file(ETC_HOSTS, path)));
    }
    let path = container.termination_message_path.as_deref();
    let path = path
        .filter(|path| !path.is_empty())
        .unwrap_or(DEFAULT_TERMINATION_LOG);
    mounts.extend(files.termination_log.clone().map(|log| file(path, log)));
    Ok(mounts)
}

/// The parts of volumes that a container mounts. `env` is asked for the
/// container's variables if some path is made from them.
///
/// # Errors
/// If a path leaves its volume, or is made from variables that have no value.
pub(super) fn sub_paths(
    container: &Container,
    volumes: &MountedVolumes,
    env: impl Fn() -> Result<Env, RenderError>,
) -> Result<Vec<SubPath>, RenderError> {
    let wanted = container.volume_mounts.iter().flatten().enumerate();
    let mut found = Vec::new();
    for (index, mount) in wanted.filter(|(_, mount)| has_sub_path(mount)) {
        let path = match expression(mount) {
            Some(expression) => expanded(expression, &env()?)?,
            None => mount.sub_path.clone().unwrap_or_default(),
        };
        check(&path)?;
        found.push(SubPath {
            index,
            volume: mount.name.clone(),
            volume_path: volume(mount, container, volumes)?.host_path.clone(),
            path,
        });
    }
    Ok(found)
}

fn has_sub_path(mount: &VolumeMount) -> bool {
    let literal = mount.sub_path.as_deref();
    literal.is_some_and(|path| !path.is_empty()) || expression(mount).is_some()
}

fn expression(mount: &VolumeMount) -> Option<&str> {
    let expression = mount.sub_path_expr.as_deref();
    expression.filter(|expression| !expression.is_empty())
}

fn expanded(expression: &str, env: &Env) -> Result<String, RenderError> {
    let mut missing = BTreeSet::new();
    let value = |name: &str| env.get(name).map(String::as_str);
    for name in env::references(expression) {
        if value(name).is_none_or(str::is_empty) {
            missing.insert(name);
        }
    }
    if missing.is_empty() {
        return Ok(env::expand(expression, value));
    }
    let missing: Vec<&str> = missing.into_iter().collect();
    Err(RenderError::config_message(format!(
        "missing value for {}",
        missing.join(", ")
    )))
}

fn check(path: &str) -> Result<(), RenderError> {
    if path.starts_with('/') {
        return Err(RenderError::config_message(format!(
            "error SubPath `{path}` must not be an absolute path"
        )));
    }
    if path.split('/').any(|part| part == "..") {
        return Err(RenderError::config_message(format!(
            "unable to provision SubPath `{path}`: must not contain '..'"
        )));
    }
    Ok(())
}

fn volume<'a>(
    mount: &VolumeMount,
    container: &Container,
    volumes: &'a MountedVolumes,
) -> Result<&'a MountedVolume, RenderError> {
    volumes.volumes.get(&mount.name).ok_or_else(|| {
        RenderError::config_message(format!(
            "cannot find volume {:?} to mount into container {:?}",
            mount.name, container.name
        ))
    })
}

fn mount(
    index: usize,
    mount: &VolumeMount,
    container: &Container,
    input: &ContainerInput<'_>,
) -> Result<MountSpec, RenderError> {
    let volume = volume(mount, container, input.volumes)?;
    let host_path = if has_sub_path(mount) {
        input.files.sub_paths.get(&index).ok_or_else(|| {
            RenderError::config_message(format!(
                "failed to prepare subPath for volumeMount {:?} of container {:?}",
                mount.name, container.name
            ))
        })?
    } else {
        &volume.host_path
    };
    Ok(MountSpec {
        container_path: absolute(&mount.mount_path),
        host_path: host_path.clone(),
        read_only: mount.read_only.unwrap_or(false) || volume.read_only,
        recursive_read_only: recursive_read_only(mount, input.runtime.features)?,
        propagation: propagation(mount)?,
    })
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    }
}

fn propagation(mount: &VolumeMount) -> Result<MountPropagation, RenderError> {
    match mount.mount_propagation.as_deref() {
        None | Some("None") => Ok(MountPropagation::Private),
        Some("HostToContainer") => Ok(MountPropagation::HostToContainer),
        Some("Bidirectional") => Ok(MountPropagation::Bidirectional),
        Some(other) => Err(RenderError::config_message(format!(
            "invalid MountPropagation mode: {other:?}"
        ))),
    }
}

/// Whether mounts below the mount are read-only as well. If the runtime cannot do
/// that, what asks for it where possible does without, and what insists is
/// refused.
fn recursive_read_only(mount: &VolumeMount, runtime: RuntimeFeatures) -> Result<bool, RenderError> {
    let refuse = |why: &str| {
        Err(RenderError::config_message(format!(
            "failed to resolve recursive read-only mode: volume {:?} requested recursive \
             read-only mode, but it is {why}",
            mount.name
        )))
    };
    let mode = match mount.recursive_read_only.as_deref() {
        None | Some("Disabled") => return Ok(false),
        Some(mode) => mode,
    };
    let propagation = mount.mount_propagation.as_deref().unwrap_or("None");
    match mode {
        _ if !mount.read_only.unwrap_or(false) => refuse("not read-only"),
        _ if propagation != "None" => {
            refuse(&format!("not compatible with propagation {propagation:?}"))
        }
        "IfPossible" => Ok(runtime.recursive_read_only_mounts),
        "Enabled" if runtime.recursive_read_only_mounts => Ok(true),
        "Enabled" => refuse("not supported by the runtime"),
        other => Err(RenderError::config_message(format!(
            "unknown recursive read-only mode {other:?}"
        ))),
    }
}

fn file(container_path: &str, host_path: PathBuf) -> MountSpec {
    MountSpec {
        container_path: container_path.to_owned(),
        host_path,
        read_only: false,
        recursive_read_only: false,
        propagation: MountPropagation::Private,
    }
}
