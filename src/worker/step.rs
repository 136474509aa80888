//! How steps end, and what is remembered of it. No effects here.

use crate::pod::inputs::MountedVolumes;
use crate::pod::resize::CgroupAim;
use crate::pod::spec::PresentImage;
use crate::pod::{ContainerId, SandboxId, WaitingReason};

/// The end of one step.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcome {
    Cgroup(Result<(), String>),
    Volumes(Result<MountedVolumes, String>),
    Sandbox(Result<(), String>),
    Image {
        container: String,
        /// As the pod names it.
        image: String,
        result: Result<PresentImage, StartFailure>,
    },
    Start {
        container: String,
        result: Result<(), StartFailure>,
    },
    Resized {
        /// The instances that have their new resources.
        done: Vec<ContainerId>,
        /// What the pod's cgroup was to get.
        aim: CgroupAim,
        result: Result<(), String>,
    },
    ContainersStopped {
        /// Stopped because their definition changed.
        redefined: Vec<String>,
        /// Their pre-stop hooks have had their time.
        hooked: Vec<ContainerId>,
        result: Result<(), String>,
    },
    SandboxStopped {
        id: SandboxId,
        result: Result<(), String>,
    },
    VolumesUnmounted(Result<(), String>),
    CgroupRemoved(Result<(), String>),
    ContainerRemoved {
        id: ContainerId,
        result: Result<(), String>,
    },
    SandboxRemoved {
        id: SandboxId,
        result: Result<(), String>,
    },
    TracesRemoved(Result<(), String>),
}

/// Why a container did not start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StartFailure {
    pub(super) reason: WaitingReason,
    pub(super) message: String,
}

impl Outcome {
    /// What was tried, for people.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Cgroup(_) => "create the pod's cgroup",
            Self::Volumes(_) => "mount volumes",
            Self::Sandbox(_) => "create the sandbox",
            Self::Image { .. } => "pull the image",
            Self::Start { .. } => "start the container",
            Self::Resized { .. } => "resize the pod",
            Self::ContainersStopped { .. } => "stop containers",
            Self::SandboxStopped { .. } => "stop the sandbox",
            Self::VolumesUnmounted(_) => "unmount volumes",
            Self::CgroupRemoved(_) => "remove the pod's cgroup",
            Self::ContainerRemoved { .. } => "remove a container",
            Self::SandboxRemoved { .. } => "remove the sandbox",
            Self::TracesRemoved(_) => "remove logs and directory",
        }
    }

    /// The failure's text, if it failed.
    pub(super) fn error(&self) -> Option<String> {
        match self {
            Self::Volumes(result) => result.as_ref().err().cloned(),
            Self::Image { result, .. } => result.as_ref().err().map(|e| e.message.clone()),
            Self::Start { result, .. } => result.as_ref().err().map(|e| e.message.clone()),
            Self::Cgroup(result)
            | Self::Sandbox(result)
            | Self::VolumesUnmounted(result)
            | Self::CgroupRemoved(result)
            | Self::TracesRemoved(result)
            | Self::Resized { result, .. }
            | Self::ContainersStopped { result, .. }
            | Self::SandboxStopped { result, .. }
            | Self::ContainerRemoved { result, .. }
            | Self::SandboxRemoved { result, .. } => result.as_ref().err().cloned(),
        }
    }
}
