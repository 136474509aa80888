//! The task of one probe: waits for its time, asks, and says what changed.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info};

use super::Said;
use super::attempt::{Asked, Attempt};
use super::metrics::{PodSeries, Series};
use crate::pod::containers::reference;
use crate::pod::probe::schedule::{TRIES, Timing, eager_pause, jitter, next_tick};
use crate::pod::probe::{ProbeKind, Subject, Thresholds, Tracker, Verdicts};
use crate::pod::{ContainerId, PodEvent, Severity};
use crate::worker::WorkerDeps;

/// What a task is about; does not change while it runs.
pub(super) struct About {
    pub(super) deps: Arc<WorkerDeps>,
    pub(super) pod: Arc<Pod>,
    pub(super) container: Container,
    pub(super) kind: ProbeKind,
    pub(super) probe: Probe,
    pub(super) series: Series,
    pub(super) together: PodSeries,
}

pub(super) struct ProbeTask {
    about: About,
    timing: Timing,
    tracker: Tracker,
    /// Verdicts of before this task.
    known: Verdicts,
    subject: watch::Receiver<Subject>,
    say: mpsc::Sender<Said>,
    /// The ticker's first tick.
    anchor: Instant,
    /// When to ask next; `None`: there is nothing to ask at present.
    next: Option<Instant>,
    /// How often the present instance was asked and was not ready after it.
    unready: u32,
}

impl ProbeTask {
    pub(super) fn new(
        about: About,
        known: Verdicts,
        subject: watch::Receiver<Subject>,
        say: mpsc::Sender<Said>,
    ) -> Self {
        let timing = Timing::of(&about.probe);
        let (process_start, _) = about.deps.probing.since;
        let now = Instant::now();
        let wait = jitter(
            now.duration_since(process_start),
            timing.period,
            rand::random(),
        );
        Self {
            tracker: Tracker::new(about.kind, Thresholds::of(&about.probe)),
            anchor: now + wait,
            about,
            timing,
            known,
            subject,
            say,
            next: None,
            unready: 0,
        }
    }

    /// Runs until nobody shows it its container any more.
    pub(super) async fn run(mut self) {
        self.turn();
        loop {
            tokio::select! {
                biased;
                changed = self.subject.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.turn();
                }
                () = until(self.next) => {
                    if self.probe().await.is_err() {
                        return;
                    }
                    self.plan_next();
                }
            }
        }
    }

    /// Looks at the container, which has changed. Its turn stands, unless it is
    /// another instance, or is waited for: then whatever happened to it may
    /// have made it ready.
    fn turn(&mut self) {
        let subject = self.subject.borrow_and_update().clone();
        let Some((instance, started_at)) = subject.running else {
            self.next = None;
            return;
        };
        let kind = self.about.kind;
        let known = self.known.on(kind, &instance);
        let is_new = self.tracker.turn_to(&instance, known);
        if is_new {
            self.unready = 0;
        }
        // The startup probe has its time before the others have theirs.
        let its_time = subject.started == (kind != ProbeKind::Startup);
        if !its_time || self.tracker.is_held() {
            self.next = None;
            return;
        }
        if !is_new && self.next.is_some() && !self.is_waited_for() {
            return;
        }
        let now = Instant::now();
        let up = (self.about.deps.clock)().duration_since(started_at);
        let up = Duration::try_from(up).unwrap_or_default();
        let delay = self.timing.initial_delay.saturating_sub(up);
        if self.is_waited_for() || !delay.is_zero() {
            // The first probe's moment is known; the ticker begins there.
            self.anchor = now + delay;
        }
        self.next = Some(if self.anchor == now {
            now
        } else {
            self.tick_after(now)
        });
    }

    /// After a probe: when to ask again.
    fn plan_next(&mut self) {
        if self.tracker.is_held() {
            self.next = None;
            return;
        }
        let now = Instant::now();
        let mut pause = None;
        if self.is_waited_for() {
            self.unready = self.unready.saturating_add(1);
            pause = eager_pause(self.unready, self.timing.period);
        }
        self.next = Some(match pause {
            Some(pause) => now + pause,
            None => self.tick_after(now),
        });
    }

    /// Whether traffic waits for this probe to pass.
    fn is_waited_for(&self) -> bool {
        self.about.kind == ProbeKind::Readiness && self.tracker.passes() == Some(false)
    }

    /// The first tick that is still to come.
    fn tick_after(&self, now: Instant) -> Instant {
        if self.anchor > now {
            return self.anchor;
        }
        self.anchor + next_tick(now.duration_since(self.anchor), self.timing.period)
    }

    /// Asks, and says so if the answer makes a difference. Gives up when the
    /// instance ends.
    ///
    /// # Errors
    /// If nobody listens any more.
    async fn probe(&mut self) -> Result<(), mpsc::error::SendError<Said>> {
        let subject = self.subject.borrow().clone();
        let Some((instance, _)) = subject.running else {
            return Ok(());
        };
        let began = Instant::now();
        let mut shown = self.subject.clone();
        let pod_ip = subject.pod_ip.as_deref().unwrap_or_default();
        let attempt = tokio::select! {
            biased;
            _ = shown.wait_for(|subject| !subject.is(&instance)) => return Ok(()),
            attempt = self.attempt(&instance, pod_ip) => attempt,
        };
        let took = began.elapsed();
        self.about.together.spend(took);
        self.report(&attempt);
        let passed = match attempt {
            Attempt::Passed { .. } => true,
            Attempt::Failed { .. } => false,
            Attempt::Errored { .. } => return Ok(()),
        };
        self.about.series.count(passed, took);
        let Some(verdict) = self.tracker.record(passed) else {
            return Ok(());
        };
        info!(passed, instance = %verdict.instance, "the probe's verdict has changed");
        self.say
            .send(Said {
                container: self.about.container.name.clone(),
                kind: self.about.kind,
                verdict,
            })
            .await
    }

    /// Tries again what could not be carried out, within the period.
    async fn attempt(&self, instance: &ContainerId, pod_ip: &str) -> Attempt {
        let asked = Asked {
            deps: &self.about.deps,
            probe: &self.about.probe,
            container: &self.about.container,
            instance,
            pod_ip,
        };
        let give_up = Instant::now() + self.timing.period;
        let mut tries = 1;
        loop {
            let attempt = asked.attempt().await;
            let failed_to_ask = matches!(attempt, Attempt::Errored { .. });
            if !failed_to_ask || tries >= TRIES || Instant::now() >= give_up {
                return attempt;
            }
            tries += 1;
        }
    }

    fn report(&self, attempt: &Attempt) {
        let kind = self.about.kind.title();
        let (reason, message) = match attempt {
            Attempt::Passed { warning: None } => return,
            Attempt::Passed {
                warning: Some(warning),
            } => ("ProbeWarning", format!("{kind} probe warning: {warning}")),
            Attempt::Failed { output } => ("Unhealthy", format!("{kind} probe failed: {output}")),
            Attempt::Errored { state, message } => (
                "Unhealthy",
                format!("{kind} probe errored and resulted in {state} state: {message}"),
            ),
        };
        debug!(%message, "the probe did not simply pass");
        self.about.deps.events.record_pod(PodEvent {
            pod: self.about.pod.clone(),
            container: Some(reference(&self.about.pod, &self.about.container.name)),
            severity: Severity::Warning,
            reason,
            message,
        });
    }
}

/// Until `at`; for ever without one.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
