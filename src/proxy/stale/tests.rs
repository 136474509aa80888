use proptest::prelude::*;

use super::super::model::PortName;
use super::*;

const CLUSTER_IP: &str = "10.96.0.10:53";
const NODE: &str = "192.0.2.1";

fn name(text: &str) -> Arc<ServiceName> {
    Arc::new(ServiceName::new("default", text))
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
    texts.iter().map(|text| address(text)).collect()
}

fn node() -> BTreeSet<IpAddr> {
    BTreeSet::from([NODE.parse().unwrap(), "2001:db8::1".parse().unwrap()])
}

/// A port at `cluster`, with everything else a port can have.
fn port(service: &Arc<ServiceName>, protocol: Protocol, cluster: &str) -> ServicePort {
    let cluster = address(cluster);
    let others = |v4: &str, v6: &str| match Family::of(cluster.ip()) {
        Family::V4 => vec![v4.parse().unwrap()],
        Family::V6 => vec![v6.parse().unwrap()],
    };
    ServicePort {
        name: PortName {
            service: Arc::clone(service),
            port: "".into(),
            protocol,
        },
        cluster_ip: Some(cluster.ip()),
        port: cluster.port(),
        node_port: 30053.try_into().ok(),
        external_ips: others("198.51.100.1", "2001:db8:1::1"),
        load_balancer_ips: others("203.0.113.1", "2001:db8:2::1"),
        source_ranges: Vec::new(),
        affinity: None,
        internal_local: false,
        external_local: false,
    }
}

fn selected(endpoints: &[&str]) -> Selected {
    Selected {
        cluster: addresses(endpoints),
        local: Vec::new(),
        anywhere: !endpoints.is_empty(),
    }
}

/// A truth with one Service, settled.
fn truth(protocol: Protocol, cluster: &str, endpoints: &[&str]) -> Truth {
    let mut truth = Truth::new(Family::of(address(cluster).ip()));
    let service = name("dns");
    let port = port(&service, protocol, cluster);
    truth.set(&service, &[Served::new(&port, &selected(endpoints))]);
    truth.settled();
    truth
}

/// A flow of UDP to `to` that `server` answers.
fn flow(to: &str, server: &str) -> Flow {
    let (to, server) = (address(to), address(server));
    let client = SocketAddr::new(server.ip(), 40_000);
    Flow {
        protocol: Protocol::Udp,
        original: Tuple {
            source: client,
            destination: to,
        },
        reply: Tuple {
            source: server,
            destination: client,
        },
        zone: DEFAULT_ZONE,
        id: 7,
    }
}

#[test]
fn who_serves_decides() {
    let some: &[&str] = &["10.1.0.2:5353", "10.1.0.3:5353"];
    let cases: &[(&str, &[&str], &str, &str, bool)] = &[
        ("an endpoint", some, CLUSTER_IP, "10.1.0.2:5353", false),
        ("a lost endpoint", some, CLUSTER_IP, "10.1.0.9:5353", true),
        (
            "an endpoint's old port",
            some,
            CLUSTER_IP,
            "10.1.0.2:53",
            true,
        ),
        (
            "before there was a rule",
            some,
            CLUSTER_IP,
            CLUSTER_IP,
            true,
        ),
        ("no endpoint left", &[], CLUSTER_IP, "10.1.0.2:5353", true),
        ("nobody, not translated", &[], CLUSTER_IP, CLUSTER_IP, false),
        (
            "external IP",
            some,
            "198.51.100.1:53",
            "10.1.0.2:5353",
            false,
        ),
        (
            "external IP, lost",
            some,
            "198.51.100.1:53",
            "10.1.0.9:5353",
            true,
        ),
        (
            "load balancer",
            some,
            "203.0.113.1:53",
            "10.1.0.3:5353",
            false,
        ),
        (
            "load balancer, lost",
            some,
            "203.0.113.1:53",
            "10.1.0.9:5353",
            true,
        ),
        ("node port", some, "192.0.2.1:30053", "10.1.0.2:5353", false),
        (
            "node port, lost",
            some,
            "192.0.2.1:30053",
            "10.1.0.9:5353",
            true,
        ),
        (
            "node port, no rule",
            some,
            "192.0.2.1:30053",
            "192.0.2.1:30053",
            true,
        ),
        (
            "node port, nobody",
            &[],
            "192.0.2.1:30053",
            "10.1.0.2:5353",
            true,
        ),
        (
            "another host's port",
            some,
            "192.0.2.9:30053",
            "192.0.2.9:30053",
            false,
        ),
        (
            "a NAT of others",
            some,
            "192.0.2.9:30053",
            "10.1.0.9:5353",
            false,
        ),
        (
            "another port",
            some,
            "10.96.0.10:54",
            "10.1.0.9:5353",
            false,
        ),
        (
            "another address",
            some,
            "10.96.0.11:53",
            "10.1.0.9:5353",
            false,
        ),
        (
            "straight to an endpoint",
            some,
            "10.1.0.2:5353",
            "10.1.0.2:5353",
            false,
        ),
        (
            "straight to anybody",
            some,
            "10.1.0.9:5353",
            "10.1.0.9:5353",
            false,
        ),
    ];
    for (what, endpoints, to, server, stale) in cases {
        let truth = truth(Protocol::Udp, CLUSTER_IP, endpoints);
        assert_eq!(truth.is_stale(&flow(to, server), &node()), *stale, "{what}");
    }
}

