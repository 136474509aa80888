//! Resizes of running pods.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::world::{World, deleted, edited, pod};
use crate::pod::DesiredPod;
use crate::pod::resize::{IN_PROGRESS, PENDING};
use crate::runtime::fake::{Call, Fault};
use crate::status::StatusUpdate;

/// The pod with this much CPU, and what is to happen to its container for it.
fn with_cpu(pod: &DesiredPod, amount: &str, policy: &str) -> DesiredPod {
    let mut inner = k8s_openapi::api::core::v1::Pod::clone(&pod.pod);
    let container = &mut inner.spec.get_or_insert_default().containers[0];
    let resources = json!({ "requests": { "cpu": amount }, "limits": { "cpu": amount } });
    container.resources = serde_json::from_value(resources).expect("resources");
    let policy = json!([{ "resourceName": "cpu", "restartPolicy": policy }]);
    container.resize_policy = serde_json::from_value(policy).expect("policy");
    DesiredPod {
        pod: Arc::new(inner),
        ..pod.clone()
    }
}

fn has(update: &StatusUpdate, condition: &str) -> bool {
    let conditions = update.status.conditions.iter().flatten();
    conditions.into_iter().any(|c| c.type_ == condition)
}

fn shows(update: &StatusUpdate, amount: &str) -> bool {
    let status = &update
        .status
        .container_statuses
        .as_ref()
        .expect("containers")[0];
    let allocated = status.allocated_resources.as_ref();
    allocated.is_some_and(|list| list["cpu"].0 == amount)
}

fn updates(world: &World) -> usize {
    world.runtime.count(Call::UpdateContainer)
}

