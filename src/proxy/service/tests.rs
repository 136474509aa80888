use serde_json::{Value, json};

use super::*;

fn service(spec: Value) -> Service {
    serde_json::from_value(json!({
        "metadata": {"namespace": "shop", "name": "web"},
        "spec": spec,
    }))
    .unwrap()
}

fn read_all(service: &Service) -> (Option<ServiceInfo>, Vec<Fault>) {
    let name = Arc::new(name_of(&service.metadata).unwrap());
    read(service, &name)
}

/// Reads what must be without fault.
fn good(spec: Value) -> ServiceInfo {
    let (info, faults) = read_all(&service(spec));
    assert_eq!(faults, []);
    info.expect("a Service with a cluster IP")
}

/// A Service with one field more than the least.
fn with(field: &str, value: Value) -> Value {
    let mut spec = json!({
        "type": "LoadBalancer",
        "clusterIP": "10.0.0.1",
        "healthCheckNodePort": 32000,
        "ports": [{"port": 80, "nodePort": 30080}],
    });
    spec[field] = value;
    spec
}

fn shown(faults: &[Fault]) -> Vec<String> {
    faults
        .iter()
        .map(|fault| format!("{}: {}", fault.field, fault.message))
        .collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn services_without_cluster_ip_are_nothing() {
    for spec in [
        json!({}),
        json!({"clusterIP": ""}),
        json!({"clusterIP": "None"}),
        json!({"clusterIP": "None", "clusterIPs": ["None"]}),
        json!({"type": "ExternalName", "externalName": "example.com"}),
        json!({"type": "ExternalName", "clusterIP": "10.0.0.1"}),
    ] {
        assert_eq!(read_all(&service(spec.clone())), (None, vec![]), "{spec}");
    }
    assert_eq!(
        read_all(&Service {
            spec: None,
            ..service(json!({}))
        })
        .0,
        None
    );
}

#[test]
fn a_service_of_another_proxy_is_known_but_not_served() {
    let mut service = service(json!({
        "clusterIP": "10.0.0.1",
        "ports": [{"port": 80}, {"port": 0}],
    }));
    let labels = [(FOREIGN_PROXY_LABEL.to_owned(), String::new())];
    service.metadata.labels = Some(labels.into());
    let (info, faults) = read_all(&service);
    let info = info.unwrap();
    assert!(!info.proxied);
    assert_eq!(info.cluster_ips[0], ip("10.0.0.1"));
    assert_eq!(info.ports.len(), 1);
    assert_eq!(info.destinations(Family::V4).count(), 0);
    assert_eq!(faults, []);
}

#[test]
fn cluster_ips() {
    let cases: &[(Value, &[&str], &[&str])] = &[
        (json!({"clusterIP": "10.0.0.1"}), &["10.0.0.1"], &[]),
        (
            json!({"clusterIPs": ["fd00::1", "10.0.0.1"], "ipFamilies": ["IPv6", "IPv4"]}),
            &["fd00::1", "10.0.0.1"],
            &[],
        ),
        (
            json!({"clusterIP": "169.254.20.10"}),
            &["169.254.20.10"],
            &[],
        ),
        (
            json!({"clusterIPs": ["10.0.0.1", "x"]}),
            &["10.0.0.1"],
            &["spec.clusterIPs[1]: \"x\" is not an IP address"],
        ),
        (
            json!({"clusterIPs": ["10.0.0.1", "10.0.0.2"]}),
            &["10.0.0.1"],
            &["spec.clusterIPs[1]: 10.0.0.2 is the second of the family IPv4"],
        ),
        (
            json!({"clusterIPs": ["10.0.0.1"], "ipFamilies": ["IPv6"]}),
            &[],
            &["spec.clusterIPs[0]: 10.0.0.1 is not of the family IPv6"],
        ),
        (
            json!({"clusterIP": "127.0.0.1"}),
            &[],
            &["spec.clusterIPs[0]: 127.0.0.1 is a loopback address"],
        ),
    ];
    for (spec, addresses, faults) in cases {
        let (info, found) = read_all(&service(spec.clone()));
        let cluster_ips = info.map(|info| info.cluster_ips).unwrap_or_default();
        let expected: Vec<_> = addresses.iter().map(|text| ip(text)).collect();
        assert_eq!(*cluster_ips, *expected, "{spec}");
        assert_eq!(shown(&found), *faults, "{spec}");
    }
}

#[test]
fn names_and_ages() {
    let long = "n".repeat(63);
    let mut service = service(json!({
        "clusterIP": "10.0.0.1",
        "ports": [{"name": long, "port": 1}, {"name": "b", "port": 2, "protocol": "UDP"}],
    }));
    service.metadata.name = Some(long.clone());
    service.metadata.namespace = Some(long.clone());
    service.metadata.uid = Some("u".to_owned());
    let second = jiff::Timestamp::from_second(12).unwrap();
    service.metadata.creation_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(second));
    let (info, faults) = read_all(&service);
    assert_eq!(faults, []);
    let info = info.unwrap();
    assert_eq!(info.name.to_string(), format!("{long}/{long}"));
    assert_eq!((info.uid.as_deref(), info.created), (Some("u"), 12));
    assert_eq!(*info.ports[0].name, *long);
    assert_eq!(info.ports[1].protocol, Protocol::Udp);

    for name in [
        "",
        "A",
        "a b",
        "a\n-A INPUT",
        "a\"",
        "-a",
        "a-",
        "a.b",
        &"n".repeat(64),
    ] {
        service.metadata.name = Some(name.to_owned());
        if name.is_empty() {
            assert_eq!(name_of(&service.metadata), None);
            continue;
        }
        let (info, faults) = read_all(&service);
        assert_eq!(info, None, "{name:?}");
        let message =
            format!("metadata.name: {name:?} is not a DNS label; the Service is not served");
        assert_eq!(shown(&faults), [message]);
    }
}

