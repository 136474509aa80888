//! What holds for any events in any order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::json;

use super::super::model::Protocol;
use super::*;

/// Few names, addresses and numbers, so that events meet.
#[derive(Debug, Clone)]
enum Event {
    ApplyService(Box<Service>),
    DeleteService(ServiceName),
    ResetServices(Vec<Service>),
    ApplySlice(Box<EndpointSlice>),
    DeleteSlice(&'static str),
    ResetSlices(Vec<EndpointSlice>),
    Zone(Option<&'static str>),
    /// Look at what has changed so far.
    Look,
}

const SERVICES: [&str; 4] = ["a", "b", "c", "Bad"];
const SLICES: [&str; 4] = ["s1", "s2", "s3", "s4"];

fn any_service() -> impl Strategy<Value = Service> {
    (
        select(&SERVICES[..]),
        select(vec![None, Some(1), Some(2)]),
        select(vec!["10.0.0.1", "10.0.0.2", "None", "fd00::1", "x"]),
        prop::collection::vec(any_port(), 0..3),
        select(vec![
            vec![],
            vec!["10.0.0.1"],
            vec!["192.0.2.1", "2001:db8::1"],
        ]),
        select(vec!["Cluster", "Local"]),
        0..10_u8,
    )
        .prop_map(
            |(name, created, cluster_ip, ports, external_ips, policy, foreign)| {
                let ports: Vec<_> = ports
                    .into_iter()
                    .enumerate()
                    .map(|(index, mut port)| {
                        port["name"] = json!(["p", "q"][index]);
                        port
                    })
                    .collect();
                let mut service: Service = serde_json::from_value(json!({
                    "metadata": {"namespace": "shop", "name": name},
                    "spec": {
                        "type": "LoadBalancer",
                        "clusterIP": cluster_ip,
                        "ports": ports,
                        "externalIPs": external_ips,
                        "externalTrafficPolicy": policy,
                        "healthCheckNodePort": 32000,
                    },
                }))
                .unwrap();
                service.metadata.creation_timestamp = created.map(|seconds| {
                    k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
                        Timestamp::from_second(seconds).unwrap(),
                    )
                });
                if foreign == 0 {
                    let label = "service.kubernetes.io/service-proxy-name".to_owned();
                    service.metadata.labels = Some([(label, String::new())].into());
                }
                service
            },
        )
}

fn any_port() -> impl Strategy<Value = serde_json::Value> {
    (0..3_u16, select(vec!["TCP", "UDP"]), select(vec![0, 30000, 30001])).prop_map(
        |(port, protocol, node_port)| {
            json!({"port": port, "protocol": protocol, "nodePort": node_port})
        },
    )
}

fn any_slice() -> impl Strategy<Value = EndpointSlice> {
    let endpoint = (
        1..5_u8,
        any::<[bool; 3]>(),
        select(vec!["here", "there"]),
        0..3_usize,
    );
    (
        select(&SLICES[..]),
        select(&SERVICES[..]),
        prop::collection::vec(endpoint, 0..4),
        select(vec![vec!["p"], vec!["p", "q"], vec![]]),
        0..10_u8,
    )
        .prop_map(|(name, service, endpoints, ports, odd)| {
            let endpoints: Vec<_> = endpoints
                .into_iter()
                .map(|(octet, [ready, serving, terminating], node, zone)| {
                    let zones = [
                        vec![],
                        vec![json!({"name": "a"})],
                        vec![json!({"name": "b"})],
                    ];
                    let address = match octet {
                        1 => "127.0.0.1".to_owned(),
                        octet => format!("10.1.0.{octet}"),
                    };
                    json!({
                        "addresses": [address],
                        "nodeName": node,
                        "conditions": {
                            "ready": ready, "serving": serving, "terminating": terminating,
                        },
                        "hints": {"forZones": zones[zone]},
                    })
                })
                .collect();
            let ports = ports.iter().map(|name| json!({"name": name, "port": 8080}));
            let mut slice: EndpointSlice = serde_json::from_value(json!({
                "metadata": {
                    "namespace": "shop",
                    "name": name,
                    "labels": {"kubernetes.io/service-name": service},
                },
                "addressType": "IPv4",
                "ports": ports.collect::<Vec<_>>(),
                "endpoints": endpoints,
            }))
            .unwrap();
            if odd == 0 {
                slice.address_type = "FQDN".to_owned();
            } else if odd == 1 {
                let label = "service.kubernetes.io/headless".to_owned();
                let labels = slice.metadata.labels.as_mut().unwrap();
                labels.insert(label, String::new());
            }
            slice
        })
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => any_service().prop_map(|service| Event::ApplyService(Box::new(service))),
        2 => select(&SERVICES[..])
            .prop_map(|name| Event::DeleteService(ServiceName::new("shop", name))),
        1 => prop::collection::vec(any_service(), 0..4).prop_map(Event::ResetServices),
        6 => any_slice().prop_map(|slice| Event::ApplySlice(Box::new(slice))),
        2 => select(&SLICES[..]).prop_map(Event::DeleteSlice),
        1 => prop::collection::vec(any_slice(), 0..4).prop_map(Event::ResetSlices),
        1 => select(vec![None, Some("a"), Some("b")]).prop_map(Event::Zone),
        4 => Just(Event::Look),
    ]
}

/// The objects that there are, as an API server has them.
#[derive(Debug, Default)]
struct World {
    services: BTreeMap<String, Service>,
    slices: BTreeMap<String, EndpointSlice>,
    zone: Option<&'static str>,
}

