//! Which container or sandbox a request is about.
//!
//! In: a pod as the directory found it. Out: the runtime's ID, or a [`Refusal`]
//! with upstream's words.

use k8s_openapi::api::core::v1::Pod;

use super::super::FoundPod;
use super::refusal::Refusal;
use crate::pod::{ContainerId, ContainerState, SandboxId};
use crate::runtime::StdStreams;

/// The running instance of a container: only there can a command be run.
pub(super) fn running(pod: &FoundPod, container: &str) -> Result<ContainerId, Refusal> {
    live(pod, container)
        .ok_or_else(|| Refusal::not_found(format!("container not found ({container:?})")))
}

/// The container to attach to, and the streams that can be had of it: whether
/// its process has a terminal is not for the caller to say.
pub(super) fn attached(
    pod: &FoundPod,
    container: &str,
    wanted: StdStreams,
) -> Result<(ContainerId, StdStreams), Refusal> {
    let named = || terminals(&pod.desired.pod).find(|(name, _)| *name == container);
    let (Some(id), Some((_, tty))) = (live(pod, container), named()) else {
        let pod = full_name(pod);
        let message = format!("container {container} not found in pod {pod}");
        return Err(Refusal::not_found(message));
    };
    let streams = StdStreams {
        tty,
        stderr: wanted.stderr && !tty,
        ..wanted
    };
    Ok((id, streams))
}

/// The sandbox in whose network ports are forwarded.
pub(super) fn sandbox(pod: &FoundPod) -> Result<SandboxId, Refusal> {
    let ready = pod.observed.ready_sandbox();
    ready
        .map(|sandbox| sandbox.id.clone())
        .ok_or_else(|| Refusal::not_found(format!("pod not found ({:?})", full_name(pod))))
}

/// Whether the pod is to have a container of this name, whatever its kind.
pub(super) fn declared(pod: &FoundPod, container: &str) -> Result<(), Refusal> {
    terminals(&pod.desired.pod)
        .find(|(name, _)| *name == container)
        .map(drop)
        .ok_or_else(|| Refusal::not_found(format!("container {container} does not exist")))
}

/// `NAME_NAMESPACE`, as upstream's messages call a pod.
pub(super) fn full_name(pod: &FoundPod) -> String {
    let name = &pod.desired.name;
    format!("{}_{}", name.name, name.namespace)
}

fn live(pod: &FoundPod, container: &str) -> Option<ContainerId> {
    let mut instances = pod.observed.instances(container);
    instances
        .find(|instance| {
            matches!(
                instance.state,
                ContainerState::Running { .. } | ContainerState::Unknown
            )
        })
        .map(|instance| instance.id.clone())
}

/// Name of each container in the spec, of whatever kind, and whether it has a
/// terminal.
fn terminals(pod: &Pod) -> impl Iterator<Item = (&str, bool)> {
    let spec = pod.spec.iter();
    spec.flat_map(|spec| {
        let init = spec.init_containers.iter().flatten();
        let ephemeral = spec.ephemeral_containers.iter().flatten();
        let usual = spec.containers.iter().chain(init);
        let usual = usual.map(|c| (c.name.as_str(), c.tty.unwrap_or_default()));
        usual.chain(ephemeral.map(|c| (c.name.as_str(), c.tty.unwrap_or_default())))
    })
}

#[cfg(test)]
mod tests;
