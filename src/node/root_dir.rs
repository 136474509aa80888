//! The agent's directory: made at start, and its mount shared, so that what is
//! mounted below it is seen by containers with mount propagation, and what they
//! mount is seen here.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use procfs::process::{MountInfo, MountOptFields, Process};

/// Directories that other programs expect below it.
const CHILDREN: [&str; 5] = ["", "pods", "plugins", "plugins_registry", "pod-resources"];
const MODE: u32 = 0o750;

/// A directory of the agent could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot create {path}")]
pub struct CreateDirectoryError {
    pub path: PathBuf,
    #[source]
    pub source: io::Error,
}

/// Makes the directory and the ones below it that must exist.
///
/// # Errors
/// When one of them cannot be made.
pub fn create(root_dir: &Path) -> Result<(), CreateDirectoryError> {
    for child in CHILDREN {
        let path = root_dir.join(child);
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(MODE)
            .create(&path)
            .map_err(|source| CreateDirectoryError { path, source })?;
    }
    Ok(())
}

/// Sees to it that the directory is on a shared mount; if it is not, mounts it
/// onto itself and shares that, which stays when the agent ends. A refusal is
/// one warning: only mount propagation is lost.
pub fn ensure_shared(root_dir: &Path) {
    if let Err(error) = try_ensure_shared(root_dir) {
        tracing::warn!(
            path = %root_dir.display(),
            error = %crate::error::chain(&error),
            "cannot share the mount of the root directory; mount propagation will not work"
        );
    }
}

#[derive(Debug, thiserror::Error)]
enum ShareError {
    #[error("cannot read the mounts of this process")]
    Mounts(#[source] procfs::ProcError),
    #[error("cannot resolve the path")]
    Path(#[source] io::Error),
    #[error("no mount has the directory")]
    NoMount,
    #[error("cannot mount the directory onto itself")]
    Bind(#[source] nix::Error),
    #[error("cannot make the mount shared")]
    Share(#[source] nix::Error),
}

fn try_ensure_shared(root_dir: &Path) -> Result<(), ShareError> {
    let path = std::fs::canonicalize(root_dir).map_err(ShareError::Path)?;
    let mounts = Process::myself()
        .and_then(|process| process.mountinfo())
        .map_err(ShareError::Mounts)?;
    if is_shared(mount_of(&path, &mounts.0).ok_or(ShareError::NoMount)?) {
        return Ok(());
    }
    let none: Option<&str> = None;
    let bind = MsFlags::MS_BIND;
    mount(Some(&path), &path, none, bind, none).map_err(ShareError::Bind)?;
    let share = MsFlags::MS_SHARED | MsFlags::MS_REC;
    mount(none, &path, none, share, none).map_err(ShareError::Share)?;
    tracing::info!(path = %path.display(), "mounted the root directory onto itself, shared");
    Ok(())
}

/// The mount that a path is on: the deepest, and of several in one place the
/// last, which covers the others.
fn mount_of<'a>(path: &Path, mounts: &'a [MountInfo]) -> Option<&'a MountInfo> {
    mounts
        .iter()
        .filter(|mount| path.starts_with(&mount.mount_point))
        .max_by_key(|mount| mount.mount_point.components().count())
}

fn is_shared(mount: &MountInfo) -> bool {
    let shared = |field: &MountOptFields| matches!(field, MountOptFields::Shared(_));
    mount.opt_fields.iter().any(shared)
}

#[cfg(test)]
mod tests {
    use super::*;
    use procfs::FromRead;
    use procfs::process::MountInfos;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn directories_are_made_and_made_again() {
        let parent = tempfile::TempDir::new().unwrap();
        let root = parent.path().join("kubelet");
        create(&root).unwrap();
        create(&root).unwrap();
        for child in CHILDREN {
            let mode = root.join(child).metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, MODE);
        }
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let parent = tempfile::TempDir::new().unwrap();
        let root = parent.path().join("kubelet");
        std::fs::write(&root, "").unwrap();
        assert_eq!(create(&root).unwrap_err().path, root.join(""));
    }

    #[test]
    fn the_deepest_and_last_mount_counts() {
        let text = "\
            1 0 254:0 / / rw - ext4 /dev/vda rw\n\
            2 1 254:1 / /var/lib rw shared:1 - ext4 /dev/vdb rw\n\
            3 2 254:2 / /var/lib/kubelet rw - ext4 /dev/vdc rw\n\
            4 3 254:2 / /var/lib/kubelet rw shared:2 - ext4 /dev/vdc rw\n";
        let mounts = MountInfos::from_read(text.as_bytes()).unwrap().0;
        for (path, id, shared) in [
            ("/var/lib/kubelet/pods", 4, true),
            ("/var/lib/kubelet", 4, true),
            ("/var/lib/kubelet2", 2, true),
            ("/srv", 1, false),
        ] {
            let mount = mount_of(Path::new(path), &mounts).unwrap();
            assert_eq!((mount.mnt_id, is_shared(mount)), (id, shared), "{path}");
        }
    }
}
