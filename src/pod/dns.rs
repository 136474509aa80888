//! The `resolv.conf` of a pod.
//!
//! In: the pod's `dnsPolicy` and `dnsConfig`, the cluster's DNS servers and
//! domain, the node's own resolver settings. Out: the settings for CRI, cut to
//! what resolvers take, and what there is to warn about.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{PodDNSConfig, PodDNSConfigOption};

use super::containers::host_network;
use super::facts::NodeFacts;
use super::model::DesiredPod;
use super::spec::DnsSpec;

/// Resolvers look at no more servers.
const MAX_SERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
/// Search paths that a cluster with a domain adds.
const CLUSTER_SEARCHES: usize = 3;
/// Of the whole search line, with its spaces.
const MAX_SEARCH_LINE: usize = 2048;
/// A DNS name is no longer; some resolvers abort on longer ones.
const MAX_SEARCH: usize = 253;

const CLUSTER_OPTIONS: &str = "ndots:5";

/// Something about a pod's DNS settings that its author or the operator should
/// know. None of them keeps the pod from running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DnsWarning {
    /// The pod wants the cluster's DNS and the agent was told of none.
    MissingClusterDns {
        /// [`DesiredPod::full_name`].
        pod: String,
    },
    TooManyServers {
        applied: Vec<String>,
    },
    SearchLineTooLong {
        applied: Vec<String>,
    },
}

impl DnsWarning {
    /// The reason of the event.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::MissingClusterDns { .. } => "MissingClusterDNS",
            Self::TooManyServers { .. } | Self::SearchLineTooLong { .. } => "DNSConfigForming",
        }
    }

    /// The message of the event on the pod.
    #[must_use]
    pub fn message(&self) -> String {
        match self {
            Self::MissingClusterDns { pod } => {
                format!("pod: {pod:?}. {MISSING_CLUSTER_DNS}")
            }
            Self::TooManyServers { applied } => format!(
                "Nameserver limits were exceeded, some nameservers have been omitted, \
                 the applied nameserver line is: {}",
                applied.join(" ")
            ),
            Self::SearchLineTooLong { applied } => format!(
                "Search Line limits were exceeded, some search paths have been omitted, \
                 the applied search line is: {}",
                applied.join(" ")
            ),
        }
    }

    /// The message of the event on the node, where it is the node's matter too.
    #[must_use]
    pub fn node_message(&self) -> Option<&'static str> {
        matches!(self, Self::MissingClusterDns { .. }).then_some(MISSING_CLUSTER_DNS)
    }
}

const MISSING_CLUSTER_DNS: &str = "kubelet does not have ClusterDNS IP configured and cannot \
     create Pod using \"ClusterFirst\" policy. Falling back to \"Default\" policy.";

/// The pod's settings and the warnings that belong to them.
#[must_use]
pub fn render(pod: &DesiredPod, node: &NodeFacts) -> (DnsSpec, Vec<DnsWarning>) {
    let mut warnings = Vec::new();
    let mut dns = by_policy(pod, node, &mut warnings);
    let config = pod
        .pod
        .spec
        .as_ref()
        .and_then(|spec| spec.dns_config.as_ref());
    if let Some(config) = config {
        add_config(&mut dns, config);
    }
    warnings.extend(limit_servers(&mut dns.servers));
    warnings.extend(limit_searches(&mut dns.searches));
    (dns, warnings)
}

fn by_policy(pod: &DesiredPod, node: &NodeFacts, warnings: &mut Vec<DnsWarning>) -> DnsSpec {
    let spec = pod.pod.spec.as_ref();
    match spec.and_then(|s| s.dns_policy.as_deref()) {
        Some("None") => return DnsSpec::default(),
        Some("Default") => return node.dns.host.clone(),
        Some("ClusterFirstWithHostNet") => {}
        // `ClusterFirst`, and what upstream takes anything else for.
        _ if host_network(&pod.pod) => return node.dns.host.clone(),
        _ => {}
    }
    if node.dns.cluster_servers.is_empty() {
        warnings.push(DnsWarning::MissingClusterDns {
            pod: pod.full_name(),
        });
        return node.dns.host.clone();
    }
    DnsSpec {
        servers: node
            .dns
            .cluster_servers
            .iter()
            .map(ToString::to_string)
            .collect(),
        searches: cluster_searches(&pod.name.namespace, node),
        options: vec![CLUSTER_OPTIONS.into()],
    }
}

fn cluster_searches(namespace: &str, node: &NodeFacts) -> Vec<String> {
    let domain = &node.dns.cluster_domain;
    // "." stands for "no search at all" and has no place beside others.
    let host = node.dns.host.searches.iter().filter(|s| *s != ".").cloned();
    if domain.is_empty() {
        return host.collect();
    }
    let cluster = [
        format!("{namespace}.svc.{domain}"),
        format!("svc.{domain}"),
        domain.clone(),
    ];
    let mut searches = Vec::new();
    append_new(&mut searches, cluster.into_iter().chain(host));
    searches
}

