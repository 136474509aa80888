use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;
use std::sync::Arc;

use proptest::prelude::*;

use super::super::model::{Family, PortName, ServiceName};
use super::super::slice::SlicePort;
use super::*;

/// An endpoint in a word: its last octet, then a letter for each thing that is not
/// as usual.
///
/// `u` not ready, `n` not serving, `t` terminating, `l` on this node, `h` meant for
/// this node, `e` for another one, `a` and `b` for those zones.
fn endpoint(word: &str) -> Endpoint {
    let digits = word.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let zones: Vec<Box<str>> = word
        .chars()
        .filter(|c| "ab".contains(*c))
        .map(|c| c.to_string().into())
        .collect();
    Endpoint {
        address: IpAddr::V4(Ipv4Addr::new(10, 1, 0, digits.parse().unwrap())),
        ready: !word.contains('u'),
        serving: !word.contains('n'),
        terminating: word.contains('t'),
        local: word.contains('l'),
        node_hint: match (word.contains('h'), word.contains('e')) {
            (true, _) => NodeHint::Here,
            (false, true) => NodeHint::Elsewhere,
            (false, false) => NodeHint::Absent,
        },
        zone_hints: (!zones.is_empty()).then(|| Arc::new(zones.into_iter().collect())),
    }
}

fn slice(port: u16, endpoints: Vec<Endpoint>) -> SliceInfo {
    SliceInfo {
        family: Family::V4,
        ports: Box::new([SlicePort {
            name: "".into(),
            protocol: Protocol::Tcp,
            port: NonZeroU16::new(port).unwrap(),
        }]),
        endpoints: endpoints.into(),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Policies {
    /// Everything Cluster, with a node port.
    Cluster,
    /// External Local, with a node port.
    ExternalLocal,
    /// Internal Local, nothing for the outside.
    InternalLocal,
    /// Internal Local, and an external address of policy Cluster.
    InternalLocalWithOutside,
}

fn port(policies: Policies) -> ServicePort {
    let outside = policies != Policies::InternalLocal;
    ServicePort {
        name: PortName {
            service: Arc::new(ServiceName::new("shop", "web")),
            port: "".into(),
            protocol: Protocol::Tcp,
        },
        cluster_ip: Some("10.0.0.1".parse().unwrap()),
        port: 80,
        node_port: NonZeroU16::new(30080).filter(|_| outside),
        external_ips: vec![],
        load_balancer_ips: vec![],
        source_ranges: vec![],
        affinity: None,
        internal_local: matches!(
            policies,
            Policies::InternalLocal | Policies::InternalLocalWithOutside
        ),
        external_local: policies == Policies::ExternalLocal,
    }
}

/// Last octets, as in the tables below.
fn octets(addresses: &[SocketAddr]) -> String {
    let octets = addresses.iter().map(|address| match address.ip() {
        IpAddr::V4(ip) => ip.octets()[3].to_string(),
        IpAddr::V6(_) => unreachable!("there are none"),
    });
    octets.collect::<Vec<_>>().join(" ")
}

fn selected(policies: Policies, words: &str, zone: Option<&str>) -> (String, String, bool) {
    let slice = slice(8080, words.split_whitespace().map(endpoint).collect());
    let targets = targets([&slice], "", Protocol::Tcp);
    let selected = select(&port(policies), &targets, zone);
    (
        octets(&selected.cluster),
        octets(&selected.local),
        selected.anywhere,
    )
}

#[test]
fn readiness() {
    use Policies::{Cluster, ExternalLocal, InternalLocal, InternalLocalWithOutside};
    for (policies, endpoints, cluster, local, anywhere) in [
        (Cluster, "", "", "", false),
        (Cluster, "1 2", "1 2", "", true),
        (Cluster, "1 2l 3u", "1 2", "", true),
        // Those that go serve only if nothing is ready.
        (Cluster, "1 2ut", "1", "", true),
        (Cluster, "1ut 2u 3utn", "1", "", true),
        (Cluster, "1u 2utn", "", "", false),
        // Ready in spite of terminating: the Service publishes what is not ready.
        (Cluster, "1t 2", "1 2", "", true),
        (ExternalLocal, "1 2l", "1 2", "2", true),
        (ExternalLocal, "1", "1", "", true),
        // Each policy falls back by itself.
        (ExternalLocal, "1 2lut", "1", "2", true),
        (ExternalLocal, "1 2lut 3l", "1 3", "3", true),
        (ExternalLocal, "1ut 2lut", "1 2", "2", true),
        (ExternalLocal, "1 2lutn", "1", "", true),
        (InternalLocal, "1 2l", "", "2", true),
        (InternalLocal, "1", "", "", true),
        (InternalLocal, "1ut", "", "", true),
        (InternalLocal, "1u", "", "", false),
        (InternalLocalWithOutside, "1 2l", "1 2", "2", true),
    ] {
        let expected = (cluster.to_owned(), local.to_owned(), anywhere);
        assert_eq!(
            selected(policies, endpoints, None),
            expected,
            "{policies:?} {endpoints}"
        );
    }
}

#[test]
fn hints() {
    for (endpoints, zone, cluster) in [
        // Zones.
        ("1a 2b", Some("a"), "1"),
        ("1a 2ab 3b", Some("a"), "1 2"),
        ("1a 2b", Some("c"), "1 2"),
        ("1a 2b", None, "1 2"),
        ("1a 2", Some("a"), "1 2"),
        // Hints of those that are not ready do not count, nor does their lack.
        ("1a 2b 3u", Some("a"), "1"),
        ("1ua 2b", Some("a"), "2"),
        // Nodes before zones.
        ("1h 2e", Some("a"), "1"),
        ("1ha 2eb 3ea", Some("a"), "1"),
        ("1ea 2eb", Some("a"), "1"),
        ("1h 2", Some("a"), "1 2"),
        ("1ha 2a 3b", Some("a"), "1 2"),
        ("1e 2e", Some("a"), "1 2"),
        ("1uh 2e", None, "2"),
        // The last resort knows no hints.
        ("1uta 2utb", Some("a"), "1 2"),
    ] {
        let found = selected(Policies::Cluster, endpoints, zone).0;
        assert_eq!(found, cluster, "{endpoints} in {zone:?}");
    }
}

#[test]
fn hints_do_not_narrow_local_traffic() {
    let found = selected(Policies::ExternalLocal, "1la 2lb 3a", Some("a"));
    assert_eq!(found, ("1 3".to_owned(), "1 2".to_owned(), true));
}

#[test]
fn an_address_of_several_slices_counts_once() {
    let dying = slice(8080, vec![endpoint("1ut"), endpoint("3ut")]);
    let alive = slice(8080, vec![endpoint("1"), endpoint("2l")]);
    let elsewhere = slice(8080, vec![endpoint("2"), endpoint("4u")]);
    let other_port = slice(9090, vec![endpoint("1")]);
    for order in [
        [&dying, &alive, &elsewhere, &other_port],
        [&other_port, &elsewhere, &alive, &dying],
    ] {
        let targets = targets(order, "", Protocol::Tcp);
        let found: Vec<_> = targets
            .iter()
            .map(|(address, one)| (address.to_string(), one.ready, one.local))
            .collect();
        let expected = [
            ("10.1.0.1:8080", true, false),
            ("10.1.0.1:9090", true, false),
            ("10.1.0.2:8080", true, true),
            ("10.1.0.3:8080", false, false),
            ("10.1.0.4:8080", false, false),
        ]
        .map(|(address, ready, local)| (address.to_owned(), ready, local));
        assert_eq!(found, expected);
    }
}

#[test]
fn only_the_port_of_that_name_and_protocol() {
    let slice = slice(8080, vec![endpoint("1")]);
    assert_eq!(targets([&slice], "", Protocol::Tcp).len(), 1);
    assert_eq!(targets([&slice], "", Protocol::Udp).len(), 0);
    assert_eq!(targets([&slice], "web", Protocol::Tcp).len(), 0);
}

#[test]
fn the_order_is_that_of_text() {
    let slice = slice(80, ["9", "10", "100", "2"].map(endpoint).into());
    let targets = targets([&slice], "", Protocol::Tcp);
    let addresses: Vec<_> = targets.iter().map(|(address, _)| *address).collect();
    assert_eq!(octets(&addresses), "100 10 2 9");
}

fn any_endpoint() -> impl Strategy<Value = Endpoint> {
    let bools = any::<[bool; 4]>();
    (1..8_u8, bools, 0..3_u8, 0..4_u8).prop_map(
        |(octet, [ready, serving, terminating, local], node, zone)| {
            let mut word = octet.to_string();
            let letters = [
                (!ready, 'u'),
                (!serving, 'n'),
                (terminating, 't'),
                (local, 'l'),
            ];
            word.extend(
                letters
                    .into_iter()
                    .filter(|(is, _)| *is)
                    .map(|(_, letter)| letter),
            );
            word.push_str(["", "h", "e"][usize::from(node)]);
            word.push_str(["", "a", "b", "ab"][usize::from(zone)]);
            endpoint(&word)
        },
    )
}

proptest! {
    #[test]
    fn what_is_selected_can_serve(
        slices in prop::collection::vec(prop::collection::vec(any_endpoint(), 0..6), 0..4),
        policies in prop_oneof![
            Just(Policies::Cluster),
            Just(Policies::ExternalLocal),
            Just(Policies::InternalLocal),
            Just(Policies::InternalLocalWithOutside),
        ],
        zone in prop_oneof![Just(None), Just(Some("a")), Just(Some("c"))],
    ) {
        let slices: Vec<_> = slices.into_iter().map(|endpoints| slice(80, endpoints)).collect();
        let targets = targets(&slices, "", Protocol::Tcp);
        let selected = select(&port(policies), &targets, zone);
        let is = |address: &SocketAddr, which: &dyn Fn(&Endpoint) -> bool| {
            targets.iter().any(|(one, endpoint)| one == address && which(endpoint))
        };
        let any_ready = targets.iter().any(|(_, one)| one.ready);
        let local_ready = targets.iter().any(|(_, one)| one.ready && one.local);
        for list in [&selected.cluster, &selected.local] {
            prop_assert!(list.iter().map(ToString::to_string).is_sorted_by(|a, b| a < b));
            prop_assert!(list.iter().all(|a| is(a, &|one| one.ready || one.is_last_resort())));
        }
        prop_assert!(selected.local.iter().all(|a| is(a, &|one| one.local)));
        prop_assert!(!any_ready || selected.cluster.iter().all(|a| is(a, &|one| one.ready)));
        prop_assert!(!local_ready || selected.local.iter().all(|a| is(a, &|one| one.ready)));
        // Whoever may use the whole cluster's endpoints has one if anybody has.
        if policies != Policies::InternalLocal {
            prop_assert_eq!(selected.anywhere, !selected.cluster.is_empty());
        }
        prop_assert!(selected.anywhere || selected.local.is_empty());
        prop_assert!(policies != Policies::InternalLocal || selected.cluster.is_empty());
        prop_assert!(policies != Policies::Cluster || selected.local.is_empty());
    }
}
