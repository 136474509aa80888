//! The files that one life of a container wrote its log to, in order: what
//! rotation put aside, then the live one. Blocking.
//!
//! A reader that is at the end of a file asks for the next ([`LogFiles::next`]).
//! Rotation may have gone on by several files since the reader's was opened, and
//! may have compressed or removed it; the reader goes on with the first file that
//! is younger than its own, so nothing is lost or doubled as long as it is there.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use flate2::read::MultiGzDecoder;

use crate::runtime::{Form, RotatedLog, Stamp};
use crate::server::api::rooted::{Links, Root};

#[cfg(test)]
mod tests;

/// How often the live file is opened anew because it was rotated meanwhile.
const ATTEMPTS: usize = 16;

/// Where the files are.
#[derive(Debug, Clone)]
pub(super) struct LogFiles {
    root: Root,
    /// Below the root.
    directory: PathBuf,
    /// Of the live file: `3.log`.
    name: String,
}

/// A file that is being read.
#[derive(Debug)]
pub(super) struct OpenLog {
    source: Source,
    place: Place,
}

#[derive(Debug)]
enum Source {
    Plain(File),
    Compressed(Box<MultiGzDecoder<File>>),
}

/// Where in the order of files one is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// It was the live file when it was opened; all rotated files up to this one
    /// are older.
    After(Option<Stamp>),
    Rotated(Stamp),
}

impl LogFiles {
    /// `directory` is below `root`.
    pub(super) fn new(root: Root, directory: PathBuf, name: String) -> Self {
        Self {
            root,
            directory,
            name,
        }
    }

    /// The directory, for whoever watches it.
    pub(super) fn directory(&self) -> PathBuf {
        self.root.path().join(&self.directory)
    }

    /// Opens the file that the runtime writes to. For a moment of a rotation that
    /// is the newest that was put aside, and there is no live one.
    pub(super) fn open_newest(&self) -> io::Result<OpenLog> {
        match self.open_live() {
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => {
                let newest = self.rotated().ok().and_then(|mut rotated| rotated.pop());
                newest.map_or(Err(missing), |newest| self.open_rotated(&newest))
            }
            opened => opened,
        }
    }

    /// Opens the live file.
    fn open_live(&self) -> io::Result<OpenLog> {
        let file = self.open(&self.name)?;
        let id = id_of(&file)?;
        // It may have been rotated since: then it is not older than itself.
        let rotated = self.rotated()?;
        let is_it = |log: &&RotatedLog| self.id_of(log).is_some_and(|other| other == id);
        let place = match rotated.iter().rev().find(is_it) {
            Some(itself) => Place::Rotated(itself.stamp.clone()),
            None => Place::After(rotated.last().map(|log| log.stamp.clone())),
        };
        Ok(OpenLog {
            source: Source::Plain(file),
            place,
        })
    }

    /// Whether `log` is the file that is written to.
    pub(super) fn is_live(&self, log: &OpenLog) -> io::Result<bool> {
        let (Source::Plain(file), Place::After(_)) = (&log.source, &log.place) else {
            return Ok(false);
        };
        let path = self.directory().join(&self.name);
        match std::fs::symlink_metadata(path) {
            Ok(live) => Ok((live.dev(), live.ino()) == id_of(file)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The file after `log`, if there is one yet.
    pub(super) fn next(&self, log: &OpenLog) -> io::Result<Option<OpenLog>> {
        for _ in 0..ATTEMPTS {
            let rotated = self.rotated()?;
            if let Some(next) = self.first_after(log, &rotated)? {
                match self.open_rotated(next) {
                    // Compressed or removed just now.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    opened => return opened.map(Some),
                }
            }
            let live = match self.open_live() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                opened => opened?,
            };
            if same_file(&live, log)? {
                return Ok(None);
            }
            // Only if nothing was rotated meanwhile is it the one that follows.
            if live.place == Place::After(rotated.last().map(|log| log.stamp.clone())) {
                return Ok(Some(live));
            }
        }
        Err(io::Error::other(
            "the log is rotated faster than it is read",
        ))
    }

    /// The oldest rotated file that is younger than `log`.
    fn first_after<'a>(
        &self,
        log: &OpenLog,
        rotated: &'a [RotatedLog],
    ) -> io::Result<Option<&'a RotatedLog>> {
        let after = |stamp: Option<&Stamp>| {
            let is_younger = move |log: &&RotatedLog| stamp.is_none_or(|stamp| log.stamp > *stamp);
            rotated.iter().find(is_younger)
        };
        match &log.place {
            Place::Rotated(stamp) => Ok(after(Some(stamp))),
            Place::After(newest) => match after(newest.as_ref()) {
                // The first since then is the file itself, unless it is gone.
                Some(first) if self.is_made_of(first, log)? => Ok(after(Some(&first.stamp))),
                first => Ok(first),
            },
        }
    }

