//! The rules of one port of one Service.
//!
//! What is kept of a port is what its rules are made of, not the rules: they are many
//! times larger, and made again in microseconds.

use std::net::{IpAddr, SocketAddr};

use super::names::{ChainName, Fixed, Hash, Role};
use super::rule::{Addresses, Chain, Comment, Is, Match, Rule, Target};
use super::settings::RuleSettings;
use crate::proxy::model::{PortName, Protocol, Selected, ServicePort};

/// Whether rules that exist once or more per endpoint carry comments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EndpointComments {
    #[default]
    Written,
    /// kube-proxy's large-cluster mode.
    LeftOut,
}

/// What rules depend on besides the Service.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    pub settings: &'a RuleSettings,
    pub comments: EndpointComments,
}

/// One port of a Service with its endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    port: ServicePort,
    selected: Selected,
    hash: Hash,
}

impl Entry {
    /// Keeps of the endpoints only the sets that this port's policies use.
    pub fn new(port: &ServicePort, selected: &Selected) -> Self {
        let mut entry = Self {
            port: port.clone(),
            selected: Selected {
                cluster: Vec::new(),
                local: Vec::new(),
                anywhere: selected.anywhere
                    || !selected.cluster.is_empty()
                    || !selected.local.is_empty(),
            },
            hash: Hash::of_port(&port.name),
        };
        if entry.uses_cluster_endpoints() {
            entry.selected.cluster.clone_from(&selected.cluster);
        }
        if entry.uses_local_endpoints() {
            entry.selected.local.clone_from(&selected.local);
        }
        entry
    }

    pub const fn protocol(&self) -> Protocol {
        self.port.name.protocol
    }

    pub const fn name(&self) -> &PortName {
        &self.port.name
    }

    fn externally_accessible(&self) -> bool {
        self.port.node_port.is_some()
            || !self.port.external_ips.is_empty()
            || !self.port.load_balancer_ips.is_empty()
    }

    /// With external policy Local they are still needed, for traffic from the node
    /// itself and from its pods.
    fn uses_cluster_endpoints(&self) -> bool {
        !self.port.internal_local || self.externally_accessible()
    }

    fn uses_local_endpoints(&self) -> bool {
        self.port.internal_local || (self.port.external_local && self.externally_accessible())
    }

    fn chain(&self, role: Role) -> ChainName {
        ChainName::Of(role, self.hash)
    }

    fn endpoint_chain(&self, endpoint: SocketAddr) -> ChainName {
        ChainName::Of(Role::Endpoint, Hash::of_endpoint(&self.port.name, endpoint))
    }

    fn policy_chain(&self, local: bool) -> (Role, &[SocketAddr]) {
        if local {
            (Role::Local, &self.selected.local)
        } else {
            (Role::Cluster, &self.selected.cluster)
        }
    }

    fn internal(&self) -> (Role, &[SocketAddr]) {
        self.policy_chain(self.port.internal_local)
    }

    fn external(&self) -> (Role, &[SocketAddr]) {
        self.policy_chain(self.port.external_local)
    }

    /// Whether traffic to the cluster IP finds nothing on this node, though there are
    /// endpoints elsewhere.
    pub fn lacks_internal_endpoints(&self) -> bool {
        self.selected.anywhere && self.internal().1.is_empty()
    }

    /// The same for traffic from outside the cluster.
    pub fn lacks_external_endpoints(&self) -> bool {
        self.selected.anywhere && self.external().1.is_empty() && self.port.external_local
    }

    fn has_external_chain(&self) -> bool {
        self.selected.anywhere && self.externally_accessible()
    }

    fn has_firewall_chain(&self) -> bool {
        self.selected.anywhere
            && !self.port.load_balancer_ips.is_empty()
            && !self.port.source_ranges.is_empty()
    }

    /// Every endpoint that has a chain, once.
    pub fn endpoints(&self) -> impl Iterator<Item = SocketAddr> {
        let Selected { cluster, local, .. } = &self.selected;
        let only_local = local.iter().filter(|endpoint| !cluster.contains(endpoint));
        cluster.iter().chain(only_local).copied()
    }

    /// What nat KUBE-SERVICES takes, and how.
    pub fn addresses(&self) -> impl Iterator<Item = (IpAddr, Rule<'_>)> {
        let name = &self.port.name;
        let balancer = if self.has_firewall_chain() {
            Role::Firewall
        } else {
            Role::External
        };
        let (internal, endpoints) = self.internal();
        let cluster = self.port.cluster_ip.filter(|_| !endpoints.is_empty());
        let cluster = cluster.map(|ip| (ip, Comment::ClusterIp(name), internal));
        let external = self.port.external_ips.iter();
        let external = external.map(|ip| (*ip, Comment::ExternalIp(name), Role::External));
        let balancers = self.port.load_balancer_ips.iter();
        let balancers = balancers.map(move |ip| (*ip, Comment::LoadBalancerIp(name), balancer));
        let from_outside = external
            .chain(balancers)
            .filter(|_| self.has_external_chain());
        cluster
            .into_iter()
            .chain(from_outside)
            .map(|(address, comment, role)| {
                let target = Target::Jump(self.chain(role));
                (address, Rule::new(self.to(comment, address), target))
            })
    }

