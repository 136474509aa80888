//! The node's addresses. [`choose`], [`node_addresses`] and [`host_ips`] are
//! pure; [`discover`] looks for candidates.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use k8s_openapi::api::core::v1::NodeAddress;

use super::settings::{NodeIps, NodeSettings};

/// Tells the cloud controller which addresses the administrator asked for.
pub const PROVIDED_IP_ANNOTATION: &str = "alpha.kubernetes.io/provided-node-ip";

/// How long a name server is waited for; there are other ways to an address.
const LOOKUP_LIMIT: Duration = Duration::from_secs(2);

/// Where an address can come from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Candidates {
    /// Of the interfaces.
    pub local: Vec<IpAddr>,
    /// Of the node's name.
    pub looked_up: Vec<IpAddr>,
    /// Source addresses of the default routes, at most one a family.
    pub routed: Vec<IpAddr>,
}

/// Why the node has no address.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    #[error("node IP {0} is not an address of this machine's interfaces")]
    NotLocal(IpAddr),
    #[error("node IP {ip} is {kind}, which other machines cannot reach")]
    Unreachable { ip: IpAddr, kind: &'static str },
    #[error("{0:?} has no usable address, and there is no default route")]
    Unknown(String),
    #[error("cannot list the network interfaces")]
    Interfaces(#[source] std::io::Error),
}

/// Picks the internal addresses, primary first.
///
/// # Errors
/// When an address that was asked for is not usable, or none is found.
pub fn choose(ips: NodeIps, name: &str, found: &Candidates) -> Result<Vec<IpAddr>, AddressError> {
    let v4_first = match ips {
        NodeIps::One(ip) => return Ok(vec![usable(ip, found)?]),
        NodeIps::Pair(first, second) => {
            return Ok(vec![usable(first, found)?, usable(second, found)?]);
        }
        NodeIps::Auto | NodeIps::PreferV4 => true,
        NodeIps::PreferV6 => false,
    };
    if let Ok(ip) = name.parse() {
        return Ok(vec![ip]);
    }
    let preferred = |ips: &mut dyn Iterator<Item = IpAddr>| {
        let usable: Vec<IpAddr> = ips.filter(|&ip| usable(ip, found).is_ok()).collect();
        let of_family = usable.iter().find(|ip| ip.is_ipv4() == v4_first);
        of_family.or(usable.first()).copied()
    };
    preferred(&mut found.looked_up.iter().copied())
        .or_else(|| preferred(&mut found.routed.iter().copied()))
        .map(|ip| vec![ip])
        .ok_or_else(|| AddressError::Unknown(name.to_owned()))
}

/// An address can be a node's if others can reach it and it is here.
fn usable(ip: IpAddr, found: &Candidates) -> Result<IpAddr, AddressError> {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    let kinds = [
        (ip.is_loopback(), "a loopback address"),
        (ip.is_multicast(), "a multicast address"),
        (link_local, "a link-local address"),
        (ip.is_unspecified(), "the unspecified address"),
    ];
    match kinds.into_iter().find(|(is, _)| *is) {
        Some((_, kind)) => Err(AddressError::Unreachable { ip, kind }),
        None if found.local.contains(&ip) => Ok(ip),
        None => Err(AddressError::NotLocal(ip)),
    }
}

/// `status.addresses`. `internal` is what [`choose`] said, or `None` if that
/// failed; `existing` is what the Node has. An external cloud provider owns the
/// addresses as soon as it has set any.
#[must_use]
pub fn node_addresses(
    settings: &NodeSettings,
    internal: Option<&[IpAddr]>,
    existing: &[NodeAddress],
) -> Vec<NodeAddress> {
    if settings.external_cloud_provider && !existing.is_empty() {
        return existing.to_vec();
    }
    let hostname = address("Hostname", settings.name.clone());
    if settings.external_cloud_provider && settings.ips == NodeIps::Auto {
        return vec![hostname];
    }
    match internal {
        Some(ips) => ips
            .iter()
            .map(|ip| address("InternalIP", ip.to_string()))
            .chain([hostname])
            .collect(),
        None => existing.to_vec(),
    }
}

/// The value of [`PROVIDED_IP_ANNOTATION`]; `None`: the Node must not have it.
#[must_use]
pub fn provided_ip(settings: &NodeSettings) -> Option<String> {
    match settings.ips {
        _ if !settings.external_cloud_provider => None,
        NodeIps::One(ip) => Some(ip.to_string()),
        NodeIps::Pair(first, second) => Some(format!("{first},{second}")),
        NodeIps::Auto | NodeIps::PreferV4 | NodeIps::PreferV6 => None,
    }
}

/// The addresses that pods see as their host's: the first one, internal before
/// external, and the first of the other family.
#[must_use]
pub fn host_ips(addresses: &[NodeAddress]) -> Vec<IpAddr> {
    let of_type = |kind: &'static str| {
        addresses
            .iter()
            .filter(move |address| address.type_ == kind)
            .filter_map(|address| address.address.parse::<IpAddr>().ok())
    };
    let all: Vec<IpAddr> = of_type("InternalIP").chain(of_type("ExternalIP")).collect();
    let Some(&first) = all.first() else {
        return Vec::new();
    };
    let other = all.iter().find(|ip| ip.is_ipv4() != first.is_ipv4());
    [first].into_iter().chain(other.copied()).collect()
}

