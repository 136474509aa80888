//! Tables of the planner.

mod containers;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::*;
use crate::pod::memory::{Failure, ImageProgress, Pauses, Progress};
use crate::pod::model::WaitOn;
use crate::pod::observed::{ContainerStamp, ContainerState, SandboxState};
use crate::pod::samples::*;

mod renewal;

pub(super) fn decide(
    desired: &DesiredPod,
    observed: &ObservedPod,
    memory: &PodMemory,
    now: i64,
) -> PodPlan {
    plan(&PlanInput {
        desired,
        observed,
        memory,
        node: &node(),
        network_down: None,
        started: at(0),
        now: at(now),
    })
}

fn start(name: &str, attempt: NextAttempt, backoff: Option<u64>) -> Step {
    Step::StartContainer {
        container: name.into(),
        attempt,
        backoff: backoff.map(Duration::from_secs),
    }
}

fn pull(name: &str) -> Step {
    Step::PullImage {
        container: name.into(),
    }
}

#[test]
fn a_new_pod_is_prepared_while_its_images_are_fetched() {
    let pod = pod("Always", &[], &["a", "b"]);
    let plan = decide(&pod, &nothing(), &PodMemory::default(), 0);
    let preparations = [Step::EnsureCgroup, Step::MountVolumes];
    assert_eq!(plan.steps[..2], [pull("a"), pull("b")]);
    assert_eq!(plan.steps[2..], preparations);
    assert_eq!(plan.next_steps(), preparations);
}

#[test]
fn the_sandbox_comes_after_cgroup_and_volumes() {
    let pod = pod("Always", &[], &["a"]);
    let memory = with_images(prepared(), &["a"]);
    let plan = decide(&pod, &nothing(), &memory, 0);
    assert_eq!(
        plan.steps,
        [Step::CreateSandbox {
            attempt: 0,
            replaces: false
        }]
    );
}

#[test]
fn first_starts_keep_the_order_of_the_spec() {
    let pod = pod("Always", &[], &["a", "b"]);
    let mut memory = with_images(prepared(), &["b"]);
    let plan = decide(&pod, &up(vec![]), &memory, 0);
    assert_eq!(plan.steps, [pull("a")], "b waits for a's first start");

    memory = with_images(memory, &["a"]);
    let plan = decide(&pod, &up(vec![]), &memory, 0);
    assert_eq!(
        plan.steps,
        [
            start("a", NextAttempt::FromLogs, None),
            start("b", NextAttempt::FromLogs, None)
        ]
    );
}

#[test]
fn a_failing_pull_does_not_hold_up_the_siblings() {
    let pod = pod("Always", &[], &["a", "b"]);
    let mut memory = with_images(prepared(), &["b"]);
    let failure = Failure::after(None, "no such image".into(), Pauses::IMAGE, at(0));
    memory.containers.entry("a".into()).or_default().image =
        ImageProgress::Failed(crate::pod::memory::ContainerFailure {
            reason: crate::pod::WaitingReason::ErrImagePull,
            failure,
        });
    let plan = decide(&pod, &up(vec![]), &memory, 1);
    assert_eq!(plan.steps, [start("b", NextAttempt::FromLogs, None)]);
    assert_eq!(plan.recheck_at(), Some(at(10)));
}

#[test]
fn a_restart_waits_for_no_sibling() {
    let pod = pod("Always", &[], &["a", "b"]);
    let mut memory = with_images(prepared(), &["b"]);
    memory.containers.entry("a".into()).or_default().image =
        ImageProgress::Pulling { since: at(0) };
    let observed = up(vec![instance(&pod, "b", 0, exited(1, 5))]);
    let plan = decide(&pod, &observed, &memory, 6);
    assert_eq!(plan.steps, [start("b", NextAttempt::Number(1), Some(10))]);
}

#[test]
fn init_containers_run_one_by_one_before_the_others() {
    let pod = pod("Always", &["i1", "i2"], &["a"]);
    let memory = with_images(prepared(), &["i1", "i2", "a"]);
    let step = |observed: ObservedPod| decide(&pod, &observed, &memory, 1).steps;

    assert_eq!(step(up(vec![])), [start("i1", NextAttempt::FromLogs, None)]);
    assert_eq!(step(up(vec![instance(&pod, "i1", 0, running())])), []);
    assert_eq!(
        step(up(vec![instance(&pod, "i1", 0, exited(0, 1))])),
        [start("i2", NextAttempt::FromLogs, None)]
    );
    assert_eq!(
        step(up(vec![
            instance(&pod, "i2", 0, exited(0, 1)),
            instance(&pod, "i1", 0, exited(0, 1))
        ])),
        [start("a", NextAttempt::FromLogs, None)]
    );
    assert_eq!(
        step(up(vec![instance(&pod, "a", 0, running())])),
        [],
        "init records may be gone once an app container exists"
    );
}

