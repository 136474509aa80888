//! Reflected objects through relists, disconnects and an absent server.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::server::{Answer, failure, server};
use crate::apiserver::{PodFeed, PodSnapshot};
use crate::pod::PodUid;

fn pod(name: &str, version: u32) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "namespace": "default", "name": name, "uid": format!("uid-{name}"),
            "resourceVersion": version.to_string(),
            "managedFields": [{ "manager": "someone" }],
        },
        "spec": { "nodeName": "n1", "containers": [] },
    })
}

fn list(pods: &[Value]) -> Answer {
    let body = json!({
        "apiVersion": "v1", "kind": "PodList",
        "metadata": { "resourceVersion": "10" }, "items": pods,
    });
    Answer::Json(200, body)
}

fn uids(snapshot: &PodSnapshot) -> Vec<&str> {
    snapshot.pods.keys().map(PodUid::as_str).collect()
}

/// Waits for a snapshot of just these pods; none on the way may be empty.
async fn until(feed: &mut PodFeed, expected: &[&str]) -> PodSnapshot {
    let wait = feed.wait_for(|snapshot| {
        assert_eq!(snapshot.synced, !snapshot.pods.is_empty());
        uids(snapshot) == expected
    });
    let found = tokio::time::timeout(Duration::from_secs(120), wait).await;
    found.expect("snapshot in time").unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_too_old_is_replaced_by_a_list_in_one_step() {
    let lists = AtomicUsize::new(0);
    let (api, log) = server(move |asked| {
        if !asked.is_watch() {
            return match lists.fetch_add(1, Ordering::SeqCst) {
                0 => list(&[pod("a", 1)]),
                _ => list(&[pod("b", 2), pod("c", 3)]),
            };
        }
        if lists.load(Ordering::SeqCst) > 1 {
            return Answer::Events(vec![]);
        }
        let expired = json!({ "kind": "Status", "code": 410, "reason": "Expired" });
        Answer::Events(vec![
            json!({ "type": "ADDED", "object": pod("b", 11) }),
            json!({ "type": "DELETED", "object": pod("a", 12) }),
            json!({ "type": "ERROR", "object": expired }),
        ])
    });
    let (reflector, mut feed) = api.reflect_pods();
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(reflector.run(shutdown.clone()));
    until(&mut feed, &["uid-b"]).await;
    let last = until(&mut feed, &["uid-b", "uid-c"]).await;
    for pod in last.pods.values() {
        assert_eq!(pod.metadata.managed_fields, None);
    }
    shutdown.cancel();
    task.await.unwrap();
    let log = log.lock().unwrap();
    assert!(log[0].path.starts_with("/api/v1/pods?"), "{}", log[0].path);
    assert!(
        log[0].path.contains("fieldSelector=spec.nodeName%3Dn1"),
        "{}",
        log[0].path
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_away_at_start_is_noticed_within_seconds_of_its_return() {
    let start = Instant::now();
    let away = Duration::from_secs(600);
    let (api, log) = server(move |asked| {
        if start.elapsed() < away {
            Answer::Broken
        } else if asked.is_watch() {
            Answer::Events(vec![])
        } else {
            list(&[pod("a", 1)])
        }
    });
    let (reflector, mut feed) = api.reflect_pods();
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(reflector.run(shutdown.clone()));
    tokio::time::sleep(away).await;
    assert!(!feed.borrow().synced);
    let asked = log.lock().unwrap().len();
    assert!((40..150).contains(&asked), "{asked} calls in ten minutes");
    until(&mut feed, &["uid-a"]).await;
    assert!(start.elapsed() < away + Duration::from_secs(13));
    shutdown.cancel();
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_last_snapshot_stays_while_the_server_is_away() {
    let watches = AtomicUsize::new(0);
    let (api, log) = server(move |asked| {
        if !asked.is_watch() {
            return list(&[pod("a", 1)]);
        }
        match watches.fetch_add(1, Ordering::SeqCst) {
            0..=3 => Answer::Broken,
            // The store was restored from a backup: our version is of the future.
            4 => failure(504, "Timeout", "Too large resource version"),
            _ => Answer::Events(vec![json!({ "type": "ADDED", "object": pod("b", 11) })]),
        }
    });
    let (reflector, mut feed) = api.reflect_pods();
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(reflector.run(shutdown.clone()));
    until(&mut feed, &["uid-a"]).await;
    until(&mut feed, &["uid-a", "uid-b"]).await;
    shutdown.cancel();
    task.await.unwrap();
    let lists = log
        .lock()
        .unwrap()
        .iter()
        .filter(|asked| !asked.is_watch())
        .count();
    assert_eq!(lists, 2, "one at the start and one because of the version");
}

#[tokio::test(start_paused = true)]
async fn the_node_comes_and_goes() {
    let node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": { "name": "n1", "uid": "u", "resourceVersion": "11" },
    });
    let (api, log) = server(move |asked| {
        if asked.is_watch() {
            Answer::Events(vec![json!({ "type": "ADDED", "object": node })])
        } else {
            Answer::Json(
                200,
                json!({
                    "apiVersion": "v1", "kind": "NodeList",
                    "metadata": { "resourceVersion": "10" }, "items": [],
                }),
            )
        }
    });
    let (reflector, mut feed) = api.reflect_node();
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(reflector.run(shutdown.clone()));
    let node = feed.wait_for(Option::is_some).await.unwrap().clone();
    assert_eq!(node.unwrap().metadata.uid.as_deref(), Some("u"));
    shutdown.cancel();
    task.await.unwrap();
    let path = log.lock().unwrap()[0].path.clone();
    assert!(path.contains("fieldSelector=metadata.name%3Dn1"), "{path}");
}
