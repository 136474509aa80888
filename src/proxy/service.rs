//! A Service, small: what rules and containers' environment variables need of it.
//!
//! In: a Service of the API server or of the manifest folder. Out: a [`ServiceInfo`]
//! for both families, and what is wrong with the object. A bad field takes away only
//! itself: an address, a port, a source range.

use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Service, ServicePort as ApiPort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::address::{is_link_local, parse_ip, parse_net, special};
use super::model::{Destination, Family, Protocol, ServiceName};
use super::problem::Fault;

/// Services with this label, whatever its value, belong to another proxy.
const FOREIGN_PROXY_LABEL: &str = "service.kubernetes.io/service-proxy-name";
/// Seconds for which a client stays with an endpoint, unless the Service says.
const DEFAULT_AFFINITY: NonZeroU32 = NonZeroU32::new(10_800).expect("10,800 is not zero");
/// The longest time that the API allows, in seconds.
const MAX_AFFINITY: u32 = 86_400;

/// A Service with a cluster IP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceInfo {
    pub name: Arc<ServiceName>,
    pub uid: Option<Box<str>>,
    /// Seconds since 1970. An object that does not say counts as the youngest.
    pub created: i64,
    /// At most one of each family, and at least one; the first is the one that
    /// containers are told of.
    pub cluster_ips: Box<[IpAddr]>,
    /// In the object's order.
    pub ports: Box<[PortInfo]>,
    /// What most Services do not have.
    pub external: Option<Box<External>>,
    /// `sessionAffinity: ClientIP`, in seconds.
    pub affinity: Option<NonZeroU32>,
    /// `internalTrafficPolicy: Local`.
    pub internal_local: bool,
    /// `externalTrafficPolicy: Local`, on a Service that the outside can reach.
    pub external_local: bool,
    /// Whether this proxy serves it, and not one that its label names.
    pub proxied: bool,
}

/// One port of a [`ServiceInfo`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortInfo {
    /// Empty if it has none.
    pub name: Arc<str>,
    pub port: NonZeroU16,
    pub node_port: Option<NonZeroU16>,
    pub protocol: Protocol,
}

/// What a Service has for the outside besides node ports. No address twice, none that
/// is a cluster IP too, both families mixed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct External {
    pub ips: Box<[IpAddr]>,
    /// Those whose traffic ends on nodes.
    pub load_balancer_ips: Box<[IpAddr]>,
    /// Who may use `load_balancer_ips`: everybody, for a family of which there is none.
    pub source_ranges: Box<[IpNet]>,
    /// Where load balancers ask whether this node has endpoints.
    pub health_check_node_port: Option<NonZeroU16>,
}

/// Which part of a Service a [`Destination`] comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entrance {
    ClusterIp,
    NodePort,
    ExternalIp,
    LoadBalancerIp,
}

impl Entrance {
    /// The object's field.
    #[must_use]
    pub const fn field(self) -> &'static str {
        match self {
            Self::ClusterIp => "spec.clusterIPs",
            Self::NodePort => "spec.ports",
            Self::ExternalIp => "spec.externalIPs",
            Self::LoadBalancerIp => "status.loadBalancer.ingress",
        }
    }
}

impl ServiceInfo {
    #[must_use]
    pub fn cluster_ip(&self, family: Family) -> Option<IpAddr> {
        self.cluster_ips
            .iter()
            .copied()
            .find(|address| Family::of(*address) == family)
    }

    /// External IPs of one family. None if the Service does not have that family.
    pub fn external_ips(&self, family: Family) -> impl Iterator<Item = IpAddr> {
        self.outside(family, |external| &external.ips)
    }

    /// Addresses of the load balancer of one family.
    pub fn load_balancer_ips(&self, family: Family) -> impl Iterator<Item = IpAddr> {
        self.outside(family, |external| &external.load_balancer_ips)
    }