#[tokio::test(start_paused = true)]
async fn a_container_is_resized_while_it_runs() {
    let world = World::new();
    let pod = pod("u1", &["a"]);
    world.want(with_cpu(&pod, "1", "NotRequired"));
    world.wait_phase(&pod.uid, "Running").await;
    world.want(with_cpu(&pod, "2", "NotRequired"));
    let done = |u: &StatusUpdate| shows(u, "2") && !has(u, IN_PROGRESS);
    world.wait_told(&pod.uid, "resized", done).await;
    assert_eq!(updates(&world), 1);
    assert_eq!(world.runtime.pod(&pod.uid).containers.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_container_is_restarted_if_it_wants_to() {
    let world = World::new();
    let pod = pod("u1", &["a"]);
    world.want(with_cpu(&pod, "1", "RestartContainer"));
    world.wait_phase(&pod.uid, "Running").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.want(with_cpu(&pod, "2", "RestartContainer"));
    let done = |u: &StatusUpdate| {
        let restarts = u.status.container_statuses.as_ref().expect("one")[0].restart_count;
        shows(u, "2") && !has(u, IN_PROGRESS) && restarts == 1
    };
    world.wait_told(&pod.uid, "restarted", done).await;
    assert_eq!(updates(&world), 0);
}

#[tokio::test(start_paused = true)]
async fn what_there_is_no_room_for_is_deferred_also_by_the_next_process() {
    let mut world = World::new();
    let pod = pod("u1", &["a"]);
    world.want(with_cpu(&pod, "1", "NotRequired"));
    world.wait_phase(&pod.uid, "Running").await;
    let mut wish = with_cpu(&pod, "1000", "NotRequired");
    world.want(wish.clone());
    let deferred = |u: &StatusUpdate| has(u, PENDING) && shows(u, "1");
    let told = world.wait_told(&pod.uid, "deferred", deferred).await;
    // The API server has the status; the next process reads it there.
    let mut inner = k8s_openapi::api::core::v1::Pod::clone(&wish.pod);
    inner.status = Some(told.status.as_ref().clone());
    wish.pod = Arc::new(inner);
    world.kill_agent().await;
    world.want(wish);
    world.start_agent();
    world.wait_told(&pod.uid, "deferred", deferred).await;
    // Taken back.
    world.want(with_cpu(&pod, "1", "NotRequired"));
    let done = |u: &StatusUpdate| shows(u, "1") && !has(u, PENDING);
    world.wait_told(&pod.uid, "content", done).await;
    assert_eq!(updates(&world), 0);
}

#[tokio::test(start_paused = true)]
async fn a_resize_that_fails_is_tried_again() {
    let world = World::new();
    let pod = pod("u1", &["a"]);
    world.want(with_cpu(&pod, "1", "NotRequired"));
    world.wait_phase(&pod.uid, "Running").await;
    for _ in 0..2 {
        world
            .runtime
            .fail_next(Call::UpdateContainer, Fault::Refused("busy".into()));
    }
    world.want(with_cpu(&pod, "2", "NotRequired"));
    let failed = |u: &StatusUpdate| {
        let conditions = u.status.conditions.iter().flatten();
        let mut conditions = conditions.filter(|c| c.type_ == IN_PROGRESS);
        conditions.any(|c| c.reason.as_deref() == Some("Error"))
    };
    world.wait_told(&pod.uid, "in error", failed).await;
    let done = |u: &StatusUpdate| shows(u, "2") && !has(u, IN_PROGRESS);
    world.wait_told(&pod.uid, "resized", done).await;
    assert_eq!(updates(&world), 3);
}

#[tokio::test(start_paused = true)]
async fn a_deferred_resize_is_granted_when_another_pod_leaves_or_shrinks() {
    let world = World::new();
    let (grows, shrinks, leaves) = (pod("u1", &["a"]), pod("u2", &["a"]), pod("u3", &["a"]));
    for (pod, amount) in [(&grows, "1"), (&shrinks, "3"), (&leaves, "3")] {
        world.want(with_cpu(pod, amount, "NotRequired"));
        world.wait_phase(&pod.uid, "Running").await;
    }
    // 8 CPUs in all.
    world.want(with_cpu(&grows, "4", "NotRequired"));
    let deferred = |u: &StatusUpdate| has(u, PENDING) && shows(u, "1");
    world.wait_told(&grows.uid, "deferred", deferred).await;
    let message = world.wait_event("ResizeDeferred").await;
    let why = "Node didn't have enough resource: cpu, requested: 4000, used: 6000, capacity: 8000";
    assert!(message.contains(why), "{message}");

    world.want(with_cpu(&shrinks, "1", "NotRequired"));
    let granted = |amount: &'static str| {
        move |u: &StatusUpdate| shows(u, amount) && !has(u, PENDING) && !has(u, IN_PROGRESS)
    };
    world.wait_told(&grows.uid, "4", granted("4")).await;

    world.want(with_cpu(&grows, "7", "NotRequired"));
    let deferred = |u: &StatusUpdate| has(u, PENDING) && shows(u, "4");
    world.wait_told(&grows.uid, "deferred", deferred).await;
    world.want(deleted(&with_cpu(&leaves, "3", "NotRequired"), 1));
    world.wait_told(&grows.uid, "7", granted("7")).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_resized_pod_takes_is_gone_for_new_ones() {
    let world = World::new();
    let (grows, late) = (pod("u1", &["a"]), pod("u2", &["a"]));
    world.want(with_cpu(&grows, "1", "NotRequired"));
    world.wait_phase(&grows.uid, "Running").await;
    world.want(with_cpu(&grows, "7", "NotRequired"));
    let done = |u: &StatusUpdate| shows(u, "7") && !has(u, IN_PROGRESS);
    world.wait_told(&grows.uid, "resized", done).await;
    world.want(with_cpu(&late, "2", "NotRequired"));
    let told = world.wait_phase(&late.uid, "Failed").await;
    assert_eq!(told.status.reason.as_deref(), Some("OutOfcpu"));
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_is_resized_while_it_runs() {
    let world = World::new();
    let with = |amount: &str| {
        let sidecar = json!([{
            "name": "side", "image": "img", "imagePullPolicy": "IfNotPresent",
            "restartPolicy": "Always", "resources": { "requests": { "cpu": amount } },
        }]);
        edited(&pod("u1", &["a"]), |spec| {
            spec.init_containers = serde_json::from_value(sidecar).expect("a sidecar");
        })
    };
    let pod = with("1");
    world.want(pod.clone());
    world.wait_phase(&pod.uid, "Running").await;
    world.want(with("2"));
    let done = |u: &StatusUpdate| {
        let statuses = u.status.init_container_statuses.as_ref().expect("one");
        let given = statuses[0].allocated_resources.as_ref();
        given.is_some_and(|list| list["cpu"].0 == "2") && !has(u, IN_PROGRESS)
    };
    world.wait_told(&pod.uid, "resized", done).await;
    assert_eq!(updates(&world), 1);
    assert_eq!(world.runtime.pod(&pod.uid).containers.len(), 2);
}
