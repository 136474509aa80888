//! Resources as the runtime hands them to the kernel.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use crate::pod::facts::{CgroupFacts, CgroupVersion, NodeFacts};
use crate::pod::model::DesiredPod;
use crate::pod::qos;
use crate::pod::quantity::Quantity;
use crate::pod::resources::{
    self, CPU, MEMORY, Overhead, ResourceList, Resources, cpu_quota, cpu_shares,
};
use crate::pod::spec::LinuxResources;

/// The resources of one container.
pub(super) fn of_container(
    pod: &DesiredPod,
    container: &Container,
    node: &NodeFacts,
) -> LinuxResources {
    let own = Resources::of(container);
    let at_pod_level = pod
        .pod
        .spec
        .as_ref()
        .map(Resources::at_pod_level)
        .unwrap_or_default();
    // A container without a limit is bounded by its pod's.
    let limit = |name| {
        let own = own.limits.get(name).filter(|limit| !limit.is_zero());
        own.or_else(|| at_pod_level.limits.get(name))
            .unwrap_or_default()
    };
    let amounts = Amounts {
        cpu_request: own.requests.get(CPU),
        cpu_limit: limit(CPU),
        memory_limit: limit(MEMORY),
    };
    let mut pages = at_pod_level.limits.hugepages();
    pages.extend(own.limits.hugepages());
    let mut linux = amounts.render(&node.cgroup);
    linux.oom_score_adj = qos::oom_score_adj(pod, container, node.capacity.memory);
    linux.hugepage_limits = node
        .hugepage_sizes
        .iter()
        .map(|size| (size.clone(), pages.get(size).copied().unwrap_or(0)))
        .collect();
    if node.cgroup.version == CgroupVersion::V1 {
        // Memory and swap together: no swap.
        linux.memory_swap_limit = linux.memory_limit;
    }
    linux
}

/// The resources of one container, for an instance that runs with others: what
/// is not limited any more is said to be unlimited.
#[must_use]
pub fn resources_update(
    pod: &DesiredPod,
    container: &Container,
    node: &NodeFacts,
) -> LinuxResources {
    let mut linux = of_container(pod, container, node);
    let or_unlimited = |limit: &mut i64| {
        if *limit == 0 {
            *limit = -1;
        }
    };
    or_unlimited(&mut linux.memory_limit);
    if node.cgroup.version == CgroupVersion::V1 {
        or_unlimited(&mut linux.memory_swap_limit);
    }
    if node.cgroup.enforce_cpu_quota {
        or_unlimited(&mut linux.cpu_quota);
    }
    linux
}

/// What the containers of a pod have together.
pub(super) fn of_sandbox(pod: &Pod, cgroup: &CgroupFacts) -> LinuxResources {
    let sum = resources::requests_limits(pod, Overhead::Excluded);
    Amounts {
        cpu_request: sum.requests.get(CPU),
        cpu_limit: sum.limits.cpu(),
        memory_limit: sum.limits.memory(),
    }
    .render(cgroup)
}

/// What the sandbox itself costs; both asked for and not exceeded.
pub(super) fn of_overhead(spec: &PodSpec, cgroup: &CgroupFacts) -> Option<LinuxResources> {
    let overhead = ResourceList::read(Some(spec.overhead.as_ref()?));
    let amounts = Amounts {
        cpu_request: Some(overhead.cpu()),
        cpu_limit: overhead.cpu(),
        memory_limit: overhead.memory(),
    };
    Some(amounts.render(cgroup))
}

struct Amounts {
    /// `None`: as much as the limit.
    cpu_request: Option<Quantity>,
    cpu_limit: Quantity,
    memory_limit: Quantity,
}

impl Amounts {
    fn render(&self, cgroup: &CgroupFacts) -> LinuxResources {
        let shares_for = self.cpu_request.unwrap_or(self.cpu_limit);
        let mut linux = LinuxResources {
            cpu_shares: cpu_shares(shares_for.milli_value()),
            memory_limit: self.memory_limit.value(),
            unified: unified(cgroup),
            ..LinuxResources::default()
        };
        if cgroup.enforce_cpu_quota {
            linux.cpu_period =
                i64::try_from(cgroup.cpu_quota_period.as_micros()).unwrap_or(i64::MAX);
            linux.cpu_quota = cpu_quota(self.cpu_limit.milli_value(), linux.cpu_period);
        }
        linux
    }
}

/// On cgroup v2 a container dies as a whole when it is out of memory, unless
/// the operator wants single processes killed.
fn unified(cgroup: &CgroupFacts) -> BTreeMap<String, String> {
    let group = cgroup.version == CgroupVersion::V2 && !cgroup.single_process_oom_kill;
    let entry = ("memory.oom.group".to_owned(), "1".to_owned());
    group.then_some(entry).into_iter().collect()
}
