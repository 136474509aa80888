//! Services and EndpointSlices on their way into sinks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::server::{Answer, failure, server};
use crate::apiserver::{ObjectSink, ServiceEnv};
use crate::pod::env::Services;

fn service(name: &str, ip: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "ns", "name": name, "resourceVersion": "9"},
        "spec": {"clusterIP": ip, "ports": [{"port": 80}]},
    })
}

fn of_other_proxy(mut service: Value) -> Value {
    service["metadata"]["labels"] = json!({"service.kubernetes.io/service-proxy-name": "x"});
    service
}

fn slice(name: &str) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"namespace": "ns", "name": name, "resourceVersion": "9"},
        "addressType": "IPv4", "endpoints": null, "ports": [],
    })
}

fn page(items: &[Value], next: Option<&str>) -> Answer {
    let metadata = json!({"resourceVersion": "10", "continue": next.unwrap_or_default()});
    let body = json!({"apiVersion": "v1", "kind": "List", "metadata": metadata, "items": items});
    Answer::Json(200, body)
}

/// What a sink was told, one line a call.
#[derive(Clone)]
struct Recorder(watch::Sender<Vec<String>>);

impl Recorder {
    fn new() -> (Self, watch::Receiver<Vec<String>>) {
        let (out, told) = watch::channel(Vec::new());
        (Self(out), told)
    }

    fn note(&self, line: String) {
        self.0.send_modify(|lines| lines.push(line));
    }
}

impl<K: kube::Resource> ObjectSink<K> for Recorder {
    fn apply(&mut self, object: &K) {
        self.note(format!("+{}", object.meta().name.as_deref().unwrap()));
    }

    fn delete(&mut self, namespace: &str, name: &str) {
        self.note(format!("-{namespace}/{name}"));
    }

    fn begin_list(&mut self) {
        self.note("(".into());
    }

    fn end_list(&mut self) {
        self.note(")".into());
    }
}

async fn until(told: &mut watch::Receiver<Vec<String>>, expected: &[&str]) {
    let wait = told.wait_for(|lines| lines.len() >= expected.len());
    let waited = tokio::time::timeout(Duration::from_secs(120), wait).await;
    let waited = waited.map(|lines| lines.unwrap().clone());
    assert_eq!(waited.unwrap_or_else(|_| told.borrow().clone()), expected);
}

/// A list in two pages, then changes.
fn two_pages(path: &str) -> Answer {
    if path.contains("continue=more") {
        page(&[of_other_proxy(service("b", "10.0.0.2"))], None)
    } else {
        page(&[service("a", "10.0.0.1")], Some("more"))
    }
}

#[tokio::test(start_paused = true)]
async fn one_watch_serves_environments_and_the_proxy() {
    let (api, log) = server(|asked| {
        if !asked.is_watch() {
            return two_pages(&asked.path);
        }
        let event = |kind: &str, object| json!({"type": kind, "object": object});
        Answer::Events(vec![
            event("ADDED", service("c", "10.0.0.3")),
            event("MODIFIED", of_other_proxy(service("c", "10.0.0.3"))),
            event("DELETED", service("a", "10.0.0.1")),
        ])
    });
    let (reflector, mut feed) = api.reflect_services();
    let (recorder, mut told) = Recorder::new();
    let reflector = reflector.with_proxy(Box::new(recorder));
    assert!(feed.borrow().is_none());
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(reflector.run(shutdown.clone()));
    let expected = ["(", "+a", "-ns/b", ")", "+c", "-ns/c", "-ns/a"];
    until(&mut told, &expected).await;
    let is_last = |known: &Option<Services>| {
        let env = known.as_ref().map(|known| known.env("ns", true));
        env.is_some_and(|env| env.iter().all(|(name, _)| !name.starts_with("A_")))
    };
    let last = feed.wait_for(is_last).await.unwrap().clone();
    let hosts: BTreeMap<String, String> = last.unwrap().env("ns", true).into_iter().collect();
    assert_eq!(hosts["B_SERVICE_HOST"], "10.0.0.2");
    assert_eq!(hosts["C_SERVICE_HOST"], "10.0.0.3");
    shutdown.cancel();
    task.await.unwrap();
    let log = log.lock().unwrap();
    assert!(log[0].path.contains("limit=500"), "{}", log[0].path);
    let selects = log[0]
        .path
        .contains("fieldSelector=spec.clusterIP%21%3DNone");
    assert!(selects, "{}", log[0].path);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_breaks_off_is_begun_anew() {
    let pages = AtomicUsize::new(0);
    let (api, _) = server(move |asked| {
        if asked.is_watch() {
            Answer::Events(vec![])
        } else if asked.path.contains("continue=more") && pages.fetch_add(1, Ordering::SeqCst) == 0
        {
            Answer::Broken
        } else {
            two_pages(&asked.path)
        }
    });
    let (reflector, feed) = api.reflect_services();
    let (recorder, mut told) = Recorder::new();
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(
        reflector
            .with_proxy(Box::new(recorder))
            .run(shutdown.clone()),
    );
    until(&mut told, &["(", "+a", "(", "+a", "-ns/b", ")"]).await;
    assert!(feed.borrow().is_some());
    shutdown.cancel();
    task.await.unwrap();
}

/// The warnings of one thread.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Warnings {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_watch_is_told_once_and_tried_again() {
    let warnings = Warnings::default();
    let writer = warnings.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter("kubelet=warn")
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let lists = AtomicUsize::new(0);
    let (api, log) = server(move |asked| {
        if asked.is_watch() {
            return Answer::Events(vec![json!({"type": "ADDED", "object": slice("b")})]);
        }
        match lists.fetch_add(1, Ordering::SeqCst) {
            0 | 1 => Answer::Broken,
            2..=5 => failure(403, "Forbidden", "cannot list endpointslices"),
            _ => page(&[slice("a")], None),
        }
    });
    let (recorder, mut told) = Recorder::new();
    let reflector = api.reflect_slices(Box::new(recorder));
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(reflector.run(shutdown.clone()));
    until(
        &mut told,
        &["(", "(", "(", "(", "(", "(", "(", "+a", ")", "+b"],
    )
    .await;
    shutdown.cancel();
    task.await.unwrap();
    let text = String::from_utf8(warnings.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines.len(),
        2,
        "that it is away, and that it refuses: {text}"
    );
    assert!(lines[1].contains("system:node-proxier"), "{text}");
    let path = log.lock().unwrap()[0].path.clone();
    let expected = "/apis/discovery.k8s.io/v1/endpointslices?";
    assert!(path.starts_with(expected), "{path}");
    assert!(
        path.contains("labelSelector=%21service.kubernetes.io%2Fheadless"),
        "{path}"
    );
}

