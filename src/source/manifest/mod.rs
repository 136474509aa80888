//! Static pods: a directory of manifests, or a single one, as a source.
//!
//! In: files. Out: `watch<ManifestSnapshot>`, the pods that the files describe
//! and everything that is wrong with them.
//!
//! Changes are picked up at once through inotify ([`notify`]); a slow rescan
//! audits it and costs one `stat` per file. Only regular files (or links to
//! them) directly in the directory count; names that begin with a dot do not.
//!
//! A file that turns bad keeps its last good pod for as long as the file
//! exists, and the problem says so. Upstream removes or keeps such a pod
//! depending on how it noticed; ending a running pod because an editor saved
//! half a file helps nobody. A path that does not exist means "no pods"; one
//! that cannot be read means "not known", which keeps what is there.
//!
//! | file | what it does |
//! |---|---|
//! | [`notify`] | which names changed |
//! | [`scan`] | reads them, remembers the last good version of each |
//! | [`data`] | ConfigMaps and Secrets, where they are taken |
//! | [`compile`] | bytes → pod: [`decode`], [`identity`], defaults, validation |
//! | [`problem`] | what can be wrong |

mod compile;
pub mod data;
mod decode;
pub mod identity;
mod notify;
mod problem;
mod scan;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use self::data::DataByName;
use self::notify::{Armed, Listener, Shape};
use self::scan::{Scanner, Scope};
use crate::error::chain;
use crate::pod::{DesiredPod, PodUid};
use crate::proxy::model::ServiceName;

pub use problem::{Effect, MAX_MANIFEST_BYTES, ManifestProblem, Position, Reason};

#[cfg(test)]
mod tests;

/// What may be in the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kinds {
    /// Pods, which may name no objects of the API.
    Pods,
    /// Pods, the ConfigMaps and Secrets that they name, and the Services in
    /// front of them: for a node without an API server.
    PodsAndData,
}

/// Settings of the manifest source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestConfig {
    /// `staticPodPath`; `None`: there are no static pods.
    pub path: Option<PathBuf>,
    pub node_name: String,
    pub kinds: Kinds,
    /// `fileCheckFrequency`: how often everything is looked at again.
    pub rescan_every: Duration,
}

/// What all manifests say at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ManifestSnapshot {
    pub pods: Arc<BTreeMap<PodUid, Arc<DesiredPod>>>,
    /// ConfigMaps and Secrets.
    pub data: Arc<DataByName>,
    /// As written, but for the namespace, which is filled in.
    pub services: Arc<BTreeMap<ServiceName, Arc<Service>>>,
    /// In the order of the files.
    pub problems: Arc<Vec<ManifestProblem>>,
    /// True once the path was read, or found not to exist.
    pub synced: bool,
}

/// The task that reads manifests.
#[derive(Debug)]
pub struct ManifestSource {
    config: ManifestConfig,
    out: watch::Sender<ManifestSnapshot>,
}

impl ManifestSource {
    /// Makes the source; it reads nothing before [`run`](Self::run).
    #[must_use]
    pub fn new(config: ManifestConfig) -> (Self, watch::Receiver<ManifestSnapshot>) {
        let (out, snapshots) = watch::channel(ManifestSnapshot {
            // Without a path there is nothing to wait for.
            synced: config.path.is_none(),
            ..ManifestSnapshot::default()
        });
        (Self { config, out }, snapshots)
    }

