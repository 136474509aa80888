//! Properties of the planner: plans run against a toy world that does what
//! steps say. Containers end as their scripts have it, probes speak, agents
//! lose their memory, sandboxes die.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::tests::decide;
use super::*;
use crate::pod::containers::{find, init, is_sidecar, regular};
use crate::pod::inputs::MountedVolumes;
use crate::pod::memory::{ImageProgress, Progress};
use crate::pod::observed::{ContainerState, SandboxState};
use crate::pod::probe::{self, Verdict};
use crate::pod::samples::*;

/// What the runtime and the worker would hold, changed by steps alone.
#[derive(Debug, Clone)]
struct World {
    observed: ObservedPod,
    memory: PodMemory,
    now: i64,
    serial: u32,
    /// The number of the next log of each container.
    logs: BTreeMap<String, u32>,
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
                    NextAttempt::FromLogs => self.logs.get(container).copied().unwrap_or(0),
                };
                self.logs.insert(container.clone(), attempt + 1);
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
                check_order(desired, observed, &self.memory, container);
                observed.containers.insert(0, new);
                self.memory.containers.remove(container);
            }
            Step::StartCreated { id, .. } => set(observed, id, running()),
            Step::Resize { updates, aim, .. } => {
                if let Some(underway) = &mut self.memory.resize.underway {
                    underway.done.extend(updates.iter().map(|u| u.id.clone()));
                    underway.cgroup = Some(*aim);
                }
            }
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

/// Nobody before those that stand before it in the init containers' order, and
/// no app container before all of them, in this sandbox.
fn check_order(desired: &DesiredPod, observed: &ObservedPod, memory: &PodMemory, name: &str) {
    let here = &observed.ready_sandbox().expect("a sandbox").id;
    let is_here = |name: &str| observed.newest(name).is_some_and(|c| &c.sandbox == here);
    let init = init(&desired.pod);
    if is_here(name) || regular(&desired.pod).iter().any(|c| is_here(&c.name)) {
        return;
    }
    let later_has_begun = |index: usize| init[index + 1..].iter().any(|c| is_here(&c.name));
    for (index, before) in init.iter().enumerate().take_while(|(_, c)| c.name != name) {
        let done = observed.newest(&before.name).is_some_and(|newest| {
            &newest.sandbox == here
                && if is_sidecar(before) {
                    probe::started(before, newest, &memory.container(&before.name))
                } else {
                    newest.exit().is_some_and(|exit| exit.code == 0)
                }
        });
        assert!(
            done || later_has_begun(index),
            "{name} started before {} was done",
            before.name
        );
    }
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
        World { observed, memory, now: 10, serial: 0, logs: BTreeMap::new() }
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

// === a pod's whole life ===

/// A pod, and what its containers do in each of their lives.
#[derive(Debug, Clone)]
struct Story {
    desired: DesiredPod,
    /// By container: how its first lives end. What comes after them ends well
    /// for an init container and does not end for others.
    lives: BTreeMap<String, Vec<Life>>,
}

#[derive(Debug, Clone, Copy)]
enum Life {
    Exits(i32),
    FailsItsProbe,
}

/// What befalls the pod before a step.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Blow {
    /// The agent is killed and comes back.
    MemoryLost,
    SandboxDies,
    Deleted,
}

/// How a pod ended up.
#[derive(Debug, PartialEq)]
struct Outcome {
    stage: Stage,
    containers: BTreeMap<String, Option<i32>>,
}

