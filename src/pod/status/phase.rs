//! The one-word summary of a pod.

use k8s_openapi::api::core::v1::{Container, ContainerStatus};

use super::StatusInput;
use crate::pod::containers::{init, is_sidecar, regular};
use crate::pod::model::{Intent, TerminationReason};
use crate::pod::plan::{AfterExit, after_exit};

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
    init_statuses: &[ContainerStatus],
    statuses: &[ContainerStatus],
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
    let by_containers = from_containers(input, init_statuses, statuses);
    // A pod that ended before it ever ran has failed, whoever ended it.
    if input.ended() && !by_containers.is_terminal() && !input.desired.origin.is_static() {
        return Phase::Failed;
    }
    by_containers
}

fn from_containers(
    input: &StatusInput<'_>,
    init_statuses: &[ContainerStatus],
    statuses: &[ContainerStatus],
) -> Phase {
    let pod = &input.desired.pod;
    let mut pending = false;
    let mut running = false;
    for (container, status) in init(pod).iter().zip(init_statuses) {
        let standing = Standing::of(input, container, status);
        match standing {
            Standing::NotYet => pending = true,
            Standing::Running if is_sidecar(container) => {
                running = true;
                pending |= status.started != Some(true) && !has_begun(input);
            }
            // The pod's work is not a sidecar's to judge.
            Standing::Stopped { .. } if is_sidecar(container) => {}
            Standing::Running => pending = true,
            Standing::Stopped { code, runs_again } => {
                if code != 0 && !runs_again {
                    return Phase::Failed;
                }
            }
        }
    }
    let mut succeeded = true;
    let mut restarts = false;
    for container in regular(pod) {
        let status = statuses.iter().find(|status| status.name == container.name);
        match status.map_or(Standing::NotYet, |s| Standing::of(input, container, s)) {
            Standing::NotYet => pending = true,
            Standing::Running => running = true,
            Standing::Stopped { code, runs_again } => {
                succeeded &= code == 0;
                restarts |= runs_again;
            }
        }
    }
    match () {
        () if pending => Phase::Pending,
        () if running || restarts => Phase::Running,
        () if succeeded => Phase::Succeeded,
        () => Phase::Failed,
    }
}

/// Whether an app container was created in the pod's present sandbox.
fn has_begun(input: &StatusInput<'_>) -> bool {
    let observed = input.observed;
    let Some(sandbox) = observed.ready_sandbox() else {
        return false;
    };
    regular(&input.desired.pod).iter().any(|container| {
        let newest = observed.newest(&container.name);
        newest.is_some_and(|newest| newest.sandbox == sandbox.id)
    })
}

/// How far a container has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It never ran.
    NotYet,
    Running,
    Stopped {
        code: i32,
        runs_again: bool,
    },
}

impl Standing {
    fn of(input: &StatusInput<'_>, container: &Container, status: &ContainerStatus) -> Self {
        let state = status.state.as_ref();
        if state.is_some_and(|state| state.running.is_some()) {
            return Self::Running;
        }
        let ended = state.and_then(|state| state.terminated.as_ref());
        let last = status.last_state.as_ref();
        let Some(end) = ended.or_else(|| last.and_then(|state| state.terminated.as_ref())) else {
            return Self::NotYet;
        };
        let code = end.exit_code;
        // What waits after an end waits for its next run.
        let waits = ended.is_none();
        let pod = &input.desired.pod;
        Self::Stopped {
            code,
            runs_again: !input.ended()
                && (waits
                    || input.restarts_all()
                    || after_exit(pod, container, code) != AfterExit::Stays),
        }
    }
}
