//! What is to be done about each container while the pod runs.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};

use super::restart::{CrashBackoff, crash_backoff, runs_again};
use super::{NextAttempt, PlanInput, Step, StopContainer, StopReason};
use crate::pod::containers::{as_container, ephemeral, init, is_sidecar, regular, stop_grace};
use crate::pod::memory::{ContainerMemory, ImageProgress};
use crate::pod::model::{WaitOn, WaitingReason, Wakeup};
use crate::pod::observed::{
    ContainerState, Exit, ObservedContainer, ObservedPod, ObservedSandbox, SandboxId,
};
use crate::pod::{hash, probe};

/// Who takes a sandbox down kills its containers first. A container restarted
/// in between would only fail, so an exit is given this long to be the whole
/// story.
pub(super) const SETTLING: Duration = Duration::from_millis(500);

/// The sum of all containers' decisions.
#[derive(Debug, Default)]
pub(super) struct Containers {
    pub(super) stops: Vec<StopContainer>,
    pub(super) pulls: Vec<String>,
    pub(super) starts: Vec<Step>,
    pub(super) waits: Vec<Wakeup>,
    /// Nothing runs, and nothing will.
    pub(super) finished: bool,
}

/// What one container needs.
enum Need {
    /// It runs, or has done its work.
    Nothing(Rest),
    /// A (new) instance, now or at a later time.
    Start(Start),
    /// An instance that was created and not started.
    StartCreated(crate::pod::observed::ContainerId),
    Stop(StopContainer),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    Running,
    /// It has exited, and stays so.
    Over,
}

struct Start {
    attempt: NextAttempt,
    not_before: Option<Wakeup>,
    backoff: Option<Duration>,
}

/// Decides for all containers of a pod that has, or is to get, `sandbox`.
pub(super) fn decide(input: &PlanInput<'_>, sandbox: Option<&ObservedSandbox>) -> Containers {
    let mut out = Containers::default();
    decide_ephemeral(input, sandbox, &mut out);
    let here = Here {
        observed: input.observed,
        sandbox: sandbox.map(|s| &s.id),
    };
    if decide_init(input, here, &mut out) {
        decide_regular(input, here, &mut out);
    }
    out
}

/// The pod as its present sandbox has it.
#[derive(Clone, Copy)]
struct Here<'a> {
    observed: &'a ObservedPod,
    sandbox: Option<&'a SandboxId>,
}

impl<'a> Here<'a> {
    /// The newest instance of the container, if it lives in this sandbox.
    fn newest(self, container: &Container) -> Option<&'a ObservedContainer> {
        let newest = self.observed.newest(&container.name)?;
        (Some(&newest.sandbox) == self.sandbox).then_some(newest)
    }
}

/// Each ephemeral container is started once, as soon as there is a sandbox, and
/// holds up nobody.
fn decide_ephemeral(
    input: &PlanInput<'_>,
    sandbox: Option<&ObservedSandbox>,
    out: &mut Containers,
) {
    let Some(sandbox) = sandbox else { return };
    let pod = &input.desired.pod;
    for ephemeral in ephemeral(pod) {
        let container = as_container(ephemeral);
        let need = match input.observed.newest(&container.name) {
            None if has_run_before(pod, &container.name) => continue,
            None => Need::Start(first_start()),
            Some(instance) => match &instance.state {
                ContainerState::Created if instance.sandbox == sandbox.id => {
                    Need::StartCreated(instance.id.clone())
                }
                ContainerState::Unknown => {
                    let why = StopReason::StateUnknown;
                    Need::Stop(stop(input, &container, instance, why))
                }
                _ => continue,
            },
        };
        out.take(input, &container, need, false);
    }
}

/// Whether readers were told that the ephemeral container ran: its record may
/// be gone.
fn has_run_before(pod: &Pod, name: &str) -> bool {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.ephemeral_container_statuses.as_deref())
        .unwrap_or_default();
    let state = statuses
        .iter()
        .find(|status| status.name == name)
        .and_then(|status| status.state.as_ref());
    state.is_some_and(|state| state.running.is_some() || state.terminated.is_some())
}

