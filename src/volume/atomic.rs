//! The atomic writer: a volume's files change all at once or not at all.
//!
//! In: a directory and its wanted contents. Out: the directory, in upstream's
//! form:
//!
//! ```text
//! ..2026_01_31_08_00_00.1234567890/   the files themselves
//! ..data -> ..2026_01_31_08_00_00.1234567890
//! token -> ..data/token               one link per name at the top
//! ```
//!
//! New contents are written beside the old and shown by renaming a new `..data`
//! over the old one. A crash at any point leaves the old contents or the new;
//! what else it leaves, the next [`write()`] removes. The volume must be one that
//! only the agent writes to.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, fchown, symlink};
use std::path::Path;

use jiff::Timestamp;
use walkdir::WalkDir;

use super::path::RelativePath;
use super::payload::{File, Payload};
use super::remove::remove_tree;

/// The link to the directory whose contents are shown.
const DATA: &str = "..data";
/// The link that becomes [`DATA`].
const NEXT_DATA: &str = "..data_tmp";

/// What a write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// The contents were there already.
    Unchanged,
    Replaced,
}

/// Whether contents were ever shown in this directory, and are still there.
pub(super) fn is_populated(volume: &Path) -> bool {
    volume.join(DATA).is_dir()
}

/// Makes the payload the contents of `volume`. `own` is called when all files
/// are in place but not yet shown, to settle who may read them.
pub(super) fn write(
    volume: &Path,
    payload: &Payload,
    now: Timestamp,
    own: impl FnOnce() -> io::Result<()>,
) -> io::Result<Written> {
    let shown = shown_directory(volume)?;
    if let Some(shown) = &shown
        && holds_exactly(&volume.join(shown), payload)?
    {
        tidy(volume, payload, shown)?;
        return Ok(Written::Unchanged);
    }
    let staged = directory_name(now);
    let result = stage(&volume.join(&staged), payload)
        .and_then(|()| own())
        .and_then(|()| show(volume, &staged));
    if let Err(error) = result {
        // A disk that is full now should get its blocks back. What cannot be
        // removed is not shown, and the next write tries again.
        remove_tree(volume, &staged).ok();
        return Err(error);
    }
    tidy(volume, payload, &staged)?;
    Ok(Written::Replaced)
}

/// The name that `..data` points to; `None` if it points to nothing usable.
fn shown_directory(volume: &Path) -> io::Result<Option<OsString>> {
    let target = match fs::read_link(volume.join(DATA)) {
        Ok(target) => target.into_os_string(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let is_ours = target.as_bytes().starts_with(b"..")
        && !target.as_bytes().contains(&b'/')
        && fs::symlink_metadata(volume.join(&target)).is_ok_and(|meta| meta.is_dir());
    Ok(is_ours.then_some(target))
}

/// Whether a data directory has just the payload's files with their bytes.
fn holds_exactly(directory: &Path, payload: &Payload) -> io::Result<bool> {
    let files = payload.iter().map(|(path, file)| (path.as_path(), file));
    let wanted: BTreeMap<&Path, &File> = files.collect();
    let mut found = 0;
    for entry in WalkDir::new(directory).min_depth(1) {
        let entry = entry?;
        if entry.file_type().is_dir() {
            continue;
        }
        found += 1;
        let relative = entry.path().strip_prefix(directory).unwrap_or(entry.path());
        let file = wanted.get(relative);
        let Some(file) = file.filter(|_| entry.file_type().is_file()) else {
            return Ok(false);
        };
        let size = entry.metadata()?.len();
        if size != file.bytes.len() as u64 || fs::read(entry.path())? != file.bytes {
            return Ok(false);
        }
    }
    Ok(found == wanted.len())
}

/// `..2026_01_31_08_00_00.<random>`
fn directory_name(now: Timestamp) -> OsString {
    let random: u32 = rand::random();
    let time = now.strftime("..%Y_%m_%d_%H_%M_%S");
    format!("{time}.{random:010}").into()
}

/// Writes all files into a new directory.
fn stage(directory: &Path, payload: &Payload) -> io::Result<()> {
    fs::create_dir(directory)?;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
    for (path, file) in payload {
        let path = directory.join(path.as_path());
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        write_file(&path, file)?;
    }
    Ok(())
}

fn write_file(path: &Path, file: &File) -> io::Result<()> {
    let mut handle = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    handle.write_all(&file.bytes)?;
    if file.owner.is_some() {
        fchown(&handle, file.owner, None)?;
    }
    // Explicitly, so that the umask has no say.
    handle.set_permissions(fs::Permissions::from_mode(file.mode))
}

/// The one step that readers see.
fn show(volume: &Path, staged: &OsStr) -> io::Result<()> {
    let next = volume.join(NEXT_DATA);
    remove_if_present(&next)?;
    symlink(staged, &next)?;
    fs::rename(next, volume.join(DATA))
}

/// Brings everything else in line with what is shown: a link for each name at
/// the top, none for names that are gone, no other data directory.
fn tidy(volume: &Path, payload: &Payload, shown: &OsStr) -> io::Result<()> {
    let wanted: BTreeSet<&OsStr> = payload.keys().map(RelativePath::top).collect();
    for name in &wanted {
        let link = volume.join(name);
        let target = Path::new(DATA).join(name);
        if fs::read_link(&link).is_ok_and(|found| found == target) {
            continue;
        }
        remove_if_present(&link)?;
        symlink(target, &link)?;
    }
    for entry in fs::read_dir(volume)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == DATA || name == shown || wanted.contains(name.as_os_str()) {
            continue;
        }
        if name.as_bytes().starts_with(b"..") {
            remove_tree(volume, &name)?;
        } else if fs::read_link(entry.path()).is_ok_and(|target| target.starts_with(DATA)) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn remove_if_present(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests;
