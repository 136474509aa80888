//! Hears of changes under the manifest path through inotify.
//!
//! Two directories are watched: the manifest directory itself, and the closest
//! existing directory above it, so that a path that appears, vanishes or is
//! replaced is heard of as well. What lies behind a path may still move
//! unheard (a symbolic link's target, a directory two levels up), so every
//! scan compares the [`Shape`] of the path with the one that is watched.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use futures::{FutureExt, StreamExt};
use inotify::{EventMask, EventOwned, EventStream, Inotify, WatchDescriptor, WatchMask};

use super::scan::{Scope, Writing, is_hidden};

/// Enough for some dozen events per read; the kernel queues the rest.
const BUFFER_BYTES: usize = 4096;

/// How often [`Armed::new`] starts over when directories move under its hands,
/// before it leaves the matter to the next scan.
const ARM_ATTEMPTS: usize = 8;

/// Which directories stand for the path at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    /// The path itself, if it is a directory.
    directory: Option<FileId>,
    ancestor: Option<Ancestor>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Ancestor {
    path: PathBuf,
    id: FileId,
    /// The name below it that leads to the manifest path.
    next: OsString,
    /// Whether `next` is the manifest path's own last component.
    is_parent: bool,
}

/// Device and inode.
type FileId = (u64, u64);

impl Shape {
    /// Looks at the file system; blocking.
    pub(super) fn of(path: &Path) -> Self {
        Self {
            directory: directory_id(path),
            ancestor: Ancestor::of(path),
        }
    }
}

impl Ancestor {
    fn of(path: &Path) -> Option<Self> {
        let mut below = path;
        loop {
            let parent = below.parent()?;
            if let Some(id) = directory_id(parent) {
                return Some(Self {
                    path: parent.to_owned(),
                    id,
                    next: below.file_name()?.to_owned(),
                    is_parent: below == path,
                });
            }
            below = parent;
        }
    }
}

fn directory_id(path: &Path) -> Option<FileId> {
    let meta = std::fs::metadata(path).ok()?;
    meta.is_dir().then(|| (meta.dev(), meta.ino()))
}

/// Watches that are set, not yet listened to.
#[derive(Debug)]
pub(super) struct Armed {
    inotify: Inotify,
    shape: Shape,
    directory: Option<WatchDescriptor>,
    ancestor: Option<WatchDescriptor>,
}

impl Armed {
    /// Sets the watches for `path`; blocking. What changes after this returns
    /// will be heard.
    ///
    /// # Errors
    /// The kernel refuses a watch, most likely because a limit on inotify
    /// instances or watches is reached.
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        let mut attempt = 1;
        loop {
            let shape = Shape::of(path);
            let armed = Self::with_shape(path, shape);
            let stable = matches!(&armed, Ok(armed) if armed.shape == Shape::of(path));
            if stable || attempt == ARM_ATTEMPTS {
                return armed;
            }
            attempt += 1;
        }
    }

    fn with_shape(path: &Path, shape: Shape) -> io::Result<Self> {
        let inotify = Inotify::init()?;
        let add = |path: &Path, mask| {
            // Both paths may lead to one directory, whose watch then has to
            // serve both.
            inotify.watches().add(path, mask | WatchMask::MASK_ADD)
        };
        let directory = match &shape.directory {
            Some(_) => Some(add(path, directory_mask())?),
            None => None,
        };
        let ancestor = match &shape.ancestor {
            Some(ancestor) => Some(add(&ancestor.path, ancestor_mask(&shape, ancestor))?),
            None => None,
        };
        Ok(Self {
            inotify,
            shape,
            directory,
            ancestor,
        })
    }

    /// Starts to listen; to be called within a Tokio runtime.
    ///
    /// # Errors
    /// The descriptor cannot be registered with the runtime.
    pub(super) fn listen(self) -> io::Result<Listener> {
        Ok(Listener {
            events: self.inotify.into_event_stream(vec![0; BUFFER_BYTES])?,
            shape: self.shape,
            directory: self.directory,
            ancestor: self.ancestor,
        })
    }
}

