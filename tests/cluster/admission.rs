//! What the node itself refuses: pods that were bound to it past the scheduler, and
//! who has to go for a critical pod.

use anyhow::ensure;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::harness::{FOREVER, Scene, Test, condition, container, is_ready, shell, tests, text};
use crate::lifecycle::container_id;
use crate::static_pods::{Manifest, manifest, mirror_name};

pub const TESTS: &[Test] = tests!(Shared:
    a_pod_of_another_system_is_refused,
    a_pod_for_other_labels_is_refused,
    a_pod_that_asks_for_more_than_there_is_is_refused,
    a_port_of_the_node_is_given_once,
    an_unsafe_sysctl_is_refused,
    a_safe_sysctl_is_set_however_it_is_written,
);

pub const OWN_TESTS: &[Test] = tests!(Own:
    a_restart_does_not_judge_running_pods_anew,
    others_make_room_for_a_static_pod,
);

/// A pod on the test's node, past the scheduler.
async fn bound(t: &Scene, name: &str, mut spec: Value) -> anyhow::Result<Value> {
    spec["nodeName"] = t.cluster.node_name().into();
    if spec.get("containers").is_none() {
        spec["containers"] = json!([shell("main", FOREVER)]);
    }
    t.pod(name, spec).await
}

/// Waits for the refusal of a pod, in its status and as an event.
async fn is_refused(t: &Scene, name: &str, reason: &str, message: &str) -> anyhow::Result<()> {
    let failed = |pod: &Value| text(pod, "/status/phase") == "Failed";
    let pod = t.pod_until(name, "is refused", failed).await?;
    let status = &pod["status"];
    ensure!(text(status, "/reason") == reason, "{status}");
    let told = text(status, "/message");
    ensure!(
        told.starts_with("Pod was rejected: ") && told.contains(message),
        "{status}"
    );
    ensure!(status.get("containerStatuses").is_none(), "{status}");
    t.event(name, reason, |text| text.contains(message)).await?;
    Ok(())
}

async fn a_pod_of_another_system_is_refused(t: Scene) -> anyhow::Result<()> {
    bound(&t, "foreign", json!({ "os": { "name": "windows" } })).await?;
    let message = "Failed to admit pod as the OS field doesn't match node OS";
    is_refused(&t, "foreign", "PodOSNotSupported", message).await
}

async fn a_pod_for_other_labels_is_refused(t: Scene) -> anyhow::Result<()> {
    let selector = json!({ "nodeSelector": { "example.com/nowhere": "true" } });
    bound(&t, "selects", selector).await?;
    let message =
        "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
    is_refused(&t, "selects", "NodeAffinity", message).await
}

async fn a_pod_that_asks_for_more_than_there_is_is_refused(t: Scene) -> anyhow::Result<()> {
    let mut main = shell("main", FOREVER);
    main["resources"] = json!({ "requests": { "cpu": "4000" } });
    bound(&t, "large", json!({ "containers": [main] })).await?;
    let message = "Node didn't have enough resource: cpu, requested: 4000000, used: ";
    is_refused(&t, "large", "OutOfcpu", message).await
}

async fn a_port_of_the_node_is_given_once(t: Scene) -> anyhow::Result<()> {
    let with_port = |port: u16, protocol: &str| {
        let mut main = shell("main", FOREVER);
        main["ports"] = json!([
            { "containerPort": 80, "hostPort": port, "protocol": protocol },
        ]);
        json!({ "containers": [main] })
    };
    bound(&t, "first", with_port(46_311, "TCP")).await?;
    t.pod_until("first", "is ready", is_ready).await?;
    bound(&t, "second", with_port(46_311, "TCP")).await?;
    let message = "Predicate NodePorts failed: node(s) didn't have free ports for the requested \
                   pod ports";
    is_refused(&t, "second", "NodePorts", message).await?;
    bound(&t, "third", with_port(46_311, "UDP")).await?;
    t.pod_until("third", "is ready", is_ready).await?;
    // Once the first is gone, the port is free.
    t.delete::<Pod>("first").await?;
    t.gone::<Pod>("first").await?;
    bound(&t, "fourth", with_port(46_311, "TCP")).await?;
    t.pod_until("fourth", "is ready", is_ready).await?;
    Ok(())
}

