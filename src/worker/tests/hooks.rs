//! Post-start and pre-stop hooks: what they hold up, and what they do not.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::world::{World, deleted, edited, pod, pod_with_policy};
use crate::pod::{ContainerState, DesiredPod};
use crate::runtime::ExecOutput;
use crate::runtime::fake::{Call, Fault};
use crate::status::StatusUpdate;

/// Gives the pod's first container a hook that is a command.
fn with_hook(pod: &DesiredPod, hook: &str) -> DesiredPod {
    with_lifecycle(pod, json!({hook: {"exec": {"command": ["hook"]}}}))
}

fn with_lifecycle(pod: &DesiredPod, lifecycle: Value) -> DesiredPod {
    edited(pod, |spec| {
        spec.containers[0].lifecycle =
            Some(serde_json::from_value(lifecycle).expect("a lifecycle"));
    })
}

fn failing() -> ExecOutput {
    ExecOutput {
        exit_code: 3,
        stdout: b"out ".to_vec(),
        stderr: b"err".to_vec(),
    }
}

fn waiting_reason(update: &StatusUpdate) -> Option<String> {
    let containers = update.status.container_statuses.as_ref()?;
    let waiting = containers[0].state.as_ref()?.waiting.as_ref()?;
    waiting.reason.clone()
}

/// When the first call of this kind for the named container began.
fn called_at(world: &World, call: Call, container: &str) -> Option<Timestamp> {
    let calls = world.runtime.calls();
    let subject = format!("/{container}");
    calls
        .iter()
        .find(|made| {
            let name = made.subject.split(':').next().unwrap_or_default();
            made.call == call && name.ends_with(&subject)
        })
        .map(|made| made.at)
}

