//! Tickets without workers: whose turn it is, and which Node counts.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures::FutureExt;
use serde_json::json;

use super::*;
use crate::apiserver::ApiError;
use crate::pod::sysctl::Allowlist;
use crate::worker::COMMANDS;
use crate::worker::tests::world::{node, pod};

const READY: SourcesReady = SourcesReady {
    api: true,
    manifests: true,
};

/// An API server whose Node has moved to zone `b`.
#[derive(Default)]
struct Moved {
    reads: AtomicUsize,
    /// It does not answer.
    hangs: bool,
}

#[async_trait]
impl NodePort for Moved {
    async fn get(&self) -> Result<Node, ApiError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        if self.hangs {
            std::future::pending::<()>().await;
        }
        Ok(node("8", "b"))
    }

    async fn create(&self, _: &Node) -> Result<Node, ApiError> {
        unreachable!("admission only reads")
    }

    async fn patch(&self, _: &serde_json::Value) -> Result<Node, ApiError> {
        unreachable!("admission only reads")
    }

    async fn patch_status(&self, _: &serde_json::Value) -> Result<Node, ApiError> {
        unreachable!("admission only reads")
    }
}

struct Bench {
    admission: Arc<Admission>,
    api: Arc<Moved>,
    found: watch::Sender<KnownPods>,
}

/// The watch still shows the node in zone `a`.
fn bench(api: Moved) -> Bench {
    let api = Arc::new(api);
    let found = watch::Sender::new(Some(Arc::default()));
    let health = RuntimeHealth {
        checked: true,
        ..RuntimeHealth::default()
    };
    let admission = Admission::new(AdmissionDeps {
        node: watch::channel(Some(Arc::new(node("8", "a")))).1,
        fetch: Some(api.clone()),
        own: NodeView::of(&node("8", "a")),
        settings: Settings {
            sysctls: Allowlist::new("6.1", &[]),
            apparmor: Support::Absent,
            pod_level_resources: Support::Present,
        },
        found: found.subscribe(),
        health: watch::channel(health).1,
        commands: mpsc::channel(COMMANDS).0,
        metrics: Metrics::default(),
    });
    Bench {
        admission,
        api,
        found,
    }
}

fn for_zone(uid: &str, zone: &str) -> Arc<DesiredPod> {
    let pod = pod(uid, &["a"]);
    let mut object = serde_json::to_value(&*pod.pod).expect("JSON");
    object["spec"]["nodeSelector"] = json!({ "zone": zone });
    Arc::new(DesiredPod {
        pod: Arc::new(serde_json::from_value(object).expect("a pod")),
        ..pod
    })
}

impl Bench {
    fn enlist(&self, pod: &Arc<DesiredPod>) -> Ticket {
        let mut tickets = self.admission.enlist(std::slice::from_ref(pod), READY);
        tickets.remove(0)
    }

    async fn judge(&self, pod: &Arc<DesiredPod>) -> Result<(), String> {
        let ticket = self.enlist(pod);
        let verdict = ticket.verdict(pod, |_| ()).await;
        verdict.map_err(|rejection| rejection.reason)
    }
}

#[tokio::test(start_paused = true)]
async fn for_labels_that_differ_the_newest_node_is_read() {
    let bench = bench(Moved::default());
    assert_eq!(bench.judge(&for_zone("u1", "a")).await, Ok(()));
    assert_eq!(bench.api.reads.load(Ordering::SeqCst), 0);
    assert_eq!(bench.judge(&for_zone("u2", "b")).await, Ok(()));
    assert_eq!(
        bench.judge(&for_zone("u3", "c")).await,
        Err("NodeAffinity".to_owned())
    );
    assert_eq!(bench.api.reads.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_known_decides_if_the_api_server_does_not_answer() {
    let bench = bench(Moved {
        hangs: true,
        ..Moved::default()
    });
    let verdict = bench.judge(&for_zone("u1", "b")).await;
    assert_eq!(verdict, Err("NodeAffinity".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn nobody_is_judged_before_the_runtime_is_listed() {
    let bench = bench(Moved::default());
    bench.found.send_replace(None);
    let (known, new) = (for_zone("u1", "x"), for_zone("u2", "x"));
    let tickets = bench.admission.enlist(&[known.clone(), new.clone()], READY);
    let mut waits = Vec::new();
    let early = tickets[1].verdict(&new, |what| waits.push(what));
    assert!(early.now_or_never().is_none());
    assert_eq!(waits, ["the runtime to tell which pods it has"]);

    let listed = vec![(known.uid.clone(), known.name.clone())];
    bench.found.send_replace(Some(Arc::new(listed)));
    assert!(tickets[0].verdict(&known, |_| ()).await.is_ok());
    assert!(tickets[1].verdict(&new, |_| ()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_dies_keeps_its_place_and_one_that_ends_gives_it_back() {
    let bench = bench(Moved::default());
    let pod = for_zone("u1", "a");
    let ticket = bench.enlist(&pod);
    assert!(ticket.verdict(&pod, |_| ()).await.is_ok());
    let dies = tokio::spawn(async move {
        let _ticket = ticket;
        panic!("scripted panic");
    });
    assert!(dies.await.is_err());
    let pods = || {
        bench
            .admission
            .state()
            .ledger
            .taken(Counted::All)
            .amount("pods")
    };
    assert_eq!(pods(), 1);
    let again = bench.enlist(&pod);
    assert!(again.verdict(&pod, |_| ()).await.is_ok());
    drop(again);
    assert_eq!(pods(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_makes_room_still_leaves_after_its_resize() {
    let bench = bench(Moved::default());
    let pod = for_zone("u1", "a");
    let ticket = bench.enlist(&pod);
    assert!(ticket.verdict(&pod, |_| ()).await.is_ok());
    let uids = std::slice::from_ref(&pod.uid);
    bench.admission.state().ledger.tell_to_leave(uids);
    assert!(ticket.resize(&pod).is_ok());
    assert!(bench.admission.state().ledger.leaving().contains(&pod.uid));
}
