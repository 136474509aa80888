//! Starts a worker for every pod that is wanted or found, keeps it told of the
//! wish, and forgets it when nothing is left.
//!
//! Sole owner of the workers. A worker that panics takes nobody with it: it is
//! started again, and adopts what runs.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, info, info_span, warn};

use super::WorkerDeps;
use super::admission::Ticket;
use super::command::PodCommand;
use super::heartbeat::Heartbeat;
use super::pod::PodWorker;
use super::view::PodView;
use crate::error::chain;
use crate::pod::cgroup::QosShares;
use crate::pod::{
    DesiredPod, DesiredPods, Intent, Origin, PodEvent, PodName, PodUid, Severity, SourcesReady,
    Termination, TerminationReason, qos,
};
use crate::runtime::KnownPods;

/// Views of all pods that have a worker.
pub type PodsView = watch::Receiver<Arc<BTreeMap<PodUid, WorkerEntry>>>;

/// Where one pod's view is to be read.
#[derive(Debug, Clone)]
pub struct WorkerEntry {
    pub name: PodName,
    pub view: watch::Receiver<Arc<PodView>>,
}

/// Pause before a panicked worker is started again.
const PANIC_PAUSE: Duration = Duration::from_secs(5);
/// How often the loop comes round when nothing happens, to show that it can.
const BEAT: Duration = Duration::from_secs(10);

pub struct Manager {
    deps: Arc<WorkerDeps>,
    desired: watch::Receiver<DesiredPods>,
    found: watch::Receiver<KnownPods>,
    commands: mpsc::Receiver<PodCommand>,
    shutdown: CancellationToken,
    workers: HashMap<PodUid, Worker>,
    /// Ended, and still named by a source: not to be started again.
    done: HashSet<PodUid>,
    tasks: JoinSet<()>,
    task_pods: HashMap<Id, PodUid>,
    views: watch::Sender<Arc<BTreeMap<PodUid, WorkerEntry>>>,
    heartbeat: Heartbeat,
    shares: Option<QosShares>,
    swept: bool,
}

struct Worker {
    name: PodName,
    wish: watch::Sender<Arc<DesiredPod>>,
    view: watch::Receiver<Arc<PodView>>,
}

impl Manager {
    #[must_use]
    pub fn new(
        deps: Arc<WorkerDeps>,
        desired: watch::Receiver<DesiredPods>,
        commands: mpsc::Receiver<PodCommand>,
        shutdown: CancellationToken,
    ) -> (Self, PodsView) {
        let (views, view) = watch::channel(Arc::default());
        let manager = Self {
            found: deps.observer.pods(),
            deps,
            desired,
            commands,
            shutdown,
            workers: HashMap::new(),
            done: HashSet::new(),
            tasks: JoinSet::new(),
            task_pods: HashMap::new(),
            views,
            heartbeat: Heartbeat::default(),
            shares: None,
            swept: false,
        };
        (manager, view)
    }

    /// Tells whether [`Manager::run`] still comes round.
    #[must_use]
    pub fn heartbeat(&self) -> Heartbeat {
        self.heartbeat.clone()
    }

    /// Runs until shutdown, then waits for the workers to put down their work.
    pub async fn run(mut self) {
        let shutdown = self.shutdown.clone();
        let mut beat = tokio::time::interval(BEAT);
        loop {
            self.reconcile().await;
            self.heartbeat.beat();
            tokio::select! {
                () = shutdown.cancelled() => break,
                Ok(()) = self.desired.changed() => {}
                Ok(()) = self.found.changed() => {}
                Some(command) = self.commands.recv() => self.obey(command),
                Some(ended) = self.tasks.join_next_with_id() => self.worker_ended(ended),
                _ = beat.tick() => {}
            }
        }
        while self.tasks.join_next().await.is_some() {}
    }

    /// Brings the set of workers in line with what is wanted and found.
    async fn reconcile(&mut self) {
        let desired = self.desired.borrow_and_update().clone();
        let found = self.found.borrow_and_update().clone();
        let before = self.workers.len();
        self.done.retain(|uid| desired.pods.contains_key(uid));
        let mut news = Vec::new();
        for (uid, pod) in desired.pods.iter() {
            self.want(uid, pod, &mut news);
        }
        self.start_all(&news, desired.ready);
        self.unwant(&desired);
        if desired.ready.all()
            && let Some(found) = found
        {
            for (uid, name) in found.iter() {
                self.adopt_orphan(uid, name, desired.ready);
            }
            self.sweep(desired.ready).await;
        }
        if self.workers.len() != before {
            self.publish_views();
        }
        self.share_out(&desired).await;
    }

