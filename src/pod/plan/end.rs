//! The way out: stop, take away, and (if the pod is not wanted any more)
//! remove every trace.

use std::time::Duration;

use jiff::Timestamp;

use super::{PlanInput, PodPlan, Stage, Step, StopContainer, StopReason};
use crate::pod::containers::{kind_of, termination_grace};
use crate::pod::deadline;
use crate::pod::memory::{Failure, Progress};
use crate::pod::model::{DesiredPod, Intent, TerminationReason, WaitOn, Wakeup};
use crate::pod::observed::{ContainerState, SandboxState};

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
        Intent::Terminate(termination) => {
            let fallback = match termination.reason {
                TerminationReason::Orphaned => ORPHAN_GRACE,
                _ => own_grace(input.desired),
            };
            Some(Ending {
                grace: termination
                    .grace
                    .unwrap_or(fallback)
                    .max(Duration::from_secs(1)),
                records: match termination.reason {
                    TerminationReason::Failed { .. } => Records::Keep,
                    TerminationReason::Deleted
                    | TerminationReason::Removed
                    | TerminationReason::Orphaned => Records::Remove,
                },
            })
        }
        Intent::Run => (input.memory.over
            || recorded_terminal(input.desired)
            || deadline::passed(input.desired, input.started, input.now))
        .then(|| by_itself(input.desired)),
    }
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

/// All live containers, to be stopped together.
pub(super) fn stops(input: &PlanInput<'_>, grace: Duration, why: StopReason) -> Vec<StopContainer> {
    input
        .observed
        .live_containers()
        .map(|container| StopContainer {
            id: container.id.clone(),
            name: container.name.clone(),
            kind: kind_of(&input.desired.pod, &container.name),
            grace,
            why: if container.state == ContainerState::Unknown {
                StopReason::StateUnknown
            } else {
                why
            },
        })
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
