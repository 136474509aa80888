//! A pod's containers by name and kind.

use std::borrow::Cow;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod};

use super::event::{ContainerKind, ContainerRef};
use super::plan::StopReason;
use super::probe::ProbeKind;

/// The API's default of `terminationGracePeriodSeconds`.
const DEFAULT_GRACE: Duration = Duration::from_secs(30);

/// Init containers in order, restartable ones ([`is_sidecar`]) among them.
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

/// Ephemeral containers, in order.
#[must_use]
pub fn ephemeral(pod: &Pod) -> &[EphemeralContainer] {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.ephemeral_containers.as_deref())
        .unwrap_or_default()
}

/// Whether an init container is a sidecar: started in its turn, and then kept
/// running for as long as the app containers have work.
#[must_use]
pub fn is_sidecar(init: &Container) -> bool {
    init.restart_policy.as_deref() == Some("Always")
}

/// The init containers that are sidecars, in order.
pub fn sidecars(pod: &Pod) -> impl DoubleEndedIterator<Item = &Container> {
    init(pod).iter().filter(|container| is_sidecar(container))
}

/// The named container, of whatever kind. An ephemeral one is told in the terms
/// of the others ([`as_container`]).
#[must_use]
pub fn find<'a>(pod: &'a Pod, name: &str) -> Option<Cow<'a, Container>> {
    let mut lasting = init(pod).iter().chain(regular(pod));
    if let Some(container) = lasting.find(|container| container.name == name) {
        return Some(Cow::Borrowed(container));
    }
    find_ephemeral(pod, name).map(|container| Cow::Owned(as_container(container)))
}

/// The named ephemeral container.
#[must_use]
pub fn find_ephemeral<'a>(pod: &'a Pod, name: &str) -> Option<&'a EphemeralContainer> {
    ephemeral(pod)
        .iter()
        .find(|container| container.name == name)
}

/// What an ephemeral container has in common with the others: all but its
/// target.
#[must_use]
pub fn as_container(ephemeral: &EphemeralContainer) -> Container {
    let EphemeralContainer {
        args,
        command,
        env,
        env_from,
        image,
        image_pull_policy,
        lifecycle,
        liveness_probe,
        name,
        ports,
        readiness_probe,
        resize_policy,
        resources,
        restart_policy,
        restart_policy_rules,
        security_context,
        startup_probe,
        stdin,
        stdin_once,
        target_container_name: _,
        termination_message_path,
        termination_message_policy,
        tty,
        volume_devices,
        volume_mounts,
        working_dir,
    } = ephemeral.clone();
    Container {
        args,
        command,
        env,
        env_from,
        image,
        image_pull_policy,
        lifecycle,
        liveness_probe,
        name,
        ports,
        readiness_probe,
        resize_policy,
        resources,
        restart_policy,
        restart_policy_rules,
        security_context,
        startup_probe,
        stdin,
        stdin_once,
        termination_message_path,
        termination_message_policy,
        tty,
        volume_devices,
        volume_mounts,
        working_dir,
    }
}

/// The list that the named container stands in. A name that the spec does not
/// have (any more) counts as regular.
#[must_use]
pub fn kind_of(pod: &Pod, name: &str) -> ContainerKind {
    if init(pod).iter().any(|container| container.name == name) {
        ContainerKind::Init
    } else if find_ephemeral(pod, name).is_some() {
        ContainerKind::Ephemeral
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

/// Time between the stop signal and SIGKILL of one container that is stopped
/// while its pod goes on. A probe may have a grace period of its own for what
/// it fails.
#[must_use]
pub fn stop_grace(pod: &Pod, container: &Container, why: StopReason) -> Duration {
    match why {
        StopReason::ProbeFailed(kind) => {
            probe_grace(container, kind).unwrap_or_else(|| termination_grace(pod))
        }
        StopReason::RestartOfAll => Duration::ZERO,
        StopReason::PodEnds
        | StopReason::DefinitionChanged
        | StopReason::StateUnknown
        | StopReason::Resized
        | StopReason::PostStartFailed => termination_grace(pod),
    }
}

fn probe_grace(container: &Container, kind: ProbeKind) -> Option<Duration> {
    let seconds = kind.of(container)?.termination_grace_period_seconds?;
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(1)))
}

/// Whether the pod uses the node's network namespace.
#[must_use]
pub fn host_network(pod: &Pod) -> bool {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.host_network)
        .unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(json!({"spec": {
            "terminationGracePeriodSeconds": 7,
            "initContainers": [
                {"name": "i"},
                {"name": "s", "restartPolicy": "Always"},
            ],
            "containers": [
                {"name": "a", "livenessProbe": {"terminationGracePeriodSeconds": 3},
                 "startupProbe": {}},
            ],
            "ephemeralContainers": [
                {"name": "e", "image": "tools", "tty": true, "targetContainerName": "a"},
            ],
        }}))
        .expect("a pod")
    }

    #[test]
    fn containers_of_every_kind_are_found() {
        let pod = pod();
        for (name, kind) in [
            ("i", ContainerKind::Init),
            ("s", ContainerKind::Init),
            ("a", ContainerKind::Regular),
            ("e", ContainerKind::Ephemeral),
        ] {
            assert_eq!(find(&pod, name).map(|c| c.name.clone()), Some(name.into()));
            assert_eq!(kind_of(&pod, name), kind);
        }
        assert_eq!(find(&pod, "x"), None);
        let e = find(&pod, "e").expect("the ephemeral container");
        assert_eq!((e.image.as_deref(), e.tty), (Some("tools"), Some(true)));
        assert_eq!(sidecars(&pod).count(), 1);
    }

    #[test]
    fn a_probe_may_have_its_own_grace() {
        let pod = pod();
        let a = find(&pod, "a").expect("the app container");
        for (why, seconds) in [
            (StopReason::ProbeFailed(ProbeKind::Liveness), 3),
            (StopReason::ProbeFailed(ProbeKind::Startup), 7),
            (StopReason::DefinitionChanged, 7),
            (StopReason::RestartOfAll, 0),
        ] {
            assert_eq!(
                stop_grace(&pod, &a, why),
                Duration::from_secs(seconds),
                "{why:?}"
            );
        }
    }
}
