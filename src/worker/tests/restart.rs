//! The agent stops, or is killed at any instruction, and comes back.

use std::time::Duration;

use super::world::{World, deleted, pod, pod_with_policy};
use crate::pod::{ContainerState, PodUid};
use crate::runtime::fake::Call;

#[tokio::test(start_paused = true)]
async fn a_new_process_adopts_what_runs() {
    let mut world = World::new();
    let pods: Vec<_> = (0..5).map(|n| pod(&format!("u{n}"), &["a", "b"])).collect();
    for pod in &pods {
        world.want(pod.clone());
    }
    for pod in &pods {
        world.wait_phase(&pod.uid, "Running").await;
    }
    world.stop_agent().await;
    world.runtime.clear_calls();
    world.start_agent();
    for pod in &pods {
        world.wait_phase(&pod.uid, "Running").await;
    }
    assert_eq!(world.runtime.calls(), [], "nothing is done to what runs");
}

#[tokio::test(start_paused = true)]
async fn crash_backoff_goes_on_over_a_restart_of_the_agent() {
    let mut world = World::new();
    let pod = pod("u1", &["a"]);
    world.runtime.exits_after("a", Duration::from_secs(1), 1);
    world.want(pod.clone());
    world
        .wait_runtime("crashed thrice", |r| {
            r.pod(&pod.uid)
                .newest("a")
                .is_some_and(|c| c.attempt == 3 && matches!(c.state, ContainerState::Exited(_)))
        })
        .await;
    world.kill_agent().await;
    world.start_agent();
    let begun = tokio::time::Instant::now();
    world
        .wait_runtime("a fourth restart", |r| {
            r.pod(&pod.uid).newest("a").is_some_and(|c| c.attempt == 4)
        })
        .await;
    let waited = begun.elapsed().as_secs();
    assert!((38..=41).contains(&waited), "waited {waited} s of 40");
}

#[tokio::test(start_paused = true)]
async fn an_exit_while_the_agent_was_away_is_told() {
    let mut world = World::new();
    let pod = pod_with_policy("u1", "Never", &["a"]);
    world.want(pod.clone());
    world.wait_phase(&pod.uid, "Running").await;
    world.kill_agent().await;
    world.runtime.exit_container(&pod.uid, "a", 3);
    world.start_agent();
    let update = world.wait_phase(&pod.uid, "Failed").await;
    let state = update.status.container_statuses.clone().unwrap_or_default()[0]
        .state
        .clone()
        .and_then(|s| s.terminated)
        .expect("terminated");
    assert_eq!(state.exit_code, 3);
}

#[tokio::test(start_paused = true)]
async fn a_deletion_made_while_the_agent_was_away_is_carried_out() {
    let mut world = World::new();
    let pod = pod("u1", &["a"]);
    world.want(pod.clone());
    world.wait_phase(&pod.uid, "Running").await;
    world.kill_agent().await;
    world.want(deleted(&pod, 2));
    world.start_agent();
    world.wait_gone(&pod.uid).await;
    assert!(world.disk.is_empty());
}

/// Pods come and go while the agent is killed every so often, at every point
/// of its work. Afterwards: what is wanted runs, once, never restarted; what is
/// not wanted left nothing.
#[tokio::test(start_paused = true)]
async fn killed_at_any_moment_nothing_is_lost_doubled_or_left() {
    for pause in [7, 23, 61, 119, 240, 511, 1024, 1777, 2400] {
        let mut world = World::new();
        for call in [
            Call::RunSandbox,
            Call::CreateContainer,
            Call::StartContainer,
            Call::StopContainer,
        ] {
            world.runtime.delay(call, Duration::from_millis(100));
        }
        let pods: Vec<_> = (0..6).map(|n| pod(&format!("u{n}"), &["a", "b"])).collect();
        for (turn, pod) in pods.iter().enumerate() {
            world.want(pod.clone());
            if turn % 2 == 1 {
                world.want(deleted(pod, 1));
            }
            tokio::time::sleep(Duration::from_millis(pause)).await;
            world.kill_agent().await;
            world.start_agent();
        }
        for (turn, pod) in pods.iter().enumerate() {
            if turn % 2 == 1 {
                world
                    .wait_runtime("deleted", |r| r.pod(&pod.uid).is_absent())
                    .await;
                world.forget(&pod.uid);
            } else {
                world.wait_phase(&pod.uid, "Running").await;
                check_untouched(&world, &pod.uid);
            }
        }
        world
            .wait_runtime("three sandboxes", |r| r.ready_sandboxes() == 3)
            .await;
    }
}

fn check_untouched(world: &World, uid: &PodUid) {
    let pod = world.runtime.pod(uid);
    assert_eq!(pod.sandboxes.len(), 1, "{pod:#?}");
    for name in ["a", "b"] {
        let live = pod
            .instances(name)
            .filter(|c| matches!(c.state, ContainerState::Running { .. }))
            .count();
        assert_eq!(live, 1, "{pod:#?}");
        assert_eq!(pod.newest(name).map(|c| c.attempt), Some(0), "{pod:#?}");
    }
}
