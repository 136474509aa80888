//! How soon a status must reach the API server. Pure.
//!
//! A pod that starts well says three things within a fraction of a second: it
//! was seen, it has a sandbox, it runs. Nobody can act on the first two, and
//! each is a write to the API server and to all who watch pods. They wait a
//! moment for something better to say; everything else goes out at once.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerStatus, PodStatus};

use super::{Ending, StatusUpdate};

/// How long a status that only says how far a start has come waits for the
/// next one.
pub(super) const PATIENCE: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    AtOnce,
    /// After [`PATIENCE`].
    Unhurried,
}

pub(super) fn pace(update: &StatusUpdate) -> Pace {
    if update.ending == Ending::Live && is_starting(&update.status) {
        Pace::Unhurried
    } else {
        Pace::AtOnce
    }
}

/// Whether the pod is on its way up and nothing has gone wrong so far.
fn is_starting(status: &PodStatus) -> bool {
    let containers = [&status.init_container_statuses, &status.container_statuses];
    status.phase.as_deref() == Some("Pending")
        && status.reason.is_none()
        && containers
            .into_iter()
            .flatten()
            .flatten()
            .all(|container| container.restart_count == 0 && is_well(container))
}

fn is_well(container: &ContainerStatus) -> bool {
    let Some(state) = &container.state else {
        return true;
    };
    let waits_well = state.waiting.as_ref().is_none_or(|waiting| {
        matches!(
            waiting.reason.as_deref(),
            Some("ContainerCreating" | "PodInitializing")
        ) && waiting.message.is_none()
    });
    let ended_well = state
        .terminated
        .as_ref()
        .is_none_or(|end| end.exit_code == 0);
    waits_well && ended_well
}
