//! What the API server is to hold about a pod: its present object and a
//! worker's new status in, the status to be written out. Pure.
//!
//! Sub-second parts of times are left to serialisation, which drops them.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodCondition,
    PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Ending, StatusUpdate};
use crate::pod::containers::{init, regular};
use crate::pod::plan::{AfterExit, after_exit, may_restart_all};

/// Condition types that a node agent owns: set and removed by us alone.
const OWNED: [&str; 8] = [
    "PodScheduled",
    "PodReadyToStartContainers",
    "Initialized",
    "ContainersReady",
    "Ready",
    "PodResizePending",
    "PodResizeInProgress",
    "AllContainersRestarting",
];
/// Condition types that we and others set; ours is told with the end it explains.
const SHARED: [&str; 1] = ["DisruptionTarget"];
/// Bytes that the termination messages of all containers may take together.
const MESSAGE_BYTES: usize = 12 * 1024;

/// Whether a pod of this phase has ended for good.
pub(super) fn is_terminal(phase: Option<&str>) -> bool {
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Merges a worker's status into the API object's. `now` dates conditions and
/// a start that have no date of their own.
pub(super) fn merge(api: &Pod, update: &StatusUpdate, now: Timestamp) -> PodStatus {
    let none = PodStatus::default();
    let old = api.status.as_ref().unwrap_or(&none);
    let mut new = PodStatus::clone(&update.status);
    keep_foreign_fields(old, &mut new);
    keep_phase(old, update, &mut new);
    new.start_time = old
        .start_time
        .clone()
        .or(new.start_time)
        .or(Some(Time(now)));
    new.observed_generation = new.observed_generation.max(old.observed_generation);
    if update.ending > Ending::Live && new.pod_ip.is_none() {
        // The sandbox and its address are gone; the pod's history is not.
        new.pod_ip.clone_from(&old.pod_ip);
        new.pod_ips.clone_from(&old.pod_ips);
    }
    if let Some(spec) = &api.spec {
        keep_containers(api, old, &mut new);
        cut_messages(spec, &mut new);
    }
    new.conditions = merge_conditions(old, &new, now);
    new
}

/// Fields that others write, or that never change once set.
fn keep_foreign_fields(old: &PodStatus, new: &mut PodStatus) {
    new.resource_claim_statuses
        .clone_from(&old.resource_claim_statuses);
    new.extended_resource_claim_status
        .clone_from(&old.extended_resource_claim_status);
    new.node_allocatable_resource_claim_statuses
        .clone_from(&old.node_allocatable_resource_claim_statuses);
    new.nominated_node_name.clone_from(&old.nominated_node_name);
    if old.qos_class.is_some() {
        new.qos_class.clone_from(&old.qos_class);
    }
    if new.host_ip.is_none() {
        new.host_ip.clone_from(&old.host_ip);
    }
    if new.host_ips.is_none() {
        new.host_ips.clone_from(&old.host_ips);
    }
}

/// A terminal phase stays, and is not told while a container may still run.
fn keep_phase(old: &PodStatus, update: &StatusUpdate, new: &mut PodStatus) {
    let has_ended = is_terminal(old.phase.as_deref());
    let ends = is_terminal(new.phase.as_deref());
    let is_held_back = ends && update.ending == Ending::Live;
    let is_same_end = has_ended && new.phase == old.phase;
    if is_same_end {
        if new.reason.is_none() && new.message.is_none() {
            new.reason.clone_from(&old.reason);
            new.message.clone_from(&old.message);
        }
    } else if has_ended || is_held_back {
        new.phase.clone_from(&old.phase);
        new.reason.clone_from(&old.reason);
        new.message.clone_from(&old.message);
    } else if !ends && update.ending == Ending::Gone && !update.pod.origin.is_static() {
        // Nothing of the pod is left, so it did not succeed; without a terminal
        // phase its object could never be deleted.
        new.phase = Some("Failed".into());
    }
}

fn merge_conditions(old: &PodStatus, new: &PodStatus, now: Timestamp) -> Option<Vec<PodCondition>> {
    let old_conditions = old.conditions.as_deref().unwrap_or_default();
    let new_conditions = new.conditions.as_deref().unwrap_or_default();
    let ends = !is_terminal(old.phase.as_deref()) && is_terminal(new.phase.as_deref());
    let is_told = |condition: &PodCondition| {
        let type_ = condition.type_.as_str();
        OWNED.contains(&type_) || (ends && SHARED.contains(&type_))
    };
    let mut told: Vec<PodCondition> = new_conditions
        .iter()
        .filter(|condition| is_told(condition))
        .cloned()
        .collect();
    if is_terminal(new.phase.as_deref()) {
        withdraw_readiness(new.phase.as_deref(), &mut told);
    }
    for condition in &mut told {
        date(condition, find(old_conditions, &condition.type_), now);
    }
    let is_kept = |condition: &&PodCondition| {
        let type_ = condition.type_.as_str();
        // The scheduler was first to say it; a status without it does not deny it.
        let is_foreign = !OWNED.contains(&type_) || type_ == "PodScheduled";
        is_foreign && find(&told, type_).is_none()
    };
    let mut all: Vec<PodCondition> = old_conditions.iter().filter(is_kept).cloned().collect();
    all.append(&mut told);
    (!all.is_empty()).then_some(all)
}

fn find<'a>(conditions: &'a [PodCondition], type_: &str) -> Option<&'a PodCondition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// The time of a condition is that of its last change of status.
fn date(condition: &mut PodCondition, old: Option<&PodCondition>, now: Timestamp) {
    let unchanged = old.filter(|old| old.status == condition.status);
    condition.last_transition_time = unchanged
        .and_then(|old| old.last_transition_time.clone())
        .or(condition.last_transition_time.take())
        .or(Some(Time(now)));
}

