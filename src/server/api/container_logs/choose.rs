//! Which log file a request is about. Pure.
//!
//! In: the pod's status, what was observed of it, the options. Out: the
//! container instance whose log it is, or upstream's words on why there is none.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};

use super::options::Instance;
use crate::pod::{ContainerId, ObservedPod};

#[cfg(test)]
mod tests;

/// One life of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) id: ContainerId,
    /// The number of the log: 0 for the first life.
    pub(super) attempt: u32,
}

/// Why there is no log; the texts are upstream's, and tools read them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoLog {
    /// The pod has no such container.
    #[error("container \"{container}\" not found in pod \"{pod}\"")]
    UnknownContainer { container: String, pod: String },
    #[error("container \"{container}\" in pod \"{pod}\" is {state}")]
    NotYet {
        container: String,
        pod: String,
        state: String,
    },
    #[error("previous terminated container \"{container}\" in pod \"{pod}\" not found")]
    NoPrevious { container: String, pod: String },
    /// The status names an instance that the runtime has no record of.
    #[error("unable to retrieve container logs for {id}")]
    Forgotten { id: String },
}

/// Finds the log of the named container.
pub(super) fn choose(
    pod: &Pod,
    observed: &ObservedPod,
    container: &str,
    instance: Instance,
) -> Result<Life, NoLog> {
    let pod_name = pod.metadata.name.clone().unwrap_or_default();
    if !has_container(pod, container) {
        return Err(NoLog::UnknownContainer {
            container: container.to_owned(),
            pod: pod_name,
        });
    }
    let status = pod
        .status
        .as_ref()
        .and_then(|status| container_status(status, container));
    let full_id =
        container_id(status, instance).map_err(|gap| gap.into_error(container, pod_name))?;
    // `containerd://0123…`: what follows the scheme is the runtime's.
    let id = full_id.split_once("://").map_or(full_id, |(_, id)| id);
    observed
        .instances(container)
        .find(|observed| observed.id.0 == id)
        .map(|observed| Life {
            id: observed.id.clone(),
            attempt: observed.attempt,
        })
        .ok_or_else(|| NoLog::Forgotten {
            id: full_id.to_owned(),
        })
}

/// Why a status names no container instance.
#[derive(Debug, PartialEq, Eq)]
enum Gap {
    State(String),
    NoPrevious,
}

impl Gap {
    fn state(text: &str) -> Self {
        Self::State(text.to_owned())
    }

    fn into_error(self, container: &str, pod: String) -> NoLog {
        let container = container.to_owned();
        match self {
            Self::State(state) => NoLog::NotYet {
                container,
                pod,
                state,
            },
            Self::NoPrevious => NoLog::NoPrevious { container, pod },
        }
    }
}

/// The ID of the instance that the caller means: of one that waits for its next
/// life, the last life.
fn container_id(status: Option<&ContainerStatus>, instance: Instance) -> Result<&str, Gap> {
    let status = status.ok_or_else(|| Gap::state("not available"))?;
    let last = status
        .last_state
        .as_ref()
        .and_then(|state| state.terminated.as_ref());
    let last_id = last.and_then(|ended| named(ended.container_id.as_ref()));
    if instance == Instance::Previous {
        return last_id.ok_or(Gap::NoPrevious);
    }
    let state = status.state.as_ref();
    if state.is_some_and(|state| state.running.is_some()) {
        return named(status.container_id.as_ref()).ok_or_else(|| Gap::state("not available"));
    }
    if let Some(ended) = state.and_then(|state| state.terminated.as_ref()) {
        // Of an instance that never was made there is only the one before.
        let id = named(ended.container_id.as_ref()).or(last_id);
        return id.ok_or_else(|| Gap::state("terminated"));
    }
    if last.is_some() {
        return last_id.ok_or_else(|| Gap::state("terminated"));
    }
    let waiting = state.and_then(|state| state.waiting.as_ref());
    Err(waiting.map_or_else(
        || Gap::state("waiting to start - no logs yet"),
        |waiting| {
            Gap::State(waiting_to_start(
                waiting.reason.as_deref().unwrap_or_default(),
            ))
        },
    ))
}

fn waiting_to_start(reason: &str) -> String {
    let why = match reason {
        "ErrImagePull" => "image can't be pulled",
        "ImagePullBackOff" => "trying and failing to pull image",
        other => other,
    };
    format!("waiting to start: {why}")
}

fn named(id: Option<&String>) -> Option<&str> {
    id.map(String::as_str).filter(|id| !id.is_empty())
}

fn has_container(pod: &Pod, name: &str) -> bool {
    let Some(spec) = &pod.spec else {
        return false;
    };
    let init = spec.init_containers.iter().flatten();
    let ephemeral = spec.ephemeral_containers.iter().flatten();
    let mut names = spec
        .containers
        .iter()
        .chain(init)
        .map(|container| &container.name)
        .chain(ephemeral.map(|container| &container.name));
    names.any(|known| known == name)
}

fn container_status<'a>(status: &'a PodStatus, name: &str) -> Option<&'a ContainerStatus> {
    let groups = [
        &status.container_statuses,
        &status.init_container_statuses,
        &status.ephemeral_container_statuses,
    ];
    groups
        .into_iter()
        .flatten()
        .flatten()
        .find(|status| status.name == name)
}