#[test]
fn a_bad_port_takes_away_only_itself() {
    let cases = [
        (
            json!({"port": 0}),
            "spec.ports[1].port: 0 is not a port number; the port is not served",
        ),
        (
            json!({"port": 65_536}),
            "spec.ports[1].port: 65536 is not a port number; the port is not served",
        ),
        (
            json!({"port": 1, "protocol": "ICMP"}),
            "spec.ports[1].protocol: \"ICMP\" is none of TCP, UDP and SCTP; the port is not served",
        ),
        (
            json!({"port": 1, "name": "a --jump"}),
            "spec.ports[1].name: \"a --jump\" is not a DNS label; the port is not served",
        ),
        (
            json!({"port": 80, "name": "other"}),
            "spec.ports[1]: an earlier port has the same protocol and the same name or number; \
             this one is not served",
        ),
        (
            json!({"port": 1, "name": "first"}),
            "spec.ports[1]: an earlier port has the same protocol and the same name or number; \
             this one is not served",
        ),
    ];
    for (bad, message) in cases {
        let spec = json!({
            "clusterIP": "10.0.0.1",
            "ports": [{"name": "first", "port": 80}, bad, {"name": "last", "port": 443}],
        });
        let (info, faults) = read_all(&service(spec));
        let names: Vec<_> = info
            .unwrap()
            .ports
            .iter()
            .map(|p| p.name.to_string())
            .collect();
        assert_eq!(names, ["first", "last"], "{message}");
        assert_eq!(shown(&faults), [message]);
    }
}

#[test]
fn a_bad_node_port_leaves_the_port() {
    let spec = json!({
        "clusterIP": "10.0.0.1",
        "ports": [
            {"name": "a", "port": 1, "nodePort": 30000},
            {"name": "b", "port": 2, "nodePort": 30000},
            {"name": "c", "port": 3, "nodePort": -1},
            {"name": "d", "port": 4, "nodePort": 30000, "protocol": "UDP"},
        ],
    });
    let (info, faults) = read_all(&service(spec));
    let info = info.unwrap();
    let node_ports: Vec<_> = info
        .ports
        .iter()
        .map(|p| p.node_port.map(NonZeroU16::get))
        .collect();
    assert_eq!(node_ports, [Some(30000), None, None, Some(30000)]);
    assert_eq!(
        shown(&faults),
        [
            "spec.ports[1].nodePort: an earlier port has the same node port",
            "spec.ports[2].nodePort: -1 is not a port number",
        ]
    );
}

