//! What the calls of a [`FakeRuntime`](super::FakeRuntime) are to meet.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;

use super::super::RuntimeError;

/// The kinds of calls that can be scripted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    RunSandbox,
    StopSandbox,
    RemoveSandbox,
    CreateContainer,
    StartContainer,
    StopContainer,
    UpdateContainer,
    RemoveContainer,
    RemovePodLogs,
    /// `ensure_image`, before it looks.
    EnsureImage,
    /// The pull itself, if one is needed.
    PullImage,
    Refresh,
    Exec,
    Attach,
    PortForward,
    ExecSync,
    Checkpoint,
    /// Either of the port `Usage`.
    Usage,
}

impl Call {
    /// CRI's name for it, as in real errors.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RunSandbox => "RunPodSandbox",
            Self::StopSandbox => "StopPodSandbox",
            Self::RemoveSandbox => "RemovePodSandbox",
            Self::CreateContainer => "CreateContainer",
            Self::StartContainer => "StartContainer",
            Self::StopContainer => "StopContainer",
            Self::UpdateContainer => "UpdateContainerResources",
            Self::RemoveContainer => "RemoveContainer",
            Self::RemovePodLogs => "RemovePodLogs",
            Self::EnsureImage => "ImageStatus",
            Self::PullImage => "PullImage",
            Self::Refresh => "ListContainers",
            Self::Exec => "Exec",
            Self::Attach => "Attach",
            Self::PortForward => "PortForward",
            Self::ExecSync => "ExecSync",
            Self::Checkpoint => "CheckpointContainer",
            Self::Usage => "ListContainerStats",
        }
    }
}

/// A call that was made.
#[derive(Debug, Clone, PartialEq)]
pub struct Called {
    pub call: Call,
    /// Pod `namespace/name`, `namespace/name/container`, or an image name.
    pub subject: String,
    pub at: Timestamp,
}

/// What can go wrong with a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The runtime says no.
    Refused(String),
    /// The object is not there.
    NotFound,
    /// The socket is dead.
    Unreachable,
    /// No answer, and no effect.
    Timeout,
    /// No answer, although the runtime did what it was asked.
    TimeoutAfterEffect,
    /// Neither answer nor effect before [`heal`](super::FakeRuntime::heal),
    /// for this call and all of its kind that follow.
    Hang,
}

impl Fault {
    pub(super) fn into_error(self, call: Call) -> RuntimeError {
        let call_name = call.as_str();
        match self {
            Self::Refused(message) => RuntimeError::Refused {
                call: call_name,
                message,
            },
            Self::NotFound => RuntimeError::NotFound {
                call: call_name,
                message: "scripted".to_owned(),
            },
            Self::Unreachable => RuntimeError::Unreachable {
                call: call_name,
                message: "scripted".to_owned(),
            },
            Self::Timeout | Self::TimeoutAfterEffect | Self::Hang => super::timeout(call),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Script {
    lines: BTreeMap<Call, Line>,
}

#[derive(Debug, Default)]
struct Line {
    next: VecDeque<Fault>,
    always: Option<Fault>,
    latency: Duration,
    /// Calls that met a hang go on hanging until the line is healed.
    hanging: bool,
}

/// What one call meets.
pub(super) struct Turn {
    pub latency: Duration,
    pub fault: Option<Fault>,
}

impl Script {
    pub(super) fn next(&mut self, call: Call, fault: Fault) {
        self.lines.entry(call).or_default().next.push_back(fault);
    }

    pub(super) fn always(&mut self, call: Call, fault: Fault) {
        self.lines.entry(call).or_default().always = Some(fault);
    }

    pub(super) fn delay(&mut self, call: Call, latency: Duration) {
        self.lines.entry(call).or_default().latency = latency;
    }

    pub(super) fn heal(&mut self, call: Call) {
        self.lines.remove(&call);
    }

    pub(super) fn turn(&mut self, call: Call) -> Turn {
        let Some(line) = self.lines.get_mut(&call) else {
            return Turn {
                latency: Duration::ZERO,
                fault: None,
            };
        };
        let fault = line.next.pop_front().or_else(|| line.always.clone());
        line.hanging |= fault == Some(Fault::Hang);
        Turn {
            latency: line.latency,
            fault,
        }
    }

    /// Whether a call that hangs has to go on hanging.
    pub(super) fn hangs(&self, call: Call) -> bool {
        self.lines.get(&call).is_some_and(|line| line.hanging)
    }
}
