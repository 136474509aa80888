//! The patch's shape, and the property that it does what it says.

use k8s_openapi::api::core::v1::PodStatus;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::object;
use super::strategic::apply;
use crate::status::patch::diff;

fn patch_of(old: &Value, new: &Value) -> Option<Value> {
    let old: PodStatus = object(old.clone());
    let new: PodStatus = object(new.clone());
    diff("u", &old, &new).unwrap()
}

#[test]
fn no_difference_is_no_patch() {
    let status =
        json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] });
    assert_eq!(patch_of(&status, &status), None);
}

#[test]
fn empty_is_the_same_as_absent() {
    let container = |extra: Value| {
        let mut container = json!({ "name": "main", "image": "i", "imageID": "", "ready": true, "restartCount": 0 });
        container
            .as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        json!({ "containerStatuses": [container], "conditions": [] })
    };
    let filled = container(json!({ "lastState": {}, "resources": { "limits": {} } }));
    assert_eq!(patch_of(&filled, &container(json!({}))), None);
}

#[test]
fn a_patch_names_the_pod_and_only_what_changed() {
    let old = json!({
        "phase": "Pending", "reason": "Gone", "startTime": "2026-01-01T10:00:00Z",
        "podIPs": [{ "ip": "10.0.0.1" }],
        "resources": { "limits": { "cpu": "1" } },
        "conditions": [
            { "type": "Ready", "status": "False", "reason": "ContainersNotReady", "lastTransitionTime": "2026-01-01T10:00:00Z" },
            { "type": "Initialized", "status": "True" },
            { "type": "PodResizePending", "status": "True" },
        ],
    });
    let new = json!({
        "phase": "Running", "startTime": "2026-01-01T10:00:00Z",
        "podIPs": [{ "ip": "10.0.0.2" }],
        "resources": { "limits": { "memory": "1" } },
        "conditions": [
            { "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T11:00:00Z" },
            { "type": "Initialized", "status": "True" },
            { "type": "ContainersReady", "status": "True" },
        ],
    });
    assert_eq!(
        patch_of(&old, &new).unwrap(),
        json!({
            "metadata": { "uid": "u" },
            "status": {
                "phase": "Running",
                "reason": null,
                "podIPs": [{ "ip": "10.0.0.2" }, { "$patch": "replace" }],
                "resources": { "$patch": "replace", "limits": { "memory": "1" } },
                "conditions": [
                    { "type": "Ready", "status": "True", "reason": null, "lastTransitionTime": "2026-01-01T11:00:00Z" },
                    { "type": "ContainersReady", "status": "True" },
                    { "$patch": "delete", "type": "PodResizePending" },
                ],
            },
        })
    );
}

fn text() -> impl Strategy<Value = Option<String>> {
    proptest::option::of("[a-c]{1,2}")
}

prop_compose! {
    fn a_condition()(status in "True|False", reason in text(), second in 0..3_u8) -> Value {
        let time = format!("2026-01-01T10:00:0{second}Z");
        json!({ "status": status, "reason": reason, "lastTransitionTime": time })
    }
}

fn conditions() -> impl Strategy<Value = Option<Vec<Value>>> {
    let types = vec!["Ready", "Initialized", "example.com/gate"];
    let by_type =
        proptest::collection::btree_map(proptest::sample::select(types), a_condition(), 1..3);
    proptest::option::of(by_type.prop_map(|by_type| {
        let with_type = |(type_, mut condition): (&str, Value)| {
            condition["type"] = json!(type_);
            condition
        };
        by_type.into_iter().map(with_type).collect()
    }))
}

fn ips() -> impl Strategy<Value = Option<Vec<Value>>> {
    let ip = (0..3_u8).prop_map(|last| json!({ "ip": format!("10.0.0.{last}") }));
    proptest::option::of(proptest::collection::vec(ip, 1..3))
}

prop_compose! {
    fn a_container()(name in "[a-b]", restarts in 0..3_i32, id in text()) -> Value {
        json!({ "name": name, "image": "i", "imageID": "", "ready": true, "restartCount": restarts, "containerID": id })
    }
}

prop_compose! {
    fn a_status()(
        phase in text(), reason in text(), conditions in conditions(), ips in ips(),
        containers in proptest::option::of(proptest::collection::vec(a_container(), 1..3)),
        limits in proptest::option::of(proptest::collection::btree_map("cpu|memory", "[1-3]", 1..2)),
        generation in proptest::option::of(0..3_i64),
    ) -> PodStatus {
        let resources = limits.as_ref().map(|limits| json!({ "limits": limits }));
        object(json!({
            "phase": phase, "reason": reason, "conditions": conditions, "podIPs": ips,
            "containerStatuses": containers, "resources": resources,
            "allocatedResources": limits, "observedGeneration": generation,
        }))
    }
}

/// As JSON, with conditions in an order that does not depend on history.
fn normal(mut status: Value) -> Value {
    if let Some(Value::Array(conditions)) = status.get_mut("conditions") {
        conditions.sort_by_key(|condition| condition["type"].to_string());
    }
    status
}

proptest! {
    #[test]
    fn a_patch_turns_old_into_new(old in a_status(), new in a_status()) {
        let mut target = json!({
            "metadata": { "uid": "u" },
            "status": serde_json::to_value(&old).unwrap(),
        });
        let patch = diff("u", &old, &new).unwrap();
        prop_assert_eq!(patch.is_none(), old == new);
        if let Some(patch) = patch {
            apply(&mut target, &patch);
        }
        let got: PodStatus = object(target["status"].clone());
        prop_assert_eq!(
            normal(serde_json::to_value(&got).unwrap()),
            normal(serde_json::to_value(&new).unwrap())
        );
    }
}
