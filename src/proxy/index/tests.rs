use serde_json::{Value, json};

use super::super::model::Protocol;
use super::*;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

fn index() -> ServiceIndex {
    ServiceIndex::new(NodeLocal {
        name: "here".into(),
        zone: Some("a".into()),
    })
}

/// A Service in the namespace `shop` that is `age` seconds old on some day.
fn service(name: &str, age: i64, spec: Value) -> Service {
    let created = Timestamp::from_second(1_000_000 - age).unwrap();
    serde_json::from_value(json!({
        "metadata": {
            "namespace": "shop",
            "name": name,
            "uid": format!("uid-{name}"),
            "creationTimestamp": created.to_string(),
        },
        "spec": spec,
    }))
    .unwrap()
}

fn plain(name: &str, cluster_ip: &str) -> Service {
    let spec = json!({"clusterIP": cluster_ip, "ports": [{"port": 80}]});
    service(name, 0, spec)
}

fn slice(service: &str, name: &str, addresses: &[&str]) -> EndpointSlice {
    let endpoints: Vec<_> = addresses
        .iter()
        .map(|address| json!({"addresses": [address], "nodeName": "here"}))
        .collect();
    serde_json::from_value(json!({
        "metadata": {
            "namespace": "shop",
            "name": name,
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "ports": [{"name": "", "port": 8080}],
        "endpoints": endpoints,
    }))
    .unwrap()
}

fn name(name: &str) -> ServiceName {
    ServiceName::new("shop", name)
}

/// The names of what has changed, without namespace.
fn changed(index: &mut ServiceIndex) -> Vec<String> {
    let changed = index.take_changed();
    changed.keys().map(|name| name.name.to_string()).collect()
}

fn problems(index: &mut ServiceIndex) -> Vec<String> {
    let problems = index.take_problems();
    let shown = |problem: Problem| {
        let Problem {
            service,
            field,
            message,
            ..
        } = problem;
        format!("{service} {field}: {message}")
    };
    problems.into_iter().map(shown).collect()
}

fn endpoints(index: &ServiceIndex, service: &str) -> Vec<String> {
    let ports = index.ports(&name(service), Family::V4);
    let cluster = ports.iter().flat_map(|(_, selected)| &selected.cluster);
    cluster.map(ToString::to_string).collect()
}

#[test]
fn a_service_and_its_slices() {
    let mut index = index();
    index.apply_service(&plain("web", "10.0.0.1"));
    assert_eq!(changed(&mut index), ["web"]);
    index.apply_slice(&slice("web", "web-1", &["10.1.0.1"]));
    index.apply_slice(&slice("web", "web-2", &["10.1.0.2", "10.1.0.1"]));
    assert_eq!(changed(&mut index), ["web"]);
    assert_eq!(endpoints(&index, "web"), ["10.1.0.1:8080", "10.1.0.2:8080"]);
    assert_eq!(index.ports(&name("web"), Family::V6), []);
    let counts = Counts {
        services: 1,
        slices: 2,
        endpoints_v4: 3,
        endpoints_v6: 0,
    };
    assert_eq!(index.counts(), counts);

    index.delete_slice("shop", "web-2");
    assert_eq!(changed(&mut index), ["web"]);
    assert_eq!(endpoints(&index, "web"), ["10.1.0.1:8080"]);
    index.delete_service(&name("web"));
    assert_eq!(changed(&mut index), ["web"]);
    assert_eq!(index.ports(&name("web"), Family::V4), []);
    index.delete_slice("shop", "web-1");
    assert_eq!(changed(&mut index), [""; 0]);
    assert_eq!(index.counts(), Counts::default());
    assert!(index.services.is_empty() && index.slices.is_empty());
    assert!(index.claims.is_empty());
}

#[test]
fn what_says_nothing_new_changes_nothing() {
    let mut index = index();
    index.apply_service(&plain("web", "10.0.0.1"));
    index.apply_slice(&slice("web", "web-1", &["10.1.0.1"]));
    index.take_changed();

    let mut again = plain("web", "10.0.0.1");
    again.metadata.resource_version = Some("2".to_owned());
    again.metadata.annotations = Some([("note".to_owned(), "x".to_owned())].into());
    index.apply_service(&again);
    let mut again = slice("web", "web-1", &["10.1.0.1"]);
    again.endpoints.as_mut().unwrap()[0].hostname = Some("web-0".to_owned());
    index.apply_slice(&again);
    index.apply_slice(&slice("web", "web-2", &[]));
    index.delete_slice("shop", "web-2");
    index.delete_slice("shop", "web-3");
    index.delete_slice("other", "web-1");
    index.delete_service(&name("other"));
    index.reset_services([&plain("web", "10.0.0.1")]);
    index.reset_slices([&slice("web", "web-1", &["10.1.0.1"])]);
    index.set_zone(Some("a"));
    assert_eq!(changed(&mut index), [""; 0]);
    assert_eq!(index.pending(), 0);
}

#[test]
fn slices_wait_for_their_service() {
    let mut index = index();
    index.apply_slice(&slice("web", "web-1", &["10.1.0.1"]));
    assert_eq!(changed(&mut index), [""; 0]);
    index.apply_service(&plain("web", "10.0.0.1"));
    assert_eq!(changed(&mut index), ["web"]);
    assert_eq!(endpoints(&index, "web"), ["10.1.0.1:8080"]);
}

#[test]
fn a_slice_can_go_to_another_service_and_become_headless() {
    let mut index = index();
    index.reset_services([&plain("a", "10.0.0.1"), &plain("b", "10.0.0.2")]);
    index.apply_slice(&slice("a", "s", &["10.1.0.1"]));
    index.take_changed();
    let moved = slice("b", "s", &["10.1.0.1"]);
    index.apply_slice(&moved);
    assert_eq!(changed(&mut index), ["a", "b"]);
    assert_eq!(
        (endpoints(&index, "a").len(), endpoints(&index, "b").len()),
        (0, 1)
    );
    let mut headless = moved;
    let labels = headless.metadata.labels.as_mut().unwrap();
    labels.insert("service.kubernetes.io/headless".to_owned(), String::new());
    index.apply_slice(&headless);
    assert_eq!(changed(&mut index), ["b"]);
    assert_eq!(endpoints(&index, "b"), [""; 0]);
    assert!(index.slices.is_empty());
}

#[test]
fn what_a_list_does_not_name_is_gone() {
    let mut index = index();
    index.reset_services([&plain("a", "10.0.0.1"), &plain("b", "10.0.0.2")]);
    index.reset_slices([
        &slice("a", "a-1", &["10.1.0.1"]),
        &slice("b", "b-1", &["10.1.0.2"]),
    ]);
    index.take_changed();
    index.reset_slices([&slice("a", "a-1", &["10.1.0.1"])]);
    assert_eq!(changed(&mut index), ["b"]);
    index.reset_services([&plain("b", "10.0.0.2")]);
    assert_eq!(changed(&mut index), ["a"]);
    assert_eq!(
        index.names().map(|name| &*name.name).collect::<Vec<_>>(),
        ["b"]
    );
}

#[test]
fn another_zone_concerns_all() {
    let mut index = index();
    index.reset_services([&plain("a", "10.0.0.1"), &plain("b", "10.0.0.2")]);
    let mut hinted = slice("a", "a-1", &["10.1.0.1", "10.1.0.2"]);
    for (endpoint, zone) in hinted.endpoints.iter_mut().flatten().zip(["a", "b"]) {
        endpoint.hints = serde_json::from_value(json!({"forZones": [{"name": zone}]})).unwrap();
    }
    index.apply_slice(&hinted);
    assert_eq!(endpoints(&index, "a"), ["10.1.0.1:8080"]);
    index.take_changed();
    index.set_zone(Some("b"));
    assert_eq!(changed(&mut index), ["a", "b"]);
    assert_eq!(endpoints(&index, "a"), ["10.1.0.2:8080"]);
    index.set_zone(None);
    assert_eq!(endpoints(&index, "a").len(), 2);
}

#[test]
fn services_of_other_proxies_are_only_known() {
    let mut index = index();
    let mut foreign = plain("web", "10.0.0.1");
    let label = "service.kubernetes.io/service-proxy-name".to_owned();
    foreign.metadata.labels = Some([(label, "mesh".to_owned())].into());
    index.apply_service(&foreign);
    index.apply_slice(&slice("web", "web-1", &["10.1.0.1"]));
    assert_eq!(changed(&mut index), [""; 0]);
    assert_eq!(index.ports(&name("web"), Family::V4), []);
    assert_eq!(index.destinations(&name("web"), Family::V4).count(), 0);
    assert_eq!(index.names().count(), 0);
    assert!(index.service(&name("web")).is_some());
    assert_eq!(index.services_in("shop").count(), 1);
    assert_eq!(index.services_in("sho").count(), 0);
    // It takes nothing from others.
    index.apply_service(&plain("other", "10.0.0.1"));
    assert_eq!(problems(&mut index), [""; 0]);
    // Now it is ours.
    index.apply_service(&plain("web", "10.0.0.2"));
    assert_eq!(changed(&mut index), ["other", "web"]);
    assert_eq!(endpoints(&index, "web"), ["10.1.0.1:8080"]);
    index.apply_service(&foreign);
    assert_eq!(changed(&mut index), ["web"]);
    assert_eq!(index.ports(&name("web"), Family::V4), []);
}

#[test]
fn both_families() {
    let mut index = index();
    index.apply_service(&service(
        "web",
        0,
        json!({"clusterIPs": ["10.0.0.1", "fd00::1"], "ports": [{"port": 80}]}),
    ));
    index.apply_slice(&slice("web", "four", &["10.1.0.1"]));
    let mut six = slice("web", "six", &["fd01::1"]);
    six.address_type = "IPv6".to_owned();
    index.apply_slice(&six);
    for (family, address) in [
        (Family::V4, "10.1.0.1:8080"),
        (Family::V6, "[fd01::1]:8080"),
    ] {
        let ports = index.ports(&name("web"), family);
        let (port, selected) = &ports[0];
        assert_eq!(port.cluster_ip.map(Family::of), Some(family));
        assert_eq!(selected.cluster, [address.parse().unwrap()]);
    }
}

#[test]
fn the_older_service_has_the_destination() {
    let mut index = index();
    let spec = |node_port| {
        json!({
            "type": "NodePort",
            "clusterIP": "10.0.0.1",
            "ports": [{"name": "web", "port": 80, "nodePort": node_port}],
        })
    };
    index.apply_service(&service("young", 1, spec(30001)));
    index.apply_service(&service("old", 2, spec(30002)));
    assert_eq!(
        problems(&mut index),
        ["shop/young spec.clusterIPs: tcp 10.0.0.1:80 is already that of Service shop/old"]
    );
    assert_eq!(changed(&mut index), ["old", "young"]);
    let young = |index: &ServiceIndex| {
        let ports = index.ports(&name("young"), Family::V4);
        let (port, _) = &ports[0];
        (port.cluster_ip.is_some(), port.node_port.is_some())
    };
    assert_eq!(young(&index), (false, true));
    assert_eq!(index.destinations(&name("young"), Family::V4).count(), 1);

    // The same mistake at a relist is not told again.
    index.reset_services([
        &service("young", 1, spec(30001)),
        &service("old", 2, spec(30002)),
    ]);
    assert_eq!(problems(&mut index), [""; 0]);
    assert_eq!(changed(&mut index), [""; 0]);

    index.delete_service(&name("old"));
    assert_eq!(changed(&mut index), ["old", "young"]);
    assert_eq!(young(&index), (true, true));
    assert_eq!(problems(&mut index), [""; 0]);

    index.apply_service(&service("old", 2, spec(30002)));
    assert_eq!(
        problems(&mut index).len(),
        1,
        "told again after it was gone"
    );
}

#[test]
fn a_service_that_loses_everything_has_no_port() {
    let mut index = index();
    index.apply_service(&plain("a", "10.0.0.1"));
    index.apply_service(&plain("b", "10.0.0.1"));
    index.apply_service(&plain("c", "10.0.0.1"));
    assert_eq!(index.ports(&name("a"), Family::V4).len(), 1);
    assert_eq!(index.ports(&name("b"), Family::V4), []);
    assert_eq!(
        problems(&mut index),
        [
            "shop/b spec.clusterIPs: tcp 10.0.0.1:80 is already that of Service shop/a",
            "shop/c spec.clusterIPs: tcp 10.0.0.1:80 is already that of Service shop/a",
        ]
    );
    index.delete_service(&name("a"));
    assert_eq!(index.ports(&name("b"), Family::V4).len(), 1);
    assert_eq!(
        problems(&mut index),
        ["shop/c spec.clusterIPs: tcp 10.0.0.1:80 is already that of Service shop/b"]
    );
}

#[test]
fn every_kind_of_destination_has_one_owner() {
    let mut index = index();
    let mut old = service(
        "old",
        9,
        json!({
            "type": "NodePort",
            "clusterIP": "10.0.0.1",
            "externalIPs": ["192.0.2.1"],
            "ports": [{"port": 53, "protocol": "UDP", "nodePort": 30053}],
        }),
    );
    old.status =
        serde_json::from_value(json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.2"}]}}))
            .unwrap();
    let mut young = old.clone();
    young.metadata = service("young", 1, json!({})).metadata;
    let spec = young.spec.as_mut().unwrap();
    spec.cluster_ip = Some("10.0.0.2".to_owned());
    // What is an external IP of one is the cluster IP of the other.
    spec.external_ips = Some(vec!["10.0.0.1".to_owned(), "192.0.2.1".to_owned()]);
    index.reset_services([&young, &old]);
    assert_eq!(
        problems(&mut index),
        [
            "shop/young spec.ports: udp node port 30053 (IPv4) is already that of Service shop/old",
            "shop/young spec.externalIPs: udp 10.0.0.1:53 is already that of Service shop/old",
            "shop/young spec.externalIPs: udp 192.0.2.1:53 is already that of Service shop/old",
            "shop/young status.loadBalancer.ingress: udp 192.0.2.2:53 is already that of Service \
             shop/old",
        ]
    );
    assert_eq!(index.destinations(&name("old"), Family::V4).count(), 4);
    assert_eq!(index.destinations(&name("young"), Family::V4).count(), 1);
    // Another protocol is another destination.
    let mut tcp = young.clone();
    tcp.spec.as_mut().unwrap().ports.as_mut().unwrap()[0].protocol = None;
    index.apply_service(&tcp);
    assert_eq!(index.destinations(&name("young"), Family::V4).count(), 5);
}

#[test]
fn changes_tell_which_flows_there_were() {
    let mut index = index();
    let dns = |cluster_ip: &str| {
        json!({
            "clusterIP": cluster_ip,
            "ports": [
                {"name": "udp", "port": 53, "protocol": "UDP"},
                {"name": "tcp", "port": 53},
            ],
        })
    };
    index.apply_service(&service("dns", 1, dns("10.0.0.10")));
    assert_eq!(index.take_changed()[&name("dns")].before, []);
    index.apply_service(&service("dns", 1, dns("10.0.0.11")));
    index.apply_service(&service("dns", 1, dns("10.0.0.12")));
    let destination = |address: &str| {
        let address = address.parse().unwrap();
        let protocol = Protocol::Udp;
        (Family::V4, Destination::Address { protocol, address })
    };
    let change = index.take_changed().remove(&name("dns")).unwrap();
    assert_eq!(change.before, [destination("10.0.0.10:53")]);
    // An older one takes it away.
    index.apply_service(&service("older", 2, dns("10.0.0.12")));
    let changed = index.take_changed();
    assert_eq!(changed[&name("dns")].before, [destination("10.0.0.12:53")]);
    assert_eq!(changed[&name("older")].before, []);
    index.delete_service(&name("older"));
    let changed = index.take_changed();
    assert_eq!(changed[&name("dns")].before, []);
    assert_eq!(
        changed[&name("older")].before,
        [destination("10.0.0.12:53")]
    );
}

#[test]
fn trigger_times_are_those_of_changes() {
    let mut index = index();
    let at = |text: &str, addresses: &[&str]| {
        let mut slice = slice("web", "web-1", addresses);
        let annotation = "endpoints.kubernetes.io/last-change-trigger-time".to_owned();
        slice.metadata.annotations = Some([(annotation, text.to_owned())].into());
        slice
    };
    let triggers = |index: &mut ServiceIndex| {
        let changed = index.take_changed();
        changed
            .values()
            .flat_map(|c| c.triggers.clone())
            .map(|t| t.as_second())
            .collect::<Vec<_>>()
    };
    index.apply_service(&plain("web", "10.0.0.1"));
    index.apply_slice(&at("1970-01-01T00:00:01Z", &["10.1.0.1"]));
    index.apply_slice(&at("1970-01-01T00:00:02Z", &["10.1.0.1"]));
    index.apply_slice(&at("1970-01-01T00:00:03Z", &["10.1.0.2"]));
    assert_eq!(triggers(&mut index), [1, 3]);
    index.apply_slice(&at("1970-01-01T00:00:04Z", &["10.1.0.3"]));
    index.delete_slice("shop", "web-1");
    assert_eq!(triggers(&mut index), [0; 0]);
}

#[test]
fn health_checks_count_addresses_of_this_node() {
    let mut index = index();
    let balanced = |policy: &str| {
        service(
            "web",
            0,
            json!({
                "type": "LoadBalancer",
                "clusterIP": "10.0.0.1",
                "externalTrafficPolicy": policy,
                "healthCheckNodePort": 32000,
                "ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81}],
            }),
        )
    };
    index.apply_service(&balanced("Local"));
    index.apply_service(&plain("other", "10.0.0.2"));
    index.apply_slice(&slice(
        "web",
        "web-1",
        &["10.1.0.1", "10.1.0.2", "10.1.0.3"],
    ));
    let mut second = slice("web", "web-2", &["10.1.0.2", "10.1.0.4"]);
    second.ports.as_mut().unwrap()[0].port = Some(9090);
    second.endpoints.as_mut().unwrap()[1].node_name = None;
    index.apply_slice(&second);
    let checks = index.health_checks(Family::V4);
    assert_eq!(checks.len(), 1);
    let check = checks[&name("web")];
    assert_eq!((check.port.get(), check.local_endpoints), (32000, 3));
    assert!(index.health_checks(Family::V6).is_empty());
    index.apply_service(&balanced("Cluster"));
    assert!(index.health_checks(Family::V4).is_empty());
    index.apply_service(&balanced("Local"));
    index.delete_service(&name("web"));
    assert!(index.health_checks(Family::V4).is_empty());
}

#[test]
fn problems_are_told_once() {
    let mut index = index();
    let bad = service(
        "web",
        0,
        json!({"clusterIP": "10.0.0.1", "ports": [{"port": 0}]}),
    );
    let bad_slice = slice("web", "web-1", &["127.0.0.1", "10.1.0.1"]);
    // Nobody can be told of it yet.
    index.apply_slice(&bad_slice);
    assert_eq!(problems(&mut index), [""; 0]);
    index.apply_service(&bad);
    assert_eq!(
        problems(&mut index),
        [
            "shop/web spec.ports[0].port: 0 is not a port number; the port is not served",
            "shop/web EndpointSlice web-1: endpoints: 127.0.0.1 is a loopback address, \
             which cannot be an endpoint",
        ]
    );
    index.reset_services([&bad]);
    index.reset_slices([&bad_slice]);
    assert_eq!(problems(&mut index), [""; 0]);
    // Another mistake, and the first one once it is back.
    index.apply_service(&service("web", 0, json!({"clusterIP": "x"})));
    assert_eq!(problems(&mut index).len(), 1);
    index.apply_service(&bad);
    assert_eq!(problems(&mut index).len(), 1);
    // Told or not, what is gone leaves nothing.
    index.reset_services([]);
    index.reset_slices([]);
    assert_eq!(problems(&mut index), [""; 0]);
    assert!(index.ledger.now().is_empty());
}

#[test]
fn problems_name_the_object() {
    let mut index = index();
    index.apply_service(&plain("a", "10.0.0.1"));
    index.apply_service(&plain("b", "10.0.0.1"));
    index.apply_slice(&slice("a", "a-1", &["fd00::1"]));
    let found: Vec<_> = index
        .take_problems()
        .into_iter()
        .map(|problem| (problem.service.to_string(), problem.uid.unwrap()))
        .collect();
    assert_eq!(
        found,
        [
            ("shop/a".to_owned(), "uid-a".into()),
            ("shop/b".to_owned(), "uid-b".into()),
        ]
    );
}

#[test]
fn one_bad_service_leaves_the_others_alone() {
    let mut index = index();
    let bad = service(
        "b\n*nat",
        0,
        json!({"clusterIP": "10.0.0.2", "ports": [{"port": 80}]}),
    );
    index.reset_services([&plain("a", "10.0.0.1"), &bad, &plain("c", "10.0.0.3")]);
    assert_eq!(changed(&mut index), ["a", "c"]);
    assert_eq!(problems(&mut index).len(), 1);
    assert_eq!(index.counts().services, 2);
    index.reset_services([&plain("a", "10.0.0.1")]);
    assert!(index.ledger.now().is_empty());
}
