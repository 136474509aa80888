//! The task that keeps the API server's view of our pods true.
//!
//! In: status updates, what the API server holds (pods, our Node), and the
//! desired pods with their mirrors. Out: status patches, final deletions and
//! mirror pods through [`PodStatusPort`]. One call per pod at a time, several
//! pods at once. While the API server cannot be reached, one call at a time
//! asks whether it is back; everything else waits in the [`Ledger`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::ledger::Ledger;
use super::mirror::{self, MirrorStep, mirror_of};
use super::step::{Step, next_step};
use super::view::ViewWriter;
use super::{StatusHandle, StatusUpdate, StatusView};
use crate::apiserver::{ApiError, Backoff, Disposition, NodeFeed, PodFeed, PodStatusPort};
use crate::error::chain;
use crate::pod::{DesiredPods, PodName, PodUid};

/// Calls under way at once: enough that ninety pods that start together do not
/// queue for long, few enough to leave the API rate limit to others.
const CONCURRENCY: usize = 12;
/// Period of the audit that heals what no event told us.
const AUDIT: Duration = Duration::from_secs(60);
/// Time for a mirror that was created or deleted to show in the watch.
const MIRROR_SETTLES: Duration = Duration::from_secs(5);
/// Time that shutdown leaves for what was reported before it.
const FLUSH: Duration = Duration::from_secs(5);

/// What the reporter reads and where it writes.
pub struct ReporterInputs {
    pub updates: StatusHandle,
    pub pods: PodFeed,
    pub node: NodeFeed,
    pub desired: watch::Receiver<DesiredPods>,
    pub port: Arc<dyn PodStatusPort>,
}

/// See the module's text.
pub struct Reporter {
    inputs: ReporterInputs,
    view: ViewWriter,
    ledger: Ledger,
    mirrors: BTreeMap<MirrorKey, MirrorTry>,
    calls: FuturesUnordered<BoxFuture<'static, Done>>,
    outage: Option<Outage>,
    next_audit: Instant,
}

impl std::fmt::Debug for Reporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reporter")
            .field("calls", &self.calls.len())
            .finish_non_exhaustive()
    }
}

/// The API server does not answer; nothing is asked before `until`.
#[derive(Debug)]
struct Outage {
    backoff: Backoff,
    until: Instant,
}

/// A call that has come back.
enum Done {
    Status(PodUid, Result<Landed, ApiError>),
    Mirror(MirrorKey, Result<(), ApiError>),
}

/// What a successful status call has brought.
enum Landed {
    /// A patch, the version it was made for, and the object as it is now.
    Written {
        body: Value,
        onto: Option<String>,
        pod: Box<Pod>,
    },
    Read(Box<Pod>),
    Deleted,
}

/// A mirror step: creation of a name, or deletion of one UID.
type MirrorKey = (PodName, Option<PodUid>);

/// A mirror step that was tried.
#[derive(Debug, Default)]
struct MirrorTry {
    /// `None` while the call is under way.
    not_before: Option<Instant>,
    backoff: Option<Backoff>,
}

impl Reporter {
    /// The task, and a view of the statuses that pass through it.
    #[must_use]
    pub fn new(inputs: ReporterInputs) -> (Self, StatusView) {
        let (writer, view) = ViewWriter::new();
        let reporter = Self {
            inputs,
            view: writer,
            ledger: Ledger::default(),
            mirrors: BTreeMap::new(),
            calls: FuturesUnordered::new(),
            outage: None,
            next_audit: Instant::now() + AUDIT,
        };
        (reporter, view)
    }

