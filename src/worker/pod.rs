//! The actor of one pod.
//!
//! Wakes when the wish, the observation or the runtime's health changes, when a
//! step or a pull ends, and when the plan said so; at no other time. At most
//! one step, or two that belong together, is under way, with any number of
//! pulls beside it.

mod admit;
mod resize;
mod tell;

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodStatus;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::WorkerDeps;
use super::admission::Ticket;
use super::apply::Target;
use super::haste::{Hurry, Pace};
use super::memory::{remember, volumes_changed};
use super::probe::{Probes, Said};
use super::step::Outcome;
use super::view::{ErrorView, PodView};
use crate::error::chain;
use crate::pod::admission::Rejection;
use crate::pod::memory::{Failure, ImageProgress, Pauses};
use crate::pod::plan::{self, PlanInput, PodPlan, Stage, Step};
use crate::pod::resize::{ResizeMemory, recorded};
use crate::pod::spec::PresentImage;
use crate::pod::{DesiredPod, Intent, ObservedPod, PodMemory, Severity, WaitOn, deadline};
use crate::runtime::{RuntimeError, RuntimeHealth};
use crate::status::Ending;

/// How long a step may go on after the agent was told to stop.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(5);

pub(super) struct PodWorker {
    deps: Arc<WorkerDeps>,
    wish: watch::Receiver<Arc<DesiredPod>>,
    observed: watch::Receiver<Arc<ObservedPod>>,
    health: watch::Receiver<RuntimeHealth>,
    /// Of what the pod's volumes show.
    volume_changes: watch::Receiver<u64>,
    view: watch::Sender<Arc<PodView>>,
    shutdown: CancellationToken,
    ticket: Ticket,
    /// Of what other pods leave free.
    room: watch::Receiver<()>,

    desired: Arc<DesiredPod>,
    seen: Arc<ObservedPod>,
    memory: PodMemory,
    told: Option<Arc<PodStatus>>,
    last_ending: Option<Ending>,
    /// Whether `seen` is newer than the last thing done.
    sight: Sight,
    /// Why this node does not take the pod.
    refusal: Option<Rejection>,
    /// Waits that events were already sent for.
    announced: BTreeSet<(WaitOn, Timestamp)>,
    last_error: Option<ErrorView>,
    pulls: FuturesUnordered<Pin<Box<dyn Future<Output = Outcome> + Send>>>,
    probes: Probes,
}

/// How far the worker's picture of its pod can be trusted.
enum Sight {
    /// Never looked, or something was done since: look before planning.
    Stale(Option<Failure>),
    Clear,
}

/// What is being done.
enum Work {
    /// Only reading the runtime, after a pause if the last reading failed.
    Look,
    Steps(Vec<Step>),
}

/// Work under way.
struct Running {
    work: Work,
    since: Timestamp,
    hurry: Hurry,
    future: Pin<Box<dyn Future<Output = Ended> + Send>>,
}

impl Running {
    fn stops_containers(&self) -> bool {
        match &self.work {
            Work::Steps(steps) => matches!(steps.as_slice(), [Step::StopContainers(_)]),
            Work::Look => false,
        }
    }
}

/// Work that ended, and what the runtime shows after it.
struct Ended {
    outcomes: Vec<Outcome>,
    observed: Result<Arc<ObservedPod>, RuntimeError>,
}

/// What woke the worker.
enum Wake {
    Shutdown,
    Wish,
    Ended(Ended),
    Pull(Outcome),
    Probe(Said),
    Look,
}

