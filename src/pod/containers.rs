//! A pod's containers by name and kind.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};

use super::event::{ContainerKind, ContainerRef};

/// The API's default of `terminationGracePeriodSeconds`.
const DEFAULT_GRACE: Duration = Duration::from_secs(30);

/// Regular init containers, in order.
#[must_use]
pub fn init(pod: &Pod) -> &[Container] {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.init_containers.as_deref())
        .unwrap_or_default()
}

/// App containers, in order.
#[must_use]
pub fn regular(pod: &Pod) -> &[Container] {
    pod.spec
        .as_ref()
        .map(|spec| spec.containers.as_slice())
        .unwrap_or_default()
}

/// The named init or app container.
#[must_use]
pub fn find<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    init(pod)
        .iter()
        .chain(regular(pod))
        .find(|container| container.name == name)
}

/// The list that the named container stands in. A name that the spec does not
/// have (any more) counts as regular.
#[must_use]
pub fn kind_of(pod: &Pod, name: &str) -> ContainerKind {
    if init(pod).iter().any(|container| container.name == name) {
        ContainerKind::Init
    } else {
        ContainerKind::Regular
    }
}

/// The reference used in events.
#[must_use]
pub fn reference(pod: &Pod, name: &str) -> ContainerRef {
    ContainerRef {
        kind: kind_of(pod, name),
        name: name.to_owned(),
    }
}

/// `spec.restartPolicy`; the API's default if unset.
#[must_use]
pub fn restart_policy(pod: &Pod) -> &str {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.restart_policy.as_deref())
        .unwrap_or("Always")
}

/// `spec.terminationGracePeriodSeconds`; the API's default if unset, the least
/// there is if negative.
#[must_use]
pub fn termination_grace(pod: &Pod) -> Duration {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.termination_grace_period_seconds)
        .map_or(DEFAULT_GRACE, |seconds| {
            Duration::from_secs(u64::try_from(seconds).unwrap_or(1))
        })
}

/// Whether the pod uses the node's network namespace.
#[must_use]
pub fn host_network(pod: &Pod) -> bool {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.host_network)
        .unwrap_or(false)
}
