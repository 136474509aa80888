//! Mounts below a pod's directory: making a tmpfs, and taking down whatever is
//! mounted there.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};

/// How often a busy mount is tried before it is detached.
const ATTEMPTS: u32 = 5;
/// Pause after the first attempt; grows with each.
const PAUSE: Duration = Duration::from_millis(20);
/// Mounts stacked on one another, or made meanwhile, take more than one pass.
const PASSES: u32 = 8;

/// Whether a tmpfs of its own is mounted on this directory. Asks the file
/// system and not the mount table, which may be long.
pub(super) fn is_tmpfs(directory: &Path) -> io::Result<bool> {
    let Some(parent) = directory.parent() else {
        return Ok(false);
    };
    let is_own = directory.symlink_metadata()?.dev() != parent.symlink_metadata()?.dev();
    Ok(is_own && statfs(directory)?.filesystem_type() == TMPFS_MAGIC)
}

/// Mounts a tmpfs of at most `size` bytes that is never written to swap, where
/// the kernel can promise that.
pub(super) fn mount_tmpfs(directory: &Path, size: u64) -> io::Result<()> {
    let with = |options: &str| {
        let kind = Some("tmpfs");
        mount(kind, directory, kind, MsFlags::empty(), Some(options))
    };
    match with(&format!("size={size},noswap")) {
        // The option is younger (6.4) than the kernels we run on.
        Err(Errno::EINVAL) => Ok(with(&format!("size={size}"))?),
        other => Ok(other?),
    }
}

/// Unmounts everything at and below a directory, deepest first.
pub(super) fn unmount_below(directory: &Path) -> io::Result<()> {
    for _ in 0..PASSES {
        let mounted = mounted_below(directory)?;
        if mounted.is_empty() {
            return Ok(());
        }
        for mount_point in mounted {
            unmount(&mount_point)?;
        }
    }
    Err(io::Error::other("still mounted after unmounting"))
}

/// Mount points at and below a directory: deepest first, and of those on one
/// another the topmost first.
pub(super) fn mounted_below(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let directory = match directory.canonicalize() {
        Ok(directory) => directory,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let table = procfs::process::Process::myself()
        .and_then(|process| process.mountinfo())
        .map_err(io::Error::other)?;
    let mut found: Vec<PathBuf> = table
        .into_iter()
        .map(|mount| unescape(mount.mount_point))
        .filter(|mount_point| mount_point.starts_with(&directory))
        .collect();
    found.reverse();
    found.sort_by_key(|mount_point| std::cmp::Reverse(mount_point.components().count()));
    Ok(found)
}

/// A path as the kernel writes it in the mount table, with `\040` for a space
/// and the like.
fn unescape(path: PathBuf) -> PathBuf {
    let bytes = path.into_os_string().into_vec();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut rest = bytes.as_slice();
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail
            .get(..3)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let code = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code.filter(|_| first == b'\\') {
            Some(code) => {
                plain.push(code);
                rest = &tail[3..];
            }
            None => {
                plain.push(first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(plain).into()
}

/// Unmounts one mount. If something still uses it when all attempts are spent,
/// it is detached: the name is free, and the kernel lets go of the rest with
/// the last user.
fn unmount(mount_point: &Path) -> io::Result<()> {
    for attempt in 1..=ATTEMPTS {
        match umount2(mount_point, MntFlags::UMOUNT_NOFOLLOW) {
            // Not a mount point any more: it went with its parent.
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(Errno::EBUSY) => std::thread::sleep(PAUSE * attempt),
            Err(error) => return Err(error.into()),
        }
    }
    tracing::warn!(path = %mount_point.display(), "a volume is still in use; detaching it");
    umount2(
        mount_point,
        MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH,
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_of_the_mount_table_are_undone() {
        let cases = [
            ("/var/lib/kubelet", "/var/lib/kubelet"),
            (r"/a\040b", "/a b"),
            (r"/a\134040", r"/a\040"),
            (r"/a\011\012", "/a\t\n"),
            (r"/a\04", r"/a\04"),
            ("/ä", "/ä"),
        ];
        for (escaped, plain) in cases {
            assert_eq!(unescape(escaped.into()), Path::new(plain), "{escaped}");
        }
    }

    #[test]
    fn a_plain_directory_is_no_tmpfs_and_has_no_mounts() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("volume");
        std::fs::create_dir(&directory).unwrap();
        assert!(!is_tmpfs(&directory).unwrap());
        assert!(mounted_below(&directory).unwrap().is_empty());
        assert!(
            mounted_below(&root.path().join("absent"))
                .unwrap()
                .is_empty()
        );
    }
}
