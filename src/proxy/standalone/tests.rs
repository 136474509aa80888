//! Addresses and endpoints as a cluster would have them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{PodSpec, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::proxy::model::ServiceName;

type Services = BTreeMap<ServiceName, Arc<Service>>;

fn services(specs: &[(&str, Value)]) -> Services {
    let one = |(name, spec): &(&str, Value)| {
        let object = json!({"metadata": {"namespace": "ns", "name": name}, "spec": spec});
        let service = serde_json::from_value(object).unwrap();
        (ServiceName::new("ns", *name), Arc::new(service))
    };
    specs.iter().map(one).collect()
}

fn plain() -> Value {
    json!({"selector": {"app": "web"}, "ports": [{"port": 80}]})
}

fn node_port(number: Option<i32>) -> Value {
    json!({"type": "NodePort", "selector": {"app": "web"}, "ports": [{"port": 80, "nodePort": number}]})
}

fn get<'a>(granted: &'a Granted, name: &str) -> &'a k8s_openapi::api::core::v1::ServiceSpec {
    let service = &granted.services[&ServiceName::new("ns", name)];
    service.spec.as_ref().unwrap()
}

fn ip_of(granted: &Granted, name: &str) -> IpAddr {
    let ip = get(granted, name).cluster_ip.as_deref().unwrap();
    ip.parse().unwrap()
}

fn port_of(granted: &Granted, name: &str) -> i32 {
    get(granted, name).ports.as_ref().unwrap()[0]
        .node_port
        .unwrap()
}

fn reasons(granted: &Granted) -> Vec<String> {
    let line = |c: &Conflict| format!("{}: {}", c.service, c.reason);
    granted.conflicts.iter().map(line).collect()
}

/// Sixteen addresses and twenty ports, where everything collides.
fn tiny() -> Ranges {
    Ranges {
        cluster_ips: "10.0.0.0/28".parse::<Ipv4Net>().unwrap(),
        node_ports: 30_000..=30_019,
    }
}