impl PodWorker {
    pub(super) fn new(
        deps: Arc<WorkerDeps>,
        wish: watch::Receiver<Arc<DesiredPod>>,
        view: watch::Sender<Arc<PodView>>,
        shutdown: CancellationToken,
        ticket: Ticket,
    ) -> Self {
        let now = (deps.clock)();
        let desired = recorded(&wish.borrow());
        let observed = deps.observer.watch(&desired.uid, &desired.name);
        let seen = observed.borrow().clone();
        Self {
            health: deps.observer.health(),
            volume_changes: deps.volumes.changes(&desired.uid),
            memory: PodMemory {
                first_seen: Some(now),
                resize: ResizeMemory::recorded(&desired.pod),
                ..PodMemory::default()
            },
            probes: Probes::new(deps.clone(), &desired),
            deps,
            wish,
            observed,
            view,
            shutdown,
            room: ticket.room(),
            ticket,
            desired,
            seen,
            told: None,
            last_ending: None,
            sight: Sight::Stale(None),
            refusal: None,
            announced: BTreeSet::new(),
            last_error: None,
            pulls: FuturesUnordered::new(),
        }
    }

    /// Runs until nothing of the pod is left, or the agent shuts down.
    pub(super) async fn run(mut self) {
        if self.await_admission().await.is_break() {
            return;
        }
        let mut running = None;
        let mut settled = false;
        loop {
            let mut wake_at = None;
            if running.is_none() {
                if let Sight::Stale(failure) = &self.sight {
                    running = Some(self.look(failure.as_ref().map(|f| f.pause)));
                } else {
                    if !std::mem::replace(&mut settled, true) {
                        self.settle_admission();
                        self.allocate();
                        self.probes
                            .inherit(&self.desired, &self.seen, &mut self.memory);
                    }
                    let plan = self.plan();
                    if plan.stage >= Stage::Stopped {
                        // Before it is told: whoever hears it may send the next.
                        self.ticket.release();
                    }
                    self.note_end(&plan);
                    self.note_resized(&plan);
                    self.announce(&plan);
                    self.publish_status(&plan);
                    self.show_probes();
                    if plan.stage == Stage::Gone {
                        self.publish_view(plan, None);
                        info!("nothing is left of the pod");
                        return;
                    }
                    self.start_pulls(&plan);
                    running = self.next_steps(&plan);
                    wake_at = plan.recheck_at();
                    self.publish_view(plan, running.as_ref());
                }
            }
            match self.wake(&mut running, wake_at).await {
                Wake::Shutdown => {
                    self.wind_down(running).await;
                    return;
                }
                Wake::Wish => self.take_wish(running.as_ref()),
                Wake::Ended(ended) => {
                    running = None;
                    self.take_end(ended);
                }
                Wake::Pull(outcome) => self.learn(outcome),
                Wake::Probe(said) => self.heed(said, running.is_some()),
                Wake::Look => {
                    let only_looking = matches!(&running, Some(r) if matches!(r.work, Work::Look));
                    if only_looking && matches!(self.sight, Sight::Clear) {
                        running = None;
                    }
                }
            }
        }
    }