#[test]
fn families_do_not_mix() {
    let truth = truth(Protocol::Udp, "[fd00::10]:53", &["[fd01::2]:5353"]);
    for (to, server, stale) in [
        ("[fd00::10]:53", "[fd01::2]:5353", false),
        ("[fd00::10]:53", "[fd01::9]:5353", true),
        ("[2001:db8::1]:30053", "[fd01::9]:5353", true),
        // The other family's truth knows about this one.
        ("192.0.2.1:30053", "10.1.0.9:5353", false),
    ] {
        assert_eq!(truth.is_stale(&flow(to, server), &node()), stale, "{to}");
    }
}

#[test]
fn protocols_do_not_mix_and_tcp_is_left_alone() {
    for served in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
        let truth = truth(served, CLUSTER_IP, &["10.1.0.2:5353"]);
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            let lost = Flow {
                protocol,
                ..flow(CLUSTER_IP, "10.1.0.9:5353")
            };
            let stale = protocol == served && protocol != Protocol::Tcp;
            assert_eq!(
                truth.is_stale(&lost, &node()),
                stale,
                "{served:?} {protocol:?}"
            );
        }
    }
}

#[test]
fn an_endpoint_that_only_answers_keeps_its_flows() {
    let service = name("dns");
    let port = port(&service, Protocol::Udp, CLUSTER_IP);
    let mut truth = Truth::new(Family::V4);
    let terminating = address("10.1.0.9:5353");
    let served = Served::new(&port, &selected(&["10.1.0.2:5353"])).also([terminating]);
    truth.set(&service, &[served]);
    assert!(!truth.is_stale(&flow(CLUSTER_IP, "10.1.0.9:5353"), &node()));
}

#[test]
fn local_endpoints_serve_as_well() {
    let service = name("dns");
    let port = port(&service, Protocol::Udp, CLUSTER_IP);
    let mut truth = Truth::new(Family::V4);
    let selected = Selected {
        cluster: addresses(&["10.1.0.2:5353"]),
        local: addresses(&["10.1.0.3:5353"]),
        anywhere: true,
    };
    truth.set(&service, &[Served::new(&port, &selected)]);
    assert!(!truth.is_stale(&flow(CLUSTER_IP, "10.1.0.3:5353"), &node()));
}

#[test]
fn an_endpoint_on_the_nodes_network_is_not_taken_for_a_lost_rule() {
    // The external IP is this node's, and so is the endpoint: translated to itself.
    let truth = truth(Protocol::Udp, CLUSTER_IP, &["198.51.100.1:53"]);
    let same = flow("198.51.100.1:53", "198.51.100.1:53");
    assert!(!same.is_translated());
    assert!(!truth.is_stale(&same, &node()));
}

#[test]
fn other_zones_are_only_touched_where_somebody_translated() {
    let truth = truth(Protocol::Udp, CLUSTER_IP, &["10.1.0.2:5353"]);
    for (server, stale) in [(CLUSTER_IP, false), ("10.1.0.9:5353", true)] {
        let elsewhere = Flow {
            zone: 5,
            ..flow(CLUSTER_IP, server)
        };
        assert_eq!(truth.is_stale(&elsewhere, &node()), stale, "{server}");
    }
}

#[test]
fn a_deleted_service_is_remembered_until_a_pass_is_over() {
    let mut truth = truth(Protocol::Udp, CLUSTER_IP, &["10.1.0.2:5353"]);
    assert!(!truth.is_pass_due());
    truth.set(&name("dns"), &[]);
    assert!(truth.is_pass_due());
    for to in [
        CLUSTER_IP,
        "198.51.100.1:53",
        "203.0.113.1:53",
        "192.0.2.1:30053",
    ] {
        assert!(truth.is_stale(&flow(to, "10.1.0.2:5353"), &node()), "{to}");
        // Whoever has the address now may be reached there.
        assert!(!truth.is_stale(&flow(to, to), &node()), "{to}");
    }
    truth.settled();
    assert!(!truth.is_pass_due());
    assert!(!truth.is_stale(&flow(CLUSTER_IP, "10.1.0.2:5353"), &node()));
}

