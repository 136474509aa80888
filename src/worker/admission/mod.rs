//! Admission: every pod is judged once, before anything is done for it, one
//! after the other and against what those before it take.
//!
//! In: pods from the manager, the Node, what the runtime has, which sources are
//! read. Out: a verdict for each worker that holds a [`Ticket`], and commands to
//! end pods that must make room for critical ones.
//!
//! Pods that an earlier process let in are entered without being judged: what
//! the runtime has, and what has a start time. A pod of the API server waits
//! until this node's object is known; a static pod never waits for it.

mod ledger;
#[cfg(test)]
mod tests;

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use k8s_openapi::api::core::v1::Node;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use super::command::PodCommand;
use super::metrics::Metrics;
use crate::apiserver::NodePort;
use crate::error::chain;
use crate::pod::admission::{
    self, AdmissionInput, NodeView, Rejection, Settings, Shortage, Support, Verdict, preempt,
};
use crate::pod::{DesiredPod, PodUid, SourcesReady};
use crate::runtime::{KnownPods, RuntimeHealth};
use ledger::{Counted, Ledger, Standing};

/// How long the API server may take to tell the newest Node.
const FETCH_PATIENCE: Duration = Duration::from_secs(5);

/// How long pods of the API server wait for manifests that cannot be read. What
/// static pods take that run already should be known; but a broken folder must
/// not keep a node from working.
const MANIFEST_PATIENCE: Duration = Duration::from_secs(10);

/// What admission works with.
pub struct AdmissionDeps {
    /// The Node as the reflector has it. Senders may hang up.
    pub node: watch::Receiver<Option<Arc<Node>>>,
    /// Where the newest Node is to be had; `None`: standalone.
    pub fetch: Option<Arc<dyn NodePort>>,
    /// The node as this agent knows it by itself.
    pub own: NodeView,
    pub settings: Settings,
    pub found: watch::Receiver<KnownPods>,
    pub health: watch::Receiver<RuntimeHealth>,
    /// To the manager.
    pub commands: mpsc::Sender<PodCommand>,
    pub metrics: Metrics,
}

/// The one who judges. Shared by the manager and all workers.
pub struct Admission {
    deps: AdmissionDeps,
    state: Mutex<State>,
    /// Wakes those who wait: something in the ledger changed.
    changed: watch::Sender<()>,
    /// Wakes pods that want to take more: others left, or take less.
    room: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    ledger: Ledger,
    sources: SourcesReady,
    manifests: Manifests,
    /// The last Node there was: one that is deleted is still what pods that
    /// were bound to it are judged by.
    node: Option<Arc<Node>>,
}

/// Whether pods of the API server wait for static ones to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Manifests {
    #[default]
    Awaited,
    GivenUp,
}

/// A pod's place in the ledger, given back when dropped.
pub(super) struct Ticket {
    admission: Arc<Admission>,
    uid: PodUid,
}

/// What came of trying to judge.
enum Attempt {
    Decided(Result<(), Rejection>),
    /// Not yet; for what it waits.
    Wait(&'static str),
    /// The newest Node might change the verdict.
    LookAgain,
    /// These have to be told to end first.
    Evict(Vec<PodUid>),
}

impl Admission {
    #[must_use]
    pub fn new(deps: AdmissionDeps) -> Arc<Self> {
        Arc::new(Self {
            deps,
            state: Mutex::default(),
            changed: watch::Sender::new(()),
            room: watch::Sender::new(()),
        })
    }