    /// Keeps the snapshot current until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        match self.config.path.clone() {
            Some(path) => {
                shutdown.run_until_cancelled(self.follow(&path)).await;
            }
            None => shutdown.cancelled().await,
        }
    }

    async fn follow(self, path: &Path) {
        // A path that cannot be made absolute is watched as it is.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let mut scanner = Scanner::new(
            path.clone(),
            self.config.kinds,
            self.config.node_name.clone(),
        );
        let mut ears = Ears::Deaf { reported: false };
        let mut rescan = tokio::time::interval(self.config.rescan_every);
        rescan.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // An interval's first tick is at once: the first scan.
        rescan.tick().await;
        let mut scope = Scope::All;
        loop {
            let pass = Pass {
                path: path.clone(),
                scanner,
                scope,
                watched: ears.shape(),
            };
            let Some(done) = pass.run_off_thread().await else {
                return;
            };
            scanner = done.scanner;
            if let Some(armed) = done.armed {
                ears = ears.replaced(armed);
            }
            self.publish(done.snapshot);
            scope = tokio::select! {
                heard = ears.next() => heard,
                _ = rescan.tick() => Scope::All,
            };
        }
    }

    fn publish(&self, snapshot: ManifestSnapshot) {
        self.out.send_if_modified(|current| {
            if *current == snapshot {
                return false;
            }
            report(current, &snapshot);
            *current = snapshot;
            true
        });
    }
}

/// One round of blocking work: watches first, then a scan, so that nothing
/// falls between the two.
struct Pass {
    path: PathBuf,
    scanner: Scanner,
    scope: Scope,
    watched: Option<Shape>,
}

struct PassResult {
    scanner: Scanner,
    snapshot: ManifestSnapshot,
    /// New watches, if the old ones do not fit any more.
    armed: Option<io::Result<Armed>>,
}

impl Pass {
    fn run(mut self) -> PassResult {
        let mut scope = self.scope;
        let armed = if self.watched.as_ref() == Some(&Shape::of(&self.path)) {
            None
        } else {
            scope = Scope::All;
            Some(Armed::new(&self.path))
        };
        let snapshot = self.scanner.scan(&scope);
        PassResult {
            scanner: self.scanner,
            snapshot,
            armed,
        }
    }

    /// `None` when the runtime is shutting down.
    async fn run_off_thread(self) -> Option<PassResult> {
        match tokio::task::spawn_blocking(|| self.run()).await {
            Ok(result) => Some(result),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => None,
            },
        }
    }
}

/// Whether changes are heard of.
enum Ears {
    Open(Listener),
    /// inotify does not work; the rescan has to do, and tries it again.
    Deaf {
        reported: bool,
    },
}

impl Ears {
    fn shape(&self) -> Option<Shape> {
        match self {
            Self::Open(listener) => Some(listener.shape().clone()),
            Self::Deaf { .. } => None,
        }
    }

    fn replaced(self, armed: io::Result<Armed>) -> Self {
        match armed.and_then(Armed::listen) {
            Ok(listener) => Self::Open(listener),
            Err(error) => self.deafened(&error),
        }
    }

    fn deafened(&self, error: &io::Error) -> Self {
        if !matches!(self, Self::Deaf { reported: true }) {
            tracing::warn!(error = %chain(error),
                "cannot watch the manifest path; changes are found by rescanning only");
        }
        Self::Deaf { reported: true }
    }

    /// What changed. Never, when deaf.
    async fn next(&mut self) -> Scope {
        if let Self::Open(listener) = self {
            match listener.next().await {
                Ok(scope) => return scope,
                Err(error) => *self = self.deafened(&error),
            }
        }
        std::future::pending().await
    }
}

/// Logs what differs; what was reported before is not repeated.
fn report(old: &ManifestSnapshot, new: &ManifestSnapshot) {
    for problem in new.problems.iter() {
        if !old.problems.contains(problem) {
            tracing::warn!(%problem, "manifest problem");
        }
    }
    for (uid, pod) in new.pods.iter() {
        if !old.pods.contains_key(uid) {
            tracing::info!(pod = %pod.name, %uid, origin = ?pod.origin, "static pod wanted");
        }
    }
    for (uid, pod) in old.pods.iter() {
        if !new.pods.contains_key(uid) {
            tracing::info!(pod = %pod.name, %uid, origin = ?pod.origin,
                "static pod no longer wanted");
        }
    }
    if new.synced && !old.synced {
        tracing::info!(
            pods = new.pods.len(),
            problems = new.problems.len(),
            "manifests read"
        );
    }
}