impl Story {
    /// Plays the story to its end, with `blows` before the steps they are for.
    fn play(&self, blows: &[(usize, Blow)]) -> Outcome {
        let mut desired = self.desired.clone();
        let mut world = World {
            observed: nothing(),
            memory: PodMemory::default(),
            now: 10,
            serial: 0,
            logs: BTreeMap::new(),
        };
        let mut lives = BTreeMap::new();
        for round in 0..2000 {
            for (_, blow) in blows.iter().filter(|(at, _)| *at == round) {
                match blow {
                    Blow::MemoryLost => world.memory = PodMemory::default(),
                    Blow::SandboxDies => world.lose_sandbox(),
                    Blow::Deleted => desired = deleted(&desired, 3),
                }
            }
            let plan = decide(&desired, &world.observed, &world.memory, world.now);
            world.memory.over |= plan.stage > Stage::Running;
            if let Some(step) = plan.steps.first() {
                if let Step::StartContainer { container, .. } = step {
                    *lives.entry(container.clone()).or_insert(0) += 1;
                }
                world.apply(&desired, step);
            } else if self.goes_on(&desired, &mut world, &lives) {
            } else if let Some(next) = plan.recheck_at() {
                world.now = (next.as_millisecond() + 999) / 1000 - START;
            } else if blows.iter().all(|(at, _)| *at <= round) {
                return world.outcome(plan.stage);
            }
        }
        panic!("never comes to rest: {:?}", world.observed);
    }

    /// One thing that happens by itself. False if nothing is left to happen.
    fn goes_on(
        &self,
        desired: &DesiredPod,
        world: &mut World,
        lives: &BTreeMap<String, usize>,
    ) -> bool {
        let running =
            |c: &&crate::pod::ObservedContainer| matches!(c.state, ContainerState::Running { .. });
        let instances: Vec<_> = world
            .observed
            .containers
            .iter()
            .filter(running)
            .cloned()
            .collect();
        for instance in instances {
            let name = &instance.name;
            let spec = find(&desired.pod, name).expect("a container of the pod");
            let memory = world.memory.containers.entry(name.clone()).or_default();
            let has_started = probe::started(&spec, &instance, memory);
            let has_failed = probe::failed(&spec, &instance, memory).is_some();
            let mut say = |kind, passed| {
                let instance = instance.id.clone();
                memory.probes.set(kind, Verdict { instance, passed });
            };
            if !has_started {
                say(ProbeKind::Startup, true);
                return true;
            }
            let life = lives.get(name).map_or(0, |begun| begun - 1);
            let script = self.lives.get(name).and_then(|script| script.get(life));
            let is_step = init(&desired.pod)
                .iter()
                .any(|c| &c.name == name && !is_sidecar(c));
            match script {
                Some(Life::FailsItsProbe) if has_failed => {}
                Some(Life::FailsItsProbe) if spec.liveness_probe.is_some() => {
                    say(ProbeKind::Liveness, false);
                    return true;
                }
                Some(Life::Exits(code)) => {
                    set(&mut world.observed, &instance.id, exited(*code, world.now));
                    return true;
                }
                _ if is_step => {
                    set(&mut world.observed, &instance.id, exited(0, world.now));
                    return true;
                }
                _ => {}
            }
        }
        false
    }
}

impl World {
    fn lose_sandbox(&mut self) {
        for sandbox in &mut self.observed.sandboxes {
            sandbox.state = SandboxState::NotReady;
        }
        for container in &mut self.observed.containers {
            if container.state.is_live() {
                container.state = exited(137, self.now);
            }
        }
    }

    fn outcome(&self, stage: Stage) -> Outcome {
        let newest =
            |c: &crate::pod::ObservedContainer| (c.name.clone(), c.exit().map(|exit| exit.code));
        // Newest first: the last of each name that is put in is the oldest.
        let containers = self.observed.containers.iter().rev().map(newest).collect();
        Outcome { stage, containers }
    }
}

fn lives() -> impl Strategy<Value = Vec<Life>> {
    let life = prop_oneof![
        3 => prop::sample::select(vec![0, 1, 3, 42]).prop_map(Life::Exits),
        1 => Just(Life::FailsItsProbe),
    ];
    prop::collection::vec(life, 0..4)
}

