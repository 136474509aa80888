//! The ports through which the rest of the agent uses the runtime. Three small
//! ones, because no user needs all of it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::{ImageError, RuntimeError};
use crate::pod::spec::{ContainerSpec, ImageRequest, PresentImage, SandboxSpec};
use crate::pod::{ContainerId, ObservedPod, PodName, PodUid, SandboxId};

/// The verbs that change what runs. All are idempotent: stopping or removing
/// what is gone succeeds. Each call has a deadline of its own.
#[async_trait]
pub trait Sandboxes: Send + Sync {
    /// Makes the log directory, then CRI `RunPodSandbox`.
    async fn run_sandbox(&self, spec: &SandboxSpec) -> Result<SandboxId, RuntimeError>;
    async fn stop_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError>;
    async fn remove_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError>;
    /// Makes the container's log directory, then CRI `CreateContainer`.
    async fn create_container(
        &self,
        sandbox: &SandboxId,
        spec: &ContainerSpec,
        sandbox_spec: &SandboxSpec,
    ) -> Result<ContainerId, RuntimeError>;
    /// CRI `StartContainer`, then the `/var/log/containers` link.
    async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError>;
    /// Stop signal, then SIGKILL after `grace` (never below the 2 s that
    /// upstream grants). A second call with a shorter grace takes over.
    /// Dropping the future takes back the SIGKILL to come, not the stop signal;
    /// a further call counts its grace anew.
    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), RuntimeError>;
    /// Removes the container, its log files and its log link.
    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError>;
    /// Removes the pod's whole log directory; for a pod that is gone for good.
    async fn remove_pod_logs(&self, uid: &PodUid, name: &PodName) -> Result<(), RuntimeError>;
    /// The highest restart count that the container's log files on disk tell
    /// of; `None` without any. Covers records lost by the runtime.
    async fn last_logged_attempt(
        &self,
        uid: &PodUid,
        name: &PodName,
        container: &str,
    ) -> Option<u32>;
}

/// Images: presence and pulls.
#[async_trait]
pub trait Images: Send + Sync {
    /// Looks the image up and pulls it as the policy says. Equal pulls under
    /// way are shared; the number of pulls at a time and their rate are
    /// capped. `progress` is told what an event is worth.
    async fn ensure_image(
        &self,
        request: &ImageRequest,
        progress: &(dyn Fn(ImageProgressEvent) + Send + Sync),
    ) -> Result<PresentImage, ImageError>;
}

/// What [`Images::ensure_image`] reports while it works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageProgressEvent {
    /// A pull is about to begin (or is queued).
    Pulling,
    AlreadyPresent,
    Pulled {
        took: Duration,
        took_with_wait: Duration,
        /// Bytes.
        size: u64,
    },
}

/// An image that the runtime has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalImage {
    /// `name@sha256:…`.
    pub repo_digests: Vec<String>,
    /// `name:tag`.
    pub repo_tags: Vec<String>,
    pub size_bytes: i64,
}

/// The pods of which the runtime has anything, in no particular order; `None`
/// until the first full observation is in.
pub type KnownPods = Option<Arc<Vec<(PodUid, PodName)>>>;

/// The runtime's read side.
#[async_trait]
pub trait Observer: Send + Sync {
    /// Reads the pod anew and returns what was read: newer than any change
    /// that had returned when this was called. Watchers see it as well.
    async fn refresh(&self, uid: &PodUid, name: &PodName)
    -> Result<Arc<ObservedPod>, RuntimeError>;
    /// Follows one pod. The first value may be older than a change just made;
    /// before the first reading it is [`ObservedPod::absent`] at the Unix
    /// epoch, so whoever acts on it refreshes first.
    fn watch(&self, uid: &PodUid, name: &PodName) -> watch::Receiver<Arc<ObservedPod>>;
    /// Which pods there are; told when one comes or goes.
    fn pods(&self) -> watch::Receiver<KnownPods>;
    fn health(&self) -> watch::Receiver<RuntimeHealth>;
}

/// The runtime's own word on itself (CRI `Version` and `Status`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RuntimeHealth {
    /// Whether one check has ended, well or badly.
    pub checked: bool,
    /// `Err`: why the runtime cannot take work (CRI condition RuntimeReady, or
    /// no answer).
    pub runtime: Option<ConditionFailure>,
    /// Why pod networking cannot be set up (CRI condition NetworkReady).
    pub network: Option<ConditionFailure>,
    /// When a check last went well.
    pub last_good: Option<jiff::Timestamp>,
    pub name: String,
    pub version: String,
    pub handlers: Vec<RuntimeHandler>,
    pub supplemental_groups_policy: bool,
}

/// [`RuntimeHealth::runtime`] has this reason when the runtime has been silent
/// for too long, so that the failure is our word and not its own.
pub const RUNTIME_DOWN: &str = "ContainerRuntimeDown";

/// A CRI condition that is false.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConditionFailure {
    pub reason: String,
    pub message: String,
}

/// A runtime handler and what it can do (CRI `RuntimeHandler`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeHandler {
    pub name: String,
    pub recursive_read_only_mounts: bool,
    pub user_namespaces: bool,
}
