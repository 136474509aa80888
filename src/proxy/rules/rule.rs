//! Rules as values. They borrow from the Services they are made of, live while a chain
//! is compared or written, and are never stored.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::names::{ChainName, Fixed};
use crate::proxy::model::{Family, PortName, Protocol};

/// One rule: its matches in the order in which they are written, which is kube-proxy's,
/// since `iptables -C` and people compare the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule<'a> {
    pub matches: Vec<Match<'a>>,
    /// Without one the rule only carries a comment.
    pub target: Option<Target>,
}

impl<'a> Rule<'a> {
    #[must_use]
    pub fn new(matches: impl Into<Vec<Match<'a>>>, target: Target) -> Self {
        Self {
            matches: matches.into(),
            target: Some(target),
        }
    }
}

/// A chain with what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain<'a> {
    pub name: ChainName,
    pub rules: Vec<Rule<'a>>,
}

/// Whether what is named must be so, or must not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Is {
    Is,
    Not,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match<'a> {
    Comment(Comment<'a>),
    Protocol(Protocol),
    Source(Is, Addresses),
    Destination(Is, Addresses),
    /// As iptables takes it: a name, or a prefix of names with `+` behind it.
    InInterface(Is, InterfacePattern<'a>),
    DestinationPort(u16),
    /// From the first to the last, both included.
    DestinationPorts(u16, u16),
    /// The source is an address of this node.
    SourceIsLocal,
    /// The destination is an address of this node.
    DestinationIsLocal,
    /// One in so many packets.
    OneIn(usize),
    /// The source was noted on this chain's list at most so many seconds ago.
    SeenWithin(ChainName, u64),
    /// Always true; notes the source on this chain's list.
    NoteOn(ChainName),
    Conntrack(Is, &'static str),
    Mark(Is, u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addresses {
    One(IpAddr),
    Net(IpNet),
    /// Those with these low bits, of those that the mask names.
    LowBits {
        family: Family,
        bits: u32,
        mask: u32,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InterfacePattern<'a> {
    Name(&'a str),
    Prefix(&'a str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Jump(ChainName),
    Return,
    Accept,
    Drop,
    Reject,
    /// Flips these bits of the mark.
    XorMark(u32),
    /// Sets these bits of the mark.
    OrMark(u32),
    Masquerade,
    /// With a source port that cannot be foreseen, which also avoids clashes between
    /// CPUs.
    MasqueradeRandomFully,
    Dnat(SocketAddr),
}

impl Target {
    #[must_use]
    pub const fn fixed(chain: Fixed) -> Self {
        Self::Jump(ChainName::Fixed(chain))
    }
}

/// What a rule says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comment<'a> {
    Fixed(&'static str),
    Name(&'a PortName),
    ClusterIp(&'a PortName),
    ExternalIp(&'a PortName),
    LoadBalancerIp(&'a PortName),
    Endpoint(&'a PortName, SocketAddr),
    NoEndpoints(&'a PortName),
    NoLocalEndpoints(&'a PortName),
    /// The chain is that of the source ranges.
    NotAccepted(&'a PortName, ChainName),
    DroppedLater(&'a PortName),
    Masquerade(&'a PortName),
    MasqueradeLocal(&'a PortName),
    RouteLocal(&'a PortName),
    PodTraffic(&'a PortName),
    HealthCheck(&'a crate::proxy::model::ServiceName),
}

impl fmt::Display for Comment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(text) => f.write_str(text),
            Self::Name(name) => write!(f, "{name}"),
            Self::ClusterIp(name) => write!(f, "{name} cluster IP"),
            Self::ExternalIp(name) => write!(f, "{name} external IP"),
            Self::LoadBalancerIp(name) => write!(f, "{name} loadbalancer IP"),
            Self::Endpoint(name, endpoint) => write!(f, "{name} -> {endpoint}"),
            Self::NoEndpoints(name) => write!(f, "{name} has no endpoints"),
            Self::NoLocalEndpoints(name) => write!(f, "{name} has no local endpoints"),
            Self::NotAccepted(name, chain) => {
                write!(f, "{name} traffic not accepted by {chain}")
            }
            Self::DroppedLater(name) => write!(
                f,
                "other traffic to {name} will be dropped by KUBE-PROXY-FIREWALL"
            ),
            Self::Masquerade(name) => {
                write!(f, "masquerade traffic for {name} external destinations")
            }
            Self::MasqueradeLocal(name) => write!(
                f,
                "masquerade LOCAL traffic for {name} external destinations"
            ),
            Self::RouteLocal(name) => {
                write!(f, "route LOCAL traffic for {name} external destinations")
            }
            Self::PodTraffic(name) => {
                write!(f, "pod traffic for {name} external destinations")
            }
            Self::HealthCheck(service) => write!(f, "{service} health check node port"),
        }
    }
}
