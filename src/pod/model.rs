//! What is wanted of this node: pods, where they came from, and whether they
//! should run or end.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde::Serialize;

/// The identity of one pod's life. For a pod of the API server this is
/// `metadata.uid`; for a static pod it is the hash of its manifest, so an
/// edited manifest is a new pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct PodUid(Arc<str>);

impl PodUid {
    #[must_use]
    pub fn new(uid: impl Into<Arc<str>>) -> Self {
        Self(uid.into())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for PodUid {
    fn from(uid: &str) -> Self {
        Self(uid.into())
    }
}

/// Namespace and name: what a person calls a pod. Several UIDs may carry the
/// same name one after another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct PodName {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl PodName {
    #[must_use]
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The name of a pod object; missing parts read as empty.
    #[must_use]
    pub fn of(pod: &Pod) -> Self {
        let part = |value: &Option<String>| value.as_deref().unwrap_or_default().into();
        Self {
            namespace: part(&pod.metadata.namespace),
            name: part(&pod.metadata.name),
        }
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Where a desired pod was read from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Origin {
    /// A pod object bound to this node.
    Api,
    /// A manifest file. Never ends by itself: a static pod has no terminal
    /// phase for as long as its file is there.
    Static { path: PathBuf },
}

impl Origin {
    #[must_use]
    pub fn is_static(&self) -> bool {
        matches!(self, Self::Static { .. })
    }
}

/// One pod that some source wants here.
///
/// `pod.spec` carries API defaults also for static pods: the source applies
/// them, so no reader has to.
#[derive(Debug, Clone, PartialEq)]
pub struct DesiredPod {
    pub uid: PodUid,
    pub name: PodName,
    pub pod: Arc<Pod>,
    pub origin: Origin,
    pub intent: Intent,
}

impl DesiredPod {
    /// `name_namespace(uid)`: how upstream's messages name a pod.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}_{}({})", self.name.name, self.name.namespace, self.uid)
    }
}

/// Run or end. `Terminate` is sticky, and its grace only shrinks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Intent {
    Run,
    Terminate(Termination),
}

/// Why and how a pod ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Termination {
    /// Time between the stop signal and SIGKILL. `None`: the pod's own
    /// `terminationGracePeriodSeconds`.
    pub grace: Option<Duration>,
    pub reason: TerminationReason,
}

/// Who asked for the end; decides what status and clean-up follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum TerminationReason {
    /// The API object has a deletion timestamp: finalise it when all is gone.
    Deleted,
    /// No source wants the pod any more (object or manifest gone): no status
    /// is owed to anyone.
    Removed,
    /// The runtime runs it and no source ever named it to this process.
    Orphaned,
    /// Ended by this node with a `Failed` status (eviction, deadline, shutdown).
    Failed {
        reason: String,
        message: String,
        /// Message of the condition `DisruptionTarget`, for an end that is no
        /// fault of the pod's (eviction, preemption, shutdown).
        disruption: Option<String>,
    },
}

/// Which sources have delivered at least once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct SourcesReady {
    pub api: bool,
    pub manifests: bool,
}

impl SourcesReady {
    /// Only then may anything that no source names be called an orphan.
    #[must_use]
    pub fn all(self) -> bool {
        self.api && self.manifests
    }
}

/// The merged wish of all sources: a level-triggered snapshot.
#[derive(Debug, Clone, Default)]
pub struct DesiredPods {
    pub pods: Arc<BTreeMap<PodUid, Arc<DesiredPod>>>,
    /// Mirror pods that the API server holds for static pods, by name. Only
    /// the status writer reads them.
    pub mirrors: Arc<BTreeMap<PodName, Arc<Pod>>>,
    pub ready: SourcesReady,
}

/// A container's failure to progress, in the words of the API
/// (`state.waiting.reason`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum WaitingReason {
    ContainerCreating,
    PodInitializing,
    RestartingAllContainers,
    CrashLoopBackOff,
    ImagePullBackOff,
    ErrImagePull,
    ErrImageNeverPull,
    InvalidImageName,
    ImageInspectError,
    RegistryUnavailable,
    SignatureValidationFailed,
    CreateContainerConfigError,
    CreateContainerError,
    RunContainerError,
    PostStartHookError,
}

impl WaitingReason {
    /// Whether an image was asked for at a registry, in vain.
    #[must_use]
    pub fn is_failed_pull(self) -> bool {
        matches!(
            self,
            Self::ErrImagePull | Self::RegistryUnavailable | Self::SignatureValidationFailed
        )
    }

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ContainerCreating => "ContainerCreating",
            Self::PodInitializing => "PodInitializing",
            Self::RestartingAllContainers => "RestartingAllContainers",
            Self::CrashLoopBackOff => "CrashLoopBackOff",
            Self::ImagePullBackOff => "ImagePullBackOff",
            Self::ErrImagePull => "ErrImagePull",
            Self::ErrImageNeverPull => "ErrImageNeverPull",
            Self::InvalidImageName => "InvalidImageName",
            Self::ImageInspectError => "ImageInspectError",
            Self::RegistryUnavailable => "RegistryUnavailable",
            Self::SignatureValidationFailed => "SignatureValidationFailed",
            Self::CreateContainerConfigError => "CreateContainerConfigError",
            Self::CreateContainerError => "CreateContainerError",
            Self::RunContainerError => "RunContainerError",
            Self::PostStartHookError => "PostStartHookError",
        }
    }
}

/// Something a pod waits for, and when it is over at the latest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Wakeup {
    pub at: Timestamp,
    pub on: WaitOn,
    /// For people.
    pub why: String,
}

/// What a pod waits for besides events.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum WaitOn {
    /// An exit that may be the first sign of the whole sandbox going down.
    Settling,
    /// A crashed container's pause before its next run.
    CrashBackoff { container: String },
    /// A failed pull's pause before the next one.
    ImageBackoff { container: String },
    /// A container that could not be created or started.
    StartRetry { container: String },
    /// A failed step for the pod as a whole.
    StepRetry,
    /// Pod networking, which the runtime says is down.
    Network,
    /// Contents of a volume that grow old.
    VolumeRefresh,
    /// The end of `activeDeadlineSeconds`.
    Deadline,
}
