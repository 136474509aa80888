//! Parts of volumes: what a container's `subPath` names, found without leaving
//! the volume, and held where the container cannot reach. Blocking.
//!
//! In: a volume's directory, which containers may change at any moment, and a
//! path in it. Out: a bind mount of what the path named, at
//! `volume-subpaths/<volume>/<container>/<index>` in the pod's directory. The
//! kernel resolves the path (`openat2`), so no link can lead outside between a
//! check and its use, and the mount is of the opened file itself, so nothing
//! that is renamed later changes what the runtime mounts.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, fchmod, fstat, mkdirat};

use super::VolumeError;
use super::layout::{PodLayout, make_directory};
use super::mounts::unmount_below;
use super::path::component;
use crate::pod::inputs::SubPath;

/// Permission bits that a made directory takes over from the volume's.
const INHERITED_MODE: u32 = 0o3777;
/// Mode of the file that another one is mounted on.
const PLACE_MODE: u32 = 0o640;
/// How often a path is resolved anew that changes while the kernel looks.
const ATTEMPTS: u32 = 16;

/// Mounts one part of a volume and answers where.
///
/// # Errors
/// In upstream's words, which say nothing of the host; what it was is logged.
pub(super) fn prepare(
    layout: &PodLayout,
    container: &str,
    wanted: &SubPath,
) -> Result<PathBuf, VolumeError> {
    for name in [container, &wanted.volume] {
        component(name).map_err(|error| VolumeError::Name(error.into()))?;
    }
    let log = |error: &io::Error| {
        tracing::warn!(
            volume = wanted.volume,
            container,
            sub_path = wanted.path,
            error = %crate::error::chain(error),
            "cannot prepare a subPath"
        );
    };
    let unprepared = |error: io::Error| {
        log(&error);
        VolumeError::SubPath {
            volume: wanted.volume.clone(),
            container: container.to_owned(),
        }
    };
    let found = match find(&wanted.volume_path, &wanted.path).map_err(unprepared)? {
        Some(found) => found,
        None => make(&wanted.volume_path, &wanted.path).map_err(|error| {
            log(&error);
            VolumeError::SubPathDirectory {
                volume: wanted.volume.clone(),
                container: container.to_owned(),
            }
        })?,
    };
    let place = layout.sub_path(&wanted.volume, container, wanted.index);
    hold(found.as_fd(), &place).map_err(unprepared)?;
    Ok(place)
}

/// Opens what `path` names inside the volume, by name only (`O_PATH`); `None`
/// if there is nothing.
pub(super) fn find(volume_path: &Path, path: &str) -> io::Result<Option<OwnedFd>> {
    let volume = open_volume(volume_path)?;
    let parts = parts(path)?;
    match open_inside(volume.as_fd(), &parts) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::ENOENT) => Ok(None),
        // An absolute link, such as a host's /var/run, may lead back inside.
        Err(Errno::EXDEV) => open_canonical(volume.as_fd(), volume_path, &parts).map(Some),
        Err(error) => Err(error.into()),
    }
}

fn open_volume(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(open(path, flags, Mode::empty())?)
}

/// The path's components, none of which leads upwards. An empty one is the
/// volume itself.
fn parts(path: &str) -> io::Result<PathBuf> {
    let parts = Path::new(path).components().map(|part| match part {
        Component::Normal(name) => Ok(Some(name)),
        Component::CurDir => Ok(None),
        Component::ParentDir | Component::RootDir | Component::Prefix(_) => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the path leaves the volume",
        )),
    });
    let inside = parts
        .filter_map(Result::transpose)
        .collect::<io::Result<PathBuf>>()?;
    Ok(if inside.as_os_str().is_empty() {
        PathBuf::from(".")
    } else {
        inside
    })
}

/// Opens a path, following links as long as they stay inside the volume.
fn open_inside(volume: BorrowedFd<'_>, path: &Path) -> nix::Result<OwnedFd> {
    let stays = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    resolve(volume, path, OFlag::O_PATH, stays)
}