    /// Who may use [`ServiceInfo::load_balancer_ips`]: everybody, if there is none.
    pub fn source_ranges(&self, family: Family) -> impl Iterator<Item = IpNet> {
        self.external
            .iter()
            .flat_map(|external| external.source_ranges.iter().copied())
            .filter(move |net| Family::of(net.addr()) == family)
    }

    #[must_use]
    pub fn health_check_node_port(&self) -> Option<NonZeroU16> {
        self.external.as_ref()?.health_check_node_port
    }

    /// Everything that clients can send to, were there no other Service. Nothing for
    /// Services that another proxy serves.
    pub fn destinations(
        &self,
        family: Family,
    ) -> impl Iterator<Item = (Entrance, &PortInfo, Destination)> {
        let served = self.proxied && self.cluster_ip(family).is_some();
        let ports = if served { &self.ports[..] } else { &[] };
        ports.iter().flat_map(move |port| {
            let at = move |entrance| move |address| (entrance, port, port.at(address));
            let node_port = port
                .node_port_destination()
                .map(|destination| (Entrance::NodePort, port, destination));
            self.cluster_ip(family)
                .into_iter()
                .map(at(Entrance::ClusterIp))
                .chain(node_port)
                .chain(self.external_ips(family).map(at(Entrance::ExternalIp)))
                .chain(
                    self.load_balancer_ips(family)
                        .map(at(Entrance::LoadBalancerIp)),
                )
        })
    }

    fn outside(
        &self,
        family: Family,
        list: impl Fn(&External) -> &[IpAddr],
    ) -> impl Iterator<Item = IpAddr> {
        self.external
            .iter()
            .flat_map(move |external| list(external).iter().copied())
            .filter(move |address| Family::of(*address) == family)
    }
}

impl PortInfo {
    /// Where clients reach this port on an address of the Service.
    #[must_use]
    pub fn at(&self, address: IpAddr) -> Destination {
        Destination::Address {
            protocol: self.protocol,
            address: SocketAddr::new(address, self.port.get()),
        }
    }

    /// Where clients reach this port on nodes.
    #[must_use]
    pub fn node_port_destination(&self) -> Option<Destination> {
        Some(Destination::NodePort {
            protocol: self.protocol,
            port: self.node_port?,
        })
    }
}

/// The name of a namespaced object; nothing if it lacks a part of it.
#[must_use]
pub fn name_of(metadata: &ObjectMeta) -> Option<ServiceName> {
    let namespace = metadata.namespace.as_deref().filter(|n| !n.is_empty())?;
    let name = metadata.name.as_deref().filter(|n| !n.is_empty())?;
    Some(ServiceName::new(namespace, name))
}

/// Reads a Service, whose name the caller has in shared form. None for those without
/// cluster IP: headless ones, names of something external, and broken ones.
#[must_use]
pub fn read(service: &Service, name: &Arc<ServiceName>) -> (Option<ServiceInfo>, Vec<Fault>) {
    let mut faults = Vec::new();
    let info = service
        .spec
        .as_ref()
        .filter(|spec| has_cluster_ip(spec))
        .and_then(|spec| read_proxyable(service, spec, name, &mut faults));
    if info.as_ref().is_some_and(|info| !info.proxied) {
        // What it means is the other proxy's business.
        faults.clear();
    }
    (info, faults)
}

