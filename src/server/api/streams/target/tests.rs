use std::sync::Arc;

use jiff::Timestamp;
use serde_json::json;

use super::*;
use crate::pod::observed::ContainerStamp;
use crate::pod::samples::{self, exited, running as running_now};
use crate::pod::{
    DesiredPod, Intent, ObservedContainer, ObservedPod, Origin, PodName, PodUid, SandboxState,
};

const WANTED: StdStreams = StdStreams {
    stdin: true,
    stdout: true,
    stderr: true,
    tty: false,
};

fn instance(name: &str, attempt: u32, state: ContainerState) -> ObservedContainer {
    ObservedContainer {
        id: ContainerId(format!("{name}-{attempt}")),
        sandbox: SandboxId("s0".to_owned()),
        name: name.to_owned(),
        attempt,
        state,
        created_at: Timestamp::UNIX_EPOCH,
        image: String::new(),
        image_ref: String::new(),
        stamp: ContainerStamp::default(),
        user: None,
    }
}

fn found(sandbox: SandboxState, containers: Vec<ObservedContainer>) -> FoundPod {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": { "name": "web", "namespace": "shop", "uid": "u" },
        "spec": {
            "initContainers": [{ "name": "first" }],
            "containers": [{ "name": "plain" }, { "name": "screen", "tty": true }],
            "ephemeralContainers": [{ "name": "debugger", "tty": true }],
        },
    }))
    .expect("a pod");
    let (uid, name) = (PodUid::from("u"), PodName::of(&pod));
    FoundPod {
        desired: Arc::new(DesiredPod {
            uid: uid.clone(),
            name: name.clone(),
            pod: Arc::new(pod),
            origin: Origin::Api,
            intent: Intent::Run,
        }),
        status: None,
        observed: Arc::new(ObservedPod {
            sandboxes: vec![samples::sandbox(0, sandbox)],
            containers,
            ..ObservedPod::absent(uid, name, Timestamp::UNIX_EPOCH)
        }),
    }
}

#[test]
fn a_command_needs_a_container_that_runs() {
    let pod = found(
        SandboxState::Ready,
        vec![
            instance("plain", 1, running_now()),
            instance("plain", 0, exited(0, 1)),
            instance("screen", 0, ContainerState::Created),
            instance("debugger", 0, ContainerState::Unknown),
            instance("first", 0, exited(0, 1)),
        ],
    );
    let id = |name| running(&pod, name).map(|id| id.0);
    assert_eq!(id("plain").as_deref(), Ok("plain-1"));
    // The runtime lost track of it; it knows better than we do.
    assert_eq!(id("debugger").as_deref(), Ok("debugger-0"));
    for name in ["screen", "first", "nothing"] {
        let refusal = Refusal::not_found(format!("container not found (\"{name}\")"));
        assert_eq!(id(name), Err(refusal));
    }
}

#[test]
fn the_container_says_whether_there_is_a_terminal() {
    let pod = found(
        SandboxState::Ready,
        ["plain", "screen", "debugger", "stranger"]
            .map(|name| instance(name, 0, running_now()))
            .to_vec(),
    );
    let cases = [("plain", false), ("screen", true), ("debugger", true)];
    for (name, tty) in cases {
        for asked in [true, false] {
            let wanted = StdStreams {
                tty: asked,
                ..WANTED
            };
            let (id, streams) = attached(&pod, name, wanted).expect(name);
            assert_eq!(id.0, format!("{name}-0"));
            let expected = StdStreams {
                tty,
                stderr: !tty,
                ..WANTED
            };
            assert_eq!(streams, expected, "{name}, asked for {asked}");
        }
    }
    // It runs, and no spec tells what it is like; it is declared, and does not run.
    for name in ["stranger", "first"] {
        let refusal = Refusal::not_found(format!("container {name} not found in pod web_shop"));
        assert_eq!(attached(&pod, name, WANTED), Err(refusal));
    }
}

#[test]
fn ports_are_forwarded_into_a_sandbox_that_is_up() {
    let up = found(SandboxState::Ready, Vec::new());
    assert_eq!(sandbox(&up), Ok(SandboxId("s0".to_owned())));
    let down = found(SandboxState::NotReady, Vec::new());
    assert_eq!(
        sandbox(&down),
        Err(Refusal::not_found("pod not found (\"web_shop\")"))
    );
}

#[test]
fn only_what_the_spec_names_can_be_checkpointed() {
    let pod = found(SandboxState::Ready, Vec::new());
    for name in ["first", "plain", "debugger"] {
        assert_eq!(declared(&pod, name), Ok(()));
    }
    assert_eq!(
        declared(&pod, "nothing"),
        Err(Refusal::not_found("container nothing does not exist"))
    );
}
