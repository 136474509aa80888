//! Tables of phases, container states and conditions.

mod kinds;

use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerStatus, PodStatus};
use serde_json::{Value, json};

use super::*;
use crate::pod::admission::preempt;
use crate::pod::memory::{ContainerFailure, Failure, Pauses};
use crate::pod::model::WaitingReason;
use crate::pod::observed::{ContainerState, ObservedContainer};
use crate::pod::samples::*;

fn status_of(
    desired: &DesiredPod,
    observed: &ObservedPod,
    memory: &PodMemory,
    stage: Stage,
    previous: Option<&PodStatus>,
) -> PodStatus {
    compute(&StatusInput {
        desired,
        observed,
        memory,
        node: &node(),
        features: RuntimeFeatures {
            recursive_read_only_mounts: true,
            ..RuntimeFeatures::default()
        },
        stage,
        previous,
        now: at(100),
    })
}

fn alive(desired: &DesiredPod, containers: Vec<ObservedContainer>) -> PodStatus {
    status_of(
        desired,
        &up(containers),
        &PodMemory::default(),
        Stage::Running,
        None,
    )
}

fn container<'a>(status: &'a PodStatus, name: &str) -> &'a ContainerStatus {
    status
        .init_container_statuses
        .iter()
        .flatten()
        .chain(status.container_statuses.iter().flatten())
        .find(|c| c.name == name)
        .expect("a status of the container")
}

fn condition(status: &PodStatus, kind: &str) -> Value {
    let condition = status
        .conditions
        .iter()
        .flatten()
        .find(|c| c.type_ == kind)
        .expect("the condition");
    json!([condition.status, condition.reason, condition.message])
}

#[test]
fn phases() {
    let table: &[(&str, Stage, &[ContainerState], &str)] = &[
        ("Always", Stage::Running, &[], "Pending"),
        ("Always", Stage::Running, &[running()], "Pending"),
        ("Always", Stage::Running, &[running(), running()], "Running"),
        (
            "Always",
            Stage::Running,
            &[running(), exited(1, 1)],
            "Running",
        ),
        (
            "Always",
            Stage::Running,
            &[exited(0, 1), exited(0, 1)],
            "Running",
        ),
        (
            "OnFailure",
            Stage::Running,
            &[exited(0, 1), exited(1, 1)],
            "Running",
        ),
        (
            "OnFailure",
            Stage::Running,
            &[exited(0, 1), exited(0, 1)],
            "Succeeded",
        ),
        (
            "Never",
            Stage::Running,
            &[exited(0, 1), exited(1, 1)],
            "Failed",
        ),
        (
            "Never",
            Stage::Running,
            &[exited(0, 1), exited(0, 1)],
            "Succeeded",
        ),
        (
            "Never",
            Stage::Running,
            &[exited(0, 1), running()],
            "Running",
        ),
        (
            "Always",
            Stage::Stopping,
            &[running(), running()],
            "Running",
        ),
        (
            "Always",
            Stage::Stopped,
            &[exited(0, 1), exited(0, 1)],
            "Succeeded",
        ),
        (
            "Always",
            Stage::Stopped,
            &[exited(0, 1), exited(137, 1)],
            "Failed",
        ),
        ("Always", Stage::Stopped, &[], "Failed"),
    ];
    for (policy, stage, states, expected) in table {
        let pod = pod(policy, &[], &["a", "b"]);
        let containers = ["a", "b"]
            .iter()
            .zip(*states)
            .map(|(name, state)| instance(&pod, name, 0, state.clone()))
            .collect();
        let status = status_of(&pod, &up(containers), &PodMemory::default(), *stage, None);
        assert_eq!(
            status.phase.as_deref(),
            Some(*expected),
            "{policy} {stage:?} {states:?}"
        );
    }
}

#[test]
fn init_containers_hold_the_phase_at_pending() {
    let pod = pod("Always", &["i"], &["a"]);
    for state in [running(), exited(1, 1)] {
        let status = alive(&pod, vec![instance(&pod, "i", 0, state)]);
        assert_eq!(status.phase.as_deref(), Some("Pending"));
        assert_eq!(
            condition(&status, "Initialized"),
            json!([
                "False",
                "ContainersNotInitialized",
                "containers with incomplete status: [i]"
            ])
        );
        let waiting = container(&status, "a")
            .state
            .clone()
            .and_then(|s| s.waiting);
        assert_eq!(
            waiting.and_then(|w| w.reason).as_deref(),
            Some("PodInitializing")
        );
    }
    let never = self::pod("Never", &["i"], &["a"]);
    let status = alive(&never, vec![instance(&never, "i", 0, exited(1, 1))]);
    assert_eq!(status.phase.as_deref(), Some("Failed"));
}

