//! What pods take of a node: amounts of resources, and ports of its addresses.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ContainerPort, Pod, PodSpec};

use crate::pod::quantity::Quantity;
use crate::pod::resources::{self, CPU, Overhead};

/// Name of the number of pods among resources.
pub const PODS: &str = "pods";
/// An address that stands for all.
const ANY_IP: &str = "0.0.0.0";

/// What one pod takes, or several together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Claim {
    amounts: BTreeMap<String, i64>,
    ports: Vec<HostPort>,
}

/// A port of the node's own addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
struct HostPort {
    ip: String,
    protocol: String,
    port: i32,
}

impl Claim {
    /// What a pod takes once it is admitted.
    #[must_use]
    pub fn of(pod: &Pod) -> Self {
        let sum = resources::requests_limits(pod, Overhead::Included);
        let mut amounts: BTreeMap<String, i64> = sum
            .requests
            .iter()
            .map(|(name, quantity)| (name.to_owned(), amount(name, quantity)))
            .collect();
        amounts.insert(PODS.to_owned(), 1);
        Self {
            amounts,
            ports: pod.spec.as_ref().map(host_ports).unwrap_or_default(),
        }
    }

    /// What several take together.
    pub fn sum<'a>(claims: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut sum = Self::default();
        for claim in claims {
            for (name, amount) in &claim.amounts {
                let total = sum.amounts.entry(name.clone()).or_default();
                *total = total.saturating_add(*amount);
            }
            sum.ports.extend(claim.ports.iter().cloned());
        }
        sum
    }

    /// How much of a resource: thousandths for CPU, whole units for the rest.
    #[must_use]
    pub fn amount(&self, resource: &str) -> i64 {
        self.amounts.get(resource).copied().unwrap_or(0)
    }

    /// All resources by name; see [`Claim::amount`].
    pub fn amounts(&self) -> impl Iterator<Item = (&str, i64)> {
        self.amounts
            .iter()
            .map(|(name, amount)| (name.as_str(), *amount))
    }

    /// Whether both want one port of one address.
    #[must_use]
    pub fn ports_conflict(&self, other: &Self) -> bool {
        self.ports
            .iter()
            .any(|mine| other.ports.iter().any(|theirs| mine.conflicts(theirs)))
    }
}

/// The number by which a resource is counted.
pub(super) fn amount(name: &str, quantity: Quantity) -> i64 {
    if name == CPU {
        quantity.milli_value()
    } else {
        quantity.value()
    }
}

impl HostPort {
    fn of(port: &ContainerPort) -> Option<Self> {
        let or = |text: &Option<String>, default: &str| {
            let text = text.as_deref().filter(|text| !text.is_empty());
            text.unwrap_or(default).to_owned()
        };
        Some(Self {
            port: port.host_port.filter(|port| *port > 0)?,
            ip: or(&port.host_ip, ANY_IP),
            protocol: or(&port.protocol, "TCP"),
        })
    }

    fn conflicts(&self, other: &Self) -> bool {
        let one_address = self.ip == other.ip || self.ip == ANY_IP || other.ip == ANY_IP;
        self.port == other.port && self.protocol == other.protocol && one_address
    }
}

/// Ports of everything that keeps running: regular containers and sidecars.
fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|container| resources::is_sidecar(container));
    let ports = |container: &Container| -> Vec<HostPort> {
        let ports = container.ports.iter().flatten();
        ports.filter_map(HostPort::of).collect()
    };
    spec.containers
        .iter()
        .chain(sidecars)
        .flat_map(ports)
        .collect()
}
