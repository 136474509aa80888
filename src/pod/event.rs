//! What is worth an event on the API object: the reason, in upstream's words,
//! and the sentence for people.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

/// An event about a pod or one of its containers.
#[derive(Debug, Clone, PartialEq)]
pub struct PodEvent {
    pub pod: Arc<Pod>,
    /// `None`: the pod as a whole.
    pub container: Option<ContainerRef>,
    pub severity: Severity,
    /// CamelCase, e.g. `Pulled`, `FailedCreatePodSandBox`.
    pub reason: &'static str,
    pub message: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerRef {
    pub kind: ContainerKind,
    pub name: String,
}

impl ContainerRef {
    /// `involvedObject.fieldPath`, e.g. `spec.containers{web}`.
    #[must_use]
    pub fn field_path(&self) -> String {
        let list = match self.kind {
            ContainerKind::Regular => "containers",
            ContainerKind::Init => "initContainers",
            ContainerKind::Ephemeral => "ephemeralContainers",
        };
        format!("spec.{list}{{{}}}", self.name)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub enum ContainerKind {
    Regular,
    Init,
    Ephemeral,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    Normal,
    Warning,
}

impl Severity {
    /// The `type` field of an event.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}
