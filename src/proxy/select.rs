//! Which endpoints of a Service's port serve on this node.
//!
//! In: one port as its family sees it, the Service's slices of that family, this
//! node's zone. Out: [`Selected`]. Pure, and a function of exactly these.
//!
//! Ready endpoints serve. Where there are none, those serve that go but still answer,
//! so that the last pod of a Service can hand over. Hints of the slices' controller
//! narrow traffic of policy Cluster to this node or this zone, but only if all ready
//! endpoints have them and one of them is meant for us: half a set of hints would
//! send everybody to the same few.

use std::net::SocketAddr;

use super::model::{Protocol, Selected, ServicePort};
use super::slice::{Endpoint, NodeHint, SliceInfo};

/// An endpoint, and where it serves one port.
pub type Target<'a> = (SocketAddr, &'a Endpoint);

/// The endpoints of one port, each address once: in the order of the text `ip:port`.
/// The slices are of one family. Of several entries for the same address the one of
/// most worth counts, of equal ones that of the first slice.
#[must_use]
pub fn targets<'a>(
    slices: impl IntoIterator<Item = &'a SliceInfo>,
    name: &str,
    protocol: Protocol,
) -> Vec<Target<'a>> {
    let mut found: Vec<Target<'a>> = Vec::new();
    for slice in slices {
        let ports = slice
            .ports
            .iter()
            .filter(|port| &*port.name == name && port.protocol == protocol);
        for port in ports {
            let at = |endpoint: &Endpoint| SocketAddr::new(endpoint.address, port.port.get());
            found.extend(slice.endpoints.iter().map(|one| (at(one), one)));
        }
    }
    found.sort_by(|(a, one), (b, other)| a.cmp(b).then_with(|| other.worth().cmp(&one.worth())));
    found.dedup_by_key(|(address, _)| *address);
    found.sort_by_cached_key(|(address, _)| address.to_string());
    found
}

/// The endpoints among `targets` that serve `port` on a node in `zone`.
#[must_use]
pub fn select(port: &ServicePort, targets: &[Target<'_>], zone: Option<&str>) -> Selected {
    let outside = port.node_port.is_some()
        || !port.external_ips.is_empty()
        || !port.load_balancer_ips.is_empty();
    // Pods of this node reach external addresses of policy Local as if it were Cluster.
    let uses_cluster = !port.internal_local || outside;
    let uses_local = port.internal_local || (port.external_local && outside);
    Selected {
        cluster: if uses_cluster {
            cluster(targets, zone)
        } else {
            Vec::new()
        },
        local: if uses_local {
            ready_or_last_resort(targets, |endpoint| endpoint.local)
        } else {
            Vec::new()
        },
        anywhere: targets
            .iter()
            .any(|(_, endpoint)| endpoint.ready || endpoint.is_last_resort()),
    }
}

/// What traffic of policy Cluster prefers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Topology {
    SameNode,
    SameZone,
    Anywhere,
}

fn cluster(targets: &[Target<'_>], zone: Option<&str>) -> Vec<SocketAddr> {
    let topology = topology(targets, zone);
    let near = |endpoint: &Endpoint| match topology {
        Topology::SameNode => endpoint.node_hint == NodeHint::Here,
        Topology::SameZone => is_for_zone(endpoint, zone),
        Topology::Anywhere => true,
    };
    let ready = addresses(targets, |endpoint| endpoint.ready && near(endpoint));
    if ready.is_empty() {
        addresses(targets, Endpoint::is_last_resort)
    } else {
        ready
    }
}

fn topology(targets: &[Target<'_>], zone: Option<&str>) -> Topology {
    let ready = || targets.iter().map(|(_, one)| *one).filter(|one| one.ready);
    if ready().all(|one| one.node_hint != NodeHint::Absent)
        && ready().any(|one| one.node_hint == NodeHint::Here)
    {
        Topology::SameNode
    } else if ready().all(|one| one.zone_hints.is_some())
        && ready().any(|one| is_for_zone(one, zone))
    {
        Topology::SameZone
    } else {
        Topology::Anywhere
    }
}

fn is_for_zone(endpoint: &Endpoint, zone: Option<&str>) -> bool {
    match (&endpoint.zone_hints, zone) {
        (Some(zones), Some(zone)) => zones.contains(zone),
        _ => false,
    }
}

fn ready_or_last_resort(
    targets: &[Target<'_>],
    which: impl Fn(&Endpoint) -> bool,
) -> Vec<SocketAddr> {
    let ready = addresses(targets, |endpoint| endpoint.ready && which(endpoint));
    if ready.is_empty() {
        addresses(targets, |one| one.is_last_resort() && which(one))
    } else {
        ready
    }
}

fn addresses(targets: &[Target<'_>], which: impl Fn(&Endpoint) -> bool) -> Vec<SocketAddr> {
    targets
        .iter()
        .filter(|(_, endpoint)| which(endpoint))
        .map(|(address, _)| *address)
        .collect()
}

#[cfg(test)]
mod tests;
