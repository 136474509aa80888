//! The way out: stop, take away, and (if the pod is not wanted any more)
//! remove every trace.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::{PlanInput, PodPlan, Stage, Step, StopContainer, StopReason};
use crate::pod::containers::{find, kind_of, sidecars, termination_grace};
use crate::pod::memory::{Failure, Progress};
use crate::pod::model::{DesiredPod, Intent, Termination, TerminationReason, WaitOn, Wakeup};
use crate::pod::observed::{ContainerState, ObservedContainer, SandboxState};
use crate::pod::{deadline, hook};

#[cfg(test)]
mod tests;

/// How a pod ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ending {
    grace: Duration,
    records: Records,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Records {
    Keep,
    Remove,
}

/// Grace of a pod that no source knows.
const ORPHAN_GRACE: Duration = Duration::from_secs(1);
const LEAST_GRACE: Duration = Duration::from_secs(1);

/// The end that was asked for from outside, or that the API server already
/// recorded.
pub(super) fn requested(input: &PlanInput<'_>) -> Option<Ending> {
    match &input.desired.intent {
        Intent::Terminate(termination) => Some(Ending {
            grace: grace_of(input.desired, termination),
            records: match termination.reason {
                TerminationReason::Failed { .. } => Records::Keep,
                TerminationReason::Deleted
                | TerminationReason::Removed
                | TerminationReason::Orphaned => Records::Remove,
            },
        }),
        Intent::Run => (input.memory.over
            || recorded_terminal(input.desired)
            || deadline::passed(input.desired, input.started, input.now))
        .then(|| by_itself(input.desired)),
    }
}

/// The grace that containers have of a pod whose end was asked for; `None`
/// while it is to run.
#[must_use]
pub fn sought_grace(desired: &DesiredPod) -> Option<Duration> {
    match &desired.intent {
        Intent::Terminate(termination) => Some(grace_of(desired, termination)),
        Intent::Run => None,
    }
}

fn grace_of(desired: &DesiredPod, termination: &Termination) -> Duration {
    let fallback = match termination.reason {
        TerminationReason::Orphaned => ORPHAN_GRACE,
        TerminationReason::Deleted
        | TerminationReason::Removed
        | TerminationReason::Failed { .. } => own_grace(desired),
    };
    termination.grace.unwrap_or(fallback).max(LEAST_GRACE)
}

/// The end of a pod whose containers are all done.
pub(super) fn by_itself(desired: &DesiredPod) -> Ending {
    Ending {
        grace: own_grace(desired),
        records: Records::Keep,
    }
}

/// A terminal phase that was ever told to the API server stands.
fn recorded_terminal(desired: &DesiredPod) -> bool {
    !desired.origin.is_static()
        && desired
            .pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref())
            .is_some_and(|phase| matches!(phase, "Succeeded" | "Failed"))
}

/// The pod's own grace, and never none: a process that is stopped may say a
/// last word.
fn own_grace(desired: &DesiredPod) -> Duration {
    termination_grace(&desired.pod).max(LEAST_GRACE)
}

pub(super) fn plan(input: &PlanInput<'_>, ending: Ending) -> PodPlan {
    let (stage, mut steps) = next_steps(input, ending);
    let mut waits = Vec::new();
    if let Some(wait) = retry_later(input.memory.teardown.as_ref(), input.now)
        && !steps.is_empty()
    {
        waits.push(wait);
        steps.clear();
    }
    PodPlan {
        stage,
        steps,
        waits,
    }
}

fn next_steps(input: &PlanInput<'_>, ending: Ending) -> (Stage, Vec<Step>) {
    let observed = input.observed;
    let stops = stops(input, ending.grace, StopReason::PodEnds);
    if !stops.is_empty() {
        return (Stage::Stopping, vec![Step::StopContainers(stops)]);
    }
    let sandboxes = sandbox_stops(input);
    if !sandboxes.is_empty() {
        let stage = if observed
            .sandboxes
            .iter()
            .any(|s| s.state == SandboxState::Ready)
        {
            Stage::Stopping
        } else {
            Stage::Stopped
        };
        return (stage, sandboxes);
    }
    let mut steps = Vec::new();
    if input.memory.volumes != Progress::Undone {
        steps.push(Step::UnmountVolumes);
    }
    if input.memory.cgroup != Progress::Undone {
        steps.push(Step::RemoveCgroup);
    }
    if !steps.is_empty() {
        return (Stage::Stopped, steps);
    }
    match ending.records {
        Records::Keep => (Stage::Finished, super::run::surplus(input)),
        Records::Remove => removals(input),
    }
}

