//! Who may start on the node, and who has to go for others.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::world::{World, deleted, node, pod};
use crate::pod::{DesiredPod, Origin, SourcesReady};
use crate::runtime::fake::Call;
use crate::status::{Ending, StatusUpdate};

fn changed(pod: &DesiredPod, change: impl FnOnce(&mut Pod)) -> DesiredPod {
    let mut object = Pod::clone(&pod.pod);
    change(&mut object);
    DesiredPod {
        pod: Arc::new(object),
        ..pod.clone()
    }
}

/// A pod that asks for CPUs, made so many seconds after others.
fn asking(uid: &str, cpus: &str, age: i64) -> DesiredPod {
    changed(&pod(uid, &["a"]), |object| {
        let created = Timestamp::from_second(1_800_000_000 + age).expect("a time");
        object.metadata.creation_timestamp = Some(Time(created));
        let spec = object.spec.get_or_insert_default();
        spec.containers[0].resources =
            serde_json::from_value(json!({"requests": {"cpu": cpus}})).expect("resources");
    })
}

fn with_spec(pod: &DesiredPod, field: &str, value: Value) -> DesiredPod {
    changed(pod, |object| {
        let mut whole = serde_json::to_value(&*object).expect("JSON");
        whole["spec"][field] = value;
        *object = serde_json::from_value(whole).expect("a pod");
    })
}

fn from_file(pod: DesiredPod) -> DesiredPod {
    DesiredPod {
        origin: Origin::Static {
            path: "/m/p.yaml".into(),
        },
        ..pod
    }
}

fn reason(update: &StatusUpdate) -> &str {
    update.status.reason.as_deref().unwrap_or_default()
}

