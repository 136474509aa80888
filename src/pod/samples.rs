//! Small pods, containers and nodes for the tests of this crate.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::hash;
use super::inputs::MountedVolumes;
use super::memory::{ImageProgress, PodMemory, Progress};
use super::model::{DesiredPod, Intent, Origin, PodName, PodUid, Termination, TerminationReason};
use super::observed::{
    ContainerId, ContainerStamp, ContainerState, Exit, ObservedContainer, ObservedPod,
    ObservedSandbox, SandboxId, SandboxState,
};
use super::spec::{ImageId, PresentImage};
pub(crate) use super::testing::node;

pub(crate) const START: i64 = 1_800_000_000;

pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(START + seconds).expect("a valid time")
}

pub(crate) fn pod(policy: &str, init: &[&str], regular: &[&str]) -> DesiredPod {
    let container = |name: &&str| json!({"name": name, "image": "img"});
    with_spec(json!({
        "restartPolicy": policy,
        "terminationGracePeriodSeconds": 7,
        "initContainers": init.iter().map(container).collect::<Vec<_>>(),
        "containers": regular.iter().map(container).collect::<Vec<_>>(),
    }))
}

pub(crate) fn with_spec(spec: serde_json::Value) -> DesiredPod {
    let mut pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
    }))
    .expect("a pod");
    pod.spec = serde_json::from_value(spec).expect("a spec");
    DesiredPod {
        uid: PodUid::from("u"),
        name: PodName::new("ns", "p"),
        pod: Arc::new(pod),
        origin: Origin::Api,
        intent: Intent::Run,
    }
}

pub(crate) fn deleted(pod: &DesiredPod, grace: u64) -> DesiredPod {
    DesiredPod {
        intent: Intent::Terminate(Termination {
            grace: Some(Duration::from_secs(grace)),
            reason: TerminationReason::Deleted,
        }),
        ..pod.clone()
    }
}

pub(crate) fn prepared() -> PodMemory {
    PodMemory {
        cgroup: Progress::Done(()),
        volumes: Progress::Done(MountedVolumes::default()),
        ..PodMemory::default()
    }
}

pub(crate) fn with_images(mut memory: PodMemory, names: &[&str]) -> PodMemory {
    for name in names {
        let entry = memory.containers.entry((*name).into()).or_default();
        entry.image = ImageProgress::Present(image());
    }
    memory
}

pub(crate) fn image() -> PresentImage {
    PresentImage {
        id: ImageId("sha256:0".into()),
        user: None,
    }
}

pub(crate) fn nothing() -> ObservedPod {
    ObservedPod::absent(PodUid::from("u"), PodName::new("ns", "p"), at(0))
}

pub(crate) fn sandbox(attempt: u32, state: SandboxState) -> ObservedSandbox {
    ObservedSandbox {
        id: SandboxId(format!("s{attempt}")),
        attempt,
        state,
        created_at: at(0),
        ips: vec!["10.0.0.2".parse().expect("an IP")],
        host_network: false,
        runtime_handler: String::new(),
    }
}

pub(crate) fn instance(
    pod: &DesiredPod,
    name: &str,
    attempt: u32,
    state: ContainerState,
) -> ObservedContainer {
    let spec = crate::pod::containers::find(&pod.pod, name).expect("a container of the pod");
    ObservedContainer {
        id: ContainerId(format!("{name}{attempt}")),
        sandbox: SandboxId("s0".into()),
        name: name.into(),
        attempt,
        state,
        created_at: at(0),
        image: "img".into(),
        image_ref: "img@sha256:0".into(),
        stamp: ContainerStamp {
            hash: hash::container(&spec),
            ..ContainerStamp::default()
        },
        user: None,
    }
}

pub(crate) fn exited(code: i32, at_second: i64) -> ContainerState {
    ContainerState::Exited(Exit {
        code,
        signal: None,
        reason: if code == 0 { "Completed" } else { "Error" }.into(),
        message: String::new(),
        started_at: Some(at(0)),
        finished_at: at(at_second),
    })
}

pub(crate) fn running() -> ContainerState {
    ContainerState::Running { started_at: at(0) }
}

pub(crate) fn up(containers: Vec<ObservedContainer>) -> ObservedPod {
    ObservedPod {
        sandboxes: vec![sandbox(0, SandboxState::Ready)],
        containers,
        ..nothing()
    }
}
