use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::pod::observed::ContainerStamp;
use crate::pod::{ContainerState, ObservedContainer, PodName, PodUid, SandboxId};

fn pod(status: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": { "name": "web" },
        "spec": {
            "initContainers": [{ "name": "first" }],
            "containers": [{ "name": "main" }],
            "ephemeralContainers": [{ "name": "debug" }],
        },
        "status": status,
    }))
    .expect("a pod")
}

fn observed(lives: &[(&str, &str, u32)]) -> ObservedPod {
    let uid = PodUid::from("uid");
    let name = PodName {
        namespace: "default".into(),
        name: "web".into(),
    };
    let containers = lives
        .iter()
        .map(|(container, id, attempt)| ObservedContainer {
            id: ContainerId((*id).to_owned()),
            sandbox: SandboxId("s".to_owned()),
            name: (*container).to_owned(),
            attempt: *attempt,
            state: ContainerState::Unknown,
            created_at: Timestamp::UNIX_EPOCH,
            image: String::new(),
            image_ref: String::new(),
            stamp: ContainerStamp::default(),
            user: None,
        });
    ObservedPod {
        containers: containers.collect(),
        ..ObservedPod::absent(uid, name, Timestamp::UNIX_EPOCH)
    }
}

fn main_with(rest: Value) -> Value {
    let mut status = json!({
        "name": "main", "image": "", "imageID": "", "ready": false, "restartCount": 0,
    });
    for (key, value) in rest.as_object().expect("an object") {
        status[key] = value.clone();
    }
    json!({ "containerStatuses": [status] })
}

fn running(id: &str) -> Value {
    main_with(json!({ "containerID": id, "state": { "running": {} } }))
}

fn ended(id: &str) -> Value {
    json!({ "terminated": { "exitCode": 1, "containerID": id } })
}

fn answer(status: Value, container: &str, instance: Instance) -> Result<u32, String> {
    let seen = observed(&[("main", "new", 3), ("main", "old", 2), ("first", "init", 0)]);
    choose(&pod(status), &seen, container, instance)
        .map(|life| life.attempt)
        .map_err(|error| error.to_string())
}

#[test]
fn the_latest_life_is_the_one_that_runs_or_ran_last() {
    let waits = json!({ "waiting": { "reason": "CrashLoopBackOff" } });
    let table = [
        (running("containerd://new"), Ok(3)),
        (running("new"), Ok(3)),
        (
            main_with(json!({ "state": ended("containerd://new") })),
            Ok(3),
        ),
        (
            main_with(json!({ "state": ended(""), "lastState": ended("containerd://old") })),
            Ok(2),
        ),
        (
            main_with(json!({ "state": waits, "lastState": ended("containerd://old") })),
            Ok(2),
        ),
        (
            main_with(json!({ "state": ended("") })),
            Err(r#"container "main" in pod "web" is terminated"#),
        ),
        (
            main_with(json!({ "state": waits, "lastState": ended("") })),
            Err(r#"container "main" in pod "web" is terminated"#),
        ),
        (
            running("containerd://lost"),
            Err("unable to retrieve container logs for containerd://lost"),
        ),
        (
            running("containerd://init"),
            Err("unable to retrieve container logs for containerd://init"),
        ),
        (
            running(""),
            Err(r#"container "main" in pod "web" is not available"#),
        ),
    ];
    for (status, wanted) in table {
        let shown = status.to_string();
        assert_eq!(
            answer(status, "main", Instance::Latest),
            wanted.map_err(str::to_owned),
            "{shown}"
        );
    }
}

#[test]
fn the_previous_life_is_the_one_before() {
    let status = main_with(json!({
        "containerID": "containerd://new",
        "state": { "running": {} },
        "lastState": ended("containerd://old"),
    }));
    assert_eq!(answer(status, "main", Instance::Previous), Ok(2));
    for status in [
        running("containerd://new"),
        main_with(json!({ "lastState": ended("") })),
    ] {
        assert_eq!(
            answer(status, "main", Instance::Previous),
            Err(r#"previous terminated container "main" in pod "web" not found"#.to_owned())
        );
    }
}

#[test]
fn what_has_not_begun_has_no_log() {
    let waiting = |reason: &str| main_with(json!({ "state": { "waiting": { "reason": reason } } }));
    let table = [
        (json!({}), "not available"),
        (json!({ "containerStatuses": [] }), "not available"),
        (
            waiting("ContainerCreating"),
            "waiting to start: ContainerCreating",
        ),
        (
            waiting("ErrImagePull"),
            "waiting to start: image can't be pulled",
        ),
        (
            waiting("ImagePullBackOff"),
            "waiting to start: trying and failing to pull image",
        ),
        (main_with(json!({})), "waiting to start - no logs yet"),
        (
            main_with(json!({ "state": {} })),
            "waiting to start - no logs yet",
        ),
    ];
    for (status, wanted) in table {
        let shown = status.to_string();
        assert_eq!(
            answer(status, "main", Instance::Latest),
            Err(format!("container \"main\" in pod \"web\" is {wanted}")),
            "{shown}"
        );
    }
}

#[test]
fn containers_of_all_kinds_have_logs() {
    let status = json!({ "initContainerStatuses": [{
        "name": "first", "image": "", "imageID": "", "ready": true, "restartCount": 0,
        "state": ended("containerd://init"),
    }] });
    assert_eq!(answer(status, "first", Instance::Latest), Ok(0));
    assert_eq!(
        answer(json!({}), "debug", Instance::Latest),
        Err(r#"container "debug" in pod "web" is not available"#.to_owned())
    );
    assert_eq!(
        answer(json!({}), "../x", Instance::Latest),
        Err(r#"container "../x" not found in pod "web""#.to_owned())
    );
}
