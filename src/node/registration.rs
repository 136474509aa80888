//! The Node object that is created, and what is put right on one that exists
//! already. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, NodeSpec, Taint};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{MachineFacts, NodeSettings, resources};

/// Volumes of this node are attached by the controller manager.
pub const ATTACH_DETACH_ANNOTATION: &str = "volumes.kubernetes.io/controller-managed-attach-detach";
/// Kept until a cloud controller has looked at the node.
pub const UNINITIALIZED_TAINT: &str = "node.cloudprovider.kubernetes.io/uninitialized";

const HOSTNAME: &str = "kubernetes.io/hostname";
const OS: &str = "kubernetes.io/os";
const ARCH: &str = "kubernetes.io/arch";
const BETA_OS: &str = "beta.kubernetes.io/os";
const BETA_ARCH: &str = "beta.kubernetes.io/arch";

/// Labels that are put right on an existing Node, if we would set them.
const RECONCILED_LABELS: [&str; 11] = [
    HOSTNAME,
    OS,
    ARCH,
    BETA_OS,
    BETA_ARCH,
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
];

/// What to do with the amounts of devices that a Node tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtendedResources {
    /// Device plugins have left a checkpoint: their devices may come back.
    Keep,
    /// No device is known here: nothing may be scheduled onto them.
    Zero,
}

/// Labels that must be true at all times, also after somebody changed them.
#[must_use]
pub fn platform_labels(facts: &MachineFacts) -> [(&'static str, &'static str); 2] {
    [(OS, "linux"), (ARCH, facts.architecture)]
}

/// The Node to create, without its status.
#[must_use]
pub fn initial_node(settings: &NodeSettings, facts: &MachineFacts) -> Node {
    let mut labels: BTreeMap<String, String> = [
        (HOSTNAME, settings.name.as_str()),
        (OS, "linux"),
        (ARCH, facts.architecture),
        (BETA_OS, "linux"),
        (BETA_ARCH, facts.architecture),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    labels.extend(settings.labels.clone());
    let mut taints = settings.taints.clone();
    if settings.external_cloud_provider {
        taints.push(Taint {
            key: UNINITIALIZED_TAINT.to_owned(),
            value: Some("true".to_owned()),
            effect: "NoSchedule".to_owned(),
            time_added: None,
        });
    }
    Node {
        metadata: ObjectMeta {
            name: Some(settings.name.clone()),
            labels: Some(labels),
            annotations: settings
                .controller_attach_detach
                .then(|| [(ATTACH_DETACH_ANNOTATION.to_owned(), "true".to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            provider_id: settings.provider_id.clone(),
            taints: (!taints.is_empty()).then_some(taints),
            ..NodeSpec::default()
        }),
        status: None,
    }
}

/// The existing Node with what must be put right before anything else: labels,
/// the attach-detach annotation, devices that are gone. Taints, other labels
/// and the provider ID are the administrator's once the Node exists. Our own
/// resources follow with the first status.
#[must_use]
pub fn reconcile(existing: &Node, initial: &Node, extended: ExtendedResources) -> Node {
    let mut node = existing.clone();
    reconcile_labels(&mut node.metadata, &initial.metadata);
    reconcile_annotation(&mut node.metadata, &initial.metadata);
    if extended == ExtendedResources::Zero
        && let Some(status) = &mut node.status
    {
        let lists = [&mut status.capacity, &mut status.allocatable];
        for (name, amount) in lists.into_iter().flatten().flatten() {
            if resources::is_extended(name) {
                *amount = Quantity("0".to_owned());
            }
        }
    }
    node
}

fn reconcile_labels(metadata: &mut ObjectMeta, initial: &ObjectMeta) {
    let wanted = initial.labels.iter().flatten();
    let labels = metadata.labels.get_or_insert_default();
    for (key, value) in wanted.filter(|(key, _)| RECONCILED_LABELS.contains(&key.as_str())) {
        if value.is_empty() {
            labels.remove(key);
        } else {
            labels.insert(key.clone(), value.clone());
        }
    }
}

fn reconcile_annotation(metadata: &mut ObjectMeta, initial: &ObjectMeta) {
    let wanted = initial
        .annotations
        .as_ref()
        .and_then(|annotations| annotations.get(ATTACH_DETACH_ANNOTATION));
    match wanted {
        Some(value) => {
            let annotations = metadata.annotations.get_or_insert_default();
            annotations.insert(ATTACH_DETACH_ANNOTATION.to_owned(), value.clone());
        }
        None => {
            if let Some(annotations) = &mut metadata.annotations {
                annotations.remove(ATTACH_DETACH_ANNOTATION);
            }
        }
    }
}

#[cfg(test)]
mod tests;
