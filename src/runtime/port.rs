//! The ports through which the rest of the agent uses the runtime. Four small
//! ones, because no user needs all of it.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::{ExecError, ImageError, RuntimeError};
use crate::pod::inputs::RuntimeFeatures;
use crate::pod::spec::{ContainerSpec, ImageRequest, LinuxResources, PresentImage, SandboxSpec};
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
    /// CRI `UpdateContainerResources` of a running container; 0 leaves a value
    /// as it is, -1 lifts a limit.
    async fn update_container(
        &self,
        id: &ContainerId,
        resources: &LinuxResources,
    ) -> Result<(), RuntimeError>;
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
    /// The pulls under way, and how far they have come just now.
    async fn pulls(&self) -> RunningPulls;
}

/// The pulls under way. The runtime's store does not tell for which image it
/// fetches what, so the progress is that of all together.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RunningPulls {
    pub pulls: Vec<RunningPull>,
    /// `None`: nothing is fetched, or the runtime does not tell.
    pub fetched: Option<FetchProgress>,
}

/// A pull that somebody waits for.
#[derive(Debug, Clone, PartialEq)]
pub struct RunningPull {
    /// As the pod has it.
    pub image: String,
    pub pods: Vec<PodName>,
    pub since: jiff::Timestamp,
    /// Whether it has had its turn; until then it waits for others.
    pub begun: bool,
}

/// What is being written to the runtime's store. Finished parts are not in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct FetchProgress {
    /// Layers and manifests.
    pub parts: usize,
    /// Bytes that are there.
    pub bytes: u64,
    /// Bytes of these parts when they are done, as far as known.
    pub total_bytes: u64,
}

impl std::fmt::Display for FetchProgress {
    /// `2 parts, 1.5 of 30.0 MiB`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tenths = |bytes: u64| {
            let tenths = bytes.saturating_mul(10) >> 20;
            format!("{}.{}", tenths / 10, tenths % 10)
        };
        let plural = if self.parts == 1 { "" } else { "s" };
        write!(
            f,
            "{} part{plural}, {} of {} MiB",
            self.parts,
            tenths(self.bytes),
            tenths(self.total_bytes)
        )
    }
}

/// What [`Images::ensure_image`] reports while it works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageProgressEvent {
    /// A pull is about to begin (or is queued).
    Pulling,
    AlreadyPresent,
    /// It takes long.
    Underway {
        /// With the wait for a turn.
        elapsed: Duration,
        /// Of all pulls together; `None`: not known.
        fetched: Option<FetchProgress>,
    },
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

/// Commands in containers, and byte streams to them.
///
/// The streams themselves do not pass through CRI: the runtime answers with the
/// address where its streaming server waits for them.
#[async_trait]
pub trait Streaming: Send + Sync {
    /// CRI `Exec`: makes a command ready to be run as soon as somebody connects.
    async fn exec(
        &self,
        id: &ContainerId,
        command: &[String],
        streams: StdStreams,
    ) -> Result<StreamUrl, RuntimeError>;
    /// CRI `Attach`: to the container's own process. `streams.tty` must be what
    /// the container was created with.
    async fn attach(
        &self,
        id: &ContainerId,
        streams: StdStreams,
    ) -> Result<StreamUrl, RuntimeError>;
    /// CRI `PortForward` into the pod's network. Clients that name a port on
    /// each of their streams (SPDY) need no `ports`.
    async fn port_forward(&self, id: &SandboxId, ports: &[u16]) -> Result<StreamUrl, RuntimeError>;
    /// CRI `ExecSync`: runs a command to its end, at most for `limit` (counted
    /// in whole seconds, rounded up; `None`: without end). Past it the runtime
    /// kills the command. Dropping the future has it killed as well.
    async fn exec_sync(
        &self,
        id: &ContainerId,
        command: &[String],
        limit: Option<Duration>,
    ) -> Result<ExecOutput, ExecError>;
    /// CRI `CheckpointContainer`: freezes the container's memory and files into
    /// an archive. `limit` in whole seconds; `None`: the runtime's own.
    async fn checkpoint(
        &self,
        id: &ContainerId,
        archive: &Path,
        limit: Option<Duration>,
    ) -> Result<(), RuntimeError>;
}

/// Which of a command's standard streams are wanted: at least one, and never
/// `stderr` with `tty`, because a terminal has one output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StdStreams {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// Whether they are a terminal.
    pub tty: bool,
}

/// Where the runtime's streaming server waits for one connection. Whoever knows
/// it is let in, within the minute for which it is good.
#[derive(Clone, PartialEq, Eq)]
pub struct StreamUrl(http::Uri);

impl StreamUrl {
    /// # Errors
    /// If it is not an absolute address, with the reason.
    pub fn parse(url: &str) -> Result<Self, String> {
        let uri: http::Uri = url.parse().map_err(|error| format!("{url:?}: {error}"))?;
        if uri.scheme().is_none() || uri.host().is_none() {
            return Err(format!("{url:?}: not an absolute address"));
        }
        Ok(Self(uri))
    }

    #[must_use]
    pub fn uri(&self) -> &http::Uri {
        &self.0
    }
}

/// Keeps the token in the path out of logs.
impl std::fmt::Debug for StreamUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let authority = self.0.authority().map_or("", http::uri::Authority::as_str);
        write!(f, "StreamUrl({authority})")
    }
}

/// How a command ended that was run to its end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecOutput {
    /// 0: success. The command was started, whatever this says.
    pub exit_code: i32,
    /// At most 16 MiB each; a runtime drops what goes beyond. containerd's
    /// answer cannot carry quite as much, so there it fails the call.
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
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

impl RuntimeHealth {
    /// What the runtime can do with one of its handlers; nothing with one that
    /// it does not tell of.
    #[must_use]
    pub fn features(&self, handler: &str) -> RuntimeFeatures {
        let known = self.handlers.iter().find(|known| known.name == handler);
        RuntimeFeatures {
            recursive_read_only_mounts: known.is_some_and(|h| h.recursive_read_only_mounts),
            user_namespaces: known.is_some_and(|h| h.user_namespaces),
            supplemental_groups_policy: self.supplemental_groups_policy,
        }
    }
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

/// What of the disk is used where only the runtime knows. Neither call is
/// cheap for the runtime; who asks often keeps the answer for a while.
#[async_trait]
pub trait Usage: Send + Sync {
    /// The writable layer of every container that has one.
    async fn writable_layers(&self) -> Result<Vec<(ContainerId, DiskUsage)>, RuntimeError>;
    async fn image_disk(&self) -> Result<ImageDisk, RuntimeError>;
}

/// A part of a file system, as the runtime measured it (CRI `FilesystemUsage`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskUsage {
    /// A directory on that file system.
    pub directory: PathBuf,
    /// When the runtime looked.
    pub at: jiff::Timestamp,
    /// Bytes.
    pub used_bytes: Option<u64>,
    pub inodes_used: Option<u64>,
}

/// Where images and writable layers are (CRI `ImageFsInfo`). `None`: the
/// runtime does not tell.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageDisk {
    pub images: Option<DiskUsage>,
    /// The same place as `images` unless the runtime keeps them apart.
    pub containers: Option<DiskUsage>,
}
