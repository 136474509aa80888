//! A node as far as admission looks at it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Taint};

use super::claim;
use crate::pod::quantity::Quantity;

/// Name, labels, taints and what pods may take.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NodeView {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    /// Thousandths of a CPU, whole units of the rest. A resource that is
    /// absent here is not there.
    allocatable: BTreeMap<String, i64>,
}

impl NodeView {
    /// What a Node object says. Amounts that cannot be read count as absent.
    #[must_use]
    pub fn of(node: &Node) -> Self {
        let allocatable = node.status.as_ref().and_then(|s| s.allocatable.as_ref());
        let readable = allocatable
            .into_iter()
            .flatten()
            .filter_map(|(name, text)| {
                let quantity = Quantity::try_from(text).ok()?;
                Some((name.clone(), claim::amount(name, quantity)))
            });
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.clone());
        Self {
            name: node.metadata.name.clone().unwrap_or_default(),
            labels: node.metadata.labels.clone().unwrap_or_default(),
            taints: taints.unwrap_or_default(),
            allocatable: readable.collect(),
        }
    }

    /// The node as its object in the API tells, but for the amounts of which
    /// this agent is the source: the object may be older than they are.
    #[must_use]
    pub fn updated_by(&self, node: &Node) -> Self {
        let mut view = Self::of(node);
        view.allocatable.extend(self.allocatable.clone());
        view
    }

    /// How much of a resource pods may take; `None` if the node does not have
    /// it.
    #[must_use]
    pub fn allocatable(&self, resource: &str) -> Option<i64> {
        self.allocatable.get(resource).copied()
    }
}