#[test]
fn a_failed_init_container_ends_a_pod_that_never_restarts() {
    let pod = pod("Never", &["i"], &["a"]);
    let observed = up(vec![instance(&pod, "i", 0, exited(1, 1))]);
    let plan = decide(&pod, &observed, &prepared(), 2);
    assert_eq!(plan.steps, [Step::StopSandbox(SandboxId("s0".into()))]);
    assert_eq!(plan.stage, Stage::Stopping);
}

#[test]
fn crash_backoff_doubles_from_the_stamp_of_the_last_instance() {
    let pod = pod("Always", &[], &["a"]);
    let memory = with_images(prepared(), &["a"]);
    for (stamp, lived, wait, next) in [
        (None, 5, 0, 10),
        (Some(10), 5, 10, 20),
        (Some(20), 5, 20, 40),
        (Some(300), 5, 300, 300),
        (Some(300), 601, 0, 10),
    ] {
        let mut crashed = instance(&pod, "a", 3, exited(1, lived));
        crashed.stamp.backoff = stamp.map(Duration::from_secs);
        let observed = up(vec![crashed]);
        if wait > 0 {
            let early = decide(&pod, &observed, &memory, lived + wait - 1);
            assert_eq!(early.steps, [], "stamp {stamp:?}");
            assert_eq!(early.recheck_at(), Some(at(lived + wait)));
            assert!(matches!(early.waits[0].on, WaitOn::CrashBackoff { .. }));
        }
        let due = decide(&pod, &observed, &memory, lived + wait.max(1));
        assert_eq!(due.steps, [start("a", NextAttempt::Number(4), Some(next))]);
    }
}

#[test]
fn an_exit_is_given_a_moment_to_be_the_whole_story() {
    let pod = pod("Always", &[], &["a"]);
    let memory = with_images(prepared(), &["a"]);
    let observed = up(vec![instance(&pod, "a", 0, exited(137, 5))]);
    let plan = decide(&pod, &observed, &memory, 5);
    assert_eq!(plan.steps, []);
    assert_eq!(plan.waits[0].on, WaitOn::Settling);
    assert_eq!(plan.recheck_at(), Some(at(5) + Duration::from_millis(500)));
}

#[test]
fn a_new_image_clears_the_crash_history() {
    let pod = pod("Always", &[], &["a"]);
    let mut crashed = instance(&pod, "a", 3, exited(1, 5));
    crashed.stamp = ContainerStamp {
        hash: "another".into(),
        backoff: Some(Duration::from_secs(160)),
        ..ContainerStamp::default()
    };
    let plan = decide(
        &pod,
        &up(vec![crashed]),
        &with_images(prepared(), &["a"]),
        6,
    );
    assert_eq!(plan.steps, [start("a", NextAttempt::Number(4), Some(10))]);
}

#[test]
fn an_exit_in_the_future_is_not_waited_for() {
    let pod = pod("Always", &[], &["a"]);
    let mut crashed = instance(&pod, "a", 1, exited(1, 7200));
    crashed.stamp.backoff = Some(Duration::from_secs(10));
    crashed.created_at = at(7195);
    let plan = decide(
        &pod,
        &up(vec![crashed]),
        &with_images(prepared(), &["a"]),
        0,
    );
    assert_eq!(plan.steps.len(), 1, "the clock stepped back by two hours");
}

#[test]
fn a_changed_definition_stops_and_then_starts_whatever_the_policy() {
    let pod = pod("Never", &[], &["a"]);
    let mut old = instance(&pod, "a", 0, running());
    old.stamp.hash = "old".into();
    let plan = decide(&pod, &up(vec![old.clone()]), &prepared(), 1);
    let Some(Step::StopContainers(stops)) = plan.steps.first() else {
        panic!("expected a stop, got {:?}", plan.steps);
    };
    assert_eq!(stops[0].why, StopReason::DefinitionChanged);

    old.state = exited(143, 2);
    let mut memory = with_images(prepared(), &["a"]);
    memory
        .containers
        .get_mut("a")
        .expect("remembered")
        .redefined = true;
    let plan = decide(&pod, &up(vec![old]), &memory, 2);
    assert_eq!(plan.steps, [start("a", NextAttempt::Number(1), Some(10))]);
}

#[test]
fn a_created_container_is_started_not_made_again() {
    let pod = pod("Always", &[], &["a"]);
    let observed = up(vec![instance(&pod, "a", 0, ContainerState::Created)]);
    let plan = decide(&pod, &observed, &prepared(), 1);
    assert_eq!(
        plan.steps,
        [Step::StartCreated {
            container: "a".into(),
            id: ContainerId("a0".into())
        }]
    );
}

