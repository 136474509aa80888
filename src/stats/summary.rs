//! `/stats/summary`. Pure; members and their names are upstream's
//! (`k8s.io/kubelet/pkg/apis/stats/v1alpha1`). What is not known is left out.

mod convert;
mod fs;

use jiff::Timestamp;
use serde::Serialize;

use super::model::{GroupRole, Snapshot};
use convert::{cpu, io, memory, network, swap};

/// How much of it is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    Everything,
    /// `?only_cpu_and_memory=true`.
    CpuAndMemory,
}

#[derive(Debug, Serialize)]
pub struct Summary {
    node: NodeStats,
    pods: Vec<PodStats>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeStats {
    node_name: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    system_containers: Vec<ContainerStats>,
    start_time: Time,
    #[serde(flatten)]
    usage: UsageStats,
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<NetworkStats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fs: Option<FsStats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    runtime: Option<RuntimeStats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rlimit: Option<RlimitStats>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PodStats {
    pod_ref: PodReference,
    start_time: Time,
    containers: Vec<ContainerStats>,
    #[serde(flatten)]
    usage: UsageStats,
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<NetworkStats>,
    #[serde(rename = "volume", skip_serializing_if = "Vec::is_empty")]
    volumes: Vec<VolumeStats>,
    #[serde(rename = "ephemeral-storage", skip_serializing_if = "Option::is_none")]
    ephemeral_storage: Option<FsStats>,
    #[serde(rename = "process_stats", skip_serializing_if = "Option::is_none")]
    process_stats: Option<ProcessStats>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ContainerStats {
    name: String,
    /// Null where it is not known: the member has to be there.
    start_time: Option<Time>,
    #[serde(flatten)]
    usage: UsageStats,
    #[serde(skip_serializing_if = "Option::is_none")]
    rootfs: Option<FsStats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logs: Option<FsStats>,
}

/// What nodes, pods and containers have in common.
#[derive(Debug, Serialize)]
struct UsageStats {
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu: Option<CpuStats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<MemoryStats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    io: Option<IoStats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    swap: Option<SwapStats>,
}

#[derive(Debug, Serialize)]
struct PodReference {
    name: String,
    namespace: String,
    uid: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct CpuStats {
    time: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage_nano_cores: Option<u64>,
    usage_core_nano_seconds: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<PsiStats>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct MemoryStats {
    time: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    available_bytes: Option<u64>,
    usage_bytes: u64,
    working_set_bytes: u64,
    rss_bytes: u64,
    page_faults: u64,
    major_page_faults: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<PsiStats>,
}

#[derive(Debug, Serialize)]
struct IoStats {
    time: Time,
    psi: PsiStats,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SwapStats {
    time: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    swap_available_bytes: Option<u64>,
    swap_usage_bytes: u64,
}

#[derive(Debug, Serialize)]
struct PsiStats {
    full: PsiData,
    some: PsiData,
}

#[derive(Debug, Serialize)]
struct PsiData {
    total: u64,
    avg10: f64,
    avg60: f64,
    avg300: f64,
}

#[derive(Debug, Serialize)]
struct NetworkStats {
    time: Time,
    /// Of the primary interface.
    #[serde(flatten)]
    primary: Option<InterfaceStats>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    interfaces: Vec<InterfaceStats>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct InterfaceStats {
    name: String,
    rx_bytes: u64,
    rx_errors: u64,
    tx_bytes: u64,
    tx_errors: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct FsStats {
    time: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    available_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    capacity_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    used_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inodes_free: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inodes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inodes_used: Option<u64>,
}

#[derive(Debug, Serialize)]
struct VolumeStats {
    #[serde(flatten)]
    fs: FsStats,
    name: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RuntimeStats {
    #[serde(skip_serializing_if = "Option::is_none")]
    image_fs: Option<FsStats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container_fs: Option<FsStats>,
}

#[derive(Debug, Serialize)]
struct RlimitStats {
    time: Time,
    maxpid: u64,
    curproc: u64,
}

#[derive(Debug, Serialize)]
struct ProcessStats {
    process_count: u64,
}

/// A moment, in whole seconds as the API writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Time(Timestamp);

impl Serialize for Time {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0.strftime("%Y-%m-%dT%H:%M:%SZ"))
    }
}

/// The summary of a snapshot that was taken in
/// [`Detail::Summary`](super::Detail::Summary) or more.
#[must_use]
pub fn summary(snapshot: &Snapshot, node_name: &str, extent: Extent) -> Summary {
    Summary {
        node: node(snapshot, node_name, extent),
        pods: snapshot
            .pods
            .iter()
            .map(|pod| self::pod(pod, snapshot, extent))
            .collect(),
    }
}

fn node(snapshot: &Snapshot, node_name: &str, extent: Extent) -> NodeStats {
    let node = &snapshot.node;
    let everything = extent == Extent::Everything;
    let primary = node
        .network
        .as_ref()
        .and_then(|network| network.primary.as_deref());
    let processes = node.processes.filter(|_| everything);
    let disk = &node.disk;
    NodeStats {
        node_name: node_name.to_owned(),
        system_containers: system_containers(snapshot, extent),
        start_time: Time(node.started_at),
        usage: usage(&node.cgroup, extent),
        network: node
            .network
            .as_ref()
            .filter(|_| everything)
            .map(|node| network(&node.network, primary)),
        fs: disk.root.as_ref().filter(|_| everything).map(fs::stats),
        runtime: everything.then(|| RuntimeStats {
            image_fs: disk.images.as_ref().map(fs::stats),
            container_fs: disk.containers.as_ref().map(fs::stats),
        }),
        rlimit: processes.map(|processes| RlimitStats {
            time: Time(processes.at),
            maxpid: processes.max,
            curproc: processes.current,
        }),
    }
}

fn system_containers(snapshot: &Snapshot, extent: Extent) -> Vec<ContainerStats> {
    let name = |role| match role {
        GroupRole::Pods => Some("pods"),
        GroupRole::Agent => Some("kubelet"),
        GroupRole::Runtime => Some("runtime"),
        GroupRole::Class => None,
    };
    let groups = snapshot.groups.iter();
    groups
        .filter_map(|group| {
            Some(ContainerStats {
                name: name(group.role)?.to_owned(),
                start_time: group.started_at.map(Time),
                usage: usage(&group.cgroup, extent),
                rootfs: None,
                logs: None,
            })
        })
        .collect()
}

fn pod(pod: &super::model::PodUsage, snapshot: &Snapshot, extent: Extent) -> PodStats {
    let everything = extent == Extent::Everything;
    let processes = pod
        .containers
        .iter()
        .filter_map(|c| c.cgroup.reading.processes);
    let processes = processes
        .map(|processes| processes.count)
        .reduce(|a, b| a + b);
    PodStats {
        pod_ref: PodReference {
            name: pod.name.name.to_string(),
            namespace: pod.name.namespace.to_string(),
            uid: pod.uid.to_string(),
        },
        start_time: Time(pod.started_at),
        containers: pod
            .containers
            .iter()
            .map(|c| container(c, extent))
            .collect(),
        usage: match &pod.cgroup {
            Some(cgroup) => usage(cgroup, extent),
            None => UsageStats {
                cpu: None,
                memory: None,
                io: None,
                swap: None,
            },
        },
        // The runtime calls a pod's interface so.
        network: pod
            .network
            .as_ref()
            .filter(|_| everything)
            .map(|pod| network(pod, Some("eth0"))),
        volumes: if everything {
            fs::volumes(pod)
        } else {
            Vec::new()
        },
        ephemeral_storage: snapshot
            .node
            .disk
            .root
            .as_ref()
            .filter(|_| everything)
            .map(|root| fs::ephemeral_storage(pod, root)),
        process_stats: processes
            .filter(|_| everything)
            .map(|process_count| ProcessStats { process_count }),
    }
}

fn container(container: &super::model::ContainerUsage, extent: Extent) -> ContainerStats {
    let everything = extent == Extent::Everything;
    ContainerStats {
        name: container.name.clone(),
        start_time: Some(Time(container.created_at)),
        usage: usage(&container.cgroup, extent),
        rootfs: container
            .rootfs
            .as_ref()
            .filter(|_| everything)
            .map(fs::stats),
        logs: container
            .logs
            .as_ref()
            .filter(|_| everything)
            .map(fs::stats),
    }
}

fn usage(cgroup: &super::model::CgroupUsage, extent: Extent) -> UsageStats {
    let reading = &cgroup.reading;
    UsageStats {
        cpu: Some(cpu(reading)),
        memory: memory(reading),
        io: io(reading).filter(|_| extent == Extent::Everything),
        swap: swap(reading),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::samples;

    #[test]
    fn everything() {
        let snapshot = samples::snapshot();
        insta::assert_json_snapshot!(summary(&snapshot, "node-1", Extent::Everything));
    }

    #[test]
    fn only_cpu_and_memory() {
        let snapshot = samples::snapshot();
        insta::assert_json_snapshot!(summary(&snapshot, "node-1", Extent::CpuAndMemory));
    }
}
