//! The status of each container.

use std::time::Duration;

use k8s_openapi::api::core::v1::{
    Container, ContainerState as ApiState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, ContainerUser, EphemeralContainer, LinuxContainerUser,
    VolumeMount, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::StatusInput;
use super::conditions::ALL_RESTARTING;
use crate::pod::containers::{as_container, init, is_sidecar, kind_of, regular};
use crate::pod::event::ContainerKind;
use crate::pod::memory::{ContainerFailure, ContainerMemory, ImageProgress};
use crate::pod::model::WaitingReason;
use crate::pod::observed::{ContainerState, Exit, ObservedContainer};
use crate::pod::plan::{AfterExit, Stage, after_exit, crash_backoff, runs_again};
use crate::pod::{hash, probe};

/// Exit code of a container whose end nobody saw.
const LOST_EXIT_CODE: i32 = 137;

pub(super) fn regular_status(input: &StatusInput<'_>, container: &Container) -> ContainerStatus {
    lasting_status(input, container)
}

pub(super) fn init_status(input: &StatusInput<'_>, container: &Container) -> ContainerStatus {
    if is_sidecar(container) {
        return lasting_status(input, container);
    }
    // Init records may be gone once app containers exist; then init is known
    // to have ended well.
    let long_done = regular(&input.desired.pod)
        .iter()
        .any(|c| input.observed.newest(&c.name).is_some());
    let assumed = long_done.then(|| ContainerStateTerminated {
        reason: Some("Completed".into()),
        message: Some(
            "Unable to get init container status from container runtime and pod has been \
             initialized, treat it as exited normally"
                .into(),
        ),
        ..ContainerStateTerminated::default()
    });
    let mut status = status(input, container, assumed);
    status.started = Some(is_running(&status));
    status.ready = status
        .state
        .as_ref()
        .and_then(|state| state.terminated.as_ref())
        .is_some_and(|terminated| terminated.exit_code == 0);
    status
}

/// An ephemeral container has no probes, and readiness is not asked of it.
pub(super) fn ephemeral_status(
    input: &StatusInput<'_>,
    container: &EphemeralContainer,
) -> ContainerStatus {
    status(input, &as_container(container), None)
}

/// A container that is meant to stay up: its probes say how it is.
fn lasting_status(input: &StatusInput<'_>, container: &Container) -> ContainerStatus {
    let mut status = status(input, container, None);
    let newest = input.observed.newest(&container.name);
    let memory = input.memory.container(&container.name);
    let says = |of: fn(&Container, &ObservedContainer, &ContainerMemory) -> bool| {
        newest.is_some_and(|newest| of(container, newest, &memory))
    };
    status.started = Some(says(probe::started));
    status.ready = says(probe::ready);
    status
}

fn is_running(status: &ContainerStatus) -> bool {
    status
        .state
        .as_ref()
        .is_some_and(|state| state.running.is_some())
}

/// `assumed`: what an unseen container is taken for.
fn status(
    input: &StatusInput<'_>,
    container: &Container,
    assumed: Option<ContainerStateTerminated>,
) -> ContainerStatus {
    let previous = previous(input, &container.name);
    let mut instances = input.observed.instances(&container.name);
    let Some(newest) = instances.next() else {
        if let Some(status) = previous.and_then(|p| removed_for_restart(input, container, p)) {
            return status;
        }
        return unseen(input, container, previous, assumed);
    };
    let older = instances.find_map(|c| match &c.state {
        ContainerState::Exited(exit) => Some(terminated(input, c, exit)),
        _ => None,
    });
    let carried = older.map(in_terminated).or_else(|| {
        previous
            .filter(|p| newest.attempt > 0 && p.restart_count > 0)
            .and_then(|p| p.last_state.clone())
    });
    let (state, last_state) = states(input, container, newest, carried);
    ContainerStatus {
        name: container.name.clone(),
        state: Some(state),
        last_state: Some(last_state.unwrap_or_default()),
        restart_count: restart_count(newest.attempt, previous),
        image: newest.image.clone(),
        image_id: newest.image_ref.clone(),
        container_id: Some(format!("{}://{}", input.node.runtime_name, newest.id)),
        user: newest.user.as_ref().map(|user| ContainerUser {
            linux: Some(LinuxContainerUser {
                uid: user.uid,
                gid: user.gid,
                supplemental_groups: Some(user.supplemental_groups.clone()),
            }),
        }),
        resources: container.resources.clone(),
        allocated_resources: container
            .resources
            .as_ref()
            .and_then(|resources| resources.requests.clone()),
        volume_mounts: volume_mounts(input, container),
        ..ContainerStatus::default()
    }
}

/// Present and last state of a container that the runtime has.
fn states(
    input: &StatusInput<'_>,
    container: &Container,
    newest: &ObservedContainer,
    carried: Option<ApiState>,
) -> (ApiState, Option<ApiState>) {
    match &newest.state {
        ContainerState::Running { started_at } => (
            ApiState {
                running: Some(ContainerStateRunning {
                    started_at: Some(Time(*started_at)),
                }),
                ..ApiState::default()
            },
            carried,
        ),
        ContainerState::Exited(exit) => {
            let ended = terminated(input, newest, exit);
            match waiting_after_exit(input, container, newest, exit) {
                Some(waiting) => (in_waiting(waiting), Some(in_terminated(ended))),
                None => (in_terminated(ended), carried),
            }
        }
        ContainerState::Created | ContainerState::Unknown if input.ended() => {
            (in_terminated(not_located()), carried)
        }
        ContainerState::Created | ContainerState::Unknown => {
            let waiting =
                failure(input, container).map_or_else(ContainerStateWaiting::default, told);
            (in_waiting(waiting), carried)
        }
    }
}

/// A container that the runtime does not have: not made yet, or lost.
fn unseen(
    input: &StatusInput<'_>,
    container: &Container,
    previous: Option<&ContainerStatus>,
    assumed: Option<ContainerStateTerminated>,
) -> ContainerStatus {
    let mut status = ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        state: Some(in_waiting(waiting_to_start(input, container))),
        last_state: Some(ApiState::default()),
        volume_mounts: volume_mounts(input, container),
        ..ContainerStatus::default()
    };
    if let Some(previous) = previous {
        status.restart_count = previous.restart_count;
        status.last_state = previous.last_state.clone();
        let state = previous.state.as_ref();
        if state.is_some_and(|s| s.terminated.is_some()) {
            return previous.clone();
        }
        if let Some(running) = state.and_then(|s| s.running.as_ref()) {
            let lost = lost(input, running);
            status.container_id = previous.container_id.clone();
            status.image_id = previous.image_id.clone();
            if input.ended() {
                status.state = Some(in_terminated(lost));
            } else if input.stage == Stage::Running {
                status.last_state = Some(in_terminated(lost));
                status.restart_count += 1;
            }
            return status;
        }
    }
    if let Some(assumed) = assumed {
        status.state = Some(in_terminated(assumed));
    } else if input.ended() && previous.is_some() && was_due(input, container) {
        status.state = Some(in_terminated(not_located()));
    }
    status
}

