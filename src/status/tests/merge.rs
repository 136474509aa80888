//! Tables: API status and worker's status in, merged status out.

use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Value, json};

use super::{NOW, api_pod, desired, now, object, update, update_of};
use crate::pod::Origin;
use crate::status::Ending;
use crate::status::merge::merge;

const EARLIER: &str = "2026-01-01T10:00:00Z";

/// Merges and shows as JSON.
fn merged(api: &Value, ours: &Value, ending: Ending) -> Value {
    let pod = api_pod("a", api);
    serde_json::to_value(merge(&pod, &update(&pod, ours, ending), now())).unwrap()
}

fn condition(type_: &str, status: &str, time: &str) -> Value {
    json!({ "type": type_, "status": status, "lastTransitionTime": time })
}

#[test]
fn a_terminal_phase_is_held_back_while_a_container_may_run() {
    let api = json!({ "phase": "Running", "reason": "Old", "message": "old" });
    let ours = json!({ "phase": "Failed", "reason": "DeadlineExceeded", "message": "late" });
    let table = [
        (Ending::Live, "Running", "Old", "old"),
        (Ending::Stopped, "Failed", "DeadlineExceeded", "late"),
        (Ending::Gone, "Failed", "DeadlineExceeded", "late"),
    ];
    for (ending, phase, reason, message) in table {
        let got = merged(&api, &ours, ending);
        assert_eq!(
            (&got["phase"], &got["reason"], &got["message"]),
            (&json!(phase), &json!(reason), &json!(message)),
            "{ending:?}"
        );
    }
}

#[test]
fn a_terminal_phase_never_changes() {
    let api = json!({ "phase": "Failed", "reason": "Evicted", "message": "memory" });
    for ours in ["Pending", "Running", "Succeeded"] {
        let got = merged(&api, &json!({ "phase": ours }), Ending::Gone);
        assert_eq!(got["phase"], "Failed", "{ours}");
        assert_eq!(got["reason"], "Evicted", "{ours}");
    }
    let silent = merged(&api, &json!({ "phase": "Failed" }), Ending::Stopped);
    assert_eq!(silent["reason"], "Evicted");
}

#[test]
fn a_pod_of_which_nothing_is_left_has_failed_unless_it_is_static() {
    let ours = json!({ "phase": "Pending" });
    assert_eq!(merged(&ours, &ours, Ending::Gone)["phase"], "Failed");
    assert_eq!(merged(&ours, &ours, Ending::Stopped)["phase"], "Pending");
    let mirror = api_pod("a", &ours);
    let origin = Origin::Static {
        path: "/m.yaml".into(),
    };
    let update = update_of(desired(&mirror, origin), &ours, Ending::Gone);
    assert_eq!(
        merge(&mirror, &update, now()).phase.as_deref(),
        Some("Pending")
    );
}

#[test]
fn conditions_of_others_stay_and_ours_are_replaced() {
    let api = json!({ "phase": "Running", "conditions": [
        condition("example.com/gate", "True", EARLIER),
        condition("PodScheduled", "True", EARLIER),
        condition("Ready", "False", EARLIER),
        condition("Initialized", "True", EARLIER),
        condition("PodResizePending", "True", EARLIER),
    ]});
    let ours = json!({ "phase": "Running", "conditions": [
        condition("Ready", "True", NOW),
        condition("Initialized", "True", NOW),
    ]});
    let got = merged(&api, &ours, Ending::Live);
    assert_eq!(
        got["conditions"],
        json!([
            condition("example.com/gate", "True", EARLIER),
            condition("PodScheduled", "True", EARLIER),
            condition("Ready", "True", NOW),
            condition("Initialized", "True", EARLIER),
        ])
    );
}

#[test]
fn a_disruption_is_told_together_with_the_end_it_explains() {
    let api = json!({ "phase": "Running" });
    let ours =
        json!({ "phase": "Failed", "conditions": [condition("DisruptionTarget", "True", NOW)] });
    assert_eq!(merged(&api, &ours, Ending::Live).get("conditions"), None);
    let got = merged(&api, &ours, Ending::Stopped);
    assert_eq!(got["conditions"][0]["type"], "DisruptionTarget");
    // Once told, it is the API server's.
    let later = merged(&got, &json!({ "phase": "Failed" }), Ending::Gone);
    assert_eq!(later["conditions"], got["conditions"]);
}

#[test]
fn a_pod_that_has_ended_is_not_ready() {
    let ready = json!([
        condition("Ready", "True", EARLIER),
        condition("ContainersReady", "True", EARLIER)
    ]);
    let api = json!({ "phase": "Running", "conditions": ready });
    for (phase, reason) in [("Succeeded", "PodCompleted"), ("Failed", "PodFailed")] {
        let ours = json!({ "phase": phase, "conditions": ready });
        let got = merged(&api, &ours, Ending::Stopped);
        for index in [0, 1] {
            let condition = &got["conditions"][index];
            assert_eq!(condition["status"], "False", "{phase}");
            assert_eq!(condition["reason"], reason, "{phase}");
            assert_eq!(condition["lastTransitionTime"], NOW, "{phase}");
        }
    }
}

