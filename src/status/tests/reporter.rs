//! The reporter against an in-memory API server, on a paused clock.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::mirror::{desired as desired_pods, node, static_pod};
use super::{api_pod, object, strategic, update, update_of};
use crate::apiserver::{ApiError, PodSnapshot, PodStatusPort};
use crate::pod::{DesiredPod, DesiredPods, Intent, PodName, PodUid, SourcesReady};
use crate::status::{Ending, Reporter, ReporterInputs, StatusHandle, StatusView};

/// What the fake API server knows, and how it is to fail.
#[derive(Default)]
struct State {
    objects: BTreeMap<PodName, Pod>,
    version: u64,
    /// Each call takes one; when there are none, calls succeed.
    failures: VecDeque<ApiError>,
    is_down: bool,
    calls: Vec<String>,
    under_way: usize,
    most_under_way: usize,
}

struct FakeApi {
    state: Mutex<State>,
    watched: watch::Sender<PodSnapshot>,
}

impl FakeApi {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Creates or changes an object behind the reporter's back.
    fn put(&self, mut pod: Pod) {
        let mut state = self.state();
        state.version += 1;
        pod.metadata.resource_version = Some(state.version.to_string());
        state.objects.insert(PodName::of(&pod), pod);
    }

    /// Lets the watch show what is.
    fn show(&self) {
        let objects = self.state().objects.clone();
        let by_uid = objects.into_values().map(|pod| {
            let uid = PodUid::from(pod.metadata.uid.as_deref().unwrap());
            (uid, Arc::new(pod))
        });
        self.watched.send_replace(PodSnapshot {
            synced: true,
            pods: Arc::new(by_uid.collect()),
        });
    }

    fn calls(&self) -> Vec<String> {
        self.state().calls.clone()
    }

    fn get_now(&self, name: &str) -> Option<Pod> {
        self.state()
            .objects
            .get(&PodName::new("default", name))
            .cloned()
    }

    fn phase(&self, name: &str) -> Option<String> {
        self.get_now(name)?.status?.phase
    }

