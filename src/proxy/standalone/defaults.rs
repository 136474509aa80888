//! What the API server fills in where a Service says nothing.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ClientIPConfig, Service, ServiceSpec, SessionAffinityConfig};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::proxy::model::Family;

/// Seconds for which `sessionAffinity: ClientIP` lasts.
const AFFINITY_SECONDS: i32 = 10_800;

/// The Service with its defaults. `None` for those that have no address by
/// their nature: headless ones, and those of type `ExternalName`.
///
/// A load balancer is a Service with node ports here: nothing would give it an
/// address.
pub(super) fn complete(service: &Service) -> Option<Service> {
    let mut service = service.clone();
    service.status = None;
    let spec = service.spec.get_or_insert_default();
    let kind = match spec.type_.as_deref() {
        Some("ExternalName") => return None,
        Some("NodePort" | "LoadBalancer") => "NodePort",
        _ => "ClusterIP",
    };
    spec.allocate_load_balancer_node_ports = None;
    spec.health_check_node_port = None;
    spec.load_balancer_source_ranges = None;
    spec.type_ = Some(kind.into());
    complete_addresses(spec)?;
    complete_ports(spec);
    complete_policies(spec);
    Some(service)
}

/// Whether each port has one on the node, too.
pub(super) fn has_node_ports(spec: &ServiceSpec) -> bool {
    spec.type_.as_deref() == Some("NodePort")
}

/// `clusterIP` and `clusterIPs` say the same. `None`: there is to be no address.
fn complete_addresses(spec: &mut ServiceSpec) -> Option<()> {
    let first = spec.cluster_ip.take().filter(|ip| !ip.is_empty());
    let all = spec.cluster_ips.take().unwrap_or_default();
    let all = if all.is_empty() {
        Vec::from_iter(first)
    } else {
        all
    };
    if all.iter().any(|ip| ip == "None") {
        return None;
    }
    if all.is_empty() {
        return Some(());
    }
    let families = all.iter().filter_map(|ip| ip.parse::<IpAddr>().ok());
    let families = families.map(|ip| Family::of(ip).as_str().to_owned());
    spec.ip_families = Some(families.collect());
    spec.cluster_ip = all.first().cloned();
    spec.cluster_ips = Some(all);
    Some(())
}

fn complete_ports(spec: &mut ServiceSpec) {
    let has_node_ports = has_node_ports(spec);
    for port in spec.ports.iter_mut().flatten() {
        if port.protocol.as_deref().unwrap_or_default().is_empty() {
            port.protocol = Some("TCP".into());
        }
        let is_given = match &port.target_port {
            None | Some(IntOrString::Int(0)) => false,
            Some(IntOrString::String(name)) => !name.is_empty(),
            Some(IntOrString::Int(_)) => true,
        };
        if !is_given {
            port.target_port = Some(IntOrString::Int(port.port));
        }
        port.node_port = port
            .node_port
            .filter(|number| has_node_ports && *number != 0);
    }
}

fn complete_policies(spec: &mut ServiceSpec) {
    let default = |field: &mut Option<String>, value: &str| {
        field.get_or_insert_with(|| value.to_owned());
    };
    default(&mut spec.internal_traffic_policy, "Cluster");
    if has_node_ports(spec) {
        default(&mut spec.external_traffic_policy, "Cluster");
    }
    default(&mut spec.session_affinity, "None");
    if spec.session_affinity.as_deref() == Some("ClientIP") {
        let affinity = &mut spec.session_affinity_config;
        affinity
            .get_or_insert_with(SessionAffinityConfig::default)
            .client_ip
            .get_or_insert_with(ClientIPConfig::default)
            .timeout_seconds
            .get_or_insert(AFFINITY_SECONDS);
    }
}
