//! What a node must be like after its pods: empty.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Namespace;
use kube::runtime::watcher;

use super::cluster::Cluster;
use super::host::poll_until;
use super::scene::TEST_NAMESPACES;
use super::wait;

/// Upstream collects dead containers, sandboxes and their logs once a minute, and
/// containers before sandboxes.
const PATIENCE: Duration = Duration::from_secs(180);

/// Waits until the tests' namespaces are gone, then until nothing of their pods is left.
pub async fn check(cluster: &Cluster) -> anyhow::Result<()> {
    let namespaces = cluster.api::<Namespace>(None);
    let ours = watcher::Config::default().labels(TEST_NAMESPACES);
    let what = "namespaces of the tests are gone";
    wait::until(namespaces, ours, what, PATIENCE, |found| found.is_empty()).await?;
    poll_until("nothing is left of the pods", PATIENCE, || async {
        let traces = traces(cluster).await?;
        Ok(if traces.is_empty() {
            Ok(())
        } else {
            Err(traces.join("\n"))
        })
    })
    .await
}

/// What is left of pods on the node, a line each.
async fn traces(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let containerd = [
        vec!["crictl", "pods", "-q"],
        vec!["crictl", "ps", "-aq"],
        vec![cluster.fact("CTR"), "containers", "ls", "-q"],
        vec![cluster.fact("CTR"), "tasks", "ls", "-q"],
    ];
    let asked = containerd.iter().map(|command| async move {
        let answer = cluster.exec(command).await?;
        anyhow::Ok(
            answer
                .lines()
                .map(|id| format!("{}: {id}", command.join(" ")))
                .collect::<Vec<_>>(),
        )
    });
    let mut traces: Vec<String> = try_join_all(asked).await?.concat();
    traces.extend(mounts(&cluster.path("KUBELET_ROOT").join("pods"))?);
    traces.extend(files(cluster)?);
    if !cluster.containerd_was_ended() {
        traces.extend(networks(cluster).await?);
    }
    Ok(traces)
}

/// What containerd makes for a sandbox's network: links, namespaces, addresses.
async fn networks(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let links = cluster.exec(["ip", "-oneline", "link"]).await?;
    let veths = links
        .lines()
        .filter(|link| !link.contains(": lo:") && !link.contains(": eth0@"));
    let mut traces: Vec<String> = veths.map(|link| format!("link: {link}")).collect();
    traces.extend(mounts(&cluster.path("DIR").join("run/containerd"))?);
    for network in entries(&cluster.path("DIR").join("run/ipam"))? {
        let addresses = entries(&network)?.into_iter().filter(|file| {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            name.parse::<std::net::IpAddr>().is_ok()
        });
        traces.extend(addresses.map(|file| format!("address: {}", file.display())));
    }
    Ok(traces)
}

/// Mounts below a directory.
fn mounts(directory: &Path) -> anyhow::Result<Vec<String>> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    let points = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(Path::new);
    let below = points.filter(|point| point.starts_with(directory) && *point != directory);
    Ok(below
        .map(|point| format!("mount: {}", point.display()))
        .collect())
}

/// Directories of pods, of their logs, and cgroups.
fn files(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let mut found = entries(&cluster.path("KUBELET_ROOT").join("pods"))?;
    found.extend(entries(cluster.path("POD_LOGS_DIR"))?);
    let of_this_cluster = |link: &PathBuf| {
        std::fs::read_link(link).is_ok_and(|target| target.starts_with(cluster.path("DIR")))
    };
    found.extend(
        entries(Path::new("/var/log/containers"))?
            .into_iter()
            .filter(of_this_cluster),
    );
    let root = cluster.fact("CGROUP_ROOT").trim_start_matches('/');
    let mut hierarchies = entries(Path::new("/sys/fs/cgroup"))?;
    hierarchies.push("/sys/fs/cgroup".into());
    for hierarchy in hierarchies {
        for class in ["kubepods", "kubepods/burstable", "kubepods/besteffort"] {
            let cgroups = entries(&hierarchy.join(root).join(class))?;
            found.extend(cgroups.into_iter().filter(|path| {
                path.file_name()
                    .is_some_and(|name| name.to_string_lossy().starts_with("pod"))
            }));
        }
    }
    Ok(found
        .iter()
        .map(|path| format!("file: {}", path.display()))
        .collect())
}

/// What a directory holds; nothing, if there is no such directory.
fn entries(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error)
            if [
                std::io::ErrorKind::NotFound,
                std::io::ErrorKind::NotADirectory,
            ]
            .contains(&error.kind()) =>
        {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error).context(directory.display().to_string()),
    };
    entries.map(|entry| Ok(entry?.path())).collect()
}