#[test]
fn a_told_terminal_phase_never_changes() {
    let pod = pod("Always", &[], &["a"]);
    let previous = PodStatus {
        phase: Some("Succeeded".into()),
        ..PodStatus::default()
    };
    let observed = up(vec![instance(&pod, "a", 0, running())]);
    let status = status_of(
        &pod,
        &observed,
        &PodMemory::default(),
        Stage::Stopping,
        Some(&previous),
    );
    assert_eq!(status.phase.as_deref(), Some("Succeeded"));
}

#[test]
fn a_running_pod_is_ready() {
    let pod = pod("Always", &[], &["a"]);
    let status = alive(&pod, vec![instance(&pod, "a", 2, running())]);
    for kind in [
        "PodReadyToStartContainers",
        "Initialized",
        "Ready",
        "ContainersReady",
        "PodScheduled",
    ] {
        assert_eq!(
            condition(&status, kind),
            json!(["True", null, null]),
            "{kind}"
        );
    }
    assert_eq!(status.pod_ip.as_deref(), Some("10.0.0.2"));
    assert_eq!(status.host_ip.as_deref(), Some("192.0.2.10"));
    let a = container(&status, "a");
    assert_eq!((a.ready, a.started, a.restart_count), (true, Some(true), 2));
    assert_eq!(a.container_id.as_deref(), Some("containerd://a2"));
}

#[test]
fn a_crashed_container_waits_in_backoff() {
    let pod = pod("Always", &[], &["a"]);
    let mut crashed = instance(&pod, "a", 3, exited(1, 95));
    crashed.stamp.backoff = Some(Duration::from_secs(160));
    crashed.created_at = at(90);
    let status = alive(&pod, vec![crashed]);
    let a = container(&status, "a");
    let waiting = a.state.clone().and_then(|s| s.waiting).expect("waiting");
    assert_eq!(waiting.reason.as_deref(), Some("CrashLoopBackOff"));
    assert_eq!(
        waiting.message.as_deref(),
        Some("back-off 2m40s restarting failed container=a pod=p_ns(u)")
    );
    let last = a
        .last_state
        .clone()
        .and_then(|s| s.terminated)
        .expect("last state");
    assert_eq!((last.exit_code, last.reason.as_deref()), (1, Some("Error")));
    assert_eq!(
        condition(&status, "Ready"),
        json!([
            "False",
            "ContainersNotReady",
            "containers with unready status: [a]"
        ])
    );
}

#[test]
fn a_failed_pull_is_told_while_the_next_one_runs() {
    let pod = pod("Always", &[], &["a"]);
    let mut memory = PodMemory::default();
    let entry = memory.containers.entry("a".into()).or_default();
    entry.pull_failure = Some(ContainerFailure {
        reason: WaitingReason::ImagePullBackOff,
        failure: Failure::after(None, "no such image".into(), Pauses::IMAGE, at(90)),
    });
    entry.image = crate::pod::memory::ImageProgress::Pulling { since: at(99) };
    let status = status_of(&pod, &up(vec![]), &memory, Stage::Running, None);
    let waiting = container(&status, "a")
        .state
        .clone()
        .and_then(|s| s.waiting)
        .expect("waiting");
    assert_eq!(waiting.reason.as_deref(), Some("ImagePullBackOff"));
    assert_eq!(waiting.message.as_deref(), Some("no such image"));
}

#[test]
fn a_container_that_vanished_is_told_as_lost() {
    let pod = pod("Always", &[], &["a"]);
    let before = alive(&pod, vec![instance(&pod, "a", 1, running())]);
    let lost = status_of(
        &pod,
        &up(vec![]),
        &PodMemory::default(),
        Stage::Running,
        Some(&before),
    );
    let a = container(&lost, "a");
    assert_eq!(a.restart_count, 2);
    let last = a
        .last_state
        .clone()
        .and_then(|s| s.terminated)
        .expect("last state");
    assert_eq!(
        (last.exit_code, last.reason.as_deref()),
        (137, Some("ContainerStatusUnknown"))
    );

    let ended = status_of(
        &pod,
        &nothing(),
        &PodMemory::default(),
        Stage::Stopped,
        Some(&before),
    );
    let terminated = container(&ended, "a")
        .state
        .clone()
        .and_then(|s| s.terminated);
    assert_eq!(terminated.map(|t| t.exit_code), Some(137));
    assert_eq!(ended.phase.as_deref(), Some("Failed"));
}

#[test]
fn times_and_counts_never_go_back() {
    let pod = pod("Always", &[], &["a"]);
    let before = alive(&pod, vec![instance(&pod, "a", 5, running())]);
    let observed = up(vec![instance(&pod, "a", 0, running())]);
    let after = status_of(
        &pod,
        &observed,
        &PodMemory::default(),
        Stage::Running,
        Some(&before),
    );
    assert_eq!(after.start_time, before.start_time);
    assert_eq!(container(&after, "a").restart_count, 5);
    assert_eq!(
        after.conditions, before.conditions,
        "no condition changed, so no time did"
    );
}

