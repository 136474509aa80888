//! What the node has, and what of it pods can have. Pure.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use super::facts::MachineFacts;
use super::settings::NodeSettings;
use crate::pod::facts::ComputeResources;
use crate::pod::quantity::Quantity;
pub use crate::pod::resources::is_extended;

/// Names and amounts, as in `status.capacity`.
pub type ResourceList = BTreeMap<String, ApiQuantity>;

/// The resources that this agent answers for. Other names in a Node's capacity
/// were written by others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeResources {
    pub milli_cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes; `None` where it is not told (`localStorageCapacityIsolation`).
    pub ephemeral_storage: Option<i64>,
    pub pods: i64,
    /// Resource name and bytes.
    pub hugepages: BTreeMap<String, i64>,
}

/// All that the machine has.
#[must_use]
pub fn capacity(facts: &MachineFacts, settings: &NodeSettings) -> NodeResources {
    let per_core = settings
        .pods_per_core
        .map_or(u64::MAX, |pods| u64::from(pods) * u64::from(facts.cpus));
    NodeResources {
        milli_cpu: i64::from(facts.cpus) * 1000,
        memory: signed(facts.memory),
        ephemeral_storage: settings
            .local_storage_isolation
            .then(|| signed(facts.filesystem.bytes)),
        pods: signed(per_core.min(u64::from(settings.max_pods))),
        hugepages: facts
            .hugepages
            .iter()
            .map(|pages| (pages.resource(), signed(pages.size * pages.count)))
            .collect(),
    }
}

/// What pods can ask for: capacity less what is reserved, what eviction keeps
/// free, and (of memory) what is set aside as huge pages.
#[must_use]
pub fn allocatable(capacity: &NodeResources, settings: &NodeSettings) -> NodeResources {
    let kept_free = |threshold: Option<super::Threshold>, capacity: i64| match threshold {
        Some(threshold) if settings.eviction.in_allocatable => threshold.of(capacity),
        _ => 0,
    };
    let reserved = &settings.reserved;
    let hugepages: i64 = capacity.hugepages.values().sum();
    let memory = left(
        capacity.memory,
        reserved.memory + kept_free(settings.eviction.memory_available, capacity.memory),
    );
    NodeResources {
        milli_cpu: left(capacity.milli_cpu, reserved.milli_cpu),
        memory: left(memory, hugepages),
        ephemeral_storage: capacity.ephemeral_storage.map(|bytes| {
            let free = kept_free(settings.eviction.nodefs_available, bytes);
            left(bytes, reserved.ephemeral_storage + free)
        }),
        ..capacity.clone()
    }
}

/// Limits for all pods together, for the `kubepods` cgroup: capacity less what
/// is reserved. Eviction must be able to see its thresholds crossed, so they
/// are not taken off here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodBudget {
    pub milli_cpu: i64,
    /// Bytes.
    pub memory: i64,
    pub pids: i64,
}

/// The budget without and with `enforceNodeAllocatable: [pods]`.
#[must_use]
pub fn pod_budget(facts: &MachineFacts, reserved: &super::Reserved) -> PodBudget {
    PodBudget {
        milli_cpu: left(i64::from(facts.cpus) * 1000, reserved.milli_cpu),
        memory: left(signed(facts.memory), reserved.memory),
        pids: left(signed(facts.max_pids), reserved.pids),
    }
}

impl NodeResources {
    /// As in a Node's status.
    #[must_use]
    pub fn to_list(&self) -> ResourceList {
        let bytes = |amount| Quantity::from_value(amount).to_binary();
        let cpu = Quantity::from_milli(self.milli_cpu).to_decimal();
        let pods = Quantity::from_value(self.pods).to_decimal();
        let mut list = ResourceList::from([
            ("cpu".to_owned(), cpu),
            ("memory".to_owned(), bytes(self.memory)),
            ("pods".to_owned(), pods),
        ]);
        if let Some(amount) = self.ephemeral_storage {
            list.insert("ephemeral-storage".to_owned(), bytes(amount));
        }
        for (name, amount) in &self.hugepages {
            list.insert(name.clone(), bytes(*amount));
        }
        list
    }

