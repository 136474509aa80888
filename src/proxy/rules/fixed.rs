//! Chains that every node has, and the jumps that lead to them.

use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::names::{ChainName, Fixed};
use super::rule::{Addresses, Comment, Is, Match, Rule, Target};
use super::settings::{NodePortAddresses, RuleSettings};
use crate::proxy::model::{Family, ServiceName, Table};
use crate::proxy::render;

const NEW: Match<'static> = Match::Conntrack(Is::Is, "NEW");

/// A jump to a chain of ours from one that is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnJump {
    pub table: Table,
    /// A chain that the kernel has.
    pub from: &'static str,
    pub to: Fixed,
    only_new: bool,
    comment: &'static str,
}

impl OwnJump {
    const fn filter(from: &'static str, to: Fixed, comment: &'static str) -> Self {
        Self {
            table: Table::Filter,
            from,
            to,
            only_new: false,
            comment,
        }
    }

    /// Only for the first packet of a connection.
    const fn new_only(from: &'static str, to: Fixed, comment: &'static str) -> Self {
        let mut jump = Self::filter(from, to, comment);
        jump.only_new = true;
        jump
    }

    const fn nat(from: &'static str, to: Fixed, comment: &'static str) -> Self {
        let mut jump = Self::filter(from, to, comment);
        jump.table = Table::Nat;
        jump
    }

    /// The rule as iptables takes it behind `-I INPUT`, `-C INPUT` or `-D INPUT`.
    #[must_use]
    pub fn rule(&self) -> String {
        let mut matches = Vec::new();
        if self.only_new {
            matches.push(NEW);
        }
        if !self.comment.is_empty() {
            matches.push(Match::Comment(Comment::Fixed(self.comment)));
        }
        render::rule(&Rule::new(matches, Target::fixed(self.to)))
    }

    /// Whether it goes when our rules go. The kubelet has use for the others.
    #[must_use]
    pub fn is_ours_alone(&self) -> bool {
        self.to != Fixed::Firewall
    }
}

const EXTERNAL: &str = "kubernetes externally-visible service portals";
const PORTALS: &str = "kubernetes service portals";
const BALANCER_FIREWALL: &str = "kubernetes load balancer firewall";

/// In the order in which kube-proxy puts each at the front of its chain, so that the
/// last one comes first.
pub static JUMPS: [OwnJump; 14] = [
    OwnJump::new_only("INPUT", Fixed::ExternalServices, EXTERNAL),
    OwnJump::new_only("FORWARD", Fixed::ExternalServices, EXTERNAL),
    OwnJump::filter(
        "INPUT",
        Fixed::NodePorts,
        "kubernetes health check service ports",
    ),
    OwnJump::new_only("FORWARD", Fixed::Services, PORTALS),
    OwnJump::new_only("OUTPUT", Fixed::Services, PORTALS),
    OwnJump::filter("FORWARD", Fixed::Forward, "kubernetes forwarding rules"),
    OwnJump::new_only("INPUT", Fixed::ProxyFirewall, BALANCER_FIREWALL),
    OwnJump::new_only("OUTPUT", Fixed::ProxyFirewall, BALANCER_FIREWALL),
    OwnJump::new_only("FORWARD", Fixed::ProxyFirewall, BALANCER_FIREWALL),
    OwnJump::nat("OUTPUT", Fixed::Services, PORTALS),
    OwnJump::nat("PREROUTING", Fixed::Services, PORTALS),
    OwnJump::nat(
        "POSTROUTING",
        Fixed::Postrouting,
        "kubernetes postrouting rules",
    ),
    OwnJump::filter("INPUT", Fixed::Firewall, ""),
    OwnJump::filter("OUTPUT", Fixed::Firewall, ""),
];

fn comment(text: &'static str) -> Match<'static> {
    Match::Comment(Comment::Fixed(text))
}

const fn loopback(family: Family) -> Addresses {
    Addresses::Net(match family {
        Family::V4 => IpNet::V4(Ipv4Net::new_assert(
            std::net::Ipv4Addr::new(127, 0, 0, 0),
            8,
        )),
        Family::V6 => IpNet::V6(Ipv6Net::new_assert(std::net::Ipv6Addr::LOCALHOST, 128)),
    })
}

/// nat KUBE-POSTROUTING.
pub(super) fn postrouting(settings: &RuleSettings) -> Vec<Rule<'static>> {
    let mark = settings.mark();
    let masquerade = if settings.random_fully {
        Target::MasqueradeRandomFully
    } else {
        Target::Masquerade
    };
    vec![
        Rule::new([Match::Mark(Is::Not, mark)], Target::Return),
        // A packet may come by here again, with another header around it.
        Rule::new([], Target::XorMark(mark)),
        Rule::new(
            [comment("kubernetes service traffic requiring SNAT")],
            masquerade,
        ),
    ]
}

