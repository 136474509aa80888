//! Whether a pod's requests fit beside those of others.

use k8s_openapi::api::core::v1::Pod;
use serde::Serialize;

use super::Rejection;
use super::claim::{Claim, PODS};
use super::node::NodeView;
use crate::pod::resources::{CPU, EPHEMERAL_STORAGE, MEMORY, is_extended};

/// A resource of which there is not enough. CPU in thousandths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shortage {
    pub resource: String,
    pub requested: i64,
    pub used: i64,
    pub capacity: i64,
}

impl Shortage {
    /// How much would have to become free.
    #[must_use]
    pub fn missing(&self) -> i64 {
        let free = self.capacity.saturating_sub(self.used);
        self.requested.saturating_sub(free)
    }

    pub(super) fn rejection(&self) -> Rejection {
        let Self {
            resource,
            requested,
            used,
            capacity,
        } = self;
        Rejection {
            reason: format!("OutOf{resource}"),
            message: format!(
                "Node didn't have enough resource: {resource}, requested: {requested}, \
                 used: {used}, capacity: {capacity}"
            ),
        }
    }
}

/// All resources that are short, in the order in which they are told.
pub(super) fn shortages(claim: &Claim, node: &NodeView, taken: &Claim) -> Vec<Shortage> {
    let known = [PODS, CPU, MEMORY, EPHEMERAL_STORAGE];
    let others = claim.amounts().map(|(name, _)| name);
    let others = others.filter(|name| !known.contains(name) && counts(name, node));
    known
        .into_iter()
        .chain(others)
        .filter_map(|resource| {
            let shortage = Shortage {
                resource: resource.to_owned(),
                requested: claim.amount(resource),
                used: taken.amount(resource),
                capacity: node.allocatable(resource).unwrap_or(0),
            };
            (shortage.requested > 0 && shortage.missing() > 0).then_some(shortage)
        })
        .collect()
}

/// Whether a pod that is here already could take what it asks for now. `others`:
/// what the rest of the pods take.
///
/// # Errors
/// The first thing of which there is too little; more CPU and memory is all that
/// such a pod may ask for.
pub fn fits_resized(pod: &Pod, node: &NodeView, others: &Claim) -> Result<(), Rejection> {
    let short = shortages(&Claim::of(pod), node, others);
    let resizable = |shortage: &&Shortage| [CPU, MEMORY].contains(&shortage.resource.as_str());
    short
        .iter()
        .find(resizable)
        .map_or(Ok(()), |shortage| Err(shortage.rejection()))
}

/// Whether a resource is counted at all: devices that the node does not know
/// are for somebody else to provide.
fn counts(name: &str, node: &NodeView) -> bool {
    !is_extended(name) || node.allocatable(name).is_some()
}