    /// A call takes a little while, then fails if it is its turn.
    async fn begin(&self, call: &'static str, detail: String) -> Result<(), ApiError> {
        {
            let mut state = self.state();
            state.calls.push(format!("{call} {detail}"));
            state.under_way += 1;
            state.most_under_way = state.most_under_way.max(state.under_way);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        let mut state = self.state();
        state.under_way -= 1;
        if state.is_down {
            return Err(ApiError::Unreachable {
                call,
                source: "connection refused".into(),
            });
        }
        state.failures.pop_front().map_or(Ok(()), Err)
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

#[async_trait]
impl PodStatusPort for FakeApi {
    async fn get(&self, name: &PodName) -> Result<Pod, ApiError> {
        self.begin("get", name.to_string()).await?;
        self.state()
            .objects
            .get(name)
            .cloned()
            .ok_or_else(|| refused(404))
    }

    async fn patch(&self, name: &PodName, patch: &Value) -> Result<Pod, ApiError> {
        let phase = patch["status"]["phase"].as_str().unwrap_or("-");
        self.begin("patch", format!("{name} {phase}")).await?;
        let mut state = self.state();
        let version = state.version + 1;
        let pod = state.objects.get_mut(name).ok_or_else(|| refused(404))?;
        if patch["metadata"]["uid"].as_str() != pod.metadata.uid.as_deref() {
            return Err(refused(409));
        }
        let mut raw = serde_json::to_value(&*pod).unwrap();
        strategic::apply(&mut raw, patch);
        // An API server writes quantities in its own words, and gives no new
        // version to what a write has not changed.
        if let Some(cpu) = raw.pointer_mut("/status/resources/limits/cpu") {
            *cpu = json!("500m");
        }
        let mut changed: Pod = object(raw);
        if changed != *pod {
            changed.metadata.resource_version = Some(version.to_string());
            *pod = changed.clone();
            state.version = version;
        }
        Ok(changed)
    }

    async fn finalise_delete(&self, name: &PodName, uid: &PodUid) -> Result<(), ApiError> {
        self.begin("delete", format!("{name} {uid}")).await?;
        let mut state = self.state();
        match state.objects.get(name) {
            None => Err(refused(404)),
            Some(pod) if pod.metadata.uid.as_deref() != Some(uid.as_str()) => Err(refused(409)),
            Some(_) => {
                state.objects.remove(name);
                Ok(())
            }
        }
    }

    async fn create_mirror(&self, pod: &Pod) -> Result<Pod, ApiError> {
        let name = PodName::of(pod);
        self.begin("create", name.to_string()).await?;
        if self.state().objects.contains_key(&name) {
            return Err(refused(409));
        }
        let mut pod = pod.clone();
        pod.metadata.uid = Some("mirror-uid".into());
        self.put(pod.clone());
        Ok(pod)
    }
}

/// A running reporter and everything around it.
struct Bench {
    api: Arc<FakeApi>,
    updates: StatusHandle,
    desired: watch::Sender<DesiredPods>,
    node: watch::Sender<Option<Arc<Node>>>,
    view: StatusView,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Bench {
    fn start(pods: Vec<Pod>) -> Self {
        let (watched, pod_feed) = watch::channel(PodSnapshot::default());
        let api = Arc::new(FakeApi {
            state: Mutex::default(),
            watched,
        });
        for pod in pods {
            api.put(pod);
        }
        api.show();
        let updates = StatusHandle::default();
        let (desired, desired_feed) = watch::channel(DesiredPods::default());
        let (node, node_feed) = watch::channel(None);
        let (reporter, view) = Reporter::new(ReporterInputs {
            updates: updates.clone(),
            pods: pod_feed,
            node: node_feed,
            desired: desired_feed,
            port: api.clone(),
        });
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(reporter.run(shutdown.clone()));
        Self {
            api,
            updates,
            desired,
            node,
            view,
            shutdown,
            task,
        }
    }

    fn report(&self, name: &str, phase: &str, ending: Ending) {
        let pod = self
            .api
            .get_now(name)
            .unwrap_or_else(|| api_pod(name, &json!({})));
        self.updates
            .set(update(&pod, &json!({ "phase": phase }), ending));
    }

    /// Waits, in the clock's time, until something is true.
    async fn until(&self, what: &str, is_true: impl Fn(&FakeApi) -> bool) {
        for _ in 0..12_000 {
            if is_true(&self.api) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!(
            "not within two minutes: {what}; calls: {:?}",
            self.api.calls()
        );
    }

    /// Lets everything that is due happen.
    async fn settle(&self) {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }

    async fn stop(self) -> Arc<FakeApi> {
        self.shutdown.cancel();
        self.task.await.unwrap();
        self.api
    }
}

fn pending(name: &str) -> Pod {
    api_pod(
        name,
        &json!({ "phase": "Pending", "startTime": "2026-01-01T00:00:00Z" }),
    )
}

fn going(mut pod: Pod) -> Pod {
    pod.metadata.deletion_timestamp = Some(object(json!("2026-01-01T00:00:00Z")));
    pod
}

#[tokio::test(start_paused = true)]
async fn a_status_is_patched_once_and_its_echo_is_no_news() {
    let bench = Bench::start(vec![pending("a")]);
    bench.report("a", "Running", Ending::Live);
    bench
        .until("patched", |api| {
            api.phase("a").as_deref() == Some("Running")
        })
        .await;
    bench.api.show();
    bench.report("a", "Running", Ending::Live);
    bench.settle().await;
    let uid = PodUid::from("uid-a");
    assert_eq!(
        bench.view.get(&uid).unwrap().phase.as_deref(),
        Some("Running")
    );
    assert_eq!(bench.stop().await.calls(), ["patch default/a Running"]);
}

#[tokio::test(start_paused = true)]
async fn a_quick_start_is_told_in_one_patch_and_a_slow_one_all_the_same() {
    let unseen = |name| api_pod(name, &json!({}));
    let bench = Bench::start(vec![unseen("quick"), unseen("slow")]);
    bench.report("quick", "Pending", Ending::Live);
    bench.report("slow", "Pending", Ending::Live);
    bench.settle().await;
    bench.report("quick", "Running", Ending::Live);
    bench
        .until("the slow one is told", |api| {
            api.phase("slow").as_deref() == Some("Pending")
        })
        .await;
    assert_eq!(
        bench.stop().await.calls(),
        ["patch default/quick Running", "patch default/slow Pending"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_later_status_builds_on_the_answer_not_on_a_lagging_watch() {
    let bench = Bench::start(vec![pending("a")]);
    bench.report("a", "Running", Ending::Live);
    bench
        .until("patched", |api| {
            api.phase("a").as_deref() == Some("Running")
        })
        .await;
    // The watch still shows Pending; saying Pending again is a change.
    bench.report("a", "Pending", Ending::Live);
    bench
        .until("patched back", |api| {
            api.phase("a").as_deref() == Some("Pending")
        })
        .await;
    assert_eq!(
        bench.stop().await.calls(),
        ["patch default/a Running", "patch default/a Pending"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_successor_of_the_same_name_is_left_alone() {
    let bench = Bench::start(vec![pending("a")]);
    let mut successor = pending("a");
    successor.metadata.uid = Some("other".into());
    bench.api.put(successor);
    let old = pending("a");
    bench
        .updates
        .set(update(&old, &json!({ "phase": "Failed" }), Ending::Stopped));
    bench.until("looked", |api| api.calls().len() == 2).await;
    bench.settle().await;
    assert_eq!(bench.api.phase("a").as_deref(), Some("Pending"));
    bench.api.show();
    bench.settle().await;
    assert_eq!(
        bench.stop().await.calls(),
        ["patch default/a Failed", "get default/a"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_conflict_is_read_and_decided_anew() {
    let bench = Bench::start(vec![pending("a")]);
    bench.api.state().failures.push_back(refused(409));
    bench.report("a", "Running", Ending::Live);
    bench
        .until("patched", |api| {
            api.phase("a").as_deref() == Some("Running")
        })
        .await;
    assert_eq!(
        bench.stop().await.calls(),
        [
            "patch default/a Running",
            "get default/a",
            "patch default/a Running"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn after_a_refusal_the_latest_status_is_sent() {
    let bench = Bench::start(vec![pending("a")]);
    bench.api.state().failures.push_back(refused(503));
    bench.report("a", "Running", Ending::Live);
    bench
        .until("refused", |api| api.state().failures.is_empty())
        .await;
    bench.report("a", "Succeeded", Ending::Stopped);
    bench
        .until("patched", |api| {
            api.phase("a").as_deref() == Some("Succeeded")
        })
        .await;
    assert_eq!(
        bench.stop().await.calls(),
        ["patch default/a Running", "patch default/a Succeeded"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_status_refused_for_good_is_not_sent_again_until_the_audit() {
    let bench = Bench::start(vec![pending("a")]);
    bench.api.state().failures.push_back(refused(422));
    bench.report("a", "Running", Ending::Live);
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert_eq!(bench.api.calls().len(), 1);
    bench
        .until("audited", |api| {
            api.phase("a").as_deref() == Some("Running")
        })
        .await;
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_and_little_is_asked_while_the_server_is_away() {
    let names: Vec<String> = (0..30).map(|n| format!("p{n}")).collect();
    let bench = Bench::start(names.iter().map(|name| pending(name)).collect());
    bench.api.state().is_down = true;
    for phase in ["Running", "Succeeded"] {
        for name in &names {
            bench.report(name, phase, Ending::Stopped);
        }
        tokio::time::sleep(Duration::from_secs(1800)).await;
    }
    let asked = bench.api.calls().len();
    assert!((300..700).contains(&asked), "{asked} calls in an hour");
    bench.api.state().is_down = false;
    let back = tokio::time::Instant::now();
    bench
        .until("all told", |api| {
            names
                .iter()
                .all(|name| api.phase(name).as_deref() == Some("Succeeded"))
        })
        .await;
    assert!(
        back.elapsed() < Duration::from_secs(14),
        "{:?}",
        back.elapsed()
    );
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn many_pods_are_told_several_at_a_time() {
    let names: Vec<String> = (0..90).map(|n| format!("p{n}")).collect();
    let bench = Bench::start(names.iter().map(|name| pending(name)).collect());
    for name in &names {
        bench.report(name, "Running", Ending::Live);
    }
    bench
        .until("all told", |api| {
            names
                .iter()
                .all(|name| api.phase(name).as_deref() == Some("Running"))
        })
        .await;
    let api = bench.stop().await;
    assert_eq!(api.calls().len(), 90);
    assert_eq!(api.state().most_under_way, 12);
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_deleted_only_after_its_end_is_told_and_nothing_is_left() {
    let bench = Bench::start(vec![going(pending("a"))]);
    bench.report("a", "Succeeded", Ending::Stopped);
    bench
        .until("told", |api| api.phase("a").as_deref() == Some("Succeeded"))
        .await;
    bench.settle().await;
    assert!(bench.api.get_now("a").is_some());
    bench.api.state().failures.push_back(refused(500));
    bench.report("a", "Succeeded", Ending::Gone);
    bench
        .until("deleted", |api| api.get_now("a").is_none())
        .await;
    bench.settle().await;
    assert_eq!(
        bench.stop().await.calls(),
        [
            "patch default/a Succeeded",
            "delete default/a uid-a",
            "delete default/a uid-a"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_gone_waits_for_its_deletion_timestamp() {
    let bench = Bench::start(vec![pending("a")]);
    bench.report("a", "Failed", Ending::Gone);
    bench
        .until("told", |api| api.phase("a").as_deref() == Some("Failed"))
        .await;
    bench.api.show();
    bench.settle().await;
    assert!(bench.api.get_now("a").is_some());
    let pod = bench.api.get_now("a").unwrap();
    bench.api.put(going(pod));
    bench.api.show();
    bench
        .until("deleted", |api| api.get_now("a").is_none())
        .await;
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_status_that_the_server_words_otherwise_is_told_once_and_the_pod_still_goes() {
    let bench = Bench::start(vec![going(pending("a"))]);
    let pod = bench.api.get_now("a").unwrap();
    let status = json!({ "phase": "Failed", "resources": { "limits": { "cpu": "0.5" } } });
    bench.updates.set(update(&pod, &status, Ending::Stopped));
    bench.settle().await;
    let told = bench.api.calls();
    assert_eq!(told, ["patch default/a Failed", "patch default/a -"]);
    bench.api.show();
    bench.settle().await;
    assert_eq!(bench.api.calls(), told, "an echo is no news");
    bench.updates.set(update(&pod, &status, Ending::Gone));
    bench
        .until("deleted", |api| api.get_now("a").is_none())
        .await;
    assert_eq!(bench.stop().await.calls().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_others_change_is_put_right_from_the_watch() {
    let bench = Bench::start(vec![pending("a")]);
    bench.report("a", "Running", Ending::Live);
    bench
        .until("told", |api| api.phase("a").as_deref() == Some("Running"))
        .await;
    let mut pod = bench.api.get_now("a").unwrap();
    pod.status.as_mut().unwrap().phase = Some("Pending".into());
    bench.api.put(pod);
    bench.api.show();
    let changed = tokio::time::Instant::now();
    bench
        .until("put right", |api| {
            api.phase("a").as_deref() == Some("Running")
        })
        .await;
    assert!(changed.elapsed() < Duration::from_secs(1));
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn pods_that_vanish_are_forgotten() {
    let bench = Bench::start(vec![pending("a")]);
    bench.report("a", "Running", Ending::Live);
    bench
        .until("told", |api| api.phase("a").as_deref() == Some("Running"))
        .await;
    assert_eq!(bench.view.all().len(), 1);
    bench.api.state().objects.clear();
    bench.api.show();
    bench.settle().await;
    assert!(bench.view.all().is_empty());
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_static_pod_is_told_through_its_mirror_once_the_node_is_there() {
    let bench = Bench::start(vec![]);
    let ready = SourcesReady {
        api: true,
        manifests: true,
    };
    let pod = static_pod("h1", Intent::Run);
    let show = |mirrors| {
        bench
            .desired
            .send_replace(desired_pods(vec![pod.clone()], mirrors, ready));
    };
    show(vec![]);
    let running = |pod: &DesiredPod| {
        update_of(
            Arc::new(pod.clone()),
            &json!({ "phase": "Running" }),
            Ending::Live,
        )
    };
    bench.updates.set(running(&pod));
    bench.settle().await;
    assert!(bench.api.calls().is_empty());
    bench.node.send_replace(Some(Arc::new(node())));
    bench
        .until("created", |api| !api.state().objects.is_empty())
        .await;
    bench.settle().await;
    let mirror = bench.api.state().objects[&pod.name].clone();
    show(vec![mirror]);
    let is_told = |api: &FakeApi| {
        let state = api.state();
        let status = state
            .objects
            .get(&pod.name)
            .and_then(|pod| pod.status.as_ref());
        status.and_then(|status| status.phase.as_deref()) == Some("Running")
    };
    bench.until("told", is_told).await;
    let name = "kube-system/web-n1";
    assert_eq!(
        bench.stop().await.calls(),
        [format!("create {name}"), format!("patch {name} Running")]
    );
}

#[tokio::test(start_paused = true)]
async fn shutdown_sends_what_was_reported_just_before() {
    let bench = Bench::start(vec![pending("a"), pending("b")]);
    bench.report("a", "Running", Ending::Live);
    bench.report("b", "Running", Ending::Live);
    let api = bench.stop().await;
    assert_eq!(api.phase("a").as_deref(), Some("Running"));
    assert_eq!(api.phase("b").as_deref(), Some("Running"));
}

#[tokio::test(start_paused = true)]
async fn shutdown_does_not_wait_for_a_server_that_is_away() {
    let bench = Bench::start(vec![pending("a")]);
    bench.api.state().is_down = true;
    bench.report("a", "Running", Ending::Live);
    bench.settle().await;
    let asked = tokio::time::Instant::now();
    bench.stop().await;
    assert!(asked.elapsed() < Duration::from_secs(1));
}
