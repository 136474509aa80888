//! The Node as it should be now: [`refresh`] takes the object that the API
//! server has and sets what this agent answers for. Whether that is worth a
//! call is [`needs_report`]'s business. Pure.

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeCondition, NodeDaemonEndpoints, NodeFeatures,
    NodeRuntimeHandler, NodeRuntimeHandlerFeatures, NodeStatus, NodeSwapStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use super::conditions::ExtraCondition;
use super::pressure::Pressure;
use super::resources::{self, ResourceList};
use super::{MachineFacts, NodeSettings, address, conditions, registration};
use crate::runtime::LocalImage;
use crate::runtime::{RuntimeHandler, RuntimeHealth};

/// Images are known by at most this many names each.
const MAX_IMAGE_NAMES: usize = 5;

/// What is known of the machine at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Observed<'a> {
    pub facts: &'a MachineFacts,
    /// `None`: not found, which leaves the Node's addresses as they are.
    pub internal_ips: Option<&'a [IpAddr]>,
    pub pressure: Pressure,
    pub runtime: &'a RuntimeHealth,
    pub images: &'a [LocalImage],
    /// What other parts of the agent say about the node.
    pub extra: &'a [ExtraCondition],
    pub now: Timestamp,
}

/// The Node as it should be: `base` with our labels, our annotation and our
/// parts of the status. `last` are the conditions computed before.
#[must_use]
pub fn refresh(
    base: &Node,
    last: &[NodeCondition],
    settings: &NodeSettings,
    observed: &Observed<'_>,
) -> Node {
    let nothing = NodeStatus::default();
    let status = base.status.as_ref().unwrap_or(&nothing);
    Node {
        metadata: metadata(&base.metadata, settings, observed.facts),
        spec: base.spec.clone(),
        status: Some(compute(status, last, settings, observed)),
    }
}

fn metadata(base: &ObjectMeta, settings: &NodeSettings, facts: &MachineFacts) -> ObjectMeta {
    let mut metadata = base.clone();
    let labels = metadata.labels.get_or_insert_default();
    for (key, value) in registration::platform_labels(facts) {
        labels.insert(key.to_owned(), value.to_owned());
    }
    let key = address::PROVIDED_IP_ANNOTATION;
    match address::provided_ip(settings) {
        Some(ips) => {
            let annotations = metadata.annotations.get_or_insert_default();
            annotations.insert(key.to_owned(), ips);
        }
        None => {
            if let Some(annotations) = &mut metadata.annotations {
                annotations.remove(key);
            }
        }
    }
    metadata
}

/// What the scheduler asks a node for before it gives it a pod that needs it
/// (`status.declaredFeatures`); sorted.
const DECLARED_FEATURES: [&str; 1] = ["RestartAllContainersOnContainerExits"];

/// The status. What others answer for is kept from `base`: resources and
/// conditions of other names, attached volumes.
#[must_use]
pub fn compute(
    base: &NodeStatus,
    last: &[NodeCondition],
    settings: &NodeSettings,
    observed: &Observed<'_>,
) -> NodeStatus {
    let ours = resources::capacity(observed.facts, settings);
    let (capacity, allocatable) = resource_lists(
        base.capacity.as_ref(),
        &ours.to_list(),
        &resources::allocatable(&ours, settings).to_list(),
    );
    let mut required = vec!["cpu", "memory", "pods"];
    if settings.local_storage_isolation {
        required.push("ephemeral-storage");
    }
    let verdicts = conditions::verdicts(observed.runtime, observed.pressure, &capacity, &required);
    let known = base.conditions.as_deref().unwrap_or_default();
    let addresses = base.addresses.as_deref().unwrap_or_default();
    NodeStatus {
        addresses: non_empty(address::node_addresses(
            settings,
            observed.internal_ips,
            addresses,
        )),
        capacity: Some(capacity),
        allocatable: Some(allocatable),
        conditions: Some(conditions::merge(
            known,
            last,
            verdicts,
            observed.extra,
            whole_second(observed.now),
        )),
        daemon_endpoints: Some(daemon_endpoints(settings.port)),
        declared_features: Some(DECLARED_FEATURES.map(str::to_owned).to_vec()),
        features: features(observed.runtime).or_else(|| base.features.clone()),
        images: non_empty(images(observed.images, settings.max_images)),
        node_info: Some(node_info(base.node_info.as_ref(), settings, observed)),
        runtime_handlers: match runtime_handlers(observed.runtime) {
            Some(handlers) => non_empty(handlers),
            None => base.runtime_handlers.clone(),
        },
        volumes_in_use: None,
        ..base.clone()
    }
}

/// Our resources, and those that others wrote into the Node's capacity: they
/// are allocatable in full.
fn resource_lists(
    base: Option<&ResourceList>,
    capacity: &ResourceList,
    allocatable: &ResourceList,
) -> (ResourceList, ResourceList) {
    let others: ResourceList = base
        .into_iter()
        .flatten()
        .filter(|(name, _)| !resources::is_managed(name))
        .map(|(name, amount)| (name.clone(), amount.clone()))
        .collect();
    let with_others = |ours: &ResourceList| {
        let mut all = others.clone();
        all.extend(ours.clone());
        all
    };
    (with_others(capacity), with_others(allocatable))
}

fn daemon_endpoints(port: u16) -> NodeDaemonEndpoints {
    NodeDaemonEndpoints {
        kubelet_endpoint: Some(DaemonEndpoint { port: port.into() }),
    }
}

