//! Whether, and when, a container that exited runs again.
//!
//! The crash back-off lives on the containers themselves: each instance is
//! stamped with the pause that was in force when it was created, so a new agent
//! process goes on with the same schedule.

use std::time::Duration;

use jiff::Timestamp;

use crate::pod::observed::{Exit, ObservedContainer};

/// Pause before the second restart; the first is immediate.
const FIRST_BACKOFF: Duration = Duration::from_secs(10);
/// An instance that lived this long clears its history.
const BACKOFF_RESET: Duration = Duration::from_secs(600);

/// When the next instance may start, and how it is to be stamped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrashBackoff {
    /// Not before this time.
    pub until: Timestamp,
    /// The pause that `until` came from; zero for an immediate restart.
    pub pause: Duration,
    /// Stamp of the next instance.
    pub next: Duration,
}

/// The back-off after `exit` of `container`. A changed definition (`hash`)
/// starts from nothing.
#[must_use]
pub fn crash_backoff(
    container: &ObservedContainer,
    exit: &Exit,
    hash: &str,
    max: Duration,
) -> CrashBackoff {
    let lived = exit.finished_at.duration_since(container.created_at);
    let pause = match container.stamp.backoff {
        Some(pause) if container.stamp.hash == hash && lived.unsigned_abs() <= BACKOFF_RESET => {
            pause.min(max)
        }
        _ => Duration::ZERO,
    };
    let next = if pause.is_zero() {
        FIRST_BACKOFF.min(max)
    } else {
        (pause * 2).min(max)
    };
    CrashBackoff {
        until: exit.finished_at + pause,
        pause,
        next,
    }
}

/// The pod's restart policy, applied to an exit.
#[must_use]
pub fn may_restart(policy: &str, exit_code: i32) -> bool {
    match policy {
        "Never" => false,
        "OnFailure" => exit_code != 0,
        _ => true,
    }
}
