//! Whole texts, to be read.

use super::*;
use crate::proxy::model::Found;

/// A full text for a kernel that has all jumps already: those have a golden of their
/// own.
fn text(family: Family, settings: RuleSettings, services: Vec<Service>) -> String {
    let jumps = RuleSet::jumps()
        .iter()
        .map(|jump| crate::proxy::model::Jump {
            table: jump.table,
            from: jump.from.into(),
            to: jump.to.as_str().into(),
        });
    let found = Found {
        jumps: jumps.collect(),
        ..Found::default()
    };
    let mut rules = rule_set(family, settings, services);
    let text = rules.full(&found).text;
    Kernel::default().restore(&text).unwrap();
    text
}

/// What a Service adds to the text of a node without any.
fn added(settings: RuleSettings, service: Service) -> String {
    let without = text(Family::V4, settings.clone(), vec![]);
    let all = text(Family::V4, settings, vec![service]);
    let lines = all.lines();
    let new = lines.filter(|line| {
        let same = without.lines().any(|other| other == *line);
        !same || line.starts_with('*')
    });
    new.collect::<Vec<_>>().join("\n")
}

const PODS: &str = "10.0.0.0/8";
const TWO: [&str; 2] = ["10.180.0.1:80", "10.180.0.2:80"];

#[test]
fn node_without_services() {
    let mut rules = RuleSet::new(Family::V4, cluster_cidr(PODS));
    insta::assert_snapshot!(rules.full(&Found::default()).text);
}

#[test]
fn node_without_services_ipv6_with_other_settings() {
    let settings = RuleSettings {
        masquerade_bit: 0,
        random_fully: false,
        tcp_liberal: true,
        node_port_addresses: NodePortAddresses::Only(vec![ip("::1"), ip("fd00::7")]),
        ..RuleSettings::default()
    };
    insta::assert_snapshot!(text(Family::V6, settings, vec![]));
}

#[test]
fn cluster_ip() {
    let service = service("svc", "172.30.0.41").served_by(&TWO);
    insta::assert_snapshot!(added(cluster_cidr(PODS), service));
}

#[test]
fn masquerade_all() {
    let settings = RuleSettings {
        masquerade_all: true,
        ..cluster_cidr(PODS)
    };
    let service = service("svc", "172.30.0.41").served_by(&TWO[..1]);
    insta::assert_snapshot!(added(settings, service));
}

#[test]
fn detectors_by_interface() {
    let by = |detector| RuleSettings {
        local_detector: detector,
        ..RuleSettings::default()
    };
    let service = service("svc", "172.30.0.41")
        .served_by(&TWO[..1])
        .node_port(30001)
        .external_local();
    let bridge = LocalDetector::BridgeInterface("cni0".into());
    let prefix = LocalDetector::InterfaceNamePrefix("veth".into());
    let texts = [None, Some(bridge), Some(prefix)].map(|detector| {
        let text = added(by(detector), service.clone());
        let lines = text.lines();
        let lines = lines.filter(|line| line.contains("-A KUBE-EXT-") || line.contains(" -i "));
        lines.collect::<Vec<_>>().join("\n")
    });
    insta::assert_snapshot!(texts.join("\n\n"));
}

#[test]
fn everything_external() {
    let service = service("svc", "172.30.0.41")
        .served_by(&TWO)
        .node_port(30001)
        .external_ip("192.168.99.11")
        .balancer("1.2.3.4")
        .balancer("1.2.3.5");
    insta::assert_snapshot!(added(cluster_cidr(PODS), service));
}

#[test]
fn source_ranges_with_the_node_inside() {
    let settings = RuleSettings {
        node_ips: vec![ip("203.0.113.9")],
        ..cluster_cidr(PODS)
    };
    let service = service("svc", "172.30.0.41")
        .served_by(&TWO[..1])
        .node_port(30001)
        .balancer("1.2.3.4")
        .from("192.168.0.7/16")
        .from("203.0.113.0/24");
    insta::assert_snapshot!(added(settings, service));
}

