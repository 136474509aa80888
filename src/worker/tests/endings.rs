//! The end of pods: in which order containers are stopped, and who has to wait
//! for one that will not stop.

use std::time::Duration;

use super::world::{World, deleted, edited, pod};
use crate::pod::{ContainerState, DesiredPod, Intent, Termination, TerminationReason, samples};
use crate::runtime::fake::Call;

/// A pod that an earlier process left running: two sidecars and an app
/// container. Already deleted, so nobody asks how it was started.
fn left_with_sidecars(world: &World, grace: u64) -> DesiredPod {
    let pod = edited(&samples::pod("Always", &["s1", "s2"], &["a"]), |spec| {
        for init in spec.init_containers.iter_mut().flatten() {
            init.restart_policy = Some("Always".to_owned());
        }
    });
    let names = ["s1", "s2", "a"];
    let containers = names.map(|name| samples::instance(&pod, name, 0, samples::running()));
    world.runtime.install(samples::up(containers.into()));
    deleted(&pod, grace)
}

/// Who was asked to stop, and how many seconds after the first.
fn stops(world: &World) -> Vec<(String, i64)> {
    let calls = world.runtime.calls();
    let mut stops = calls.iter().filter(|c| c.call == Call::StopContainer);
    let first = stops.clone().next().map(|call| call.at);
    stops
        .by_ref()
        .map(|call| {
            let name = call.subject.rsplit('/').next().unwrap_or_default();
            let after = first.map_or(0, |first| call.at.duration_since(first).as_secs());
            (name.to_owned(), after)
        })
        .collect()
}

fn named<const N: usize>(stops: [(&str, i64); N]) -> Vec<(String, i64)> {
    stops.map(|(name, at)| (name.to_owned(), at)).into()
}

#[tokio::test(start_paused = true)]
async fn sidecars_are_stopped_one_by_one_after_the_others() {
    let world = World::new();
    let pod = left_with_sidecars(&world, 30);
    world.runtime.stop_takes("a", Duration::from_secs(3));
    world.runtime.stop_takes("s2", Duration::from_secs(2));
    world.want(pod.clone());
    world.wait_gone(&pod.uid).await;
    assert_eq!(stops(&world), named([("a", 0), ("s2", 3), ("s1", 5)]));
}

#[tokio::test(start_paused = true)]
async fn sidecars_wait_no_longer_than_the_grace() {
    let world = World::new();
    let pod = left_with_sidecars(&world, 10);
    world.runtime.stop_takes("a", Duration::from_secs(1000));
    world.want(pod.clone());
    world.wait_gone(&pod.uid).await;
    let stops = stops(&world);
    assert_eq!(stops[0], ("a".to_owned(), 0));
    let sidecars: Vec<_> = stops[1..].iter().map(|(_, at)| *at).collect();
    assert_eq!(sidecars, [10, 10]);
}

#[tokio::test(start_paused = true)]
async fn a_container_that_will_not_stop_is_killed_and_holds_up_nobody_else() {
    let world = World::new();
    let stubborn = pod("u1", &["a"]);
    world.runtime.stop_takes("a", Duration::from_secs(100_000));
    world.want(stubborn.clone());
    world.wait_phase(&stubborn.uid, "Running").await;
    world.want(deleted(&stubborn, 300));
    world
        .wait_runtime("stopping", |r| r.count(Call::StopContainer) == 1)
        .await;
    let other = pod("u2", &["b"]);
    world.want(other.clone());
    world.wait_phase(&other.uid, "Running").await;
    world.want(deleted(&other, 5));
    world.wait_gone(&other.uid).await;
    let left = world.runtime.pod(&stubborn.uid);
    assert!(matches!(
        left.containers[0].state,
        ContainerState::Running { .. }
    ));
    world.wait_gone(&stubborn.uid).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_this_node_ends_has_failed_for_the_given_reason() {
    let world = World::new();
    let pod = pod("u1", &["a"]);
    world.want(pod.clone());
    world.wait_phase(&pod.uid, "Running").await;
    world.want(DesiredPod {
        intent: Intent::Terminate(Termination {
            grace: Some(Duration::ZERO),
            reason: TerminationReason::Failed {
                reason: "Evicted".into(),
                message: "The node was low on resource: memory. ".into(),
                disruption: Some("The node was low on resource: memory. ".into()),
            },
        }),
        ..pod.clone()
    });
    let stopped =
        |update: &crate::status::StatusUpdate| update.ending > crate::status::Ending::Live;
    let update = world.wait_told(&pod.uid, "stopped", stopped).await;
    let status = &update.status;
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    assert_eq!(status.reason.as_deref(), Some("Evicted"));
    let conditions = status.conditions.iter().flatten();
    let told: Vec<_> = conditions
        .map(|c| (c.type_.as_str(), c.status.as_str()))
        .collect();
    assert!(told.contains(&("DisruptionTarget", "True")), "{told:?}");
    // Deleted with no grace, it may be gone before this node hears of the deletion.
    world.forget(&pod.uid);
    world.wait_forgotten(&pod.uid).await;
    assert!(world.disk.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_never_ran_can_be_ended_and_has_failed() {
    let world = World::new();
    world.runtime.fail_always(
        Call::RunSandbox,
        crate::runtime::fake::Fault::Refused("no CNI".into()),
    );
    let pod = pod("u1", &["a"]);
    world.want(pod.clone());
    world
        .wait_runtime("a first try", |r| r.count(Call::RunSandbox) == 1)
        .await;
    world.want(deleted(&pod, 30));
    world.wait_gone(&pod.uid).await;
    let update = world.wait_phase(&pod.uid, "Failed").await;
    let containers = update.status.container_statuses.clone().unwrap_or_default();
    let ended = containers[0].state.clone().and_then(|s| s.terminated);
    let ended = ended.expect("a state for the record");
    assert_eq!(ended.reason.as_deref(), Some("ContainerStatusUnknown"));
    assert_eq!(ended.exit_code, 137);
}
