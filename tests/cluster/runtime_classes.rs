//! Runtime classes: which handler runs a pod, and what the sandbox costs.

use anyhow::ensure;
use k8s_openapi::api::node::v1::RuntimeClass;
use serde_json::{Value, json};

use crate::harness::{Cgroup, FOREVER, Scene, Test, is_ready, shell, tests, text};

pub const TESTS: &[Test] = tests!(Shared:
    a_class_names_the_handler,
    overhead_is_part_of_the_pods_cgroup,
    a_pod_waits_for_a_class_that_its_runtime_knows,
);

/// The handler of the cluster's runtime.
const HANDLER: &str = "runc";
const MIB: i64 = 1 << 20;

/// Makes a class of this test alone; it must be deleted in the end.
async fn class(t: &Scene, handler: &str, more: Value) -> anyhow::Result<String> {
    let name = t.namespace.clone();
    let mut class = json!({ "handler": handler });
    if !more.is_null() {
        class["overhead"] = more;
    }
    t.apply::<RuntimeClass>(&name, class).await?;
    Ok(name)
}

async fn a_class_names_the_handler(t: Scene) -> anyhow::Result<()> {
    let class = class(&t, HANDLER, Value::Null).await?;
    let spec = json!({ "runtimeClassName": class, "containers": [shell("main", FOREVER)] });
    t.pod("classy", spec).await?;
    let pod = t.pod_until("classy", "is ready", is_ready).await?;
    let uid = text(&pod, "/metadata/uid");
    let sandboxes = t.cluster.ready_sandboxes(uid).await?;
    ensure!(sandboxes.len() == 1, "{sandboxes:?}");
    let handler = text(&sandboxes[0], "/runtimeHandler");
    ensure!(handler == HANDLER, "{sandboxes:?}");
    t.delete::<RuntimeClass>(&class).await
}

async fn overhead_is_part_of_the_pods_cgroup(t: Scene) -> anyhow::Result<()> {
    let overhead = json!({ "podFixed": { "cpu": "100m", "memory": "20Mi" } });
    let class = class(&t, HANDLER, overhead).await?;
    let mut main = shell("main", FOREVER);
    main["resources"] = json!({ "limits": { "cpu": "100m", "memory": "30Mi" } });
    let spec = json!({ "runtimeClassName": class, "containers": [main] });
    t.pod("costly", spec).await?;
    let pod = t.pod_until("costly", "is ready", is_ready).await?;
    ensure!(pod["spec"]["overhead"]["cpu"] == "100m", "{}", pod["spec"]);
    let path = format!("kubepods/pod{}", text(&pod, "/metadata/uid"));
    let cgroup = Cgroup::new(&t.cluster, &path);
    ensure!(
        cgroup.memory_limit() == Some(50 * MIB),
        "{:?}",
        cgroup.memory_limit()
    );
    ensure!(
        cgroup.cpu_quota() == Some(20_000),
        "{:?}",
        cgroup.cpu_quota()
    );
    t.delete::<RuntimeClass>(&class).await
}

/// First the class is of a handler that the runtime does not know, then there is no class,
/// then a good one.
async fn a_pod_waits_for_a_class_that_its_runtime_knows(t: Scene) -> anyhow::Result<()> {
    let name = class(&t, "no-such-handler", Value::Null).await?;
    let spec = json!({ "runtimeClassName": name, "containers": [shell("main", FOREVER)] });
    t.pod("waits", spec).await?;
    let failed = "FailedCreatePodSandBox";
    t.event("waits", failed, |message| {
        message.contains("no-such-handler")
    })
    .await?;
    t.delete::<RuntimeClass>(&name).await?;
    let missing =
        format!("Failed to create pod sandbox: runtimeclass.node.k8s.io {name:?} not found");
    t.event("waits", failed, |message| message == missing)
        .await?;
    class(&t, HANDLER, Value::Null).await?;
    t.pod_until("waits", "is ready", is_ready).await?;
    t.delete::<RuntimeClass>(&name).await
}