/// Init containers in order, one at a time, and the sidecars that were come to.
/// True if the app containers may run.
///
/// Init work belongs to a sandbox: a new one runs it again. Whatever stands
/// before the last init container that was begun has been passed, whatever
/// records of it are left; once an app container was created, all have.
fn decide_init(input: &PlanInput<'_>, here: Here<'_>, out: &mut Containers) -> bool {
    let pod = &input.desired.pod;
    let containers = init(pod);
    let passed = if regular(pod).iter().any(|c| here.newest(c).is_some()) {
        containers.len()
    } else {
        let last_begun = containers.iter().rposition(|c| here.newest(c).is_some());
        last_begun.unwrap_or(0)
    };
    for (index, container) in containers.iter().enumerate() {
        let newest = here.newest(container);
        let is_passed = index < passed;
        if is_sidecar(container) {
            let need = need(input, container, newest, true);
            out.take(input, container, need, false);
            let has_started = newest.is_some_and(|newest| {
                let memory = input.memory.container(&container.name);
                probe::started(container, newest, &memory)
            });
            if !is_passed && !has_started {
                return false;
            }
        } else if !is_passed && !decide_init_step(input, container, newest, out) {
            return false;
        }
    }
    true
}

/// A regular init container whose turn it is. True if it is done.
fn decide_init_step(
    input: &PlanInput<'_>,
    container: &Container,
    newest: Option<&ObservedContainer>,
    out: &mut Containers,
) -> bool {
    match newest.map(|newest| &newest.state) {
        Some(ContainerState::Exited(exit)) if exit.is_success() => return true,
        // Its image may have been changed; that is for its next run.
        Some(ContainerState::Running { .. }) => return false,
        _ => {}
    }
    // Only instances of this sandbox count for order, but restart counts go on
    // from whatever instance came last.
    let need = need(input, container, newest, true);
    if matches!(need, Need::Nothing(_)) {
        out.finished = true;
    }
    out.take(input, container, need, false);
    false
}

fn decide_regular(input: &PlanInput<'_>, here: Here<'_>, out: &mut Containers) {
    let mut at_rest = 0;
    // An app container's first start waits for the first starts before it, so
    // that authors can rely on the order; restarts wait for nobody.
    let mut held_up = false;
    let containers = regular(&input.desired.pod);
    for container in containers {
        let newest = input.observed.newest(&container.name);
        let started_here = here.newest(container).is_some();
        let need = need(input, container, newest, started_here);
        if matches!(need, Need::Nothing(Rest::Over)) {
            at_rest += 1;
        }
        let holds = out.take(input, container, need, held_up && !started_here);
        held_up |= holds && !started_here;
    }
    out.finished = at_rest == containers.len();
}

/// `in_this_sandbox`: whether `newest` lives in the pod's present sandbox. A
/// new sandbox starts again what had failed or was running.
fn need(
    input: &PlanInput<'_>,
    container: &Container,
    newest: Option<&ObservedContainer>,
    in_this_sandbox: bool,
) -> Need {
    let Some(newest) = newest else {
        let before = input.observed.newest(&container.name);
        return Need::Start(Start {
            attempt: before.map_or(NextAttempt::FromLogs, |c| {
                NextAttempt::Number(c.attempt.saturating_add(1))
            }),
            ..first_start()
        });
    };
    let hash = hash::container(container);
    let fresh = || Start {
        attempt: NextAttempt::Number(newest.attempt.saturating_add(1)),
        not_before: None,
        backoff: newest.stamp.backoff,
    };
    match &newest.state {
        ContainerState::Created if in_this_sandbox && newest.stamp.hash == hash => {
            Need::StartCreated(newest.id.clone())
        }
        ContainerState::Created => Need::Start(fresh()),
        ContainerState::Running { .. } => {
            let memory = input.memory.container(&container.name);
            let why = if newest.stamp.hash != hash {
                Some(StopReason::DefinitionChanged)
            } else if hook_failed(&memory) {
                Some(StopReason::PostStartFailed)
            } else {
                probe::failed(container, newest, &memory).map(StopReason::ProbeFailed)
            };
            why.map_or(Need::Nothing(Rest::Running), |why| {
                Need::Stop(stop(input, container, newest, why))
            })
        }
        ContainerState::Unknown => {
            Need::Stop(stop(input, container, newest, StopReason::StateUnknown))
        }
        ContainerState::Exited(exit) => exited(input, container, newest, exit, &hash),
    }
}

fn first_start() -> Start {
    Start {
        attempt: NextAttempt::FromLogs,
        not_before: None,
        backoff: None,
    }
}