    /// Whether a rotated file is the one that is open. Compression makes a new
    /// file and keeps the time of the last change.
    fn is_made_of(&self, rotated: &RotatedLog, log: &OpenLog) -> io::Result<bool> {
        let Source::Plain(open) = &log.source else {
            return Ok(false);
        };
        let path = self.directory().join(rotated.file_name(&self.name));
        let (open, there) = (open.metadata()?, std::fs::symlink_metadata(path));
        Ok(there.is_ok_and(|there| match rotated.form {
            Form::Plain => (there.dev(), there.ino()) == (open.dev(), open.ino()),
            Form::Compressed | Form::Temporary => {
                (there.mtime(), there.mtime_nsec()) == (open.mtime(), open.mtime_nsec())
            }
        }))
    }

    fn open_rotated(&self, rotated: &RotatedLog) -> io::Result<OpenLog> {
        let file = self.open(&rotated.file_name(&self.name))?;
        let source = match rotated.form {
            Form::Plain => Source::Plain(file),
            Form::Compressed | Form::Temporary => {
                Source::Compressed(Box::new(MultiGzDecoder::new(file)))
            }
        };
        Ok(OpenLog {
            source,
            place: Place::Rotated(rotated.stamp.clone()),
        })
    }

    /// Oldest first; of a file that is there in two forms, the plain one.
    fn rotated(&self) -> io::Result<Vec<RotatedLog>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(self.directory())? {
            let name = entry?.file_name();
            let parsed = name
                .to_str()
                .and_then(|name| RotatedLog::parse(&self.name, name));
            found.extend(parsed.filter(|log| log.form != Form::Temporary));
        }
        found.sort();
        found.dedup_by(|later, earlier| later.stamp == earlier.stamp);
        Ok(found)
    }

    fn open(&self, name: &str) -> io::Result<File> {
        let file = self.root.open(&self.directory.join(name), Links::Refused)?;
        if file.metadata()?.is_file() {
            Ok(file)
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file"))
        }
    }

    fn id_of(&self, rotated: &RotatedLog) -> Option<(u64, u64)> {
        let path = self.directory().join(rotated.file_name(&self.name));
        let found = std::fs::symlink_metadata(path).ok()?;
        Some((found.dev(), found.ino()))
    }
}

impl OpenLog {
    /// Whether rotation had put it aside when it was opened.
    pub(super) fn is_put_aside(&self) -> bool {
        matches!(self.place, Place::Rotated(_))
    }

    pub(super) fn read(&mut self, block: &mut [u8]) -> io::Result<usize> {
        match &mut self.source {
            Source::Plain(file) => file.read(block),
            Source::Compressed(decoder) => decoder.read(block),
        }
    }

    /// Bytes that are written by now.
    pub(super) fn length(&self) -> io::Result<u64> {
        match &self.source {
            Source::Plain(file) => Ok(file.metadata()?.len()),
            Source::Compressed(_) => Ok(u64::MAX),
        }
    }

    /// Moves to the beginning of the last `entries` entries that are complete.
    /// Gives the place.
    pub(super) fn seek_tail(&mut self, entries: u64) -> io::Result<u64> {
        match &mut self.source {
            Source::Plain(file) => {
                let start = tail_start(file, entries)?;
                file.seek(SeekFrom::Start(start))
            }
            Source::Compressed(_) => Ok(0),
        }
    }
}

/// Where the last `entries` lines begin. Reads blocks from the end, so the cost
/// is that of the tail.
fn tail_start(file: &mut (impl Read + Seek), entries: u64) -> io::Result<u64> {
    const BLOCK: u64 = 64 << 10;
    let mut block = vec![0; 64 << 10];
    let mut end = file.seek(SeekFrom::End(0))?;
    let mut line_feeds = 0;
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(start))?;
        let length = usize::try_from(end - start).unwrap_or(block.len());
        let block = &mut block[..length];
        file.read_exact(block)?;
        for at in memchr::memrchr_iter(b'\n', block) {
            line_feeds += 1;
            // The one before the first line that is wanted.
            if line_feeds > entries {
                return Ok(start + at as u64 + 1);
            }
        }
        end = start;
    }
    Ok(0)
}

fn id_of(file: &File) -> io::Result<(u64, u64)> {
    let found = file.metadata()?;
    Ok((found.dev(), found.ino()))
}

fn same_file(one: &OpenLog, other: &OpenLog) -> io::Result<bool> {
    match (&one.source, &other.source) {
        (Source::Plain(one), Source::Plain(other)) => Ok(id_of(one)? == id_of(other)?),
        _ => Ok(false),
    }
}
