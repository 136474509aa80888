//! The downward API: what a container may be told about itself and its pod.
//!
//! In: the pod, its addresses and the node's facts. Out: the text of a field
//! or of a resource. [`metadata_field`] and [`resource`] serve environment
//! variables and files alike, [`field`] variables only.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceFieldSelector};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::containers::host_network;
use super::facts::{ComputeResources, NodeFacts};
use super::model::DesiredPod;
use super::quantity::{ParseQuantityError, Quantity};
use super::resources::{CPU, EPHEMERAL_STORAGE, MEMORY, Resources};

/// A pod as its containers may see it.
#[derive(Debug, Clone, Copy)]
pub struct PodView<'a> {
    pub pod: &'a DesiredPod,
    /// As the sandbox has them; not used on the host's network.
    pub sandbox_ips: &'a [IpAddr],
    pub node: &'a NodeFacts,
}

/// Why a field or resource has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DownwardError {
    #[error("field label not supported: {path}")]
    UnknownField { path: String },
    #[error("host IP unknown")]
    HostIpUnknown,
    #[error("unsupported container resource : {resource}")]
    UnknownResource { resource: String },
    #[error("container {name} not found")]
    ContainerNotFound { name: String },
    #[error("invalid divisor of {resource}")]
    InvalidDivisor {
        resource: String,
        source: ParseQuantityError,
    },
}

impl PodView<'_> {
    /// The pod's addresses, the one of the node's primary family first. On the
    /// host's network they are the node's.
    #[must_use]
    pub fn pod_ips(&self) -> Vec<IpAddr> {
        if host_network(&self.pod.pod) {
            return self.node.host_ips.clone();
        }
        let primary_is_v6 = self.node.host_ips.first().is_some_and(IpAddr::is_ipv6);
        let mut ips = self.sandbox_ips.to_vec();
        ips.sort_by_key(|ip| ip.is_ipv6() != primary_is_v6);
        ips
    }

    fn spec(&self) -> Option<&PodSpec> {
        self.pod.pod.spec.as_ref()
    }

    fn host_ips(&self) -> Result<&[IpAddr], DownwardError> {
        match self.node.host_ips.as_slice() {
            [] => Err(DownwardError::HostIpUnknown),
            ips => Ok(ips),
        }
    }
}

/// The value of a `fieldRef` in an environment variable.
///
/// # Errors
/// If there is no such field, or the node's address is not known yet.
pub fn field(view: &PodView<'_>, path: &str) -> Result<String, DownwardError> {
    let of_spec = |field: fn(&PodSpec) -> &Option<String>| {
        let value = view.spec().and_then(|spec| field(spec).clone());
        value.unwrap_or_default()
    };
    Ok(match path {
        "spec.nodeName" | "spec.host" => of_spec(|s| &s.node_name),
        "spec.serviceAccountName" => of_spec(|s| &s.service_account_name),
        "status.hostIP" => joined(&view.host_ips()?[..1]),
        "status.hostIPs" => joined(view.host_ips()?),
        "status.podIP" => joined(view.pod_ips().get(..1).unwrap_or_default()),
        "status.podIPs" => joined(&view.pod_ips()),
        _ => metadata_field(&view.pod.pod.metadata, path)
            .ok_or_else(|| DownwardError::UnknownField { path: path.into() })?,
    })
}

/// The value of a `fieldRef` that both variables and files may show: name,
/// namespace, UID, one label or one annotation. `None` if it is no such field;
/// what is not set is empty.
#[must_use]
pub fn metadata_field(metadata: &ObjectMeta, path: &str) -> Option<String> {
    let value = match path {
        "metadata.name" => metadata.name.as_ref(),
        "metadata.namespace" => metadata.namespace.as_ref(),
        "metadata.uid" => metadata.uid.as_ref(),
        _ => {
            let (map, key) = subscript(path)?;
            let map = match map {
                "metadata.labels" => &metadata.labels,
                "metadata.annotations" => &metadata.annotations,
                _ => return None,
            };
            map.as_ref().and_then(|map| map.get(key))
        }
    };
    Some(value.cloned().unwrap_or_default())
}

/// A mark of what downward API volumes show of a pod and what can change while
/// it runs: labels, annotations and resources. `None` if it has no such volume.
/// Marks of one process compare.
#[must_use]
pub fn shown(pod: &Pod) -> Option<u64> {
    let spec = pod.spec.as_ref()?;
    let is_shown = spec.volumes.iter().flatten().any(|volume| {
        let projected = volume.projected.iter();
        let mut sources = projected.flat_map(|projected| projected.sources.iter().flatten());
        volume.downward_api.is_some() || sources.any(|source| source.downward_api.is_some())
    });
    if !is_shown {
        return None;
    }
    let mut hasher = DefaultHasher::new();
    pod.metadata.labels.hash(&mut hasher);
    pod.metadata.annotations.hash(&mut hasher);
    let init = spec.init_containers.iter().flatten();
    for container in init.chain(&spec.containers) {
        // Requirements always serialise; what would not shows nothing.
        let resources = serde_json::to_string(&container.resources);
        resources.unwrap_or_default().hash(&mut hasher);
    }
    Some(hasher.finish())
}

