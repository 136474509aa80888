//! The loop: looks at the logs of running containers when it is time to.
//!
//! Which containers run comes from the observer, so nothing is asked of the
//! runtime but to open rotated logs anew. Rotations run side by side, as one
//! that hangs must not let another log grow; compressions wait for each other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, FuturesUnordered, SelectAll};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::LogRotationSettings;
use super::files::{ContainerLog, Leftovers};
use super::names::RotatedLog;
use super::plan::{Look, Policy, Verdict, may_compress};
use crate::error::chain;
use crate::pod::{ContainerId, ContainerState, ObservedPod, PodUid};
use crate::runtime::{KnownPods, Observer, RuntimeError};

#[cfg(test)]
mod tests;

/// What rotation asks of the runtime.
#[async_trait]
pub(in crate::runtime) trait ReopenLog: Send + Sync {
    /// Makes it write to the file that has the log's name now, or to a new one.
    async fn reopen_log(&self, id: &ContainerId) -> Result<(), RuntimeError>;
}

/// Rotates logs; to be run.
pub struct LogRotationTask {
    settings: LogRotationSettings,
    observer: Arc<dyn Observer>,
    runtime: Arc<dyn ReopenLog>,
}

/// What can go wrong with one log.
#[derive(Debug, thiserror::Error)]
enum RotateError {
    #[error("cannot {step} the log")]
    File {
        step: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("the runtime does not open the log anew")]
    Reopen(#[source] RuntimeError),
}

impl LogRotationTask {
    pub(in crate::runtime) fn new(
        settings: LogRotationSettings,
        observer: Arc<dyn Observer>,
        runtime: Arc<dyn ReopenLog>,
    ) -> Self {
        Self {
            settings,
            observer,
            runtime,
        }
    }

    /// Rotates until shutdown.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut members = self.observer.pods();
        members.mark_changed();
        let mut rotation = Rotation::new(self, shutdown.clone());
        loop {
            let due = tokio::time::sleep_until(rotation.next_due());
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                Some(done) = rotation.work.next(), if !rotation.work.is_empty() => {
                    rotation.done(done);
                }
                Ok(()) = members.changed() => {
                    let known = members.borrow_and_update().clone();
                    rotation.meet(&known);
                }
                Some(pod) = rotation.pods.next(), if !rotation.pods.is_empty() => {
                    rotation.observed(&pod);
                }
                () = due => rotation.look(),
            }
        }
    }
}

/// The state of the loop.
struct Rotation {
    task: LogRotationTask,
    policy: Policy,
    shutdown: CancellationToken,
    /// Whose changes are heard.
    met: BTreeSet<PodUid>,
    pods: SelectAll<BoxStream<'static, Arc<ObservedPod>>>,
    logs: BTreeMap<ContainerId, Log>,
    work: FuturesUnordered<BoxFuture<'static, Done>>,
    /// Parts that wait to be compressed.
    to_compress: VecDeque<(ContainerLog, RotatedLog)>,
    compressing: u32,
}

/// The log of one running container.
struct Log {
    pod: PodUid,
    file: ContainerLog,
    look: Option<Look>,
    next_look: Instant,
    /// Whether something is being done with it.
    busy: bool,
    rotated_at: Option<Instant>,
}

/// A piece of work that ended.
enum Done {
    Looked(Vec<(ContainerId, io::Result<Option<u64>>)>),
    Rotated(ContainerId, Result<(), RotateError>),
    Reopened(ContainerId, Result<(), RotateError>),
    /// The parts of a log that can be compressed.
    Sorted(ContainerLog, io::Result<Vec<RotatedLog>>),
    Compressed(ContainerLog, io::Result<()>),
}

impl Rotation {
    fn new(task: LogRotationTask, shutdown: CancellationToken) -> Self {
        Self {
            policy: Policy {
                max_bytes: task.settings.max_bytes,
                interval: task.settings.interval,
            },
            task,
            shutdown,
            met: BTreeSet::new(),
            pods: SelectAll::new(),
            logs: BTreeMap::new(),
            work: FuturesUnordered::new(),
            to_compress: VecDeque::new(),
            compressing: 0,
        }
    }

