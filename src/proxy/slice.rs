//! An EndpointSlice, small: what the choice of endpoints needs of it.
//!
//! In: an EndpointSlice of the API server, or one made of the manifest folder's pods,
//! and this node's name. Out: a [`SliceInfo`], and what is wrong with the object. Of a
//! bad slice the good endpoints and ports remain.
//!
//! Names of nodes are not kept: all that matters is whether they are this one's.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::discovery::v1::{
    Endpoint as ApiEndpoint, EndpointHints, EndpointPort, EndpointSlice,
};

use super::address::{parse_ip, special};
use super::model::{Family, Protocol, ServiceName};
use super::problem::Fault;
use super::service::{port_number, protocol};

/// Names the slice's Service.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// Slices with this label, whatever its value, are not for proxies.
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
/// When the pod or Service changed that made the controller write the slice.
const TRIGGER_ANNOTATION: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// Endpoints that share their ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceInfo {
    pub family: Family,
    /// In order, without duplicates.
    pub ports: Box<[SlicePort]>,
    /// Each address once, in order of addresses.
    pub endpoints: Box<[Endpoint]>,
}

/// A port of all endpoints of a slice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlicePort {
    /// The Service's name for it; empty if it has none.
    pub name: Box<str>,
    pub protocol: Protocol,
    /// What the endpoints listen on.
    pub port: NonZeroU16,
}

/// An address that can serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub address: IpAddr,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
    /// Whether it is on this node.
    pub local: bool,
    pub node_hint: NodeHint,
    /// The zones that it is meant for, shared by the endpoints of a slice that have
    /// the same. None: nobody said.
    pub zone_hints: Option<Arc<Zones>>,
}

/// Names of zones.
pub type Zones = BTreeSet<Box<str>>;

/// Whether an endpoint is meant for certain nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeHint {
    /// Nobody said.
    Absent,
    /// For others, but not for this one.
    Elsewhere,
    Here,
}

impl Endpoint {
    /// What makes one of two entries for the same address count: one that stays
    /// before one that goes, and then whatever makes it more useful.
    #[must_use]
    pub const fn worth(&self) -> (bool, bool, bool, bool) {
        (!self.terminating, self.local, self.ready, self.serving)
    }

    /// Whether it goes, but still answers: what is used if nothing is ready.
    #[must_use]
    pub const fn is_last_resort(&self) -> bool {
        self.serving && self.terminating
    }
}

impl SliceInfo {
    /// Whether it has nothing that could serve.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.endpoints.is_empty() || self.ports.is_empty()
    }

    /// How many pairs of address and port it has.
    #[must_use]
    pub const fn targets(&self) -> usize {
        self.endpoints.len() * self.ports.len()
    }
}

/// The Service that a slice belongs to. None if it is not for proxies.
#[must_use]
pub fn service_of(slice: &EndpointSlice) -> Option<ServiceName> {
    let labels = slice.metadata.labels.as_ref()?;
    if labels.contains_key(HEADLESS_LABEL) {
        return None;
    }
    let namespace = slice.metadata.namespace.as_deref()?;
    let service = labels.get(SERVICE_LABEL).filter(|name| !name.is_empty())?;
    Some(ServiceName::new(namespace, service.as_str()))
}

/// When that happened which the slice tells of, if it says.
#[must_use]
pub fn trigger_time(slice: &EndpointSlice) -> Option<Timestamp> {
    let annotations = slice.metadata.annotations.as_ref()?;
    annotations.get(TRIGGER_ANNOTATION)?.parse().ok()
}

/// Reads a slice as the node called `node` sees it.
#[must_use]
pub fn read(slice: &EndpointSlice, node: &str) -> (SliceInfo, Vec<Fault>) {
    let name = slice.metadata.name.as_deref().unwrap_or_default();
    let mut faults = Vec::new();
    let mut fault = |field: &str, message: String| {
        faults.push(Fault::new(
            format!("EndpointSlice {name}: {field}"),
            message,
        ));
    };
    let known = Family::ALL
        .into_iter()
        .find(|family| family.as_str() == slice.address_type);
    let Some(family) = known else {
        let kind = &slice.address_type;
        fault(
            "addressType",
            format!("endpoints of type {kind:?} are not served, only IPv4 and IPv6"),
        );
        return (SliceInfo::empty(), faults);
    };
    let ports = ports(slice.ports.as_deref().unwrap_or_default(), &mut fault);
    let endpoints = slice.endpoints.as_deref().unwrap_or_default();
    let endpoints = endpoints_of(endpoints, family, node, &mut fault);
    let info = SliceInfo {
        family,
        ports,
        endpoints,
    };
    (info, faults)
}

