//! Taking a cgroup away: kill what runs in it, then remove it and everything
//! below. Blocking; called on a thread for blocking work.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use walkdir::WalkDir;

use super::CgroupError;

/// Sends SIGKILL to every process in these trees, and returns who that was.
/// PID 1 and the agent itself are never signalled, whatever the trees say.
pub(super) fn kill_all(trees: &[PathBuf]) -> Result<BTreeSet<i32>, CgroupError> {
    thaw(trees);
    let pids = processes(trees)?;
    for &pid in &pids {
        match kill(Pid::from_raw(pid), Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => {
                tracing::warn!(pid, %errno, "cannot kill a process of a pod that is gone")
            }
        }
    }
    Ok(pids)
}

/// Processes in these trees that may be signalled.
pub(super) fn processes(trees: &[PathBuf]) -> Result<BTreeSet<i32>, CgroupError> {
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let mut pids = BTreeSet::new();
    for directory in directories(trees) {
        let path = directory.join("cgroup.procs");
        match std::fs::read_to_string(&path) {
            // 0 stands for a process of a PID namespace that we cannot see.
            Ok(text) => pids.extend(
                text.lines()
                    .filter_map(|line| line.trim().parse::<i32>().ok())
                    .filter(|&pid| pid > 1 && pid != own),
            ),
            Err(error) if is_gone(&error) => {}
            Err(source) => return Err(file_error("read", path, source)),
        }
    }
    Ok(pids)
}

/// Removes the trees' directories, deepest first. `Ok(false)`: some are in use
/// still.
pub(super) fn remove_trees(trees: &[PathBuf]) -> Result<bool, CgroupError> {
    let mut all_gone = true;
    for directory in directories(trees) {
        match std::fs::remove_dir(&directory) {
            Ok(()) => {}
            Err(error) if is_gone(&error) => {}
            Err(error) if error.kind() == ErrorKind::ResourceBusy => all_gone = false,
            // A child that is busy keeps its parent.
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => all_gone = false,
            Err(source) => return Err(file_error("remove", directory, source)),
        }
    }
    Ok(all_gone)
}

/// On v1 a frozen process does not even die of SIGKILL.
fn thaw(trees: &[PathBuf]) {
    for directory in directories(trees) {
        let path = directory.join("freezer.state");
        let frozen = std::fs::read_to_string(&path).is_ok_and(|state| state.trim() != "THAWED");
        if frozen && let Err(error) = std::fs::write(&path, "THAWED") {
            tracing::warn!(path = %path.display(), %error, "cannot thaw a cgroup");
        }
    }
}

/// All directories of the trees, children before parents. What vanishes
/// meanwhile is left out.
fn directories(trees: &[PathBuf]) -> impl Iterator<Item = PathBuf> {
    trees
        .iter()
        .flat_map(|tree| WalkDir::new(tree).contents_first(true))
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_dir())
        .map(walkdir::DirEntry::into_path)
}

/// A cgroup that is removed while its file is open answers ENODEV.
pub(super) fn is_gone(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(Errno::ENODEV as i32)
}

pub(super) fn file_error(
    action: &'static str,
    path: impl AsRef<Path>,
    source: std::io::Error,
) -> CgroupError {
    CgroupError::File {
        action,
        path: path.as_ref().to_owned(),
        source,
    }
}
