//! Services and their EndpointSlices, as the API server has them.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Map, Value, json};

use super::TARGET_PORT;
use super::world::{Address, NODE, Party};
use crate::proxy::model::{Family, Protocol};

/// A Service, port 80 of TCP if nothing else is said, and its endpoints.
#[derive(Debug, Clone)]
pub struct Web {
    name: String,
    number: u16,
    families: Vec<Family>,
    ports: Vec<Port>,
    endpoints: Vec<(Party, Condition, Value)>,
    labels: Map<String, Value>,
    spec: Map<String, Value>,
    ingress: Vec<Value>,
}

#[derive(Debug, Clone)]
struct Port {
    protocol: Protocol,
    port: u16,
    target: u16,
    node_port: Option<u16>,
}

/// What becomes of an endpoint's pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    Ready,
    Unready,
    /// It ends, but still answers.
    Ending,
    /// It ends, and does not answer any more.
    Ended,
}

/// The Service whose cluster IP is `Address::ClusterIp(number)`.
pub fn web(number: u16) -> Web {
    Web {
        name: format!("web-{number}"),
        number,
        families: Family::ALL.into(),
        ports: Vec::new(),
        endpoints: Vec::new(),
        labels: Map::new(),
        spec: Map::new(),
        ingress: Vec::new(),
    }
    .port(Protocol::Tcp, 80, TARGET_PORT)
}

impl Web {
    pub fn port(mut self, protocol: Protocol, port: u16, target: u16) -> Self {
        self.ports.push(Port {
            protocol,
            port,
            target,
            node_port: None,
        });
        self
    }

    /// All ports so far are of this protocol.
    pub fn by(mut self, protocol: Protocol) -> Self {
        for port in &mut self.ports {
            port.protocol = protocol;
        }
        self
    }

    /// All ports so far lead to this one.
    pub fn targeting(mut self, target: u16) -> Self {
        for port in &mut self.ports {
            port.target = target;
        }
        self
    }

    /// Of the last port so far.
    pub fn node_port(mut self, number: u16) -> Self {
        if let Some(port) = self.ports.last_mut() {
            port.node_port = Some(number);
        }
        self.with("type", json!("NodePort"))
    }

    pub fn external_ip(self) -> Self {
        let external = Family::ALL.map(|family| Address::ExternalIp.ip(family));
        self.with("externalIPs", json!(external))
    }

    /// `mode`: `VIP` or `Proxy`.
    pub fn balancer(mut self, mode: &str) -> Self {
        let addresses = Family::ALL.map(|family| Address::Balancer.ip(family));
        self.ingress = addresses
            .iter()
            .map(|ip| json!({"ip": ip, "ipMode": mode}))
            .collect();
        self.with("type", json!("LoadBalancer"))
    }

    pub fn internal_local(self) -> Self {
        self.with("internalTrafficPolicy", json!("Local"))
    }

    pub fn external_local(self) -> Self {
        self.with("externalTrafficPolicy", json!("Local"))
            .with("healthCheckNodePort", json!(32_000))
    }

    pub fn only_in(mut self, family: Family) -> Self {
        self.families = vec![family];
        self
    }

    pub fn served_by(self, endpoints: &[Party]) -> Self {
        self.with_endpoints(Condition::Ready, endpoints)
    }

    pub fn with_endpoints(mut self, condition: Condition, endpoints: &[Party]) -> Self {
        let plain = endpoints.iter().map(|one| (*one, condition, Value::Null));
        self.endpoints.extend(plain);
        self
    }

    /// `hints`: of an endpoint in a slice.
    pub fn hinted(mut self, endpoint: Party, hints: Value) -> Self {
        self.endpoints.push((endpoint, Condition::Ready, hints));
        self
    }

    pub fn labelled(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// A field of the specification.
    pub fn with(mut self, field: &str, value: Value) -> Self {
        self.spec.insert(field.into(), value);
        self
    }

    pub(super) fn sockets(&self) -> impl Iterator<Item = (Party, Protocol, u16)> {
        self.endpoints.iter().flat_map(|(party, ..)| {
            let ports = self.ports.iter();
            ports.map(|port| (*party, port.protocol, port.target))
        })
    }

    pub(super) fn object(&self) -> Service {
        let address = Address::ClusterIp(self.number);
        let cluster_ips: Vec<_> = self.families.iter().map(|one| address.ip(*one)).collect();
        let families: Vec<_> = self.families.iter().map(|one| one.as_str()).collect();
        let ports = self.ports.iter().enumerate().map(|(index, port)| {
            json!({
                "name": port_name(index),
                "protocol": port.protocol.as_str().to_uppercase(),
                "port": port.port,
                "nodePort": port.node_port,
            })
        });
        let mut spec = json!({
            "clusterIP": cluster_ips.first(),
            "clusterIPs": cluster_ips,
            "ipFamilies": families,
            "ports": ports.collect::<Vec<_>>(),
        });
        for (field, value) in &self.spec {
            spec[field] = value.clone();
        }
        made_of(json!({
            "metadata": {"namespace": "shop", "name": self.name, "labels": self.labels},
            "spec": spec,
            "status": {"loadBalancer": {"ingress": self.ingress}},
        }))
    }

    /// One of each family, whether the Service has it or not.
    pub(super) fn slices(&self) -> impl Iterator<Item = EndpointSlice> {
        Family::ALL.into_iter().map(|family| {
            let endpoints = self.endpoints.iter().map(|(party, condition, hints)| {
                let on_node = *party != Party::FarPod;
                json!({
                    "addresses": [party.address(family)],
                    "nodeName": if on_node { NODE } else { "elsewhere" },
                    "conditions": condition.as_api(),
                    "hints": hints,
                })
            });
            let ports = self.ports.iter().enumerate().map(|(index, port)| {
                json!({
                    "name": port_name(index),
                    "protocol": port.protocol.as_str().to_uppercase(),
                    "port": port.target,
                })
            });
            made_of(json!({
                "metadata": {
                    "namespace": "shop",
                    "name": format!("{}-{}", self.name, family.as_str().to_lowercase()),
                    "labels": {"kubernetes.io/service-name": self.name},
                },
                "addressType": family.as_str(),
                "endpoints": endpoints.collect::<Vec<_>>(),
                "ports": ports.collect::<Vec<_>>(),
            }))
        })
    }
}

impl Condition {
    fn as_api(self) -> Value {
        let [ready, serving, terminating] = match self {
            Self::Ready => [true, true, false],
            Self::Unready => [false, false, false],
            Self::Ending => [false, true, true],
            Self::Ended => [false, false, true],
        };
        json!({"ready": ready, "serving": serving, "terminating": terminating})
    }
}

fn port_name(index: usize) -> String {
    format!("p{index}")
}

fn made_of<T: serde::de::DeserializeOwned>(object: Value) -> T {
    serde_json::from_value(object).unwrap_or_else(|error| panic!("not an object: {error}"))
}
