//! Tables and properties of the planner. The properties run plans against a
//! toy world that does what steps say, with failures in between.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::pod::inputs::MountedVolumes;
use crate::pod::memory::{Failure, ImageProgress, Pauses, Progress};
use crate::pod::model::WaitOn;
use crate::pod::observed::{ContainerStamp, ContainerState, SandboxState};
use crate::pod::samples::*;

fn decide(desired: &DesiredPod, observed: &ObservedPod, memory: &PodMemory, now: i64) -> PodPlan {
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

// === properties: plans against a toy world ===

/// What the runtime and the worker would hold, changed by steps alone.
#[derive(Debug, Clone)]
struct World {
    observed: ObservedPod,
    memory: PodMemory,
    now: i64,
    serial: u32,
}

impl World {
    fn apply(&mut self, desired: &DesiredPod, step: &Step) {
        let observed = &mut self.observed;
        match step {
            Step::EnsureCgroup => self.memory.cgroup = Progress::Done(()),
            Step::MountVolumes => self.memory.volumes = Progress::Done(MountedVolumes::default()),
            Step::CreateSandbox { attempt, .. } => {
                assert!(
                    observed
                        .sandboxes
                        .iter()
                        .all(|s| s.state == SandboxState::NotReady),
                    "a second live sandbox"
                );
                observed
                    .sandboxes
                    .insert(0, sandbox(*attempt, SandboxState::Ready));
            }
            Step::PullImage { container } => {
                let entry = self.memory.containers.entry(container.clone()).or_default();
                entry.image = ImageProgress::Present(image());
            }
            Step::StartContainer {
                container,
                attempt,
                backoff,
            } => {
                let attempt = match attempt {
                    NextAttempt::Number(n) => *n,
                    NextAttempt::FromLogs => 0,
                };
                self.serial += 1;
                let mut new = instance(desired, container, attempt, running());
                new.id = ContainerId(format!("{container}-{}", self.serial));
                new.sandbox = observed
                    .ready_sandbox()
                    .expect("a sandbox to start in")
                    .id
                    .clone();
                new.created_at = at(self.now);
                new.stamp.backoff = *backoff;
                check_order(desired, observed, container);
                observed.containers.insert(0, new);
                self.memory.containers.remove(container);
            }
            Step::StartCreated { id, .. } => set(observed, id, running()),
            Step::StopContainers(stops) => {
                for stop in stops {
                    set(observed, &stop.id, exited(143, self.now));
                }
            }
            Step::StopSandbox(id) => {
                for sandbox in observed.sandboxes.iter_mut().filter(|s| &s.id == id) {
                    sandbox.state = SandboxState::NotReady;
                }
                self.memory.stopped_sandboxes.insert(id.clone());
            }
            Step::UnmountVolumes => {
                assert!(
                    observed.live_containers().next().is_none(),
                    "unmounted under a container"
                );
                self.memory.volumes = Progress::Undone;
            }
            Step::RemoveCgroup => self.memory.cgroup = Progress::Undone,
            Step::RemoveContainer(id) => {
                let live = observed.live_containers().any(|c| &c.id == id);
                assert!(!live, "removed a live container");
                observed.containers.retain(|c| &c.id != id);
            }
            Step::RemoveSandbox(id) => observed.sandboxes.retain(|s| &s.id != id),
            Step::RemoveTraces => self.memory.traces = Progress::Undone,
        }
    }

    /// Follows plans until one has no steps; `None` if it never comes to rest.
    fn settle(&mut self, desired: &DesiredPod) -> Option<PodPlan> {
        let mut stage = Stage::Running;
        for _ in 0..200 {
            let plan = decide(desired, &self.observed, &self.memory, self.now);
            assert!(plan.stage >= stage, "{:?} after {stage:?}", plan.stage);
            stage = plan.stage;
            self.memory.over |= stage > Stage::Running;
            match (plan.steps.first(), plan.recheck_at()) {
                (Some(step), _) => self.apply(desired, step),
                (None, Some(next)) => self.now = (next.as_millisecond() + 999) / 1000 - START,
                (None, None) => return Some(plan),
            }
        }
        None
    }
}

fn set(observed: &mut ObservedPod, id: &ContainerId, state: ContainerState) {
    for container in observed.containers.iter_mut().filter(|c| &c.id == id) {
        container.state = state.clone();
    }
}

/// No app container before every init container ended well in this sandbox.
fn check_order(desired: &DesiredPod, observed: &ObservedPod, name: &str) {
    let init = crate::pod::containers::init(&desired.pod);
    if init.iter().any(|c| c.name == name) {
        return;
    }
    let here = &observed.ready_sandbox().expect("a sandbox").id;
    let begun = observed
        .containers
        .iter()
        .any(|c| &c.sandbox == here && !init.iter().any(|i| i.name == c.name));
    let done = init.iter().all(|i| {
        observed.instances(&i.name).any(|c| {
            &c.sandbox == here && matches!(&c.state, ContainerState::Exited(e) if e.code == 0)
        })
    });
    assert!(begun || done, "{name} started before init was over");
}

fn states() -> impl Strategy<Value = ContainerState> {
    prop_oneof![
        Just(ContainerState::Created),
        Just(running()),
        Just(ContainerState::Unknown),
        Just(exited(0, 1)),
        Just(exited(1, 1)),
        Just(exited(137, 2)),
    ]
}

prop_compose! {
    /// Any mixture of records that a runtime may be found with.
    fn worlds()(
        sandboxes in prop::collection::vec(any::<bool>(), 0..3),
        records in prop::collection::vec((0..4usize, 0..4u32, states(), 0..2u32), 0..7),
        begun in any::<bool>(),
    ) -> World {
        let everyone = pod("Always", &["i1", "i2"], &["a", "b"]);
        let names = ["i1", "i2", "a", "b"];
        let mut observed = nothing();
        for (attempt, ready) in (0u32..).zip(sandboxes) {
            let state = if ready { SandboxState::Ready } else { SandboxState::NotReady };
            observed.sandboxes.insert(0, sandbox(attempt, state));
        }
        for (serial, (name, attempt, state, home)) in (0u32..).zip(records) {
            let mut container = instance(&everyone, names[name], attempt, state);
            container.id = ContainerId(format!("found-{serial}"));
            container.sandbox = SandboxId(format!("s{home}"));
            observed.containers.push(container);
        }
        observed.containers.sort_by_key(|c| std::cmp::Reverse(c.attempt));
        let memory = if begun { prepared() } else { PodMemory::default() };
        World { observed, memory, now: 10, serial: 0 }
    }
}

fn policies() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("Always"), Just("OnFailure"), Just("Never")]
}

