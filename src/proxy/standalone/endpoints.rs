//! The EndpointSlices of a Service, made of the pods that it selects.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{
    Container, ObjectReference, PodSpec, Service, ServicePort, ServiceSpec,
};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sha2::{Digest as _, Sha256};

use crate::proxy::model::{Family, ServiceName};

/// Says whose endpoints a slice has.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A pod that may be behind a Service.
#[derive(Debug, Clone)]
pub struct Backend<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    pub uid: &'a str,
    pub node_name: &'a str,
    pub labels: &'a BTreeMap<String, String>,
    /// For the names of its ports.
    pub spec: &'a PodSpec,
    /// Empty as long as it has none.
    pub addresses: Vec<IpAddr>,
    /// Its condition `Ready`.
    pub ready: bool,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// Whether all its containers have ended for good.
    pub ended: bool,
}

/// What endpoints of one slice have in common. Slices of a Service differ in it,
/// for a named port may have another number in each pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Shape {
    family: Family,
    /// Name, protocol, number.
    ports: BTreeSet<(String, String, i32)>,
}

/// The slices of a Service with its defaults, by name. None if it selects
/// nothing.
#[must_use]
pub fn slices(
    name: &ServiceName,
    service: &Service,
    backends: &[Backend<'_>],
) -> BTreeMap<String, EndpointSlice> {
    let Some(spec) = &service.spec else {
        return BTreeMap::new();
    };
    let mut by_shape: BTreeMap<Shape, Vec<Endpoint>> = BTreeMap::new();
    for backend in backends {
        if !is_selected(backend, name, spec) {
            continue;
        }
        let ports: BTreeSet<_> = spec
            .ports
            .iter()
            .flatten()
            .filter_map(|port| target(port, backend.spec))
            .collect();
        for family in families(spec) {
            let mut addresses = backend.addresses.iter();
            let Some(address) = addresses.find(|one| Family::of(**one) == family) else {
                continue;
            };
            let ports = ports.clone();
            by_shape
                .entry(Shape { family, ports })
                .or_default()
                .push(endpoint(*address, backend, spec));
        }
    }
    let slices = by_shape.into_iter().map(|(shape, endpoints)| {
        let slice = slice(name, &shape, endpoints);
        (slice.metadata.name.clone().unwrap_or_default(), slice)
    });
    slices.collect()
}

fn is_selected(backend: &Backend<'_>, name: &ServiceName, spec: &ServiceSpec) -> bool {
    let mut wanted = spec.selector.iter().flatten().peekable();
    !backend.ended
        && backend.namespace == &*name.namespace
        // Without a selector, nobody is selected.
        && wanted.peek().is_some()
        && wanted.all(|(key, value)| backend.labels.get(key) == Some(value))
}

fn families(spec: &ServiceSpec) -> impl Iterator<Item = Family> {
    let wanted = spec.ip_families.as_deref().unwrap_or_default();
    let is_wanted = |family: &Family| wanted.iter().any(|one| one == family.as_str());
    Family::ALL.into_iter().filter(is_wanted)
}

/// Where a pod takes what comes for this port; `None` if it has no port of that
/// name.
fn target(port: &ServicePort, pod: &PodSpec) -> Option<(String, String, i32)> {
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let number = match &port.target_port {
        None => port.port,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(wanted)) => {
            let sidecars = pod.init_containers.iter().flatten();
            let sidecars = sidecars.filter(|one| one.restart_policy.as_deref() == Some("Always"));
            let mut ports = pod
                .containers
                .iter()
                .chain(sidecars)
                .flat_map(|container: &Container| container.ports.iter().flatten());
            ports
                .find(|one| {
                    one.name.as_deref() == Some(wanted)
                        && one.protocol.as_deref().unwrap_or("TCP") == protocol
                })?
                .container_port
        }
    };
    let name = port.name.clone().unwrap_or_default();
    Some((name, protocol.to_owned(), number))
}

fn endpoint(address: IpAddr, backend: &Backend<'_>, spec: &ServiceSpec) -> Endpoint {
    let serving = backend.ready;
    let publishes_all = spec.publish_not_ready_addresses == Some(true);
    Endpoint {
        addresses: vec![address.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(publishes_all || (serving && !backend.terminating)),
            serving: Some(serving),
            terminating: Some(backend.terminating),
        }),
        node_name: Some(backend.node_name.to_owned()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".into()),
            namespace: Some(backend.namespace.to_owned()),
            name: Some(backend.name.to_owned()),
            uid: Some(backend.uid.to_owned()),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    }
}

fn slice(service: &ServiceName, shape: &Shape, mut endpoints: Vec<Endpoint>) -> EndpointSlice {
    endpoints.sort_by(|a, b| a.addresses.cmp(&b.addresses));
    let ports = shape
        .ports
        .iter()
        .map(|(name, protocol, number)| EndpointPort {
            name: Some(name.clone()),
            protocol: Some(protocol.clone()),
            port: Some(*number),
            ..EndpointPort::default()
        });
    let labels = [(SERVICE_NAME.to_owned(), service.name.to_string())];
    EndpointSlice {
        metadata: ObjectMeta {
            namespace: Some(service.namespace.to_string()),
            name: Some(slice_name(service, shape)),
            labels: Some(labels.into()),
            ..ObjectMeta::default()
        },
        address_type: shape.family.as_str().to_owned(),
        endpoints: Some(endpoints),
        ports: Some(ports.collect()),
    }
}

/// The same as long as the ports are, so that a slice changes with its
/// endpoints instead of making room for another one.
fn slice_name(service: &ServiceName, shape: &Shape) -> String {
    let mut hasher = Sha256::new();
    for (name, protocol, number) in &shape.ports {
        hasher.update(format!("{name}/{protocol}/{number};"));
    }
    let digest = hex::encode(&hasher.finalize()[..4]);
    let family = shape.family.as_str().to_lowercase();
    format!("{}-{family}-{digest}", service.name)
}
