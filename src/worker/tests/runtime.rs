//! What runs a pod: its RuntimeClass, and what the runtime can do.

use std::sync::Arc;

use super::world::{World, pod};
use crate::pod::DesiredPod;
use crate::runtime::fake::Call;
use crate::runtime::{Observer, RuntimeHandler};

fn with_spec(change: impl FnOnce(&mut k8s_openapi::api::core::v1::PodSpec)) -> DesiredPod {
    let mut desired = pod("u1", &["a"]);
    if let Some(spec) = &mut Arc::make_mut(&mut desired.pod).spec {
        change(spec);
    }
    desired
}

#[tokio::test(start_paused = true)]
async fn the_class_names_the_handler_of_the_sandbox() {
    let world = World::new();
    let pod = with_spec(|spec| spec.runtime_class_name = Some("sandboxed".into()));
    world.want(pod.clone());
    world.wait_phase(&pod.uid, "Running").await;
    let handler = world.runtime.pod(&pod.uid).sandboxes[0]
        .runtime_handler
        .clone();
    assert_eq!(handler, "runsc");
}

#[tokio::test(start_paused = true)]
async fn without_its_class_a_pod_has_no_sandbox() {
    let world = World::new();
    let pod = with_spec(|spec| spec.runtime_class_name = Some("gone".into()));
    world.want(pod.clone());
    world.wait_phase(&pod.uid, "Pending").await;
    tokio::time::advance(std::time::Duration::from_secs(60)).await;
    assert_eq!(world.runtime.count(Call::RunSandbox), 0);
    let given = with_spec(|spec| spec.runtime_class_name = Some("sandboxed".into()));
    world.want(given);
    world.wait_phase(&pod.uid, "Running").await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_with_users_of_its_own_waits_for_a_runtime_that_can() {
    let world = World::new();
    let pod = with_spec(|spec| spec.host_users = Some(false));
    world.want(pod.clone());
    world.wait_phase(&pod.uid, "Pending").await;
    assert_eq!(world.runtime.count(Call::RunSandbox), 0);
    let mut health = world.runtime.health().borrow().clone();
    health.handlers.push(RuntimeHandler {
        name: String::new(),
        recursive_read_only_mounts: true,
        user_namespaces: true,
    });
    world.runtime.set_health(health);
    world.wait_phase(&pod.uid, "Running").await;
    assert_eq!(world.runtime.count(Call::RunSandbox), 1);
}
