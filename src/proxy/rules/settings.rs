//! What the administrator and the node decide about the rules of one family.

use std::net::IpAddr;

use ipnet::IpNet;

use super::rule::{Addresses, InterfacePattern, Is, Match};

/// Settings of one family's rules. All addresses are of that family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleSettings {
    /// The bit of a packet's mark that says "masquerade me", 0 to 31.
    pub masquerade_bit: u8,
    /// Masquerade all traffic to cluster IPs, not only that from outside the cluster.
    pub masquerade_all: bool,
    /// Whether iptables knows `MASQUERADE --random-fully` (1.6.2 and later).
    pub random_fully: bool,
    /// How to tell traffic of this node's pods. Without one there are no rules that
    /// depend on it.
    pub local_detector: Option<LocalDetector>,
    pub node_port_addresses: NodePortAddresses,
    /// Whether node ports answer on 127.0.0.1. IPv6 has no such thing.
    pub localhost_node_ports: bool,
    /// `nf_conntrack_tcp_be_liberal` is on: packets that conntrack takes for invalid
    /// are not dropped.
    pub tcp_liberal: bool,
    /// This node's own addresses. Source ranges that contain one of them let the node
    /// itself in too.
    pub node_ips: Vec<IpAddr>,
    pub backend: Backend,
}

impl Default for RuleSettings {
    /// kube-proxy's defaults.
    fn default() -> Self {
        Self {
            masquerade_bit: 14,
            masquerade_all: false,
            random_fully: true,
            local_detector: None,
            node_port_addresses: NodePortAddresses::All,
            localhost_node_ports: true,
            tcp_liberal: false,
            node_ips: Vec::new(),
            backend: Backend::NfTables,
        }
    }
}

impl RuleSettings {
    #[must_use]
    pub const fn mark(&self) -> u32 {
        1_u32.wrapping_shl(self.masquerade_bit as u32)
    }
}

/// How traffic of this node's pods is told from other traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalDetector {
    /// By source: the cluster's CIDR or the node's.
    Cidr(IpNet),
    /// By the bridge that all pods are on.
    BridgeInterface(Box<str>),
    /// By how the names of pods' interfaces begin.
    InterfaceNamePrefix(Box<str>),
}

impl LocalDetector {
    pub(super) fn matches(&self, is: Is) -> Match<'_> {
        match self {
            Self::Cidr(net) => Match::Source(is, Addresses::Net(*net)),
            Self::BridgeInterface(name) => Match::InInterface(is, InterfacePattern::Name(name)),
            Self::InterfaceNamePrefix(prefix) => {
                Match::InInterface(is, InterfacePattern::Prefix(prefix))
            }
        }
    }
}

/// On which of the node's addresses node ports answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodePortAddresses {
    All,
    /// Those that the configured CIDRs chose.
    Only(Vec<IpAddr>),
}

/// Which of the two iptables executes the text: what is fast for one is slow for the
/// other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// `iptables-nft`. It looks every rule's chain up in a list of all chains that one
    /// transaction names, so large texts are cut into many transactions.
    NfTables,
    /// `iptables-legacy`. It reads and writes the whole table in every transaction.
    Legacy,
}