/// All live containers, to be stopped together, sidecars after the others.
pub(super) fn stops(input: &PlanInput<'_>, grace: Duration, why: StopReason) -> Vec<StopContainer> {
    let pod = &input.desired.pod;
    let turns = sidecar_turns(pod);
    input
        .observed
        .live_containers()
        .map(|container| {
            let why = if container.state == ContainerState::Unknown {
                StopReason::StateUnknown
            } else {
                why
            };
            StopContainer {
                turn: turns.get(container.name.as_str()).copied().unwrap_or(0),
                ..stop_again(input, container, grace, why)
            }
        })
        .collect()
}

/// The stop of one container, without a hook that has had its time in a stop
/// that failed.
pub(super) fn stop_again(
    input: &PlanInput<'_>,
    container: &ObservedContainer,
    grace: Duration,
    why: StopReason,
) -> StopContainer {
    let stop = stop(&input.desired.pod, container, grace, why);
    let had_its_hook = input.memory.pre_stopped.contains(&stop.id);
    StopContainer {
        hook: stop.hook.filter(|_| !had_its_hook),
        ..stop
    }
}

/// The stop of one container, with its hook if that can be carried out: the
/// container runs, and there is time for it. A container whose pod is not known
/// has its hook from what was written on it.
#[must_use]
pub fn stop(
    pod: &Pod,
    container: &ObservedContainer,
    grace: Duration,
    why: StopReason,
) -> StopContainer {
    let runs = matches!(container.state, ContainerState::Running { .. });
    let hook = match find(pod, &container.name) {
        _ if grace.is_zero() || !runs => None,
        Some(definition) => hook::pre_stop(&definition),
        None => container.stamp.pre_stop.clone(),
    };
    StopContainer {
        id: container.id.clone(),
        name: container.name.clone(),
        kind: kind_of(pod, &container.name),
        grace,
        why,
        hook,
        turn: 0,
    }
}

/// Sidecars are stopped after all others, in the reverse order of their start.
fn sidecar_turns(pod: &Pod) -> BTreeMap<&str, u32> {
    sidecars(pod)
        .rev()
        .map(|container| container.name.as_str())
        .zip(1..)
        .collect()
}

/// Sandboxes that still need their stop: ready ones, and dead ones whose
/// network was never released by this process.
pub(super) fn sandbox_stops(input: &PlanInput<'_>) -> Vec<Step> {
    input
        .observed
        .sandboxes
        .iter()
        .filter(|sandbox| {
            sandbox.state == SandboxState::Ready
                || !input.memory.stopped_sandboxes.contains(&sandbox.id)
        })
        .map(|sandbox| Step::StopSandbox(sandbox.id.clone()))
        .collect()
}

fn removals(input: &PlanInput<'_>) -> (Stage, Vec<Step>) {
    let mut steps: Vec<Step> = input
        .observed
        .containers
        .iter()
        .map(|container| Step::RemoveContainer(container.id.clone()))
        .collect();
    steps.extend(
        input
            .observed
            .sandboxes
            .iter()
            .map(|sandbox| Step::RemoveSandbox(sandbox.id.clone())),
    );
    if input.memory.traces != Progress::Undone {
        steps.push(Step::RemoveTraces);
    }
    let stage = if steps.is_empty() {
        Stage::Gone
    } else {
        Stage::Removing
    };
    (stage, steps)
}

/// The wait that a failure imposes, if it is not over.
pub(super) fn retry_later(failure: Option<&Failure>, now: Timestamp) -> Option<Wakeup> {
    failure
        .filter(|failure| !failure.is_due(now))
        .map(|failure| Wakeup {
            at: failure.until,
            on: WaitOn::StepRetry,
            why: failure.message.clone(),
        })
}