    fn next_due(&self) -> Instant {
        let idle = self.logs.values().filter(|log| !log.busy);
        let next = idle.map(|log| log.next_look).min();
        // Nothing to look at: whatever comes wakes the loop.
        next.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600))
    }

    // === which logs there are ===

    fn meet(&mut self, known: &KnownPods) {
        for (uid, name) in known.iter().flat_map(|pods| pods.iter()) {
            if self.met.insert(uid.clone()) {
                let changes = self.task.observer.watch(uid, name);
                self.pods.push(readings(changes).boxed());
            }
        }
    }

    fn observed(&mut self, pod: &ObservedPod) {
        if pod.is_absent() {
            self.met.remove(&pod.uid);
        }
        let running: BTreeSet<_> = pod
            .containers
            .iter()
            .filter(|container| matches!(container.state, ContainerState::Running { .. }))
            .map(|container| &container.id)
            .collect();
        self.logs
            .retain(|id, log| log.pod != pod.uid || running.contains(id));
        for container in &pod.containers {
            if running.contains(&container.id) && !self.logs.contains_key(&container.id) {
                let directory = format!("{}_{}_{}", pod.name.namespace, pod.name.name, pod.uid);
                let file = ContainerLog::new(
                    self.task
                        .settings
                        .directory
                        .join(directory)
                        .join(&container.name),
                    format!("{}.log", container.attempt),
                );
                self.logs
                    .insert(container.id.clone(), Log::new(pod.uid.clone(), file));
            }
        }
    }

    // === looking ===

    /// Looks at the logs whose time has come, and at those whose time nearly has,
    /// so that quiet logs come to be looked at together.
    fn look(&mut self) {
        let now = Instant::now();
        let mut files = Vec::new();
        for (id, log) in &mut self.logs {
            let early = log.look.map_or(Duration::ZERO, |look| look.pause / 8);
            if !log.busy && log.next_look <= now + early {
                log.busy = true;
                files.push((id.clone(), log.file.clone(), log.look.is_none()));
            }
        }
        if files.is_empty() {
            return;
        }
        let keep = self.keep();
        self.spawn_blocking(move || {
            let sizes = files.into_iter().map(|(id, file, is_first)| {
                if is_first {
                    // What is not removed now is removed after the next rotation.
                    let _ = file.prune(keep, Leftovers::Remove);
                }
                (id, file.size())
            });
            Done::Looked(sizes.collect())
        });
    }

    fn looked(&mut self, id: ContainerId, size: io::Result<Option<u64>>) {
        let Some(log) = self.logs.get_mut(&id) else {
            return;
        };
        let now = Instant::now();
        match size {
            Ok(Some(size)) => {
                let (verdict, look) = self.policy.judge(log.look.as_ref(), size, now);
                log.look = Some(look);
                log.next_look = look.next();
                match verdict {
                    Verdict::Rotate => self.rotate(id),
                    Verdict::Leave => log.busy = false,
                }
            }
            Ok(None) => {
                log.next_look = now + self.policy.interval;
                self.reopen(id);
            }
            Err(error) => {
                log.busy = false;
                log.next_look = now + self.policy.interval;
                let path = log.file.path();
                warn!(error = %chain(&error), path = %path.display(), "cannot look at a container's log");
            }
        }
    }

    // === rotating ===

    fn rotate(&mut self, id: ContainerId) {
        let Some(log) = self.logs.get(&id) else {
            return;
        };
        let (file, runtime, keep) = (
            log.file.clone(),
            Arc::clone(&self.task.runtime),
            self.keep(),
        );
        self.work.push(Box::pin(async move {
            let result = rotate(&file, &id, &*runtime, keep).await;
            Done::Rotated(id, result)
        }));
    }

    fn rotated(&mut self, id: &ContainerId, result: Result<(), RotateError>) {
        let Some(log) = self.logs.get_mut(id) else {
            return;
        };
        let now = Instant::now();
        log.busy = false;
        if let Err(error) = result {
            // The log goes on growing under its name; there is nothing to do but
            // to try again.
            warn!(error = %chain(&error), container = %id, "container log is not rotated");
            log.next_look = now + self.policy.interval;
            return;
        }
        log.look = log.look.map(|look| Look {
            at: now,
            ..look.rotated()
        });
        log.next_look = log.look.map_or(now, |look| look.next());
        let apart = log.rotated_at.map(|before| now - before);
        log.rotated_at = Some(now);
        debug!(container = %id, "container log rotated");
        if may_compress(apart) {
            let file = log.file.clone();
            self.spawn_blocking(move || {
                let parts = file.uncompressed();
                Done::Sorted(file, parts)
            });
        }
    }

    /// A log that somebody removed.
    fn reopen(&mut self, id: ContainerId) {
        let runtime = Arc::clone(&self.task.runtime);
        self.work.push(Box::pin(async move {
            let result = runtime.reopen_log(&id).await.map_err(RotateError::Reopen);
            Done::Reopened(id, result)
        }));
    }

    // === compressing ===

    fn compress_next(&mut self) {
        while self.compressing < self.task.settings.workers.get()
            && let Some((file, part)) = self.to_compress.pop_front()
        {
            self.compressing += 1;
            let stop = self.shutdown.clone();
            self.spawn_blocking(move || {
                let result = file.compress(&part, &stop);
                Done::Compressed(file, result)
            });
        }
    }

    // === shared ===

    fn done(&mut self, done: Done) {
        match done {
            Done::Looked(sizes) => {
                for (id, size) in sizes {
                    self.looked(id, size);
                }
            }
            Done::Rotated(id, result) => self.rotated(&id, result),
            Done::Reopened(id, result) => self.reopened(&id, result),
            Done::Sorted(file, Ok(parts)) => {
                for part in parts {
                    let job = (file.clone(), part);
                    if !self.to_compress.contains(&job) {
                        self.to_compress.push_back(job);
                    }
                }
                self.compress_next();
            }
            Done::Sorted(file, Err(error)) => not_compressed(&file, &error),
            Done::Compressed(file, result) => {
                self.compressing -= 1;
                if let Err(error) = result {
                    not_compressed(&file, &error);
                }
                self.compress_next();
            }
        }
    }

    fn reopened(&mut self, id: &ContainerId, result: Result<(), RotateError>) {
        match result {
            Ok(()) => info!(container = %id, "a container's log was missing and is there again"),
            Err(error) => {
                warn!(error = %chain(&error), container = %id, "a container's log is missing");
            }
        }
        if let Some(log) = self.logs.get_mut(id) {
            log.busy = false;
        }
    }

    /// How many rotated parts there may be beside the live log.
    fn keep(&self) -> usize {
        let files = usize::try_from(self.task.settings.max_files).unwrap_or(usize::MAX);
        files.saturating_sub(1).max(1)
    }

    fn spawn_blocking(&self, work: impl FnOnce() -> Done + Send + 'static) {
        let handle = tokio::task::spawn_blocking(work);
        self.work.push(Box::pin(async move {
            match handle.await {
                Ok(done) => done,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    // The process ends, and this task with it.
                    Err(_) => std::future::pending().await,
                },
            }
        }));
    }
}