    /// Waits for the next thing worth a new plan.
    async fn wake(&mut self, running: &mut Option<Running>, at: Option<Timestamp>) -> Wake {
        let pause = at.map(|at| {
            let wait = at.duration_since((self.deps.clock)());
            Duration::try_from(wait).unwrap_or(Duration::ZERO)
        });
        let idle = running.is_none();
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => Wake::Shutdown,
            Ok(()) = self.wish.changed() => {
                self.wish.mark_unchanged();
                self.allocate();
                Wake::Wish
            }
            ended = step_end(running) => Wake::Ended(ended),
            Some(outcome) = self.pulls.next(), if !self.pulls.is_empty() => Wake::Pull(outcome),
            Some(said) = self.probes.next() => Wake::Probe(said),
            Ok(()) = self.observed.changed() => {
                let observed = self.observed.borrow_and_update().clone();
                self.see(observed);
                Wake::Look
            }
            Ok(()) = self.health.changed() => Wake::Look,
            Ok(()) = self.room.changed(), if self.memory.resize.deferred.is_some() => {
                self.allocate();
                Wake::Look
            }
            Ok(()) = self.volume_changes.changed() => {
                let count = *self.volume_changes.borrow_and_update();
                volumes_changed(&mut self.memory, count, (self.deps.clock)());
                Wake::Look
            }
            () = sleep(pause), if idle && pause.is_some() => Wake::Look,
        }
    }

    /// `status.startTime`, or the best there is before one was told.
    fn started(&self) -> Timestamp {
        self.told
            .as_deref()
            .or(self.desired.pod.status.as_ref())
            .and_then(|status| status.start_time.as_ref())
            .map(|time| time.0)
            .or(self.memory.first_seen)
            .unwrap_or_else(|| (self.deps.clock)())
    }

    /// Once over, over for good.
    fn note_end(&mut self, plan: &PodPlan) {
        if self.memory.over || plan.stage == Stage::Running {
            return;
        }
        self.memory.over = true;
        if deadline::passed(&self.desired, self.started(), (self.deps.clock)()) {
            let message = deadline::MESSAGE.to_owned();
            self.target()
                .event(Severity::Normal, deadline::REASON, message);
        }
    }

    fn plan(&self) -> PodPlan {
        if self.refusal.is_some() && self.desired.intent == Intent::Run {
            return PodPlan {
                stage: Stage::Finished,
                steps: Vec::new(),
                waits: Vec::new(),
            };
        }
        let health = self.health.borrow();
        plan::plan(&PlanInput {
            desired: &self.desired,
            observed: &self.seen,
            memory: &self.memory,
            node: &self.deps.node,
            started: self.started(),
            network_down: health.network.as_ref().map(|f| f.message.as_str()),
            now: (self.deps.clock)(),
        })
    }

    // === steps ===

    fn target(&self) -> Target {
        Target {
            deps: self.deps.clone(),
            desired: self.desired.clone(),
            observed: self.seen.clone(),
            volumes: self.memory.volumes.done().cloned().unwrap_or_default(),
            deadline: deadline::of(&self.desired, self.started()),
            pace: Pace::leisurely(),
        }
    }

    fn next_steps(&self, plan: &PodPlan) -> Option<Running> {
        let steps = plan.next_steps();
        if steps.is_empty() {
            return None;
        }
        debug!(?steps, "next");
        let hurry = Hurry::new();
        let target = Target {
            pace: hurry.pace(),
            ..self.target()
        };
        let owned: Vec<_> = steps
            .iter()
            .map(|step| (step.clone(), self.image_for(step)))
            .collect();
        Some(Running {
            since: (self.deps.clock)(),
            hurry,
            future: Box::pin(async move {
                let looks = owned.iter().any(|(step, _)| changes_runtime(step));
                let executions = owned
                    .into_iter()
                    .map(|(step, image)| target.execute(step, image));
                let outcomes = join_all(executions).await;
                let observed = if looks {
                    let pod = &target.desired;
                    target.deps.observer.refresh(&pod.uid, &pod.name).await
                } else {
                    Ok(target.observed.clone())
                };
                Ended { outcomes, observed }
            }),
            work: Work::Steps(steps),
        })
    }

    /// The image of the container that the step starts.
    fn image_for(&self, step: &Step) -> Option<PresentImage> {
        let Step::StartContainer { container, .. } = step else {
            return None;
        };
        match self.memory.container(container).image {
            ImageProgress::Present(image) => Some(image),
            _ => None,
        }
    }

    fn look(&self, pause: Option<Duration>) -> Running {
        let deps = self.deps.clone();
        let pod = self.desired.clone();
        Running {
            work: Work::Look,
            since: (self.deps.clock)(),
            hurry: Hurry::new(),
            future: Box::pin(async move {
                sleep(pause).await;
                Ended {
                    outcomes: Vec::new(),
                    observed: deps.observer.refresh(&pod.uid, &pod.name).await,
                }
            }),
        }
    }

    fn start_pulls(&mut self, plan: &PodPlan) {
        for step in &plan.steps {
            let Step::PullImage { container } = step else {
                continue;
            };
            let entry = self.memory.containers.entry(container.clone()).or_default();
            entry.image = ImageProgress::Pulling {
                since: (self.deps.clock)(),
            };
            let target = self.target();
            let step = step.clone();
            self.pulls
                .push(Box::pin(async move { target.execute(step, None).await }));
        }
    }

    fn take_end(&mut self, ended: Ended) {
        for outcome in ended.outcomes {
            self.learn(outcome);
        }
        match ended.observed {
            Ok(observed) => self.see(observed),
            Err(error) => {
                // Without a look there is no telling what the step did.
                let message = chain(&error).to_string();
                warn!(error = %message, "cannot read the pod's state from the runtime");
                let previous = match &self.sight {
                    Sight::Stale(failure) => failure.as_ref(),
                    Sight::Clear => None,
                };
                let now = (self.deps.clock)();
                let failure = Failure::after(previous, message.clone(), Pauses::STEP, now);
                self.sight = Sight::Stale(Some(failure));
                self.note_error("read the pod's state", message);
            }
        }
    }

    fn learn(&mut self, outcome: Outcome) {
        let now = (self.deps.clock)();
        if let Some(message) = outcome.error() {
            warn!(error = %message, "step failed");
            self.note_error(outcome.name(), message);
        }
        let pulled = match &outcome {
            Outcome::Image { container, .. } => Some(container.clone()),
            _ => None,
        };
        remember(&mut self.memory, outcome, now);
        if let Some(container) = pulled {
            self.announce_image_backoff(&container);
        }
    }

    fn note_error(&mut self, what: &str, message: String) {
        self.last_error = Some(ErrorView {
            at: (self.deps.clock)(),
            what: what.to_owned(),
            message,
        });
    }

    fn see(&mut self, observed: Arc<ObservedPod>) {
        if observed.observed_at >= self.seen.observed_at {
            self.seen = observed;
            self.sight = Sight::Clear;
        }
    }

    /// A new wish. A step under way is seen through, so that no call to the
    /// runtime is left half done; what waits in it hears that the pod ends, and
    /// how soon.
    fn take_wish(&mut self, running: Option<&Running>) {
        let Some(grace) = plan::sought_grace(&self.desired) else {
            return;
        };
        self.pulls.clear();
        for container in self.memory.containers.values_mut() {
            if matches!(container.image, ImageProgress::Pulling { .. }) {
                container.image = ImageProgress::Unknown;
            }
        }
        if let Some(running) = running {
            running.hurry.end_within(grace);
        }
    }

    async fn wind_down(mut self, running: Option<Running>) {
        let Some(running) = running else { return };
        if running.stops_containers() {
            return;
        }
        running.hurry.leave();
        if let Ok(ended) = tokio::time::timeout(SHUTDOWN_PATIENCE, running.future).await {
            self.take_end(ended);
            let plan = self.plan();
            self.publish_status(&plan);
        }
    }
}

/// The end of the running step; never, if none runs.
async fn step_end(running: &mut Option<Running>) -> Ended {
    match running {
        Some(running) => (&mut running.future).await,
        None => std::future::pending().await,
    }
}

async fn sleep(pause: Option<Duration>) {
    if let Some(pause) = pause {
        tokio::time::sleep(pause).await;
    }
}

/// Whether the runtime may look different after the step.
fn changes_runtime(step: &Step) -> bool {
    match step {
        Step::EnsureCgroup
        | Step::MountVolumes
        | Step::PullImage { .. }
        | Step::UnmountVolumes
        | Step::RemoveCgroup
        | Step::RemoveTraces => false,
        Step::CreateSandbox { .. }
        | Step::StartContainer { .. }
        | Step::StartCreated { .. }
        | Step::Resize { .. }
        | Step::StopContainers(_)
        | Step::StopSandbox(_)
        | Step::RemoveContainer(_)
        | Step::RemoveSandbox(_) => true,
    }
}