/// A container with rules for some exits, or with none.
fn ruled() -> impl Strategy<Value = serde_json::Value> {
    let rule = |action: &str, code: i32| json!({"action": action, "exitCodes": {"operator": "In", "values": [code]}});
    let rules = json!([rule("Restart", 3), rule("RestartAllContainers", 42)]);
    prop_oneof![
        3 => Just(json!({})),
        1 => policies().prop_map(|policy| json!({"restartPolicy": policy})),
        1 => policies().prop_map(move |policy| {
            json!({"restartPolicy": policy, "restartPolicyRules": rules})
        }),
    ]
}

fn probed() -> impl Strategy<Value = serde_json::Value> {
    (any::<bool>(), any::<bool>()).prop_map(|(startup, liveness)| {
        let mut probes = json!({});
        if startup {
            probes["startupProbe"] = json!({});
        }
        if liveness {
            probes["livenessProbe"] = json!({});
        }
        probes
    })
}

fn named(name: String, parts: &[&serde_json::Value]) -> serde_json::Value {
    let mut container = json!({"name": name, "image": "img"});
    for part in parts {
        for (key, value) in part.as_object().into_iter().flatten() {
            container[key] = value.clone();
        }
    }
    container
}

prop_compose! {
    fn stories()(
        policy in policies(),
        init in prop::collection::vec((any::<bool>(), ruled(), probed(), lives()), 0..4),
        apps in prop::collection::vec((ruled(), probed(), lives()), 1..3),
    ) -> Story {
        let mut lives = BTreeMap::new();
        let mut steps = Vec::new();
        for (index, (is_sidecar, rules, probes, life)) in init.into_iter().enumerate() {
            let name = format!("i{index}");
            lives.insert(name.clone(), life);
            let sidecar = json!({"restartPolicy": "Always"});
            steps.push(if is_sidecar {
                named(name, &[&probes, &sidecar])
            } else if rules["restartPolicy"] == "Always" {
                // That would be a sidecar.
                named(name, &[])
            } else {
                named(name, &[&rules])
            });
        }
        let mut containers = Vec::new();
        for (index, (rules, probes, life)) in apps.into_iter().enumerate() {
            let name = format!("a{index}");
            lives.insert(name.clone(), life);
            containers.push(named(name, &[&rules, &probes]));
        }
        let desired = with_spec(json!({
            "restartPolicy": policy,
            "initContainers": steps,
            "containers": containers,
        }));
        Story { desired, lives }
    }
}

fn blows(kind: Blow) -> impl Strategy<Value = Vec<(usize, Blow)>> {
    prop::collection::vec(0usize..80, 0..6)
        .prop_map(move |rounds| rounds.into_iter().map(|at| (at, kind)).collect())
}

proptest! {
    #[test]
    fn a_restart_of_the_agent_at_any_step_leads_to_the_same_end(
        story in stories(),
        losses in blows(Blow::MemoryLost),
    ) {
        prop_assert_eq!(story.play(&losses), story.play(&[]));
    }

    #[test]
    fn a_pod_comes_to_rest_whatever_becomes_of_its_sandboxes(
        story in stories(),
        deaths in blows(Blow::SandboxDies),
        losses in blows(Blow::MemoryLost),
    ) {
        let outcome = story.play(&[deaths, losses].concat());
        prop_assert!(matches!(outcome.stage, Stage::Running | Stage::Finished), "{:?}", outcome);
    }

    #[test]
    fn a_deleted_pod_ends_at_any_step(
        story in stories(),
        at in 0usize..80,
        losses in blows(Blow::MemoryLost),
    ) {
        let outcome = story.play(&[vec![(at, Blow::Deleted)], losses].concat());
        prop_assert_eq!(outcome.stage, Stage::Gone);
        prop_assert!(outcome.containers.is_empty());
    }

    #[test]
    fn sidecars_keep_no_pod_alive(story in stories()) {
        let outcome = story.play(&[]);
        let apps_run = outcome
            .containers
            .iter()
            .any(|(name, exit)| name.starts_with('a') && exit.is_none());
        prop_assert_eq!(outcome.stage == Stage::Running, apps_run, "{:?}", outcome);
    }
}
