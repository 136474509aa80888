//! Which connection tracking entries are stale: they lead clients of a Service to
//! somebody who no longer serves it, or to nobody.
//!
//! In: who serves which destination ([`Truth`], kept as Services change), the kernel's
//! entries ([`Flow`]) and the addresses of this node. Out: yes or no for each entry.
//!
//! Rules of the nat table are only asked for a flow's first packet. A flow that was
//! translated to an endpoint goes on to that endpoint for as long as its client keeps
//! sending; one that was not translated because there was no rule yet goes nowhere for
//! just as long. UDP has no reset that would end it, and clients of SCTP retransmit
//! for minutes. TCP is left to itself, as upstream does: its connections end with
//! their endpoint, and cutting one that lives would be an error its client sees.
//!
//! Decided from what the kernel has and what the rules say, not from what changed. So
//! changes made while nobody watched count, and asking twice does no harm.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::model::{Destination, Family, Protocol, Selected, ServiceName, ServicePort};

#[cfg(test)]
mod tests;

/// The protocols whose entries can be stale.
pub const PROTOCOLS: [Protocol; 2] = [Protocol::Udp, Protocol::Sctp];

/// The zone of entries that nobody put into another.
pub const DEFAULT_ZONE: u16 = 0;

/// One direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

/// An entry of the kernel's connection tracking table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    pub protocol: Protocol,
    /// As the client sends.
    pub original: Tuple,
    /// As answers are expected: its source is who really serves the client.
    pub reply: Tuple,
    /// The zone in which `original` is unique.
    pub zone: u16,
    /// The kernel's name for the entry. With it, a newer one with the same tuple is
    /// not taken for this one.
    pub id: u32,
}

impl Flow {
    #[must_use]
    pub const fn family(&self) -> Family {
        Family::of(self.original.destination.ip())
    }

    /// Whether packets go elsewhere than the client sends them.
    #[must_use]
    pub fn is_translated(&self) -> bool {
        self.reply.source != self.original.destination
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tuple {
            source,
            destination,
        } = self.original;
        let (protocol, server) = (self.protocol.as_str(), self.reply.source);
        write!(f, "{protocol} {source} to {destination} at {server}")
    }
}

/// A port of a Service with those who may go on serving its flows.
#[derive(Debug, Clone)]
pub struct Served<'a> {
    port: &'a ServicePort,
    endpoints: BTreeSet<SocketAddr>,
}

impl<'a> Served<'a> {
    /// With the endpoints that new flows are sent to.
    #[must_use]
    pub fn new(port: &'a ServicePort, selected: &Selected) -> Self {
        let endpoints = selected.cluster.iter().chain(&selected.local);
        Self {
            port,
            endpoints: endpoints.copied().collect(),
        }
    }

    /// Adds endpoints that get no new flows but still answer: terminating ones, those
    /// of another zone. Upstream leaves flows to any serving endpoint alone.
    #[must_use]
    pub fn also(mut self, endpoints: impl IntoIterator<Item = SocketAddr>) -> Self {
        self.endpoints.extend(endpoints);
        self
    }
}

/// Who serves which destination in one family, and which destinations nobody serves
/// any more.
#[derive(Debug, Clone)]
pub struct Truth {
    family: Family,
    destinations: HashMap<Destination, Vec<Claim>>,
    services: HashMap<Arc<ServiceName>, Vec<Destination>>,
    gone: BTreeSet<Destination>,
    pass: Pass,
}

/// One Service's part of a destination. Normally there is one; of Services that share
/// an address and port by mistake, each has one.
#[derive(Debug, Clone)]
struct Claim {
    service: Arc<ServiceName>,
    endpoints: Endpoints,
}

/// Sorted, without duplicates, and shared by all destinations of a port.
type Endpoints = Arc<[SocketAddr]>;

/// Whether the table has to be looked through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    Due,
    Done,
}

impl Truth {
    /// Knows nobody, and wants the table looked through once.
    #[must_use]
    pub fn new(family: Family) -> Self {
        Self {
            family,
            destinations: HashMap::new(),
            services: HashMap::new(),
            gone: BTreeSet::new(),
            pass: Pass::Due,
        }
    }

    #[must_use]
    pub const fn family(&self) -> Family {
        self.family
    }

