//! The correlator's decisions, and delivery against a fake sink.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Event, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::correlate::{Correlator, Occurrence, Reporter, Verdict};
use super::{EventRecorder, QUEUE};
use crate::apiserver::{ApiError, EventSink, NodeEvent, ProxyEvent, ProxyEventAbout};
use crate::pod::{ContainerKind, ContainerRef, PodEvent, Severity};

fn occurrence(reason: &'static str, message: &str, second: i64) -> Occurrence {
    Occurrence {
        regarding: ObjectReference {
            kind: Some("Pod".into()),
            namespace: Some("default".into()),
            name: Some("a".into()),
            uid: Some("u".into()),
            ..ObjectReference::default()
        },
        reporter: Reporter::Kubelet,
        severity: Severity::Normal,
        reason: reason.into(),
        message: message.into(),
        at: Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1_700_000_000 + second),
    }
}

/// A verdict in short: `new`, `repeat` or `drop`, count and message.
fn judged(correlator: &mut Correlator, occurrence: Occurrence) -> String {
    let show = |what: &str, event: &Event| {
        format!(
            "{what} {} {}",
            event.count.unwrap(),
            event.message.as_deref().unwrap()
        )
    };
    match correlator.judge(occurrence) {
        Verdict::Create(event) => show("new", &event),
        Verdict::Repeat(event) => show("repeat", &event),
        Verdict::Drop => "drop".into(),
    }
}

#[test]
fn a_repeat_raises_the_count_of_the_first() {
    let mut correlator = Correlator::new("n1".into());
    let Verdict::Create(first) = correlator.judge(occurrence("BackOff", "m", 0)) else {
        panic!("the first is new");
    };
    let Verdict::Repeat(second) = correlator.judge(occurrence("BackOff", "m", 5)) else {
        panic!("the second is a repeat");
    };
    assert_eq!(first.metadata.name, second.metadata.name);
    assert_eq!(first.first_timestamp, second.first_timestamp);
    assert_ne!(first.last_timestamp, second.last_timestamp);
    assert_eq!(second.count, Some(2));
    assert_eq!(
        judged(&mut correlator, occurrence("Failed", "m", 6)),
        "new 1 m"
    );
}

#[test]
fn more_than_ten_similar_are_combined() {
    let mut correlator = Correlator::new("n1".into());
    for n in 0..10 {
        let got = judged(&mut correlator, occurrence("BackOff", &format!("m{n}"), n));
        assert_eq!(got, format!("new 1 m{n}"));
    }
    let table = [
        ("m10", 10, "new 1 (combined from similar events): m10"),
        ("m11", 11, "repeat 2 (combined from similar events): m11"),
        ("m3", 12, "repeat 2 m3"),
        ("m12", 12 + 601, "new 1 m12"),
    ];
    for (message, second, expected) in table {
        assert_eq!(
            judged(&mut correlator, occurrence("BackOff", message, second)),
            expected
        );
    }
}

#[test]
fn spam_about_one_object_is_dropped_and_counted() {
    let mut correlator = Correlator::new("n1".into());
    for n in 1..=25 {
        assert_ne!(
            judged(&mut correlator, occurrence("BackOff", "m", 0)),
            "drop",
            "{n}"
        );
    }
    assert_eq!(
        judged(&mut correlator, occurrence("BackOff", "m", 0)),
        "drop"
    );
    let mut other = occurrence("BackOff", "m", 0);
    other.regarding.uid = Some("other".into());
    assert_eq!(judged(&mut correlator, other), "new 1 m");
    let mut warning = occurrence("BackOff", "m", 0);
    warning.severity = Severity::Warning;
    assert_eq!(judged(&mut correlator, warning), "new 1 m");
    assert_eq!(
        judged(&mut correlator, occurrence("BackOff", "m", 299)),
        "drop"
    );
    assert_eq!(
        judged(&mut correlator, occurrence("BackOff", "m", 300)),
        "repeat 28 m"
    );
}

#[derive(Default)]
struct FakeSink {
    written: Mutex<Vec<Event>>,
    patched: Mutex<Vec<Value>>,
    failures: Mutex<VecDeque<ApiError>>,
}

impl FakeSink {
    fn fail_or<T>(&self, answer: T) -> Result<T, ApiError> {
        self.failures
            .lock()
            .unwrap()
            .pop_front()
            .map_or(Ok(answer), Err)
    }

    fn messages(&self) -> Vec<String> {
        let written = self.written.lock().unwrap();
        written
            .iter()
            .map(|event| event.message.clone().unwrap())
            .collect()
    }
}

