//! Quality of service: the class of a pod, and what follows from it for
//! cgroups and for the kernel's out-of-memory killer.
//!
//! In: a pod's resources and the node's facts. Out: class, cgroup values,
//! shares of the QoS classes, `oom_score_adj`.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use serde::Serialize;

use super::cgroup::{PodCgroup, QosShares};
use super::facts::NodeFacts;
use super::model::DesiredPod;
use super::quantity::Quantity;
use super::resources::{self, CPU, MEMORY, Overhead, ResourceList, Resources};

/// Priorities from here on are the system's own.
const SYSTEM_CRITICAL_PRIORITY: i32 = 2_000_000_000;
const NODE_CRITICAL_CLASS: &str = "system-node-critical";

const GUARANTEED_OOM_SCORE: i64 = -997;
const BEST_EFFORT_OOM_SCORE: i64 = 1000;
/// Burstable containers stay between the other two classes.
const BURSTABLE_OOM_SCORES: (i64, i64) = (3, 999);

/// Name of the cgroup above all pods.
const PODS_CGROUP: &str = "kubepods";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum QosClass {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl QosClass {
    /// As in `status.qosClass`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }

    /// The cgroup of the class, below the root of the hierarchy given.
    #[must_use]
    pub fn cgroup(self, root: &str) -> String {
        let root = root.trim_end_matches('/');
        match self {
            Self::Guaranteed => format!("{root}/{PODS_CGROUP}"),
            Self::Burstable => format!("{root}/{PODS_CGROUP}/burstable"),
            Self::BestEffort => format!("{root}/{PODS_CGROUP}/besteffort"),
        }
    }
}

/// The class of a pod. What the API server wrote into the status stands, for
/// it may not change in a pod's life.
#[must_use]
pub fn class(pod: &Pod) -> QosClass {
    let recorded = pod.status.as_ref().and_then(|s| s.qos_class.as_deref());
    match recorded {
        Some("Guaranteed") => QosClass::Guaranteed,
        Some("Burstable") => QosClass::Burstable,
        Some("BestEffort") => QosClass::BestEffort,
        _ => pod
            .spec
            .as_ref()
            .map_or(QosClass::BestEffort, compute_class),
    }
}

/// CPU and memory, where asked for at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Pair {
    cpu: Option<Quantity>,
    memory: Option<Quantity>,
}

impl Pair {
    fn of(list: &ResourceList) -> Self {
        let positive = |name| list.get(name).filter(|amount| amount.is_positive());
        Self {
            cpu: positive(CPU),
            memory: positive(MEMORY),
        }
    }

    fn plus(self, other: Self) -> Self {
        let sum = |a: Option<Quantity>, b: Option<Quantity>| match (a, b) {
            (Some(a), Some(b)) => Some(a + b),
            (a, b) => a.or(b),
        };
        Self {
            cpu: sum(self.cpu, other.cpu),
            memory: sum(self.memory, other.memory),
        }
    }

    fn is_complete(self) -> bool {
        self.cpu.is_some() && self.memory.is_some()
    }
}

fn compute_class(spec: &PodSpec) -> QosClass {
    let at_pod_level = Resources::at_pod_level(spec);
    let members: Vec<Resources> = if !at_pod_level.is_empty() {
        vec![at_pod_level]
    } else {
        let init = spec.init_containers.iter().flatten();
        spec.containers
            .iter()
            .chain(init)
            .map(Resources::of)
            .collect()
    };
    let sum = |list: fn(&Resources) -> &ResourceList| {
        members.iter().fold(Pair::default(), |sum, member| {
            sum.plus(Pair::of(list(member)))
        })
    };
    let (requests, limits) = (sum(|r| &r.requests), sum(|r| &r.limits));
    let limited = members.iter().all(|r| Pair::of(&r.limits).is_complete());
    if requests == Pair::default() && limits == Pair::default() {
        QosClass::BestEffort
    } else if limited && requests == limits {
        QosClass::Guaranteed
    } else {
        QosClass::Burstable
    }
}

/// Whether the node must not give this pod up under pressure: static pods and
/// pods of system priority.
#[must_use]
pub fn is_critical(pod: &DesiredPod) -> bool {
    let spec = pod.pod.spec.as_ref();
    let priority = spec.and_then(|spec| spec.priority);
    pod.origin.is_static() || priority.is_some_and(|p| p >= SYSTEM_CRITICAL_PRIORITY)
}

fn is_node_critical(pod: &DesiredPod) -> bool {
    let spec = pod.pod.spec.as_ref();
    let class = spec.and_then(|spec| spec.priority_class_name.as_deref());
    is_critical(pod) && class == Some(NODE_CRITICAL_CLASS)
}