    /// Reports until shutdown, then sends once what is left, for at most 5 s.
    /// Workers should have stopped reporting when shutdown is signalled.
    pub async fn run(mut self, shutdown: CancellationToken) {
        self.next_audit = Instant::now() + AUDIT;
        self.observe();
        loop {
            self.launch_statuses();
            self.launch_mirrors();
            let wake = self.next_wake();
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(done) = self.calls.next() => self.land(done),
                updates = self.inputs.updates.take() => self.accept(updates),
                Ok(()) = self.inputs.pods.changed() => {
                    // News from the API server: it is back.
                    if let Some(outage) = &mut self.outage {
                        outage.until = Instant::now();
                    }
                    self.observe();
                }
                Ok(()) = self.inputs.desired.changed() => self.observe(),
                // Mirrors may be created now; the loop's head does it.
                Ok(()) = self.inputs.node.changed() => {}
                () = tokio::time::sleep_until(wake) => self.wake(),
            }
        }
        if tokio::time::timeout(FLUSH, self.flush()).await.is_err() {
            tracing::warn!("not all pod statuses could be sent before shutdown");
        }
    }

    async fn flush(&mut self) {
        let updates = self.inputs.updates.take_now();
        self.accept(updates);
        self.ledger.hurry();
        loop {
            self.launch_statuses();
            match self.calls.next().await {
                Some(done) => self.land(done),
                None => return,
            }
        }
    }

    fn accept(&mut self, updates: BTreeMap<PodUid, StatusUpdate>) {
        let now = Instant::now();
        for (uid, update) in updates {
            self.view.set(uid, update.status.clone());
            self.ledger.put(update, now);
        }
        self.observe();
    }

    /// Tells the ledger what the watches show, and forgets pods that are gone.
    fn observe(&mut self) {
        let pods = self.inputs.pods.borrow_and_update().pods.clone();
        let desired = self.inputs.desired.borrow_and_update().clone();
        self.ledger.observe(
            |update| {
                if update.pod.origin.is_static() {
                    mirror_of(&desired, &update.pod)
                } else {
                    pods.get(&update.pod.uid)
                }
            },
            |uid| desired.pods.contains_key(uid),
            Instant::now(),
        );
        let ledger = &self.ledger;
        self.view.retain(|uid| ledger.contains(uid));
    }

    /// When there may be something to launch that no event announces. What is
    /// due but cannot be launched yet waits for a call to land.
    fn next_wake(&self) -> Instant {
        let now = Instant::now();
        let mirrors = || self.mirrors.values().filter_map(|tried| tried.not_before);
        let is_held_up = self.ledger.has_queue() || mirrors().any(|due| due <= now);
        let probe = self.outage.as_ref().map(|outage| outage.until);
        mirrors()
            .chain(probe.filter(|_| is_held_up))
            .filter(|&due| due > now)
            .chain(self.ledger.next_wake())
            .fold(self.next_audit, Instant::min)
    }

    fn wake(&mut self) {
        let now = Instant::now();
        self.ledger.wake(now);
        if self.next_audit <= now {
            self.next_audit = now + AUDIT;
            self.ledger.audit();
        }
    }

    /// Whether another call may be made now.
    fn may_call(&self) -> bool {
        match &self.outage {
            Some(outage) => self.calls.is_empty() && outage.until <= Instant::now(),
            None => self.calls.len() < CONCURRENCY,
        }
    }

    fn launch_statuses(&mut self) {
        while self.may_call() {
            let Some(turn) = self.ledger.next_turn() else {
                return;
            };
            let uid = turn.uid.clone();
            let name = PodName::of(turn.api);
            let port = self.inputs.port.clone();
            let call = if turn.must_read {
                read(port, name)
            } else {
                match next_step(turn.update, turn.api, turn.futile, Timestamp::now()) {
                    Ok(Step::Rest) => continue,
                    Ok(Step::Patch(body)) => {
                        let onto = turn.api.metadata.resource_version.clone();
                        patch(port, name, body, onto)
                    }
                    Ok(Step::Finalise) => finalise(port, name, uid.clone()),
                    Err(error) => {
                        tracing::error!(pod = %name, error = %chain(&error), "status cannot be encoded");
                        continue;
                    }
                }
            };
            self.ledger.depart(&uid);
            self.calls
                .push(Box::pin(async move { Done::Status(uid, call.await) }));
        }
    }

    fn launch_mirrors(&mut self) {
        let steps = {
            let desired = self.inputs.desired.borrow();
            let node = self.inputs.node.borrow();
            let ending = self
                .ledger
                .ending_static_pods(|uid| desired.pods.contains_key(uid));
            mirror::plan(&desired, &ending, node.as_deref())
        };
        let now = Instant::now();
        let planned: Vec<MirrorKey> = steps.iter().map(mirror_key).collect();
        self.mirrors
            .retain(|key, tried| tried.not_before.is_none() || planned.contains(key));
        for (key, step) in planned.into_iter().zip(steps) {
            let tried = self.mirrors.get(&key);
            let may_try =
                tried.is_none_or(|tried| tried.not_before.is_some_and(|until| until <= now));
            if may_try && self.may_call() {
                self.mirrors.entry(key.clone()).or_default().not_before = None;
                let port = self.inputs.port.clone();
                self.calls.push(Box::pin(async move {
                    Done::Mirror(key, take_mirror_step(port, step).await)
                }));
            }
        }
    }

    fn land(&mut self, done: Done) {
        match done {
            Done::Status(uid, result) => {
                self.note_reachability(result.as_ref().err());
                self.land_status(&uid, result);
            }
            Done::Mirror(key, result) => {
                self.note_reachability(result.as_ref().err());
                self.land_mirror(key, result);
            }
        }
    }

    fn note_reachability(&mut self, error: Option<&ApiError>) {
        let now = Instant::now();
        match error.filter(|error| error.is_unreachable()) {
            None => {
                if self.outage.take().is_some() {
                    tracing::info!("pod statuses go out again");
                }
            }
            Some(error) => {
                let outage = self.outage.get_or_insert_with(|| {
                    tracing::warn!(error = %chain(error), "pod statuses wait for the API server");
                    Outage {
                        backoff: Backoff::new(),
                        until: now,
                    }
                });
                // Calls that were under way together fail together: one pause.
                if outage.until <= now {
                    outage.until = now + outage.backoff.next();
                }
            }
        }
    }

    fn land_status(&mut self, uid: &PodUid, result: Result<Landed, ApiError>) {
        let now = Instant::now();
        let error = match result {
            Ok(Landed::Written { body, onto, pod }) => {
                return self.ledger.accepted(uid, body, onto.as_deref(), *pod, now);
            }
            Ok(Landed::Read(pod)) => return self.ledger.read(uid, *pod, now),
            Ok(Landed::Deleted) => return self.ledger.over(uid, now),
            Err(error) if error.is_unreachable() => return self.ledger.unanswered(uid),
            Err(error) => error,
        };
        match error.disposition() {
            Disposition::NotFound => self.ledger.over(uid, now),
            Disposition::Conflict => self.ledger.conflict(uid, now),
            Disposition::Retry(pause) => {
                tracing::debug!(%uid, error = %chain(&error), "status call failed, will be tried again");
                self.ledger.retry(uid, pause, now);
            }
            Disposition::Permanent => {
                tracing::warn!(%uid, error = %chain(&error), "the API server refuses the pod's status");
                self.ledger.refused(uid, now);
            }
        }
    }

    fn land_mirror(&mut self, key: MirrorKey, result: Result<(), ApiError>) {
        let now = Instant::now();
        let tried = self.mirrors.entry(key.clone()).or_default();
        let pause = match result {
            Ok(()) => {
                tried.backoff = None;
                MIRROR_SETTLES
            }
            Err(error) => {
                let (name, _) = &key;
                tracing::warn!(pod = %name, error = %chain(&error), "mirror pod not brought up to date");
                match error.disposition() {
                    Disposition::Permanent => AUDIT,
                    failure => tried
                        .backoff
                        .get_or_insert_with(Backoff::new)
                        .after(failure),
                }
            }
        };
        tried.not_before = Some(now + pause);
    }
}

