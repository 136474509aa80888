//! Volumes whose contents change while their pod runs, or before it can.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::world::{World, pod};

#[tokio::test(start_paused = true)]
async fn a_change_is_fetched_once_and_at_once() {
    let mut world = World::new();
    let pod = pod("u1", &["a"]);
    world.want(pod.clone());
    world.wait_phase(&pod.uid, "Running").await;
    let disk = world.disk.clone();
    let before = disk.ensures.load(Ordering::SeqCst);
    disk.changes.note();
    let renewed = |_: &_| disk.ensures.load(Ordering::SeqCst) > before;
    world.wait_runtime("renewed", renewed).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(disk.ensures.load(Ordering::SeqCst), before + 1);
    world.stop_agent().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_pod_waits_for_lets_it_start_when_it_appears() {
    let mut world = World::new();
    let pod = pod("u1", &["a"]);
    let disk = world.disk.clone();
    disk.failing_ensures.store(usize::MAX, Ordering::SeqCst);
    world.want(pod.clone());
    // By now it is tried every ten seconds.
    tokio::time::sleep(Duration::from_secs(60)).await;
    disk.failing_ensures.store(0, Ordering::SeqCst);
    let appeared = tokio::time::Instant::now();
    disk.changes.note();
    world.wait_phase(&pod.uid, "Running").await;
    assert!(appeared.elapsed() < Duration::from_secs(1));
    world.stop_agent().await;
}
