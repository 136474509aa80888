//! Requests and limits as the kernel has them: cgroups on the node.

use anyhow::ensure;
use serde_json::{Value, json};

use crate::harness::{Cgroup, FOREVER, Scene, Test, container, shell, tests, text};
use crate::lifecycle::container_id;

pub const TESTS: &[Test] = tests!(Shared:
    a_guaranteed_pod_has_its_limits_in_the_kernel,
    a_burstable_pod_has_its_share_in_the_kernel,
    a_best_effort_pod_has_the_least_share,
    the_least_of_the_containers_decides_the_class,
    the_status_shows_the_resources,
    a_container_over_its_memory_limit_is_killed_as_such,
);

const MIB: i64 = 1 << 20;

fn with_resources(name: &str, resources: Value) -> Value {
    let mut container = shell(name, FOREVER);
    container["resources"] = resources;
    container
}

/// The cgroups of a ready pod and of its container `main`, in a class's directory.
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

/// Whether the CPU share is as wanted, where the kernel has such a number.
fn has_shares(cgroup: &Cgroup, wanted: i64) -> bool {
    cgroup.cpu_shares().is_none_or(|shares| shares == wanted)
}

async fn a_guaranteed_pod_has_its_limits_in_the_kernel(t: Scene) -> anyhow::Result<()> {
    let resources = json!({ "limits": { "cpu": "200m", "memory": "64Mi" } });
    let pod = t
        .ready_pod("sure", json!([with_resources("main", resources)]))
        .await?;
    ensure!(
        text(&pod, "/status/qosClass") == "Guaranteed",
        "{}",
        pod["status"]
    );
    let (of_pod, of_container) = cgroups(&t, &pod, "")?;
    for cgroup in [&of_pod, &of_container] {
        ensure!(has_shares(cgroup, 204), "{:?}", cgroup.cpu_shares());
        ensure!(
            cgroup.cpu_quota() == Some(20_000),
            "{:?}",
            cgroup.cpu_quota()
        );
        ensure!(
            cgroup.memory_limit() == Some(64 * MIB),
            "{:?}",
            cgroup.memory_limit()
        );
    }
    Ok(())
}

async fn a_burstable_pod_has_its_share_in_the_kernel(t: Scene) -> anyhow::Result<()> {
    let first = json!({ "requests": { "cpu": "100m" }, "limits": { "cpu": "300m" } });
    let second = json!({ "requests": { "cpu": "50m", "memory": "16Mi" } });
    let containers = json!([
        with_resources("main", first),
        with_resources("side", second)
    ]);
    let pod = t.ready_pod("some", containers).await?;
    ensure!(
        text(&pod, "/status/qosClass") == "Burstable",
        "{}",
        pod["status"]
    );
    let (of_pod, of_container) = cgroups(&t, &pod, "/burstable")?;
    ensure!(has_shares(&of_pod, 153), "{:?}", of_pod.cpu_shares());
    // The second container has no limit, so the pod has none.
    ensure!(of_pod.cpu_quota().is_none(), "{:?}", of_pod.cpu_quota());
    ensure!(
        of_pod.memory_limit().is_none(),
        "{:?}",
        of_pod.memory_limit()
    );
    ensure!(
        has_shares(&of_container, 102),
        "{:?}",
        of_container.cpu_shares()
    );
    ensure!(
        of_container.cpu_quota() == Some(30_000),
        "{:?}",
        of_container.cpu_quota()
    );
    let class = Cgroup::new(&t.cluster, "kubepods/burstable");
    // Other tests' pods count too.
    ensure!(
        class.cpu_shares().is_none_or(|shares| shares >= 153),
        "{:?}",
        class.cpu_shares()
    );
    Ok(())
}

async fn a_best_effort_pod_has_the_least_share(t: Scene) -> anyhow::Result<()> {
    let pod = t.ready_pod("poor", json!([shell("main", FOREVER)])).await?;
    ensure!(
        text(&pod, "/status/qosClass") == "BestEffort",
        "{}",
        pod["status"]
    );
    let (of_pod, of_container) = cgroups(&t, &pod, "/besteffort")?;
    let class = Cgroup::new(&t.cluster, "kubepods/besteffort");
    for cgroup in [&class, &of_pod, &of_container] {
        ensure!(has_shares(cgroup, 2), "{:?}", cgroup.cpu_shares());
        ensure!(cgroup.cpu_quota().is_none(), "{:?}", cgroup.cpu_quota());
        ensure!(
            cgroup.memory_limit().is_none(),
            "{:?}",
            cgroup.memory_limit()
        );
    }
    Ok(())
}

async fn the_least_of_the_containers_decides_the_class(t: Scene) -> anyhow::Result<()> {
    let sure = json!({ "limits": { "cpu": "10m", "memory": "16Mi" } });
    let containers = json!([with_resources("main", sure), shell("side", FOREVER)]);
    let pod = t.ready_pod("mixed", containers).await?;
    ensure!(
        text(&pod, "/status/qosClass") == "Burstable",
        "{}",
        pod["status"]
    );
    let (_, of_container) = cgroups(&t, &pod, "/burstable")?;
    ensure!(
        of_container.memory_limit() == Some(16 * MIB),
        "{:?}",
        of_container.memory_limit()
    );
    Ok(())
}

async fn the_status_shows_the_resources(t: Scene) -> anyhow::Result<()> {
    let resources = json!({
        "requests": { "cpu": "100m", "memory": "32Mi" },
        "limits": { "cpu": "250m", "memory": "64Mi" },
    });
    let pod = t
        .ready_pod("shown", json!([with_resources("main", resources.clone())]))
        .await?;
    let status = container(&pod, "main");
    ensure!(status["resources"] == resources, "{status}");
    ensure!(
        status["allocatedResources"] == resources["requests"],
        "{status}"
    );
    Ok(())
}

async fn a_container_over_its_memory_limit_is_killed_as_such(t: Scene) -> anyhow::Result<()> {
    let mut main = shell(
        "main",
        "exec dd if=/dev/zero of=/dev/null bs=128M count=1000",
    );
    main["resources"] = json!({ "limits": { "memory": "32Mi" } });
    let (pod, _) = t
        .run_to_end("greedy", json!({ "containers": [main] }))
        .await?;
    let end = &container(&pod, "main")["state"]["terminated"];
    ensure!(
        end["reason"] == "OOMKilled" && end["exitCode"] == 137,
        "{end}"
    );
    ensure!(text(&pod, "/status/phase") == "Failed", "{}", pod["status"]);
    Ok(())
}