#[test]
fn affinity() {
    let service = service("svc", "172.30.0.41").served_by(&TWO).sticky();
    insta::assert_snapshot!(added(cluster_cidr(PODS), service));
}

#[test]
fn both_policies_local() {
    let service = service("svc", "172.30.0.41")
        .served_by(&TWO)
        .locally_by(&TWO[1..])
        .internal_local()
        .external_local()
        .node_port(30001)
        .balancer("1.2.3.4");
    insta::assert_snapshot!(added(cluster_cidr(PODS), service));
}

#[test]
fn both_policies_local_without_local_endpoints() {
    let service = service("svc", "172.30.0.41")
        .served_by(&TWO[..1])
        .internal_local()
        .external_local()
        .node_port(30001)
        .external_ip("192.168.99.11")
        .balancer("1.2.3.4");
    insta::assert_snapshot!(added(cluster_cidr(PODS), service));
}

#[test]
fn no_endpoints() {
    let service = service("svc", "172.30.0.41")
        .node_port(30001)
        .external_ip("192.168.99.11")
        .balancer("1.2.3.4")
        .from("192.168.0.0/16");
    insta::assert_snapshot!(added(cluster_cidr(PODS), service));
}

#[test]
fn ipv6_udp_and_sctp() {
    let udp = service("dns", "fd00:10:96::a")
        .protocol(Protocol::Udp)
        .with(|port| port.name.port = "".into())
        .served_by(&["[fd00:10:1::5]:53"])
        .sticky();
    let sctp = service("sctp", "fd00:10:96::b")
        .protocol(Protocol::Sctp)
        .served_by(&["[fd00:10:1::6]:9"])
        .node_port(30001)
        .balancer("2001:db8::1")
        .from("2001:db8:1::/48");
    let settings = cluster_cidr("fd00:10:1::/48");
    insta::assert_snapshot!(text(Family::V6, settings, vec![udp, sctp]));
}

#[test]
fn localhost_and_chosen_addresses() {
    let only = NodePortAddresses::Only(vec![ip("127.0.0.1"), ip("192.168.0.2")]);
    let combine = |localhost_node_ports, node_port_addresses: &NodePortAddresses| {
        let settings = RuleSettings {
            localhost_node_ports,
            node_port_addresses: node_port_addresses.clone(),
            ..RuleSettings::default()
        };
        let text = text(Family::V4, settings, vec![]);
        let lines = text.lines();
        let lines = lines.filter(|line| {
            line.starts_with("-A KUBE-SERVICES") || line.starts_with("-A KUBE-FIREWALL")
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    let all = &NodePortAddresses::All;
    let texts = [
        combine(true, all),
        combine(false, all),
        combine(true, &only),
        combine(false, &only),
    ];
    insta::assert_snapshot!(texts.join("\n\n"));
}

#[test]
fn health_checks() {
    let mut rules = RuleSet::new(Family::V4, RuleSettings::default());
    rules.set_health_ports([(name("svc"), NonZeroU16::new(32000).unwrap())]);
    let text = rules.full(&Found::default()).text;
    let line = text.lines().find(|line| line.contains("32000"));
    insta::assert_snapshot!(line.unwrap(), @r#"-A KUBE-NODEPORTS -m comment --comment "ns/svc health check node port" -m tcp -p tcp --dport 32000 -j ACCEPT"#);
}

#[test]
fn clean_up() {
    let service = service("svc", "172.30.0.41").served_by(&TWO[..1]);
    let mut rules = rule_set(Family::V4, cluster_cidr(PODS), vec![service]);
    let kernel = kernel_with(&mut rules);
    insta::assert_snapshot!(RuleSet::cleanup(&kernel.found()).text);
}

#[test]
fn names_from_files_cannot_add_rules() {
    let mut odd = service("svc", "172.30.0.41").served_by(&TWO[..1]);
    let evil = "p\"\n-A INPUT -j DROP\\";
    odd.port.name.port = evil.into();
    let text = text(Family::V4, RuleSettings::default(), vec![odd]);
    assert!(
        !text.lines().any(|line| line.starts_with("-A INPUT")),
        "{text}"
    );
}
