//! Resources of a pod as a whole, and limits that nobody asked for.

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::harness::{Cgroup, FOREVER, Scene, Test, is_ready, shell, tests, text};
use crate::lifecycle::container_id;

pub const TESTS: &[Test] = tests!(Shared:
    a_pods_own_limits_bind_its_containers,
    a_pods_own_resources_decide_its_class,
    containers_share_what_the_pod_asks_for,
    huge_pages_are_nobodys_unless_asked_for,
    pods_may_have_as_many_processes_as_the_node,
);

const MIB: i64 = 1 << 20;

async fn with_resources(t: &Scene, name: &str, resources: Value) -> anyhow::Result<Value> {
    let containers = [shell("main", FOREVER), shell("side", FOREVER)];
    let spec = json!({ "resources": resources, "containers": containers });
    t.pod(name, spec).await?;
    t.pod_until(name, "is ready", is_ready).await
}

fn cgroups(t: &Scene, pod: &Value, class: &str) -> anyhow::Result<(Cgroup, Cgroup)> {
    let of_pod = format!("kubepods{class}/pod{}", text(pod, "/metadata/uid"));
    let of_container = format!("{of_pod}/{}", container_id(pod, "main")?);
    let (of_pod, of_container) = (
        Cgroup::new(&t.cluster, &of_pod),
        Cgroup::new(&t.cluster, &of_container),
    );
    ensure!(of_pod.exists() && of_container.exists(), "no such cgroups");
    Ok((of_pod, of_container))
}

async fn a_pods_own_limits_bind_its_containers(t: Scene) -> anyhow::Result<()> {
    let resources = json!({
        "requests": { "cpu": "100m", "memory": "32Mi" },
        "limits": { "cpu": "200m", "memory": "64Mi" },
    });
    let pod = with_resources(&t, "whole", resources).await?;
    let (of_pod, of_container) = cgroups(&t, &pod, "/burstable")?;
    let shares = of_pod.cpu_shares();
    ensure!(shares.is_none_or(|shares| shares == 102), "{shares:?}");
    // The containers have no limits of their own.
    for cgroup in [&of_pod, &of_container] {
        let quota = cgroup.cpu_quota();
        ensure!(quota == Some(20_000), "{quota:?}");
        let memory = cgroup.memory_limit();
        ensure!(memory == Some(64 * MIB), "{memory:?}");
    }
    Ok(())
}

async fn a_pods_own_resources_decide_its_class(t: Scene) -> anyhow::Result<()> {
    let resources = json!({ "limits": { "cpu": "100m", "memory": "32Mi" } });
    let pod = with_resources(&t, "sure", resources).await?;
    let class = text(&pod, "/status/qosClass");
    ensure!(class == "Guaranteed", "{class}");
    let (of_pod, _) = cgroups(&t, &pod, "")?;
    let memory = of_pod.memory_limit();
    ensure!(memory == Some(32 * MIB), "{memory:?}");
    Ok(())
}

/// What the pod asks for counts for each container when the kernel chooses whom to kill.
async fn containers_share_what_the_pod_asks_for(t: Scene) -> anyhow::Result<()> {
    let mut scores = Vec::new();
    for (name, memory) in [("small", "1Mi"), ("large", "2Gi")] {
        let resources = json!({ "requests": { "memory": memory } });
        let pod = with_resources(&t, name, resources).await?;
        let ran = t
            .kubectl(&[
                "exec",
                name,
                "-c",
                "main",
                "--",
                "cat",
                "/proc/1/oom_score_adj",
            ])
            .await?;
        let score: i64 = ran.text()?.trim().parse().context("a score")?;
        ensure!((3..=999).contains(&score), "{score} of {}", pod["metadata"]);
        scores.push(score);
    }
    ensure!(scores[0] > scores[1], "{scores:?}");
    Ok(())
}

async fn huge_pages_are_nobodys_unless_asked_for(t: Scene) -> anyhow::Result<()> {
    let pod = t
        .ready_pod("plain", json!([shell("main", FOREVER)]))
        .await?;
    let (of_pod, _) = cgroups(&t, &pod, "/besteffort")?;
    let file = if Cgroup::unified() {
        "hugetlb.2MB.max"
    } else {
        "hugetlb.2MB.limit_in_bytes"
    };
    // Not every kernel can limit them.
    let limit = of_pod.text("hugetlb", file);
    ensure!(
        limit.as_deref().is_none_or(|limit| limit == "0"),
        "{limit:?}"
    );
    Ok(())
}

async fn pods_may_have_as_many_processes_as_the_node(t: Scene) -> anyhow::Result<()> {
    let pod = t
        .ready_pod("plain", json!([shell("main", FOREVER)]))
        .await?;
    let (of_pod, _) = cgroups(&t, &pod, "/besteffort")?;
    let limit = of_pod.text("pids", "pids.max");
    ensure!(limit.as_deref() == Some("max"), "{limit:?}");
    Ok(())
}