type StatusCall = BoxFuture<'static, Result<Landed, ApiError>>;

fn read(port: Arc<dyn PodStatusPort>, name: PodName) -> StatusCall {
    Box::pin(async move {
        let pod = port.get(&name).await?;
        Ok(Landed::Read(Box::new(pod)))
    })
}

fn patch(
    port: Arc<dyn PodStatusPort>,
    name: PodName,
    body: Value,
    onto: Option<String>,
) -> StatusCall {
    Box::pin(async move {
        let pod = Box::new(port.patch(&name, &body).await?);
        Ok(Landed::Written { body, onto, pod })
    })
}

fn finalise(port: Arc<dyn PodStatusPort>, name: PodName, uid: PodUid) -> StatusCall {
    Box::pin(async move {
        delete(&*port, &name, &uid).await?;
        Ok(Landed::Deleted)
    })
}

async fn take_mirror_step(port: Arc<dyn PodStatusPort>, step: MirrorStep) -> Result<(), ApiError> {
    match step {
        MirrorStep::Create { pod, .. } => match port.create_mirror(&pod).await {
            // If it is not ours, the watch shows it and the plan deletes it.
            Err(error) if error.disposition() == Disposition::Conflict => Ok(()),
            created => created.map(drop),
        },
        MirrorStep::Delete { name, uid } => delete(&*port, &name, &uid).await,
    }
}

/// Deletes this very object; one that is gone, or has a successor of the same
/// name, is deleted already.
async fn delete(port: &dyn PodStatusPort, name: &PodName, uid: &PodUid) -> Result<(), ApiError> {
    match port.finalise_delete(name, uid).await {
        Err(error) => match error.disposition() {
            Disposition::NotFound | Disposition::Conflict => Ok(()),
            _ => Err(error),
        },
        deleted => deleted,
    }
}

fn mirror_key(step: &MirrorStep) -> MirrorKey {
    let uid = match step {
        MirrorStep::Create { .. } => None,
        MirrorStep::Delete { uid, .. } => Some(uid.clone()),
    };
    (step.name().clone(), uid)
}