/// The end of a container whose end nobody saw, of a pod that is over.
fn not_located() -> ContainerStateTerminated {
    ContainerStateTerminated {
        reason: Some("ContainerStatusUnknown".into()),
        message: Some("The container could not be located when the pod was terminated".into()),
        exit_code: LOST_EXIT_CODE,
        ..ContainerStateTerminated::default()
    }
}

/// A container whose record is gone because all containers are restarted. `None`
/// if that is not why, or if it was told already.
fn removed_for_restart(
    input: &StatusInput<'_>,
    container: &Container,
    previous: &ContainerStatus,
) -> Option<ContainerStatus> {
    let pod = &input.desired.pod;
    let was_told = input
        .told(ALL_RESTARTING)
        .is_some_and(|c| c.status == "True");
    let restarts = input.restarts_all() || input.stage == Stage::Running && was_told;
    if !restarts || kind_of(pod, &container.name) == ContainerKind::Ephemeral {
        return None;
    }
    let state = previous.state.as_ref()?;
    let ended = state.terminated.as_ref();
    let asked_for_it =
        ended.filter(|ended| after_exit(pod, container, ended.exit_code) == AfterExit::AllRunAgain);
    let last = match (asked_for_it, ended, &state.running) {
        (Some(ended), ..) => ended.clone(),
        (None, Some(ended), _) => killed_for_restart(ended.clone()),
        (None, None, Some(running)) => killed_for_restart(ContainerStateTerminated {
            container_id: previous.container_id.clone(),
            started_at: running.started_at.clone(),
            finished_at: Some(Time(input.now)),
            ..ContainerStateTerminated::default()
        }),
        (None, None, None) => return None,
    };
    Some(ContainerStatus {
        state: Some(in_waiting(ContainerStateWaiting {
            reason: Some(WaitingReason::RestartingAllContainers.as_str().into()),
            message: None,
        })),
        last_state: Some(in_terminated(last)),
        restart_count: previous.restart_count.saturating_add(1),
        ..previous.clone()
    })
}

