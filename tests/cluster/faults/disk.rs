//! No space left where the agent keeps its pods' directories.

use std::path::Path;

use anyhow::ensure;
use k8s_openapi::api::core::v1::{Event, Pod};
use serde_json::Value;

use super::{Standing, node_becomes, pod_is_gone, pod_is_ready, start_pod};
use crate::harness::{Scene, Test, is_ready, tests, text};

pub const TESTS: &[Test] = tests!(Own:
    pods_wait_while_the_disk_is_full,
);

async fn pods_wait_while_the_disk_is_full(t: Scene) -> anyhow::Result<()> {
    // A small file system for the pods' directories alone: the node's disk pressure, by
    // which pods would be evicted, is about the one around it.
    let small = t.cluster.path("DIR").join("small");
    let pods = t.cluster.path("KUBELET_ROOT").join("pods");
    t.cluster.ctl("stop", "kubelet").await?;
    for directory in [&small, &pods] {
        tokio::fs::create_dir_all(directory).await?;
    }
    let small_path = small.display().to_string();
    let inner = small.join("pods").display().to_string();
    let options = "size=4m,nr_inodes=2000,mode=0755";
    t.cluster
        .exec(["mount", "-t", "tmpfs", "-o", options, "tmpfs", &small_path])
        .await?;
    tokio::fs::create_dir(&inner).await?;
    t.cluster
        .exec(["mount", "--bind", &inner, &pods.display().to_string()])
        .await?;
    t.cluster.ctl("start", "kubelet").await?;
    node_becomes(&t, "True").await?;

    let mut standing = Standing::start(&t, &["stays", "leaves"]).await?;
    standing.forget("leaves");
    let ballast = small.join("ballast");
    fill(&ballast)?;
    start_pod(&t, "comes").await?;
    told_of_the_full_disk(&t, "comes").await?;
    let pod = t.get::<Pod>("comes").await?;
    ensure!(!is_ready(&pod), "{}", pod["status"]);
    ensure!(
        text(&pod, "/status/phase") == "Pending",
        "{}",
        pod["status"]
    );
    // What takes no space goes on.
    t.delete::<Pod>("leaves").await?;
    pod_is_gone(&t, "leaves").await?;
    standing.ensure_untouched(&t).await?;

    tokio::fs::remove_dir_all(&ballast).await?;
    pod_is_ready(&t, "comes").await?;
    standing.ensure_untouched(&t).await
}

/// Takes every block and every inode that is left.
fn fill(directory: &Path) -> anyhow::Result<()> {
    let full = |error: &std::io::Error| error.kind() == std::io::ErrorKind::StorageFull;
    std::fs::create_dir(directory)?;
    let zeros = vec![0; 4096];
    loop {
        let block = std::fs::read_dir(directory)?.count();
        match std::fs::write(directory.join(block.to_string()), &zeros) {
            Ok(()) => {}
            Err(error) if full(&error) => break,
            Err(error) => return Err(error.into()),
        }
    }
    for inode in 0.. {
        match std::fs::create_dir(directory.join(format!("d{inode}"))) {
            Ok(()) => {}
            Err(error) if full(&error) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Waits until an event or the status of the pod says what is wrong.
async fn told_of_the_full_disk(t: &Scene, name: &str) -> anyhow::Result<()> {
    let cause = "no space left on device";
    let events = |events: &[&Value]| {
        events.iter().any(|event| {
            event["involvedObject"]["name"] == name
                && text(event, "/message").to_lowercase().contains(cause)
        })
    };
    t.all_until::<Event>("", "an event tells of the full disk", events)
        .await
        .map(drop)
}
