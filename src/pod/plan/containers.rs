//! What is to be done about each container while the pod runs.

use std::time::Duration;

use k8s_openapi::api::core::v1::Container;

use super::restart::{CrashBackoff, crash_backoff, may_restart};
use super::{NextAttempt, PlanInput, Step, StopContainer, StopReason};
use crate::pod::containers::{init, kind_of, regular, restart_policy, termination_grace};
use crate::pod::hash;
use crate::pod::memory::ImageProgress;
use crate::pod::model::{WaitOn, Wakeup};
use crate::pod::observed::{
    ContainerState, Exit, ObservedContainer, ObservedPod, ObservedSandbox, SandboxId,
};

/// Who takes a sandbox down kills its containers first. A container restarted
/// in between would only fail, so an exit is given this long to be the whole
/// story.
const SETTLING: Duration = Duration::from_millis(500);

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
    Succeeded,
    Failed,
}

struct Start {
    attempt: NextAttempt,
    not_before: Option<Wakeup>,
    backoff: Option<Duration>,
}

/// Decides for all containers of a pod that has, or is to get, `sandbox`.
pub(super) fn decide(input: &PlanInput<'_>, sandbox: Option<&ObservedSandbox>) -> Containers {
    let sandbox = sandbox.map(|s| &s.id);
    let mut out = Containers::default();
    if initialised(input.observed, &input.desired.pod, sandbox) {
        decide_regular(input, sandbox, &mut out);
    } else {
        decide_init(input, sandbox, &mut out);
    }
    out
}

/// Init work belongs to a sandbox: a new one runs it again. Once an app
/// container was created in this sandbox, init is over, whatever records of it
/// are left.
fn initialised(
    observed: &ObservedPod,
    pod: &k8s_openapi::api::core::v1::Pod,
    sandbox: Option<&SandboxId>,
) -> bool {
    let here = |c: &ObservedContainer| Some(&c.sandbox) == sandbox;
    let Some(last) = init(pod).last() else {
        return true;
    };
    regular(pod)
        .iter()
        .any(|c| observed.newest(&c.name).is_some_and(here))
        || observed.newest(&last.name).is_some_and(|c| {
            here(c) && matches!(&c.state, ContainerState::Exited(exit) if exit.code == 0)
        })
}

/// One init container at a time, in order.
fn decide_init(input: &PlanInput<'_>, sandbox: Option<&SandboxId>, out: &mut Containers) {
    for container in init(&input.desired.pod) {
        let newest = input
            .observed
            .newest(&container.name)
            .filter(|c| Some(&c.sandbox) == sandbox);
        if let Some(ObservedContainer {
            state: ContainerState::Exited(exit),
            ..
        }) = newest
            && exit.code == 0
        {
            continue;
        }
        // Only instances of this sandbox count for order, but restart counts
        // go on from whatever instance came last.
        let need = need(input, container, newest, true);
        if matches!(need, Need::Nothing(Rest::Failed)) {
            out.finished = true;
            return;
        }
        out.take(input, container, need, false);
        return;
    }
}

fn decide_regular(input: &PlanInput<'_>, sandbox: Option<&SandboxId>, out: &mut Containers) {
    let mut at_rest = 0;
    // An app container's first start waits for the first starts before it, so
    // that authors can rely on the order; restarts wait for nobody.
    let mut held_up = false;
    let containers = regular(&input.desired.pod);
    for container in containers {
        let newest = input.observed.newest(&container.name);
        let started_here = newest.is_some_and(|c| Some(&c.sandbox) == sandbox);
        let need = need(input, container, newest, started_here);
        if matches!(need, Need::Nothing(Rest::Succeeded | Rest::Failed)) {
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
        let attempt = input
            .observed
            .newest(&container.name)
            .map_or(NextAttempt::FromLogs, |c| {
                NextAttempt::Number(c.attempt.saturating_add(1))
            });
        return Need::Start(Start {
            attempt,
            not_before: None,
            backoff: None,
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
        ContainerState::Running { .. } if newest.stamp.hash != hash => {
            Need::Stop(stop(input, newest, StopReason::DefinitionChanged))
        }
        ContainerState::Running { .. } => Need::Nothing(Rest::Running),
        ContainerState::Unknown => Need::Stop(stop(input, newest, StopReason::StateUnknown)),
        ContainerState::Exited(exit) => after_exit(input, container, newest, exit, &hash),
    }
}

fn after_exit(
    input: &PlanInput<'_>,
    container: &Container,
    newest: &ObservedContainer,
    exit: &Exit,
    hash: &str,
) -> Need {
    let redefined = input.memory.container(&container.name).redefined;
    if !redefined && !may_restart(restart_policy(&input.desired.pod), exit.code) {
        return Need::Nothing(if exit.code == 0 {
            Rest::Succeeded
        } else {
            Rest::Failed
        });
    }
    let backoff = crash_backoff(newest, exit, hash, input.node.max_crash_backoff);
    Need::Start(Start {
        attempt: NextAttempt::Number(newest.attempt.saturating_add(1)),
        not_before: (!redefined)
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

fn stop(input: &PlanInput<'_>, container: &ObservedContainer, why: StopReason) -> StopContainer {
    StopContainer {
        id: container.id.clone(),
        name: container.name.clone(),
        kind: kind_of(&input.desired.pod, &container.name),
        grace: termination_grace(&input.desired.pod),
        why,
    }
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
