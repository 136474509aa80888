//! Reads manifest files and remembers what each one last said.
//!
//! Blocking file work; the caller runs it off the async threads. A file whose
//! `stat` did not change is not opened, and one whose bytes did not change is
//! not parsed.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use sha2::{Digest, Sha256};

use super::compile::{self, Compiled, What};
use super::data::DataByName;
use super::decode::Finding;
use super::problem::{Effect, MAX_MANIFEST_BYTES, ManifestProblem, Reason};
use super::{Kinds, ManifestSnapshot};
use crate::apiserver::ObjectName;
use crate::pod::annotation::CONFIG_SEEN;
use crate::pod::{DesiredPod, PodName, PodUid};
use crate::proxy::model::ServiceName;

#[cfg(test)]
mod tests;

/// File times tick in steps of the kernel's timer. A file changed this recently
/// may change again without its times showing it, so it is read once more.
const TIMESTAMP_SLACK: Duration = Duration::from_secs(1);

/// What a scan has to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope {
    /// Everything there is.
    All,
    /// The files of these names.
    Files(BTreeMap<OsString, Writing>),
}

/// Whether whoever writes a file is known to have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Writing {
    /// Perhaps half-written: errors prove nothing yet.
    Unknown,
    Finished,
}

/// The manifests under one path.
#[derive(Debug)]
pub(super) struct Scanner {
    /// A directory or a file; absolute.
    path: PathBuf,
    kinds: Kinds,
    node_name: String,
    files: BTreeMap<PathBuf, FileState>,
    /// Why the path itself cannot be listed.
    path_problem: Option<ManifestProblem>,
    synced: bool,
}

#[derive(Debug, Default)]
struct FileState {
    /// As of the last read; `None` forces the next one.
    stamp: Option<Stamp>,
    digest: Option<[u8; 32]>,
    /// The newest version that could be used.
    good: Option<What>,
    /// About the newest version, used or not.
    findings: Vec<Finding>,
    /// Whether the newest version is `good`.
    usable: bool,
}

/// Two equal stamps mean the same content, [`TIMESTAMP_SLACK`] aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

enum PathKind {
    Directory,
    File,
    Absent,
}

enum Content {
    /// Same stamp as before.
    Unchanged,
    Read {
        bytes: Vec<u8>,
        stamp: Option<Stamp>,
    },
    Bad(Reason),
    /// No such file, or a directory.
    Gone,
}

impl Scanner {
    pub(super) fn new(path: PathBuf, kinds: Kinds, node_name: String) -> Self {
        Self {
            path,
            kinds,
            node_name,
            files: BTreeMap::new(),
            path_problem: None,
            synced: false,
        }
    }

    /// Looks at what `scope` names and answers what all manifests say now.
    pub(super) fn scan(&mut self, scope: &Scope) -> ManifestSnapshot {
        match self.look(scope) {
            Ok(()) => {
                self.path_problem = None;
                self.synced = true;
            }
            // Not knowing is no reason to end pods.
            Err(reason) => {
                self.path_problem = Some(ManifestProblem {
                    path: self.path.clone(),
                    position: None,
                    reason,
                    effect: if self.synced {
                        Effect::PreviousKept
                    } else {
                        Effect::Skipped
                    },
                });
            }
        }
        self.snapshot()
    }

    fn look(&mut self, scope: &Scope) -> Result<(), Reason> {
        match (path_kind(&self.path)?, scope) {
            (PathKind::Directory, Scope::Files(names)) if self.synced => {
                for (name, writing) in names {
                    self.refresh(self.path.join(name), *writing);
                }
            }
            (PathKind::Directory, _) => {
                let paths = list(&self.path)?;
                self.replace(&paths, Writing::Finished);
            }
            (PathKind::File, Scope::All) => self.replace_with_path(Writing::Finished),
            (PathKind::File, Scope::Files(names)) => {
                let name = self.path.file_name();
                let writing = name.and_then(|name| names.get(name).copied());
                self.replace_with_path(writing.unwrap_or(Writing::Finished));
            }
            (PathKind::Absent, _) => self.files.clear(),
        }
        Ok(())
    }

    fn replace_with_path(&mut self, writing: Writing) {
        self.replace(&BTreeSet::from([self.path.clone()]), writing);
    }

    fn replace(&mut self, paths: &BTreeSet<PathBuf>, writing: Writing) {
        self.files.retain(|path, _| paths.contains(path));
        for path in paths {
            self.refresh(path.clone(), writing);
        }
    }