/// The cgroup of a pod; `None` where pods have none of their own.
#[must_use]
pub fn pod_cgroup(pod: &DesiredPod, node: &NodeFacts) -> Option<PodCgroup> {
    if !node.cgroup.per_qos {
        return None;
    }
    let class = class(&pod.pod);
    let sum = resources::requests_limits(&pod.pod, Overhead::Included);
    let period = micros(node.cgroup.cpu_quota_period);
    let cpu_bound =
        class == QosClass::Guaranteed || (class == QosClass::Burstable && sum.cpu_limited);
    let memory_bound =
        class == QosClass::Guaranteed || (class == QosClass::Burstable && sum.memory_limited);
    let quota = resources::cpu_quota(sum.limits.cpu().milli_value(), period);
    let milli_cpu = match class {
        QosClass::BestEffort => 0,
        QosClass::Guaranteed | QosClass::Burstable => sum.requests.cpu().milli_value(),
    };
    let pages = sum.requests.hugepages();
    Some(PodCgroup {
        uid: pod.uid.clone(),
        path: format!("{}/pod{}", class.cgroup(&node.cgroup.root), pod.uid),
        cpu_shares: unsigned(resources::cpu_shares(milli_cpu)),
        cpu_quota: Some(unsigned(quota))
            .filter(|quota| cpu_bound && node.cgroup.enforce_cpu_quota && *quota > 0),
        cpu_period: unsigned(period),
        memory_limit: Some(unsigned(sum.limits.memory().value()))
            .filter(|limit| memory_bound && *limit > 0),
        pids_limit: node.cgroup.pids_limit.filter(|limit| *limit > 0),
        hugepage_limits: node
            .hugepage_sizes
            .iter()
            .map(|size| (size.clone(), pages.get(size).copied().unwrap_or(0)))
            .collect(),
    })
}

/// The CPU shares of the QoS classes, given all pods of the node.
#[must_use]
pub fn shares<'a>(pods: impl Iterator<Item = &'a DesiredPod>) -> QosShares {
    let milli_cpu = pods
        .filter(|pod| class(&pod.pod) == QosClass::Burstable)
        .map(|pod| resources::requests_limits(&pod.pod, Overhead::Included))
        .map(|sum| sum.requests.cpu().milli_value())
        .fold(0i64, i64::saturating_add);
    QosShares {
        burstable: unsigned(resources::cpu_shares(milli_cpu)),
    }
}

/// How readily the kernel kills the container when the node (whose memory is
/// given in bytes) has none left: -1000 (never) to 1000 (first). The more of
/// the node a burstable container has asked for, the later its turn.
#[must_use]
pub fn oom_score_adj(pod: &DesiredPod, container: &Container, node_memory: i64) -> i64 {
    if is_node_critical(pod) {
        return GUARANTEED_OOM_SCORE;
    }
    match class(&pod.pod) {
        QosClass::Guaranteed => GUARANTEED_OOM_SCORE,
        QosClass::BestEffort => BEST_EFFORT_OOM_SCORE,
        QosClass::Burstable => burstable_oom_score(pod, container, node_memory),
    }
}

fn burstable_oom_score(pod: &DesiredPod, container: &Container, node_memory: i64) -> i64 {
    let request = |c: &Container| Resources::of(c).requests.memory().value();
    let Some(spec) = &pod.pod.spec else {
        return BURSTABLE_OOM_SCORES.1;
    };
    let extra = unclaimed_memory(spec);
    let mut memory = request(container).saturating_add(extra);
    let is_sidecar_of_pod = resources::is_sidecar(container)
        && spec
            .init_containers
            .iter()
            .flatten()
            .any(|c| c.name == container.name);
    if is_sidecar_of_pod {
        // A sidecar must not die before what it serves.
        let smallest = spec.containers.iter().map(request).min().unwrap_or(0);
        memory = memory.max(smallest.saturating_add(extra));
    }
    let used = i128::from(memory) * 1000 / i128::from(node_memory.max(1));
    let (lowest, highest) = BURSTABLE_OOM_SCORES;
    i64::try_from(1000 - used)
        .unwrap_or(lowest)
        .clamp(lowest, highest)
}

/// Each container's part of the pod-level memory request that no container
/// asked for. Bytes.
fn unclaimed_memory(spec: &PodSpec) -> i64 {
    let Some(pod) = Resources::at_pod_level(spec).requests.get(MEMORY) else {
        return 0;
    };
    let containers = spec.containers.len() + spec.init_containers.iter().flatten().count();
    let containers = i64::try_from(containers).unwrap_or(i64::MAX);
    let claimed = resources::container_requests(spec).memory().value();
    pod.value().saturating_sub(claimed).max(0) / containers.max(1)
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

#[cfg(test)]
mod tests;