fn read_proxyable(
    service: &Service,
    spec: &ServiceSpec,
    name: &Arc<ServiceName>,
    faults: &mut Vec<Fault>,
) -> Option<ServiceInfo> {
    let metadata = &service.metadata;
    for (field, text) in [
        ("metadata.namespace", &name.namespace),
        ("metadata.name", &name.name),
    ] {
        if !is_label(text) {
            let message = format!("{text:?} is not a DNS label; the Service is not served");
            faults.push(Fault::new(field, message));
            return None;
        }
    }
    let cluster_ips = cluster_ips(spec, faults);
    if cluster_ips.is_empty() {
        return None;
    }
    let external = external(service, spec, &cluster_ips, faults);
    Some(ServiceInfo {
        name: Arc::clone(name),
        uid: metadata.uid.as_deref().map(Into::into),
        created: metadata
            .creation_timestamp
            .as_ref()
            .map_or(i64::MAX, |time| time.0.as_second()),
        ports: ports(spec, faults),
        cluster_ips,
        external: (external != External::default()).then(|| Box::new(external)),
        affinity: affinity(spec, faults),
        internal_local: is_local(
            "spec.internalTrafficPolicy",
            spec.internal_traffic_policy.as_deref(),
            faults,
        ),
        external_local: external_local(spec, faults),
        proxied: !metadata
            .labels
            .as_ref()
            .is_some_and(|labels| labels.contains_key(FOREIGN_PROXY_LABEL)),
    })
}

fn has_cluster_ip(spec: &ServiceSpec) -> bool {
    spec.type_.as_deref() != Some("ExternalName")
        && written_cluster_ips(spec)
            .first()
            .is_some_and(|address| *address != "None")
}

fn written_cluster_ips(spec: &ServiceSpec) -> Vec<&str> {
    let all = spec.cluster_ips.iter().flatten().map(String::as_str);
    let all: Vec<_> = all.filter(|text| !text.is_empty()).collect();
    if all.is_empty() {
        let only = spec.cluster_ip.as_deref();
        only.into_iter().filter(|text| !text.is_empty()).collect()
    } else {
        all
    }
}

fn cluster_ips(spec: &ServiceSpec, faults: &mut Vec<Fault>) -> Box<[IpAddr]> {
    let families = spec.ip_families.as_deref().unwrap_or_default();
    let mut found: Vec<IpAddr> = Vec::new();
    for (index, text) in written_cluster_ips(spec).into_iter().enumerate() {
        let fault = match parse_ip(text) {
            None => format!("{text:?} is not an IP address"),
            Some(address) => {
                let family = Family::of(address);
                // Clusters that use link-local service networks exist.
                let kind = special(address).filter(|_| !is_link_local(address));
                match (kind, families.get(index)) {
                    (Some(kind), _) => format!("{address} is {kind}"),
                    (None, Some(other)) if other != family.as_str() => {
                        format!("{address} is not of the family {other}")
                    }
                    _ if found.iter().any(|one| Family::of(*one) == family) => {
                        format!("{address} is the second of the family {}", family.as_str())
                    }
                    _ => {
                        found.push(address);
                        continue;
                    }
                }
            }
        };
        faults.push(Fault::new(format!("spec.clusterIPs[{index}]"), fault));
    }
    found.into()
}

fn ports(spec: &ServiceSpec, faults: &mut Vec<Fault>) -> Box<[PortInfo]> {
    let mut found: Vec<PortInfo> = Vec::new();
    for (index, port) in spec.ports.iter().flatten().enumerate() {
        let field = format!("spec.ports[{index}]");
        let Some(mut port) = port_info(port, &field, faults) else {
            continue;
        };
        let same = |one: &PortInfo| {
            one.protocol == port.protocol && (one.name == port.name || one.port == port.port)
        };
        if found.iter().any(same) {
            let message = "an earlier port has the same protocol and the same name or number; \
                           this one is not served";
            faults.push(Fault::new(field, message));
            continue;
        }
        let same_node_port = |one: &PortInfo| {
            one.protocol == port.protocol
                && one.node_port.is_some()
                && one.node_port == port.node_port
        };
        if found.iter().any(same_node_port) {
            let message = "an earlier port has the same node port";
            faults.push(Fault::new(format!("{field}.nodePort"), message));
            port.node_port = None;
        }
        found.push(port);
    }
    found.into()
}

