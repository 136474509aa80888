//! What is left to do of a resize that was granted.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Container;
use serde::Serialize;

use super::containers::stop;
use super::{PlanInput, StopContainer, StopReason};
use crate::pod::containers::find;
use crate::pod::model::{WaitOn, Wakeup};
use crate::pod::observed::{ContainerId, ContainerState, ObservedContainer};
use crate::pod::resize::CgroupAim;

/// A running container whose resources are to be changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ContainerUpdate {
    pub id: ContainerId,
    pub name: String,
}

/// Everything that is left.
#[derive(Debug, Default)]
pub(super) struct Resize {
    pub(super) updates: Vec<ContainerUpdate>,
    /// Containers that want to be restarted for it.
    pub(super) stops: Vec<StopContainer>,
    pub(super) wait: Option<Wakeup>,
    /// What the pod's cgroup is to have, if it has not yet.
    pub(super) cgroup: Option<CgroupAim>,
}

pub(super) fn decide(input: &PlanInput<'_>) -> Resize {
    let mut resize = Resize::default();
    let Some(underway) = &input.memory.resize.underway else {
        return resize;
    };
    if let Some(wait) = super::end::retry_later(underway.failure.as_ref(), input.now) {
        resize.wait = Some(Wakeup {
            on: WaitOn::StepRetry,
            ..wait
        });
        return resize;
    }
    for (name, changes) in &underway.changes {
        let Some(container) = input.observed.newest(name).filter(|c| runs(c)) else {
            continue;
        };
        let Some(definition) = find(&input.desired.pod, name) else {
            continue;
        };
        if underway.done.contains(&container.id) {
            continue;
        }
        if !wants_restart(&definition, changes) {
            resize.updates.push(ContainerUpdate {
                id: container.id.clone(),
                name: name.clone(),
            });
        } else if container.created_at < underway.since {
            let why = StopReason::Resized;
            resize.stops.push(stop(input, &definition, container, why));
        }
    }
    let aim = if resize.stops.is_empty() {
        CgroupAim::New
    } else {
        CgroupAim::Both
    };
    resize.cgroup = Some(aim).filter(|_| underway.cgroup < Some(aim));
    resize
}

fn runs(container: &ObservedContainer) -> bool {
    matches!(container.state, ContainerState::Running { .. })
}

/// Whether one of the resources that change is one that the container wants to
/// be restarted for.
fn wants_restart(container: &Container, changes: &BTreeSet<String>) -> bool {
    let mut policies = container.resize_policy.iter().flatten();
    policies.any(|policy| {
        policy.restart_policy == "RestartContainer" && changes.contains(&policy.resource_name)
    })
}
