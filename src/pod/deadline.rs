//! `activeDeadlineSeconds`: a pod that runs longer than its author allowed has
//! failed.

use jiff::Timestamp;

use super::model::{DesiredPod, Intent};

/// `status.reason`, and the event's reason.
pub const REASON: &str = "DeadlineExceeded";
/// `status.message`, and the event's.
pub const MESSAGE: &str = "Pod was active on the node longer than the specified deadline";

/// When the pod's time is up, counted from `started` (`status.startTime`).
/// `None`: it may run for ever, or ends anyway.
#[must_use]
pub fn of(desired: &DesiredPod, started: Timestamp) -> Option<Timestamp> {
    if desired.intent != Intent::Run {
        return None;
    }
    let seconds = desired.pod.spec.as_ref()?.active_deadline_seconds?;
    let allowed = std::time::Duration::from_secs(u64::try_from(seconds).ok()?);
    Some(started.saturating_add(allowed).unwrap_or(Timestamp::MAX))
}

/// Whether the pod's time is up.
#[must_use]
pub fn passed(desired: &DesiredPod, started: Timestamp, now: Timestamp) -> bool {
    of(desired, started).is_some_and(|deadline| deadline <= now)
}
