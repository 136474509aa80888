//! The Node object and its Lease: what a scheduler and a person learn of this machine.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use crate::harness::{Scene, Test, condition, number, tests, text};

pub const TESTS: &[Test] = tests!(Shared:
    the_node_has_labels_and_addresses,
    capacity_is_the_machines_and_allocatable_is_less_the_reserved,
    the_conditions_are_upstreams,
    the_node_says_what_it_runs_on,
    the_node_lists_its_images,
    the_lease_is_renewed,
    the_node_tells_its_start,
);

async fn node(t: &Scene) -> anyhow::Result<Value> {
    t.get::<Node>(t.cluster.node_name()).await
}

async fn the_node_has_labels_and_addresses(t: Scene) -> anyhow::Result<()> {
    let node = node(&t).await?;
    let name = t.cluster.node_name();
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let labels = &node["metadata"]["labels"];
    for (label, value) in [
        ("kubernetes.io/hostname", name),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", arch),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", arch),
    ] {
        ensure!(labels[label] == value, "{label}: {labels}");
    }
    let address = t.cluster.fact("NODE_IP");
    let addresses = json!([
        { "type": "InternalIP", "address": address },
        { "type": "Hostname", "address": name },
    ]);
    ensure!(
        node["status"]["addresses"] == addresses,
        "{}",
        node["status"]["addresses"]
    );
    ensure!(
        number(&node, "/status/daemonEndpoints/kubeletEndpoint/Port") == 10250,
        "{}",
        node["status"]
    );
    let annotations = &node["metadata"]["annotations"];
    let attach = "volumes.kubernetes.io/controller-managed-attach-detach";
    ensure!(annotations[attach] == "true", "{annotations}");
    Ok(())
}

const KIB: i128 = 1 << 10;
const MIB: i128 = 1 << 20;

/// A quantity in thousandths.
fn quantity(text: &str) -> anyhow::Result<i128> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let unit = match suffix {
        "m" => 1,
        "" => 1000,
        "Ki" => 1000 * KIB,
        "Mi" => 1000 * MIB,
        "Gi" => 1000 * MIB * KIB,
        _ => anyhow::bail!("quantity {text}"),
    };
    Ok(number
        .parse::<i128>()
        .with_context(|| format!("quantity {text}"))?
        * unit)
}

async fn capacity_is_the_machines_and_allocatable_is_less_the_reserved(
    t: Scene,
) -> anyhow::Result<()> {
    let node = node(&t).await?;
    let read = |what: &str| quantity(text(&node, &format!("/status/{what}")));
    let cores = std::fs::read_to_string("/proc/cpuinfo")?;
    let cores = i128::try_from(
        cores
            .lines()
            .filter(|line| line.starts_with("processor"))
            .count(),
    )?;
    ensure!(
        read("capacity/cpu")? == cores * 1000,
        "{}",
        node["status"]["capacity"]
    );
    let meminfo = std::fs::read_to_string("/proc/meminfo")?;
    let total = meminfo
        .split_whitespace()
        .nth(1)
        .context("MemTotal")?
        .parse::<i128>()?
        * KIB;
    ensure!(
        read("capacity/memory")? == total * 1000,
        "{}",
        node["status"]["capacity"]
    );
    ensure!(
        read("capacity/pods")? == 110_000,
        "{}",
        node["status"]["capacity"]
    );

    // kubeReserved and systemReserved of the harness's drop-in, and the hard eviction
    // thresholds of hack/cluster.
    let reserved = read("capacity/cpu")? - read("allocatable/cpu")?;
    ensure!(reserved == 80, "{}", node["status"]["allocatable"]);
    let reserved = read("capacity/memory")? - read("allocatable/memory")?;
    ensure!(
        reserved == (64 + 32 + 100) * MIB * 1000,
        "{}",
        node["status"]["allocatable"]
    );
    let disk = read("capacity/ephemeral-storage")?;
    let reserved = disk - read("allocatable/ephemeral-storage")?;
    // One per cent; whatever the rounding.
    ensure!(
        (reserved - disk / 100).abs() < MIB * 1000,
        "{}",
        node["status"]["allocatable"]
    );
    ensure!(
        read("allocatable/pods")? == 110_000,
        "{}",
        node["status"]["allocatable"]
    );
    Ok(())
}

async fn the_conditions_are_upstreams(t: Scene) -> anyhow::Result<()> {
    let node = node(&t).await?;
    let wanted = [
        (
            "MemoryPressure",
            "False",
            "KubeletHasSufficientMemory",
            "kubelet has sufficient memory available",
        ),
        (
            "DiskPressure",
            "False",
            "KubeletHasNoDiskPressure",
            "kubelet has no disk pressure",
        ),
        (
            "PIDPressure",
            "False",
            "KubeletHasSufficientPID",
            "kubelet has sufficient PID available",
        ),
        (
            "Ready",
            "True",
            "KubeletReady",
            "kubelet is posting ready status",
        ),
    ];
    let conditions = node["status"]["conditions"]
        .as_array()
        .context("conditions")?;
    ensure!(conditions.len() == wanted.len(), "{conditions:?}");
    for (kind, status, reason, message) in wanted {
        let condition = condition(&node, kind);
        ensure!(
            condition["status"] == status && condition["reason"] == reason,
            "{condition}"
        );
        // Ready may add a warning.
        ensure!(
            text(condition, "/message").starts_with(message),
            "{condition}"
        );
        for time in ["/lastHeartbeatTime", "/lastTransitionTime"] {
            ensure!(!text(condition, time).is_empty(), "{condition}");
        }
    }
    Ok(())
}

