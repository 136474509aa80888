//! One instance of a container.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::Container;
use serde::Serialize;

use super::sandbox::identity;
use super::{RenderError, linux, mounts, security};
use crate::pod::downward::PodView;
use crate::pod::env::{self, Env};
use crate::pod::facts::NodeFacts;
use crate::pod::inputs::{ContainerFiles, MountedVolumes, PodRuntime, ResolvedRefs, SubPath};
use crate::pod::model::DesiredPod;
use crate::pod::observed::{ContainerId, ContainerStamp};
use crate::pod::spec::{ContainerSpec, PresentImage};
use crate::pod::{hash, resources, stamp};

/// All that a container is rendered from.
#[derive(Debug, Clone, Copy)]
pub struct ContainerInput<'a> {
    pub pod: &'a DesiredPod,
    pub container: &'a Container,
    /// The instance whose processes the container is to see.
    pub process_target: Option<&'a ContainerId>,
    /// The restart count of the instance.
    pub attempt: u32,
    /// The crash back-off in force, to be found again by later processes.
    pub backoff: Option<Duration>,
    pub image: &'a PresentImage,
    pub sandbox_ips: &'a [IpAddr],
    pub volumes: &'a MountedVolumes,
    pub files: &'a ContainerFiles,
    pub refs: &'a ResolvedRefs,
    pub runtime: &'a PodRuntime,
    pub node: &'a NodeFacts,
}

/// The container as the runtime is asked for it.
///
/// # Errors
/// `CreateContainerConfigError` if something it refers to is not there, or if
/// it says what cannot be.
pub fn container(input: &ContainerInput<'_>) -> Result<ContainerSpec, RenderError> {
    let ContainerInput {
        pod,
        container,
        node,
        ..
    } = *input;
    resources::check(&pod.pod).map_err(|error| RenderError::config(&error))?;
    let env = environment(input)?;
    Ok(ContainerSpec {
        name: container.name.clone(),
        attempt: input.attempt,
        image: input.image.id.clone(),
        user_image: container.image.clone().unwrap_or_default(),
        command: env::expand_all(container.command.as_ref(), &env),
        args: env::expand_all(container.args.as_ref(), &env),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        mounts: mounts::of_container(container, input)?,
        labels: labels(pod, container),
        annotations: annotations(input),
        log_path: Path::new(&container.name).join(format!("{}.log", input.attempt)),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        resources: linux::of_container(pod, container, node),
        security: security::of_container(input)?,
        process_target: input.process_target.cloned(),
        envs: env.into_iter().collect(),
    })
}

/// The parts of volumes that the container mounts: to be prepared, and handed
/// in with the container's files.
///
/// # Errors
/// As [`container()`].
pub fn sub_paths(input: &ContainerInput<'_>) -> Result<Vec<SubPath>, RenderError> {
    mounts::sub_paths(input.container, input.volumes, || environment(input))
}

fn environment(input: &ContainerInput<'_>) -> Result<Env, RenderError> {
    let view = PodView {
        pod: input.pod,
        sandbox_ips: input.sandbox_ips,
        node: input.node,
    };
    env::render(&view, input.container, input.refs).map_err(|error| RenderError::config(&error))
}

fn labels(pod: &DesiredPod, container: &Container) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from(identity(pod));
    labels.insert(stamp::LABEL_CONTAINER_NAME.into(), container.name.clone());
    labels
}

fn annotations(input: &ContainerInput<'_>) -> BTreeMap<String, String> {
    let container = input.container;
    let pod = &input.pod.pod;
    let mut annotations = BTreeMap::new();
    let stamp = ContainerStamp {
        hash: hash::container(container),
        backoff: input.backoff,
        ..ContainerStamp::default()
    };
    stamp.write(&mut annotations);
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let seconds = |value: Option<i64>| value.map(|seconds| seconds.to_string());
    let spec = pod.spec.as_ref();
    let pre_stop = container
        .lifecycle
        .as_ref()
        .and_then(|l| l.pre_stop.as_ref());
    let ports = container.ports.as_ref().filter(|ports| !ports.is_empty());
    let more = [
        (
            stamp::ANNOTATION_RESTART_COUNT,
            Some(input.attempt.to_string()),
        ),
        (
            stamp::ANNOTATION_TERMINATION_PATH,
            Some(text(&container.termination_message_path)),
        ),
        (
            stamp::ANNOTATION_TERMINATION_POLICY,
            Some(text(&container.termination_message_policy)),
        ),
        (
            stamp::ANNOTATION_POD_GRACE,
            seconds(spec.and_then(|spec| spec.termination_grace_period_seconds)),
        ),
        (
            stamp::ANNOTATION_DELETION_GRACE,
            seconds(pod.metadata.deletion_grace_period_seconds),
        ),
        (stamp::ANNOTATION_PRE_STOP, pre_stop.and_then(json)),
        (stamp::ANNOTATION_PORTS, ports.and_then(json)),
    ];
    let set = more
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)));
    annotations.extend(set);
    annotations
}

/// API objects always serialise; what would not is of use to nobody.
fn json(value: &impl Serialize) -> Option<String> {
    serde_json::to_string(value).ok()
}
