//! The next API call that a pod's status needs. Pure.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::Value;

use super::merge::{is_terminal, merge};
use super::{Ending, StatusUpdate, patch};

/// One API call, or none.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// The API object says what it should.
    Rest,
    Patch(Value),
    /// All is told and nothing is left: the object may go.
    Finalise,
}

/// Compares what the API server holds with a worker's newest status. `futile`
/// is a patch that it accepted without changing anything.
pub(super) fn next_step(
    update: &StatusUpdate,
    api: &Pod,
    futile: Option<&Value>,
    now: Timestamp,
) -> Result<Step, serde_json::Error> {
    let none = PodStatus::default();
    let told = api.status.as_ref().unwrap_or(&none);
    let merged = merge(api, update, now);
    let uid = api.metadata.uid.as_deref().unwrap_or_default();
    if let Some(body) = patch::diff(uid, told, &merged)?
        && Some(&body) != futile
    {
        return Ok(Step::Patch(body));
    }
    // A mirror is deleted by its own rules; its static pod lives on.
    let may_go = update.ending == Ending::Gone
        && !update.pod.origin.is_static()
        && api.metadata.deletion_timestamp.is_some()
        && is_terminal(told.phase.as_deref());
    Ok(if may_go { Step::Finalise } else { Step::Rest })
}

/// The fresher of what a watch shows and what our last write was answered.
/// A watch lags behind our writes for a moment.
pub(super) fn fresher<'a>(watched: &'a Arc<Pod>, answered: Option<&'a Arc<Pod>>) -> &'a Arc<Pod> {
    match answered {
        Some(answered) if is_newer(answered, watched) => answered,
        _ => watched,
    }
}

/// Whether `one` is a later version than `other` of the same object. Versions
/// that are not numbers cannot be compared.
fn is_newer(one: &Pod, other: &Pod) -> bool {
    let version =
        |pod: &Pod| -> Option<u64> { pod.metadata.resource_version.as_deref()?.parse().ok() };
    one.metadata.uid == other.metadata.uid
        && matches!((version(one), version(other)), (Some(one), Some(other)) if one > other)
}
