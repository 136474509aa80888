//! Tables and goldens; nothing here touches a machine.

use super::*;
use crate::pod::quantity::Quantity;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn failure(reason: &str, message: &str) -> ConditionFailure {
    ConditionFailure {
        reason: reason.to_owned(),
        message: message.to_owned(),
    }
}

fn checked() -> RuntimeHealth {
    RuntimeHealth {
        checked: true,
        ..RuntimeHealth::default()
    }
}

fn capacity() -> ResourceList {
    ["cpu", "memory", "pods"]
        .map(|name| (name.to_owned(), Quantity::from_value(1).to_decimal()))
        .into()
}

fn told(health: &RuntimeHealth, required: &[&str]) -> [Verdict; 4] {
    verdicts(health, Pressure::default(), &capacity(), required)
}

#[test]
fn ready_messages() {
    let network = RuntimeHealth {
        network: Some(failure(
            "NetworkPluginNotReady",
            "Network plugin returns error: cni plugin not initialized",
        )),
        ..checked()
    };
    let both = RuntimeHealth {
        runtime: Some(failure("Broken", "no shim")),
        network: Some(failure("N", "m")),
        ..checked()
    };
    let down = RuntimeHealth {
        runtime: Some(failure(
            RUNTIME_DOWN,
            "container runtime is down: no answer",
        )),
        ..checked()
    };
    for (health, required, message) in [
        (checked(), &[][..], "kubelet is posting ready status"),
        (
            RuntimeHealth::default(),
            &[],
            "[container runtime status check may not have completed yet, network state unknown]",
        ),
        (down, &[], "container runtime is down: no answer"),
        (
            network,
            &[],
            "container runtime network not ready: NetworkReady=false \
             reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not \
             initialized",
        ),
        (
            both,
            &[],
            "[container runtime not ready: RuntimeReady=false reason:Broken message:no shim, \
             container runtime network not ready: NetworkReady=false reason:N message:m]",
        ),
        (
            checked(),
            &["cpu", "ephemeral-storage", "memory", "pods"],
            "missing node capacity for resources: ephemeral-storage",
        ),
    ] {
        let [.., ready] = told(&health, required);
        assert_eq!(ready.message, message);
        let holds = message.ends_with("ready status");
        assert_eq!(ready.status, status_text(holds));
        let reason = if holds {
            "KubeletReady"
        } else {
            "KubeletNotReady"
        };
        assert_eq!(ready.reason, reason);
    }
}

#[test]
fn pressures() {
    let pressure = Pressure {
        memory: true,
        disk: true,
        pid: true,
    };
    let lines = verdicts(&checked(), pressure, &capacity(), &[])
        .map(|v| format!("{}={} {}: {}", v.kind, v.status, v.reason, v.message));
    assert_eq!(
        lines[..3],
        [
            "MemoryPressure=True KubeletHasInsufficientMemory: kubelet has insufficient memory available",
            "DiskPressure=True KubeletHasDiskPressure: kubelet has disk pressure",
            "PIDPressure=True KubeletHasInsufficientPID: kubelet has insufficient PID available",
        ]
    );
}

fn condition(kind: &str, status: &str, since: i64) -> NodeCondition {
    NodeCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        last_transition_time: Some(Time(at(since))),
        ..NodeCondition::default()
    }
}

#[test]
fn a_new_node_gets_them_in_order() {
    let verdicts = told(&checked(), &[]);
    let merged = merge(&[], &[], verdicts, &[], at(5));
    let kinds: Vec<&str> = merged.iter().map(|c| c.type_.as_str()).collect();
    assert_eq!(
        kinds,
        ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"]
    );
    assert!(
        merged
            .iter()
            .all(|c| c.last_transition_time == Some(Time(at(5))))
    );
    assert!(
        merged
            .iter()
            .all(|c| c.last_heartbeat_time == Some(Time(at(5))))
    );
}

#[test]
fn conditions_of_others_stay() {
    let foreign = condition("NetworkUnavailable", "False", 1);
    let base = [condition("Ready", "True", 1), foreign.clone()];
    let merged = merge(&base, &[], told(&checked(), &[]), &[], at(5));
    assert_eq!(merged[0].type_, "Ready");
    assert_eq!(merged[1], foreign);
    assert_eq!(merged.len(), 5);
}

#[test]
fn transition_times() {
    // (API server's, computed last, becomes True at)
    for (known, last, expected) in [
        // Nothing changed.
        (Some(("True", 1)), None, 1),
        (Some(("True", 1)), Some(("True", 3)), 1),
        // It changes now.
        (Some(("False", 1)), None, 9),
        (Some(("False", 1)), Some(("False", 3)), 9),
        (None, None, 9),
        // It changed before, and could not be sent.
        (Some(("False", 1)), Some(("True", 3)), 3),
        (None, Some(("True", 3)), 3),
        // The node controller gave us up after that.
        (Some(("Unknown", 5)), Some(("True", 3)), 9),
    ] {
        let list = |entry: Option<(&str, i64)>| -> Vec<NodeCondition> {
            entry
                .map(|(status, since)| condition("Ready", status, since))
                .into_iter()
                .collect()
        };
        let verdicts = told(&checked(), &[]);
        let merged = merge(&list(known), &list(last), verdicts, &[], at(9));
        let ready = find(&merged, "Ready").unwrap();
        let since = ready.last_transition_time.as_ref().unwrap().0;
        assert_eq!(since, at(expected), "{known:?} {last:?}");
    }
}

#[test]
fn conditions_of_other_parts_come_and_go() {
    let says = |status: &str| {
        ExtraCondition::Says(NodeCondition {
            reason: Some("R".to_owned()),
            message: Some("m".to_owned()),
            ..condition("Extra", status, 0)
        })
    };
    // (API server's, said now, status and since when)
    for (known, extra, expected) in [
        (None, says("Unknown"), Some(("Unknown", 9))),
        (Some(("Unknown", 1)), says("Unknown"), Some(("Unknown", 1))),
        (Some(("Unknown", 1)), says("False"), Some(("False", 9))),
        (Some(("True", 1)), ExtraCondition::Absent("Extra"), None),
        (None, ExtraCondition::Absent("Extra"), None),
    ] {
        let base: Vec<_> = known
            .map(|(status, since)| condition("Extra", status, since))
            .into_iter()
            .collect();
        let shown = format!("{known:?} {extra:?}");
        let merged = merge(&base, &[], told(&checked(), &[]), &[extra], at(9));
        let found = find(&merged, "Extra");
        assert_eq!(
            found.map(|c| c.status.as_str()),
            expected.map(|e| e.0),
            "{shown}"
        );
        let since = found.and_then(|c| Some(c.last_transition_time.as_ref()?.0));
        assert_eq!(since, expected.map(|e| at(e.1)), "{shown}");
        if let Some(found) = found {
            assert_eq!(found.last_heartbeat_time, Some(Time(at(9))));
            assert_eq!(found.reason.as_deref(), Some("R"));
        }
    }
}