#[test]
fn a_dead_sandbox_is_cleared_before_a_new_one_is_made() {
    let pod = pod("Always", &[], &["a"]);
    let mut observed = up(vec![instance(&pod, "a", 0, running())]);
    observed.sandboxes[0].state = SandboxState::NotReady;
    let mut memory = with_images(prepared(), &["a"]);
    let plan = decide(&pod, &observed, &memory, 1);
    assert!(matches!(plan.steps[0], Step::StopContainers(_)));

    observed.containers[0].state = exited(137, 2);
    let plan = decide(&pod, &observed, &memory, 2);
    assert_eq!(plan.steps, [Step::StopSandbox(SandboxId("s0".into()))]);

    memory.stopped_sandboxes.insert(SandboxId("s0".into()));
    let plan = decide(&pod, &observed, &memory, 2);
    assert_eq!(
        plan.steps,
        [Step::CreateSandbox {
            attempt: 1,
            replaces: true
        }]
    );
}

#[test]
fn a_pod_that_is_done_gets_no_new_sandbox() {
    for (policy, code) in [("Never", 1), ("Never", 0), ("OnFailure", 0)] {
        let pod = pod(policy, &[], &["a"]);
        let mut observed = up(vec![instance(&pod, "a", 0, exited(code, 1))]);
        observed.sandboxes[0].state = SandboxState::NotReady;
        let mut memory = prepared();
        memory.stopped_sandboxes.insert(SandboxId("s0".into()));
        let plan = decide(&pod, &observed, &memory, 2);
        assert_eq!(
            plan.steps,
            [Step::UnmountVolumes, Step::RemoveCgroup],
            "{policy} {code}"
        );
        assert_eq!(plan.stage, Stage::Stopped);
    }
}

#[test]
fn a_finished_pod_keeps_its_newest_records() {
    let pod = pod("Never", &[], &["a"]);
    let observed = ObservedPod {
        sandboxes: vec![sandbox(0, SandboxState::NotReady)],
        containers: vec![instance(&pod, "a", 0, exited(0, 1))],
        ..nothing()
    };
    let memory = PodMemory {
        cgroup: Progress::Undone,
        volumes: Progress::Undone,
        stopped_sandboxes: [SandboxId("s0".into())].into(),
        ..PodMemory::default()
    };
    let plan = decide(&pod, &observed, &memory, 2);
    assert_eq!((plan.stage, plan.steps), (Stage::Finished, vec![]));
}

#[test]
fn a_terminal_phase_that_was_told_stands() {
    let mut pod = pod("Always", &[], &["a"]);
    let mut object = Pod::clone(&pod.pod);
    object.status = serde_json::from_value(json!({"phase": "Failed"})).expect("a status");
    pod.pod = Arc::new(object);
    let plan = decide(&pod, &nothing(), &PodMemory::default(), 0);
    assert_eq!(plan.stage, Stage::Stopped);
    assert!(
        !plan
            .steps
            .iter()
            .any(|s| matches!(s, Step::CreateSandbox { .. }))
    );
}

#[test]
fn a_pod_that_is_over_its_deadline_is_stopped() {
    let mut pod = pod("Always", &[], &["a"]);
    let mut object = Pod::clone(&pod.pod);
    if let Some(spec) = &mut object.spec {
        spec.active_deadline_seconds = Some(30);
    }
    pod.pod = Arc::new(object);
    let observed = up(vec![instance(&pod, "a", 0, running())]);
    let before = decide(&pod, &observed, &prepared(), 29);
    assert_eq!((before.steps.len(), before.recheck_at()), (0, Some(at(30))));
    let after = decide(&pod, &observed, &prepared(), 30);
    assert!(matches!(after.steps[0], Step::StopContainers(_)));
}

#[test]
fn without_network_only_host_network_pods_get_a_sandbox() {
    let pod = pod("Always", &[], &["a"]);
    let memory = with_images(prepared(), &["a"]);
    let plan = plan(&PlanInput {
        desired: &pod,
        observed: &nothing(),
        memory: &memory,
        node: &node(),
        network_down: Some("cni plugin not initialized"),
        started: at(0),
        now: at(0),
    });
    assert_eq!(plan.steps, []);
    assert_eq!(plan.waits[0].on, WaitOn::Network);
}

#[test]
fn surplus_records_go_and_the_newest_dead_one_stays() {
    let pod = pod("Always", &[], &["a"]);
    let observed = up(vec![
        instance(&pod, "a", 3, running()),
        instance(&pod, "a", 2, exited(1, 1)),
        instance(&pod, "a", 1, exited(1, 1)),
        instance(&pod, "a", 0, exited(1, 1)),
    ]);
    let plan = decide(&pod, &observed, &prepared(), 2);
    assert_eq!(
        plan.steps,
        [
            Step::RemoveContainer(ContainerId("a1".into())),
            Step::RemoveContainer(ContainerId("a0".into()))
        ]
    );
}

#[test]
fn a_failed_teardown_waits_before_the_next_try() {
    let pod = deleted(&pod("Always", &[], &["a"]), 3);
    let mut memory = prepared();
    memory.teardown = Some(Failure::after(None, "busy".into(), Pauses::STEP, at(0)));
    let plan = decide(&pod, &nothing(), &memory, 0);
    assert_eq!(plan.steps, []);
    assert_eq!(plan.recheck_at(), Some(at(1)));
}