fn resolve(
    directory: BorrowedFd<'_>,
    path: &Path,
    flags: OFlag,
    how: ResolveFlag,
) -> nix::Result<OwnedFd> {
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(how);
    // The kernel gives up on a path that is renamed under its hands; whoever
    // renames for ever only keeps their own container from starting.
    let mut answer = Err(Errno::EAGAIN);
    for _ in 0..ATTEMPTS {
        answer = openat2(directory, path, how);
        if !matches!(answer, Err(Errno::EAGAIN)) {
            break;
        }
    }
    answer
}

/// Opens what a path with absolute links means on this host, if that is in the
/// volume. The check is made on names; the opening follows no link any more.
fn open_canonical(volume: BorrowedFd<'_>, volume_path: &Path, path: &Path) -> io::Result<OwnedFd> {
    let root = volume_path.canonicalize()?;
    let meant = root.join(path).canonicalize()?;
    let inside = meant.strip_prefix(&root).map_err(|_| Errno::EXDEV)?;
    let stays = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
    let inside = if inside.as_os_str().is_empty() {
        Path::new(".")
    } else {
        inside
    };
    Ok(resolve(volume, inside, OFlag::O_PATH, stays)?)
}

/// Makes the directories of a path that are missing, as open as the volume
/// itself, and opens the last. What is there already is walked through as
/// [`find`] does; below that no link is followed, so what somebody puts in the
/// place of a made directory is refused.
fn make(volume_path: &Path, path: &str) -> io::Result<OwnedFd> {
    let volume = open_volume(volume_path)?;
    let path = parts(path)?;
    let mode = Mode::from_bits_truncate(fstat(&volume)?.st_mode & INHERITED_MODE);
    let mut present = PathBuf::from(".");
    let mut directory = open_inside(volume.as_fd(), &present)?;
    let mut names = path.iter().peekable();
    while let Some(name) = names.peek() {
        present.push(name);
        match open_inside(volume.as_fd(), &present) {
            Ok(found) => directory = found,
            Err(Errno::ENOENT) => break,
            Err(error) => return Err(error.into()),
        }
        names.next();
    }
    for name in names {
        match mkdirat(&directory, name, mode) {
            Ok(()) | Err(Errno::EEXIST) => {}
            // The parent was removed meanwhile, or cannot be written to.
            Err(error) => return Err(error.into()),
        }
        let plain = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let made = resolve(directory.as_fd(), Path::new(name), flags, plain)?;
        // Explicitly, so that the umask has no say.
        fchmod(&made, mode)?;
        directory = made;
    }
    Ok(directory)
}

/// Mounts an opened file or directory at `place`, unless it is there already.
fn hold(found: BorrowedFd<'_>, place: &Path) -> io::Result<()> {
    let wanted = fstat(found)?;
    let is_directory = wanted.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits();
    if let Ok(present) = fs::symlink_metadata(place) {
        // Its own inode can be seen there through a mount only.
        if (present.dev(), present.ino()) == (wanted.st_dev, wanted.st_ino) {
            return Ok(());
        }
        // An earlier instance's, or what a killed agent left.
        unmount_below(place)?;
    }
    make_place(place, is_directory)?;
    let source = PathBuf::from(format!("/proc/self/fd/{}", found.as_raw_fd()));
    let none: Option<&str> = None;
    mount(Some(&source), place, none, MsFlags::MS_BIND, none)?;
    Ok(())
}

/// Makes what the mount goes onto: a directory for a directory, else a file.
fn make_place(place: &Path, is_directory: bool) -> io::Result<()> {
    if let Ok(present) = fs::symlink_metadata(place)
        && present.is_dir() != is_directory
    {
        if present.is_dir() {
            fs::remove_dir(place)?;
        } else {
            fs::remove_file(place)?;
        }
    }
    if is_directory {
        return make_directory(place);
    }
    if let Some(parent) = place.parent() {
        make_directory(parent)?;
    }
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(libc::O_NOFOLLOW)
        .mode(PLACE_MODE)
        .open(place)
        .map(drop)
}

#[cfg(test)]
mod tests;