/// nat KUBE-MARK-MASQ.
pub(super) fn mark_masq(settings: &RuleSettings) -> Vec<Rule<'static>> {
    vec![Rule::new([], Target::OrMark(settings.mark()))]
}

/// The end of nat KUBE-SERVICES.
pub(super) fn to_node_ports(family: Family, settings: &RuleSettings) -> Vec<Rule<'static>> {
    let localhost = family == Family::V4 && settings.localhost_node_ports;
    let note =
        comment("kubernetes service nodeports; NOTE: this must be the last rule in this chain");
    let target = Target::fixed(Fixed::NodePorts);
    match &settings.node_port_addresses {
        NodePortAddresses::All => {
            let mut matches = vec![note, Match::DestinationIsLocal];
            if !localhost {
                matches.push(Match::Destination(Is::Not, loopback(family)));
            }
            vec![Rule::new(matches, target)]
        }
        NodePortAddresses::Only(addresses) => addresses
            .iter()
            .filter(|address| localhost || !address.is_loopback())
            .map(|address| {
                let to = Match::Destination(Is::Is, Addresses::One(*address));
                Rule::new([note.clone(), to], target)
            })
            .collect(),
    }
}

/// filter KUBE-FIREWALL: `route_localnet`, which node ports on 127.0.0.1 need, would let
/// neighbours talk to services that listen there (CVE-2020-8558). Without such node ports
/// the chain is the kubelet's alone.
pub(super) fn firewall(family: Family, settings: &RuleSettings) -> Vec<Rule<'static>> {
    if family == Family::V6 || !settings.localhost_node_ports {
        return Vec::new();
    }
    let matches = [
        comment("block incoming localnet connections"),
        Match::Destination(Is::Is, loopback(family)),
        Match::Source(Is::Not, loopback(family)),
        Match::Conntrack(Is::Not, "RELATED,ESTABLISHED,DNAT"),
    ];
    vec![Rule::new(matches, Target::Drop)]
}

/// filter KUBE-FORWARD.
///
/// kube-proxy also counts what the first rule drops, if the kernel has `nfacct` (which
/// needs a package that few nodes have). That, and its twin of every node port rule that
/// counts localhost's traffic, are left out.
pub(super) fn forward(settings: &RuleSettings) -> Vec<Rule<'static>> {
    let mut rules = Vec::new();
    if !settings.tcp_liberal {
        // Otherwise it would leave without its address being translated, and the
        // client would answer it with a reset.
        let invalid = Match::Conntrack(Is::Is, "INVALID");
        rules.push(Rule::new([invalid], Target::Drop));
    }
    let marked = [
        comment("kubernetes forwarding rules"),
        Match::Mark(Is::Is, settings.mark()),
    ];
    rules.push(Rule::new(marked, Target::Accept));
    let later = [
        comment("kubernetes forwarding conntrack rule"),
        Match::Conntrack(Is::Is, "RELATED,ESTABLISHED"),
    ];
    rules.push(Rule::new(later, Target::Accept));
    rules
}

/// filter KUBE-NODEPORTS's rule for one Service's health check.
pub(super) fn health_check(service: &Arc<ServiceName>, port: u16) -> Rule<'_> {
    let matches = [
        Match::Comment(Comment::HealthCheck(service)),
        Match::Protocol(crate::proxy::model::Protocol::Tcp),
        Match::DestinationPort(port),
    ];
    Rule::new(matches, Target::Accept)
}

/// Whether a chain is one of ours of which there is always one.
#[must_use]
pub fn by_name(table: Table, name: &str) -> Option<Fixed> {
    let all: &[Fixed] = match table {
        Table::Filter => &Fixed::FILTER,
        Table::Nat => &Fixed::NAT,
        Table::Mangle => &[],
    };
    all.iter().copied().find(|fixed| fixed.as_str() == name)
}

/// As the name of a chain.
#[must_use]
pub const fn named(fixed: Fixed) -> ChainName {
    ChainName::Fixed(fixed)
}