/// Splits `metadata.labels['app']` into path and key.
fn subscript(path: &str) -> Option<(&str, &str)> {
    path.strip_suffix("']")?.split_once("['")
}

fn joined(ips: &[IpAddr]) -> String {
    let ips: Vec<String> = ips.iter().map(ToString::to_string).collect();
    ips.join(",")
}

/// The value of a `resourceFieldRef`: the amount divided by the divisor,
/// rounded up. A limit that is not set is what the pod or the node has. `own`
/// is the container that asks, if a container does; it is meant where the
/// selector names none.
///
/// # Errors
/// If resource, container or divisor are not known.
pub fn resource(
    spec: Option<&PodSpec>,
    own: Option<&Container>,
    selector: &ResourceFieldSelector,
    allocatable: &ComputeResources,
) -> Result<String, DownwardError> {
    let container = match (selector.container_name.as_deref(), own) {
        (None | Some(""), Some(own)) => own,
        (name, _) => find(spec, name.unwrap_or_default())?,
    };
    let unknown = || DownwardError::UnknownResource {
        resource: selector.resource.clone(),
    };
    let (list, name) = selector.resource.split_once('.').ok_or_else(unknown)?;
    let known = [CPU, MEMORY, EPHEMERAL_STORAGE].contains(&name) || name.starts_with("hugepages-");
    if !known {
        return Err(unknown());
    }
    let own = Resources::of(container);
    let amount = match list {
        "requests" => own.requests.get(name),
        "limits" => Some(own.limits.get(name))
            .map(|limit| {
                limit
                    .filter(|l| !l.is_zero())
                    .or_else(|| bound(spec, allocatable, name))
            })
            .unwrap_or_default(),
        _ => return Err(unknown()),
    };
    let divisor = divisor(selector)?;
    let in_steps = |quantity: Quantity| match name {
        CPU => quantity.milli_value(),
        _ => quantity.value(),
    };
    let (amount, divisor) = (in_steps(amount.unwrap_or_default()), in_steps(divisor));
    Ok(ceil_div(amount, divisor).to_string())
}

fn find<'a>(spec: Option<&'a PodSpec>, name: &str) -> Result<&'a Container, DownwardError> {
    let containers = spec.into_iter().flat_map(|spec| {
        spec.containers
            .iter()
            .chain(spec.init_containers.iter().flatten())
    });
    containers
        .into_iter()
        .find(|container| container.name == name)
        .ok_or_else(|| DownwardError::ContainerNotFound { name: name.into() })
}

/// What bounds a container that has no limit of its own.
fn bound(spec: Option<&PodSpec>, allocatable: &ComputeResources, name: &str) -> Option<Quantity> {
    let of_node = match name {
        CPU => Quantity::from_milli(allocatable.milli_cpu),
        MEMORY => Quantity::from_value(allocatable.memory),
        EPHEMERAL_STORAGE => Quantity::from_value(allocatable.ephemeral_storage),
        // Huge pages are never overcommitted: no limit means none.
        _ => return None,
    };
    let of_pod = spec.and_then(|spec| Resources::at_pod_level(spec).limits.get(name));
    Some(of_pod.filter(|limit| !limit.is_zero()).unwrap_or(of_node))
}

fn divisor(selector: &ResourceFieldSelector) -> Result<Quantity, DownwardError> {
    let one = Quantity::from_value(1);
    let Some(divisor) = &selector.divisor else {
        return Ok(one);
    };
    match Quantity::try_from(divisor) {
        Ok(quantity) if quantity.is_zero() => Ok(one),
        Ok(quantity) => Ok(quantity),
        Err(source) => Err(DownwardError::InvalidDivisor {
            resource: selector.resource.clone(),
            source,
        }),
    }
}

/// Divides, rounding towards positive infinity; no divisor here is zero.
fn ceil_div(amount: i64, divisor: i64) -> i64 {
    let (amount, divisor) = (i128::from(amount), i128::from(divisor));
    let has_rest = divisor > 0 && amount.rem_euclid(divisor) != 0;
    let quotient = amount.div_euclid(divisor) + i128::from(has_rest);
    i64::try_from(quotient).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