    /// The node port that nat KUBE-NODEPORTS takes, and how.
    pub fn node_port(&self) -> Option<(u16, Rule<'_>)> {
        let port = self.port.node_port?.get();
        if !self.has_external_chain() {
            return None;
        }
        let matches = [
            Match::Comment(Comment::Name(&self.port.name)),
            Match::Protocol(self.port.name.protocol),
            Match::DestinationPort(port),
        ];
        let target = Target::Jump(self.chain(Role::External));
        Some((port, Rule::new(matches, target)))
    }

    /// The matches of traffic to this port at an address.
    fn to<'a>(&self, comment: Comment<'a>, address: IpAddr) -> Vec<Match<'a>> {
        vec![
            Match::Comment(comment),
            Match::Protocol(self.port.name.protocol),
            Match::Destination(Is::Is, Addresses::One(address)),
            Match::DestinationPort(self.port.port),
        ]
    }

    /// What this port adds to a fixed chain of the table filter.
    pub fn filter_rules(&self, chain: Fixed) -> Vec<Rule<'_>> {
        match chain {
            Fixed::Services => self.refused_inside(),
            Fixed::ExternalServices => self.refused_outside(),
            Fixed::ProxyFirewall => self.refused_sources(),
            Fixed::NodePorts
            | Fixed::Postrouting
            | Fixed::MarkMasq
            | Fixed::Forward
            | Fixed::Firewall => Vec::new(),
        }
    }

    /// What happens to traffic that no endpoint serves, and what the rule says.
    fn refusal(&self) -> (Comment<'_>, Target) {
        let name = &self.port.name;
        if self.selected.anywhere {
            (Comment::NoLocalEndpoints(name), Target::Drop)
        } else {
            (Comment::NoEndpoints(name), Target::Reject)
        }
    }

    fn refused_inside(&self) -> Vec<Rule<'_>> {
        if !self.internal().1.is_empty() {
            return Vec::new();
        }
        let (comment, target) = self.refusal();
        let cluster = self.port.cluster_ip.into_iter();
        cluster
            .map(|ip| Rule::new(self.to(comment, ip), target))
            .collect()
    }

    fn refused_outside(&self) -> Vec<Rule<'_>> {
        if !self.external().1.is_empty() {
            return Vec::new();
        }
        let (comment, target) = self.refusal();
        let external = self.port.external_ips.iter();
        let mut rules: Vec<_> = external
            .chain(&self.port.load_balancer_ips)
            .map(|ip| Rule::new(self.to(comment, *ip), target))
            .collect();
        if let Some(port) = self.port.node_port {
            let matches = [
                Match::Comment(comment),
                Match::DestinationIsLocal,
                Match::Protocol(self.port.name.protocol),
                Match::DestinationPort(port.get()),
            ];
            rules.push(Rule::new(matches, target));
        }
        rules
    }

    fn refused_sources(&self) -> Vec<Rule<'_>> {
        if !self.has_firewall_chain() {
            return Vec::new();
        }
        let comment = Comment::NotAccepted(&self.port.name, self.chain(Role::Firewall));
        let balancers = self.port.load_balancer_ips.iter();
        balancers
            .map(|ip| Rule::new(self.to(comment, *ip), Target::Drop))
            .collect()
    }

    /// This port's own chains of the table nat that are for one of these things.
    pub fn chains<'a>(&'a self, roles: &[Role], context: Context<'a>) -> Vec<Chain<'a>> {
        let mut chains = Vec::new();
        let mut push = |name, rules| chains.push(Chain { name, rules });
        for &role in roles {
            let name = self.chain(role);
            match role {
                Role::Endpoint => {
                    for endpoint in self.endpoints() {
                        push(
                            self.endpoint_chain(endpoint),
                            self.to_endpoint(endpoint, context),
                        );
                    }
                }
                Role::Cluster | Role::Local => {
                    let (_, endpoints) = self.policy_chain(role == Role::Local);
                    if !endpoints.is_empty() {
                        push(name, self.policy_rules(role, endpoints, context));
                    }
                }
                Role::External => {
                    if self.has_external_chain() {
                        push(name, self.external_rules(context));
                    }
                }
                Role::Firewall => {
                    if self.has_firewall_chain() {
                        push(name, self.firewall_rules(context.settings));
                    }
                }
            }
        }
        chains
    }

    fn policy_rules<'a>(
        &'a self,
        role: Role,
        endpoints: &'a [SocketAddr],
        context: Context<'a>,
    ) -> Vec<Rule<'a>> {
        let mut rules = Vec::new();
        if role == self.internal().0 {
            rules.extend(self.masquerade_inside(context.settings));
        }
        if let Some(timeout) = self.port.affinity {
            for &endpoint in endpoints {
                let chain = self.endpoint_chain(endpoint);
                let mut matches = self.endpoint_comment(endpoint, context);
                matches.push(Match::SeenWithin(chain, timeout.as_secs()));
                rules.push(Rule::new(matches, Target::Jump(chain)));
            }
        }
        for (i, &endpoint) in endpoints.iter().enumerate() {
            let mut matches = self.endpoint_comment(endpoint, context);
            let left = endpoints.len() - i;
            if left > 1 {
                matches.push(Match::OneIn(left));
            }
            rules.push(Rule::new(
                matches,
                Target::Jump(self.endpoint_chain(endpoint)),
            ));
        }
        rules
    }

    /// Traffic to the cluster IP that comes from outside the cluster may be answered
    /// by an endpoint elsewhere, so the answer has to come back through this node.
    fn masquerade_inside<'a>(&'a self, settings: &'a RuleSettings) -> Option<Rule<'a>> {
        let comment = Comment::ClusterIp(&self.port.name);
        let mut matches = self.to(comment, self.port.cluster_ip?);
        if !settings.masquerade_all {
            matches.push(settings.local_detector.as_ref()?.matches(Is::Not));
        }
        Some(Rule::new(matches, Target::fixed(Fixed::MarkMasq)))
    }

    fn endpoint_comment(&self, endpoint: SocketAddr, context: Context<'_>) -> Vec<Match<'_>> {
        match context.comments {
            EndpointComments::Written => {
                vec![Match::Comment(Comment::Endpoint(&self.port.name, endpoint))]
            }
            EndpointComments::LeftOut => Vec::new(),
        }
    }

    fn to_endpoint(&self, endpoint: SocketAddr, context: Context<'_>) -> Vec<Rule<'_>> {
        let comment = match context.comments {
            EndpointComments::Written => vec![Match::Comment(Comment::Name(&self.port.name))],
            EndpointComments::LeftOut => Vec::new(),
        };
        let mut hairpin = comment.clone();
        hairpin.push(Match::Source(Is::Is, Addresses::One(endpoint.ip())));
        let mut to = comment;
        if self.port.affinity.is_some() {
            to.push(Match::NoteOn(self.endpoint_chain(endpoint)));
        }
        to.push(Match::Protocol(self.port.name.protocol));
        vec![
            Rule::new(hairpin, Target::fixed(Fixed::MarkMasq)),
            Rule::new(to, Target::Dnat(endpoint)),
        ]
    }

    fn external_rules<'a>(&'a self, context: Context<'a>) -> Vec<Rule<'a>> {
        let name = &self.port.name;
        let mut rules = Vec::new();
        if self.port.external_local {
            rules.extend(self.short_circuits(context.settings));
        } else {
            // The endpoint may be on another node, whose answer must come through here.
            let comment = Match::Comment(Comment::Masquerade(name));
            rules.push(Rule::new([comment], Target::fixed(Fixed::MarkMasq)));
        }
        let (role, endpoints) = self.external();
        if !endpoints.is_empty() {
            rules.push(Rule::new([], Target::Jump(self.chain(role))));
        }
        rules
    }

    /// Policy Local is for clients outside the cluster. For this node and its pods it
    /// is as if they had gone out to the load balancer and come back in elsewhere.
    fn short_circuits<'a>(&'a self, settings: &'a RuleSettings) -> Vec<Rule<'a>> {
        let name = &self.port.name;
        let cluster = Target::Jump(self.chain(Role::Cluster));
        let can_reach = !self.selected.cluster.is_empty();
        let mut rules = Vec::new();
        if can_reach && let Some(detector) = &settings.local_detector {
            let matches = [
                Match::Comment(Comment::PodTraffic(name)),
                detector.matches(Is::Is),
            ];
            rules.push(Rule::new(matches, cluster));
        }
        let from_node = |comment| [Match::Comment(comment), Match::SourceIsLocal];
        rules.push(Rule::new(
            from_node(Comment::MasqueradeLocal(name)),
            Target::fixed(Fixed::MarkMasq),
        ));
        if can_reach {
            rules.push(Rule::new(from_node(Comment::RouteLocal(name)), cluster));
        }
        rules
    }

    fn firewall_rules(&self, settings: &RuleSettings) -> Vec<Rule<'_>> {
        let name = &self.port.name;
        let accept = |from| {
            let comment = Match::Comment(Comment::LoadBalancerIp(name));
            let matches = [comment, Match::Source(Is::Is, from)];
            Rule::new(matches, Target::Jump(self.chain(Role::External)))
        };
        let ranges = &self.port.source_ranges;
        let mut rules: Vec<_> = ranges
            .iter()
            .map(|net| accept(Addresses::Net(*net)))
            .collect();
        // A node that talks to a load balancer whose address it holds itself does so
        // from that very address.
        let let_node_in = ranges
            .iter()
            .any(|net| settings.node_ips.iter().any(|ip| net.contains(ip)));
        if let_node_in {
            let balancers = self.port.load_balancer_ips.iter();
            rules.extend(balancers.map(|ip| accept(Addresses::One(*ip))));
        }
        rules.push(Rule {
            matches: vec![Match::Comment(Comment::DroppedLater(name))],
            target: None,
        });
        rules
    }
}
