//! Cluster IPs and node ports of Services that nobody else gives any.
//!
//! What a Service asks for it gets, unless one before it, by name, asks for the
//! same. The others get what a hash of their name points at, or the next free
//! one. So addresses are the same after a restart, and on every node that has
//! the same files. What a Service was given it keeps while it is there: the few
//! whose hashes collide are decided anew only after a restart.
//!
//! The lower end of each range is used last, as the API server does: that is
//! where addresses are that people choose.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{Service, ServicePort};
use sha2::{Digest as _, Sha256};

use super::defaults;
use crate::proxy::model::{Family, ServiceName};

/// Where addresses are taken from that no Service asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranges {
    pub cluster_ips: Ipv4Net,
    pub node_ports: RangeInclusive<u16>,
}

impl Default for Ranges {
    /// kubeadm's range of Services, and the API server's of node ports.
    fn default() -> Self {
        Self {
            cluster_ips: Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 12),
            node_ports: 30_000..=32_767,
        }
    }
}

/// Gives Services their addresses, and remembers what it gave.
#[derive(Debug, Clone, Default)]
pub struct Addresses {
    ranges: Ranges,
    given: BTreeMap<Want, Address>,
}

/// An address that a Service needs and does not name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Want {
    service: ServiceName,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    ClusterIp,
    /// For this port of the Service.
    NodePort {
        protocol: String,
        port: i32,
    },
}

/// What no two Services can have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Address {
    ClusterIp(IpAddr),
    NodePort { protocol: String, number: i32 },
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClusterIp(ip) => write!(f, "cluster IP {ip}"),
            Self::NodePort { protocol, number } => write!(f, "node port {number}/{protocol}"),
        }
    }
}

/// Why a Service is not served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    pub service: ServiceName,
    /// For people.
    pub reason: String,
}

/// The outcome for all Services.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Granted {
    /// With every field that the API server fills in. Headless Services and
    /// those of type `ExternalName` are not among them: they have no address.
    pub services: BTreeMap<ServiceName, Service>,
    /// These are not served, by name.
    pub conflicts: Vec<Conflict>,
}

type Taken = BTreeMap<Address, ServiceName>;

// === impl Addresses ===

impl Addresses {
    #[must_use]
    pub fn new(ranges: Ranges) -> Self {
        let given = BTreeMap::new();
        Self { ranges, given }
    }

    /// Gives all Services what they need. Those that are not among them any
    /// more lose what they had.
    pub fn grant(&mut self, services: &BTreeMap<ServiceName, Arc<Service>>) -> Granted {
        let mut taken = Taken::new();
        let mut granted = Granted::default();
        for (name, service) in services {
            let Some(service) = defaults::complete(service) else {
                continue;
            };
            match claim(name, &service, &mut taken) {
                Ok(()) => {
                    granted.services.insert(name.clone(), service);
                }
                Err(conflict) => granted.conflicts.push(conflict),
            }
        }
        let wants = granted.services.iter().flat_map(wants).collect();
        granted.conflicts.extend(self.choose(wants, &mut taken));
        granted.conflicts.sort_by(|a, b| a.service.cmp(&b.service));
        for Conflict { service, .. } in &granted.conflicts {
            granted.services.remove(service);
        }
        for (want, address) in &self.given {
            if let Some(service) = granted.services.get_mut(&want.service) {
                give(service, &want.kind, address);
            }
        }
        granted
    }

    /// Chooses an address for each want. Everybody keeps what they had, unless
    /// another one asks for it now.
    fn choose(&mut self, wants: Vec<Want>, taken: &mut Taken) -> Vec<Conflict> {
        let mut before = std::mem::take(&mut self.given);
        let mut open = Vec::new();
        for want in wants {
            match before.remove(&want) {
                Some(address) if !taken.contains_key(&address) => {
                    taken.insert(address.clone(), want.service.clone());
                    self.given.insert(want, address);
                }
                _ => open.push(want),
            }
        }
        let mut conflicts = Vec::new();
        for want in open {
            let free = self.candidates(&want).find(|one| !taken.contains_key(one));
            if let Some(address) = free {
                taken.insert(address.clone(), want.service.clone());
                self.given.insert(want, address);
            } else {
                conflicts.push(Conflict {
                    service: want.service,
                    reason: match want.kind {
                        Kind::ClusterIp => "no cluster IP is left".into(),
                        Kind::NodePort { .. } => "no node port is left".into(),
                    },
                });
            }
        }
        conflicts
    }