#[async_trait]
impl EventSink for FakeSink {
    async fn create(&self, event: &Event) -> Result<Event, ApiError> {
        self.fail_or(())?;
        self.written.lock().unwrap().push(event.clone());
        Ok(event.clone())
    }

    async fn patch(&self, _: &str, _: &str, patch: &Value) -> Result<Event, ApiError> {
        self.fail_or(())?;
        self.patched.lock().unwrap().push(patch.clone());
        Ok(Event::default())
    }
}

fn refused(code: u16) -> ApiError {
    ApiError::Refused {
        call: "test",
        code,
        reason: String::new(),
        message: String::new(),
        retry_after: None,
    }
}

fn unreachable() -> ApiError {
    ApiError::Unreachable {
        call: "test",
        source: "connection refused".into(),
    }
}

fn node_event(message: &str) -> NodeEvent {
    NodeEvent {
        severity: Severity::Normal,
        reason: "Starting",
        message: message.into(),
    }
}

/// Runs a recorder over the sink until `is_done` or two minutes have passed.
async fn recorded(
    sink: &Arc<FakeSink>,
    record: impl FnOnce(&EventRecorder),
    is_done: impl Fn(&FakeSink) -> bool,
) {
    let (recorder, task) = EventRecorder::new("n1".into(), sink.clone());
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(task.run(shutdown.clone()));
    record(&recorder);
    for _ in 0..1200 {
        if is_done(sink) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    shutdown.cancel();
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_event_has_upstreams_shape() {
    let sink = Arc::new(FakeSink::default());
    let pod = Pod {
        metadata: ObjectMeta {
            namespace: Some("shop".into()),
            name: Some("web".into()),
            uid: Some("u".into()),
            ..ObjectMeta::default()
        },
        ..Pod::default()
    };
    let event = PodEvent {
        pod: Arc::new(pod),
        container: Some(ContainerRef {
            kind: ContainerKind::Init,
            name: "setup".into(),
        }),
        severity: Severity::Warning,
        reason: "BackOff",
        message: "Back-off".into(),
    };
    recorded(
        &sink,
        |recorder| {
            recorder.record_pod(event);
            recorder.record_node(node_event("Starting kubelet."));
        },
        |sink| sink.messages().len() == 2,
    )
    .await;
    let mut written = sink.written.lock().unwrap().clone();
    for (event, object) in written.iter_mut().zip(["web.", "n1."]) {
        let name = event.metadata.name.take().unwrap();
        assert!(name.starts_with(object), "{name}");
        assert!(event.first_timestamp.take().is_some());
        assert!(event.last_timestamp.take().is_some());
    }
    insta::assert_json_snapshot!(written, @r#"
    [
      {
        "apiVersion": "v1",
        "kind": "Event",
        "count": 1,
        "involvedObject": {
          "apiVersion": "v1",
          "fieldPath": "spec.initContainers{setup}",
          "kind": "Pod",
          "name": "web",
          "namespace": "shop",
          "uid": "u"
        },
        "message": "Back-off",
        "metadata": {
          "namespace": "shop"
        },
        "reason": "BackOff",
        "reportingComponent": "kubelet",
        "reportingInstance": "n1",
        "source": {
          "component": "kubelet",
          "host": "n1"
        },
        "type": "Warning"
      },
      {
        "apiVersion": "v1",
        "kind": "Event",
        "count": 1,
        "involvedObject": {
          "apiVersion": "v1",
          "kind": "Node",
          "name": "n1"
        },
        "message": "Starting kubelet.",
        "metadata": {
          "namespace": "default"
        },
        "reason": "Starting",
        "reportingComponent": "kubelet",
        "reportingInstance": "n1",
        "source": {
          "component": "kubelet",
          "host": "n1"
        },
        "type": "Normal"
      }
    ]
    "#);
}

#[tokio::test(start_paused = true)]
async fn the_service_proxy_speaks_as_kube_proxy() {
    let sink = Arc::new(FakeSink::default());
    let event = |about, severity, reason, action, message: &str| ProxyEvent {
        about,
        severity,
        reason,
        action,
        message: message.to_owned(),
    };
    let web = ProxyEventAbout::Service {
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
        uid: None,
    };
    recorded(
        &sink,
        |recorder| {
            recorder.record_proxy(event(
                ProxyEventAbout::Node,
                Severity::Normal,
                "Starting",
                "StartKubeProxy",
                "",
            ));
            recorder.record_proxy(event(
                web,
                Severity::Warning,
                "FailedToStartServiceHealthcheck",
                "Listen",
                "m",
            ));
        },
        |sink| sink.messages().len() == 2,
    )
    .await;
    let mut written = sink.written.lock().unwrap().clone();
    for event in &mut written {
        event.metadata.name = None;
        event.first_timestamp = None;
        event.last_timestamp = None;
    }
    insta::assert_json_snapshot!(written, @r#"
    [
      {
        "apiVersion": "v1",
        "kind": "Event",
        "action": "StartKubeProxy",
        "count": 1,
        "involvedObject": {
          "apiVersion": "v1",
          "kind": "Node",
          "name": "n1"
        },
        "message": "",
        "metadata": {
          "namespace": "default"
        },
        "reason": "Starting",
        "reportingComponent": "kube-proxy",
        "reportingInstance": "kube-proxy-n1",
        "source": {
          "component": "kube-proxy",
          "host": "n1"
        },
        "type": "Normal"
      },
      {
        "apiVersion": "v1",
        "kind": "Event",
        "action": "Listen",
        "count": 1,
        "involvedObject": {
          "apiVersion": "v1",
          "kind": "Service",
          "name": "web",
          "namespace": "shop"
        },
        "message": "m",
        "metadata": {
          "namespace": "shop"
        },
        "reason": "FailedToStartServiceHealthcheck",
        "reportingComponent": "kube-proxy",
        "reportingInstance": "kube-proxy-n1",
        "source": {
          "component": "kube-proxy",
          "host": "n1"
        },
        "type": "Warning"
      }
    ]
    "#);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_refused_for_now_lets_others_pass() {
    let sink = Arc::new(FakeSink::default());
    sink.failures.lock().unwrap().push_back(refused(500));
    recorded(
        &sink,
        |recorder| {
            recorder.record_node(node_event("one"));
            recorder.record_node(node_event("two"));
        },
        |sink| sink.messages().len() == 2,
    )
    .await;
    assert_eq!(sink.messages(), ["two", "one"]);
}

#[tokio::test(start_paused = true)]
async fn events_wait_in_order_for_a_server_that_is_away() {
    let sink = Arc::new(FakeSink::default());
    sink.failures
        .lock()
        .unwrap()
        .extend((0..5).map(|_| unreachable()));
    recorded(
        &sink,
        |recorder| {
            recorder.record_node(node_event("one"));
            recorder.record_node(node_event("two"));
        },
        |sink| sink.messages().len() == 2,
    )
    .await;
    assert_eq!(sink.messages(), ["one", "two"]);
}

#[tokio::test(start_paused = true)]
async fn a_poisonous_event_is_given_up() {
    let sink = Arc::new(FakeSink::default());
    sink.failures.lock().unwrap().push_back(refused(422));
    let (recorder, task) = EventRecorder::new("n1".into(), sink.clone());
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(task.run(shutdown.clone()));
    recorder.record_node(node_event("bad"));
    recorder.record_node(node_event("good"));
    while sink.messages().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(recorder.metrics().undelivered.get(), 1);
    shutdown.cancel();
    task.await.unwrap();
    assert_eq!(sink.messages(), ["good"]);
}

#[tokio::test(start_paused = true)]
async fn a_repeat_is_patched_or_made_anew_when_its_object_has_expired() {
    let sink = Arc::new(FakeSink::default());
    recorded(
        &sink,
        |recorder| {
            recorder.record_node(node_event("m"));
            recorder.record_node(node_event("m"));
        },
        |sink| !sink.patched.lock().unwrap().is_empty(),
    )
    .await;
    assert_eq!(sink.patched.lock().unwrap()[0]["count"], 2);
    let sink = Arc::new(FakeSink::default());
    recorded(
        &sink,
        |recorder| {
            recorder.record_node(node_event("m"));
            recorder.record_node(node_event("m"));
            // The first is created, the patch of the second finds nothing.
            sink.failures.lock().unwrap().push_back(refused(409));
            sink.failures.lock().unwrap().push_back(refused(404));
        },
        |sink| !sink.messages().is_empty(),
    )
    .await;
    let written = sink.written.lock().unwrap();
    assert_eq!(written[0].count, Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_drops_and_counts() {
    let (recorder, task) = EventRecorder::new("n1".into(), Arc::new(FakeSink::default()));
    for n in 0..QUEUE + 7 {
        recorder.record_node(node_event(&n.to_string()));
    }
    assert_eq!(recorder.metrics().dropped.get(), 7);
    drop(task);
}

#[test]
fn without_a_server_events_are_only_logged() {
    let recorder = EventRecorder::log_only("n1".into());
    recorder.record_node(node_event("Starting kubelet."));
    assert_eq!(recorder.metrics().dropped.get(), 0);
}