impl SliceInfo {
    fn empty() -> Self {
        Self {
            family: Family::V4,
            ports: Box::default(),
            endpoints: Box::default(),
        }
    }
}

/// Ports without a name or a number mean something to others, not to proxies.
fn ports(ports: &[EndpointPort], fault: &mut impl FnMut(&str, String)) -> Box<[SlicePort]> {
    let mut found = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let (Some(name), Some(number)) = (&port.name, port.port) else {
            continue;
        };
        if number == 0 {
            continue;
        }
        let field = format!("ports[{index}]");
        let Some(protocol) = protocol(port.protocol.as_deref()) else {
            let text = port.protocol.as_deref().unwrap_or_default();
            fault(&field, format!("{text:?} is none of TCP, UDP and SCTP"));
            continue;
        };
        let Some(port) = port_number(number) else {
            fault(&field, format!("{number} is not a port number"));
            continue;
        };
        found.push(SlicePort {
            name: name.as_str().into(),
            protocol,
            port,
        });
    }
    found.sort();
    found.dedup();
    found.into()
}

fn endpoints_of(
    endpoints: &[ApiEndpoint],
    family: Family,
    node: &str,
    fault: &mut impl FnMut(&str, String),
) -> Box<[Endpoint]> {
    let mut found = Vec::with_capacity(endpoints.len());
    let mut zones = Vec::new();
    // One slice can hold thousands of the same mistake: the first stands for all.
    let mut refused = None;
    let mut others = 0_usize;
    for endpoint in endpoints {
        // A second address of an endpoint has never had a meaning.
        let Some(text) = endpoint.addresses.first() else {
            continue;
        };
        match usable(text, family) {
            Ok(address) => found.push(endpoint_at(address, endpoint, node, &mut zones)),
            Err(why) if refused.is_none() => refused = Some(why),
            Err(_) => others += 1,
        }
    }
    if let Some(mut why) = refused {
        if others > 0 {
            why.push_str(&format!("; {others} more cannot be used either"));
        }
        fault("endpoints", why);
    }
    found.sort_by(|a, b| {
        a.address
            .cmp(&b.address)
            .then_with(|| b.worth().cmp(&a.worth()))
    });
    found.dedup_by_key(|endpoint| endpoint.address);
    found.into()
}

fn usable(text: &str, family: Family) -> Result<IpAddr, String> {
    let Some(address) = parse_ip(text) else {
        return Err(format!("{text:?} is not an IP address"));
    };
    if Family::of(address) != family {
        return Err(format!(
            "{address} is not of the family {}",
            family.as_str()
        ));
    }
    match special(address) {
        Some(kind) => Err(format!("{address} is {kind}, which cannot be an endpoint")),
        None => Ok(address),
    }
}

fn endpoint_at(
    address: IpAddr,
    endpoint: &ApiEndpoint,
    node: &str,
    zones: &mut Vec<Arc<Zones>>,
) -> Endpoint {
    let conditions = endpoint.conditions.as_ref();
    let hints = endpoint.hints.as_ref();
    Endpoint {
        address,
        ready: conditions.and_then(|c| c.ready).unwrap_or(true),
        serving: conditions.and_then(|c| c.serving).unwrap_or(true),
        terminating: conditions.and_then(|c| c.terminating).unwrap_or(false),
        local: endpoint.node_name.as_deref() == Some(node),
        node_hint: hints.map_or(NodeHint::Absent, |hints| node_hint(hints, node)),
        zone_hints: hints.and_then(|hints| zone_hints(hints, zones)),
    }
}

fn node_hint(hints: &EndpointHints, node: &str) -> NodeHint {
    let nodes = hints.for_nodes.as_deref().unwrap_or_default();
    if nodes.is_empty() {
        NodeHint::Absent
    } else if nodes.iter().any(|hint| hint.name == node) {
        NodeHint::Here
    } else {
        NodeHint::Elsewhere
    }
}

fn zone_hints(hints: &EndpointHints, seen: &mut Vec<Arc<Zones>>) -> Option<Arc<Zones>> {
    let zones = hints.for_zones.iter().flatten();
    let zones: Zones = zones.map(|zone| zone.name.as_str().into()).collect();
    if zones.is_empty() {
        return None;
    }
    if let Some(same) = seen.iter().find(|one| ***one == zones) {
        return Some(Arc::clone(same));
    }
    let zones = Arc::new(zones);
    seen.push(Arc::clone(&zones));
    Some(zones)
}

#[cfg(test)]
mod tests;