fn with_sysctl(name: &str, value: &str, script: &str) -> Value {
    json!({
        "securityContext": { "sysctls": [{ "name": name, "value": value }] },
        "containers": [shell("main", script)],
    })
}

async fn an_unsafe_sysctl_is_refused(t: Scene) -> anyhow::Result<()> {
    let spec = with_sysctl("kernel.msgmax", "65536", FOREVER);
    bound(&t, "unsafe", spec).await?;
    let message = "forbidden sysctl: \"kernel.msgmax\" not allowlisted";
    is_refused(&t, "unsafe", "SysctlForbidden", message).await
}

async fn a_safe_sysctl_is_set_however_it_is_written(t: Scene) -> anyhow::Result<()> {
    for (pod, name) in [
        ("dots", "kernel.shm_rmid_forced"),
        ("slashes", "kernel/shm_rmid_forced"),
    ] {
        let spec = with_sysctl(name, "1", "cat /proc/sys/kernel/shm_rmid_forced");
        let (_, log) = t.run_to_end(pod, spec).await?;
        ensure!(log.trim() == "1", "{name}: {log:?}");
    }
    Ok(())
}

async fn label(t: &Scene, value: Value) -> anyhow::Result<()> {
    let change = json!({ "metadata": { "labels": { "example.com/zone": value } } });
    let change = Patch::Merge(change);
    t.api::<Node>()
        .patch(t.cluster.node_name(), &PatchParams::default(), &change)
        .await?;
    Ok(())
}

async fn a_restart_does_not_judge_running_pods_anew(t: Scene) -> anyhow::Result<()> {
    label(&t, json!("a")).await?;
    let selector = json!({ "example.com/zone": "a" });
    bound(&t, "stays", json!({ "nodeSelector": selector })).await?;
    let before = t.pod_until("stays", "is ready", is_ready).await?;
    label(&t, Value::Null).await?;
    t.cluster.ctl("stop", "kubelet").await?;
    t.cluster.ctl("start", "kubelet").await?;
    // New pods are judged by what is there now.
    bound(&t, "late", json!({ "nodeSelector": selector })).await?;
    is_refused(&t, "late", "NodeAffinity", "Predicate NodeAffinity failed").await?;
    let after = t.pod_until("stays", "is ready", is_ready).await?;
    ensure!(
        container_id(&after, "main")? == container_id(&before, "main")?,
        "{}",
        after["status"]
    );
    Ok(())
}

async fn others_make_room_for_a_static_pod(t: Scene) -> anyhow::Result<()> {
    let node = t.get::<Node>(t.cluster.node_name()).await?;
    let cpu = text(&node, "/status/allocatable/cpu");
    let milli: u32 = match cpu.strip_suffix('m') {
        Some(milli) => milli.parse()?,
        None => cpu.parse::<u32>()? * 1000,
    };
    let asking = |milli: u32| {
        let mut main = shell("main", FOREVER);
        main["resources"] = json!({ "requests": { "cpu": format!("{milli}m") } });
        json!([main])
    };
    let most = asking(milli * 6 / 10);
    bound(&t, "goes", json!({ "containers": most.clone() })).await?;
    t.pod_until("goes", "is ready", is_ready).await?;
    bound(&t, "stays", json!({})).await?;
    t.pod_until("stays", "is ready", is_ready).await?;

    let mut critical = manifest(&t, "critical", FOREVER);
    critical["spec"]["containers"] = most;
    let _manifest = Manifest::write(&t, "critical.json", &critical.to_string())?;
    let ended = |pod: &Value| text(pod, "/status/phase") == "Failed";
    let goes = t.pod_until("goes", "makes room", ended).await?;
    ensure!(
        text(&goes, "/status/reason") == "Preempting"
            && text(&goes, "/status/message") == "Preempted in order to admit critical pod",
        "{}",
        goes["status"]
    );
    let disruption = condition(&goes, "DisruptionTarget");
    ensure!(
        text(disruption, "/status") == "True"
            && text(disruption, "/reason") == "TerminationByKubelet",
        "{}",
        goes["status"]
    );
    t.event("goes", "Preempting", |text| {
        text == "Preempted in order to admit critical pod"
    })
    .await?;
    let runs = |pod: &Value| container(pod, "main")["ready"] == true;
    t.pod_until(&mirror_name(&t, "critical"), "runs", runs)
        .await?;
    t.pod_until("stays", "is ready", is_ready).await?;
    Ok(())
}