fn port_info(port: &ApiPort, field: &str, faults: &mut Vec<Fault>) -> Option<PortInfo> {
    let mut fault = |part: &str, message: String| {
        faults.push(Fault::new(format!("{field}.{part}"), message));
    };
    let name = port.name.as_deref().unwrap_or_default();
    if !name.is_empty() && !is_label(name) {
        fault(
            "name",
            format!("{name:?} is not a DNS label; the port is not served"),
        );
        return None;
    }
    let Some(protocol) = protocol(port.protocol.as_deref()) else {
        let text = port.protocol.as_deref().unwrap_or_default();
        fault(
            "protocol",
            format!("{text:?} is none of TCP, UDP and SCTP; the port is not served"),
        );
        return None;
    };
    let Some(number) = port_number(port.port) else {
        let message = format!("{} is not a port number; the port is not served", port.port);
        fault("port", message);
        return None;
    };
    let node_port = port.node_port.filter(|number| *number != 0);
    let known = node_port.and_then(port_number);
    if let (Some(number), None) = (node_port, known) {
        fault("nodePort", format!("{number} is not a port number"));
    }
    Some(PortInfo {
        // Most ports have no name, and the empty one is shared by all.
        name: if name.is_empty() {
            Arc::default()
        } else {
            name.into()
        },
        port: number,
        node_port: known,
        protocol,
    })
}

fn external(
    service: &Service,
    spec: &ServiceSpec,
    cluster_ips: &[IpAddr],
    faults: &mut Vec<Fault>,
) -> External {
    let ips = external_ips(spec, cluster_ips, faults);
    let mut load_balancer_ips = load_balancer_ips(service, faults);
    load_balancer_ips.retain(|address| !cluster_ips.contains(address) && !ips.contains(address));
    let ranges = spec.load_balancer_source_ranges.as_deref();
    let (source_ranges, shut) = source_ranges(ranges.unwrap_or_default(), faults);
    load_balancer_ips.retain(|address| !shut.contains(&Family::of(*address)));
    External {
        ips: ips.into(),
        load_balancer_ips: load_balancer_ips.into(),
        source_ranges: source_ranges.into(),
        health_check_node_port: health_check_node_port(spec, faults),
    }
}

fn external_ips(
    spec: &ServiceSpec,
    cluster_ips: &[IpAddr],
    faults: &mut Vec<Fault>,
) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for (index, text) in spec.external_ips.iter().flatten().enumerate() {
        let fault = match parse_ip(text) {
            None => format!("{text:?} is not an IP address"),
            Some(address) => match special(address) {
                Some(kind) => format!("{address} is {kind}"),
                None => {
                    if !found.contains(&address) && !cluster_ips.contains(&address) {
                        found.push(address);
                    }
                    continue;
                }
            },
        };
        faults.push(Fault::new(format!("spec.externalIPs[{index}]"), fault));
    }
    found
}

/// Unlike with other addresses, clouds do use special ones here.
fn load_balancer_ips(service: &Service, faults: &mut Vec<Fault>) -> Vec<IpAddr> {
    let status = service.status.as_ref();
    let ingress = status
        .and_then(|status| status.load_balancer.as_ref())
        .and_then(|balancer| balancer.ingress.as_deref());
    let mut found = Vec::new();
    for (index, ingress) in ingress.unwrap_or_default().iter().enumerate() {
        let ends_on_node = matches!(ingress.ip_mode.as_deref(), None | Some("VIP"));
        let text = match ingress.ip.as_deref() {
            Some(text) if !text.is_empty() && ends_on_node => text,
            _ => continue,
        };
        match parse_ip(text).filter(|address| !address.is_unspecified()) {
            Some(address) if !found.contains(&address) => found.push(address),
            Some(_) => {}
            None => faults.push(Fault::new(
                format!("status.loadBalancer.ingress[{index}].ip"),
                format!("{text:?} is not an address that traffic can go to"),
            )),
        }
    }
    found
}