impl Log {
    fn new(pod: PodUid, file: ContainerLog) -> Self {
        Self {
            pod,
            file,
            look: None,
            next_look: Instant::now(),
            busy: false,
            rotated_at: None,
        }
    }
}

/// Renames, has the runtime go on with a new file, and removes what is too much.
async fn rotate(
    file: &ContainerLog,
    id: &ContainerId,
    runtime: &dyn ReopenLog,
    keep: usize,
) -> Result<(), RotateError> {
    let log = file.clone();
    let aside = blocking("rename", move || log.put_aside(Timestamp::now())).await?;
    if let Err(error) = runtime.reopen_log(id).await {
        let log = file.clone();
        blocking("rename back", move || log.put_back(&aside)).await?;
        return Err(RotateError::Reopen(error));
    }
    let log = file.clone();
    blocking("remove old parts of", move || {
        log.prune(keep, Leftovers::Keep)
    })
    .await
}

async fn blocking<T: Send + 'static>(
    step: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, RotateError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(io::Error::other)
        .flatten()
        .map_err(|source| RotateError::File { step, source })
}

/// A pod's readings until it is gone, beginning with the present one.
fn readings(
    mut changes: watch::Receiver<Arc<ObservedPod>>,
) -> impl futures::Stream<Item = Arc<ObservedPod>> {
    changes.mark_changed();
    futures::stream::unfold(Some(changes), |changes| async move {
        let mut changes = changes?;
        changes.changed().await.ok()?;
        let pod = changes.borrow_and_update().clone();
        let is_gone = pod.is_absent();
        Some((pod, (!is_gone).then_some(changes)))
    })
}

fn not_compressed(file: &ContainerLog, error: &io::Error) {
    let path = file.path();
    warn!(error = %chain(error), path = %path.display(), "rotated log is not compressed");
}