/// Whether a container that runs had its post-start hook fail: it was to be
/// stopped and could not be. The next start clears the failure.
fn hook_failed(memory: &ContainerMemory) -> bool {
    let failure = memory.start_failure.as_ref();
    failure.is_some_and(|failed| failed.reason == WaitingReason::PostStartHookError)
}

fn exited(
    input: &PlanInput<'_>,
    container: &Container,
    newest: &ObservedContainer,
    exit: &Exit,
    hash: &str,
) -> Need {
    let memory = input.memory.container(&container.name);
    if !runs_again(&input.desired.pod, container, newest, exit, &memory) {
        return Need::Nothing(Rest::Over);
    }
    let backoff = crash_backoff(newest, exit, hash, input.node.max_crash_backoff);
    Need::Start(Start {
        attempt: NextAttempt::Number(newest.attempt.saturating_add(1)),
        not_before: (!memory.redefined)
            .then(|| pause(input, container, exit, &backoff))
            .flatten(),
        backoff: Some(backoff.next),
    })
}

/// What a container that exited waits for before it runs again.
fn pause(
    input: &PlanInput<'_>,
    container: &Container,
    exit: &Exit,
    backoff: &CrashBackoff,
) -> Option<Wakeup> {
    let wait = if backoff.pause.is_zero() {
        Wakeup {
            at: exit.finished_at + SETTLING,
            on: WaitOn::Settling,
            why: format!("the sandbox of {}, which just exited", container.name),
        }
    } else {
        Wakeup {
            at: backoff.until,
            on: WaitOn::CrashBackoff {
                container: container.name.clone(),
            },
            why: format!(
                "back-off {}s restarting failed container={} pod={}",
                backoff.pause.as_secs(),
                container.name,
                input.desired.name
            ),
        }
    };
    // An exit that lies in the future tells of a clock that stepped back.
    (wait.at > input.now && exit.finished_at <= input.now).then_some(wait)
}

pub(super) fn stop(
    input: &PlanInput<'_>,
    container: &Container,
    instance: &ObservedContainer,
    why: StopReason,
) -> StopContainer {
    let pod = &input.desired.pod;
    super::end::stop_again(input, instance, stop_grace(pod, container, why), why)
}

impl Containers {
    /// Adds one container's need. True if its start is under way but not done,
    /// so that first starts after it have to wait.
    fn take(
        &mut self,
        input: &PlanInput<'_>,
        container: &Container,
        need: Need,
        held_up: bool,
    ) -> bool {
        let start = match need {
            Need::Nothing(_) => return false,
            Need::Stop(stop) => {
                self.stops.push(stop);
                return false;
            }
            Need::StartCreated(id) => {
                self.starts.push(Step::StartCreated {
                    container: container.name.clone(),
                    id,
                });
                return false;
            }
            Need::Start(start) => start,
        };
        let memory = input.memory.container(&container.name);
        let failure = memory
            .start_failure
            .as_ref()
            .and_then(|f| super::end::retry_later(Some(&f.failure), input.now))
            .map(|wait| Wakeup {
                on: WaitOn::StartRetry {
                    container: container.name.clone(),
                },
                ..wait
            });
        if let Some(wait) = later(start.not_before, failure) {
            self.waits.push(wait);
            return false;
        }
        match &memory.image {
            ImageProgress::Pulling { .. } => true,
            ImageProgress::Failed(failure) if !failure.failure.is_due(input.now) => {
                self.waits.push(Wakeup {
                    at: failure.failure.until,
                    on: WaitOn::ImageBackoff {
                        container: container.name.clone(),
                    },
                    why: format!("{}: {}", failure.reason.as_str(), failure.failure.message),
                });
                false
            }
            ImageProgress::Unknown | ImageProgress::Failed(_) => {
                self.pulls.push(container.name.clone());
                true
            }
            ImageProgress::Present(_) => {
                if !held_up {
                    self.starts.push(Step::StartContainer {
                        container: container.name.clone(),
                        attempt: start.attempt,
                        backoff: start.backoff,
                    });
                }
                false
            }
        }
    }
}

fn later(a: Option<Wakeup>, b: Option<Wakeup>) -> Option<Wakeup> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if a.at >= b.at { a } else { b }),
        (a, b) => a.or(b),
    }
}