    /// Takes up pods, all at once, so that none is judged before the others of
    /// its time are known.
    pub(super) fn enlist(
        self: &Arc<Self>,
        pods: &[Arc<DesiredPod>],
        sources: SourcesReady,
    ) -> Vec<Ticket> {
        let mut state = self.state();
        let news = state.sources != sources || !pods.is_empty();
        state.sources = sources;
        for pod in pods {
            state.ledger.enlist(pod);
        }
        drop(state);
        if news {
            self.changed.send_replace(());
        }
        let ticket = |pod: &Arc<DesiredPod>| Ticket {
            admission: self.clone(),
            uid: pod.uid.clone(),
        };
        pods.iter().map(ticket).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here is left half done by a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Judges a pod if its turn has come. `newest`: the Node, if it was just
    /// read.
    fn attempt(&self, pod: &Arc<DesiredPod>, newest: Option<&Arc<Node>>) -> Attempt {
        let known = self.deps.found.borrow().clone();
        if known.is_none() {
            return Attempt::Wait("the runtime to tell which pods it has");
        }
        if !self.deps.health.borrow().checked {
            return Attempt::Wait("the runtime to tell what it can do");
        }
        let node = newest.cloned().or_else(|| self.deps.node.borrow().clone());
        let mut state = self.state();
        if state.ledger.adopt(&known) {
            self.changed.send_replace(());
        }
        match state.ledger.standing(&pod.uid) {
            Standing::Admitted => return Attempt::Decided(Ok(())),
            Standing::AfterOthers => return Attempt::Wait("pods that make room to end"),
            Standing::InQueue => return Attempt::Wait("older pods to be admitted"),
            Standing::Next => {}
        }
        let awaits_manifests = !state.sources.manifests && state.manifests == Manifests::Awaited;
        if awaits_manifests && !pod.origin.is_static() {
            return Attempt::Wait("the manifests to be read");
        }
        if node.is_some() {
            state.node = node;
        }
        let node = match &state.node {
            Some(node) => self.deps.own.updated_by(node),
            None if pod.origin.is_static() => self.deps.own.clone(),
            None => return Attempt::Wait("this node's object in the API"),
        };
        let attempt = self.judge(&mut state.ledger, pod, &node, newest);
        if state.ledger.standing(&pod.uid) != Standing::Next {
            // The turn of another has come.
            self.changed.send_replace(());
        }
        attempt
    }

    fn judge(
        &self,
        ledger: &mut Ledger,
        pod: &Arc<DesiredPod>,
        node: &NodeView,
        newest: Option<&Arc<Node>>,
    ) -> Attempt {
        let leaving = ledger.leaving();
        let mut after = Default::default();
        let mut verdict = self.verdict(pod, node, ledger, Counted::All);
        if verdict != Verdict::Admitted && !leaving.is_empty() {
            verdict = self.verdict(pod, node, ledger, Counted::Staying);
            after = leaving;
        }
        let rejection = match verdict {
            Verdict::Admitted => {
                let waits = !after.is_empty();
                ledger.enter(pod, after);
                return if waits {
                    Attempt::Wait("pods that make room to end")
                } else {
                    Attempt::Decided(Ok(()))
                };
            }
            Verdict::Rejected(rejection) => rejection,
            // A static pod does not wait for the API server.
            Verdict::NodeDiffers(rejection) if newest.is_some() || pod.origin.is_static() => {
                rejection
            }
            Verdict::NodeDiffers(rejection) if self.deps.fetch.is_none() => rejection,
            Verdict::NodeDiffers(_) => return Attempt::LookAgain,
            Verdict::MakeRoom(shortages) => match self.make_room(ledger, pod, &shortages) {
                Ok(victims) => return Attempt::Evict(victims),
                Err(rejection) => rejection,
            },
        };
        ledger.remove(&pod.uid);
        self.deps.metrics.rejected(&rejection.reason);
        Attempt::Decided(Err(rejection))
    }

    fn verdict(
        &self,
        pod: &DesiredPod,
        node: &NodeView,
        ledger: &Ledger,
        counted: Counted,
    ) -> Verdict {
        let knows_groups = self.deps.health.borrow().supplemental_groups_policy;
        admission::admit(&AdmissionInput {
            pod,
            node,
            taken: &ledger.taken(counted),
            supplemental_groups_policy: if knows_groups {
                Support::Present
            } else {
                Support::Absent
            },
            settings: &self.deps.settings,
        })
    }

    fn make_room(
        &self,
        ledger: &Ledger,
        pod: &DesiredPod,
        shortages: &[Shortage],
    ) -> Result<Vec<PodUid>, Rejection> {
        match preempt::victims(pod, ledger.candidates(), shortages) {
            Ok(victims) => {
                let signal = shortages.first().map_or("", |s| s.resource.as_str());
                self.deps.metrics.preempted(signal, victims.len());
                Ok(victims
                    .iter()
                    .map(|victim| victim.pod.uid.clone())
                    .collect())
            }
            Err(error) => Err(Rejection::new(
                "UnexpectedAdmissionError",
                format!(
                    "Unexpected error while attempting to recover from admission failure: \
                     preemption: error finding a set of pods to preempt: {error}"
                ),
            )),
        }
    }

    /// Has pods ended, and notes that they leave.
    async fn evict(&self, uids: Vec<PodUid>, pod: &DesiredPod) {
        for uid in &uids {
            info!(victim = %uid, "a critical pod needs the room of another");
            let command = PodCommand::Evict {
                uid: uid.clone(),
                grace: None,
                reason: preempt::REASON,
                message: preempt::MESSAGE.to_owned(),
                disruption: preempt::DISRUPTION.to_owned(),
            };
            if self.deps.commands.send(command).await.is_err() {
                warn!(pod = %pod.name, "nobody is left to end pods: the agent stops");
            }
        }
        self.state().ledger.tell_to_leave(&uids);
    }

    /// The Node as the API server has it now.
    async fn newest_node(&self) -> Option<Arc<Node>> {
        let fetch = self.deps.fetch.as_ref()?;
        match tokio::time::timeout(FETCH_PATIENCE, fetch.get()).await {
            Ok(Ok(node)) => Some(Arc::new(node)),
            Ok(Err(error)) => {
                warn!(error = %chain(&error), "cannot read this node's object anew");
                None
            }
            Err(_) => {
                warn!("the API server does not tell this node's object");
                None
            }
        }
    }
}

impl Ticket {
    /// Waits until the pod may start, or is refused. `on_wait` hears what it
    /// waits for. May be dropped and asked again.
    ///
    /// # Errors
    /// Why the pod may not run here.
    pub(super) async fn verdict(
        &self,
        pod: &Arc<DesiredPod>,
        mut on_wait: impl FnMut(&'static str),
    ) -> Result<(), Rejection> {
        let admission = &self.admission;
        let mut changed = admission.changed.subscribe();
        let mut node = admission.deps.node.clone();
        let mut found = admission.deps.found.clone();
        let mut health = admission.deps.health.clone();
        let mut patience = pin!(tokio::time::sleep(MANIFEST_PATIENCE).fuse());
        loop {
            changed.borrow_and_update();
            node.borrow_and_update();
            found.borrow_and_update();
            health.borrow_and_update();
            let mut attempt = admission.attempt(pod, None);
            if matches!(attempt, Attempt::LookAgain) {
                let newest = admission.newest_node().await;
                // What is known has to do, if nothing newer is to be had.
                let newest = newest.or_else(|| admission.state().node.clone());
                attempt = admission.attempt(pod, newest.as_ref());
            }
            match attempt {
                Attempt::Decided(verdict) => return verdict,
                Attempt::Evict(uids) => {
                    admission.evict(uids, pod).await;
                    continue;
                }
                Attempt::Wait(what) => on_wait(what),
                Attempt::LookAgain => {}
            }
            tokio::select! {
                () = next(&mut changed) => {}
                () = next(&mut node) => {}
                () = next(&mut found) => {}
                () = next(&mut health) => {}
                () = &mut patience => admission.state().manifests = Manifests::GivenUp,
            }
        }
    }

    /// The pod runs, whatever the verdict: what it takes counts.
    pub(super) fn enter(&self, pod: &Arc<DesiredPod>) {
        self.admission.state().ledger.enter(pod, Default::default());
    }

    /// Lets a pod that is here take what it asks for now, if that fits beside
    /// the others.
    ///
    /// # Errors
    /// What there is too little of; it is worth asking again when
    /// [`Ticket::room`] has news.
    pub(super) fn resize(&self, pod: &Arc<DesiredPod>) -> Result<(), Rejection> {
        let admission = &self.admission;
        let takes_less = {
            let ledger = &mut admission.state().ledger;
            let others = ledger.taken_by_others(&self.uid);
            // Of what can be resized, this agent is the source.
            admission::fits_resized(&pod.pod, &admission.deps.own, &others)?;
            ledger.resize(pod)
        };
        if takes_less {
            admission.room.send_replace(());
        }
        Ok(())
    }

    /// Has news when pods left, or take less than before.
    pub(super) fn room(&self) -> watch::Receiver<()> {
        self.admission.room.subscribe()
    }

    /// The pod takes nothing any more, nor waits for anything.
    pub(super) fn release(&self) {
        if self.admission.state().ledger.remove(&self.uid) {
            self.admission.changed.send_replace(());
            self.admission.room.send_replace(());
        }
    }
}

impl Drop for Ticket {
    /// A worker that dies comes back to a pod that still is what it was.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.release();
        }
    }
}

/// Resolves when there is something new; never once the sender is gone.
async fn next<T>(receiver: &mut watch::Receiver<T>) {
    if receiver.changed().await.is_err() {
        std::future::pending().await
    }
}
