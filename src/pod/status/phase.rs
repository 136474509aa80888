//! The one-word summary of a pod.

use k8s_openapi::api::core::v1::ContainerStatus;

use super::StatusInput;
use crate::pod::containers::restart_policy;
use crate::pod::model::{Intent, TerminationReason};
use crate::pod::plan::may_restart;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Pending,
    Running,
    Succeeded,
    Failed,
}

impl Phase {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }

    pub(super) fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// Computes the phase; a terminal one that was ever told stands.
pub(super) fn phase(
    input: &StatusInput<'_>,
    init: &[ContainerStatus],
    regular: &[ContainerStatus],
) -> Phase {
    if !input.desired.origin.is_static()
        && let Some(told) = input.previous.and_then(|status| status.phase.as_deref())
    {
        match told {
            "Succeeded" => return Phase::Succeeded,
            "Failed" => return Phase::Failed,
            _ => {}
        }
    }
    if let Intent::Terminate(termination) = &input.desired.intent
        && matches!(termination.reason, TerminationReason::Failed { .. })
    {
        return Phase::Failed;
    }
    if super::late(input) && input.ended() {
        return Phase::Failed;
    }
    let policy = restart_policy(&input.desired.pod);
    let by_containers = from_containers(policy, input.ended(), init, regular);
    // A pod that ended before it ever ran has failed, whoever ended it.
    if input.ended() && !by_containers.is_terminal() && !input.desired.origin.is_static() {
        return Phase::Failed;
    }
    by_containers
}

fn from_containers(
    policy: &str,
    ended: bool,
    init: &[ContainerStatus],
    regular: &[ContainerStatus],
) -> Phase {
    for status in init {
        match last_exit(status) {
            Some(0) => {}
            Some(code) if ended || !may_restart(policy, code) => return Phase::Failed,
            _ => return Phase::Pending,
        }
    }
    let exits: Vec<Option<i32>> = regular
        .iter()
        .filter(|status| !is_running(status))
        .map(last_exit)
        .collect();
    if exits.iter().any(Option::is_none) {
        return Phase::Pending;
    }
    let exits: Vec<i32> = exits.into_iter().flatten().collect();
    if exits.len() < regular.len() {
        return Phase::Running;
    }
    if !ended && exits.iter().any(|code| may_restart(policy, *code)) {
        return Phase::Running;
    }
    if exits.iter().all(|code| *code == 0) {
        Phase::Succeeded
    } else {
        Phase::Failed
    }
}

fn is_running(status: &ContainerStatus) -> bool {
    status
        .state
        .as_ref()
        .is_some_and(|state| state.running.is_some())
}

/// Exit code of a container that is not running: its own, or, while it waits
/// to be restarted, its last instance's. `None`: it never ran.
fn last_exit(status: &ContainerStatus) -> Option<i32> {
    let terminated = |state: &Option<k8s_openapi::api::core::v1::ContainerState>| {
        state
            .as_ref()
            .and_then(|state| state.terminated.as_ref())
            .map(|terminated| terminated.exit_code)
    };
    if is_running(status) {
        return None;
    }
    terminated(&status.state).or_else(|| terminated(&status.last_state))
}