#[test]
fn a_service_is_completed() {
    let granted = Addresses::default().grant(&services(&[("web", plain())]));
    insta::assert_json_snapshot!(get(&granted, "web"), @r#"
    {
      "clusterIP": "10.100.30.133",
      "clusterIPs": [
        "10.100.30.133"
      ],
      "internalTrafficPolicy": "Cluster",
      "ipFamilies": [
        "IPv4"
      ],
      "ports": [
        {
          "port": 80,
          "protocol": "TCP",
          "targetPort": 80
        }
      ],
      "selector": {
        "app": "web"
      },
      "sessionAffinity": "None",
      "type": "ClusterIP"
    }
    "#);
}

#[test]
fn a_load_balancer_has_node_ports() {
    let spec = json!({
        "type": "LoadBalancer", "clusterIP": "10.96.0.7", "externalTrafficPolicy": "Local",
        "sessionAffinity": "ClientIP", "healthCheckNodePort": 31_000,
        "allocateLoadBalancerNodePorts": false,
        "ports": [{"port": 53, "protocol": "UDP", "targetPort": "dns", "nodePort": 30_053}],
    });
    let granted = Addresses::default().grant(&services(&[("dns", spec)]));
    insta::assert_json_snapshot!(get(&granted, "dns"), @r#"
    {
      "clusterIP": "10.96.0.7",
      "clusterIPs": [
        "10.96.0.7"
      ],
      "externalTrafficPolicy": "Local",
      "internalTrafficPolicy": "Cluster",
      "ipFamilies": [
        "IPv4"
      ],
      "ports": [
        {
          "nodePort": 30053,
          "port": 53,
          "protocol": "UDP",
          "targetPort": "dns"
        }
      ],
      "sessionAffinity": "ClientIP",
      "sessionAffinityConfig": {
        "clientIP": {
          "timeoutSeconds": 10800
        }
      },
      "type": "NodePort"
    }
    "#);
}

#[test]
fn some_services_have_no_address() {
    let granted = Addresses::default().grant(&services(&[
        ("headless", json!({"clusterIP": "None"})),
        ("headless2", json!({"clusterIPs": ["None"]})),
        (
            "name",
            json!({"type": "ExternalName", "externalName": "example.com"}),
        ),
    ]));
    assert_eq!(granted, Granted::default());
}

#[test]
fn both_families_are_given_if_asked_for() {
    let spec = json!({"clusterIPs": ["fd00::7", "10.0.0.7"], "ports": [{"port": 80}]});
    let granted = Addresses::default().grant(&services(&[("web", spec)]));
    let spec = get(&granted, "web");
    assert_eq!(spec.cluster_ip.as_deref(), Some("fd00::7"));
    assert_eq!(spec.ip_families.as_deref().unwrap(), ["IPv6", "IPv4"]);
}

#[test]
fn the_first_by_name_has_what_two_ask_for() {
    let at = |ip: &str| json!({"clusterIP": ip, "ports": [{"port": 80}]});
    let twice = json!({"type": "NodePort", "ports": [
        {"name": "a", "port": 80, "nodePort": 30_002}, {"name": "b", "port": 81, "nodePort": 30_002},
    ]});
    let granted = Addresses::default().grant(&services(&[
        ("a", at("10.96.0.10")),
        ("b", at("10.96.0.10")),
        ("c", node_port(Some(30_001))),
        ("d", node_port(Some(30_001))),
        ("e", twice),
    ]));
    assert_eq!(
        reasons(&granted),
        [
            "ns/b: cluster IP 10.96.0.10 is already taken by ns/a",
            "ns/d: node port 30001/TCP is already taken by ns/c",
            "ns/e: node port 30002/TCP is already taken by ns/e",
        ]
    );
    assert_eq!(granted.services.len(), 2);
}

#[test]
fn the_lower_end_of_a_range_is_left_to_people() {
    let many: Vec<String> = (0..200).map(|i| format!("s{i}")).collect();
    let many: Vec<_> = many.iter().map(|n| (n.as_str(), node_port(None))).collect();
    let granted = Addresses::default().grant(&services(&many));
    let range: Ipv4Net = "10.96.0.0/12".parse().unwrap();
    for (name, _) in &many {
        let IpAddr::V4(ip) = ip_of(&granted, name) else {
            panic!("not of the range");
        };
        assert!(range.contains(&ip) && ip.octets()[1..3] != [96, 0], "{ip}");
        assert!((30_086..=32_767).contains(&port_of(&granted, name)));
    }
}

#[test]
fn a_range_is_used_up_to_its_end() {
    let many: Vec<String> = (0..16).map(|i| format!("s{i:02}")).collect();
    let many: Vec<_> = many.iter().map(|n| (n.as_str(), plain())).collect();
    let granted = Addresses::new(tiny()).grant(&services(&many));
    let ips: BTreeSet<_> = granted
        .services
        .values()
        .map(|s| s.spec.as_ref().unwrap().cluster_ip.clone().unwrap())
        .collect();
    assert_eq!(ips.len(), 14);
    assert!(!ips.contains("10.0.0.0") && !ips.contains("10.0.0.15"));
    let expected = ["s14", "s15"].map(|name| format!("ns/{name}: no cluster IP is left"));
    assert_eq!(reasons(&granted), expected);
}

#[test]
fn who_asks_for_an_address_has_it() {
    let mut addresses = Addresses::new(tiny());
    let before = addresses.grant(&services(&[("web", plain())]));
    let ip = ip_of(&before, "web");
    let asks = json!({"clusterIP": ip.to_string(), "ports": [{"port": 80}]});
    let after = addresses.grant(&services(&[("web", plain()), ("z", asks)]));
    assert_eq!(ip_of(&after, "z"), ip);
    assert_ne!(ip_of(&after, "web"), ip);
}

proptest! {
    /// Nobody's address changes because others come and go, no two have the
    /// same, and whoever starts with the same files comes to the same end.
    #[test]
    fn addresses_stay(sets in prop::collection::vec(prop::collection::btree_set(0..8u8, 0..8), 1..6)) {
        let mut addresses = Addresses::new(tiny());
        let mut before: Option<Granted> = None;
        for set in sets {
            let names: Vec<String> = set.iter().map(|i| format!("s{i}")).collect();
            let specs: Vec<_> = names.iter().map(|n| (n.as_str(), node_port(None))).collect();
            let services = services(&specs);
            let granted = addresses.grant(&services);
            prop_assert!(granted.conflicts.is_empty());
            let ips: BTreeSet<_> = names.iter().map(|n| ip_of(&granted, n)).collect();
            let ports: BTreeSet<_> = names.iter().map(|n| port_of(&granted, n)).collect();
            prop_assert_eq!((ips.len(), ports.len()), (names.len(), names.len()));
            for (name, service) in before.iter().flat_map(|before| &before.services) {
                if let Some(now) = granted.services.get(name) {
                    prop_assert_eq!(now, service);
                }
            }
            let fresh = Addresses::new(tiny()).grant(&services);
            prop_assert_eq!(fresh, Addresses::new(tiny()).grant(&services));
            before = Some(granted);
        }
    }
}

// === endpoints ===

struct Pod {
    labels: BTreeMap<String, String>,
    spec: PodSpec,
}

fn pod(app: &str, ports: Value) -> Pod {
    let spec = json!({
        "containers": [{"name": "c", "ports": ports}],
        "initContainers": [
            {"name": "once", "ports": [{"name": "admin", "containerPort": 1}]},
            {"name": "sidecar", "restartPolicy": "Always",
             "ports": [{"name": "admin", "containerPort": 9000}]},
        ],
    });
    Pod {
        labels: BTreeMap::from([("app".into(), app.into()), ("x".into(), "y".into())]),
        spec: serde_json::from_value(spec).unwrap(),
    }
}

impl Pod {
    fn at(&self, addresses: &[&str]) -> Backend<'_> {
        Backend {
            namespace: "ns",
            name: "p",
            uid: "u",
            node_name: "n1",
            labels: &self.labels,
            spec: &self.spec,
            addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
            ready: true,
            terminating: false,
            ended: false,
        }
    }
}

fn slices_of(spec: Value, backends: &[Backend<'_>]) -> BTreeMap<String, EndpointSlice> {
    let granted = Addresses::default().grant(&services(&[("web", spec)]));
    let (name, service) = granted.services.first_key_value().unwrap();
    slices(name, service, backends)
}

/// One line a slice: family, ports, then endpoints with their conditions.
fn shown(slices: &BTreeMap<String, EndpointSlice>) -> Vec<String> {
    let endpoint = |endpoint: &k8s_openapi::api::discovery::v1::Endpoint| {
        let is = endpoint.conditions.as_ref().unwrap();
        let mark = |value: Option<bool>, mark| if value.unwrap() { mark } else { "-" };
        let [ready, serving] = [mark(is.ready, "r"), mark(is.serving, "s")];
        let terminating = mark(is.terminating, "t");
        format!("{}={ready}{serving}{terminating}", endpoint.addresses[0])
    };
    let line = |slice: &EndpointSlice| {
        let ports = slice.ports.iter().flatten().map(|port| {
            let name = port.name.as_deref().unwrap();
            format!("{name}:{}", port.port.unwrap())
        });
        let endpoints = slice.endpoints.iter().flatten().map(endpoint);
        let parts: Vec<String> = std::iter::once(slice.address_type.clone())
            .chain(ports)
            .chain(endpoints)
            .collect();
        parts.join(" ")
    };
    slices.values().map(line).collect()
}

#[test]
fn endpoints_follow_readiness() {
    let web = pod("web", json!([]));
    let cases = [
        ((true, false), false, "rs-"),
        ((false, false), false, "---"),
        ((true, true), false, "-st"),
        ((false, true), false, "--t"),
        ((true, false), true, "rs-"),
        ((false, false), true, "r--"),
        ((true, true), true, "rst"),
    ];
    for ((ready, terminating), publish, expected) in cases {
        let mut spec = plain();
        spec["publishNotReadyAddresses"] = json!(publish);
        let backend = Backend {
            ready,
            terminating,
            ..web.at(&["10.1.0.1"])
        };
        let expected = format!("IPv4 :80 10.1.0.1={expected}");
        assert_eq!(shown(&slices_of(spec, &[backend])), [expected]);
    }
}

#[test]
fn only_pods_that_are_meant_and_have_an_address() {
    let (web, db) = (pod("web", json!([])), pod("db", json!([])));
    let elsewhere = Backend {
        namespace: "other",
        ..web.at(&["10.1.0.3"])
    };
    let ended = Backend {
        ended: true,
        ..web.at(&["10.1.0.4"])
    };
    let backends = [
        web.at(&["10.1.0.2", "fd00::2"]),
        web.at(&["10.1.0.1"]),
        db.at(&["10.1.0.5"]),
        web.at(&[]),
        web.at(&["fd00::6"]),
        elsewhere,
        ended,
    ];
    let expected = ["IPv4 :80 10.1.0.1=rs- 10.1.0.2=rs-"];
    assert_eq!(shown(&slices_of(plain(), &backends)), expected);
    let no_selector = json!({"ports": [{"port": 80}]});
    assert!(slices_of(no_selector, &backends).is_empty());
    let mut stricter = plain();
    stricter["selector"]["x"] = json!("z");
    assert!(slices_of(stricter, &backends).is_empty());
}

#[test]
fn each_family_has_its_slices() {
    let web = pod("web", json!([]));
    let spec = json!({
        "clusterIPs": ["10.0.0.7", "fd00::7"], "selector": {"app": "web"}, "ports": [{"port": 80}],
    });
    let backends = [web.at(&["fd01::1", "10.1.0.1"]), web.at(&["fd01::2"])];
    assert_eq!(
        shown(&slices_of(spec, &backends)),
        ["IPv4 :80 10.1.0.1=rs-", "IPv6 :80 fd01::1=rs- fd01::2=rs-"]
    );
}

#[test]
fn named_ports_are_each_pods_own() {
    let a = pod("web", json!([{"name": "http", "containerPort": 8080}]));
    let b = pod("web", json!([{"name": "http", "containerPort": 8081}]));
    let udp = pod(
        "web",
        json!([{"name": "http", "containerPort": 8082, "protocol": "UDP"}]),
    );
    let spec = json!({"selector": {"app": "web"}, "ports": [
        {"name": "web", "port": 80, "targetPort": "http"},
        {"name": "adm", "port": 81, "targetPort": "admin"},
    ]});
    let backends = [
        a.at(&["10.1.0.1"]),
        b.at(&["10.1.0.2"]),
        udp.at(&["10.1.0.3"]),
    ];
    let mut lines = shown(&slices_of(spec, &backends));
    lines.sort();
    assert_eq!(
        lines,
        [
            "IPv4 adm:9000 10.1.0.3=rs-",
            "IPv4 adm:9000 web:8080 10.1.0.1=rs-",
            "IPv4 adm:9000 web:8081 10.1.0.2=rs-",
        ]
    );
}

#[test]
fn a_slice_says_whose_it_is() {
    let web = pod("web", json!([]));
    let slices = slices_of(plain(), &[web.at(&["10.1.0.1"])]);
    insta::assert_json_snapshot!(slices.values().next().unwrap(), @r#"
    {
      "apiVersion": "discovery.k8s.io/v1",
      "kind": "EndpointSlice",
      "addressType": "IPv4",
      "endpoints": [
        {
          "addresses": [
            "10.1.0.1"
          ],
          "conditions": {
            "ready": true,
            "serving": true,
            "terminating": false
          },
          "nodeName": "n1",
          "targetRef": {
            "kind": "Pod",
            "name": "p",
            "namespace": "ns",
            "uid": "u"
          }
        }
      ],
      "metadata": {
        "labels": {
          "kubernetes.io/service-name": "web"
        },
        "name": "web-ipv4-6f50959e",
        "namespace": "ns"
      },
      "ports": [
        {
          "name": "",
          "port": 80,
          "protocol": "TCP"
        }
      ]
    }
    "#);
}