#[test]
fn addresses_for_the_outside() {
    let mut service = service(json!({
        "clusterIPs": ["10.0.0.1", "fd00::1"],
        "externalIPs": ["192.0.2.1", "2001:db8::1", "192.0.2.1", "10.0.0.1", "127.0.0.1", "x", "fe80::1"],
        "ports": [{"port": 80}],
    }));
    service.status = serde_json::from_value(json!({"loadBalancer": {"ingress": [
        {"ip": "198.51.100.1"},
        {"ip": "198.51.100.2", "ipMode": "VIP"},
        {"ip": "198.51.100.3", "ipMode": "Proxy"},
        {"ip": "2001:db8::2"},
        {"ip": "192.0.2.1"},
        {"ip": "0.0.0.0"},
        {"hostname": "lb.example.com"},
        {"ip": ""},
    ]}}))
    .unwrap();
    let (info, faults) = read_all(&service);
    let info = info.unwrap();
    let external = |family| {
        info.external_ips(family)
            .map(|a| a.to_string())
            .collect::<Vec<_>>()
    };
    let balancer = |family| {
        info.load_balancer_ips(family)
            .map(|a| a.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(external(Family::V4), ["192.0.2.1"]);
    assert_eq!(external(Family::V6), ["2001:db8::1"]);
    assert_eq!(balancer(Family::V4), ["198.51.100.1", "198.51.100.2"]);
    assert_eq!(balancer(Family::V6), ["2001:db8::2"]);
    assert_eq!(
        shown(&faults),
        [
            "spec.externalIPs[4]: 127.0.0.1 is a loopback address",
            "spec.externalIPs[5]: \"x\" is not an IP address",
            "spec.externalIPs[6]: fe80::1 is a link-local address",
            "status.loadBalancer.ingress[5].ip: \"0.0.0.0\" is not an address that traffic can go to",
        ]
    );
    assert_eq!(info.destinations(Family::V4).count(), 4);
    assert_eq!(info.destinations(Family::V6).count(), 3);
}

/// Source ranges, what remains of them, and the load balancer's addresses that may be used.
#[test]
fn source_ranges() {
    let cases: &[(&[&str], &[&str], usize, usize)] = &[
        (&[], &[], 2, 0),
        (&["10.0.0.0/8"], &["10.0.0.0/8"], 2, 0),
        (&[" 10.0.0.1/8 ", "10.0.0.0/8"], &["10.0.0.0/8"], 2, 0),
        (
            &["10.0.0.0/8", "fd00::/8"],
            &["10.0.0.0/8", "fd00::/8"],
            2,
            0,
        ),
        (
            &["0.0.0.0/0", "10.0.0.0/8", "fd00::/8"],
            &["fd00::/8"],
            2,
            0,
        ),
        (&["10.0.0.0/8", "::/0"], &["10.0.0.0/8"], 2, 0),
        (&["10.0.0.0"], &[], 0, 1),
        (&["10.0.0.0", "10.0.0.0/8"], &["10.0.0.0/8"], 1, 1),
        (&["10.0.0.0", "0.0.0.0/0", "::/0"], &[], 2, 1),
    ];
    for (ranges, expected, usable, faulty) in cases {
        let mut service = service(with("loadBalancerSourceRanges", json!(ranges)));
        service.spec.as_mut().unwrap().cluster_ips =
            Some(vec!["10.0.0.1".to_owned(), "fd00::1".to_owned()]);
        service.status = serde_json::from_value(
            json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"ip": "2001:db8::1"}]}}),
        )
        .unwrap();
        let (info, faults) = read_all(&service);
        let info = info.unwrap();
        let found = Family::ALL.map(|f| {
            info.source_ranges(f)
                .map(|n| n.to_string())
                .collect::<Vec<_>>()
        });
        assert_eq!(found.concat(), *expected, "{ranges:?}");
        let addresses = Family::ALL.map(|family| info.load_balancer_ips(family).count());
        assert_eq!(addresses.iter().sum::<usize>(), *usable, "{ranges:?}");
        assert_eq!(faults.len(), *faulty, "{ranges:?}");
    }
}

