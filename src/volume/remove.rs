//! Removing a directory tree that a container had in its hands.
//!
//! In: a directory of ours and a name in it. Out: the name is gone, with all
//! that was below it on the same mount; nothing else was touched. Symbolic
//! links are removed, never followed, and a mount point anywhere below is an
//! error (`EXDEV` from `openat2`, `EBUSY` from `unlinkat`), so what is mounted
//! there survives. Works on trees of any depth with few open files, as a
//! container can nest directories deeper than a path or a stack can go.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, RenameFlags, ResolveFlag, open, openat2, renameat2};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

/// Directories deeper than this are moved up first.
const MAX_DEPTH: usize = 32;
/// Names read at a time: a directory can hold millions.
const BATCH: usize = 1024;

/// Removes `name` in `parent`, whatever it is. It may be absent.
pub(super) fn remove_tree(parent: &Path, name: &OsStr) -> io::Result<()> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let parent = match open(parent, flags, Mode::empty()) {
        Ok(parent) => parent,
        Err(Errno::ENOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let name = CString::new(name.as_bytes())?;
    if unlink(parent.as_fd(), &name)? == Unlinked::Gone {
        return Ok(());
    }
    let top = open_below(parent.as_fd(), &name)?;
    let mut removal = Removal {
        top: top.as_fd(),
        hoisted: 0,
    };
    removal.empty(top.as_fd(), 0)?;
    remove_directory(parent.as_fd(), &name)
}

#[derive(PartialEq, Eq)]
enum Unlinked {
    Gone,
    IsDirectory,
}

/// One removal under way.
struct Removal<'a> {
    /// The directory that is to go; deep directories are moved here.
    top: BorrowedFd<'a>,
    /// How many were.
    hoisted: u64,
}

impl Removal<'_> {
    /// Removes everything in a directory. Every pass over it removes or moves
    /// all it sees, and the last one sees nothing.
    fn empty(&mut self, directory: BorrowedFd<'_>, depth: usize) -> io::Result<()> {
        loop {
            let names = names(directory)?;
            if names.is_empty() {
                return Ok(());
            }
            for name in names {
                if unlink(directory, &name)? == Unlinked::Gone {
                    continue;
                }
                if depth == MAX_DEPTH {
                    self.hoist(directory, &name)?;
                    continue;
                }
                let child = open_below(directory, &name)?;
                self.empty(child.as_fd(), depth + 1)?;
                remove_directory(directory, &name)?;
            }
        }
    }

    /// Moves a directory to the top, where the next pass finds it.
    fn hoist(&mut self, directory: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
        loop {
            self.hoisted += 1;
            let new = format!("..hoisted-{}", self.hoisted);
            let flags = RenameFlags::RENAME_NOREPLACE;
            match renameat2(directory, name, self.top, new.as_str(), flags) {
                Ok(()) => return Ok(()),
                Err(Errno::EEXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Opens a directory by its name in another, if it is on the same mount.
fn open_below(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
        .resolve(
            ResolveFlag::RESOLVE_BENEATH
                | ResolveFlag::RESOLVE_NO_SYMLINKS
                | ResolveFlag::RESOLVE_NO_XDEV,
        );
    Ok(openat2(parent, name, how)?)
}

fn unlink(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<Unlinked> {
    match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(Unlinked::Gone),
        Err(Errno::EISDIR) => Ok(Unlinked::IsDirectory),
        Err(error) => Err(error.into()),
    }
}

fn remove_directory(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    match unlinkat(parent, name, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The first names in a directory; empty if there are none.
fn names(directory: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    // A description of its own, as reading moves a shared offset.
    let own = open_below(directory, c".")?;
    let mut names = Vec::new();
    for entry in Dir::from_fd(own)?.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
        if names.len() == BATCH {
            break;
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests;
