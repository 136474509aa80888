//! Setting up the volumes of one pod on disk. Blocking.
//!
//! In: what to set up, with the contents of file volumes at hand. Out: where
//! each volume is. Every step looks at what is there first, so it may be
//! repeated at any time, after a crash and after a reboot.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::VolumeError;
use super::atomic;
use super::host_path;
use super::layout::{PodLayout, make_directory};
use super::mounts::{is_tmpfs, mount_tmpfs, unmount_below};
use super::ownership::{GroupAccess, give_to_group};
use super::payload::{Payload, PayloadError};
use super::plan::{FilesKind, HostPathCheck, Medium};
use super::remove::remove_tree;
use super::tokens::RETRY;
use crate::pod::inputs::{MountedVolume, MountedVolumes};

/// A volume with all that is needed to set it up.
pub(super) struct Prepared {
    pub(super) name: String,
    pub(super) kind: PreparedKind,
}

pub(super) enum PreparedKind {
    EmptyDir(Medium),
    HostPath {
        path: PathBuf,
        check: HostPathCheck,
    },
    Files {
        kind: FilesKind,
        medium: Medium,
        contents: Result<Payload, PayloadError>,
    },
}

/// What all volumes of a pod have in common.
pub(super) struct SetUp<'a> {
    pub(super) layout: &'a PodLayout,
    pub(super) fs_group: Option<u32>,
    pub(super) now: Timestamp,
    /// Volumes that show old contents because new ones could not be had.
    pub(super) stale: &'a mut BTreeSet<String>,
}

impl SetUp<'_> {
    /// Makes the pod's directories and sets up its volumes in order. One that
    /// fails keeps no other from new contents; the first failure is answered.
    pub(super) fn run(mut self, volumes: Vec<Prepared>) -> Result<MountedVolumes, VolumeError> {
        for directory in [self.layout.volumes(), self.layout.plugins()] {
            make_directory(&directory).map_err(VolumeError::PodDirectories)?;
        }
        let mut mounted = MountedVolumes::default();
        let mut failure = None;
        for Prepared { name, kind } in volumes {
            match self.set_up(&name, kind) {
                Ok(volume) => {
                    mounted.volumes.insert(name, volume);
                }
                Err(error) => {
                    failure.get_or_insert(error);
                }
            }
        }
        if let Some(failure) = failure {
            return Err(failure);
        }
        if !self.stale.is_empty() {
            mounted.refresh_at = self.now.checked_add(RETRY).ok();
        }
        Ok(mounted)
    }

    fn set_up(&mut self, name: &str, kind: PreparedKind) -> Result<MountedVolume, VolumeError> {
        match kind {
            PreparedKind::EmptyDir(medium) => {
                let host_path = self
                    .empty_dir(name, medium)
                    .map_err(|error| VolumeError::set_up(name, error))?;
                Ok(MountedVolume {
                    host_path,
                    read_only: false,
                })
            }
            PreparedKind::HostPath { path, check } => {
                host_path::check(&path, check).map_err(|error| VolumeError::set_up(name, error))?;
                Ok(MountedVolume {
                    host_path: path,
                    read_only: false,
                })
            }
            PreparedKind::Files {
                kind,
                medium,
                contents,
            } => {
                let host_path = self.layout.files(kind, name);
                match contents {
                    Ok(payload) => self.files(name, &host_path, medium, &payload)?,
                    Err(error) => self.keep(name, &host_path, error)?,
                }
                Ok(MountedVolume {
                    host_path,
                    read_only: true,
                })
            }
        }
    }

    /// Once marked ready, an emptyDir belongs to the pod and is not touched
    /// again, except that a tmpfs which did not survive a reboot is made anew.
    fn empty_dir(&self, name: &str, medium: Medium) -> io::Result<PathBuf> {
        let directory = self.layout.empty_dir(name);
        let meta = self.layout.empty_dir_meta(name);
        let ready = meta.join("ready");
        if ready.is_file() && is_in_place(&directory, medium)? {
            return Ok(directory);
        }
        open_directory(&directory, medium)?;
        if let Some(group) = self.fs_group {
            give_to_group(&directory, group, GroupAccess::ReadWrite)?;
        }
        make_directory(&meta)?;
        fs::File::create(ready)?;
        Ok(directory)
    }

    /// Writes the files of a volume, if they are not there already.
    fn files(
        &mut self,
        name: &str,
        directory: &Path,
        medium: Medium,
        payload: &Payload,
    ) -> Result<(), VolumeError> {
        let was_populated = atomic::is_populated(directory);
        let own = || match self.fs_group {
            Some(group) => give_to_group(directory, group, GroupAccess::ReadOnly),
            None => Ok(()),
        };
        let written = open_directory(directory, medium)
            .and_then(|()| atomic::write(directory, payload, self.now, own));
        if let Err(error) = written {
            if !was_populated {
                discard(directory);
            }
            return Err(VolumeError::set_up(name, error));
        }
        if self.stale.remove(name) {
            tracing::info!(volume = name, "volume contents are up to date again");
        }
        Ok(())
    }

    /// What new contents could not be had for. A pod that runs goes on with
    /// the old ones if it may be just a matter of time.
    fn keep(
        &mut self,
        name: &str,
        directory: &Path,
        error: PayloadError,
    ) -> Result<(), VolumeError> {
        if !error.is_transient() || !atomic::is_populated(directory) {
            return Err(VolumeError::set_up(name, error));
        }
        if self.stale.insert(name.to_owned()) {
            tracing::warn!(
                volume = name,
                error = %crate::error::chain(&error),
                "cannot renew volume contents; keeping what is there"
            );
        }
        Ok(())
    }
}

/// Whether the directory, and its tmpfs if it has one, are there.
fn is_in_place(directory: &Path, medium: Medium) -> io::Result<bool> {
    Ok(directory.is_dir()
        && match medium {
            Medium::Disk => true,
            Medium::Memory { .. } => is_tmpfs(directory)?,
        })
}

/// Makes a volume's directory, with its tmpfs if it has one, and lets everybody
/// in whatever the umask. Bits that are there already stay, as does the
/// sticky one of a new tmpfs.
fn open_directory(directory: &Path, medium: Medium) -> io::Result<()> {
    make_directory(directory)?;
    if let Medium::Memory { size } = medium
        && !is_tmpfs(directory)?
    {
        mount_tmpfs(directory, size)?;
    }
    let mode = fs::symlink_metadata(directory)?.permissions().mode() & 0o7777;
    let wanted = mode | 0o777;
    if mode != wanted {
        fs::set_permissions(directory, fs::Permissions::from_mode(wanted))?;
    }
    Ok(())
}

/// Takes back a volume whose first set-up failed, as far as that works; the
/// tear-down of the pod gets the rest.
fn discard(directory: &Path) {
    let (Some(parent), Some(name)) = (directory.parent(), directory.file_name()) else {
        return;
    };
    let discarded = unmount_below(directory).and_then(|()| remove_tree(parent, name));
    if let Err(error) = discarded {
        tracing::debug!(
            path = %directory.display(),
            error = %crate::error::chain(&error),
            "cannot take back a volume that failed to set up"
        );
    }
}
