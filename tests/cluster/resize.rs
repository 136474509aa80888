//! Other resources for pods that run.

use anyhow::ensure;
use serde_json::{Value, json};

use crate::harness::{Cgroup, FOREVER, Scene, Test, container, number, shell, tests, text};
use crate::lifecycle::container_id;

pub const TESTS: &[Test] = tests!(Shared:
    a_pod_gets_more_without_a_restart,
    a_pod_gets_less_without_a_restart,
    a_container_that_wants_it_is_restarted_for_a_resize,
    a_resize_that_the_node_has_no_room_for_waits,
);

const MIB: i64 = 1 << 20;

fn resources(cpu: &str, memory: &str) -> Value {
    json!({ "limits": { "cpu": cpu, "memory": memory }, "requests": { "cpu": cpu, "memory": memory } })
}

/// A ready pod of one container with these resources.
async fn ready(t: &Scene, name: &str, resources: Value, policy: Value) -> anyhow::Result<Value> {
    let mut main = shell("main", FOREVER);
    main["resources"] = resources;
    main["resizePolicy"] = policy;
    t.ready_pod(name, json!([main])).await
}

/// What `kubectl patch --subresource resize` does.
async fn resize(t: &Scene, name: &str, resources: Value) -> anyhow::Result<()> {
    let patch = json!({ "spec": { "containers": [{ "name": "main", "resources": resources }] } });
    let patch = patch.to_string();
    t.kubectl(&[
        "patch",
        "pod",
        name,
        "--subresource",
        "resize",
        "--patch",
        &patch,
    ])
    .await?
    .text()?;
    Ok(())
}

fn has(pod: &Value, kind: &str) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|c| c["type"] == kind)
}

fn shows(pod: &Value, resources: &Value) -> bool {
    let is_idle = !has(pod, "PodResizePending") && !has(pod, "PodResizeInProgress");
    is_idle && container(pod, "main")["resources"] == *resources
}

/// The cgroups of the pod, which is guaranteed, and of its container.
fn cgroups(t: &Scene, pod: &Value) -> anyhow::Result<[Cgroup; 2]> {
    let of_pod = format!("kubepods/pod{}", text(pod, "/metadata/uid"));
    let of_container = format!("{of_pod}/{}", container_id(pod, "main")?);
    Ok([&of_pod, &of_container].map(|path| Cgroup::new(&t.cluster, path)))
}

/// Resizes, waits until the status shows it, and looks at the kernel.
async fn changes_in_place(t: &Scene, name: &str, to: (&str, i64, i64)) -> anyhow::Result<()> {
    let (cpu, quota, mib) = to;
    let wanted = resources(cpu, &format!("{mib}Mi"));
    resize(t, name, wanted.clone()).await?;
    let pod = t
        .pod_until(name, "shows the new resources", |pod| shows(pod, &wanted))
        .await?;
    ensure!(
        number(container(&pod, "main"), "/restartCount") == 0,
        "{}",
        pod["status"]
    );
    for cgroup in cgroups(t, &pod)? {
        let (found_quota, memory) = (cgroup.cpu_quota(), cgroup.memory_limit());
        ensure!(found_quota == Some(quota), "{found_quota:?}");
        ensure!(memory == Some(mib * MIB), "{memory:?}");
    }
    t.event(name, "ResizeStarted", |message| {
        message.starts_with("Pod resize started: {")
    })
    .await?;
    t.event(name, "ResizeCompleted", |message| {
        message.starts_with("Pod resize completed: {")
    })
    .await?;
    Ok(())
}

async fn a_pod_gets_more_without_a_restart(t: Scene) -> anyhow::Result<()> {
    ready(&t, "grows", resources("100m", "64Mi"), json!([])).await?;
    changes_in_place(&t, "grows", ("200m", 20_000, 128)).await
}

async fn a_pod_gets_less_without_a_restart(t: Scene) -> anyhow::Result<()> {
    ready(&t, "shrinks", resources("200m", "128Mi"), json!([])).await?;
    changes_in_place(&t, "shrinks", ("100m", 10_000, 64)).await
}

async fn a_container_that_wants_it_is_restarted_for_a_resize(t: Scene) -> anyhow::Result<()> {
    let policy = json!([
        { "resourceName": "cpu", "restartPolicy": "NotRequired" },
        { "resourceName": "memory", "restartPolicy": "RestartContainer" },
    ]);
    ready(&t, "restarts", resources("100m", "64Mi"), policy).await?;
    let wanted = resources("100m", "128Mi");
    resize(&t, "restarts", wanted.clone()).await?;
    let restarted =
        |pod: &Value| shows(pod, &wanted) && number(container(pod, "main"), "/restartCount") == 1;
    let pod = t.pod_until("restarts", "was restarted", restarted).await?;
    for cgroup in cgroups(&t, &pod)? {
        let memory = cgroup.memory_limit();
        ensure!(memory == Some(128 * MIB), "{memory:?}");
    }
    t.event("restarts", "Killing", |message| {
        message == "Container main resize requires restart"
    })
    .await?;
    Ok(())
}

async fn a_resize_that_the_node_has_no_room_for_waits(t: Scene) -> anyhow::Result<()> {
    let small = resources("100m", "64Mi");
    // What is more than the whole node has is refused by the API server.
    ready(&t, "other", resources("600m", "64Mi"), json!([])).await?;
    ready(&t, "greedy", small.clone(), json!([])).await?;
    resize(&t, "greedy", resources("1500m", "64Mi")).await?;
    let waits = |pod: &Value| has(pod, "PodResizePending");
    let pod = t.pod_until("greedy", "has to wait", waits).await?;
    ensure!(
        container(&pod, "main")["resources"] == small,
        "{}",
        pod["status"]
    );
    // Taken back.
    resize(&t, "greedy", small.clone()).await?;
    let content = |pod: &Value| shows(pod, &small);
    let pod = t.pod_until("greedy", "waits no more", content).await?;
    ensure!(
        number(container(&pod, "main"), "/restartCount") == 0,
        "{}",
        pod["status"]
    );
    Ok(())
}
