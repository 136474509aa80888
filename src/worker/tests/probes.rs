//! Probes, as a pod's status and the runtime see them.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::world::{World, deleted, pod};
use crate::pod::{ContainerState, DesiredPod};
use crate::runtime::ExecOutput;
use crate::runtime::fake::{Call, Fault};
use crate::status::StatusUpdate;

/// The pod `u1` with one container `a`, which has these probes.
fn probed(probes: Value) -> DesiredPod {
    let mut desired = pod("u1", &["a"]);
    let mut document = serde_json::to_value(&*desired.pod).unwrap();
    let container = document.pointer_mut("/spec/containers/0").unwrap();
    for (name, probe) in probes.as_object().unwrap() {
        container[name] = probe.clone();
    }
    desired.pod = std::sync::Arc::new(serde_json::from_value(document).unwrap());
    desired
}

/// A probe that runs the command of this name every ten seconds.
fn exec(command: &str) -> Value {
    json!({"exec": {"command": [command]}})
}

fn says(world: &World, exit_code: i32) {
    let output = ExecOutput {
        exit_code,
        ..ExecOutput::default()
    };
    world.runtime.commands_end("a", output);
}

fn is_ready(update: &StatusUpdate) -> bool {
    let statuses = update.status.container_statuses.iter().flatten();
    statuses.into_iter().any(|status| status.ready)
}

fn runs(update: &StatusUpdate, life: i32) -> bool {
    update.status.container_statuses.iter().flatten().any(|c| {
        c.restart_count == life
            && c.state
                .as_ref()
                .is_some_and(|state| state.running.is_some())
    })
}