    /// Tells a pod's worker of the wish, or adds the pod to those that need
    /// one.
    fn want(&mut self, uid: &PodUid, pod: &Arc<DesiredPod>, news: &mut Vec<Arc<DesiredPod>>) {
        if let Some(worker) = self.workers.get(uid) {
            worker.wish.send_if_modified(|wish| {
                if Arc::ptr_eq(wish, pod) {
                    return false;
                }
                *wish = sharpen(wish, pod);
                true
            });
            return;
        }
        if self.done.contains(uid) && pod.intent != Intent::Run {
            return;
        }
        self.done.remove(uid);
        // An edited static pod has a new UID and the old name: one after the
        // other.
        let is_taken = self.workers.values().any(|worker| worker.name == pod.name)
            || news.iter().any(|other| other.name == pod.name);
        if !is_taken {
            news.push(pod.clone());
        }
    }

    /// Starts workers for new pods, which take their turns at admission.
    fn start_all(&mut self, pods: &[Arc<DesiredPod>], ready: SourcesReady) {
        let tickets = self.deps.admission.enlist(pods, ready);
        for (pod, ticket) in pods.iter().zip(tickets) {
            self.start(pod.clone(), ticket);
        }
    }

    /// Ends a pod because this node wants it: the wish keeps that.
    fn obey(&mut self, command: PodCommand) {
        let PodCommand::Evict {
            uid,
            grace,
            reason,
            message,
            disruption,
        } = command;
        let Some(worker) = self.workers.get(&uid) else {
            return;
        };
        let pod = worker.wish.borrow().clone();
        if pod.intent != Intent::Run {
            return;
        }
        info!(pod = %worker.name, %uid, reason, "the pod is ended");
        self.deps.events.record_pod(PodEvent {
            pod: pod.pod.clone(),
            container: None,
            severity: Severity::Warning,
            reason,
            message: message.clone(),
        });
        worker.wish.send_replace(Arc::new(DesiredPod {
            intent: Intent::Terminate(Termination {
                grace,
                reason: TerminationReason::Failed {
                    reason: reason.to_owned(),
                    message,
                    disruption: Some(disruption),
                },
            }),
            ..DesiredPod::clone(&pod)
        }));
    }

    /// Ends what no source names any more.
    fn unwant(&mut self, desired: &DesiredPods) {
        for (uid, worker) in &self.workers {
            if desired.pods.contains_key(uid) {
                continue;
            }
            worker.wish.send_if_modified(|wish| {
                let Some(grace) = grace_when_unwanted(&wish.intent) else {
                    return false;
                };
                *wish = Arc::new(DesiredPod {
                    intent: Intent::Terminate(Termination {
                        grace,
                        reason: TerminationReason::Removed,
                    }),
                    ..DesiredPod::clone(wish)
                });
                true
            });
        }
    }

    fn adopt_orphan(&mut self, uid: &PodUid, name: &PodName, ready: SourcesReady) {
        if self.workers.contains_key(uid) || self.done.contains(uid) {
            return;
        }
        if self.desired.borrow().pods.contains_key(uid) {
            return;
        }
        warn!(pod = %name, %uid, "the runtime has a pod that no source wants: removing it");
        self.start_all(&[orphan(uid, name)], ready);
    }

    /// Once per process: directories and cgroups of pods that nobody knows.
    async fn sweep(&mut self, ready: SourcesReady) {
        if std::mem::replace(&mut self.swept, true) {
            return;
        }
        let mut left = Vec::new();
        match self.deps.volumes.pods_on_disk().await {
            Ok(pods) => left.extend(pods),
            Err(error) => warn!(error = %chain(&error), "cannot list pod directories"),
        }
        match self.deps.cgroups.pods_on_disk().await {
            Ok(pods) => left.extend(pods),
            Err(error) => warn!(error = %chain(&error), "cannot list pod cgroups"),
        }
        for uid in left {
            self.adopt_orphan(&uid, &PodName::new("", ""), ready);
        }
    }

    fn start(&mut self, pod: Arc<DesiredPod>, ticket: Ticket) {
        let (wish, wishes) = watch::channel(pod.clone());
        let now = (self.deps.clock)();
        let (view, views) = watch::channel(Arc::new(PodView::new(&pod, now)));
        let worker = PodWorker::new(
            self.deps.clone(),
            wishes,
            view,
            self.shutdown.clone(),
            ticket,
        );
        let span =
            info_span!("pod", ns = %pod.name.namespace, name = %pod.name.name, uid = %pod.uid);
        let task = self.tasks.spawn(worker.run().instrument(span));
        self.task_pods.insert(task.id(), pod.uid.clone());
        self.workers.insert(
            pod.uid.clone(),
            Worker {
                name: pod.name.clone(),
                wish,
                view: views,
            },
        );
    }