#[test]
fn pod_ips_are_kept_after_the_sandbox_stopped() {
    let pod = pod("Always", &[], &["a"]);
    let before = alive(&pod, vec![instance(&pod, "a", 0, running())]);
    let after = status_of(
        &pod,
        &nothing(),
        &PodMemory::default(),
        Stage::Stopped,
        Some(&before),
    );
    assert_eq!(after.pod_ips, before.pod_ips);
}

#[test]
fn an_eviction_tells_its_reason() {
    let mut pod = pod("Always", &[], &["a"]);
    pod.intent = Intent::Terminate(Termination {
        grace: None,
        reason: TerminationReason::Failed {
            reason: "Evicted".into(),
            message: "The node was low on resource: memory.".into(),
            disruption: Some("The node was low on resource: memory.".into()),
        },
    });
    let status = status_of(
        &pod,
        &nothing(),
        &PodMemory::default(),
        Stage::Stopped,
        None,
    );
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    assert_eq!(status.reason.as_deref(), Some("Evicted"));
    assert_eq!(
        condition(&status, "Ready"),
        json!(["False", "PodFailed", null])
    );
    assert_eq!(
        condition(&status, "DisruptionTarget"),
        json!([
            "True",
            "TerminationByKubelet",
            "The node was low on resource: memory."
        ])
    );
}

#[test]
fn a_pod_that_makes_room_says_so_even_if_it_is_deleted_meanwhile() {
    let mut pod = pod("Always", &[], &["a"]);
    pod.intent = Intent::Terminate(Termination {
        grace: None,
        reason: TerminationReason::Failed {
            reason: preempt::REASON.into(),
            message: preempt::MESSAGE.into(),
            disruption: Some(preempt::DISRUPTION.into()),
        },
    });
    let status = |pod: &DesiredPod, previous| {
        let none = PodMemory::default();
        status_of(pod, &nothing(), &none, Stage::Stopped, previous)
    };
    let told = status(&pod, None);
    let disruption = json!([
        "True",
        "TerminationByKubelet",
        "Pod was preempted by Kubelet to accommodate a critical pod."
    ]);
    assert_eq!(condition(&told, "DisruptionTarget"), disruption);
    let told = status(&deleted(&pod, 1), Some(&told));
    assert_eq!(condition(&told, "DisruptionTarget"), disruption);
    assert_eq!(told.reason.as_deref(), Some("Preempting"));
}

#[test]
fn a_container_that_was_never_started_has_an_end_when_its_pod_has() {
    let pod = pod("Always", &[], &["a"]);
    let observed = up(vec![instance(&pod, "a", 0, ContainerState::Created)]);
    let status = status_of(&pod, &observed, &PodMemory::default(), Stage::Stopped, None);
    let state = container(&status, "a").state.clone().unwrap_or_default();
    let end = state.terminated.expect("an end");
    assert_eq!(
        (end.reason.as_deref(), end.exit_code),
        (Some("ContainerStatusUnknown"), 137)
    );
    assert_eq!(status.phase.as_deref(), Some("Failed"));
}

#[test]
fn a_readiness_gate_of_others_counts() {
    let mut pod = pod("Always", &[], &["a"]);
    let mut object = k8s_openapi::api::core::v1::Pod::clone(&pod.pod);
    if let Some(spec) = &mut object.spec {
        spec.readiness_gates =
            serde_json::from_value(json!([{"conditionType": "example.com/lb"}])).expect("gates");
    }
    pod.pod = std::sync::Arc::new(object);
    let status = alive(&pod, vec![instance(&pod, "a", 0, running())]);
    assert_eq!(
        condition(&status, "ContainersReady"),
        json!(["True", null, null])
    );
    assert_eq!(
        condition(&status, "Ready"),
        json!([
            "False",
            "ReadinessGatesNotReady",
            "corresponding condition of pod readiness gate \"example.com/lb\" does not exist."
        ])
    );
}

#[test]
fn a_pod_over_its_deadline_has_failed_for_that_reason() {
    let mut pod = pod("Always", &[], &["a"]);
    let mut object = k8s_openapi::api::core::v1::Pod::clone(&pod.pod);
    if let Some(spec) = &mut object.spec {
        spec.active_deadline_seconds = Some(60);
    }
    pod.pod = std::sync::Arc::new(object);
    let before = alive(&pod, vec![instance(&pod, "a", 0, running())]);
    let mut stopped = up(vec![instance(&pod, "a", 0, exited(0, 100))]);
    stopped.sandboxes[0].state = crate::pod::SandboxState::NotReady;
    let after = status_of(
        &pod,
        &stopped,
        &PodMemory::default(),
        Stage::Stopped,
        Some(&before),
    );
    assert_eq!(after.phase.as_deref(), Some("Failed"));
    assert_eq!(after.reason.as_deref(), Some("DeadlineExceeded"));
    let later = status_of(
        &pod,
        &stopped,
        &PodMemory::default(),
        Stage::Finished,
        Some(&after),
    );
    assert_eq!((later.phase, later.reason), (after.phase, after.reason));
}
