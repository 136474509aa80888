//! Container logs on disk: directories, the links for log shippers, and their
//! removal.
//!
//! The runtime writes the logs; log shippers and `kubectl logs` expect them at
//! `<pod logs dir>/<namespace>_<pod>_<uid>/<container>/<attempt>.log`, with a
//! link to each in the links directory. Nothing outside these two directories
//! is ever removed, whatever the runtime says a log's path is.

use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use tokio::fs;

use super::RuntimeError;
use crate::pod::{PodName, PodUid};

#[cfg(test)]
mod tests;

/// Log directories can be entered by log shippers that are not root.
const DIRECTORY_MODE: u32 = 0o755;

/// The longest file name, and so the longest link name, that file systems take.
const NAME_BYTES: usize = 255;

/// The log directories of this node.
#[derive(Debug, Clone)]
pub(super) struct Logs {
    pods: PathBuf,
    links: PathBuf,
}

/// One container's log: where it is, and the link to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LogFile {
    pub(super) path: PathBuf,
    pub(super) link: PathBuf,
}

impl Logs {
    pub(super) fn new(pods: PathBuf, links: PathBuf) -> Self {
        Self { pods, links }
    }

    /// Makes a directory for logs, with its parents.
    pub(super) async fn make_directory(&self, path: &Path) -> Result<(), RuntimeError> {
        let make = async {
            fs::create_dir_all(path).await?;
            // Whatever the umask made of it.
            fs::set_permissions(path, std::fs::Permissions::from_mode(DIRECTORY_MODE)).await
        };
        make.await.map_err(|source| failed(path, source))
    }

    /// The log of a container, if its path is one that we may touch.
    pub(super) fn log_file(
        &self,
        path: &str,
        pod: &PodName,
        container: &str,
        id: &str,
    ) -> Option<LogFile> {
        let path = PathBuf::from(path);
        is_below(&path, &self.pods).then(|| LogFile {
            path,
            link: self.links.join(link_name(pod, container, id)),
        })
    }

    /// Points the log's link at it.
    pub(super) async fn link(&self, log: &LogFile) -> Result<(), RuntimeError> {
        let make = async {
            fs::create_dir_all(&self.links).await?;
            match fs::symlink(&log.path, &log.link).await {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                other => other,
            }
        };
        make.await.map_err(|source| failed(&log.link, source))
    }

    /// Removes a log, its rotated parts and its link.
    pub(super) async fn remove(&self, log: &LogFile) -> Result<(), RuntimeError> {
        for path in log_parts(&log.path)
            .await
            .into_iter()
            .chain([log.link.clone()])
        {
            missing_is_done(fs::remove_file(&path).await)
                .map_err(|source| failed(&path, source))?;
        }
        Ok(())
    }

    /// Removes all logs of a pod.
    pub(super) async fn remove_pod(&self, uid: &PodUid, pod: &PodName) -> Result<(), RuntimeError> {
        let path = self.pod_directory(uid, pod).ok_or_else(|| {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "not a directory name");
            failed(&self.pods, source)
        })?;
        self.remove_dangling_links(&path).await;
        // A symbolic link in its place is removed, not followed.
        missing_is_done(fs::remove_dir_all(&path).await).map_err(|source| failed(&path, source))
    }

    /// The highest attempt that log files of the container tell of.
    pub(super) async fn last_attempt(
        &self,
        uid: &PodUid,
        pod: &PodName,
        container: &str,
    ) -> Option<u32> {
        let directory = self.pod_directory(uid, pod)?.join(plain(container)?);
        names_in(&directory)
            .await
            .iter()
            .filter_map(|name| logged_attempt(name.to_str()?))
            .max()
    }

    fn pod_directory(&self, uid: &PodUid, pod: &PodName) -> Option<PathBuf> {
        let name = format!("{}_{}_{uid}", pod.namespace, pod.name);
        Some(self.pods.join(plain(&name)?))
    }

    /// Links of containers that the runtime lost stay behind otherwise.
    async fn remove_dangling_links(&self, pod_directory: &Path) {
        for name in names_in(&self.links).await {
            let link = self.links.join(name);
            let target = fs::read_link(&link).await;
            if target.is_ok_and(|target| target.starts_with(pod_directory)) {
                // What cannot be removed now is no worse than before.
                let _ = fs::remove_file(&link).await;
            }
        }
    }
}

/// The log itself and what rotation made of it: `0.log.20260102-030405.gz`.
async fn log_parts(log: &Path) -> Vec<PathBuf> {
    let (Some(directory), Some(name)) = (log.parent(), log.file_name().and_then(OsStr::to_str))
    else {
        return Vec::new();
    };
    let rotated = format!("{name}.");
    names_in(directory)
        .await
        .into_iter()
        .filter(|file| {
            file.to_str()
                .is_some_and(|file| file == name || file.starts_with(&rotated))
        })
        .map(|file| directory.join(file))
        .collect()
}

/// Names in a directory; none if it cannot be read.
async fn names_in(directory: &Path) -> Vec<std::ffi::OsString> {
    let mut names = Vec::new();
    if let Ok(mut entries) = fs::read_dir(directory).await {
        while let Ok(Some(entry)) = entries.next_entry().await {
            names.push(entry.file_name());
        }
    }
    names
}

/// `<pod>_<namespace>_<container>-<id>.log`, cut before the suffix.
fn link_name(pod: &PodName, container: &str, id: &str) -> String {
    const SUFFIX: &str = ".log";
    let mut name = format!("{}_{}_{container}-{id}", pod.name, pod.namespace);
    let limit = NAME_BYTES - SUFFIX.len();
    if name.len() > limit {
        name.truncate(name.floor_char_boundary(limit));
    }
    name + SUFFIX
}

/// `3` for `3.log` and for `3.log.20260102-030405`.
fn logged_attempt(file: &str) -> Option<u32> {
    let (attempt, rest) = file.split_once(".log")?;
    (rest.is_empty() || rest.starts_with('.'))
        .then(|| attempt.parse().ok())
        .flatten()
}

/// A name that stays one component of a path.
fn plain(name: &str) -> Option<&str> {
    let mut components = Path::new(name).components();
    let only = components.next();
    (only == Some(Component::Normal(OsStr::new(name))) && components.next().is_none())
        .then_some(name)
}

fn is_below(path: &Path, directory: &Path) -> bool {
    path.strip_prefix(directory).is_ok_and(|rest| {
        let mut components = rest.components();
        !rest.as_os_str().is_empty()
            && components.all(|component| matches!(component, Component::Normal(_)))
    })
}

fn missing_is_done(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn failed(path: &Path, source: io::Error) -> RuntimeError {
    RuntimeError::LogDirectory {
        path: path.to_owned(),
        source,
    }
}