    fn worker_ended(&mut self, ended: Result<(Id, ()), JoinError>) {
        let (id, panic) = match ended {
            Ok((id, ())) => (id, None),
            Err(error) => (error.id(), Some(error)),
        };
        let Some(uid) = self.task_pods.remove(&id) else {
            return;
        };
        let Some(worker) = self.workers.remove(&uid) else {
            return;
        };
        self.publish_views();
        match panic {
            None => {
                info!(pod = %worker.name, %uid, "forgotten");
                self.done.insert(uid);
            }
            Some(panic) => {
                error!(pod = %worker.name, %uid, error = %panic, "the pod's worker died; starting it again");
                self.restart_later(worker);
            }
        }
    }

    /// A pause first, so that a worker that dies at once does not spin.
    fn restart_later(&mut self, worker: Worker) {
        let pod = worker.wish.borrow().clone();
        let deps = self.deps.clone();
        let shutdown = self.shutdown.clone();
        let (view, views) = watch::channel(Arc::new(PodView::new(&pod, (self.deps.clock)())));
        let wishes = worker.wish.subscribe();
        let ready = self.desired.borrow().ready;
        let tickets = deps.admission.enlist(std::slice::from_ref(&pod), ready);
        let Some(ticket) = tickets.into_iter().next() else {
            return;
        };
        let span =
            info_span!("pod", ns = %pod.name.namespace, name = %pod.name.name, uid = %pod.uid);
        let task = self.tasks.spawn(
            async move {
                tokio::time::sleep(PANIC_PAUSE).await;
                let worker = PodWorker::new(deps, wishes, view, shutdown, ticket);
                worker.run().await;
            }
            .instrument(span),
        );
        self.task_pods.insert(task.id(), pod.uid.clone());
        let worker = Worker {
            view: views,
            ..worker
        };
        self.workers.insert(pod.uid.clone(), worker);
        self.publish_views();
    }

    /// The burstable class gets what its pods request together.
    async fn share_out(&mut self, desired: &DesiredPods) {
        let shares = qos::shares(desired.pods.values().map(AsRef::as_ref));
        if self.shares == Some(shares) {
            return;
        }
        match self.deps.cgroups.set_qos_shares(shares).await {
            Ok(()) => self.shares = Some(shares),
            Err(error) => warn!(error = %chain(&error), "cannot set the CPU shares of QoS classes"),
        }
    }

    fn publish_views(&self) {
        let entries = self
            .workers
            .iter()
            .map(|(uid, worker)| {
                let entry = WorkerEntry {
                    name: worker.name.clone(),
                    view: worker.view.clone(),
                };
                (uid.clone(), entry)
            })
            .collect();
        self.views.send_replace(Arc::new(entries));
    }
}

/// The new wish, as far as the old one lets it: an end is never taken back, and
/// its grace never grows.
fn sharpen(old: &DesiredPod, new: &Arc<DesiredPod>) -> Arc<DesiredPod> {
    let Intent::Terminate(was) = &old.intent else {
        return new.clone();
    };
    let intent = match &new.intent {
        Intent::Run => Intent::Terminate(was.clone()),
        Intent::Terminate(now) => Intent::Terminate(Termination {
            grace: match (was.grace, now.grace) {
                (Some(was), Some(now)) => Some(was.min(now)),
                (was, now) => was.or(now),
            },
            reason: now.reason.clone(),
        }),
    };
    Arc::new(DesiredPod {
        intent,
        ..DesiredPod::clone(new)
    })
}

/// The grace of a pod that no source names any more; `None` if it leaves nothing
/// behind anyhow. A pod that this node has ended is kept for its source to read,
/// and has no reader now: a deletion without grace may never have been seen.
fn grace_when_unwanted(intent: &Intent) -> Option<Option<Duration>> {
    match intent {
        Intent::Run => Some(None),
        Intent::Terminate(termination) => match termination.reason {
            TerminationReason::Failed { .. } => Some(termination.grace),
            TerminationReason::Deleted
            | TerminationReason::Removed
            | TerminationReason::Orphaned => None,
        },
    }
}

/// A stand-in for a pod of which only the runtime (or the disk) tells.
fn orphan(uid: &PodUid, name: &PodName) -> Arc<DesiredPod> {
    Arc::new(DesiredPod {
        uid: uid.clone(),
        name: name.clone(),
        pod: Arc::new(Pod {
            metadata: ObjectMeta {
                name: Some(name.name.to_string()),
                namespace: Some(name.namespace.to_string()),
                uid: Some(uid.to_string()),
                ..ObjectMeta::default()
            },
            ..Pod::default()
        }),
        origin: Origin::Api,
        intent: Intent::Terminate(Termination {
            grace: None,
            reason: TerminationReason::Orphaned,
        }),
    })
}