#[derive(Debug, Clone)]
enum Call {
    Apply(u8, Option<u8>),
    Delete(u8),
    Relist(BTreeMap<u8, u8>),
    BrokenList(u8, u8),
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let name = 0..4u8;
    let call = prop_oneof![
        4 => (name.clone(), prop::option::weighted(0.8, 0..3u8)).prop_map(|(n, ip)| Call::Apply(n, ip)),
        2 => name.clone().prop_map(Call::Delete),
        1 => prop::collection::btree_map(name.clone(), 0..3u8, 0..4).prop_map(Call::Relist),
        1 => (name, 0..3u8).prop_map(|(n, ip)| Call::BrokenList(n, ip)),
    ];
    prop::collection::vec(call, 0..20)
}

fn object(name: u8, ip: Option<u8>) -> Service {
    let ip = ip.map_or_else(String::new, |ip| format!("10.0.0.{ip}"));
    serde_json::from_value(service(&format!("s{name}"), &ip)).unwrap()
}

fn list(sink: &mut ServiceEnv, objects: impl IntoIterator<Item = Service>) {
    sink.begin_list();
    objects.into_iter().for_each(|service| sink.apply(&service));
    sink.end_list();
}

proptest! {
    #[test]
    fn what_is_known_depends_on_the_last_state_only(calls in calls()) {
        let (mut sink, feed) = ServiceEnv::new();
        list(&mut sink, []);
        let mut state: BTreeMap<u8, Service> = BTreeMap::new();
        for call in calls {
            match call {
                Call::Apply(name, ip) => {
                    sink.apply(&object(name, ip));
                    state.insert(name, object(name, ip));
                }
                Call::Delete(name) => {
                    sink.delete("ns", &format!("s{name}"));
                    state.remove(&name);
                }
                Call::Relist(objects) => {
                    state = objects.into_iter().map(|(n, ip)| (n, object(n, Some(ip)))).collect();
                    list(&mut sink, state.values().cloned());
                }
                Call::BrokenList(name, ip) => {
                    let before = feed.borrow().clone();
                    sink.begin_list();
                    sink.apply(&object(name, Some(ip)));
                    prop_assert_eq!(&*feed.borrow(), &before);
                    list(&mut sink, state.values().cloned());
                }
            }
        }
        let (mut fresh, expected) = ServiceEnv::new();
        list(&mut fresh, state.into_values());
        prop_assert_eq!(&*feed.borrow(), &*expected.borrow());
    }
}

#[test]
fn nothing_is_known_before_the_first_list() {
    let (mut sink, feed) = ServiceEnv::new();
    sink.apply(&object(1, Some(1)));
    sink.begin_list();
    sink.apply(&object(1, Some(1)));
    assert!(feed.borrow().is_none());
    sink.end_list();
    assert!(feed.borrow().is_some());
}

#[test]
fn what_changes_nothing_wakes_nobody() {
    let (mut sink, mut feed) = ServiceEnv::new();
    list(&mut sink, [object(1, Some(1))]);
    feed.mark_unchanged();
    let mut relabelled = object(1, Some(1));
    relabelled.metadata.labels = Some(BTreeMap::from([("a".into(), "b".into())]));
    sink.apply(&relabelled);
    sink.delete("ns", "s2");
    assert!(!feed.has_changed().unwrap());
    sink.delete("ns", "s1");
    assert!(feed.has_changed().unwrap());
}

/// The trait objects that assembly hands over can be made of these.
#[test]
fn several_sinks_hear_the_same() {
    let ((a, told_a), (b, told_b)) = (Recorder::new(), Recorder::new());
    let mut sinks: crate::apiserver::Sinks<EndpointSlice> = vec![Box::new(a), Box::new(b)];
    sinks.begin_list();
    sinks.apply(&serde_json::from_value(slice("x")).unwrap());
    sinks.end_list();
    sinks.delete("ns", "x");
    assert_eq!(*told_a.borrow(), ["(", "+x", ")", "-ns/x"]);
    assert_eq!(*told_a.borrow(), *told_b.borrow());
}