fn add_config(dns: &mut DnsSpec, config: &PodDNSConfig) {
    append_new(
        &mut dns.servers,
        config.nameservers.iter().flatten().cloned(),
    );
    append_new(&mut dns.searches, config.searches.iter().flatten().cloned());
    for option in config.options.iter().flatten() {
        set_option(&mut dns.options, option_text(option));
    }
}

fn append_new(list: &mut Vec<String>, more: impl Iterator<Item = String>) {
    for item in more {
        if !list.contains(&item) {
            list.push(item);
        }
    }
}

fn option_text(option: &PodDNSConfigOption) -> String {
    let name = option.name.as_deref().unwrap_or_default();
    match option.value.as_deref() {
        None | Some("") => name.to_owned(),
        Some(value) => format!("{name}:{value}"),
    }
}

/// An option overrides one of the same name, in its place.
fn set_option(options: &mut Vec<String>, option: String) {
    let same = options
        .iter_mut()
        .find(|other| option_name(other) == option_name(&option));
    match same {
        Some(other) => *other = option,
        None => options.push(option),
    }
}

fn option_name(option: &str) -> &str {
    option.split_once(':').map_or(option, |(name, _)| name)
}

fn limit_servers(servers: &mut Vec<String>) -> Option<DnsWarning> {
    if servers.len() <= MAX_SERVERS {
        return None;
    }
    servers.truncate(MAX_SERVERS);
    Some(DnsWarning::TooManyServers {
        applied: servers.clone(),
    })
}

fn limit_searches(searches: &mut Vec<String>) -> Option<DnsWarning> {
    let wanted = searches.len();
    searches.truncate(MAX_SEARCHES);
    searches.retain(|search| search.len() <= MAX_SEARCH);
    let mut line = 0usize;
    let fitting = searches
        .iter()
        .take_while(|search| {
            line += search.len() + usize::from(line > 0);
            line <= MAX_SEARCH_LINE
        })
        .count();
    searches.truncate(fitting);
    (searches.len() < wanted).then(|| DnsWarning::SearchLineTooLong {
        applied: searches.clone(),
    })
}

/// Reads a `resolv.conf`. Servers and options add up, the last `search` line
/// stands; what is not understood is passed over, as resolvers do.
#[must_use]
pub fn parse_resolv_conf(text: &str) -> DnsSpec {
    let mut dns = DnsSpec::default();
    for line in text.lines().map(str::trim).filter(|l| !l.starts_with('#')) {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => dns.servers.extend(words.next().map(str::to_owned)),
            Some("search") => {
                let without_dot = |s: &str| s.strip_suffix('.').unwrap_or(s).to_owned();
                dns.searches = words.filter(|s| *s != ".").map(without_dot).collect();
            }
            Some("options") => words.for_each(|o| set_option(&mut dns.options, o.to_owned())),
            _ => {}
        }
    }
    dns
}

/// What is wrong with the node's own settings, whose search line has to have room
/// for the cluster's. `file` is where they were read, for the message.
#[must_use]
pub fn host_limits(dns: &DnsSpec, file: &str, cluster_domain: &str) -> Option<String> {
    let searches = &dns.searches;
    let most = if cluster_domain.is_empty() {
        MAX_SEARCHES
    } else {
        MAX_SEARCHES - CLUSTER_SEARCHES
    };
    if searches.len() > most {
        return Some(format!(
            "Resolv.conf file '{file}' contains search line consisting of more than {most} domains!"
        ));
    }
    if searches.iter().any(|search| search.len() > MAX_SEARCH) {
        return Some(format!(
            "Resolv.conf file {file:?} contains a search path which length is more than allowed \
             {MAX_SEARCH} chars!"
        ));
    }
    (searches.join(" ").len() > MAX_SEARCH_LINE).then(|| {
        format!(
            "Resolv.conf file '{file}' contains search line which length is more than allowed \
             {MAX_SEARCH_LINE} chars!"
        )
    })
}

/// What stands for the node's resolver settings where the operator set
/// `resolvConf: ""`: only the node itself is asked, and nothing is searched.
#[must_use]
pub fn resolver_on_node(host_ips: &[IpAddr]) -> DnsSpec {
    let mut servers = Vec::new();
    let families = host_ips.iter().map(IpAddr::is_ipv6);
    append_new(
        &mut servers,
        families.map(|v6| if v6 { "::1" } else { "127.0.0.1" }.to_owned()),
    );
    if servers.is_empty() {
        servers.push("127.0.0.1".into());
    }
    DnsSpec {
        servers,
        searches: vec![".".into()],
        options: Vec::new(),
    }
}

#[cfg(test)]
mod tests;
