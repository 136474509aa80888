//! containerd stopped, killed, restarted, and hung.

use std::time::Duration;

use anyhow::ensure;
use k8s_openapi::api::core::v1::Pod;

use super::{Standing, node_becomes, pod_is_gone, pod_is_ready, start_pod};
use crate::harness::{Scene, Test, condition, tests, text};

pub const TESTS: &[Test] = tests!(Own:
    pods_come_and_go_while_containerd_hangs,
    pods_come_and_go_while_containerd_is_stopped,
    pods_come_and_go_while_containerd_is_killed_again_and_again,
);

/// How long containerd hangs: longer than a node may stay Ready without its runtime.
const HANG: Duration = Duration::from_secs(60);

async fn pods_come_and_go_while_containerd_is_stopped(t: Scene) -> anyhow::Result<()> {
    let mut standing = Standing::start(&t, &["stays", "leaves", "stays-too"]).await?;
    standing.forget("leaves");
    t.cluster.ctl("stop", "containerd").await?;
    start_pod(&t, "comes").await?;
    t.delete::<Pod>("leaves").await?;

    let node = node_becomes(&t, "False").await?;
    let ready = condition(&node, "Ready");
    ensure!(ready["reason"] == "KubeletNotReady", "{ready}");
    ensure!(
        text(ready, "/message").contains("container runtime"),
        "{ready}"
    );
    for kind in ["MemoryPressure", "DiskPressure", "PIDPressure"] {
        ensure!(
            condition(&node, kind)["status"] == "False",
            "{}",
            node["status"]
        );
    }
    // A pod does not end because nobody can ask about it.
    let pod = t.get::<Pod>("stays").await?;
    ensure!(pod["status"]["phase"] == "Running", "{}", pod["status"]);
    let leaves = t.get::<Pod>("leaves").await?;
    ensure!(
        leaves["metadata"]["deletionTimestamp"].is_string(),
        "{}",
        leaves["metadata"]
    );

    t.cluster.ctl("start", "containerd").await?;
    node_becomes(&t, "True").await?;
    pod_is_ready(&t, "comes").await?;
    pod_is_gone(&t, "leaves").await?;
    standing.ensure_untouched(&t).await
}

async fn pods_come_and_go_while_containerd_is_killed_again_and_again(
    t: Scene,
) -> anyhow::Result<()> {
    let standing = Standing::start(&t, &["stays", "stays-too"]).await?;
    for round in 0..5 {
        let (name, last) = (format!("pod-{round}"), format!("pod-{}", round - 1));
        start_pod(&t, &name).await?;
        if round > 0 {
            t.delete::<Pod>(&last).await?;
        }
        t.cluster.ctl("kill", "containerd").await?;
        t.cluster.ctl("start", "containerd").await?;
        pod_is_ready(&t, &name).await?;
        if round > 0 {
            pod_is_gone(&t, &last).await?;
        }
    }
    node_becomes(&t, "True").await?;
    standing.ensure_untouched(&t).await
}

async fn pods_come_and_go_while_containerd_hangs(t: Scene) -> anyhow::Result<()> {
    let mut standing = Standing::start(&t, &["stays", "leaves", "stays-too"]).await?;
    standing.forget("leaves");
    t.cluster.ctl("pause", "containerd").await?;
    start_pod(&t, "comes").await?;
    t.delete::<Pod>("leaves").await?;
    // The hang itself, however well the node takes it.
    tokio::time::sleep(HANG).await;
    let node = node_becomes(&t, "False").await?;
    ensure!(
        text(condition(&node, "Ready"), "/message").contains("container runtime"),
        "{}",
        node["status"]
    );
    t.cluster.ctl("resume", "containerd").await?;
    node_becomes(&t, "True").await?;
    pod_is_ready(&t, "comes").await?;
    pod_is_gone(&t, "leaves").await?;
    standing.ensure_untouched(&t).await
}