#[test]
fn what_earlier_rules_took_is_ours_unless_somebody_has_it() {
    let mut truth = truth(Protocol::Udp, CLUSTER_IP, &["10.1.0.2:5353"]);
    let udp = |text: &str| Destination::Address {
        protocol: Protocol::Udp,
        address: address(text),
    };
    truth.inherit(&[udp(CLUSTER_IP)]);
    assert!(!truth.is_pass_due());
    truth.inherit(&[
        udp("10.96.0.99:53"),
        udp("[fd00::99]:53"),
        Destination::Address {
            protocol: Protocol::Tcp,
            address: address("10.96.0.99:54"),
        },
        Destination::NodePort {
            protocol: Protocol::Udp,
            port: 31000.try_into().unwrap(),
        },
    ]);
    assert!(truth.is_pass_due());
    for (to, server, stale) in [
        (CLUSTER_IP, "10.1.0.2:5353", false),
        ("10.96.0.99:53", "10.1.0.2:5353", true),
        ("10.96.0.99:54", "10.1.0.2:5353", false),
        ("192.0.2.1:31000", "10.1.0.2:5353", true),
    ] {
        assert_eq!(truth.is_stale(&flow(to, server), &node()), stale, "{to}");
    }
    // Its owner is heard of later.
    let service = name("late");
    let late = port(&service, Protocol::Udp, "10.96.0.99:53");
    truth.set(
        &service,
        &[Served::new(&late, &selected(&["10.1.0.2:5353"]))],
    );
    assert!(!truth.is_stale(&flow("10.96.0.99:53", "10.1.0.2:5353"), &node()));
}

#[test]
fn services_that_share_a_destination_do_not_harm_each_other() {
    let mut truth = truth(Protocol::Udp, CLUSTER_IP, &["10.1.0.2:5353"]);
    let other = name("other");
    let same = port(&other, Protocol::Udp, CLUSTER_IP);
    truth.set(&other, &[Served::new(&same, &selected(&["10.1.0.3:5353"]))]);
    for server in ["10.1.0.2:5353", "10.1.0.3:5353"] {
        assert!(
            !truth.is_stale(&flow(CLUSTER_IP, server), &node()),
            "{server}"
        );
    }
    truth.set(&name("dns"), &[]);
    assert!(truth.is_stale(&flow(CLUSTER_IP, "10.1.0.2:5353"), &node()));
    assert!(!truth.is_stale(&flow(CLUSTER_IP, "10.1.0.3:5353"), &node()));
}

#[test]
fn a_pass_is_due_when_entries_can_have_become_stale() {
    let one: &[&str] = &["10.1.0.2:5353"];
    let two: &[&str] = &["10.1.0.2:5353", "10.1.0.3:5353"];
    for (what, before, after, due) in [
        ("nothing", one, one, false),
        ("one more", one, two, false),
        ("one less", two, one, true),
        ("the last one", one, &[], true),
        ("the first one", &[], one, true),
        ("still nobody", &[], &[], false),
        ("another one", one, &["10.1.0.3:5353"], true),
    ] {
        let mut truth = truth(Protocol::Udp, CLUSTER_IP, before);
        let service = name("dns");
        let port = port(&service, Protocol::Udp, CLUSTER_IP);
        truth.set(&service, &[Served::new(&port, &selected(after))]);
        assert_eq!(truth.is_pass_due(), due, "{what}");
    }
    let mut tcp = truth(Protocol::Tcp, CLUSTER_IP, one);
    tcp.set(&name("dns"), &[]);
    assert!(!tcp.is_pass_due());
}

// A small world, so that everything meets everything: Services 0 to 2 with cluster
// IPs of their own and node ports that they may share, endpoints 0 to 3.

/// Endpoints of a Service; none: there is no such Service.
type World = BTreeMap<u8, BTreeSet<u8>>;

fn world() -> impl Strategy<Value = World> {
    let endpoints = prop::collection::btree_set(0..4_u8, 0..4);
    prop::collection::btree_map(0..3_u8, endpoints, 0..4)
}

fn endpoint(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 1, 0, number], 5353))
}