/// The ranges that restrict, and the families that nobody may use: a range that
/// cannot be read may have been of either family, and must not open what it was
/// meant to close.
fn source_ranges(texts: &[String], faults: &mut Vec<Fault>) -> (Vec<IpNet>, Vec<Family>) {
    let mut nets = Vec::new();
    let mut unread = false;
    for (index, text) in texts.iter().enumerate() {
        if let Some(net) = parse_net(text) {
            if !nets.contains(&net) {
                nets.push(net);
            }
        } else {
            unread = true;
            faults.push(Fault::new(
                format!("spec.loadBalancerSourceRanges[{index}]"),
                format!("{text:?} is not a CIDR; it admits nobody"),
            ));
        }
    }
    let of = |family| {
        nets.iter()
            .filter(move |net| Family::of(net.addr()) == family)
    };
    let mut shut = Vec::new();
    let mut open = Vec::new();
    for family in Family::ALL {
        if of(family).any(|net| net.prefix_len() == 0) {
            open.push(family);
        } else if unread && of(family).next().is_none() {
            shut.push(family);
        }
    }
    nets.retain(|net| !open.contains(&Family::of(net.addr())));
    (nets, shut)
}

fn health_check_node_port(spec: &ServiceSpec, faults: &mut Vec<Fault>) -> Option<NonZeroU16> {
    let needed = spec.type_.as_deref() == Some("LoadBalancer")
        && spec.external_traffic_policy.as_deref() == Some("Local");
    if !needed {
        return None;
    }
    let number = spec.health_check_node_port.unwrap_or_default();
    let port = port_number(number);
    if port.is_none() {
        let message = format!(
            "{number} is not a port number; load balancers cannot ask this node for its health"
        );
        faults.push(Fault::new("spec.healthCheckNodePort", message));
    }
    port
}

fn affinity(spec: &ServiceSpec, faults: &mut Vec<Fault>) -> Option<NonZeroU32> {
    match spec.session_affinity.as_deref() {
        None | Some("" | "None") => return None,
        Some("ClientIP") => {}
        Some(other) => {
            let message = format!("{other:?} is neither None nor ClientIP; None is assumed");
            faults.push(Fault::new("spec.sessionAffinity", message));
            return None;
        }
    }
    let seconds = spec
        .session_affinity_config
        .as_ref()
        .and_then(|config| config.client_ip.as_ref())
        .and_then(|config| config.timeout_seconds);
    let Some(seconds) = seconds else {
        return Some(DEFAULT_AFFINITY);
    };
    let known = u32::try_from(seconds)
        .ok()
        .filter(|seconds| *seconds <= MAX_AFFINITY)
        .and_then(NonZeroU32::new);
    if known.is_none() {
        faults.push(Fault::new(
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
            format!("{seconds} is not within 1 to {MAX_AFFINITY}; {DEFAULT_AFFINITY} is assumed"),
        ));
    }
    Some(known.unwrap_or(DEFAULT_AFFINITY))
}

fn external_local(spec: &ServiceSpec, faults: &mut Vec<Fault>) -> bool {
    let reachable = matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer"))
        || spec.external_ips.iter().flatten().next().is_some();
    let policy = spec.external_traffic_policy.as_deref();
    is_local("spec.externalTrafficPolicy", policy, faults) && reachable
}

fn is_local(field: &str, policy: Option<&str>, faults: &mut Vec<Fault>) -> bool {
    match policy {
        Some("Local") => true,
        None | Some("" | "Cluster") => false,
        Some(other) => {
            let message = format!("{other:?} is neither Cluster nor Local; Cluster is assumed");
            faults.push(Fault::new(field, message));
            false
        }
    }
}

/// The protocol; TCP if the object does not say.
pub(super) fn protocol(text: Option<&str>) -> Option<Protocol> {
    match text {
        None | Some("" | "TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some("SCTP") => Some(Protocol::Sctp),
        Some(_) => None,
    }
}

pub(super) fn port_number(number: i32) -> Option<NonZeroU16> {
    u16::try_from(number).ok().and_then(NonZeroU16::new)
}

/// RFC 1123. What is not a label could end the text of a rule and begin another.
fn is_label(text: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests;