async fn hook_runs(world: &World) {
    world
        .wait_runtime("the hook runs", |r| r.count(Call::ExecSync) == 1)
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_container_runs_when_its_hook_is_over_and_the_next_one_waits_for_that() {
    let world = World::new();
    let pod = with_hook(&pod("u1", &["a", "b"]), "postStart");
    world.runtime.delay(Call::ExecSync, Duration::from_secs(20));
    let begun = Instant::now();
    world.want(pod.clone());
    hook_runs(&world).await;
    let running = world.runtime.pod(&pod.uid);
    let state = running.newest("a").map(|a| a.state.clone());
    assert!(matches!(state, Some(ContainerState::Running { .. })));

    // The first word that it runs comes after the hook.
    let told = |update: &StatusUpdate| {
        let containers = update.status.container_statuses.iter().flatten();
        let mut states = containers.filter_map(|c| c.state.as_ref());
        states.any(|state| state.running.is_some())
    };
    world.wait_told(&pod.uid, "running", told).await;
    assert!(begun.elapsed() >= Duration::from_secs(20));
    world.wait_phase(&pod.uid, "Running").await;
    let hook = called_at(&world, Call::ExecSync, "a").expect("a's hook");
    let next = called_at(&world, Call::CreateContainer, "b").expect("b's start");
    assert!(next.duration_since(hook).as_secs() >= 20);
}

#[tokio::test(start_paused = true)]
async fn a_container_whose_post_start_hook_fails_is_stopped() {
    let world = World::new();
    let pod = with_hook(&pod_with_policy("u1", "Never", &["a"]), "postStart");
    world.runtime.commands_end("a", failing());
    world.want(pod.clone());
    world.wait_phase(&pod.uid, "Failed").await;
    assert_eq!(
        world.wait_event("FailedPostStartHook").await,
        "PostStartHook failed"
    );
    assert_eq!(world.wait_event("Killing").await, "FailedPostStartHook");
    assert_eq!(world.runtime.count(Call::StopContainer), 1);
    assert_eq!(world.events("Failed"), [] as [String; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_post_start_hook_is_why_the_container_waits_and_is_run_again() {
    let world = World::new();
    let pod = with_hook(&pod("u1", &["a"]), "postStart");
    world.runtime.commands_end("a", failing());
    world.want(pod.clone());
    let waits = |reason: &'static str| {
        move |update: &StatusUpdate| waiting_reason(update).as_deref() == Some(reason)
    };
    let reason = "PostStartHookError";
    let update = world.wait_told(&pod.uid, reason, waits(reason)).await;
    let containers = update.status.container_statuses.clone().unwrap_or_default();
    let waiting = containers[0].state.clone().and_then(|state| state.waiting);
    let message = waiting.and_then(|waiting| waiting.message);
    assert!(
        message
            .as_deref()
            .is_some_and(|m| m.contains("exit code 3: \"out err\"")),
        "{message:?}"
    );
    let reason = "CrashLoopBackOff";
    world.wait_told(&pod.uid, reason, waits(reason)).await;
    world.runtime.commands_end("a", ExecOutput::default());
    world.wait_phase(&pod.uid, "Running").await;
}

#[tokio::test(start_paused = true)]
async fn a_container_that_cannot_be_stopped_after_its_hook_failed_is_stopped_later() {
    let world = World::new();
    let pod = with_hook(&pod_with_policy("u1", "Never", &["a"]), "postStart");
    world.runtime.commands_end("a", failing());
    world
        .runtime
        .fail_next(Call::StopContainer, Fault::Unreachable);
    world.want(pod.clone());
    world.wait_phase(&pod.uid, "Failed").await;
    assert_eq!(world.runtime.count(Call::StopContainer), 2);
}

#[tokio::test(start_paused = true)]
async fn a_post_start_hook_that_hangs_is_given_up_when_the_pod_is_deleted() {
    let world = World::new();
    let pod = with_hook(&pod("u1", &["a", "b"]), "postStart");
    world.runtime.fail_always(Call::ExecSync, Fault::Hang);
    world.want(pod.clone());
    hook_runs(&world).await;
    let begun = Instant::now();
    world.want(deleted(&pod, 30));
    world.wait_gone(&pod.uid).await;
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(called_at(&world, Call::CreateContainer, "b"), None);
    assert_eq!(world.events("FailedPostStartHook"), [] as [String; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_post_start_hook_that_hangs_does_not_hold_up_the_deadline() {
    let world = World::new();
    let pod = with_hook(&pod("u1", &["a"]), "postStart");
    let pod = edited(&pod, |spec| spec.active_deadline_seconds = Some(60));
    world.runtime.fail_always(Call::ExecSync, Fault::Hang);
    let begun = Instant::now();
    world.want(pod.clone());
    let update = world.wait_phase(&pod.uid, "Failed").await;
    assert_eq!(update.status.reason.as_deref(), Some("DeadlineExceeded"));
    let took = begun.elapsed().as_secs();
    assert!((60..=65).contains(&took), "took {took} s");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_leaves_gives_up_a_post_start_hook_and_its_successor_does_not_repeat_it() {
    let mut world = World::new();
    let pod = with_hook(&pod("u1", &["a", "b"]), "postStart");
    world.runtime.fail_always(Call::ExecSync, Fault::Hang);
    world.want(pod.clone());
    hook_runs(&world).await;
    let begun = Instant::now();
    world.stop_agent().await;
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert_eq!(world.runtime.count(Call::StopContainer), 0);
    world.start_agent();
    world.wait_phase(&pod.uid, "Running").await;
    assert_eq!(world.runtime.count(Call::ExecSync), 1);
    assert_eq!(world.runtime.count(Call::CreateContainer), 2);
}

#[tokio::test(start_paused = true)]
async fn a_pre_stop_hook_takes_its_time_from_the_grace() {
    // How long the hook and then the container take, of a grace of 20 s; when
    // the stop signal comes, and when all is over.
    for (hook, exit, signal, end) in [
        (0, 0, 0, 0),
        (7, 3, 7, 10),
        (7, 60, 7, 20),
        (60, 60, 20, 20),
    ] {
        let world = World::new();
        let pod = with_hook(&pod("u1", &["a"]), "preStop");
        world
            .runtime
            .delay(Call::ExecSync, Duration::from_secs(hook));
        world.runtime.stop_takes("a", Duration::from_secs(exit));
        world.want(pod.clone());
        world.wait_phase(&pod.uid, "Running").await;
        let begun = (Instant::now(), world.runtime.now());
        world.want(deleted(&pod, 20));
        world.wait_gone(&pod.uid).await;
        let sent = called_at(&world, Call::StopContainer, "a").expect("a stop");
        assert_eq!(
            sent.duration_since(begun.1).as_secs(),
            signal,
            "hook of {hook} s"
        );
        assert_eq!(begun.0.elapsed().as_secs(), end, "hook of {hook} s");
        assert_eq!(world.runtime.count(Call::ExecSync), 1);
        assert_eq!(world.events("Killing"), ["Stopping container a"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_pre_stop_sleep_is_a_hook_like_any_other() {
    let world = World::new();
    let sleep = json!({"preStop": {"sleep": {"seconds": 6}}});
    let pod = with_lifecycle(&pod("u1", &["a"]), sleep);
    world.want(pod.clone());
    world.wait_phase(&pod.uid, "Running").await;
    let begun = world.runtime.now();
    world.want(deleted(&pod, 20));
    world.wait_gone(&pod.uid).await;
    let sent = called_at(&world, Call::StopContainer, "a").expect("a stop");
    assert_eq!(sent.duration_since(begun).as_secs(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_pre_stop_hook_that_fails_is_told_and_the_stop_goes_on() {
    for lifecycle in [
        json!({"preStop": {"exec": {"command": ["hook"]}}}),
        json!({"preStop": {"tcpSocket": {"port": 80}}}),
        json!({"preStop": {"httpGet": {"port": "nowhere"}}}),
    ] {
        let world = World::new();
        let pod = with_lifecycle(&pod("u1", &["a"]), lifecycle);
        world.runtime.commands_end("a", failing());
        world.want(pod.clone());
        world.wait_phase(&pod.uid, "Running").await;
        world.want(deleted(&pod, 20));
        world.wait_gone(&pod.uid).await;
        assert_eq!(
            world.wait_event("FailedPreStopHook").await,
            "PreStopHook failed"
        );
        assert_eq!(world.runtime.count(Call::StopContainer), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_shorter_grace_ends_a_pre_stop_hook_and_does_not_repeat_it() {
    let world = World::new();
    let pod = with_hook(&pod("u1", &["a"]), "preStop");
    world.runtime.fail_always(Call::ExecSync, Fault::Hang);
    world.want(pod.clone());
    world.wait_phase(&pod.uid, "Running").await;
    world.want(deleted(&pod, 3000));
    hook_runs(&world).await;
    let begun = Instant::now();
    world.want(deleted(&pod, 4));
    world.wait_gone(&pod.uid).await;
    let took = begun.elapsed().as_secs();
    assert!((4..=6).contains(&took), "took {took} s");
    assert_eq!(world.runtime.count(Call::ExecSync), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_is_taken_over_or_fails_does_not_repeat_the_hook() {
    let world = World::new();
    let pod = with_hook(&pod("u1", &["a"]), "preStop");
    world.runtime.stop_takes("a", Duration::from_secs(100_000));
    world.want(pod.clone());
    world.wait_phase(&pod.uid, "Running").await;
    world
        .runtime
        .fail_next(Call::StopContainer, Fault::Unreachable);
    world.want(deleted(&pod, 3000));
    world
        .wait_runtime("a second try", |r| r.count(Call::StopContainer) == 2)
        .await;
    world.want(deleted(&pod, 4));
    world.wait_gone(&pod.uid).await;
    assert_eq!(world.runtime.count(Call::StopContainer), 3);
    assert_eq!(world.runtime.count(Call::ExecSync), 1);
}

#[tokio::test(start_paused = true)]
async fn an_agent_killed_in_a_pre_stop_hook_comes_back_to_the_same_end() {
    let mut world = World::new();
    let pod = with_hook(&pod("u1", &["a"]), "preStop");
    world.runtime.fail_always(Call::ExecSync, Fault::Hang);
    world.want(pod.clone());
    world.wait_phase(&pod.uid, "Running").await;
    world.want(deleted(&pod, 30));
    hook_runs(&world).await;
    world.kill_agent().await;
    world.start_agent();
    world.wait_gone(&pod.uid).await;
    assert!(world.disk.is_empty());
    // Nobody knows how far the first one came.
    assert_eq!(world.runtime.count(Call::ExecSync), 2);
}

#[tokio::test(start_paused = true)]
async fn a_pod_nobody_knows_has_a_second_for_its_pre_stop_hook() {
    let mut world = World::new();
    let pod = with_hook(&pod("u1", &["a"]), "preStop");
    world.runtime.fail_always(Call::ExecSync, Fault::Hang);
    world.want(pod.clone());
    world.wait_phase(&pod.uid, "Running").await;
    world.kill_agent().await;
    world.forget(&pod.uid);
    world.start_agent();
    world
        .wait_runtime("the orphan is gone", |r| r.pod(&pod.uid).is_absent())
        .await;
    let hook = called_at(&world, Call::ExecSync, "a").expect("its hook");
    let stop = called_at(&world, Call::StopContainer, "a").expect("its stop");
    assert_eq!(stop.duration_since(hook).as_secs(), 1);
}
