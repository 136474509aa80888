//! What sidecars, restart rules, probes and ephemeral containers mean for the
//! status.

use super::*;
use crate::pod::probe::{ProbeKind, Verdict};

/// A sidecar `s` with probes, and an app container `a`.
fn with_sidecar() -> DesiredPod {
    with_spec(json!({
        "restartPolicy": "Never",
        "initContainers": [{"name": "s", "image": "img", "restartPolicy": "Always",
                            "startupProbe": {}, "readinessProbe": {}}],
        "containers": [{"name": "a", "image": "img"}],
    }))
}

fn told(memory: &mut PodMemory, kind: ProbeKind, name: &str, passed: bool) {
    let instance = crate::pod::ContainerId(format!("{name}0"));
    let entry = memory.containers.entry(name.into()).or_default();
    entry.probes.set(kind, Verdict { instance, passed });
}

fn state_of(status: &PodStatus, name: &str) -> Value {
    let status = container(status, name);
    serde_json::to_value(&status.state).expect("a state")
}

#[test]
fn phases_with_a_sidecar() {
    let pod = with_sidecar();
    let s = |state| instance(&pod, "s", 0, state);
    let a = |state| instance(&pod, "a", 0, state);
    let table = [
        (vec![s(running())], "Pending"),
        (vec![s(exited(1, 1))], "Pending"),
        (vec![s(running()), a(running())], "Running"),
        // Restarting it does not put a pod back that has begun.
        (vec![s(exited(1, 1)), a(running())], "Running"),
        (vec![s(running()), a(exited(0, 1))], "Running"),
        (vec![s(exited(137, 1)), a(exited(0, 1))], "Succeeded"),
        (vec![s(exited(0, 1)), a(exited(1, 1))], "Failed"),
    ];
    for (containers, expected) in table {
        let status = alive(&pod, containers.clone());
        assert_eq!(status.phase.as_deref(), Some(expected), "{containers:?}");
    }
}

#[test]
fn a_sidecar_counts_for_the_conditions() {
    let pod = with_sidecar();
    let mut memory = PodMemory::default();
    let observed = up(vec![
        instance(&pod, "s", 0, running()),
        instance(&pod, "a", 0, running()),
    ]);
    let now = |memory: &PodMemory| status_of(&pod, &observed, memory, Stage::Running, None);
    let status = now(&memory);
    let s = container(&status, "s");
    assert_eq!((s.started, s.ready), (Some(false), false));
    told(&mut memory, ProbeKind::Startup, "s", true);
    let status = now(&memory);
    let s = container(&status, "s");
    assert_eq!((s.started, s.ready), (Some(true), false));
    assert_eq!(
        condition(&status, "ContainersReady"),
        json!([
            "False",
            "ContainersNotReady",
            "containers with unready status: [s]"
        ])
    );
    told(&mut memory, ProbeKind::Readiness, "s", true);
    assert_eq!(
        condition(&now(&memory), "Ready"),
        json!(["True", null, null])
    );
}

#[test]
fn a_sidecar_that_has_not_started_leaves_the_pod_uninitialized() {
    let pod = with_sidecar();
    let status = alive(&pod, vec![instance(&pod, "s", 0, running())]);
    assert_eq!(
        condition(&status, "Initialized"),
        json!([
            "False",
            "ContainersNotInitialized",
            "containers with incomplete status: [s]"
        ])
    );
}

#[test]
fn a_container_stopped_by_its_probe_waits_for_its_next_life() {
    let pod = with_spec(json!({
        "restartPolicy": "OnFailure",
        "containers": [{"name": "a", "image": "img", "livenessProbe": {}}],
    }));
    let mut memory = PodMemory::default();
    told(&mut memory, ProbeKind::Liveness, "a", false);
    let observed = up(vec![instance(&pod, "a", 0, exited(0, 99))]);
    let status = status_of(&pod, &observed, &memory, Stage::Running, None);
    assert_eq!(
        state_of(&status, "a"),
        json!({"waiting": {"reason": "ContainerCreating"}})
    );
    assert_eq!(status.phase.as_deref(), Some("Running"));
}

