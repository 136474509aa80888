//! Opening what lies below a directory, and nothing else.
//!
//! In: a path that a caller, or a container, has a say in. Out: an open file
//! below the root. The kernel keeps the walk from leaving (`openat2`), so
//! nobody can swap a directory for a link half-way. Blocking.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;

#[cfg(test)]
mod tests;

/// What becomes of symbolic links on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Links {
    /// They are an error.
    Refused,
    /// They are followed as long as they lead to something below the root.
    Below,
}

/// A directory that is not left.
#[derive(Debug, Clone)]
pub(super) struct Root {
    path: PathBuf,
}

impl Root {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a regular file or a directory for reading. Anything else is refused,
    /// and a FIFO does not block.
    ///
    /// # Errors
    /// `NotFound` also for what lies outside; `InvalidInput` for what is neither
    /// file nor directory.
    pub(super) fn open(&self, path: &Path, links: Links) -> io::Result<File> {
        let opened = match (self.open_below(path, links), links) {
            // It may be an absolute link to something below the root.
            (Err(Errno::EXDEV), Links::Below) => {
                let target = std::fs::canonicalize(self.path.join(path))?;
                let root = std::fs::canonicalize(&self.path)?;
                let path = target.strip_prefix(root).map_err(|_| outside())?;
                self.open_below(path, Links::Refused)
            }
            (opened, _) => opened,
        };
        let file = match opened {
            Ok(opened) => File::from(opened),
            Err(Errno::EXDEV | Errno::ELOOP) => return Err(outside()),
            Err(error) => return Err(error.into()),
        };
        let kind = file.metadata()?.file_type();
        if kind.is_file() || kind.is_dir() {
            Ok(file)
        } else {
            Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "neither a file nor a directory",
            ))
        }
    }

    fn open_below(&self, path: &Path, links: Links) -> Result<OwnedFd, Errno> {
        if !path
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
        {
            return Err(Errno::EXDEV);
        }
        let root = open(
            &self.path,
            OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )?;
        let resolve = match links {
            Links::Refused => ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS,
            Links::Below => ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS,
        };
        let how = |flags| OpenHow::new().flags(flags).resolve(resolve);
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        openat2(&root, path, how(flags))
    }
}

fn outside() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "not below the directory")
}