impl World {
    fn happen(&mut self, event: Event) {
        let service_key = |service: Service| (service.metadata.name.clone().unwrap(), service);
        let slice_key = |slice: EndpointSlice| (slice.metadata.name.clone().unwrap(), slice);
        match event {
            Event::ApplyService(service) => self.services.extend([service_key(*service)]),
            Event::DeleteService(name) => {
                self.services.remove(&*name.name);
            }
            Event::ResetServices(all) => {
                self.services = all.into_iter().map(service_key).collect();
            }
            Event::ApplySlice(slice) => self.slices.extend([slice_key(*slice)]),
            Event::DeleteSlice(name) => {
                self.slices.remove(name);
            }
            Event::ResetSlices(all) => self.slices = all.into_iter().map(slice_key).collect(),
            Event::Zone(zone) => self.zone = zone,
            Event::Look => {}
        }
    }

    /// The index of somebody who has seen nothing but the end.
    fn index(&self) -> ServiceIndex {
        let mut index = ServiceIndex::new(NodeLocal {
            name: "here".into(),
            zone: self.zone.map(Into::into),
        });
        index.reset_slices(self.slices.values());
        index.reset_services(self.services.values());
        index.take_problems();
        index
    }
}

fn happen(index: &mut ServiceIndex, event: &Event) {
    match event {
        Event::ApplyService(service) => index.apply_service(service),
        Event::DeleteService(name) => index.delete_service(name),
        Event::ResetServices(all) => index.reset_services(all),
        Event::ApplySlice(slice) => index.apply_slice(slice),
        Event::DeleteSlice(name) => index.delete_slice("shop", name),
        Event::ResetSlices(all) => index.reset_slices(all),
        Event::Zone(zone) => index.set_zone(*zone),
        Event::Look => {}
    }
}

/// What rules, conntrack and health servers see of one Service.
#[derive(Debug, Clone, PartialEq, Default)]
struct Seen {
    ports: Vec<(ServicePort, Selected)>,
    destinations: BTreeSet<(Family, Destination)>,
    datagrams: BTreeSet<(Family, Destination)>,
}

fn see(index: &ServiceIndex, name: &ServiceName) -> Seen {
    let mut seen = Seen::default();
    for family in Family::ALL {
        seen.ports.extend(index.ports(name, family));
        let destinations = index.destinations(name, family);
        seen.destinations
            .extend(destinations.map(|one| (family, one)));
    }
    let is_udp = |(_, one): &&(Family, Destination)| {
        let (Destination::Address { protocol, .. } | Destination::NodePort { protocol, .. }) = one;
        *protocol == Protocol::Udp
    };
    seen.datagrams = seen.destinations.iter().filter(is_udp).copied().collect();
    seen
}

fn see_all(index: &ServiceIndex) -> BTreeMap<ServiceName, Seen> {
    let names = SERVICES.map(|name| ServiceName::new("shop", name));
    let all = names.map(|name| {
        let seen = see(index, &name);
        (name, seen)
    });
    all.into()
}

proptest! {
    /// The way to a state does not matter.
    #[test]
    fn any_order_of_events_ends_where_one_list_does(
        events in prop::collection::vec(any_event(), 0..40),
    ) {
        let mut world = World::default();
        let mut index = world.index();
        for event in events {
            happen(&mut index, &event);
            world.happen(event);
        }
        index.take_problems();
        let fresh = world.index();
        prop_assert_eq!(see_all(&index), see_all(&fresh));
        prop_assert_eq!(index.counts(), fresh.counts());
        prop_assert_eq!(index.ledger.now(), fresh.ledger.now());
        prop_assert!(index.services.keys().eq(fresh.services.keys()));
        prop_assert!(index.infos().eq(fresh.infos()));
        for family in Family::ALL {
            prop_assert_eq!(index.health_checks(family), fresh.health_checks(family));
        }
        // And nothing remains once all is gone.
        index.reset_services([]);
        index.reset_slices([]);
        prop_assert!(index.services.is_empty() && index.slices.is_empty());
        prop_assert!(index.claims.is_empty() && index.health_checked.is_empty());
        index.take_problems();
        prop_assert!(index.ledger.now().is_empty());
    }

    /// Who follows the changes sees what is there, and which flows there were.
    #[test]
    fn what_is_not_named_has_not_changed(
        events in prop::collection::vec(any_event(), 0..40),
    ) {
        let mut index = World::default().index();
        let mut mirror = see_all(&index);
        for event in events.iter().chain([&Event::Look]) {
            happen(&mut index, event);
            if !matches!(event, Event::Look) {
                continue;
            }
            for (name, change) in index.take_changed() {
                let seen = mirror.get_mut(&*name).unwrap();
                let before: BTreeSet<_> = change.before.into_iter().collect();
                prop_assert_eq!(before, std::mem::take(&mut seen.datagrams));
                *seen = see(&index, &name);
            }
            prop_assert_eq!(&mirror, &see_all(&index));
        }
    }

    /// No destination has two owners, and none that is wanted has no owner.
    #[test]
    fn every_destination_has_one_owner(
        services in prop::collection::vec(any_service(), 0..8),
    ) {
        let mut index = World::default().index();
        for service in &services {
            index.apply_service(service);
        }
        let wanted: BTreeSet<_> = index
            .infos()
            .flat_map(|info| Family::ALL.map(|family| (info, family)))
            .flat_map(|(info, family)| {
                info.destinations(family).map(move |(_, _, one)| (family, one))
            })
            .collect();
        let mut owned = BTreeSet::new();
        let names: Vec<Arc<ServiceName>> = index.names().cloned().collect();
        for name in names {
            for family in Family::ALL {
                for destination in index.destinations(&name, family) {
                    prop_assert!(owned.insert((family, destination)), "{destination:?}");
                }
            }
        }
        prop_assert_eq!(owned, wanted);
    }
}