    fn refresh(&mut self, path: PathBuf, writing: Writing) {
        let known = self.files.get(&path);
        match read(&path, known.and_then(|state| state.stamp)) {
            Content::Unchanged => {}
            Content::Gone => {
                self.files.remove(&path);
            }
            Content::Bad(reason) => {
                if writing == Writing::Finished {
                    let state = self.files.entry(path).or_default();
                    state.stamp = None;
                    state.digest = None;
                    state.refuse(vec![Finding {
                        position: None,
                        reason,
                    }]);
                }
            }
            Content::Read { bytes, stamp } => self.take(path, &bytes, stamp, writing),
        }
    }

    fn take(&mut self, path: PathBuf, bytes: &[u8], stamp: Option<Stamp>, writing: Writing) {
        let digest = Sha256::digest(bytes).into();
        if let Some(state) = self.files.get_mut(&path)
            && state.digest == Some(digest)
        {
            state.stamp = stamp;
            return;
        }
        let known = self.files.get(&path).and_then(|state| state.good.as_ref());
        let compiled =
            compile::compile(bytes, self.kinds, &self.node_name, &path, Timestamp::now());
        if compiled.is_err() && writing == Writing::Unknown {
            return;
        }
        let compiled = compiled.map(|compiled| keep_first_sight(compiled, known));
        let state = self.files.entry(path).or_default();
        state.stamp = stamp;
        state.digest = Some(digest);
        match compiled {
            Ok(Compiled { what, warnings }) => {
                state.good = Some(what);
                state.findings = warnings;
                state.usable = true;
            }
            Err(findings) => state.refuse(findings),
        }
    }

    /// What all files say together.
    fn snapshot(&self) -> ManifestSnapshot {
        let mut all = Union::default();
        all.problems.extend(self.path_problem.iter().cloned());
        for (path, state) in &self.files {
            all.problems.extend(state.problems(path));
            let clash = state.good.as_ref().and_then(|what| all.add(path, what));
            all.problems
                .extend(clash.map(|reason| skipped(path, reason)));
        }
        ManifestSnapshot {
            pods: Arc::new(all.pods),
            data: Arc::new(all.data),
            services: Arc::new(all.services),
            problems: Arc::new(all.problems),
            synced: self.synced,
        }
    }
}

/// One pod per name and per UID, one object per name: the first file, by name,
/// wins.
#[derive(Default)]
struct Union<'a> {
    pods: BTreeMap<PodUid, Arc<DesiredPod>>,
    data: DataByName,
    services: BTreeMap<ServiceName, Arc<Service>>,
    problems: Vec<ManifestProblem>,
    /// Whose they are.
    names: BTreeMap<&'a PodName, &'a PathBuf>,
    uids: BTreeMap<&'a PodUid, &'a PathBuf>,
    objects: BTreeMap<&'a ObjectName, &'a PathBuf>,
    service_names: BTreeMap<&'a ServiceName, &'a PathBuf>,
}

impl<'a> Union<'a> {
    /// Takes in what a file says. Answers why not, if another one has said it.
    fn add(&mut self, path: &'a PathBuf, what: &'a What) -> Option<Reason> {
        match what {
            What::Pod(pod) => {
                if let Some(&winner) = self.names.get(&pod.name) {
                    return Some(Reason::DuplicateName {
                        name: pod.name.clone(),
                        winner: winner.clone(),
                    });
                }
                if let Some(&winner) = self.uids.get(&pod.uid) {
                    return Some(Reason::DuplicateUid {
                        uid: pod.uid.clone(),
                        winner: winner.clone(),
                    });
                }
                self.names.insert(&pod.name, path);
                self.uids.insert(&pod.uid, path);
                self.pods.insert(pod.uid.clone(), Arc::clone(pod));
            }
            What::Data(object) => {
                let name = object.name();
                if let Some(&winner) = self.objects.get(name) {
                    return Some(duplicate(&name.name, winner));
                }
                self.objects.insert(name, path);
                self.data.insert(name.clone(), object.clone());
            }
            What::Service(name, service) => {
                if let Some(&winner) = self.service_names.get(name) {
                    return Some(duplicate(&name.name, winner));
                }
                self.service_names.insert(name, path);
                self.services.insert(name.clone(), Arc::clone(service));
            }
        }
        None
    }
}

fn duplicate(name: &str, winner: &Path) -> Reason {
    Reason::DuplicateObject {
        name: name.to_owned(),
        winner: winner.to_owned(),
    }
}

impl FileState {
    /// Keeps what was good: while the file is there, its pod is wanted, and
    /// half an edit must not end it.
    fn refuse(&mut self, findings: Vec<Finding>) {
        self.findings = findings;
        self.usable = false;
    }

