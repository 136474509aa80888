//! Who is stopped how: graces, hooks and turns.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Lifecycle, LifecycleHandler, PodSpec, SleepAction};

use super::*;
use crate::pod::hook::Hook;
use crate::pod::memory::{ContainerFailure, Pauses, PodMemory};
use crate::pod::model::WaitingReason;
use crate::pod::observed::ObservedPod;
use crate::pod::plan::plan as decide_all;
use crate::pod::samples::*;

fn edited(mut pod: DesiredPod, edit: impl FnOnce(&mut PodSpec)) -> DesiredPod {
    let mut object = Pod::clone(&pod.pod);
    edit(object.spec.as_mut().expect("a spec"));
    pod.pod = Arc::new(object);
    pod
}

fn sleep() -> LifecycleHandler {
    LifecycleHandler {
        sleep: Some(SleepAction { seconds: 5 }),
        ..LifecycleHandler::default()
    }
}

const SLEEP: Hook = Hook::Sleep(Duration::from_secs(5));

/// One container, whose pre-stop hook is a sleep.
fn hooked() -> DesiredPod {
    edited(pod("Always", &[], &["a"]), |spec| {
        spec.containers[0].lifecycle = Some(Lifecycle {
            pre_stop: Some(sleep()),
            ..Lifecycle::default()
        });
    })
}

fn stops_of(
    desired: &DesiredPod,
    observed: &ObservedPod,
    memory: &PodMemory,
) -> Vec<StopContainer> {
    let plan = decide_all(&PlanInput {
        desired,
        observed,
        memory,
        node: &node(),
        network_down: None,
        started: at(0),
        now: at(1),
    });
    match plan.steps.first() {
        Some(Step::StopContainers(stops)) => stops.clone(),
        _ => Vec::new(),
    }
}

#[test]
fn a_hook_is_for_a_container_that_runs_and_has_time() {
    let pod = hooked();
    for (state, grace, wanted) in [
        (running(), 3, Some(SLEEP)),
        (running(), 0, None),
        (ContainerState::Created, 3, None),
        (ContainerState::Unknown, 3, None),
        (exited(0, 1), 3, None),
    ] {
        let container = instance(&pod, "a", 0, state);
        let grace = Duration::from_secs(grace);
        let stop = stop(&pod.pod, &container, grace, StopReason::PodEnds);
        assert_eq!(stop.hook, wanted, "{:?}, {grace:?}", container.state);
    }
}

#[test]
fn a_hook_that_had_its_time_is_not_repeated_when_the_stop_is() {
    let pod = deleted(&hooked(), 30);
    let observed = up(vec![instance(&pod, "a", 0, running())]);
    let mut memory = prepared();
    assert_eq!(stops_of(&pod, &observed, &memory)[0].hook, Some(SLEEP));
    memory.pre_stopped.insert(observed.containers[0].id.clone());
    assert_eq!(stops_of(&pod, &observed, &memory)[0].hook, None);
}

#[test]
fn a_pod_nobody_knows_has_its_hooks_from_its_containers() {
    let known = hooked();
    let mut container = instance(&known, "a", 0, running());
    container.stamp.pre_stop = Some(SLEEP);
    let mut orphan = known;
    orphan.pod = Arc::default();
    orphan.intent = Intent::Terminate(Termination {
        grace: None,
        reason: TerminationReason::Orphaned,
    });
    let stops = stops_of(&orphan, &up(vec![container]), &PodMemory::default());
    let [stop] = stops.as_slice() else {
        panic!("{stops:?}");
    };
    assert_eq!(stop.hook, Some(SLEEP));
    assert_eq!(stop.grace, Duration::from_secs(1));
}

#[test]
fn sidecars_are_stopped_last_and_in_reverse() {
    let pod = edited(
        pod("Always", &["s1", "i", "s2", "s3"], &["a", "b"]),
        |spec| {
            for init in spec.init_containers.iter_mut().flatten() {
                init.restart_policy = (init.name != "i").then(|| "Always".to_owned());
            }
        },
    );
    let pod = deleted(&pod, 30);
    let names = ["b", "s3", "a", "s1", "s2", "i"];
    let containers = names.map(|name| instance(&pod, name, 0, running()));
    let stops = stops_of(&pod, &up(containers.into()), &prepared());
    let turns: Vec<_> = stops.iter().map(|s| (s.name.as_str(), s.turn)).collect();
    let wanted = [
        ("b", 0),
        ("s3", 1),
        ("a", 0),
        ("s1", 3),
        ("s2", 2),
        ("i", 0),
    ];
    assert_eq!(turns, wanted);
}

#[test]
fn the_grace_is_what_was_asked_for_or_the_pods_own_and_never_none() {
    let ends = |reason: TerminationReason, grace: Option<u64>, own: Option<i64>| {
        let mut pod = edited(pod("Always", &[], &["a"]), |spec| {
            spec.termination_grace_period_seconds = own;
        });
        pod.intent = Intent::Terminate(Termination {
            grace: grace.map(Duration::from_secs),
            reason,
        });
        sought_grace(&pod).map(|grace| grace.as_secs())
    };
    let failed = || TerminationReason::Failed {
        reason: "Evicted".into(),
        message: "low on memory".into(),
        disruption: None,
    };
    for (reason, grace, own, wanted) in [
        (TerminationReason::Deleted, Some(5), Some(7), 5),
        (TerminationReason::Deleted, Some(0), Some(7), 1),
        (TerminationReason::Removed, None, Some(7), 7),
        (TerminationReason::Removed, None, Some(0), 1),
        (TerminationReason::Removed, None, None, 30),
        (TerminationReason::Removed, None, Some(-1), 1),
        (TerminationReason::Orphaned, None, Some(7), 1),
        (failed(), Some(0), Some(7), 1),
        (failed(), None, Some(7), 7),
    ] {
        let got = ends(reason.clone(), grace, own);
        assert_eq!(got, Some(wanted), "{reason:?}, {grace:?}, {own:?}");
    }
    assert_eq!(sought_grace(&pod("Always", &[], &["a"])), None);
}

#[test]
fn a_container_that_outlived_the_failure_of_its_hook_is_stopped() {
    let pod = pod("Always", &[], &["a"]);
    let mut memory = prepared();
    let observed = up(vec![instance(&pod, "a", 0, running())]);
    memory
        .containers
        .entry("a".into())
        .or_default()
        .start_failure = Some(ContainerFailure {
        reason: WaitingReason::PostStartHookError,
        failure: Failure::after(None, "no".into(), Pauses::STEP, at(0)),
    });
    let stops = stops_of(&pod, &observed, &memory);
    assert_eq!(stops[0].why, StopReason::PostStartFailed);
}
