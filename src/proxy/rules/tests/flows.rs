//! Where packets go.

use super::*;
use crate::proxy::trace::Packet;

const NODE: &str = "192.168.0.2";
const POD: &str = "10.0.0.5";
const OUTSIDE: &str = "203.0.113.5";
const ONE: &str = "10.180.0.1:80";
const TWO: &str = "10.180.0.2:80";

/// One row: from where, to where, and what becomes of it.
type Row<'a> = (&'a str, &'a str, &'a str);

/// From the node itself, or through the interface that fits the source.
fn fate(kernel: &Kernel, protocol: Protocol, source: &str, destination: &str) -> String {
    let interface = match source {
        NODE | "127.0.0.1" | "::1" | "fd00:7::2" => None,
        _ if source.starts_with("10.") => Some("veth1234"),
        _ => Some("eth0"),
    };
    let fates = kernel.trace(&Packet {
        node: &[ip(NODE), ip("fd00:7::2")],
        interface,
        protocol,
        source: ip(source),
        destination: destination.parse().unwrap(),
        known_to: None,
    });
    let fates: Vec<_> = fates.iter().map(ToString::to_string).collect();
    fates.join(", ")
}

fn check(settings: RuleSettings, service: Service, rows: &[Row<'_>]) {
    let protocol = service.port.name.protocol;
    let family = Family::of(service.port.cluster_ip.unwrap());
    let kernel = kernel_with(&mut rule_set(family, settings, vec![service]));
    for (source, destination, expected) in rows {
        let got = fate(&kernel, protocol, source, destination);
        assert_eq!(got, *expected, "{source} -> {destination}");
    }
}

fn full_service() -> Service {
    service("svc", "172.30.0.41")
        .node_port(30001)
        .external_ip("192.168.99.11")
        .balancer("1.2.3.4")
}

#[test]
fn policy_cluster() {
    let both = "10.180.0.1:80, 10.180.0.2:80";
    let both_masqueraded = "10.180.0.1:80 masq, 10.180.0.2:80 masq";
    check(
        cluster_cidr("10.0.0.0/8"),
        full_service().served_by(&[ONE, TWO]),
        &[
            (POD, "172.30.0.41:80", both),
            (OUTSIDE, "172.30.0.41:80", both_masqueraded),
            (NODE, "172.30.0.41:80", both_masqueraded),
            (POD, "172.30.0.41:81", "none"),
            (POD, "172.30.0.42:80", "none"),
            (OUTSIDE, "192.168.99.11:80", both_masqueraded),
            (OUTSIDE, "1.2.3.4:80", both_masqueraded),
            (OUTSIDE, "192.168.0.2:30001", both_masqueraded),
            (NODE, "127.0.0.1:30001", both_masqueraded),
            (OUTSIDE, "192.168.0.2:80", "none"),
            (OUTSIDE, "192.168.0.3:30001", "none"),
            // Hairpin: a pod that reaches itself has to see another source.
            (
                "10.180.0.1",
                "172.30.0.41:80",
                "10.180.0.1:80 masq, 10.180.0.2:80",
            ),
        ],
    );
}

#[test]
fn masquerading_without_a_detector_and_of_everything() {
    let service = service("svc", "172.30.0.41").served_by(&[ONE]);
    let rows = |outside: &'static str, pod: &'static str| {
        [
            (OUTSIDE, "172.30.0.41:80", outside),
            (POD, "172.30.0.41:80", pod),
        ]
    };
    let none = RuleSettings::default();
    check(none, service.clone(), &rows(ONE, ONE));
    let all = RuleSettings {
        masquerade_all: true,
        ..cluster_cidr("10.0.0.0/8")
    };
    let masqueraded = "10.180.0.1:80 masq";
    check(all, service.clone(), &rows(masqueraded, masqueraded));
    for detector in [
        LocalDetector::InterfaceNamePrefix("veth".into()),
        LocalDetector::BridgeInterface("veth1234".into()),
    ] {
        let settings = RuleSettings {
            local_detector: Some(detector),
            ..RuleSettings::default()
        };
        check(settings, service.clone(), &rows(masqueraded, ONE));
    }
}

#[test]
fn external_policy_local() {
    let service = full_service().external_local().served_by(&[ONE, TWO]);
    let both = "10.180.0.1:80, 10.180.0.2:80";
    let both_masqueraded = "10.180.0.1:80 masq, 10.180.0.2:80 masq";
    check(
        cluster_cidr("10.0.0.0/8"),
        service.clone().locally_by(&[TWO]),
        &[
            (OUTSIDE, "1.2.3.4:80", TWO),
            (OUTSIDE, "192.168.99.11:80", TWO),
            (OUTSIDE, "192.168.0.2:30001", TWO),
            (POD, "1.2.3.4:80", both),
            (NODE, "1.2.3.4:80", both_masqueraded),
            (POD, "172.30.0.41:80", both),
        ],
    );
    check(
        cluster_cidr("10.0.0.0/8"),
        service,
        &[
            (OUTSIDE, "1.2.3.4:80", "DROP"),
            (OUTSIDE, "192.168.99.11:80", "DROP"),
            (OUTSIDE, "192.168.0.2:30001", "DROP"),
            (POD, "1.2.3.4:80", both),
            (NODE, "1.2.3.4:80", both_masqueraded),
            (NODE, "192.168.0.2:30001", both_masqueraded),
        ],
    );
}

#[test]
fn internal_policy_local() {
    let inside = service("svc", "172.30.0.41").internal_local();
    let settings = cluster_cidr("10.0.0.0/8");
    let served = inside.clone().served_by(&[ONE, TWO]);
    check(
        settings.clone(),
        served.clone().locally_by(&[TWO]),
        &[(POD, "172.30.0.41:80", TWO)],
    );
    check(
        settings.clone(),
        served.clone(),
        &[
            (POD, "172.30.0.41:80", "DROP"),
            (NODE, "172.30.0.41:80", "DROP"),
        ],
    );
    check(
        settings,
        served.node_port(30001),
        &[
            (POD, "172.30.0.41:80", "DROP"),
            (
                OUTSIDE,
                "192.168.0.2:30001",
                "10.180.0.1:80 masq, 10.180.0.2:80 masq",
            ),
        ],
    );
}

#[test]
fn no_endpoints() {
    check(
        cluster_cidr("10.0.0.0/8"),
        full_service().from("192.168.0.0/16"),
        &[
            (POD, "172.30.0.41:80", "REJECT"),
            (NODE, "172.30.0.41:80", "REJECT"),
            (OUTSIDE, "192.168.99.11:80", "REJECT"),
            (OUTSIDE, "1.2.3.4:80", "REJECT"),
            (OUTSIDE, "192.168.0.2:30001", "REJECT"),
            (POD, "172.30.0.41:81", "none"),
        ],
    );
}

#[test]
fn source_ranges() {
    let service = full_service()
        .served_by(&[ONE])
        .from("203.0.113.0/25")
        .from("192.168.0.0/30");
    let settings = RuleSettings {
        node_ips: vec![ip(NODE)],
        ..cluster_cidr("10.0.0.0/8")
    };
    let masqueraded = "10.180.0.1:80 masq";
    check(
        settings.clone(),
        service.clone(),
        &[
            (OUTSIDE, "1.2.3.4:80", masqueraded),
            ("203.0.113.200", "1.2.3.4:80", "DROP"),
            (NODE, "1.2.3.4:80", masqueraded),
            ("1.2.3.4", "1.2.3.4:80", masqueraded),
            // They are for the load balancer's address alone.
            ("203.0.113.200", "192.168.0.2:30001", masqueraded),
            ("203.0.113.200", "192.168.99.11:80", masqueraded),
            (POD, "172.30.0.41:80", ONE),
        ],
    );
    let elsewhere = RuleSettings {
        node_ips: vec![ip("192.168.0.9")],
        ..settings
    };
    check(elsewhere, service, &[("1.2.3.4", "1.2.3.4:80", "DROP")]);
}

#[test]
fn node_ports_only_where_they_may_be() {
    let service = full_service().served_by(&[ONE]);
    let masqueraded = "10.180.0.1:80 masq";
    let settings = |localhost_node_ports, only: &[&str]| RuleSettings {
        localhost_node_ports,
        node_port_addresses: if only.is_empty() {
            NodePortAddresses::All
        } else {
            NodePortAddresses::Only(only.iter().map(|text| ip(text)).collect())
        },
        ..RuleSettings::default()
    };
    for (settings, to_node, to_localhost) in [
        (settings(true, &[]), masqueraded, masqueraded),
        (settings(false, &[]), masqueraded, "none"),
        (
            settings(true, &[NODE, "127.0.0.1"]),
            masqueraded,
            masqueraded,
        ),
        (settings(false, &[NODE, "127.0.0.1"]), masqueraded, "none"),
        (settings(true, &["192.168.0.3"]), "none", "none"),
    ] {
        let rows = [
            (OUTSIDE, "192.168.0.2:30001", to_node),
            ("127.0.0.1", "127.0.0.1:30001", to_localhost),
        ];
        check(settings, service.clone(), &rows);
    }
}

#[test]
fn neighbours_cannot_reach_localhost() {
    let rows = [
        (OUTSIDE, "127.0.0.1:8080", "DROP"),
        (NODE, "127.0.0.1:8080", "DROP"),
        ("127.0.0.1", "127.0.0.1:8080", "none"),
    ];
    let service = full_service().served_by(&[ONE]);
    check(RuleSettings::default(), service, &rows);
}

#[test]
fn ipv6() {
    let service = service("svc", "fd00:10:96::a")
        .protocol(Protocol::Sctp)
        .served_by(&["[fd00:10:1::5]:80"])
        .node_port(30001);
    let masqueraded = "[fd00:10:1::5]:80 masq";
    check(
        cluster_cidr("fd00:10:1::/48"),
        service,
        &[
            ("fd00:10:1::9", "[fd00:10:96::a]:80", "[fd00:10:1::5]:80"),
            ("2001:db8::1", "[fd00:10:96::a]:80", masqueraded),
            ("2001:db8::1", "[fd00:7::2]:30001", masqueraded),
            ("::1", "[::1]:30001", "none"),
        ],
    );
}

#[test]
fn clients_stay_with_their_endpoint() {
    let sticky = service("svc", "172.30.0.41")
        .served_by(&[ONE, TWO])
        .sticky();
    let chain = ChainName::Of(
        Role::Endpoint,
        names::Hash::of_endpoint(&sticky.port.name, TWO.parse().unwrap()),
    )
    .to_string();
    let kernel = kernel_with(&mut rule_set(
        Family::V4,
        RuleSettings::default(),
        vec![sticky],
    ));
    let packet = Packet {
        node: &[ip(NODE)],
        interface: Some("veth1"),
        protocol: Protocol::Tcp,
        source: ip(POD),
        destination: "172.30.0.41:80".parse().unwrap(),
        known_to: Some(&chain),
    };
    let fates: Vec<_> = kernel
        .trace(&packet)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(fates, [TWO]);
}

#[test]
fn protocols_do_not_mix() {
    let udp = service("svc", "172.30.0.41")
        .protocol(Protocol::Udp)
        .served_by(&[ONE])
        .node_port(30001);
    let kernel = kernel_with(&mut rule_set(
        Family::V4,
        RuleSettings::default(),
        vec![udp],
    ));
    assert_eq!(fate(&kernel, Protocol::Udp, POD, "172.30.0.41:80"), ONE);
    assert_eq!(fate(&kernel, Protocol::Tcp, POD, "172.30.0.41:80"), "none");
    assert_eq!(
        fate(&kernel, Protocol::Sctp, OUTSIDE, "192.168.0.2:30001"),
        "none"
    );
}

#[test]
fn of_two_services_with_one_address_the_first_by_name_wins() {
    let first = service("a", "172.30.0.41").served_by(&[ONE]);
    let second = service("b", "172.30.0.41").served_by(&[TWO]);
    for services in [[first.clone(), second.clone()], [second, first]] {
        let mut rules = rule_set(Family::V4, RuleSettings::default(), services.into());
        let kernel = kernel_with(&mut rules);
        assert_eq!(fate(&kernel, Protocol::Tcp, POD, "172.30.0.41:80"), ONE);
    }
}

/// So many Services that dispatching chains are cut, at every number of parts.
#[test]
fn many_services_are_all_found() {
    for (family, number) in [
        (Family::V4, 200_u16),
        (Family::V4, 700),
        (Family::V6, 1500),
        (Family::V4, 4200),
    ] {
        let address = |i: u16| match family {
            Family::V4 => format!("10.96.{}.{}", i >> 8, i & 255),
            Family::V6 => format!("[fd00:96::{i:x}]"),
        };
        let endpoint = |i: u16| match family {
            Family::V4 => format!("10.1.{}.{}:80", i >> 8, i & 255),
            Family::V6 => format!("[fd00:1::{i:x}]:80"),
        };
        let services = (1..=number).map(|i| {
            let address = address(i);
            let one = service(&format!("s{i}"), address.trim_matches(['[', ']']));
            one.served_by(&[&endpoint(i)]).node_port(29_999 + i)
        });
        let mut rules = rule_set(family, RuleSettings::default(), services.collect());
        let kernel = kernel_with(&mut rules);
        let (pod, outside, node) = match family {
            Family::V4 => (POD, OUTSIDE, NODE.to_owned()),
            Family::V6 => ("fd00:1::ffff", "2001:db8::1", "[fd00:7::2]".to_owned()),
        };
        for i in (1..=number).step_by(97) {
            let to = format!("{}:80", address(i));
            assert_eq!(fate(&kernel, Protocol::Tcp, pod, &to), endpoint(i));
            let to = format!("{node}:{}", 29_999 + i);
            let expected = format!("{} masq", endpoint(i));
            assert_eq!(fate(&kernel, Protocol::Tcp, outside, &to), expected);
        }
        let longest = kernel.rules_walked(&Packet {
            node: &[],
            interface: Some("veth1"),
            protocol: Protocol::Tcp,
            source: ip(pod),
            destination: format!("{}:81", address(77)).parse().unwrap(),
            known_to: None,
        });
        assert!(longest < 200, "{longest} rules at {number} services");
    }
}
