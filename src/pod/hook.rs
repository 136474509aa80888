//! Lifecycle hooks: what is to be done right after a container's start and
//! right before its stop.
//!
//! In: a hook as the API has it, and the container's ports. Out: a [`Hook`]
//! that can be carried out without the pod.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, ContainerPort, HTTPGetAction, LifecycleHandler};
use serde::Serialize;

use super::probe::PortError;
use super::probe::http::HttpGet;
use super::stamp::{ANNOTATION_PORTS, ANNOTATION_PRE_STOP};

#[cfg(test)]
mod tests;

/// Of a hook's request, unless it brings one of its own.
const USER_AGENT: &str = "kube-lifecycle/1.36";

/// One hook, ready to be carried out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum Hook {
    /// A command in the container. It succeeds by exiting with 0.
    Exec {
        command: Vec<String>,
    },
    /// A request. Any answer is a success.
    HttpGet(HttpHook),
    Sleep(Duration),
    /// It cannot be carried out.
    Invalid,
}

/// A hook's request, but for the pod's address.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HttpHook {
    action: HTTPGetAction,
    /// For a port that goes by name.
    ports: Vec<ContainerPort>,
}

impl HttpHook {
    /// Whether it goes to the pod itself.
    #[must_use]
    pub fn needs_pod_ip(&self) -> bool {
        self.action.host.as_deref().is_none_or(str::is_empty)
    }

    /// The request, to `pod_ip` unless the hook names a host.
    ///
    /// # Errors
    /// If the port is none.
    pub fn request(&self, pod_ip: &str) -> Result<HttpGet, PortError> {
        let container = Container {
            ports: Some(self.ports.clone()),
            ..Container::default()
        };
        HttpGet::of(&self.action, &container, pod_ip, USER_AGENT)
    }
}

impl Hook {
    /// `ports`: those of the hook's container, for ports that go by name.
    #[must_use]
    pub fn of(handler: &LifecycleHandler, ports: &[ContainerPort]) -> Self {
        if let Some(exec) = &handler.exec {
            Self::Exec {
                command: exec.command.clone().unwrap_or_default(),
            }
        } else if let Some(get) = &handler.http_get {
            Self::HttpGet(HttpHook {
                action: get.clone(),
                ports: ports.to_vec(),
            })
        } else if let Some(sleep) = &handler.sleep {
            Self::Sleep(Duration::from_secs(
                u64::try_from(sleep.seconds).unwrap_or(0),
            ))
        } else {
            // Also tcpSocket, which the API knows and nobody ever carried out.
            Self::Invalid
        }
    }
}

/// The hook to be carried out right after the container's start.
#[must_use]
pub fn post_start(container: &Container) -> Option<Hook> {
    let handler = container.lifecycle.as_ref()?.post_start.as_ref()?;
    Some(Hook::of(handler, ports(container)))
}

/// The hook to be carried out before the container's stop signal.
#[must_use]
pub fn pre_stop(container: &Container) -> Option<Hook> {
    let handler = container.lifecycle.as_ref()?.pre_stop.as_ref()?;
    Some(Hook::of(handler, ports(container)))
}

/// The same from what was written on the container, for want of its pod.
/// What cannot be read counts as not there.
#[must_use]
pub fn stamped_pre_stop(annotations: &HashMap<String, String>) -> Option<Hook> {
    let handler: LifecycleHandler =
        serde_json::from_str(annotations.get(ANNOTATION_PRE_STOP)?).ok()?;
    let ports: Vec<ContainerPort> = annotations
        .get(ANNOTATION_PORTS)
        .and_then(|ports| serde_json::from_str(ports).ok())
        .unwrap_or_default();
    Some(Hook::of(&handler, &ports))
}

fn ports(container: &Container) -> &[ContainerPort] {
    container.ports.as_deref().unwrap_or_default()
}
