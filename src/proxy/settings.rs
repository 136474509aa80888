//! What the administrator decided about the service proxy, and with the Node's word
//! and the machine's, the settings of each family's rules. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::local::NodeView;
use super::model::Family;
use super::pace::PaceLimits;
use super::rules::{Backend, LocalDetector, NodePortAddresses, RuleSettings};

/// Settings of the whole proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxySettings {
    /// Instead of the Node's addresses.
    pub bind_address: Option<IpAddr>,
    /// 0 to 31.
    pub masquerade_bit: u8,
    pub masquerade_all: bool,
    pub localhost_node_ports: bool,
    pub local: LocalTraffic,
    pub node_ports: NodePortChoice,
    pub pace: PaceLimits,
}

/// How traffic of this node's pods is told from other traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalTraffic {
    /// By source address; of each family the first range counts.
    ClusterCidrs(Vec<IpNet>),
    /// By source address, in the Node's `spec.podCIDRs`.
    NodeCidrs,
    BridgeInterface(Box<str>),
    InterfaceNamePrefix(Box<str>),
}

/// On which of the node's addresses node ports answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodePortChoice {
    All,
    /// The Node's addresses.
    Primary,
    /// Addresses of this machine in these ranges; all of a family without a range.
    Cidrs(Vec<IpNet>),
}

/// What the machine can do and has, for one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FamilyFacts {
    pub family: Family,
    /// Whether `MASQUERADE --random-fully` is known.
    pub random_fully: bool,
    pub backend: Backend,
    /// `nf_conntrack_tcp_be_liberal`.
    pub tcp_liberal: bool,
}

impl ProxySettings {
    /// The settings of one family's rules. `machine`: all addresses of this machine.
    #[must_use]
    pub fn rules(
        &self,
        facts: FamilyFacts,
        node: &NodeView,
        machine: &BTreeSet<IpAddr>,
    ) -> RuleSettings {
        let family = facts.family;
        RuleSettings {
            masquerade_bit: self.masquerade_bit,
            masquerade_all: self.masquerade_all,
            random_fully: facts.random_fully,
            local_detector: self.local_detector(family, node),
            node_port_addresses: self.node_port_addresses(family, node, machine),
            localhost_node_ports: self.localhost_node_ports && family == Family::V4,
            tcp_liberal: facts.tcp_liberal,
            node_ips: self.node_ips(family, node),
            backend: facts.backend,
        }
    }

    fn local_detector(&self, family: Family, node: &NodeView) -> Option<LocalDetector> {
        match &self.local {
            LocalTraffic::ClusterCidrs(ranges) => {
                let mut ranges = ranges.iter().copied();
                ranges
                    .find(|range| Family::of(range.addr()) == family)
                    .map(LocalDetector::Cidr)
            }
            LocalTraffic::NodeCidrs => node.pod_cidr(family).map(LocalDetector::Cidr),
            LocalTraffic::BridgeInterface(name) => {
                Some(LocalDetector::BridgeInterface(name.clone()))
            }
            LocalTraffic::InterfaceNamePrefix(prefix) => {
                Some(LocalDetector::InterfaceNamePrefix(prefix.clone()))
            }
        }
    }

    fn node_ips(&self, family: Family, node: &NodeView) -> Vec<IpAddr> {
        match self.bind_address {
            Some(address) if Family::of(address) == family => vec![address],
            Some(_) | None => node.address(family).into_iter().collect(),
        }
    }

    /// Where node ports of a family answer, as far as it is an address of this machine.
    #[must_use]
    pub fn node_ports_at(
        &self,
        family: Family,
        node: &NodeView,
        machine: &BTreeSet<IpAddr>,
    ) -> BTreeSet<IpAddr> {
        let chosen = match self.node_port_addresses(family, node, machine) {
            NodePortAddresses::All => machine.iter().copied().collect(),
            NodePortAddresses::Only(addresses) => addresses,
        };
        let localhost = self.localhost_node_ports && family == Family::V4;
        let answers = |address: &IpAddr| {
            Family::of(*address) == family && (localhost || !address.is_loopback())
        };
        chosen.into_iter().filter(answers).collect()
    }

