//! The API server away: at the agent's start, and for longer while pods run.

use std::time::Instant;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::{Standing, node_becomes, pod_is_ready, start_pod};
use crate::harness::{
    FOREVER, PATIENCE, Scene, Test, container, is_ready, number, poll_until, shell, tests, text,
};
use crate::lifecycle::container_id;
use crate::static_pods::{Manifest, manifest, mirror_name, static_uid};

pub const TESTS: &[Test] = tests!(Own:
    the_node_works_on_without_the_api_server_and_takes_up_what_changed,
    the_agent_starts_without_the_api_server,
);

async fn the_node_works_on_without_the_api_server_and_takes_up_what_changed(
    t: Scene,
) -> anyhow::Result<()> {
    let mut standing = Standing::start(&t, &["stays", "dies", "goes", "stays-too"]).await?;
    standing.forget("dies");
    standing.forget("goes");
    let dies = t.get::<Pod>("dies").await?;
    let goes = t.get::<Pod>("goes").await?;

    t.cluster.ctl("stop", "apiserver").await?;
    let away = Instant::now();
    // A container that dies meanwhile is started again.
    let (uid, old) = (text(&dies, "/metadata/uid"), container_id(&dies, "main")?);
    let ctr = t.cluster.fact("CTR");
    t.cluster
        .exec([ctr, "task", "kill", "--signal", "SIGKILL", old])
        .await?;
    poll_until("the killed container runs again", PATIENCE, || async {
        let running = t.cluster.running_containers(uid).await?;
        let anew = running.len() == 2 && running.iter().all(|container| container["id"] != old);
        Ok(if anew {
            Ok(())
        } else {
            Err(format!("{running:?}"))
        })
    })
    .await?;
    tokio::time::sleep(t.cluster.outage.saturating_sub(away.elapsed())).await;

    // The agent must not see the changes as they happen.
    t.cluster.ctl("pause", "kubelet").await?;
    t.cluster.ctl("start", "apiserver").await?;
    t.delete_pod_within("goes", 0).await?;
    t.gone::<Pod>("goes").await?;
    let spec = json!({
        "nodeName": t.cluster.node_name(),
        "containers": [shell("main", FOREVER)],
    });
    t.pod("comes", spec).await?;
    t.cluster.ctl("resume", "kubelet").await?;

    pod_is_ready(&t, "comes").await?;
    let uid = text(&goes, "/metadata/uid");
    poll_until(
        "the containers of the deleted pod have stopped",
        PATIENCE,
        || async {
            let running = t.cluster.running_containers(uid).await?;
            Ok(if running.is_empty() {
                Ok(())
            } else {
                Err(format!("{running:?}"))
            })
        },
    )
    .await?;
    let told = |pod: &Value| number(container(pod, "main"), "/restartCount") == 1 && is_ready(pod);
    t.pod_until("dies", "shows its restart", told).await?;
    node_becomes(&t, "True").await?;
    standing.ensure_untouched(&t).await
}

async fn the_agent_starts_without_the_api_server(t: Scene) -> anyhow::Result<()> {
    let standing = Standing::start(&t, &["stays", "stays-too"]).await?;
    t.cluster.ctl("stop", "kubelet").await?;
    t.cluster.ctl("stop", "apiserver").await?;
    let content = manifest(&t, "static", FOREVER).to_string();
    let _manifest = Manifest::write(&t, "static.json", &content)?;
    t.cluster.ctl("start", "kubelet").await?;

    let label = format!("io.kubernetes.pod.name={}", mirror_name(&t, "static"));
    let running = poll_until("the static pod runs", PATIENCE, || async {
        let running = t
            .cluster
            .crictl(&["ps", "--state", "running", "--label", &label])
            .await?;
        Ok(if running.len() == 1 {
            Ok(running)
        } else {
            Err(format!("{running:?}"))
        })
    })
    .await?;
    let id = text(running.first().context("a container")?, "/id").to_owned();

    t.cluster.ctl("start", "apiserver").await?;
    let runs = |pod: &Value| container(pod, "main")["ready"] == true;
    let mirror = t
        .pod_until(&mirror_name(&t, "static"), "runs", runs)
        .await?;
    ensure!(
        container_id(&mirror, "main")? == id,
        "the static pod was started again"
    );
    ensure!(
        t.cluster.ready_sandboxes(static_uid(&mirror)).await?.len() == 1,
        "two sandboxes"
    );
    start_pod(&t, "comes").await?;
    pod_is_ready(&t, "comes").await?;
    node_becomes(&t, "True").await?;
    standing.ensure_untouched(&t).await
}