#[test]
fn what_was_set_once_stays() {
    let api = json!({
        "phase": "Running", "startTime": EARLIER, "observedGeneration": 5, "qosClass": "Burstable",
        "hostIP": "10.0.0.1", "nominatedNodeName": "n", "podIP": "10.1.0.1", "podIPs": [{"ip": "10.1.0.1"}],
        "resourceClaimStatuses": [{ "name": "c" }],
    });
    let ours = json!({ "phase": "Running", "startTime": NOW, "observedGeneration": 4, "qosClass": "Guaranteed" });
    assert_eq!(merged(&api, &ours, Ending::Stopped), api);
    let live = merged(&api, &ours, Ending::Live);
    assert_eq!(
        live.get("podIP"),
        None,
        "a live pod without sandbox has no address"
    );
    let fresh = merged(&json!({}), &json!({ "phase": "Pending" }), Ending::Live);
    assert_eq!(fresh["startTime"], NOW);
}

fn container(state: &Value, restarts: i32) -> Value {
    json!({
        "name": "main", "image": "i", "imageID": "", "ready": false,
        "restartCount": restarts, "state": state,
    })
}

#[test]
fn a_container_comes_back_from_its_end_only_if_it_may_restart() {
    let rule = |action: &str, codes: &[i32]| json!([{ "action": action, "exitCodes": { "operator": "In", "values": codes } }]);
    let table = [
        ("Always", json!({ "name": "main" }), 0, true),
        ("OnFailure", json!({ "name": "main" }), 1, true),
        ("OnFailure", json!({ "name": "main" }), 0, false),
        ("Never", json!({ "name": "main" }), 1, false),
        (
            "Never",
            json!({ "name": "main", "restartPolicy": "Always" }),
            0,
            true,
        ),
        (
            "Never",
            json!({ "name": "main", "restartPolicy": "Never", "restartPolicyRules": rule("Restart", &[7]) }),
            7,
            true,
        ),
        (
            "Never",
            json!({ "name": "main", "restartPolicy": "Never", "restartPolicyRules": rule("Restart", &[7]) }),
            8,
            false,
        ),
        (
            "Never",
            json!({ "name": "main", "restartPolicy": "Never", "restartPolicyRules": rule("RestartAllContainers", &[7]) }),
            8,
            true,
        ),
    ];
    for (policy, spec, code, may_restart) in table {
        let ended = container(&json!({ "terminated": { "exitCode": code } }), 3);
        let running = container(&json!({ "running": {} }), 2);
        let mut pod = api_pod(
            "a",
            &json!({ "phase": "Running", "containerStatuses": [ended] }),
        );
        pod.spec = Some(object(
            json!({ "restartPolicy": policy, "containers": [spec] }),
        ));
        let ours = update(
            &pod,
            &json!({ "phase": "Running", "containerStatuses": [running] }),
            Ending::Live,
        );
        let got = merge(&pod, &ours, now())
            .container_statuses
            .unwrap()
            .remove(0);
        let is_back = got.state.unwrap().running.is_some();
        assert_eq!(is_back, may_restart, "{policy} {spec} {code}");
        assert_eq!(got.restart_count, 3, "a restart count never falls");
    }
}

#[test]
fn termination_messages_share_the_room_and_are_cut_between_characters() {
    let message = "ä".repeat(10_000);
    let ended = container(
        &json!({ "terminated": { "exitCode": 1, "message": message } }),
        0,
    );
    let mut pod = api_pod("a", &json!({}));
    pod.spec = Some(object(json!({
        "containers": [{ "name": "main" }, { "name": "b" }, { "name": "c" }],
    })));
    let ours = update(
        &pod,
        &json!({ "phase": "Running", "containerStatuses": [ended] }),
        Ending::Live,
    );
    let got: PodStatus = merge(&pod, &ours, now());
    let state = got.container_statuses.unwrap().remove(0).state.unwrap();
    assert_eq!(state.terminated.unwrap().message.unwrap().len(), 4096);
}

#[test]
fn merging_twice_changes_nothing() {
    let api = json!({ "phase": "Running", "conditions": [condition("Ready", "True", EARLIER)] });
    let ours = json!({ "phase": "Failed", "conditions": [condition("Ready", "True", NOW)] });
    for ending in [Ending::Live, Ending::Stopped, Ending::Gone] {
        let once = merged(&api, &ours, ending);
        assert_eq!(merged(&once, &ours, ending), once, "{ending:?}");
    }
}