#[test]
fn affinity() {
    let timeout = |seconds: i32| {
        let mut spec = with("sessionAffinity", json!("ClientIP"));
        spec["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": seconds}});
        spec
    };
    for (spec, seconds, faulty) in [
        (with("sessionAffinity", json!("None")), None, false),
        (
            with("sessionAffinity", json!("ClientIP")),
            Some(10_800),
            false,
        ),
        (with("sessionAffinity", json!("Cookie")), None, true),
        (timeout(1), Some(1), false),
        (timeout(86_400), Some(86_400), false),
        (timeout(86_401), Some(10_800), true),
        (timeout(0), Some(10_800), true),
        (timeout(-5), Some(10_800), true),
    ] {
        let (info, faults) = read_all(&service(spec.clone()));
        assert_eq!(
            info.unwrap().affinity.map(NonZeroU32::get),
            seconds,
            "{spec}"
        );
        assert_eq!(!faults.is_empty(), faulty, "{spec}");
    }
}

#[test]
fn traffic_policies() {
    let external = |kind: &str, external_ips: Value| {
        json!({
            "type": kind,
            "clusterIP": "10.0.0.1",
            "externalTrafficPolicy": "Local",
            "externalIPs": external_ips,
            "healthCheckNodePort": 32000,
        })
    };
    for (spec, external_local, health) in [
        (external("ClusterIP", json!([])), false, false),
        (external("ClusterIP", json!(["192.0.2.1"])), true, false),
        (external("NodePort", json!([])), true, false),
        (external("LoadBalancer", json!([])), true, true),
        (
            with("externalTrafficPolicy", json!("Cluster")),
            false,
            false,
        ),
    ] {
        let info = good(spec.clone());
        assert_eq!(info.external_local, external_local, "{spec}");
        assert_eq!(info.health_check_node_port().is_some(), health, "{spec}");
        assert!(!info.internal_local);
    }
    assert!(good(with("internalTrafficPolicy", json!("Local"))).internal_local);
    assert!(!good(with("internalTrafficPolicy", json!("Cluster"))).internal_local);
    let (info, faults) = read_all(&service(with("internalTrafficPolicy", json!("Near"))));
    assert!(!info.unwrap().internal_local);
    assert_eq!(
        shown(&faults),
        ["spec.internalTrafficPolicy: \"Near\" is neither Cluster nor Local; Cluster is assumed"]
    );
}

#[test]
fn a_missing_health_check_port_is_said() {
    let mut spec = with("externalTrafficPolicy", json!("Local"));
    spec["healthCheckNodePort"] = json!(0);
    let (info, faults) = read_all(&service(spec));
    assert_eq!(info.unwrap().health_check_node_port(), None);
    assert_eq!(faults.len(), 1);
    assert_eq!(faults[0].field, "spec.healthCheckNodePort");
}

#[test]
fn what_most_services_lack_takes_no_room() {
    let info = good(json!({"clusterIP": "10.0.0.1", "ports": [{"port": 80}]}));
    assert_eq!(info.external, None);
}

#[test]
fn destinations_are_named_once() {
    let mut spec = with("externalIPs", json!(["192.0.2.1"]));
    spec["ports"] = json!([
        {"name": "a", "port": 80, "nodePort": 30080},
        {"name": "b", "port": 80, "protocol": "UDP"},
    ]);
    let info = good(spec);
    let found: Vec<_> = info
        .destinations(Family::V4)
        .map(|(entrance, port, _)| (entrance, &*port.name))
        .collect();
    assert_eq!(
        found,
        [
            (Entrance::ClusterIp, "a"),
            (Entrance::NodePort, "a"),
            (Entrance::ExternalIp, "a"),
            (Entrance::ClusterIp, "b"),
            (Entrance::ExternalIp, "b"),
        ]
    );
    assert_eq!(info.destinations(Family::V6).count(), 0);
}
