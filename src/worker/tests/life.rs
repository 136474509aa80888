//! One agent process: start, crash, failure, end.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::world::{World, deleted, pod, pod_with_policy};
use crate::pod::{ContainerState, Origin, PodUid, SandboxState, SourcesReady};
use crate::runtime::fake::{Call, Fault};
use crate::status::Ending;

#[tokio::test(start_paused = true)]
async fn a_wanted_pod_runs_with_one_call_of_each_kind() {
    let world = World::new();
    let pod = pod("u1", &["a", "b"]);
    world.want(pod.clone());
    let update = world.wait_phase(&pod.uid, "Running").await;
    assert_eq!(update.ending, Ending::Live);
    assert_eq!(world.runtime.count(Call::RunSandbox), 1);
    assert_eq!(world.runtime.count(Call::CreateContainer), 2);
    assert_eq!(world.runtime.count(Call::StartContainer), 2);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_pod_is_stopped_taken_away_and_forgotten() {
    let world = World::new();
    let pod = pod("u1", &["a", "b"]);
    world.want(pod.clone());
    world.wait_phase(&pod.uid, "Running").await;
    world.want(deleted(&pod, 5));
    world.wait_gone(&pod.uid).await;
    assert!(world.runtime.pod(&pod.uid).is_absent());
    assert!(world.disk.is_empty());
    world.forget(&pod.uid);
    world.wait_forgotten(&pod.uid).await;
    assert_eq!(world.runtime.count(Call::RunSandbox), 1);
}

#[tokio::test(start_paused = true)]
async fn crashes_are_restarted_with_growing_pauses() {
    let world = World::new();
    let pod = pod("u1", &["a"]);
    world.runtime.exits_after("a", Duration::from_secs(1), 1);
    let begun = tokio::time::Instant::now();
    world.want(pod.clone());
    let restarts = |n: i32| {
        move |update: &crate::status::StatusUpdate| {
            update
                .status
                .container_statuses
                .iter()
                .flatten()
                .any(|c| c.restart_count == n)
        }
    };
    world
        .wait_told(&pod.uid, "restarted 4 times", restarts(4))
        .await;
    // Runs of 1 s; pauses of 0, 10, 20 and 40 s.
    let took = begun.elapsed().as_secs();
    assert!((74..=76).contains(&took), "took {took} s");
}

#[tokio::test(start_paused = true)]
async fn a_run_to_completion_pod_ends_and_keeps_its_record() {
    let world = World::new();
    let pod = pod_with_policy("u1", "Never", &["a"]);
    world.runtime.exits_after("a", Duration::from_secs(3), 0);
    world.want(pod.clone());
    let update = world.wait_phase(&pod.uid, "Succeeded").await;
    assert!(update.ending <= Ending::Stopped);
    world
        .wait_runtime("the sandbox is stopped", |r| r.ready_sandboxes() == 0)
        .await;
    let left = world.runtime.pod(&pod.uid);
    assert!(matches!(
        left.containers[0].state,
        ContainerState::Exited(_)
    ));
    assert_eq!(left.sandboxes[0].state, SandboxState::NotReady);
}

#[tokio::test(start_paused = true)]
async fn a_shorter_grace_takes_over_a_stop_under_way() {
    let world = World::new();
    let pod = pod("u1", &["a"]);
    world.runtime.stop_takes("a", Duration::from_secs(100_000));
    world.want(pod.clone());
    world.wait_phase(&pod.uid, "Running").await;
    world.want(deleted(&pod, 3000));
    world
        .wait_runtime("stopping", |r| r.count(Call::StopContainer) == 1)
        .await;
    let begun = tokio::time::Instant::now();
    world.want(deleted(&pod, 4));
    world.wait_gone(&pod.uid).await;
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(world.runtime.count(Call::StopContainer), 2);
}

#[tokio::test(start_paused = true)]
async fn a_longer_grace_does_not_undo_a_shorter_one() {
    let world = World::new();
    let pod = pod("u1", &["a"]);
    world.runtime.stop_takes("a", Duration::from_secs(100_000));
    world.want(pod.clone());
    world.wait_phase(&pod.uid, "Running").await;
    let begun = tokio::time::Instant::now();
    world.want(deleted(&pod, 20));
    world
        .wait_runtime("stopping", |r| r.count(Call::StopContainer) == 1)
        .await;
    world.want(deleted(&pod, 3000));
    world.wait_gone(&pod.uid).await;
    assert!(
        begun.elapsed() < Duration::from_secs(60),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_hung_call_concerns_its_pod_alone() {
    let world = World::new();
    world.runtime.fail_next(Call::RunSandbox, Fault::Hang);
    let stuck = pod("u1", &["a"]);
    world.want(stuck.clone());
    world
        .wait_runtime("one call hangs", |r| r.count(Call::RunSandbox) == 1)
        .await;
    let fine = pod("u2", &["a"]);
    world.want(fine.clone());
    world.wait_phase(&fine.uid, "Running").await;
    world.runtime.heal(Call::RunSandbox);
    world.wait_phase(&stuck.uid, "Running").await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_sandbox_is_tried_again() {
    let world = World::new();
    for _ in 0..3 {
        world
            .runtime
            .fail_next(Call::RunSandbox, Fault::Refused("no CNI".into()));
    }
    let pod = pod("u1", &["a"]);
    world.want(pod.clone());
    world.wait_phase(&pod.uid, "Running").await;
    assert_eq!(world.runtime.count(Call::RunSandbox), 4);
}

#[tokio::test(start_paused = true)]
async fn volumes_that_fail_are_tried_again_before_any_sandbox() {
    let world = World::new();
    world.disk.failing_ensures.store(2, Ordering::SeqCst);
    let pod = pod("u1", &["a"]);
    world.want(pod.clone());
    world.wait_phase(&pod.uid, "Running").await;
    assert_eq!(world.disk.failing_ensures.load(Ordering::SeqCst), 0);
    assert_eq!(world.runtime.count(Call::RunSandbox), 1);
}

#[tokio::test(start_paused = true)]
async fn a_dead_sandbox_is_replaced_and_restarts_are_counted() {
    let world = World::new();
    let pod = pod("u1", &["a"]);
    world.want(pod.clone());
    world.wait_phase(&pod.uid, "Running").await;
    world.runtime.kill_sandbox(&pod.uid);
    let restarted = |update: &crate::status::StatusUpdate| {
        update
            .status
            .container_statuses
            .iter()
            .flatten()
            .any(|c| c.ready && c.restart_count == 1)
    };
    world.wait_told(&pod.uid, "running again", restarted).await;
    assert_eq!(world.runtime.count(Call::RunSandbox), 2);
    assert_eq!(world.runtime.ready_sandboxes(), 1);
}

#[tokio::test(start_paused = true)]
async fn lost_events_are_made_up_for_by_the_workers_own_looks() {
    let world = World::new();
    world.runtime.mute();
    let pod = pod("u1", &["a"]);
    world.want(pod.clone());
    world.wait_phase(&pod.uid, "Running").await;
    world.want(deleted(&pod, 1));
    world.wait_gone(&pod.uid).await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_panics_is_started_again_and_takes_nobody_with_it() {
    let world = World::new();
    let fine = pod("u1", &["a"]);
    world.want(fine.clone());
    world.wait_phase(&fine.uid, "Running").await;
    world.disk.panicking_ensures.store(1, Ordering::SeqCst);
    let unlucky = pod("u2", &["a"]);
    world.want(unlucky.clone());
    world.wait_phase(&unlucky.uid, "Running").await;
    assert_eq!(world.runtime.count(Call::RunSandbox), 2);
}

#[tokio::test(start_paused = true)]
async fn orphans_are_removed_only_when_every_source_is_in() {
    let mut world = World::new();
    let pod = pod("u1", &["a"]);
    world.want(pod.clone());
    world.wait_phase(&pod.uid, "Running").await;
    world.kill_agent().await;

    world.forget(&pod.uid);
    world.set_ready(SourcesReady {
        api: false,
        manifests: true,
    });
    world.start_agent();
    let other = super::world::pod("u2", &["a"]);
    world.want(other.clone());
    world.wait_phase(&other.uid, "Running").await;
    assert_eq!(
        world.runtime.ready_sandboxes(),
        2,
        "the API server may still want it"
    );

    world.set_ready(SourcesReady {
        api: true,
        manifests: true,
    });
    world
        .wait_runtime("the orphan is gone", |r| r.pod(&pod.uid).is_absent())
        .await;
    assert_eq!(world.runtime.ready_sandboxes(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_edited_static_pod_waits_for_its_former_self_to_end() {
    let world = World::new();
    let mut old = pod("u1", &["a"]);
    old.origin = Origin::Static {
        path: "/m/p.yaml".into(),
    };
    world.runtime.stop_takes("a", Duration::from_secs(10));
    world.want(old.clone());
    world.wait_phase(&old.uid, "Running").await;

    let mut new = old.clone();
    new.uid = PodUid::from("u1-edited");
    world.want(new.clone());
    world.forget(&old.uid);
    world.wait_phase(&new.uid, "Running").await;
    assert!(world.runtime.pod(&old.uid).is_absent());
    assert_eq!(world.runtime.ready_sandboxes(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_manifest_that_comes_back_runs_again() {
    let world = World::new();
    let mut pod = pod("u1", &["a"]);
    pod.origin = Origin::Static {
        path: "/m/p.yaml".into(),
    };
    world.want(pod.clone());
    world.wait_phase(&pod.uid, "Running").await;
    world.runtime.stop_takes("a", Duration::from_secs(5));
    world.forget(&pod.uid);
    world
        .wait_runtime("stopping", |r| r.count(Call::StopContainer) == 1)
        .await;
    world.want(pod.clone());
    world
        .wait_runtime("a second sandbox", |r| r.count(Call::RunSandbox) == 2)
        .await;
    world.wait_phase(&pod.uid, "Running").await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_asks_for_too_much_is_refused_and_can_be_deleted() {
    let world = World::new();
    let mut pod = pod("u1", &["a"]);
    let mut object = k8s_openapi::api::core::v1::Pod::clone(&pod.pod);
    if let Some(spec) = &mut object.spec {
        spec.resource_claims = Some(vec![Default::default()]);
    }
    pod.pod = std::sync::Arc::new(object);
    world.want(pod.clone());
    let update = world.wait_phase(&pod.uid, "Failed").await;
    assert_eq!(
        update.status.reason.as_deref(),
        Some("PodFeatureUnsupported")
    );
    assert_eq!(world.runtime.calls(), []);
    world.want(deleted(&pod, 30));
    world.wait_gone(&pod.uid).await;
}