    /// The part that pods' environments and limits are computed from.
    #[must_use]
    pub fn compute(&self) -> ComputeResources {
        ComputeResources {
            milli_cpu: self.milli_cpu,
            memory: self.memory,
            ephemeral_storage: self.ephemeral_storage.unwrap_or_default(),
        }
    }
}

/// Whether the agent answers for this resource, also where it has none of it.
#[must_use]
pub fn is_managed(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "pods" | "ephemeral-storage")
        || name.starts_with("hugepages-")
}

fn left(capacity: i64, taken: i64) -> i64 {
    capacity.saturating_sub(taken).max(0)
}

fn signed(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::facts::HugePages;
    use crate::node::{HardEviction, Reserved, Threshold};

    fn lists(facts: &MachineFacts, settings: &NodeSettings) -> (ResourceList, ResourceList) {
        let capacity = capacity(facts, settings);
        (
            capacity.to_list(),
            allocatable(&capacity, settings).to_list(),
        )
    }

    fn text(list: &ResourceList) -> String {
        let entries: Vec<String> = list.iter().map(|(k, v)| format!("{k}={}", v.0)).collect();
        entries.join(" ")
    }

    #[test]
    fn upstreams_defaults() {
        let (capacity, allocatable) = lists(&MachineFacts::for_test(), &NodeSettings::for_test());
        assert_eq!(
            text(&capacity),
            "cpu=2 ephemeral-storage=100000000Ki hugepages-2Mi=0 memory=8000000Ki pods=110"
        );
        // 10 % in single precision is a little more than a tenth.
        assert_eq!(
            text(&allocatable),
            "cpu=2 ephemeral-storage=92159999848 hugepages-2Mi=0 memory=7897600Ki pods=110"
        );
    }

    #[test]
    fn reservations_huge_pages_and_pods_per_core() {
        let facts = MachineFacts {
            hugepages: vec![HugePages {
                size: 2 << 20,
                count: 512,
            }],
            ..MachineFacts::for_test()
        };
        let settings = NodeSettings {
            pods_per_core: Some(10),
            reserved: Reserved {
                milli_cpu: 70,
                memory: 1 << 30,
                ephemeral_storage: 1 << 30,
                pids: 100,
            },
            eviction: HardEviction {
                memory_available: Some(Threshold::Percent(5.0)),
                nodefs_available: Some(Threshold::Amount(1 << 30)),
                ..HardEviction::default()
            },
            ..NodeSettings::for_test()
        };
        let (capacity, allocatable) = lists(&facts, &settings);
        assert_eq!(capacity["pods"].0, "20");
        assert_eq!(capacity["hugepages-2Mi"].0, "1Gi");
        assert_eq!(allocatable["cpu"].0, "1930m");
        assert_eq!(allocatable["hugepages-2Mi"].0, "1Gi");
        assert_eq!(allocatable["ephemeral-storage"].0, "97902848Ki");
        let memory = 8_000_000 * 1024 - (2 << 30) - Threshold::Percent(5.0).of(8_000_000 * 1024);
        assert_eq!(
            allocatable["memory"],
            Quantity::from_value(memory).to_binary()
        );
        assert_eq!(
            pod_budget(&facts, &settings.reserved),
            PodBudget {
                milli_cpu: 1930,
                memory: 8_000_000 * 1024 - (1 << 30),
                pids: 32668,
            }
        );
    }

    #[test]
    fn nothing_goes_below_zero() {
        let settings = NodeSettings {
            reserved: Reserved {
                milli_cpu: i64::MAX,
                memory: 1 << 40,
                ephemeral_storage: 1 << 50,
                pids: 0,
            },
            ..NodeSettings::for_test()
        };
        let (_, allocatable) = lists(&MachineFacts::for_test(), &settings);
        assert_eq!(
            text(&allocatable),
            "cpu=0 ephemeral-storage=0 hugepages-2Mi=0 memory=0 pods=110"
        );
    }

    #[test]
    fn resource_names() {
        assert!(is_extended("example.com/foo"));
        for name in ["cpu", "requests.example.com/foo", "node.kubernetes.io/x"] {
            assert!(!is_extended(name), "{name}");
        }
        assert!(is_managed("hugepages-1Gi") && !is_managed("example.com/foo"));
    }
}
