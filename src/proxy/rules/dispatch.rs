//! How nat KUBE-SERVICES and KUBE-NODEPORTS find a Service's chain.
//!
//! kube-proxy has one long chain of each, which is written anew whenever any Service
//! comes or goes. With more than about 128 rules ours are cut into parts, so that what is
//! written for one Service, and what a packet walks through, stays short:
//!
//! ```text
//! KUBE-SERVICES ─ -d 0.0.0.0/0.0.0.15 ─► KUBE-SVC-DISPATCH-00 ─ -d 0.0.0.16/0.0.0.240 ─► KUBE-SVC-DISPATCH-00-01
//!               ─ -d 0.0.0.1/0.0.0.15 ─► KUBE-SVC-DISPATCH-01    (second level from        with the rules of all
//!               ─ …                                               256 parts on)            addresses that end so
//!               ─ --dst-type LOCAL ────► KUBE-NODEPORTS ─ --dport 29952:30015 ─► KUBE-SVC-NODEPORT-TCP-29952
//! ```
//!
//! The low bits of an address choose, since API servers give out addresses at random
//! from one range. Rules are kept sorted by an address's bits in reverse, so that each
//! part, however many there are, is one range of that order.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::names::{Bucket, ChainName};
use super::rule::{Addresses, Is, Match, Rule, Target};
use crate::proxy::model::{Family, Protocol, ServiceName};

/// Up to so many rules stay in one chain.
const FLAT: usize = 128;
/// Parts are made four times as many when they would hold more rules than this, on
/// average.
const PART: usize = 64;
/// Parts are made a quarter as many when they hold fewer rules than this.
const PART_MIN: usize = 8;
/// From so many bits on there are two levels.
const TWO_LEVELS: u32 = 8;
const MAX_BITS: u32 = 12;
/// Node ports in one part.
const PORTS: u16 = 64;

/// Into how many parts the dispatching chains are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Layout {
    /// nat KUBE-SERVICES is cut into `2^bits` parts; 0 if it is not. Even.
    bits: u32,
    /// Whether nat KUBE-NODEPORTS is cut.
    node_ports: bool,
}

impl Layout {
    /// The layout for so many rules, whatever it was before.
    #[must_use]
    pub fn fresh(services: usize, node_ports: usize) -> Self {
        Self::default().adapted(services, node_ports)
    }

    /// The layout for so many rules after this one, which stays as it is unless it has
    /// become unfit: a cluster whose size goes up and down around a limit must not
    /// rewrite everything each time.
    #[must_use]
    pub fn adapted(self, services: usize, node_ports: usize) -> Self {
        let mut bits = self.bits;
        while bits < MAX_BITS && services > limit(bits) {
            bits += 2;
        }
        while bits > 0 && services < PART_MIN << bits {
            bits -= 2;
        }
        let node_ports = if self.node_ports {
            node_ports >= FLAT / 4
        } else {
            node_ports > FLAT
        };
        Self { bits, node_ports }
    }

    /// Whether nat KUBE-SERVICES is cut into the same parts.
    #[must_use]
    pub const fn same_services(self, other: Self) -> bool {
        self.bits == other.bits
    }

    #[must_use]
    pub const fn cuts_services(self) -> bool {
        self.bits > 0
    }

    #[must_use]
    pub const fn cuts_node_ports(self) -> bool {
        self.node_ports
    }

    const fn low_bits(self) -> u32 {
        if self.bits >= TWO_LEVELS {
            self.bits / 2
        } else {
            self.bits
        }
    }

    /// The part for these low bits; of the second level if there is one.
    fn part(self, address: u32) -> Bucket {
        let low_mask = mask(self.low_bits());
        let high_mask = mask(self.bits) & !low_mask;
        Bucket {
            low_mask,
            low: address & low_mask,
            high: (high_mask != 0).then_some((high_mask, address & high_mask)),
        }
    }

    /// The part that holds the rules for an address.
    #[must_use]
    pub fn part_of(self, slot: u32) -> Option<Bucket> {
        self.cuts_services().then(|| self.part(slot.reverse_bits()))
    }

    /// Parts that hold rules for addresses.
    pub fn leaves(self) -> impl Iterator<Item = Bucket> {
        let parts = if self.cuts_services() {
            1 << self.bits
        } else {
            0
        };
        (0..parts).map(move |low| self.part(low))
    }

    /// Parts that lead to those, if there are two levels.
    pub fn branches(self) -> impl Iterator<Item = Bucket> {
        let two = self.bits >= TWO_LEVELS;
        let parts = if two { 1 << self.low_bits() } else { 0 };
        (0..parts).map(move |low| Bucket {
            low_mask: mask(self.low_bits()),
            low,
            high: None,
        })
    }