/// A pod that has ended is not ready, even if its last probe said so.
fn withdraw_readiness(phase: Option<&str>, conditions: &mut [PodCondition]) {
    let reason = if phase == Some("Succeeded") {
        "PodCompleted"
    } else {
        "PodFailed"
    };
    for condition in conditions {
        let is_readiness = matches!(condition.type_.as_str(), "Ready" | "ContainersReady");
        if is_readiness && condition.status == "True" {
            condition.status = "False".into();
            condition.reason = Some(reason.into());
            condition.message = None;
            condition.last_transition_time = None;
        }
    }
}

/// Restart counts never fall, and a container that may not be restarted does
/// not come back from its end.
fn keep_containers(pod: &Pod, old: &PodStatus, new: &mut PodStatus) {
    keep_list(
        pod,
        init(pod),
        old.init_container_statuses.as_deref(),
        new.init_container_statuses.as_mut(),
    );
    keep_list(
        pod,
        regular(pod),
        old.container_statuses.as_deref(),
        new.container_statuses.as_mut(),
    );
    // Ephemeral containers run once.
    keep_list(
        pod,
        &[],
        old.ephemeral_container_statuses.as_deref(),
        new.ephemeral_container_statuses.as_mut(),
    );
}

/// `containers`: the definitions of those that may ever come back.
fn keep_list(
    pod: &Pod,
    containers: &[Container],
    old: Option<&[ContainerStatus]>,
    new: Option<&mut Vec<ContainerStatus>>,
) {
    let old = old.unwrap_or_default();
    let all_may_restart = may_restart_all(pod);
    let may_restart = |name: &str, end: &ContainerStateTerminated| {
        let container = containers.iter().find(|c| c.name == name);
        container.is_some_and(|container| {
            all_may_restart || after_exit(pod, container, end.exit_code) != AfterExit::Stays
        })
    };
    for status in new.into_iter().flatten() {
        let Some(before) = old.iter().find(|before| before.name == status.name) else {
            continue;
        };
        let restart_count = status.restart_count.max(before.restart_count);
        if let Some(end) = terminated(before.state.as_ref())
            && terminated(status.state.as_ref()).is_none()
            && !may_restart(&status.name, end)
        {
            *status = before.clone();
        }
        status.restart_count = restart_count;
    }
}

fn terminated(state: Option<&ContainerState>) -> Option<&ContainerStateTerminated> {
    state.and_then(|state| state.terminated.as_ref())
}

/// Cuts each termination message to its container's share.
fn cut_messages(spec: &PodSpec, new: &mut PodStatus) {
    let containers = spec.containers.len()
        + spec.init_containers.as_ref().map_or(0, Vec::len)
        + spec.ephemeral_containers.as_ref().map_or(0, Vec::len);
    let share = MESSAGE_BYTES / containers.max(1);
    let statuses = [
        &mut new.init_container_statuses,
        &mut new.container_statuses,
        &mut new.ephemeral_container_statuses,
    ];
    for status in statuses.into_iter().flatten().flatten() {
        for state in [&mut status.state, &mut status.last_state] {
            if let Some(end) = state.as_mut().and_then(|state| state.terminated.as_mut())
                && let Some(message) = &mut end.message
            {
                message.truncate(message.floor_char_boundary(share));
            }
        }
    }
}