    /// Replaces what is known about one Service; no ports: it is gone. Destinations
    /// that it had and nobody has now are remembered until [`Self::settled`].
    pub fn set(&mut self, service: &Arc<ServiceName>, ports: &[Served<'_>]) {
        let claimed = claims(self.family, ports);
        for destination in self.services.remove(service).unwrap_or_default() {
            if !claimed.contains_key(&destination) {
                self.withdraw(service, destination);
            }
        }
        if claimed.is_empty() {
            return;
        }
        let destinations = claimed.keys().copied().collect();
        self.services.insert(Arc::clone(service), destinations);
        for (destination, endpoints) in claimed {
            self.claim(service, destination, endpoints);
        }
    }

    /// Takes over destinations that an earlier process's rules took (as found in the
    /// kernel before they were replaced). Those that no Service has now count as gone.
    pub fn inherit(&mut self, found: &[Destination]) {
        let family = self.family;
        let ours = found
            .iter()
            .filter(|destination| is_tracked(**destination, family))
            .filter(|destination| !self.destinations.contains_key(*destination));
        self.gone.extend(ours);
        if !self.gone.is_empty() {
            self.pass = Pass::Due;
        }
    }

    /// Whether anything happened since the last pass that can have made entries stale.
    /// A mere new endpoint beside others does not.
    #[must_use]
    pub fn is_pass_due(&self) -> bool {
        self.pass == Pass::Due
    }

    /// The whole table was looked through with this truth, after the kernel had its
    /// rules, and what was stale was removed.
    pub fn settled(&mut self) {
        self.gone.clear();
        self.pass = Pass::Done;
    }

    /// Whether an entry leads its client astray. `node` has the addresses of this node
    /// at which node ports are served.
    ///
    /// Only entries to destinations that are, or were, a Service's can be stale:
    /// - one that is translated, but to nobody who serves the destination;
    /// - one that is not translated although somebody serves the destination. Where
    ///   nobody does, there is nothing better for it, and of a destination that was
    ///   given up it may be the next owner's.
    ///
    /// An untranslated entry in a zone of its own is another switch's view of packets
    /// that are translated elsewhere, and none of our business.
    #[must_use]
    pub fn is_stale(&self, flow: &Flow, node: &BTreeSet<IpAddr>) -> bool {
        if flow.family() != self.family {
            return false;
        }
        let Some(served) = self.served(flow, node) else {
            return false;
        };
        if served.by(flow.reply.source) {
            return false;
        }
        flow.is_translated() || (flow.zone == DEFAULT_ZONE && !served.by_nobody())
    }

    /// Who serves the destination of a flow, if it is one that is or was ours. Rules
    /// for addresses come before those for node ports.
    fn served(&self, flow: &Flow, node: &BTreeSet<IpAddr>) -> Option<ServedBy<'_>> {
        let (protocol, address) = (flow.protocol, flow.original.destination);
        let by_address = Destination::Address { protocol, address };
        let by_port = node
            .contains(&address.ip())
            .then(|| std::num::NonZeroU16::new(address.port()))
            .flatten()
            .map(|port| Destination::NodePort { protocol, port });
        let candidates = || std::iter::once(by_address).chain(by_port);
        candidates()
            .find_map(|destination| self.destinations.get(&destination))
            .map(|claims| ServedBy(claims))
            .or_else(|| {
                candidates()
                    .any(|destination| self.gone.contains(&destination))
                    .then_some(ServedBy(&[]))
            })
    }

    fn claim(&mut self, service: &Arc<ServiceName>, destination: Destination, new: Endpoints) {
        self.gone.remove(&destination);
        let claims = self.destinations.entry(destination).or_default();
        match claims.iter_mut().find(|claim| claim.service == *service) {
            Some(claim) => {
                if can_make_stale(&claim.endpoints, &new) {
                    self.pass = Pass::Due;
                }
                claim.endpoints = new;
            }
            None => {
                claims.push(Claim {
                    service: Arc::clone(service),
                    endpoints: new,
                });
                self.pass = Pass::Due;
            }
        }
    }

    fn withdraw(&mut self, service: &ServiceName, destination: Destination) {
        self.pass = Pass::Due;
        let Some(claims) = self.destinations.get_mut(&destination) else {
            return;
        };
        claims.retain(|claim| *claim.service != *service);
        if claims.is_empty() {
            self.destinations.remove(&destination);
            self.gone.insert(destination);
        }
    }
}

/// All who serve one destination. If Services share it by mistake, only one of them
/// gets its new flows; which one is the rules' affair, and flows to any are spared.
struct ServedBy<'a>(&'a [Claim]);

impl ServedBy<'_> {
    fn by(&self, server: SocketAddr) -> bool {
        let mut claims = self.0.iter();
        claims.any(|claim| claim.endpoints.binary_search(&server).is_ok())
    }

    fn by_nobody(&self) -> bool {
        self.0.iter().all(|claim| claim.endpoints.is_empty())
    }
}

/// The destinations of these ports that matter here, with who serves them.
fn claims(family: Family, ports: &[Served<'_>]) -> BTreeMap<Destination, Endpoints> {
    let mut claims: BTreeMap<Destination, Endpoints> = BTreeMap::new();
    for Served { port, endpoints } in ports {
        let shared: Endpoints = endpoints.iter().copied().collect();
        for destination in destinations(port).filter(|one| is_tracked(*one, family)) {
            claims
                .entry(destination)
                .and_modify(|others| {
                    let all: BTreeSet<_> = others.iter().chain(&*shared).copied().collect();
                    *others = all.into_iter().collect();
                })
                .or_insert_with(|| Arc::clone(&shared));
        }
    }
    claims
}

/// Where clients of a port send to.
fn destinations(port: &ServicePort) -> impl Iterator<Item = Destination> {
    let protocol = port.name.protocol;
    let node_port = port
        .node_port
        .map(|port| Destination::NodePort { protocol, port });
    port.cluster_ip
        .iter()
        .chain(&port.external_ips)
        .chain(&port.load_balancer_ips)
        .map(move |ip| Destination::Address {
            protocol,
            address: SocketAddr::new(*ip, port.port),
        })
        .chain(node_port)
}

/// Whether flows to a destination can be stale. Node ports are the family's whose
/// truth it is.
fn is_tracked(destination: Destination, family: Family) -> bool {
    match destination {
        Destination::Address { protocol, address } => {
            PROTOCOLS.contains(&protocol) && Family::of(address.ip()) == family
        }
        Destination::NodePort { protocol, .. } => PROTOCOLS.contains(&protocol),
    }
}

/// Whether flows that were right with the `old` endpoints can be wrong with `new`:
/// somebody left, or somebody came where nobody was.
fn can_make_stale(old: &Endpoints, new: &Endpoints) -> bool {
    let left = old.iter().any(|one| new.binary_search(one).is_err());
    left || (old.is_empty() && !new.is_empty())
}