    /// The addresses that node ports answer on, by family.
    #[must_use]
    pub fn node_port_addresses(
        &self,
        family: Family,
        node: &NodeView,
        machine: &BTreeSet<IpAddr>,
    ) -> NodePortAddresses {
        let ranges = match &self.node_ports {
            NodePortChoice::All => return NodePortAddresses::All,
            NodePortChoice::Primary => {
                return NodePortAddresses::Only(self.node_ips(family, node));
            }
            NodePortChoice::Cidrs(ranges) => ranges,
        };
        let ranges: Vec<_> = ranges
            .iter()
            .filter(|range| Family::of(range.addr()) == family)
            .collect();
        // A range of length zero takes all in, as no range does.
        if ranges.is_empty() || ranges.iter().any(|range| range.prefix_len() == 0) {
            return NodePortAddresses::All;
        }
        let chosen = machine
            .iter()
            .filter(|address| ranges.iter().any(|range| range.contains(*address)));
        NodePortAddresses::Only(chosen.copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn settings() -> ProxySettings {
        ProxySettings {
            bind_address: None,
            masquerade_bit: 14,
            masquerade_all: false,
            localhost_node_ports: true,
            local: LocalTraffic::NodeCidrs,
            node_ports: NodePortChoice::All,
            pace: PaceLimits {
                longest: Duration::from_secs(1),
                longest_retry: Duration::from_secs(30),
            },
        }
    }

    fn facts(family: Family) -> FamilyFacts {
        FamilyFacts {
            family,
            random_fully: true,
            backend: Backend::NfTables,
            tcp_liberal: false,
        }
    }

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn node() -> NodeView {
        NodeView {
            zone: None,
            pod_cidrs: vec![net("10.1.0.0/24"), net("fd00:1::/64")],
            addresses: vec![ip("192.0.2.1"), ip("2001:db8::1"), ip("192.0.2.2")],
        }
    }

    fn machine() -> BTreeSet<IpAddr> {
        ["127.0.0.1", "192.0.2.1", "198.51.100.7", "2001:db8::1"]
            .into_iter()
            .map(ip)
            .collect()
    }

    #[test]
    fn each_family_has_its_own_addresses() {
        let v4 = settings().rules(facts(Family::V4), &node(), &machine());
        assert_eq!(
            v4.local_detector,
            Some(LocalDetector::Cidr(net("10.1.0.0/24")))
        );
        assert_eq!(v4.node_ips, [ip("192.0.2.1")]);
        assert!(v4.localhost_node_ports);
        let v6 = settings().rules(facts(Family::V6), &node(), &machine());
        assert_eq!(
            v6.local_detector,
            Some(LocalDetector::Cidr(net("fd00:1::/64")))
        );
        assert_eq!(v6.node_ips, [ip("2001:db8::1")]);
        assert!(!v6.localhost_node_ports);
    }

    #[test]
    fn without_a_range_of_its_family_nothing_tells_local_traffic() {
        let cluster = ProxySettings {
            local: LocalTraffic::ClusterCidrs(vec![net("10.0.0.0/8")]),
            ..settings()
        };
        let v6 = cluster.rules(facts(Family::V6), &node(), &machine());
        assert_eq!(v6.local_detector, None);
        let bare = settings().rules(facts(Family::V4), &NodeView::default(), &machine());
        assert_eq!((bare.local_detector, bare.node_ips), (None, Vec::new()));
    }

    #[test]
    fn node_ports_answer_on_the_chosen_addresses() {
        let cases = [
            (NodePortChoice::All, NodePortAddresses::All),
            (
                NodePortChoice::Primary,
                NodePortAddresses::Only(vec![ip("192.0.2.1")]),
            ),
            (
                NodePortChoice::Cidrs(vec![net("198.51.100.0/24"), net("127.0.0.0/8")]),
                NodePortAddresses::Only(vec![ip("127.0.0.1"), ip("198.51.100.7")]),
            ),
            (
                NodePortChoice::Cidrs(vec![net("203.0.113.0/24")]),
                NodePortAddresses::Only(Vec::new()),
            ),
            (
                NodePortChoice::Cidrs(vec![net("0.0.0.0/0")]),
                NodePortAddresses::All,
            ),
            (
                NodePortChoice::Cidrs(vec![net("2001:db8::/32")]),
                NodePortAddresses::All,
            ),
        ];
        for (node_ports, expected) in cases {
            let settings = ProxySettings {
                node_ports,
                ..settings()
            };
            let addresses = settings.node_port_addresses(Family::V4, &node(), &machine());
            assert_eq!(addresses, expected, "{settings:?}");
        }
    }

    #[test]
    fn a_bind_address_stands_for_the_node_in_its_family() {
        let bound = ProxySettings {
            bind_address: Some(ip("192.0.2.9")),
            ..settings()
        };
        let v4 = bound.rules(facts(Family::V4), &node(), &machine());
        let v6 = bound.rules(facts(Family::V6), &node(), &machine());
        assert_eq!(v4.node_ips, [ip("192.0.2.9")]);
        assert_eq!(v6.node_ips, [ip("2001:db8::1")]);
    }

    #[test]
    fn node_ports_answer_where_they_are_configured_to() {
        let at = |node_ports, localhost_node_ports, family| {
            let settings = ProxySettings {
                node_ports,
                localhost_node_ports,
                ..settings()
            };
            let found = settings.node_ports_at(family, &node(), &machine());
            let texts: Vec<_> = found.iter().map(ToString::to_string).collect();
            texts.join(" ")
        };
        let cidrs = |texts: &[&str]| NodePortChoice::Cidrs(texts.iter().map(|t| net(t)).collect());
        for (choice, localhost, v4, v6) in [
            (
                NodePortChoice::All,
                true,
                "127.0.0.1 192.0.2.1 198.51.100.7",
                "2001:db8::1",
            ),
            (
                NodePortChoice::All,
                false,
                "192.0.2.1 198.51.100.7",
                "2001:db8::1",
            ),
            (NodePortChoice::Primary, true, "192.0.2.1", "2001:db8::1"),
            (
                cidrs(&["198.51.100.0/24", "::1/128"]),
                true,
                "198.51.100.7",
                "",
            ),
            (cidrs(&["127.0.0.0/8"]), true, "127.0.0.1", "2001:db8::1"),
            (cidrs(&["127.0.0.0/8"]), false, "", "2001:db8::1"),
        ] {
            assert_eq!(at(choice.clone(), localhost, Family::V4), v4, "{choice:?}");
            assert_eq!(at(choice.clone(), localhost, Family::V6), v6, "{choice:?}");
        }
    }
}
