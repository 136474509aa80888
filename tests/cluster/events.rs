//! Events of a pod, read as with upstream, and what happens to a pod whose sandbox dies.

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::harness::{
    BUSYBOX, FOREVER, PATIENCE, Scene, Test, condition, container, number, poll_until, shell,
    tests, text,
};

pub const TESTS: &[Test] = tests!(Shared:
    a_pods_life_is_told_in_upstreams_words,
    events_say_who_and_what,
    kubectl_describe_shows_a_pods_life,
    a_dead_sandbox_is_replaced,
);

async fn a_pods_life_is_told_in_upstreams_words(t: Scene) -> anyhow::Result<()> {
    t.ready_pod("told", json!([shell("main", FOREVER)])).await?;
    t.delete::<Pod>("told").await?;
    t.gone::<Pod>("told").await?;
    let node = t.cluster.node_name();
    let image = format!(
        r#"Container image "{BUSYBOX}" already present on machine and can be accessed by the pod"#
    );
    let wanted = [
        (
            "Scheduled",
            format!("Successfully assigned {}/told to {node}", t.namespace),
        ),
        ("Pulled", image),
        ("Created", "Container created".to_owned()),
        ("Started", "Container started".to_owned()),
        ("Killing", "Stopping container main".to_owned()),
    ];
    t.event("told", "Killing", |_| true).await?;
    let about = ListParams::default().fields("involvedObject.name=told");
    let events = t.api::<Event>().list(&about).await?.items;
    let mut told = events
        .iter()
        .map(serde_json::to_value)
        .collect::<Result<Vec<_>, _>>()?;
    told.sort_by_key(|event| {
        wanted
            .iter()
            .position(|(reason, _)| event["reason"] == *reason)
    });
    // The API server may be late in seeing that a new pod is this node's.
    let is_late = |event: &Value| text(event, "/message").contains("no relationship found");
    told.retain(|event| event["reason"] != "FailedMount" || !is_late(event));
    let words: Vec<_> = told
        .iter()
        .map(|event| (text(event, "/reason"), text(event, "/message").to_owned()))
        .collect();
    ensure!(words == wanted, "{words:#?}");
    for event in &told {
        ensure!(event["type"] == "Normal", "{event}");
    }
    Ok(())
}

async fn events_say_who_and_what(t: Scene) -> anyhow::Result<()> {
    let pod = t.ready_pod("said", json!([shell("main", FOREVER)])).await?;
    let event = t.event("said", "Started", |_| true).await?;
    let node = t.cluster.node_name();
    ensure!(
        event["source"] == json!({ "component": "kubelet", "host": node }),
        "{event}"
    );
    ensure!(event["reportingComponent"] == "kubelet", "{event}");
    ensure!(event["reportingInstance"] == node, "{event}");
    ensure!(number(&event, "/count") == 1, "{event}");
    let about = &event["involvedObject"];
    ensure!(
        about["kind"] == "Pod" && about["apiVersion"] == "v1",
        "{event}"
    );
    ensure!(about["uid"] == pod["metadata"]["uid"], "{event}");
    ensure!(about["fieldPath"] == "spec.containers{main}", "{event}");
    for time in ["/firstTimestamp", "/lastTimestamp"] {
        ensure!(!text(&event, time).is_empty(), "{event}");
    }
    Ok(())
}

async fn kubectl_describe_shows_a_pods_life(t: Scene) -> anyhow::Result<()> {
    t.ready_pod("shown", json!([shell("main", FOREVER)]))
        .await?;
    t.event("shown", "Started", |_| true).await?;
    let kubectl = t.cluster.fact("KUBECTL");
    let described = t
        .cluster
        .exec([kubectl, "-n", &t.namespace, "describe", "pod", "shown"])
        .await?;
    let spaced = described.split_whitespace().collect::<Vec<_>>().join(" ");
    for wanted in [
        "Status: Running",
        "State: Running",
        "Ready: True",
        "Restart Count: 0",
        "QoS Class: BestEffort",
        "kubelet spec.containers{main}: Container created",
        "kubelet spec.containers{main}: Container started",
    ] {
        ensure!(spaced.contains(wanted), "no '{wanted}' in\n{described}");
    }
    Ok(())
}

/// The agent sees the sandbox's end before the stop is through, and stops it as well; of
/// two that take a network down at once one may fail.
async fn stop_sandbox(t: &Scene, id: &str) -> anyhow::Result<()> {
    poll_until("the sandbox is stopped", PATIENCE, || async {
        let stopped = t.cluster.exec(["crictl", "stopp", id]).await;
        Ok(stopped.map(drop).map_err(|error| error.to_string()))
    })
    .await
}

async fn a_dead_sandbox_is_replaced(t: Scene) -> anyhow::Result<()> {
    let pod = t
        .ready_pod("reborn", json!([shell("main", FOREVER)]))
        .await?;
    let uid = text(&pod, "/metadata/uid");
    let sandboxes = t.cluster.ready_sandboxes(uid).await?;
    let old = text(sandboxes.first().context("a sandbox")?, "/id").to_owned();
    stop_sandbox(&t, &old).await?;
    let message = "Pod sandbox changed, it will be killed and re-created.";
    t.event("reborn", "SandboxChanged", |shown| shown == message)
        .await?;
    let again = |pod: &Value| {
        let status = container(pod, "main");
        // On a busy machine the old sandbox's end may come to light only when a
        // container cannot be started in it, which counts as a restart too.
        number(status, "/restartCount") >= 1
            && condition(pod, "Ready")["status"] == "True"
            && !text(pod, "/status/podIP").is_empty()
    };
    let after = t.pod_until("reborn", "runs again", again).await?;
    ensure!(after["metadata"]["uid"] == uid, "another pod");
    let sandboxes = t.cluster.ready_sandboxes(uid).await?;
    ensure!(sandboxes.len() == 1, "{sandboxes:?}");
    let new = &sandboxes[0];
    ensure!(text(new, "/id") != old, "{new}");
    ensure!(number(new, "/metadata/attempt") == 1, "{new}");
    let ready = condition(&after, "PodReadyToStartContainers");
    ensure!(ready["status"] == "True", "{}", after["status"]);
    Ok(())
}