async fn the_node_says_what_it_runs_on(t: Scene) -> anyhow::Result<()> {
    let node = node(&t).await?;
    let info = &node["status"]["nodeInfo"];
    let read = |path: &str| anyhow::Ok(std::fs::read_to_string(path)?.trim().to_owned());
    ensure!(
        info["bootID"] == read("/proc/sys/kernel/random/boot_id")?,
        "{info}"
    );
    ensure!(
        info["kernelVersion"] == read("/proc/sys/kernel/osrelease")?,
        "{info}"
    );
    ensure!(info["operatingSystem"] == "linux", "{info}");
    let runtime = format!(
        "containerd://{}",
        t.cluster
            .fact("CONTAINERD")
            .split('.')
            .next()
            .unwrap_or_default()
    );
    let shown = text(info, "/containerRuntimeVersion").replace("//v", "//");
    ensure!(shown.starts_with(&runtime), "{info}");
    ensure!(
        text(info, "/kubeletVersion").starts_with("v1.36."),
        "{info}"
    );
    for field in ["/osImage", "/machineID", "/systemUUID"] {
        ensure!(info.pointer(field).is_some_and(Value::is_string), "{info}");
    }
    let handlers = node["status"]["runtimeHandlers"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let two = t.cluster.fact("CONTAINERD") == "2";
    // containerd tells its handlers' features from 2.0 on.
    ensure!(
        !two || handlers.iter().any(|handler| handler["name"] == "runc"),
        "{handlers:?}"
    );
    Ok(())
}

async fn the_node_lists_its_images(t: Scene) -> anyhow::Result<()> {
    let listed = |node: &Value| {
        let images = node["status"]["images"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        images.iter().any(|image| {
            number(image, "/sizeBytes") > 0
                && image["names"]
                    .as_array()
                    .is_some_and(|names| names.iter().any(|name| name == crate::harness::AGNHOST))
        })
    };
    t.until::<Node>(t.cluster.node_name(), "lists its images", listed)
        .await?;
    Ok(())
}

async fn the_lease_is_renewed(t: Scene) -> anyhow::Result<()> {
    let leases = Scene {
        namespace: "kube-node-lease".to_owned(),
        ..t.clone()
    };
    let name = t.cluster.node_name();
    let lease = leases
        .until::<Lease>(name, "exists", Value::is_object)
        .await?;
    ensure!(lease["spec"]["holderIdentity"] == name, "{}", lease["spec"]);
    ensure!(
        lease["spec"]["leaseDurationSeconds"] == 40,
        "{}",
        lease["spec"]
    );
    let renewed = |lease: &Value| text(lease, "/spec/renewTime").to_owned();
    let mut last = renewed(&lease);
    for _ in 0..2 {
        let later = |lease: &Value| renewed(lease) > last;
        let since = Instant::now();
        let lease = leases.until::<Lease>(name, "is renewed", later).await?;
        ensure!(
            since.elapsed() < Duration::from_secs(30),
            "renewed after {:?}",
            since.elapsed()
        );
        last = renewed(&lease);
    }
    let owned = |lease: &Value| {
        text(lease, "/metadata/ownerReferences/0/kind") == "Node"
            && text(lease, "/metadata/ownerReferences/0/name") == name
    };
    leases
        .until::<Lease>(name, "belongs to the Node", owned)
        .await?;
    Ok(())
}

async fn the_node_tells_its_start(t: Scene) -> anyhow::Result<()> {
    let default = Scene {
        namespace: "default".to_owned(),
        ..t.clone()
    };
    let name = t.cluster.node_name();
    let of_node = |reason: &str| format!("Node {name} status is now: {reason}");
    for (reason, message) in [
        ("Starting", "Starting kubelet.".to_owned()),
        ("NodeReady", of_node("NodeReady")),
        (
            "NodeHasSufficientMemory",
            of_node("NodeHasSufficientMemory"),
        ),
        ("NodeHasNoDiskPressure", of_node("NodeHasNoDiskPressure")),
        ("NodeHasSufficientPID", of_node("NodeHasSufficientPID")),
        (
            "NodeAllocatableEnforced",
            "Updated Node Allocatable limit across pods".to_owned(),
        ),
    ] {
        let event = default
            .event(name, reason, |shown| shown == message)
            .await?;
        ensure!(event["type"] == "Normal", "{event}");
        ensure!(event["involvedObject"]["kind"] == "Node", "{event}");
    }
    Ok(())
}