fn killed_for_restart(ended: ContainerStateTerminated) -> ContainerStateTerminated {
    ContainerStateTerminated {
        exit_code: LOST_EXIT_CODE,
        reason: Some(WaitingReason::RestartingAllContainers.as_str().into()),
        message: None,
        ..ended
    }
}

/// Whether the pod had come to the point of starting this container.
fn was_due(input: &StatusInput<'_>, container: &Container) -> bool {
    let containers = init(&input.desired.pod);
    let has_run = |c: &Container| {
        let told = previous(input, &c.name).and_then(|status| status.state.as_ref());
        input.observed.newest(&c.name).is_some()
            || told.is_some_and(|state| state.running.is_some() || state.terminated.is_some())
    };
    match containers.iter().position(|c| c.name == container.name) {
        Some(index) => index <= containers.iter().rposition(has_run).unwrap_or(0),
        None => containers.iter().all(|c| {
            let exit = input.observed.newest(&c.name).map(ObservedContainer::exit);
            match exit {
                Some(exit) => is_sidecar(c) || exit.is_some_and(Exit::is_success),
                None => false,
            }
        }),
    }
}

fn lost(input: &StatusInput<'_>, running: &ContainerStateRunning) -> ContainerStateTerminated {
    ContainerStateTerminated {
        reason: Some("ContainerStatusUnknown".into()),
        message: Some(
            "The container could not be located when the pod was deleted.  The container used to \
             be Running"
                .into(),
        ),
        exit_code: LOST_EXIT_CODE,
        started_at: running.started_at.clone(),
        finished_at: Some(Time(input.now)),
        ..ContainerStateTerminated::default()
    }
}

/// Why a container that never ran is not running.
fn waiting_to_start(input: &StatusInput<'_>, container: &Container) -> ContainerStateWaiting {
    failure(input, container).map_or_else(
        || {
            let is_ephemeral =
                kind_of(&input.desired.pod, &container.name) == ContainerKind::Ephemeral;
            let reason = if input.restarts_all() && !is_ephemeral {
                WaitingReason::RestartingAllContainers
            } else if init(&input.desired.pod).is_empty() {
                WaitingReason::ContainerCreating
            } else {
                WaitingReason::PodInitializing
            };
            ContainerStateWaiting {
                reason: Some(reason.as_str().into()),
                message: None,
            }
        },
        told,
    )
}

