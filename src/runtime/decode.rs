//! CRI's answers as observations. Pure.
//!
//! What CRI demands of an answer is checked here; an answer without it is an
//! error, never a guess.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::RuntimeError;
use super::cri;
use crate::pod::observed::{ContainerStamp, LinuxUser};
use crate::pod::stamp::{
    ANNOTATION_RESTART_COUNT, ANNOTATION_TERMINATION_PATH, ANNOTATION_TERMINATION_POLICY,
    LABEL_POD_NAME, LABEL_POD_NAMESPACE, LABEL_POD_UID,
};
use crate::pod::{
    ContainerId, ContainerState, Exit, ObservedContainer, ObservedSandbox, PodName, PodUid,
    SandboxId, SandboxState,
};

#[cfg(test)]
mod tests;

/// The pod that a sandbox or container belongs to, from its labels. `None`:
/// it was made by somebody else and is none of our business.
pub(super) fn owner(
    labels: &std::collections::HashMap<String, String>,
) -> Option<(PodUid, PodName)> {
    let label = |key| labels.get(key).filter(|value| !value.is_empty());
    Some((
        PodUid::new(label(LABEL_POD_UID)?.as_str()),
        PodName::new(
            label(LABEL_POD_NAMESPACE)?.as_str(),
            label(LABEL_POD_NAME)?.as_str(),
        ),
    ))
}

/// `previous` is an earlier reading of the same sandbox: a runtime forgets the
/// addresses of a sandbox that it stopped.
pub(super) fn sandbox(
    status: &cri::PodSandboxStatus,
    previous: Option<&ObservedSandbox>,
) -> Result<ObservedSandbox, RuntimeError> {
    let call = "PodSandboxStatus";
    let metadata = demand(call, "metadata", status.metadata.as_ref())?;
    for (field, value) in [
        ("id", &status.id),
        ("metadata.name", &metadata.name),
        ("metadata.namespace", &metadata.namespace),
        ("metadata.uid", &metadata.uid),
    ] {
        demand(call, field, Some(value).filter(|value| !value.is_empty()))?;
    }
    let state = sandbox_state(status.state());
    let mut ips = addresses(status.network.as_ref());
    if ips.is_empty() && state == SandboxState::NotReady {
        ips = previous.map(|p| p.ips.clone()).unwrap_or_default();
    }
    let options = status
        .linux
        .as_ref()
        .and_then(|linux| linux.namespaces.as_ref())
        .and_then(|namespaces| namespaces.options.as_ref());
    Ok(ObservedSandbox {
        id: SandboxId(status.id.clone()),
        attempt: metadata.attempt,
        state,
        created_at: creation(status.created_at),
        ips,
        host_network: options.is_some_and(|o| o.network() == cri::NamespaceMode::Node),
        runtime_handler: status.runtime_handler.clone(),
    })
}

pub(super) fn sandbox_state(state: cri::PodSandboxState) -> SandboxState {
    match state {
        cri::PodSandboxState::SandboxReady => SandboxState::Ready,
        cri::PodSandboxState::SandboxNotready => SandboxState::NotReady,
    }
}

/// `termination` is what the container left as its last words; see
/// [`last_words`].
pub(super) fn container(
    status: &cri::ContainerStatus,
    sandbox: &str,
    termination: &str,
) -> Result<ObservedContainer, RuntimeError> {
    let call = "ContainerStatus";
    let metadata = demand(call, "metadata", status.metadata.as_ref())?;
    let image = demand(call, "image", status.image.as_ref())?;
    for (field, value) in [
        ("id", &status.id),
        ("metadata.name", &metadata.name),
        ("image.image", &image.image),
        ("image_ref", &status.image_ref),
    ] {
        demand(call, field, Some(value).filter(|value| !value.is_empty()))?;
    }
    let created_at = creation(status.created_at);
    let restart_count = status
        .annotations
        .get(ANNOTATION_RESTART_COUNT)
        .and_then(|count| count.parse().ok());
    let user = status.user.as_ref().and_then(|user| user.linux.as_ref());
    Ok(ObservedContainer {
        id: ContainerId(status.id.clone()),
        sandbox: SandboxId(sandbox.to_owned()),
        name: metadata.name.clone(),
        attempt: restart_count.unwrap_or(metadata.attempt),
        state: container_state(status, created_at, termination),
        created_at,
        image: image.image.clone(),
        image_ref: status.image_ref.clone(),
        stamp: ContainerStamp::read(&status.annotations),
        user: user.map(|user| LinuxUser {
            uid: user.uid,
            gid: user.gid,
            supplemental_groups: user.supplemental_groups.clone(),
        }),
    })
}

