//! What rotation does to files. Blocking.
//!
//! Every step leaves names from which the next one can go on, whenever the
//! process dies: a log that is missing is opened again by the runtime, a `.tmp`
//! is removed, and so is a plain file whose compressed form is complete.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use tokio_util::sync::CancellationToken;

use super::super::regular::open_regular;
use super::names::{Form, RotatedLog, Stamp};

#[cfg(test)]
mod tests;

/// Bytes compressed at a time.
const BLOCK: usize = 256 << 10;

/// A container's live log and where its rotated parts are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ContainerLog {
    directory: PathBuf,
    name: String,
}

/// What to do with temporary files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leftovers {
    /// They are of a process that is gone.
    Remove,
    /// Somebody may be compressing.
    Keep,
}

impl ContainerLog {
    pub(super) fn new(directory: PathBuf, name: String) -> Self {
        Self { directory, name }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.directory.join(&self.name)
    }

    /// The size of the live log; `None` if there is none.
    pub(super) fn size(&self) -> io::Result<Option<u64>> {
        match fs::symlink_metadata(self.path()) {
            Ok(found) if found.is_file() => Ok(Some(found.len())),
            Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Renames the live log. Gives its new name.
    pub(super) fn put_aside(&self, now: Timestamp) -> io::Result<RotatedLog> {
        let newest = self.rotated()?.pop();
        let aside = RotatedLog {
            stamp: Stamp::next(now, newest.as_ref().map(|log| &log.stamp)),
            form: Form::Plain,
        };
        move_unless_there(&self.path(), &self.path_of(&aside))?;
        Ok(aside)
    }

    /// Undoes [`Self::put_aside`], unless there is a new live log, or all logs
    /// were removed with their container.
    pub(super) fn put_back(&self, aside: &RotatedLog) -> io::Result<()> {
        let moved = move_unless_there(&self.path_of(aside), &self.path());
        match moved.as_ref().map_err(io::Error::kind) {
            Err(io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound) => Ok(()),
            _ => moved,
        }
    }

    /// Removes what is worth nothing, and the oldest parts until `keep` are left.
    pub(super) fn prune(&self, keep: usize, leftovers: Leftovers) -> io::Result<()> {
        let rotated = self.rotated()?;
        let (temporary, parts): (Vec<_>, Vec<_>) = rotated
            .into_iter()
            .partition(|log| log.form == Form::Temporary);
        if leftovers == Leftovers::Remove {
            for log in &temporary {
                self.remove(log)?;
            }
        }
        let (superseded, parts): (Vec<_>, Vec<_>) = parts.iter().cloned().partition(|log| {
            let compressed = RotatedLog {
                form: Form::Compressed,
                ..log.clone()
            };
            log.form == Form::Plain && parts.contains(&compressed)
        });
        let excess = parts.len().saturating_sub(keep);
        for log in superseded.iter().chain(&parts[..excess]) {
            self.remove(log)?;
        }
        Ok(())
    }

    /// The parts that are to be compressed: all but the newest, which somebody
    /// may still be reading.
    pub(super) fn uncompressed(&self) -> io::Result<Vec<RotatedLog>> {
        let mut rotated = self.rotated()?;
        rotated.pop();
        rotated.retain(|log| log.form == Form::Plain);
        Ok(rotated)
    }

    /// Compresses a part, unless it goes meanwhile or `stop` says so. The
    /// compressed file has the mode and the time of the plain one.
    pub(super) fn compress(&self, plain: &RotatedLog, stop: &CancellationToken) -> io::Result<()> {
        let with_form = |form| RotatedLog {
            form,
            ..plain.clone()
        };
        let (from, temporary) = (
            self.path_of(plain),
            self.path_of(&with_form(Form::Temporary)),
        );
        let source = match open_regular(&from) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened?,
        };
        let outcome = write_compressed(&source, &temporary, stop).and_then(|written| {
            // Removed meanwhile, as with its container: then this goes as well.
            if written == Written::InPart || !from.try_exists()? {
                return fs::remove_file(&temporary);
            }
            fs::rename(&temporary, self.path_of(&with_form(Form::Compressed)))?;
            self.remove(plain)
        });
        if outcome.is_err() {
            // Whoever looks next removes it otherwise.
            let _ = fs::remove_file(&temporary);
        }
        outcome
    }

    /// Oldest first.
    fn rotated(&self) -> io::Result<Vec<RotatedLog>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            found.extend(
                name.to_str()
                    .and_then(|name| RotatedLog::parse(&self.name, name)),
            );
        }
        found.sort();
        Ok(found)
    }

    fn path_of(&self, log: &RotatedLog) -> PathBuf {
        self.directory.join(log.file_name(&self.name))
    }

    fn remove(&self, log: &RotatedLog) -> io::Result<()> {
        match fs::remove_file(self.path_of(log)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Written {
    Whole,
    InPart,
}

fn write_compressed(
    mut source: &File,
    target: &Path,
    stop: &CancellationToken,
) -> io::Result<Written> {
    let found = source.metadata()?;
    let target = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(found.mode() & 0o777)
        .open(target)?;
    // Logs compress well at any level; this one costs the least.
    let mut encoder = GzEncoder::new(target, Compression::fast());
    let mut block = vec![0; BLOCK];
    loop {
        if stop.is_cancelled() {
            return Ok(Written::InPart);
        }
        match source.read(&mut block)? {
            0 => break,
            count => encoder.write_all(&block[..count])?,
        }
    }
    // By this readers know that it is the same log.
    encoder.finish()?.set_modified(found.modified()?)?;
    Ok(Written::Whole)
}

fn move_unless_there(from: &Path, to: &Path) -> io::Result<()> {
    renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE)?;
    Ok(())
}
