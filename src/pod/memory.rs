//! The little that a pod's worker must remember between plans and that the
//! runtime cannot tell: failures and when to try again, and what is mounted.
//!
//! Everything here may be lost at any time (the agent is killed) at the price
//! of one extra attempt: restart counts, crash back-off and exits are read
//! from the runtime.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::inputs::MountedVolumes;
use super::model::WaitingReason;
use super::observed::{ContainerId, SandboxId};
use super::probe::Verdicts;
use super::resize::ResizeMemory;
use super::spec::PresentImage;

#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct PodMemory {
    /// When this process first saw the pod; `startTime` for want of an older
    /// trace.
    pub first_seen: Option<Timestamp>,
    pub cgroup: Progress<()>,
    pub volumes: Progress<MountedVolumes>,
    /// How many changes of what the volumes show were heard of.
    pub volume_changes: u64,
    /// The last failure to bring mounted volumes up to date.
    pub volume_renewal: Option<Failure>,
    /// Failures to create a sandbox. `Done` is never stored: the sandbox is
    /// observed.
    pub sandbox: Progress<()>,
    /// By container name.
    pub containers: BTreeMap<String, ContainerMemory>,
    /// Sandboxes whose stop this process has seen through. Stopping also
    /// releases the network of a sandbox that died by itself, so it is owed
    /// once to each.
    pub stopped_sandboxes: BTreeSet<SandboxId>,
    /// Containers whose pre-stop hook has had its time, and whose stop failed
    /// after it.
    pub pre_stopped: BTreeSet<ContainerId>,
    /// A plan once found that the pod's work is over. It stays so, even when
    /// the records that said it are cleaned away.
    pub over: bool,
    /// The pod's directory and logs.
    pub traces: Progress<()>,
    /// A resize that waits or is on its way.
    pub resize: ResizeMemory,
    /// The last failure to stop or remove something; retried for ever.
    pub teardown: Option<Failure>,
}

impl PodMemory {
    /// What is remembered of a container; nothing for an unknown name.
    #[must_use]
    pub fn container(&self, name: &str) -> ContainerMemory {
        self.containers.get(name).cloned().unwrap_or_default()
    }
}

/// How far a thing has come that the worker does for the pod.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub enum Progress<T> {
    /// Not done by this process. It may have been done by an earlier one, so
    /// doing it must be idempotent.
    #[default]
    Todo,
    Done(T),
    Failed(Failure),
    /// Undone again, on the pod's way out.
    Undone,
}

impl<T> Progress<T> {
    #[must_use]
    pub fn done(&self) -> Option<&T> {
        match self {
            Self::Done(value) => Some(value),
            _ => None,
        }
    }

    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Failed(failure) => Some(failure),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct ContainerMemory {
    pub image: ImageProgress,
    /// The last failed pull: still what readers are told while the next one is
    /// under way, and what its pause grows from.
    pub pull_failure: Option<ContainerFailure>,
    /// Why the last attempt to create or start it failed. Cleared by a start.
    pub start_failure: Option<ContainerFailure>,
    /// The running instance was stopped because its definition changed: the
    /// next one starts whatever the restart policy says.
    pub redefined: bool,
    /// What its probes have come to say.
    pub probes: Verdicts,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub enum ImageProgress {
    /// To be looked up (or pulled) before the next start.
    #[default]
    Unknown,
    Pulling {
        since: Timestamp,
    },
    Present(PresentImage),
    Failed(ContainerFailure),
}

/// A failure that keeps one container from starting.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ContainerFailure {
    pub reason: WaitingReason,
    pub failure: Failure,
}

/// Something went wrong and will be tried again.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Failure {
    pub message: String,
    pub since: Timestamp,
    /// The pause that `until` was computed from.
    pub pause: Duration,
    pub until: Timestamp,
}

impl Failure {
    /// The failure that follows `previous`: its pause doubles, from
    /// `pauses.first` up to `pauses.max`.
    #[must_use]
    pub fn after(
        previous: Option<&Failure>,
        message: String,
        pauses: Pauses,
        now: Timestamp,
    ) -> Self {
        let pause = previous.map_or(pauses.first, |p| (p.pause * 2).min(pauses.max));
        Self {
            message,
            since: previous.map_or(now, |p| p.since),
            pause,
            until: now + pause,
        }
    }

    #[must_use]
    pub fn is_due(&self, now: Timestamp) -> bool {
        now >= self.until
    }
}

/// An exponential schedule: `first`, then twice as long each time, at most
/// `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pauses {
    pub first: Duration,
    pub max: Duration,
}

impl Pauses {
    /// Image pulls, as upstream.
    pub const IMAGE: Self = Self {
        first: Duration::from_secs(10),
        max: Duration::from_secs(300),
    };
    /// New contents for volumes that are mounted: what is missing is heard of
    /// when it appears.
    pub const RENEWAL: Self = Self {
        first: Duration::from_secs(1),
        max: Duration::from_secs(120),
    };
    /// Everything a worker retries for its own pod: sandbox, volumes, cgroup,
    /// container creation, tear-down.
    pub const STEP: Self = Self {
        first: Duration::from_secs(1),
        max: Duration::from_secs(10),
    };
}
