//! Followed ConfigMaps and Secrets: how many watches, what is told, and when.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::server::{Answer, Log, server};
use crate::apiserver::{ApiServer, Changes, ObjectKind, ObjectName, ObjectRefs as _};

const DEADLINE: Duration = Duration::from_secs(60);

fn map(value: &str, immutable: bool) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": {"k": value}, "immutable": immutable,
        "metadata": {"namespace": "ns", "name": "m", "resourceVersion": "5",
                     "labels": {"a": "b"}, "managedFields": [{"manager": "x"}]},
    })
}

fn list(items: &[Value]) -> Answer {
    let body = json!({
        "apiVersion": "v1", "kind": "ConfigMapList",
        "metadata": {"resourceVersion": "10"}, "items": items,
    });
    Answer::Json(200, body)
}

fn name() -> ObjectName {
    ObjectName {
        kind: ObjectKind::ConfigMap,
        namespace: "ns".into(),
        name: "m".into(),
    }
}

fn running(api: &ApiServer) -> JoinHandle<()> {
    let reflector = api.reflect_objects();
    tokio::spawn(reflector.run(CancellationToken::new()))
}

async fn value(api: &ApiServer) -> Option<String> {
    let found = api.config_map("ns", "m").await.unwrap()?;
    assert_eq!(found.metadata, Default::default(), "only the data is kept");
    found.data.unwrap().remove("k")
}

async fn until(changes: &Changes, count: u64) {
    let mut heard = changes.subscribe();
    let wait = heard.wait_for(|heard| *heard >= count);
    timeout(DEADLINE, wait).await.expect("in time").unwrap();
}

fn calls(log: &Log) -> (usize, usize) {
    let log = log.lock().unwrap();
    let watches = log.iter().filter(|asked| asked.is_watch()).count();
    (log.len() - watches, watches)
}

#[tokio::test(start_paused = true)]
async fn one_watch_tells_all_who_follow() {
    let (api, log) = server(|asked| {
        if asked.is_watch() {
            let deleted = json!({"type": "DELETED", "object": map("two", false)});
            return Answer::Events(vec![
                json!({"type": "MODIFIED", "object": map("one", false)}),
                json!({"type": "MODIFIED", "object": map("two", false)}),
                deleted,
            ]);
        }
        list(&[map("one", false)])
    });
    let (first, second) = (Changes::default(), Changes::default());
    let _held = [api.follow(&name(), &first), api.follow(&name(), &second)];
    let _task = running(&api);
    for changes in [&first, &second] {
        until(changes, 2).await;
        assert_eq!(changes.count(), 2, "what stays the same is no change");
    }
    assert_eq!(value(&api).await, None, "it was deleted");
    assert_eq!(calls(&log), (1, 1));
    let asked = log.lock().unwrap()[0].path.clone();
    assert!(asked.contains("fieldSelector=metadata.name%3Dm"), "{asked}");
    assert!(
        asked.starts_with("/api/v1/namespaces/ns/configmaps?"),
        "{asked}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_object_that_appears_is_told() {
    let (api, _log) = server(|asked| {
        if asked.is_watch() {
            return Answer::Events(vec![json!({"type": "ADDED", "object": map("one", false)})]);
        }
        list(&[])
    });
    let changes = Changes::default();
    let _held = api.follow(&name(), &changes);
    let _task = running(&api);
    until(&changes, 1).await;
    assert_eq!(value(&api).await.as_deref(), Some("one"));
}

#[tokio::test(start_paused = true)]
async fn what_is_immutable_is_read_once_for_each_newcomer() {
    let lists = AtomicUsize::new(0);
    let (api, log) = server(move |asked| {
        assert!(!asked.is_watch(), "{}", asked.path);
        let number = lists.fetch_add(1, Ordering::SeqCst);
        list(&[map(&format!("v{}", number.min(1)), true)])
    });
    let _task = running(&api);
    let first = Changes::default();
    let _held = api.follow(&name(), &first);
    assert_eq!(value(&api).await.as_deref(), Some("v0"));
    // Somebody made another one of the same name meanwhile.
    let second = Changes::default();
    let _held_too = api.follow(&name(), &second);
    assert_eq!(value(&api).await.as_deref(), Some("v1"));
    assert_eq!((first.count(), calls(&log)), (1, (2, 0)));
}

#[tokio::test(start_paused = true)]
async fn what_nobody_follows_is_asked_for() {
    let (api, log) = server(move |asked| {
        if asked.is_watch() {
            Answer::Events(vec![])
        } else if asked.path.contains("fieldSelector") {
            list(&[map("one", false)])
        } else {
            let mut plain = map("asked", false);
            plain["metadata"] = json!({});
            Answer::Json(200, plain)
        }
    });
    let _task = running(&api);
    assert_eq!(value(&api).await.as_deref(), Some("asked"));
    let following = api.follow(&name(), &Changes::default());
    assert_eq!(value(&api).await.as_deref(), Some("one"));
    drop(following);
    // Longer than an answer is shared for.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(value(&api).await.as_deref(), Some("asked"));
    assert_eq!(calls(&log).0, 3);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_did_not_wait_hears_of_the_first_answer() {
    let (api, _log) = server(|asked| {
        if asked.is_watch() {
            Answer::Events(vec![])
        } else if asked.path.contains("fieldSelector") {
            list(&[map("one", false)])
        } else {
            let mut plain = map("asked", false);
            plain["metadata"] = json!({});
            Answer::Json(200, plain)
        }
    });
    let changes = Changes::default();
    let _held = api.follow(&name(), &changes);
    // Nothing is watched yet: after a moment the object is asked for.
    assert_eq!(value(&api).await.as_deref(), Some("asked"));
    let _task = running(&api);
    until(&changes, 1).await;
    assert_eq!(value(&api).await.as_deref(), Some("one"));
}
