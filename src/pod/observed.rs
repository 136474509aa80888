//! What the runtime has of one pod. This is the truth that plans start from;
//! nobody keeps a second copy of container state.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::Serialize;

use super::hook::Hook;
use super::model::{PodName, PodUid};

macro_rules! runtime_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

runtime_id!(
    /// The runtime's ID of a sandbox.
    SandboxId
);
runtime_id!(
    /// The runtime's ID of a container, without the `<runtime>://` scheme.
    ContainerId
);

/// Everything of one pod that the runtime knows, read at one time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ObservedPod {
    pub uid: PodUid,
    /// From the labels of its sandbox or containers.
    pub name: PodName,
    /// Newest first: by attempt, then by creation time.
    pub sandboxes: Vec<ObservedSandbox>,
    /// All instances of all containers, newest first: by attempt, then by
    /// creation time. (Clocks step; attempts do not.)
    pub containers: Vec<ObservedContainer>,
    /// When the reading began.
    pub observed_at: Timestamp,
}

impl ObservedPod {
    /// The reading of a pod of which the runtime has nothing.
    #[must_use]
    pub fn absent(uid: PodUid, name: PodName, observed_at: Timestamp) -> Self {
        Self {
            uid,
            name,
            sandboxes: Vec::new(),
            containers: Vec::new(),
            observed_at,
        }
    }

    /// Whether the runtime holds nothing of this pod.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.sandboxes.is_empty() && self.containers.is_empty()
    }

    /// The newest instance of the named container.
    #[must_use]
    pub fn newest(&self, container: &str) -> Option<&ObservedContainer> {
        self.containers.iter().find(|c| c.name == container)
    }

    /// All instances of the named container, newest first.
    pub fn instances<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a ObservedContainer> {
        self.containers.iter().filter(move |c| c.name == name)
    }

    /// The one sandbox containers may be created in, if it is up.
    #[must_use]
    pub fn ready_sandbox(&self) -> Option<&ObservedSandbox> {
        self.sandboxes
            .first()
            .filter(|sandbox| sandbox.state == SandboxState::Ready)
    }

    /// Containers that are running, or that may be (state unknown).
    pub fn live_containers(&self) -> impl Iterator<Item = &ObservedContainer> {
        self.containers.iter().filter(|c| c.state.is_live())
    }
}

/// One sandbox (CRI `PodSandboxStatus`).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ObservedSandbox {
    pub id: SandboxId,
    pub attempt: u32,
    pub state: SandboxState,
    pub created_at: Timestamp,
    /// Pod IPs, primary first. Empty for a host-network sandbox.
    pub ips: Vec<IpAddr>,
    pub host_network: bool,
    /// The handler that runs it; empty for the runtime's default.
    pub runtime_handler: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum SandboxState {
    Ready,
    NotReady,
}

/// One instance of a container (CRI `ContainerStatus`).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ObservedContainer {
    pub id: ContainerId,
    pub sandbox: SandboxId,
    pub name: String,
    /// Restart count at creation: 0 for the first instance.
    pub attempt: u32,
    pub state: ContainerState,
    pub created_at: Timestamp,
    /// The image as the runtime names it (`status.image`).
    pub image: String,
    /// The image's digest reference (`status.imageID`).
    pub image_ref: String,
    /// What the agent wrote on the container when it created it.
    pub stamp: ContainerStamp,
    /// Effective user, where the runtime reports one (containerd 2.x).
    pub user: Option<LinuxUser>,
}

impl ObservedContainer {
    /// How it ended; `None` if it has not.
    #[must_use]
    pub fn exit(&self) -> Option<&Exit> {
        match &self.state {
            ContainerState::Exited(exit) => Some(exit),
            _ => None,
        }
    }
}

/// The facts that the agent leaves on a container so that a later process can
/// go on from them (annotations `io.kubernetes.container.*` and our own).
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct ContainerStamp {
    /// Hash of the parts of the spec whose change restarts the container.
    pub hash: String,
    /// The crash back-off that was in force when this instance was created;
    /// the next one doubles it.
    pub backoff: Option<std::time::Duration>,
    /// What is to be done before it is stopped, for want of its pod.
    pub pre_stop: Option<Hook>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum ContainerState {
    /// Created, not started.
    Created,
    Running {
        started_at: Timestamp,
    },
    Exited(Exit),
    /// The runtime lost track of it; it may run.
    Unknown,
}

impl ContainerState {
    /// Whether it runs, or may run.
    #[must_use]
    pub fn is_live(&self) -> bool {
        matches!(self, Self::Running { .. } | Self::Unknown)
    }
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Exit {
    pub code: i32,
    pub signal: Option<i32>,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`, ….
    pub reason: String,
    /// The runtime's message, and the termination message after it.
    pub message: String,
    /// `None` if it never started.
    pub started_at: Option<Timestamp>,
    pub finished_at: Timestamp,
}

impl Exit {
    /// Whether the container did its work. One that was killed for want of
    /// memory did not, whatever its first process says.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.code == 0 && self.reason != "OOMKilled"
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LinuxUser {
    pub uid: i64,
    pub gid: i64,
    pub supplemental_groups: Vec<i64>,
}