/// Seconds at which the command was run, from the first time on.
fn times(world: &World, command: &str) -> Vec<i64> {
    let calls = world.runtime.calls();
    let times: Vec<_> = calls
        .iter()
        .filter(|call| call.call == Call::ExecSync && call.subject.ends_with(command))
        .map(|call| call.at)
        .collect();
    times
        .iter()
        .map(|at| at.duration_since(times[0]).as_secs())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn readiness_follows_the_probe() {
    let world = World::new();
    let pod = probed(json!({"readinessProbe": exec("ready")}));
    says(&world, 1);
    world.want(pod.clone());
    let update = world.wait_phase(&pod.uid, "Running").await;
    assert!(!is_ready(&update));
    tokio::time::sleep(Duration::from_secs(60)).await;
    says(&world, 0);
    world.wait_told(&pod.uid, "ready", is_ready).await;
    says(&world, 1);
    world
        .wait_told(&pod.uid, "unready again", |update| !is_ready(update))
        .await;
    assert_eq!(world.runtime.count(Call::StopContainer), 0);
    // Three failures in a row are 20 s apart.
    let probes = times(&world, "ready");
    let last: Vec<_> = probes[probes.len() - 3..]
        .iter()
        .map(|t| t - probes[probes.len() - 3])
        .collect();
    assert_eq!(last, [0, 10, 20]);
}

#[tokio::test(start_paused = true)]
async fn a_container_found_dead_is_restarted_and_judged_anew() {
    let world = World::new();
    let pod = probed(json!({"livenessProbe": exec("alive")}));
    says(&world, 1);
    world.want(pod.clone());
    for life in 1..=2 {
        world
            .wait_told(&pod.uid, "restarted", |update| runs(update, life))
            .await;
    }
    // Three failures for each life, and none counted twice.
    assert_eq!(times(&world, "alive").len(), 6);
    says(&world, 0);
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(world.runtime.count(Call::StopContainer), 2);
}

#[tokio::test(start_paused = true)]
async fn nothing_else_is_asked_before_the_start_is_over() {
    let world = World::new();
    let pod = probed(json!({
        "startupProbe": {"exec": {"command": ["start"]}, "failureThreshold": 100},
        "livenessProbe": exec("alive"),
        "readinessProbe": exec("ready"),
    }));
    says(&world, 1);
    world.want(pod.clone());
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(times(&world, "alive"), [0_i64; 0]);
    assert_eq!(times(&world, "ready"), [0_i64; 0]);
    says(&world, 0);
    world.wait_told(&pod.uid, "ready", is_ready).await;
    let starts = times(&world, "start").len();
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(times(&world, "start").len(), starts, "its time is over");
    assert!(times(&world, "alive").len() >= 9);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_fails_is_tried_again() {
    let world = World::new();
    let pod = probed(json!({"startupProbe": exec("start")}));
    says(&world, 1);
    world.want(pod.clone());
    world
        .wait_told(&pod.uid, "restarted", |update| runs(update, 1))
        .await;
    assert_eq!(times(&world, "start"), [0, 10, 20]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_fails_its_probe() {
    let world = World::new();
    // Connections wait in its queue for ever.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let pod = probed(json!({"livenessProbe": {
        "httpGet": {"host": "127.0.0.1", "port": port}, "failureThreshold": 2,
    }}));
    world.want(pod.clone());
    world
        .wait_told(&pod.uid, "restarted", |update| runs(update, 1))
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_runtime_that_hangs_holds_up_its_own_probe_only() {
    let world = World::new();
    let pod = probed(json!({
        "livenessProbe": exec("alive"),
        "readinessProbe": exec("ready"),
    }));
    world.runtime.fail_always(Call::ExecSync, Fault::Hang);
    world.want(pod.clone());
    world.wait_phase(&pod.uid, "Running").await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(world.runtime.count(Call::StopContainer), 0, "no verdict");
    assert_eq!(times(&world, "alive").len(), 1, "one at a time");
    // The old instance's probes do not keep the new one from being asked.
    world.runtime.exit_container(&pod.uid, "a", 1);
    world
        .wait_told(&pod.uid, "restarted", |update| runs(update, 1))
        .await;
    world
        .wait_runtime("asked again", |_| times(&world, "ready").len() == 2)
        .await;
    world.want(deleted(&pod, 1));
    world.wait_gone(&pod.uid).await;
}

#[tokio::test(start_paused = true)]
async fn probes_that_cannot_be_carried_out_say_nothing() {
    let world = World::new();
    let pod = probed(json!({"livenessProbe": exec("alive")}));
    let refused = Fault::Refused("no".to_owned());
    world.runtime.fail_always(Call::ExecSync, refused);
    world.want(pod.clone());
    tokio::time::sleep(Duration::from_secs(95)).await;
    assert_eq!(world.runtime.count(Call::StopContainer), 0);
    let times = times(&world, "alive");
    assert_eq!(times[..6], [0, 0, 0, 10, 10, 10], "three tries each");
}

#[tokio::test(start_paused = true)]
async fn ticks_that_were_slept_through_are_not_made_up_for() {
    let world = World::new();
    let pod = probed(json!({"readinessProbe": exec("ready")}));
    world.want(pod.clone());
    world.wait_told(&pod.uid, "ready", is_ready).await;
    world.runtime.delay(Call::ExecSync, Duration::from_secs(25));
    tokio::time::sleep(Duration::from_secs(100)).await;
    let times = times(&world, "ready");
    assert_eq!(times[..4], [0, 10, 40, 70]);
}

#[tokio::test(start_paused = true)]
async fn a_new_instance_is_not_ready_because_the_old_one_was() {
    let world = World::new();
    let pod = probed(json!({"readinessProbe": exec("ready")}));
    world.want(pod.clone());
    world.wait_told(&pod.uid, "ready", is_ready).await;
    world.runtime.fail_always(Call::ExecSync, Fault::Hang);
    world.runtime.exit_container(&pod.uid, "a", 1);
    let update = world
        .wait_told(&pod.uid, "restarted", |update| runs(update, 1))
        .await;
    assert!(!is_ready(&update));
    world.runtime.heal(Call::ExecSync);
    world.wait_told(&pod.uid, "ready", is_ready).await;
}

#[tokio::test(start_paused = true)]
async fn a_delay_is_waited_for() {
    let world = World::new();
    let pod = probed(json!({
        "readinessProbe": {"exec": {"command": ["ready"]}, "initialDelaySeconds": 33},
    }));
    world.want(pod.clone());
    world
        .wait_told(&pod.uid, "running", |update| runs(update, 0))
        .await;
    let begun = tokio::time::Instant::now();
    world.wait_told(&pod.uid, "ready", is_ready).await;
    let waited = begun.elapsed().as_secs();
    assert!((32..=33).contains(&waited), "{waited} s");
}

#[tokio::test(start_paused = true)]
async fn a_ready_pod_stays_ready_over_a_restart_of_the_agent() {
    let mut world = World::new();
    let pod = probed(json!({
        "startupProbe": exec("start"),
        "livenessProbe": exec("alive"),
        "readinessProbe": exec("ready"),
    }));
    world.want(pod.clone());
    let told = world.wait_told(&pod.uid, "ready", is_ready).await;
    world.stop_agent().await;
    let mut known = crate::pod::DesiredPod::clone(&pod);
    let mut document = k8s_openapi::api::core::v1::Pod::clone(&pod.pod);
    document.status = Some(told.status.as_ref().clone());
    known.pod = std::sync::Arc::new(document);
    world.want(known.clone());
    tokio::time::sleep(Duration::from_secs(15)).await;
    // Nobody can be asked, and yet nothing changes.
    world.runtime.fail_always(Call::ExecSync, Fault::Hang);
    world.runtime.clear_calls();
    world.start_agent();
    let update = world.wait_phase(&pod.uid, "Running").await;
    assert!(is_ready(&update));
    tokio::time::sleep(Duration::from_secs(60)).await;
    let update = world.wait_phase(&pod.uid, "Running").await;
    assert!(is_ready(&update));
    assert_eq!(times(&world, "start"), [0_i64; 0], "its start is over");
    assert_eq!(times(&world, "ready").len(), 1);
    // Who was not known to be ready is asked first.
    world.stop_agent().await;
    world.want(pod.clone());
    world.start_agent();
    let update = world.wait_phase(&pod.uid, "Running").await;
    assert!(!is_ready(&update));
}

#[tokio::test(start_paused = true)]
async fn a_pod_on_its_way_out_is_asked_for_readiness_only() {
    let world = World::new();
    let pod = probed(json!({
        "livenessProbe": exec("alive"),
        "readinessProbe": exec("ready"),
    }));
    world.want(pod.clone());
    world.wait_told(&pod.uid, "ready", is_ready).await;
    world.runtime.stop_takes("a", Duration::from_secs(100));
    world.want(deleted(&pod, 200));
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.runtime.clear_calls();
    says(&world, 1);
    let update = world
        .wait_told(&pod.uid, "unready", |update| !is_ready(update))
        .await;
    assert!(runs(&update, 0), "it is still stopping");
    assert_eq!(times(&world, "alive"), [0_i64; 0]);
    world.wait_gone(&pod.uid).await;
    let live = world.runtime.pod(&pod.uid);
    assert!(
        live.containers
            .iter()
            .all(|c| !matches!(c.state, ContainerState::Running { .. }))
    );
}
