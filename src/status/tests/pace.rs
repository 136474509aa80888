//! Which statuses can wait.

use std::time::Duration;

use serde_json::{Value, json};

use super::{api_pod, update};
use crate::status::Ending;
use crate::status::pace::{Pace, pace};

fn pace_of(status: &Value, ending: Ending) -> Pace {
    pace(&update(&api_pod("web", &json!({})), status, ending))
}

fn with_container(state: &Value) -> Value {
    json!({
        "phase": "Pending",
        "containerStatuses": [{
            "name": "main", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": state,
        }],
    })
}

#[test]
fn only_a_start_that_goes_well_can_wait() {
    let creating = json!({ "waiting": { "reason": "ContainerCreating" } });
    let pulling_fails =
        json!({ "waiting": { "reason": "ErrImagePull", "message": "no such host" } });
    let cases = [
        (json!({ "phase": "Pending" }), Pace::Unhurried),
        (with_container(&creating), Pace::Unhurried),
        (
            with_container(&json!({ "waiting": { "reason": "PodInitializing" } })),
            Pace::Unhurried,
        ),
        (
            with_container(&json!({ "terminated": { "exitCode": 0 } })),
            Pace::Unhurried,
        ),
        (with_container(&pulling_fails), Pace::AtOnce),
        (
            with_container(&json!({ "waiting": {
                "reason": "ContainerCreating", "message": "cannot mount"
            } })),
            Pace::AtOnce,
        ),
        (
            with_container(&json!({ "terminated": { "exitCode": 1 } })),
            Pace::AtOnce,
        ),
        (json!({ "phase": "Running" }), Pace::AtOnce),
        (json!({ "phase": "Failed" }), Pace::AtOnce),
        (
            json!({ "phase": "Pending", "reason": "Evicted" }),
            Pace::AtOnce,
        ),
    ];
    for (status, expected) in cases {
        assert_eq!(pace_of(&status, Ending::Live), expected, "{status}");
    }
    let restarted = json!({
        "phase": "Pending",
        "initContainerStatuses": [{
            "name": "init", "image": "", "imageID": "", "ready": false, "restartCount": 1,
            "state": { "running": {} },
        }],
    });
    assert_eq!(pace_of(&restarted, Ending::Live), Pace::AtOnce);
    assert_eq!(
        pace_of(&json!({ "phase": "Pending" }), Ending::Stopped),
        Pace::AtOnce
    );
    assert!(crate::status::pace::PATIENCE < Duration::from_secs(1));
}