fn container_state(
    status: &cri::ContainerStatus,
    created_at: Timestamp,
    termination: &str,
) -> ContainerState {
    let started_at = time(status.started_at);
    match status.state() {
        cri::ContainerState::ContainerCreated => ContainerState::Created,
        cri::ContainerState::ContainerRunning => ContainerState::Running {
            started_at: started_at.unwrap_or(created_at),
        },
        cri::ContainerState::ContainerUnknown => ContainerState::Unknown,
        cri::ContainerState::ContainerExited => ContainerState::Exited(Exit {
            code: status.exit_code,
            signal: None,
            reason: status.reason.clone(),
            message: join_messages(&status.message, termination),
            started_at,
            finished_at: time(status.finished_at)
                .or(started_at)
                .unwrap_or(created_at),
        }),
    }
}

fn join_messages(runtime: &str, container: &str) -> String {
    match (runtime, container) {
        (only, "") | ("", only) => only.to_owned(),
        (runtime, container) => format!("{runtime}: {container}"),
    }
}

/// Whether an observation of a container is as the runtime's list has it, so
/// that asking for its status would tell nothing new.
pub(super) fn container_is_as_listed(
    listed: cri::ContainerState,
    observed: &ContainerState,
) -> bool {
    match observed {
        ContainerState::Created => listed == cri::ContainerState::ContainerCreated,
        ContainerState::Running { .. } => listed == cri::ContainerState::ContainerRunning,
        ContainerState::Exited(_) => listed == cri::ContainerState::ContainerExited,
        // Worth asking again, each time.
        ContainerState::Unknown => false,
    }
}

/// The same for a sandbox. One that is ready and still lacks the address it
/// must have is asked for again.
pub(super) fn sandbox_is_as_listed(
    listed: cri::PodSandboxState,
    observed: &ObservedSandbox,
) -> bool {
    let complete = observed.host_network
        || !observed.ips.is_empty()
        || observed.state == SandboxState::NotReady;
    complete && observed.state == sandbox_state(listed)
}

/// Where to find a container's termination message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LastWords {
    /// The host's side of the file at `terminationMessagePath`.
    pub(super) file: Option<PathBuf>,
    /// The log to fall back to when the file is empty.
    pub(super) log: Option<PathBuf>,
}

/// What to read for an exited container; `None` for any other.
pub(super) fn last_words(status: &cri::ContainerStatus) -> Option<LastWords> {
    if status.state() != cri::ContainerState::ContainerExited {
        return None;
    }
    let annotation = |key| status.annotations.get(key).map(String::as_str);
    let file = annotation(ANNOTATION_TERMINATION_PATH)
        .filter(|path| !path.is_empty())
        .and_then(|path| {
            let mut mounts = status.mounts.iter();
            mounts.find(|mount| mount.container_path == path)
        })
        .filter(|mount| Path::new(&mount.host_path).is_absolute())
        .map(|mount| PathBuf::from(&mount.host_path));
    let falls_back = annotation(ANNOTATION_TERMINATION_POLICY) == Some("FallbackToLogsOnError")
        && status.exit_code != 0
        && status.reason != "ContainerCannotRun";
    let log = Some(PathBuf::from(&status.log_path)).filter(|log| falls_back && log.is_absolute());
    (file.is_some() || log.is_some()).then_some(LastWords { file, log })
}

fn addresses(network: Option<&cri::PodSandboxNetworkStatus>) -> Vec<IpAddr> {
    let Some(network) = network else {
        return Vec::new();
    };
    let more = network.additional_ips.iter().map(|ip| ip.ip.as_str());
    std::iter::once(network.ip.as_str())
        .chain(more)
        .filter_map(|ip| ip.parse().ok())
        .collect()
}

/// A CRI time: nanoseconds since the epoch, zero (or less) for "not yet".
/// containerd gives no time for what it could neither finish making nor clean
/// up. Such a thing must be seen to be removed, so it counts as older than
/// everything.
fn creation(nanoseconds: i64) -> Timestamp {
    time(nanoseconds).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn time(nanoseconds: i64) -> Option<Timestamp> {
    if nanoseconds <= 0 {
        return None;
    }
    Timestamp::from_nanosecond(nanoseconds.into()).ok()
}

fn demand<T>(call: &'static str, field: &str, value: Option<T>) -> Result<T, RuntimeError> {
    value.ok_or_else(|| RuntimeError::Invalid {
        call,
        message: format!("{field} is missing"),
    })
}