proptest! {
    #[test]
    fn whatever_was_found_a_deleted_pod_ends_with_nothing_left(
        mut world in worlds(),
        policy in policies(),
        grace in 0u64..60,
    ) {
        let desired = deleted(&pod(policy, &["i1", "i2"], &["a", "b"]), grace);
        let plan = world.settle(&desired).expect("comes to rest");
        prop_assert_eq!(plan.stage, Stage::Gone);
        prop_assert!(world.observed.is_absent());
        prop_assert_eq!(world.memory.volumes, Progress::Undone);
        prop_assert_eq!(world.memory.cgroup, Progress::Undone);
    }

    #[test]
    fn whatever_was_found_a_wanted_pod_comes_to_rest(mut world in worlds(), policy in policies()) {
        let desired = pod(policy, &[], &["a", "b"]);
        world.observed.containers.retain(|c| c.name == "a" || c.name == "b");
        let plan = world.settle(&desired).expect("comes to rest");
        match plan.stage {
            Stage::Running => {
                prop_assert!(world.observed.ready_sandbox().is_some());
                prop_assert!(world.observed.live_containers().next().is_some());
            }
            Stage::Finished => prop_assert!(world.observed.live_containers().next().is_none()),
            stage => prop_assert!(false, "rests in {:?}", stage),
        }
    }

    #[test]
    fn a_plan_is_a_function(world in worlds(), policy in policies()) {
        let desired = pod(policy, &["i1", "i2"], &["a", "b"]);
        let once = decide(&desired, &world.observed, &world.memory, world.now);
        let again = decide(&desired, &world.observed, &world.memory, world.now);
        prop_assert_eq!(once, again);
    }

    #[test]
    fn nothing_is_started_in_a_pod_that_ends(world in worlds(), policy in policies()) {
        let desired = deleted(&pod(policy, &["i1", "i2"], &["a", "b"]), 1);
        let plan = decide(&desired, &world.observed, &world.memory, world.now);
        let starts = plan.steps.iter().any(|step| matches!(
            step,
            Step::StartContainer { .. } | Step::StartCreated { .. } | Step::CreateSandbox { .. }
                | Step::PullImage { .. } | Step::MountVolumes | Step::EnsureCgroup
        ));
        prop_assert!(!starts, "{:?}", plan.steps);
    }
}
