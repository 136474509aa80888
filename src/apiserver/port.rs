//! The narrow ports through which other modules write to, and ask, the API
//! server.

use async_trait::async_trait;
use k8s_openapi::api::authentication::v1::BoundObjectReference;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Node, Pod, Secret};
use k8s_openapi::api::node::v1::RuntimeClass;

use tokio::sync::watch;

use super::ApiError;
use crate::pod::{PodName, PodUid, Severity};

/// Writes of the status module. Every write carries the UID as precondition.
#[async_trait]
pub trait PodStatusPort: Send + Sync {
    async fn get(&self, name: &PodName) -> Result<Pod, ApiError>;
    /// Strategic-merge patch of `pods/status`; answers the object as written.
    async fn patch(&self, name: &PodName, patch: &serde_json::Value) -> Result<Pod, ApiError>;
    /// `DELETE` with `gracePeriodSeconds: 0`.
    async fn finalise_delete(&self, name: &PodName, uid: &PodUid) -> Result<(), ApiError>;
    async fn create_mirror(&self, pod: &Pod) -> Result<Pod, ApiError>;
}

/// Writes and reads of the node module.
#[async_trait]
pub trait NodePort: Send + Sync {
    async fn create(&self, node: &Node) -> Result<Node, ApiError>;
    async fn get(&self) -> Result<Node, ApiError>;
    /// Strategic-merge patch of the node itself (labels, annotations).
    async fn patch(&self, patch: &serde_json::Value) -> Result<Node, ApiError>;
    /// Strategic-merge patch of `nodes/status`.
    async fn patch_status(&self, patch: &serde_json::Value) -> Result<Node, ApiError>;
}

/// The node's heartbeat in `kube-node-lease`.
#[async_trait]
pub trait LeasePort: Send + Sync {
    async fn get(&self) -> Result<Lease, ApiError>;
    async fn create(&self, lease: &Lease) -> Result<Lease, ApiError>;
    /// Optimistic `PUT`: fails with a conflict if the object has moved on.
    async fn replace(&self, lease: &Lease) -> Result<Lease, ApiError>;
}

/// Where the event recorder writes.
#[async_trait]
pub trait EventSink: Send + Sync {
    async fn create(&self, event: &Event) -> Result<Event, ApiError>;
    /// Count and time of a repeated event.
    async fn patch(
        &self,
        namespace: &str,
        name: &str,
        patch: &serde_json::Value,
    ) -> Result<Event, ApiError>;
}

/// An event about this node.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeEvent {
    pub severity: Severity,
    pub reason: &'static str,
    pub message: String,
}

/// An event of the service proxy, which speaks as kube-proxy.
#[derive(Debug, Clone, PartialEq)]
pub struct ProxyEvent {
    pub about: ProxyEventAbout,
    pub severity: Severity,
    pub reason: &'static str,
    /// What was done or tried, in one word; upstream's where it has the event.
    pub action: &'static str,
    pub message: String,
}

/// What an event of the service proxy is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxyEventAbout {
    /// This node.
    Node,
    Service {
        namespace: String,
        name: String,
        /// `None`: not known here, as upstream, which writes none that is one.
        uid: Option<String>,
    },
}

/// Objects that a pod refers to. A node may read just those of its own pods.
#[async_trait]
pub trait ObjectRefs: Send + Sync {
    /// `Ok(None)`: there is no such object.
    async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<ConfigMap>, ApiError>;
    async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Secret>, ApiError>;
    async fn runtime_class(&self, name: &str) -> Result<Option<RuntimeClass>, ApiError>;
    /// Keeps an object at hand, for everybody who asks for it, as long as the
    /// answer lives. Every change after the first answer is noted in `changes`,
    /// also that the object appears or goes.
    fn follow(&self, object: &ObjectName, changes: &Changes) -> Following;
}

/// Which of the objects that pods refer to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectName {
    pub kind: ObjectKind,
    pub namespace: String,
    pub name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObjectKind {
    ConfigMap,
    Secret,
}

/// Counts the changes of everything that one reader follows. Clones count
/// together.
#[derive(Debug, Clone, Default)]
pub struct Changes(watch::Sender<u64>);

impl Changes {
    pub fn note(&self) {
        self.0.send_modify(|count| *count += 1);
    }

    #[must_use]
    pub fn count(&self) -> u64 {
        *self.0.borrow()
    }

    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}

/// Ends what it stands for when it is dropped.
pub struct Following {
    _held: Option<Box<dyn Send + Sync>>,
}

impl Following {
    /// `held` is dropped with it.
    #[must_use]
    pub fn new(held: impl Send + Sync + 'static) -> Self {
        Self {
            _held: Some(Box::new(held)),
        }
    }

    /// Of something that is not followed.
    #[must_use]
    pub fn empty() -> Self {
        Self { _held: None }
    }
}

impl std::fmt::Debug for Following {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Following").finish_non_exhaustive()
    }
}

/// Service-account tokens (TokenRequest).
#[async_trait]
pub trait Tokens: Send + Sync {
    async fn request(&self, spec: &TokenRequestSpec) -> Result<BoundToken, ApiError>;
}

#[derive(Debug, Clone, PartialEq)]
pub struct TokenRequestSpec {
    pub namespace: String,
    pub service_account: String,
    /// Empty: the API server's own audience.
    pub audiences: Vec<String>,
    pub expiration_seconds: i64,
    /// The pod that the token dies with.
    pub bound_to: BoundObjectReference,
}

/// A token and its life.
#[derive(Clone, PartialEq, Eq)]
pub struct BoundToken {
    pub token: String,
    pub issued_at: jiff::Timestamp,
    pub expires_at: jiff::Timestamp,
}

impl std::fmt::Debug for BoundToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BoundToken")
            .field("token", &"redacted")
            .field("issued_at", &self.issued_at)
            .field("expires_at", &self.expires_at)
            .finish()
    }
}