fn restarting() -> DesiredPod {
    with_spec(json!({
        "restartPolicy": "Never",
        "containers": [
            {"name": "a", "image": "img", "restartPolicy": "Never", "restartPolicyRules": [
                {"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}},
            ]},
            {"name": "b", "image": "img"},
        ],
    }))
}

#[test]
fn a_restart_of_all_is_told_from_beginning_to_end() {
    let pod = restarting();
    let a = instance(&pod, "a", 0, exited(42, 90));
    let b = |state| instance(&pod, "b", 0, state);
    let mut previous = None;
    let mut next = |containers| {
        let memory = PodMemory::default();
        let status = status_of(
            &pod,
            &up(containers),
            &memory,
            Stage::Running,
            previous.as_ref(),
        );
        assert_eq!(status.phase.as_deref(), Some("Running"));
        previous = Some(status.clone());
        status
    };
    let restarts = |status: &PodStatus| condition(status, "AllContainersRestarting")[0].clone();
    let waits = json!({"waiting": {"reason": "RestartingAllContainers"}});

    let before = next(vec![instance(&pod, "a", 0, running()), b(running())]);
    assert_eq!(restarts(&before), "False");

    let begun = next(vec![a.clone(), b(running())]);
    assert_eq!(
        condition(&begun, "AllContainersRestarting"),
        json!([
            "True",
            "RestartAllContainersStarted",
            "container exited with restart policy rule"
        ])
    );
    next(vec![a.clone(), b(exited(137, 91))]);

    let half_way = next(vec![a]);
    assert_eq!(state_of(&half_way, "b"), waits);
    let last = container(&half_way, "b").last_state.clone();
    let last = last.and_then(|state| state.terminated).expect("an end");
    assert_eq!(
        (last.exit_code, last.reason.as_deref()),
        (137, Some("RestartingAllContainers"))
    );
    assert_eq!(container(&half_way, "b").restart_count, 1);

    let gone = next(vec![]);
    assert_eq!(restarts(&gone), "False");
    assert_eq!(state_of(&gone, "a"), waits);
    for name in ["a", "b"] {
        assert_eq!(container(&gone, name).restart_count, 1, "{name}");
    }
    let last = container(&gone, "a").last_state.clone();
    assert_eq!(
        last.and_then(|s| s.terminated).map(|t| t.exit_code),
        Some(42)
    );

    let again = |name| instance(&pod, name, 1, running());
    let after = next(vec![again("a"), again("b")]);
    for name in ["a", "b"] {
        let status = container(&after, name);
        assert_eq!((status.restart_count, status.ready), (1, true), "{name}");
    }
}

#[test]
fn rules_keep_a_phase_from_being_final() {
    let pod = with_spec(json!({
        "restartPolicy": "Never",
        "containers": [{"name": "a", "image": "img", "restartPolicy": "Never",
            "restartPolicyRules": [
                {"action": "Restart", "exitCodes": {"operator": "In", "values": [3]}},
            ]}],
    }));
    for (code, phase) in [(3, "Running"), (4, "Failed"), (0, "Succeeded")] {
        let status = alive(&pod, vec![instance(&pod, "a", 0, exited(code, 1))]);
        assert_eq!(status.phase.as_deref(), Some(phase), "{code}");
    }
}

#[test]
fn ephemeral_containers_have_statuses_and_no_say() {
    let pod = with_spec(json!({
        "containers": [{"name": "a", "image": "img"}],
        "ephemeralContainers": [{"name": "z", "image": "img"}, {"name": "e", "image": "img"}],
    }));
    let status = alive(
        &pod,
        vec![
            instance(&pod, "a", 0, running()),
            instance(&pod, "z", 0, exited(1, 1)),
        ],
    );
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(condition(&status, "Ready"), json!(["True", null, null]));
    let told: Vec<_> = status
        .ephemeral_container_statuses
        .iter()
        .flatten()
        .map(|c| (c.name.as_str(), c.ready, c.state.as_ref()))
        .collect();
    let [("e", false, Some(e)), ("z", false, Some(z))] = told.as_slice() else {
        panic!("{told:?}");
    };
    let waiting = e.waiting.as_ref().and_then(|w| w.reason.as_deref());
    assert_eq!(waiting, Some("ContainerCreating"));
    assert_eq!(z.terminated.as_ref().map(|t| t.exit_code), Some(1));
}

#[test]
fn an_ended_pod_says_what_became_of_containers_that_nobody_saw() {
    let pod = pod("Never", &["i", "j"], &["a"]);
    let previous = alive(&pod, vec![]);
    let ended = |observed: &ObservedPod| {
        let memory = PodMemory::default();
        status_of(&pod, observed, &memory, Stage::Stopped, Some(&previous))
    };
    let unknown = |status: &PodStatus, name: &str| {
        let state = container(status, name).state.clone();
        let end = state.and_then(|state| state.terminated);
        end.is_some_and(|end| end.reason.as_deref() == Some("ContainerStatusUnknown"))
    };
    let none = ended(&nothing());
    assert_eq!(
        ["i", "j", "a"].map(|name| unknown(&none, name)),
        [true, false, false],
        "the first is owed an end"
    );
    let later = ended(&up(vec![instance(&pod, "j", 0, exited(0, 1))]));
    assert_eq!(
        ["i", "j", "a"].map(|name| unknown(&later, name)),
        [true, false, false]
    );
}

#[test]
fn mounts_say_how_deep_they_are_read_only() {
    let mut pod = pod("Always", &[], &["a"]);
    let mut object = k8s_openapi::api::core::v1::Pod::clone(&pod.pod);
    let modes = [None, Some("Disabled"), Some("IfPossible"), Some("Enabled")];
    let mount = |mode: &Option<&str>| json!({"name": "v", "mountPath": "/v", "readOnly": true, "recursiveReadOnly": mode});
    let mut mounts: Vec<Value> = modes.iter().map(mount).collect();
    mounts.push(json!({"name": "v", "mountPath": "/w"}));
    if let Some(spec) = &mut object.spec {
        spec.containers[0].volume_mounts = serde_json::from_value(mounts.into()).expect("mounts");
    }
    pod.pod = std::sync::Arc::new(object);
    let status = alive(&pod, vec![instance(&pod, "a", 0, running())]);
    let told = container(&status, "a").volume_mounts.iter().flatten();
    let told: Vec<_> = told.map(|m| m.recursive_read_only.as_deref()).collect();
    let wanted = ["Disabled", "Disabled", "Enabled", "Enabled"].map(Some);
    assert_eq!(told[..4], wanted);
    assert_eq!(told[4], None);
}