fn address(kind: &str, address: String) -> NodeAddress {
    NodeAddress {
        type_: kind.to_owned(),
        address,
    }
}

// === effects ===

/// Looks at interfaces, name service and routes, and chooses. An address that
/// was found before (`previous`) stays while an interface has it, so that a
/// name server's bad day does not move the node.
///
/// # Errors
/// As [`choose`], or when interfaces cannot be listed.
pub async fn discover(
    settings: &NodeSettings,
    previous: &[IpAddr],
) -> Result<Vec<IpAddr>, AddressError> {
    let local: Vec<IpAddr> = if_addrs::get_if_addrs()
        .map_err(AddressError::Interfaces)?
        .iter()
        .map(if_addrs::Interface::ip)
        .collect();
    let mut found = Candidates {
        local,
        ..Candidates::default()
    };
    let asked_for = matches!(settings.ips, NodeIps::One(_) | NodeIps::Pair(..));
    if !asked_for {
        if !previous.is_empty() && previous.iter().all(|ip| found.local.contains(ip)) {
            return Ok(previous.to_vec());
        }
        found.looked_up = look_up(&settings.name).await;
        found.routed = routed_sources();
    }
    choose(settings.ips, &settings.name, &found)
}

async fn look_up(name: &str) -> Vec<IpAddr> {
    let lookup = tokio::net::lookup_host((name, 0));
    match tokio::time::timeout(LOOKUP_LIMIT, lookup).await {
        Ok(Ok(addresses)) => addresses.map(|address| address.ip()).collect(),
        // Most nodes have no entry; the default route is next.
        Ok(Err(_)) | Err(_) => Vec::new(),
    }
}

/// The kernel chooses a source address when a UDP socket is connected. Nothing
/// is sent; the targets are of the ranges set aside for documentation.
fn routed_sources() -> Vec<IpAddr> {
    let routes: [(IpAddr, IpAddr); 2] = [
        (
            Ipv4Addr::UNSPECIFIED.into(),
            Ipv4Addr::new(192, 0, 2, 1).into(),
        ),
        (
            Ipv6Addr::UNSPECIFIED.into(),
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
        ),
    ];
    routes
        .into_iter()
        .filter_map(|(any, target)| {
            let socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
            socket.connect(SocketAddr::new(target, 9)).ok()?;
            Some(socket.local_addr().ok()?.ip())
        })
        .collect()
}

#[cfg(test)]
mod tests;
