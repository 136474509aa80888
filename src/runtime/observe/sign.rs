//! Signs of change, and whether an observation shows what they announced.
//! Pure; the time is an argument.
//!
//! The runtime tells of a change a moment before its own books have it: a
//! container's exit is told, then its remains are cleaned up, which is told as
//! well, and only then does its status say so. A sign therefore stays until an
//! observation shows it, and readings for its sake come at growing intervals.
//! Most signs announce what we did ourselves and have read already; those cost
//! nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::pod::{ContainerState, ObservedPod, SandboxState};

/// The pause after the first reading that did not show a sign.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A sign that is not seen for so long was wrong, or is left to the relist.
const LIFETIME: Duration = Duration::from_secs(30);

/// What happened to the container (or sandbox) with some ID, in the order in
/// which it can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Sign {
    /// Its process was started.
    Started,
    /// Its process ended.
    Ended,
    /// What remained of its process was cleaned up.
    Reaped,
    /// It was removed.
    Removed,
}

impl Sign {
    /// How long the books usually take; no use in reading before.
    fn delay(self) -> Duration {
        match self {
            // Ours, as a rule, and read by whoever did it.
            Self::Started | Self::Removed => Duration::from_secs(1),
            // `Reaped` follows; this is for when it does not.
            Self::Ended => Duration::from_millis(200),
            Self::Reaped => Duration::ZERO,
        }
    }

    /// Whether the pod, as read, shows it.
    pub(super) fn is_seen(self, id: &str, pod: &ObservedPod) -> bool {
        if let Some(container) = pod.containers.iter().find(|c| c.id.0 == id) {
            match self {
                Self::Started => container.state != ContainerState::Created,
                Self::Ended | Self::Reaped => matches!(container.state, ContainerState::Exited(_)),
                Self::Removed => false,
            }
        } else if let Some(sandbox) = pod.sandboxes.iter().find(|s| s.id.0 == id) {
            match self {
                Self::Started => true,
                Self::Ended | Self::Reaped => sandbox.state == SandboxState::NotReady,
                Self::Removed => false,
            }
        } else {
            // Nothing comes after being gone.
            true
        }
    }
}

/// The signs that no observation has shown yet, by ID.
#[derive(Debug, Default)]
pub(super) struct Signs {
    waiting: BTreeMap<String, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    sign: Sign,
    due: Instant,
    pause: Duration,
    expires: Instant,
}

impl Signs {
    /// A later sign of the same ID takes the place of an earlier one.
    pub(super) fn note(&mut self, id: String, sign: Sign, now: Instant) {
        if self.waiting.get(&id).is_some_and(|old| old.sign >= sign) {
            return;
        }
        let waiting = Waiting {
            sign,
            due: now + sign.delay(),
            pause: FIRST_PAUSE,
            expires: now + LIFETIME,
        };
        self.waiting.insert(id, waiting);
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.waiting.values().map(|waiting| waiting.due).min()
    }

    /// The signs that an observation should show by now. They stay, and come
    /// again after a pause, until [`Signs::settle`] or the end of their life.
    pub(super) fn due(&mut self, now: Instant) -> Vec<(String, Sign)> {
        self.waiting.retain(|_, waiting| waiting.expires > now);
        let mut due = Vec::new();
        for (id, waiting) in &mut self.waiting {
            if waiting.due <= now {
                due.push((id.clone(), waiting.sign));
                waiting.due = now + waiting.pause;
                waiting.pause = (waiting.pause * 2).min(LONGEST_PAUSE);
            }
        }
        due
    }

    pub(super) fn settle(&mut self, id: &str) {
        self.waiting.remove(id);
    }
}