    fn problems(&self, path: &Path) -> impl Iterator<Item = ManifestProblem> {
        let effect = match (self.usable, &self.good) {
            (true, _) => Effect::Tolerated,
            (false, Some(_)) => Effect::PreviousKept,
            (false, None) => Effect::Skipped,
        };
        self.findings.iter().map(move |finding| ManifestProblem {
            path: path.to_owned(),
            position: finding.position,
            reason: finding.reason.clone(),
            effect,
        })
    }
}

/// A good file that another one stands in for.
fn skipped(path: &Path, reason: Reason) -> ManifestProblem {
    ManifestProblem {
        path: path.to_owned(),
        position: None,
        reason,
        effect: Effect::Skipped,
    }
}

/// An edit that keeps the UID keeps the pod, and with it the time since when
/// it is known.
fn keep_first_sight(mut compiled: Compiled, known: Option<&What>) -> Compiled {
    let (What::Pod(pod), Some(What::Pod(known))) = (&mut compiled.what, known) else {
        return compiled;
    };
    if known.uid != pod.uid {
        return compiled;
    }
    let annotations = known.pod.metadata.annotations.as_ref();
    if let Some(seen) = annotations.and_then(|annotations| annotations.get(CONFIG_SEEN)) {
        Arc::make_mut(&mut Arc::make_mut(pod).pod)
            .metadata
            .annotations
            .get_or_insert_default()
            .insert(CONFIG_SEEN.to_owned(), seen.clone());
    }
    compiled
}

fn path_kind(path: &Path) -> Result<PathKind, Reason> {
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_dir() => Ok(PathKind::Directory),
        Ok(meta) if meta.is_file() => Ok(PathKind::File),
        Ok(_) => Err(Reason::NotRegular),
        Err(error) if is_absent(&error) => Ok(PathKind::Absent),
        Err(error) => Err(unreadable(&error)),
    }
}

/// Everything in the directory that may be a manifest.
fn list(directory: &Path) -> Result<BTreeSet<PathBuf>, Reason> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if is_absent(&error) => return Ok(BTreeSet::new()),
        entries => entries.map_err(|error| unreadable(&error))?,
    };
    let mut paths = BTreeSet::new();
    for entry in entries {
        let entry = entry.map_err(|error| unreadable(&error))?;
        if !is_hidden(&entry.file_name()) {
            paths.insert(entry.path());
        }
    }
    Ok(paths)
}

/// Dot files belong to editors and to volumes' atomic writers.
pub(super) fn is_hidden(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b".")
}

fn read(path: &Path, known: Option<Stamp>) -> Content {
    let meta = match std::fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) if is_absent(&error) && std::fs::symlink_metadata(path).is_err() => {
            return Content::Gone;
        }
        Err(error) => return Content::Bad(unreadable(&error)),
    };
    if meta.is_dir() {
        return Content::Gone;
    }
    if !meta.is_file() {
        return Content::Bad(Reason::NotRegular);
    }
    if known == Some(Stamp::of(&meta)) {
        return Content::Unchanged;
    }
    match read_regular(path) {
        Ok(content) => content,
        Err(error) if error.kind() == ErrorKind::NotFound => Content::Gone,
        Err(error) => Content::Bad(unreadable(&error)),
    }
}

fn read_regular(path: &Path) -> io::Result<Content> {
    // Non-blocking, because the name may be a FIFO's by now.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    let before = file.metadata()?;
    if !before.is_file() {
        return Ok(Content::Bad(Reason::NotRegular));
    }
    if before.len() > MAX_MANIFEST_BYTES {
        return Ok(Content::Bad(Reason::TooLarge));
    }
    let mut bytes = Vec::new();
    Read::by_ref(&mut Read::take(&file, MAX_MANIFEST_BYTES + 1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_MANIFEST_BYTES {
        return Ok(Content::Bad(Reason::TooLarge));
    }
    let stamp = settled_stamp(&file, Stamp::of(&before))?;
    Ok(Content::Read { bytes, stamp })
}

/// The stamp of what was just read, if it can be relied upon.
fn settled_stamp(file: &File, before: Stamp) -> io::Result<Option<Stamp>> {
    let after = file.metadata()?;
    let age = SystemTime::now().duration_since(after.modified()?);
    let settled = Stamp::of(&after) == before && age.is_ok_and(|age| age > TIMESTAMP_SLACK);
    Ok(settled.then_some(before))
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn unreadable(error: &io::Error) -> Reason {
    Reason::Unreadable(error.to_string())
}
