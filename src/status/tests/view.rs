//! The pipeline of an agent without API server.

use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::mirror::{desired as desired_pods, static_pod};
use super::update_of;
use crate::pod::{DesiredPods, Intent, SourcesReady};
use crate::status::{Ending, StandaloneStatus, StatusHandle};

#[tokio::test(start_paused = true)]
async fn statuses_are_shown_for_as_long_as_their_pods_are_desired() {
    let pod = static_pod("h1", Intent::Run);
    let ready = SourcesReady::default();
    let (desired, feed) = watch::channel(desired_pods(vec![pod.clone()], vec![], ready));
    let updates = StatusHandle::default();
    let (task, view) = StandaloneStatus::new(updates.clone(), feed);
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(task.run(shutdown.clone()));
    let status = json!({ "phase": "Running" });
    updates.set(update_of(pod.clone().into(), &status, Ending::Live));
    tokio::time::sleep(Duration::from_millis(10)).await;
    let shown = view.get(&pod.uid).unwrap();
    assert_eq!(shown.phase.as_deref(), Some("Running"));
    desired.send_replace(DesiredPods::default());
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert!(view.all().is_empty());
    shutdown.cancel();
    task.await.unwrap();
}