    /// The rules in nat KUBE-SERVICES that lead to its parts.
    #[must_use]
    pub fn first_level(self, family: Family) -> Vec<Rule<'static>> {
        let parts = if self.cuts_services() {
            1 << self.low_bits()
        } else {
            0
        };
        let low_mask = mask(self.low_bits());
        (0..parts)
            .map(|low| {
                let to = Bucket {
                    low_mask,
                    low,
                    high: None,
                };
                jump(family, low, low_mask, to)
            })
            .collect()
    }

    /// The rules of a part that leads to others.
    #[must_use]
    pub fn second_level(self, family: Family, branch: Bucket) -> Vec<Rule<'static>> {
        let shift = self.low_bits();
        (0..1 << (self.bits - shift))
            .map(|high: u32| {
                let leaf = self.part(branch.low | high << shift);
                let (mask, bits) = leaf.high.unwrap_or_default();
                jump(family, bits, mask, leaf)
            })
            .collect()
    }

    /// How many rules lead to parts.
    #[must_use]
    pub fn jumps(self) -> usize {
        let first = if self.cuts_services() {
            1 << self.low_bits()
        } else {
            0
        };
        first
            + if self.bits >= TWO_LEVELS {
                1 << self.bits
            } else {
                0
            }
    }
}

fn limit(bits: u32) -> usize {
    if bits == 0 { FLAT } else { PART << bits }
}

const fn mask(bits: u32) -> u32 {
    (1 << bits) - 1
}

fn jump(family: Family, bits: u32, mask: u32, to: Bucket) -> Rule<'static> {
    let low = Addresses::LowBits { family, bits, mask };
    Rule::new(
        [Match::Destination(Is::Is, low)],
        Target::Jump(ChainName::Dispatch(to)),
    )
}

/// Where an address is in the order of parts: its last 32 bits in reverse.
#[must_use]
pub const fn slot(address: IpAddr) -> u32 {
    let low = match address {
        IpAddr::V4(address) => address.to_bits(),
        IpAddr::V6(address) => {
            let [.., a, b, c, d] = address.octets();
            u32::from_be_bytes([a, b, c, d])
        }
    };
    low.reverse_bits()
}

/// Which Services have rules where.
#[derive(Debug, Default)]
pub struct Index {
    addresses: BTreeSet<(u32, Arc<ServiceName>)>,
    node_ports: BTreeSet<(Protocol, u16, Arc<ServiceName>)>,
}

impl Index {
    pub fn add_address(&mut self, slot: u32, service: &Arc<ServiceName>) {
        self.addresses.insert((slot, Arc::clone(service)));
    }

    pub fn remove_address(&mut self, slot: u32, service: &Arc<ServiceName>) {
        self.addresses.remove(&(slot, Arc::clone(service)));
    }

    pub fn add_node_port(&mut self, protocol: Protocol, port: u16, service: &Arc<ServiceName>) {
        let at = (protocol, port, Arc::clone(service));
        self.node_ports.insert(at);
    }

    pub fn remove_node_port(&mut self, protocol: Protocol, port: u16, service: &Arc<ServiceName>) {
        let at = (protocol, port, Arc::clone(service));
        self.node_ports.remove(&at);
    }

    /// What a part of nat KUBE-SERVICES holds, or all of it.
    pub fn addresses(
        &self,
        part: Option<Bucket>,
    ) -> impl Iterator<Item = &(u32, Arc<ServiceName>)> {
        let (first, last) = match part {
            None => (0, u32::MAX),
            Some(Bucket {
                low_mask,
                low,
                high,
            }) => {
                let (high_mask, high) = high.unwrap_or_default();
                let first = (low | high).reverse_bits();
                (first, first | !(low_mask | high_mask).reverse_bits())
            }
        };
        // A name sorts behind the empty one.
        let from = (first, Arc::new(ServiceName::new("", "")));
        self.addresses
            .range(from..)
            .take_while(move |(slot, _)| *slot <= last)
    }

    /// All node ports, or those of a protocol from one on.
    pub fn node_ports(
        &self,
        part: Option<(Protocol, u16)>,
    ) -> impl Iterator<Item = &(Protocol, u16, Arc<ServiceName>)> {
        let (protocol, first) = part.unwrap_or((Protocol::Tcp, 0));
        let from = (protocol, first, Arc::new(ServiceName::new("", "")));
        self.node_ports
            .range(from..)
            .take_while(move |(at, port, _)| match part {
                None => true,
                Some((protocol, first)) => *at == protocol && port - first < PORTS,
            })
    }

    /// The parts of nat KUBE-NODEPORTS: those that hold anything.
    #[must_use]
    pub fn node_port_parts(&self) -> Vec<(Protocol, u16)> {
        let mut parts = Vec::new();
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            let mut from = Some(0);
            while let Some(first) = from {
                let start = (protocol, first, Arc::new(ServiceName::new("", "")));
                let next = self.node_ports.range(start..).next();
                let Some((_, port, _)) = next.filter(|(at, _, _)| *at == protocol) else {
                    break;
                };
                let part = part_of_port(*port);
                parts.push((protocol, part));
                from = part.checked_add(PORTS);
            }
        }
        parts
    }
}

/// The first port of the part that a port is in.
#[must_use]
pub const fn part_of_port(port: u16) -> u16 {
    port - port % PORTS
}

/// The rule in nat KUBE-NODEPORTS that leads to a part.
#[must_use]
pub fn to_ports(protocol: Protocol, first: u16) -> Rule<'static> {
    let matches = [
        Match::Protocol(protocol),
        Match::DestinationPorts(first, first + (PORTS - 1)),
    ];
    Rule::new(matches, Target::Jump(ChainName::NodePorts(protocol, first)))
}