async fn wait_refused(world: &World, pod: &DesiredPod, why: &str) {
    let update = world.wait_phase(&pod.uid, "Failed").await;
    assert_eq!(reason(&update), why, "{:?}", update.status.message);
    let message = update.status.message.clone().unwrap_or_default();
    assert!(message.starts_with("Pod was rejected: "), "{message}");
    assert!(world.runtime.pod(&pod.uid).is_absent());
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_is_refused_and_takes_nothing() {
    let world = World::new();
    let first = asking("u1", "6", 0);
    world.want(first.clone());
    world.wait_phase(&first.uid, "Running").await;
    let second = asking("u2", "3", 1);
    world.want(second.clone());
    wait_refused(&world, &second, "OutOfcpu").await;
    let third = asking("u3", "2", 2);
    world.want(third.clone());
    world.wait_phase(&third.uid, "Running").await;
    // A pod that was refused can be deleted like any other.
    world.want(deleted(&second, 1));
    world.wait_gone(&second.uid).await;
}

#[tokio::test(start_paused = true)]
async fn of_pods_that_come_together_the_oldest_is_first() {
    let world = World::new();
    let pods = [
        asking("u1", "5", 30),
        asking("u2", "5", 10),
        asking("u3", "5", 20),
    ];
    world.want_all(&pods);
    world.wait_phase(&pods[1].uid, "Running").await;
    wait_refused(&world, &pods[0], "OutOfcpu").await;
    wait_refused(&world, &pods[2], "OutOfcpu").await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_ended_or_is_deleted_makes_place() {
    let world = World::new();
    let first = asking("u1", "6", 0);
    world.want(first.clone());
    world.wait_phase(&first.uid, "Running").await;
    world.want(deleted(&first, 1));
    world.wait_gone(&first.uid).await;
    let job = with_spec(&asking("u2", "6", 1), "restartPolicy", json!("Never"));
    world.runtime.exits_after("a", Duration::from_secs(1), 0);
    world.want(job.clone());
    world.wait_phase(&job.uid, "Succeeded").await;
    let third = asking("u3", "6", 2);
    world.want(third.clone());
    world.wait_phase(&third.uid, "Running").await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_never_judges_anew_what_runs() {
    let mut world = World::new();
    let picky = with_spec(&asking("u1", "6", 0), "nodeSelector", json!({"zone": "a"}));
    world.want(picky.clone());
    world.wait_phase(&picky.uid, "Running").await;
    world.stop_agent().await;
    world.node.send_replace(Some(Arc::new(node("1", "b"))));
    world.runtime.clear_calls();
    world.start_agent();
    world.wait_phase(&picky.uid, "Running").await;
    assert_eq!(world.runtime.calls(), []);
    // Its CPUs count for those who come later.
    let late = asking("u2", "3", 1);
    world.want(late.clone());
    wait_refused(&world, &late, "OutOfcpu").await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_once_started_is_not_judged_though_nothing_is_left_of_it() {
    let world = World::new();
    let started = with_spec(&pod("u1", &["a"]), "nodeSelector", json!({"zone": "x"}));
    let started = changed(&started, |object| {
        object.status = Some(PodStatus {
            phase: Some("Running".into()),
            start_time: Some(Time(Timestamp::UNIX_EPOCH)),
            ..PodStatus::default()
        });
    });
    let new = with_spec(&pod("u2", &["a"]), "nodeSelector", json!({"zone": "x"}));
    world.want_all(&[started.clone(), new.clone()]);
    wait_refused(&world, &new, "NodeAffinity").await;
    world
        .wait_runtime("started again", |r| r.ready_sandboxes() == 1)
        .await;
}

#[tokio::test(start_paused = true)]
async fn pods_of_the_api_wait_for_the_node_and_static_pods_do_not() {
    let world = World::new();
    world.node.send_replace(None);
    let of_api = pod("u1", &["a"]);
    let of_file = from_file(pod("u2", &["a"]));
    world.want_all(&[of_api.clone(), of_file.clone()]);
    world.wait_phase(&of_file.uid, "Running").await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(world.runtime.pod(&of_api.uid).is_absent());
    world.node.send_replace(Some(Arc::new(node("8", "a"))));
    world.wait_phase(&of_api.uid, "Running").await;
}

#[tokio::test(start_paused = true)]
async fn pods_of_the_api_wait_for_the_manifests() {
    let world = World::new();
    world.set_ready(SourcesReady {
        api: true,
        manifests: false,
    });
    let of_api = asking("u1", "6", 0);
    world.want(of_api.clone());
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(world.runtime.count(Call::RunSandbox), 0);
    let of_file = from_file(asking("u2", "6", 1));
    world.want(of_file.clone());
    world.set_ready(SourcesReady {
        api: true,
        manifests: true,
    });
    world.wait_phase(&of_file.uid, "Running").await;
    wait_refused(&world, &of_api, "OutOfcpu").await;
}

#[tokio::test(start_paused = true)]
async fn manifests_that_cannot_be_read_hold_up_nobody_for_long() {
    let world = World::new();
    world.set_ready(SourcesReady {
        api: true,
        manifests: false,
    });
    let of_api = pod("u1", &["a"]);
    world.want(of_api.clone());
    world.wait_phase(&of_api.uid, "Running").await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_pod_waits_for_nothing() {
    let world = World::new();
    world.node.send_replace(None);
    let pod = pod("u1", &["a"]);
    world.want(pod.clone());
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.want(deleted(&pod, 1));
    world.wait_gone(&pod.uid).await;
    assert_eq!(world.runtime.count(Call::RunSandbox), 0);
}

#[tokio::test(start_paused = true)]
async fn others_make_room_for_a_critical_pod() {
    let world = World::new();
    let (small, large) = (asking("u1", "2", 0), asking("u2", "5", 1));
    world.want_all(&[small.clone(), large.clone()]);
    world.wait_phase(&small.uid, "Running").await;
    world.wait_phase(&large.uid, "Running").await;
    world.runtime.stop_takes("a", Duration::from_secs(3));
    let critical = from_file(asking("u3", "4", 2));
    world.want(critical.clone());
    let ended = |update: &StatusUpdate| {
        update.status.phase.as_deref() == Some("Failed") && update.ending == Ending::Stopped
    };
    let update = world.wait_told(&large.uid, "ended", ended).await;
    assert_eq!(reason(&update), "Preempting");
    let disruption = update
        .status
        .conditions
        .iter()
        .flatten()
        .find(|c| c.type_ == "DisruptionTarget")
        .expect("the condition");
    assert_eq!(disruption.reason.as_deref(), Some("TerminationByKubelet"));
    world.wait_phase(&critical.uid, "Running").await;
    let told = world.wait_phase(&small.uid, "Running").await;
    assert_eq!(told.ending, Ending::Live);
    // The end is not taken back, whatever the API server goes on to want.
    world.want(changed(&large, |object| {
        object.metadata.labels = Some([("new".to_owned(), "x".to_owned())].into());
    }));
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(world.runtime.ready_sandboxes(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_critical_pod_that_nobody_can_make_room_for_is_refused() {
    let world = World::new();
    let first = asking("u1", "2", 0);
    world.want(first.clone());
    world.wait_phase(&first.uid, "Running").await;
    let critical = from_file(asking("u2", "40", 1));
    world.want(critical.clone());
    wait_refused(&world, &critical, "UnexpectedAdmissionError").await;
    assert_eq!(world.runtime.ready_sandboxes(), 1);
}
