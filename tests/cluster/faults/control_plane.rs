//! A control plane that the node runs itself, as static pods: the node must come up
//! from nothing, with nobody to ask.

use std::path::Path;

use anyhow::Context;
use k8s_openapi::api::apps::v1::ReplicaSet;
use serde_json::{Value, json};

use crate::harness::{
    BUSYBOX, FOREVER, PATIENCE, Scene, Test, container, number, poll_until, shell, tests,
};
use crate::static_pods::{Manifest, manifest, mirror_name};

pub const TESTS: &[Test] = tests!(Own:
    a_control_plane_of_static_pods_comes_up_from_nothing,
);

/// In the order in which they need each other.
const COMPONENTS: [&str; 4] = ["etcd", "apiserver", "controller-manager", "scheduler"];

/// The component as a static pod: the host's program, in a container that sees the
/// program, its keys and its data, and the node's network.
fn as_static_pod(t: &Scene, component: &str) -> anyhow::Result<Value> {
    let directory = t.cluster.path("DIR");
    let script = std::fs::read_to_string(directory.join("cmd").join(component))?;
    // Its cgroup is the pod's.
    let command = script.lines().filter(|line| !line.contains("cgroup.procs"));
    let command: Vec<&str> = command.collect();
    let program = command
        .iter()
        .find_map(|line| line.strip_prefix("exec "))
        .and_then(|line| line.split_whitespace().next())
        .context("a program to execute")?;
    let programs = Path::new(program).parent().context("its directory")?;
    let mounts = [
        ("programs", programs.to_owned()),
        ("keys", directory.join("pki")),
        ("data", directory.join("etcd")),
    ];
    let mut pod = manifest(t, component, "");
    pod["spec"]["hostNetwork"] = true.into();
    pod["spec"]["volumes"] = mounts
        .iter()
        .map(|(name, path)| json!({ "name": name, "hostPath": { "path": path } }))
        .collect();
    pod["spec"]["containers"] = json!([{
        "name": "main",
        "image": BUSYBOX,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", command.join("\n")],
        "volumeMounts": mounts
            .iter()
            .map(|(name, path)| json!({ "name": name, "mountPath": path }))
            .collect::<Vec<_>>(),
    }]);
    Ok(pod)
}

async fn a_control_plane_of_static_pods_comes_up_from_nothing(t: Scene) -> anyhow::Result<()> {
    t.cluster.ctl("stop", "kubelet").await?;
    for component in COMPONENTS.iter().rev() {
        t.cluster.ctl("stop", component).await?;
    }
    let mut manifests = Vec::new();
    for component in COMPONENTS {
        let pod = as_static_pod(&t, component)?.to_string();
        manifests.push(Manifest::write(&t, &format!("{component}.json"), &pod)?);
    }
    t.cluster.ctl("start", "kubelet").await?;

    let runs = |pod: &Value| container(pod, "main")["ready"] == true;
    for component in COMPONENTS {
        t.pod_until(&mirror_name(&t, component), "runs", runs)
            .await?;
    }
    // One pod by way of all four.
    let labels = json!({ "app": "web" });
    let template = json!({
        "metadata": { "labels": labels },
        "spec": { "terminationGracePeriodSeconds": 1, "containers": [shell("main", FOREVER)] },
    });
    let spec = json!({
        "replicas": 1,
        "selector": { "matchLabels": labels },
        "template": template,
    });
    t.apply::<ReplicaSet>("web", json!({ "spec": spec }))
        .await?;
    let is_ready = |set: &Value| number(set, "/status/readyReplicas") == 1;
    t.until::<ReplicaSet>("web", "is ready", is_ready).await?;

    // Back to a control plane that outlives the node, for the namespace's end.
    drop(manifests);
    let names = COMPONENTS.map(|component| mirror_name(&t, component));
    poll_until("the static pods are gone", PATIENCE, || async {
        let pods = t.cluster.crictl(&["pods"]).await?;
        let is_left = |pod: &&Value| names.iter().any(|name| pod["metadata"]["name"] == **name);
        let left = pods.iter().filter(is_left).count();
        Ok(if left == 0 {
            Ok(())
        } else {
            Err(format!("{left} sandboxes are left"))
        })
    })
    .await?;
    for component in COMPONENTS {
        t.cluster.ctl("start", component).await?;
    }
    Ok(())
}