fn names_mask() -> WatchMask {
    WatchMask::CREATE | WatchMask::MOVED_FROM | WatchMask::MOVED_TO | WatchMask::DELETE
}

fn directory_mask() -> WatchMask {
    names_mask()
        | WatchMask::CLOSE_WRITE
        | WatchMask::ATTRIB
        | WatchMask::DELETE_SELF
        | WatchMask::MOVE_SELF
        | WatchMask::ONLYDIR
}

fn ancestor_mask(shape: &Shape, ancestor: &Ancestor) -> WatchMask {
    let mask = names_mask() | WatchMask::DELETE_SELF | WatchMask::MOVE_SELF | WatchMask::ONLYDIR;
    // A single manifest file is watched through its directory.
    if ancestor.is_parent && shape.directory.is_none() {
        mask | WatchMask::CLOSE_WRITE | WatchMask::ATTRIB
    } else {
        mask
    }
}

/// Watches that are listened to.
pub(super) struct Listener {
    events: EventStream<Vec<u8>>,
    shape: Shape,
    directory: Option<WatchDescriptor>,
    ancestor: Option<WatchDescriptor>,
}

impl Listener {
    pub(super) fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Waits for a change and answers what to look at; changes that are there
    /// already are answered together. Cancel safe.
    ///
    /// # Errors
    /// The queue cannot be read any more.
    pub(super) async fn next(&mut self) -> io::Result<Scope> {
        loop {
            let mut heard = Heard::default();
            let mut event = self.events.next().await;
            loop {
                match event {
                    Some(event) => self.interpret(&event?, &mut heard),
                    None => return Err(io::ErrorKind::UnexpectedEof.into()),
                }
                match self.events.next().now_or_never() {
                    Some(next) => event = next,
                    None => break,
                }
            }
            if let Some(scope) = heard.into_scope() {
                return Ok(scope);
            }
        }
    }

    fn interpret(&self, event: &EventOwned, heard: &mut Heard) {
        let lost = EventMask::Q_OVERFLOW
            | EventMask::DELETE_SELF
            | EventMask::MOVE_SELF
            | EventMask::UNMOUNT
            | EventMask::IGNORED;
        let Some(name) = event
            .name
            .as_deref()
            .filter(|_| !event.mask.intersects(lost))
        else {
            // The directory's own attributes say nothing about manifests.
            heard.everything |= event.mask.intersects(lost);
            return;
        };
        if self.directory.as_ref() == Some(&event.wd) {
            heard.name(name, event.mask);
        }
        if self.ancestor.as_ref() == Some(&event.wd)
            && let Some(ancestor) = &self.shape.ancestor
            && ancestor.next == name
        {
            if ancestor.is_parent && self.shape.directory.is_none() {
                heard.name(name, event.mask);
            } else {
                heard.everything = true;
            }
        }
    }
}

#[derive(Default)]
struct Heard {
    everything: bool,
    names: BTreeMap<OsString, Writing>,
}

impl Heard {
    fn name(&mut self, name: &OsStr, mask: EventMask) {
        // A volume's atomic writer renames `..data`, to which the visible
        // names are links.
        if name.as_bytes().starts_with(b"..") {
            self.everything = true;
            return;
        }
        if is_hidden(name) {
            return;
        }
        // Whoever creates a file or sets its mode is often about to write it.
        let writing = if mask.intersects(EventMask::CREATE | EventMask::ATTRIB) {
            Writing::Unknown
        } else {
            Writing::Finished
        };
        let known = self.names.entry(name.to_owned()).or_insert(writing);
        *known = writing.max(*known);
    }

    fn into_scope(self) -> Option<Scope> {
        if self.everything {
            Some(Scope::All)
        } else {
            (!self.names.is_empty()).then_some(Scope::Files(self.names))
        }
    }
}