    /// All addresses that will do, in the order of preference.
    fn candidates(&self, want: &Want) -> Box<dyn Iterator<Item = Address>> {
        let hash = hash(want);
        match &want.kind {
            Kind::ClusterIp => {
                let network = self.ranges.cluster_ips;
                let first = u32::from(network.network());
                let count = u32::from(network.broadcast()) - first;
                // Neither the network's own address nor the broadcast's.
                let (low, high) = split(1, count, (count / 16).clamp(16, 256));
                let order = around(high, hash).chain(around(low, hash));
                Box::new(
                    order.map(move |offset| {
                        Address::ClusterIp(Ipv4Addr::from(first + offset).into())
                    }),
                )
            }
            Kind::NodePort { protocol, .. } => {
                let first = u32::from(*self.ranges.node_ports.start());
                let end = u32::from(*self.ranges.node_ports.end()) + 1;
                let reserved = (end.saturating_sub(first) / 32).clamp(16, 128);
                let (low, high) = split(first, end, reserved);
                let protocol = protocol.clone();
                let order = around(high, hash).chain(around(low, hash));
                Box::new(order.map(move |number| Address::NodePort {
                    protocol: protocol.clone(),
                    number: number.cast_signed(),
                }))
            }
        }
    }
}

/// Takes what a Service asks for: all of it, or nothing.
fn claim(name: &ServiceName, service: &Service, taken: &mut Taken) -> Result<(), Conflict> {
    let spec = service.spec.as_ref();
    let ips = spec.into_iter().flat_map(|spec| spec.cluster_ips.iter());
    let ips = ips.flatten().filter_map(|ip| ip.parse().ok());
    let ports = spec.into_iter().flat_map(|spec| spec.ports.iter());
    let ports = ports.flatten().filter_map(|port| {
        Some(Address::NodePort {
            protocol: protocol(port),
            number: port.node_port?,
        })
    });
    let asked: Vec<Address> = ips.map(Address::ClusterIp).chain(ports).collect();
    for (index, address) in asked.iter().enumerate() {
        let twice = asked[..index].contains(address).then_some(name);
        if let Some(holder) = taken.get(address).or(twice) {
            return Err(Conflict {
                service: name.clone(),
                reason: format!("{address} is already taken by {holder}"),
            });
        }
    }
    taken.extend(asked.into_iter().map(|address| (address, name.clone())));
    Ok(())
}

/// The addresses that a Service with its defaults still lacks.
fn wants((name, service): (&ServiceName, &Service)) -> Vec<Want> {
    let want = |kind| Want {
        service: name.clone(),
        kind,
    };
    let Some(spec) = &service.spec else {
        return Vec::new();
    };
    let ip = spec.cluster_ip.is_none().then(|| want(Kind::ClusterIp));
    let ports = spec.ports.iter().flatten();
    let ports = ports.filter(|port| defaults::has_node_ports(spec) && port.node_port.is_none());
    let ports = ports.map(|port| {
        want(Kind::NodePort {
            protocol: protocol(port),
            port: port.port,
        })
    });
    ip.into_iter().chain(ports).collect()
}

fn give(service: &mut Service, kind: &Kind, address: &Address) {
    let spec = service.spec.get_or_insert_default();
    match (kind, address) {
        (Kind::ClusterIp, Address::ClusterIp(ip)) => {
            spec.cluster_ip = Some(ip.to_string());
            spec.cluster_ips = Some(vec![ip.to_string()]);
            spec.ip_families = Some(vec![Family::of(*ip).as_str().to_owned()]);
        }
        (Kind::NodePort { protocol: p, port }, Address::NodePort { number, .. }) => {
            let mut ports = spec.ports.iter_mut().flatten();
            let wanted = ports.find(|one| one.port == *port && protocol(one) == *p);
            if let Some(wanted) = wanted {
                wanted.node_port = Some(*number);
            }
        }
        _ => {}
    }
}

fn protocol(port: &ServicePort) -> String {
    port.protocol.clone().unwrap_or_default()
}

/// What is reserved for people's choice, and the rest, which is never empty
/// unless the whole is.
fn split(start: u32, end: u32, reserved: u32) -> (Range<u32>, Range<u32>) {
    let border = start.saturating_add(reserved);
    if border < end {
        (start..border, border..end)
    } else {
        (0..0, start..end)
    }
}

/// Everything in a range, once, from a place of one's own on.
fn around(range: Range<u32>, hash: u64) -> impl Iterator<Item = u32> {
    let count = u64::from(range.end.saturating_sub(range.start));
    (0..count).filter_map(move |step| {
        let offset = (hash % count + step) % count;
        u32::try_from(offset)
            .ok()
            .map(|offset| range.start + offset)
    })
}

/// The same for the same want, for ever.
fn hash(want: &Want) -> u64 {
    let text = match &want.kind {
        Kind::ClusterIp => want.service.to_string(),
        Kind::NodePort { protocol, port } => format!("{}:{port}/{protocol}", want.service),
    };
    let digest = Sha256::digest(text.as_bytes());
    digest
        .iter()
        .take(8)
        .fold(0, |hash, byte| (hash << 8) | u64::from(*byte))
}