fn tell(truth: &mut Truth, number: u8, endpoints: Option<&BTreeSet<u8>>) {
    let service = name(&format!("s{number}"));
    let mut port = port(&service, Protocol::Udp, &format!("10.96.0.{number}:53"));
    port.node_port = (30_000 + u16::from(number % 2)).try_into().ok();
    port.external_ips.clear();
    port.load_balancer_ips.clear();
    let selected = Selected {
        cluster: endpoints
            .into_iter()
            .flatten()
            .copied()
            .map(endpoint)
            .collect(),
        ..Selected::default()
    };
    let served = endpoints.map(|_| Served::new(&port, &selected));
    truth.set(&service, served.as_slice());
}

fn tell_all(truth: &mut Truth, world: &World) {
    for number in 0..3 {
        tell(truth, number, world.get(&number));
    }
}

/// Flows to cluster IPs, node ports and elsewhere; translated, or not (`server` 4).
fn flows() -> impl Strategy<Value = Vec<Flow>> {
    let one = (0..6_u8, 0..5_u8, 0..2_u16).prop_map(|(to, server, zone)| {
        let to = match to {
            0..4 => SocketAddr::from(([10, 96, 0, to], 53)),
            _ => SocketAddr::from(([192, 0, 2, 1], 30_000 + u16::from(to - 4))),
        };
        let server = if server == 4 { to } else { endpoint(server) };
        Flow {
            zone,
            ..flow(&to.to_string(), &server.to_string())
        }
    });
    prop::collection::vec(one, 0..20)
}

/// Whether `world` sends new flows with this destination to `server`.
fn is_served_by(world: &World, to: SocketAddr, server: SocketAddr) -> bool {
    world.iter().any(|(number, endpoints)| {
        let cluster_ip = to == SocketAddr::from(([10, 96, 0, *number], 53));
        let node_port = to.port() == 30_000 + u16::from(number % 2);
        (cluster_ip || node_port) && endpoints.iter().any(|one| endpoint(*one) == server)
    })
}

proptest! {
    #[test]
    fn healthy_flows_are_never_stale(
        before in world(),
        now in world(),
        flows in flows(),
    ) {
        let mut truth = Truth::new(Family::V4);
        tell_all(&mut truth, &before);
        tell_all(&mut truth, &now);
        for flow in flows {
            if is_served_by(&now, flow.original.destination, flow.reply.source) {
                prop_assert!(!truth.is_stale(&flow, &node()), "{flow}");
            }
        }
    }

    #[test]
    fn what_is_stale_is_gone_after_one_pass(
        before in world(),
        now in world(),
        flows in flows(),
    ) {
        let mut truth = Truth::new(Family::V4);
        tell_all(&mut truth, &before);
        tell_all(&mut truth, &now);
        for flow in flows {
            if !truth.is_stale(&flow, &node()) {
                continue;
            }
            // The client's next packet asks the rules: it gets an endpoint, or goes on
            // untranslated if no Service is there to refuse it.
            let to = flow.original.destination;
            let endpoints = (0..4).map(endpoint).filter(|one| is_served_by(&now, to, *one));
            let mut next: Vec<SocketAddr> = endpoints.collect();
            if next.is_empty() {
                next.push(to);
            }
            for server in next {
                let again = Flow {
                    reply: Tuple { source: server, ..flow.reply },
                    ..flow.clone()
                };
                prop_assert!(!truth.is_stale(&again, &node()), "{again}");
            }
        }
    }

    #[test]
    fn the_way_to_a_truth_does_not_matter(
        steps in prop::collection::vec((0..3_u8, prop::option::of(
            prop::collection::btree_set(0..4_u8, 0..4),
        )), 0..12),
        flows in flows(),
    ) {
        let mut by_steps = Truth::new(Family::V4);
        let mut world = World::new();
        for (number, endpoints) in steps {
            tell(&mut by_steps, number, endpoints.as_ref());
            match endpoints {
                Some(endpoints) => world.insert(number, endpoints),
                None => world.remove(&number),
            };
        }
        by_steps.settled();
        let mut at_once = Truth::new(Family::V4);
        tell_all(&mut at_once, &world);
        at_once.settled();
        for flow in flows {
            let (left, right) = (by_steps.is_stale(&flow, &node()), at_once.is_stale(&flow, &node()));
            prop_assert_eq!(left, right, "{}", flow);
        }
    }

    #[test]
    fn nothing_becomes_stale_without_a_pass_being_due(
        before in world(),
        now in world(),
        flows in flows(),
    ) {
        let mut truth = Truth::new(Family::V4);
        tell_all(&mut truth, &before);
        truth.settled();
        let healthy: Vec<Flow> =
            flows.into_iter().filter(|flow| !truth.is_stale(flow, &node())).collect();
        tell_all(&mut truth, &now);
        if !truth.is_pass_due() {
            for flow in healthy {
                prop_assert!(!truth.is_stale(&flow, &node()), "{flow}");
            }
        }
    }
}