fn node_info(
    base: Option<&NodeSystemInfo>,
    settings: &NodeSettings,
    observed: &Observed<'_>,
) -> NodeSystemInfo {
    let facts = observed.facts;
    let health = observed.runtime;
    let runtime_version = if health.name.is_empty() {
        // The runtime has not said yet; what it said to an earlier process is
        // the best guess.
        base.map_or_else(String::new, |base| base.container_runtime_version.clone())
    } else {
        format!("{}://{}", health.name, health.version)
    };
    NodeSystemInfo {
        architecture: facts.architecture.to_owned(),
        boot_id: facts.boot_id.clone(),
        container_runtime_version: runtime_version,
        kernel_version: facts.kernel_version.clone(),
        kube_proxy_version: String::new(),
        kubelet_version: settings.kubelet_version.clone(),
        machine_id: facts.machine_id.clone(),
        operating_system: "linux".to_owned(),
        os_image: facts.os_image.clone(),
        swap: (facts.swap > 0).then(|| NodeSwapStatus {
            capacity: i64::try_from(facts.swap).ok(),
        }),
        system_uuid: facts.system_uuid.clone(),
    }
}

/// Biggest first; a repeatable order, so that equal lists compare equal.
fn images(images: &[LocalImage], limit: Option<usize>) -> Vec<ContainerImage> {
    let mut sorted: Vec<&LocalImage> = images.iter().collect();
    sorted.sort_by(|a, b| {
        let names = |image: &LocalImage| (image.repo_digests.clone(), image.repo_tags.clone());
        b.size_bytes
            .cmp(&a.size_bytes)
            .then_with(|| names(a).cmp(&names(b)))
    });
    sorted
        .into_iter()
        .take(limit.unwrap_or(usize::MAX))
        .map(|image| ContainerImage {
            names: non_empty(
                image
                    .repo_digests
                    .iter()
                    .chain(&image.repo_tags)
                    .take(MAX_IMAGE_NAMES)
                    .cloned()
                    .collect(),
            ),
            size_bytes: (image.size_bytes != 0).then_some(image.size_bytes),
        })
        .collect()
}

/// `None`: the runtime has not told yet.
fn runtime_handlers(health: &RuntimeHealth) -> Option<Vec<NodeRuntimeHandler>> {
    health.last_good?;
    let mut handlers: Vec<&RuntimeHandler> = health.handlers.iter().collect();
    handlers.sort_by(|a, b| a.name.cmp(&b.name));
    let told = handlers.into_iter().map(|handler| NodeRuntimeHandler {
        name: Some(handler.name.clone()),
        features: Some(NodeRuntimeHandlerFeatures {
            recursive_read_only_mounts: Some(handler.recursive_read_only_mounts),
            user_namespaces: Some(handler.user_namespaces),
        }),
    });
    Some(told.collect())
}

fn features(health: &RuntimeHealth) -> Option<NodeFeatures> {
    health.last_good?;
    Some(NodeFeatures {
        supplemental_groups_policy: Some(health.supplemental_groups_policy),
    })
}

/// The API leaves empty lists out; a list that compares equal must as well.
fn non_empty<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

/// The API's times have no fractions.
fn whole_second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

// === when to report ===

/// Whether a status should be sent: it says something new, or the last report
/// is a `period` old or never was.
#[must_use]
pub fn needs_report(
    known: &Node,
    next: &Node,
    since_report: Option<Duration>,
    period: Duration,
) -> bool {
    has_changed(known, next) || since_report.is_none_or(|since| since >= period)
}

/// Whether the two differ in more than heartbeat times and ways of saying
/// nothing.
#[must_use]
pub fn has_changed(known: &Node, next: &Node) -> bool {
    match (meaning(known), meaning(next)) {
        (Ok(known), Ok(next)) => known != next,
        // What cannot be written must come up when it is sent.
        _ => true,
    }
}

/// Labels, annotations and status, in a form that compares by meaning: the API
/// server may give back an empty list as `null` or not at all.
fn meaning(node: &Node) -> Result<Value, serde_json::Error> {
    let mut status = node.status.clone().unwrap_or_default();
    let conditions = status.conditions.get_or_insert_default();
    for condition in conditions.iter_mut() {
        condition.last_heartbeat_time = None;
    }
    conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
    let mut value = json!({
        "labels": node.metadata.labels,
        "annotations": node.metadata.annotations,
        "status": serde_json::to_value(status)?,
    });
    drop_empty(&mut value);
    Ok(value)
}

/// Removes object fields that say nothing.
fn drop_empty(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(drop_empty);
            fields.retain(|_, value| !is_empty(value));
        }
        Value::Array(items) => items.iter_mut().for_each(drop_empty),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// What made a report necessary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportCause {
    /// The first of this process, or something has changed.
    Change,
    /// The period has passed.
    Period,
}

/// How long the next report can wait if nothing changes. After a change the
/// period is spread by up to half of it (`random` from 0 to 1), so that nodes
/// that changed together do not report together ever after.
#[must_use]
pub fn next_period(frequency: Duration, cause: ReportCause, random: f64) -> Duration {
    match cause {
        ReportCause::Change => frequency.mul_f64(0.5 + random.clamp(0.0, 1.0)),
        ReportCause::Period => frequency,
    }
}

#[cfg(test)]
mod tests;