/// What an exited container waits for, if it is to run again and something
/// other than the moment holds it up.
fn waiting_after_exit(
    input: &StatusInput<'_>,
    container: &Container,
    newest: &ObservedContainer,
    exit: &Exit,
) -> Option<ContainerStateWaiting> {
    let pod = &input.desired.pod;
    let memory = input.memory.container(&container.name);
    let restarts = input.stage == Stage::Running
        && !input.restarts_all()
        && runs_again(pod, container, newest, exit, &memory);
    if !restarts {
        return None;
    }
    let backoff = crash_backoff(
        newest,
        exit,
        &hash::container(container),
        input.node.max_crash_backoff,
    );
    if backoff.until > input.now {
        let name = &input.desired.name;
        return Some(ContainerStateWaiting {
            reason: Some(WaitingReason::CrashLoopBackOff.as_str().into()),
            message: Some(format!(
                "back-off {} restarting failed container={} pod={}_{}({})",
                go_duration(backoff.pause),
                container.name,
                name.name,
                name.namespace,
                input.desired.uid
            )),
        });
    }
    if after_exit(pod, container, exit.code) == AfterExit::Stays {
        // It was stopped to be replaced. Readers would take its end for final.
        return Some(waiting_to_start(input, container));
    }
    failure(input, container).map(told)
}

/// The failure that keeps a container from starting, if any.
fn failure(input: &StatusInput<'_>, container: &Container) -> Option<ContainerFailure> {
    let memory = input.memory.containers.get(&container.name)?;
    match &memory.image {
        ImageProgress::Present(_) => memory.start_failure.clone(),
        _ => memory
            .pull_failure
            .clone()
            .or_else(|| memory.start_failure.clone()),
    }
}

fn told(failure: ContainerFailure) -> ContainerStateWaiting {
    ContainerStateWaiting {
        reason: Some(failure.reason.as_str().into()),
        message: Some(failure.failure.message),
    }
}

fn terminated(
    input: &StatusInput<'_>,
    container: &ObservedContainer,
    exit: &Exit,
) -> ContainerStateTerminated {
    ContainerStateTerminated {
        exit_code: exit.code,
        signal: exit.signal,
        reason: Some(exit.reason.clone()).filter(|reason| !reason.is_empty()),
        message: Some(exit.message.clone()).filter(|message| !message.is_empty()),
        started_at: exit.started_at.map(Time),
        finished_at: Some(Time(exit.finished_at)),
        container_id: Some(format!("{}://{}", input.node.runtime_name, container.id)),
    }
}

fn in_terminated(terminated: ContainerStateTerminated) -> ApiState {
    ApiState {
        terminated: Some(terminated),
        ..ApiState::default()
    }
}

fn in_waiting(waiting: ContainerStateWaiting) -> ApiState {
    ApiState {
        waiting: Some(waiting),
        ..ApiState::default()
    }
}

/// Never less than what readers were told.
fn restart_count(attempt: u32, previous: Option<&ContainerStatus>) -> i32 {
    i32::try_from(attempt)
        .unwrap_or(i32::MAX)
        .max(previous.map_or(0, |status| status.restart_count))
}

fn previous<'a>(input: &StatusInput<'a>, name: &str) -> Option<&'a ContainerStatus> {
    let status = input.previous?;
    let lists = [
        status.init_container_statuses.as_deref(),
        status.container_statuses.as_deref(),
        status.ephemeral_container_statuses.as_deref(),
    ];
    lists
        .into_iter()
        .flatten()
        .flatten()
        .find(|status| status.name == name)
}

fn volume_mounts(input: &StatusInput<'_>, container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let mounts = container.volume_mounts.as_ref()?;
    let status = |mount: &VolumeMount| {
        let recursive = match mount.recursive_read_only.as_deref() {
            Some("Enabled") => "Enabled",
            Some("IfPossible") if input.features.recursive_read_only_mounts => "Enabled",
            _ => "Disabled",
        };
        let read_only = mount.read_only.unwrap_or(false);
        VolumeMountStatus {
            name: mount.name.clone(),
            mount_path: mount.mount_path.clone(),
            read_only: read_only.then_some(true),
            recursive_read_only: read_only.then(|| recursive.to_owned()),
            ..VolumeMountStatus::default()
        }
    };
    Some(mounts.iter().map(status).collect())
}

/// A whole number of seconds as Go prints a duration: `10s`, `2m40s`, `5m0s`.
fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, s) => format!("{h}h{m}m{s}s"),
    }
}
