//! Environment variables that tell containers where services are.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServicePort};

/// The namespace and name of the one service that every container is told of.
const MASTER: (&str, &str) = ("default", "kubernetes");

/// The variables for containers in `namespace`: those of the `kubernetes`
/// service always, those of the namespace's own services if the pod has
/// `enableServiceLinks`. Services without a cluster IP have none. Sorted.
#[must_use]
pub fn service_env(
    services: &[Service],
    namespace: &str,
    enable_service_links: bool,
) -> Vec<(String, String)> {
    let mut by_name = BTreeMap::new();
    for service in services {
        let own_namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        let name = service.metadata.name.as_deref().unwrap_or_default();
        if (own_namespace, name) == MASTER {
            by_name.entry(name).or_insert(service);
        } else if own_namespace == namespace && enable_service_links {
            by_name.insert(name, service);
        }
    }
    let mut env = BTreeMap::new();
    for (name, service) in by_name {
        add_service(&mut env, name, service);
    }
    env.into_iter().collect()
}

fn add_service(env: &mut BTreeMap<String, String>, name: &str, service: &Service) {
    let Some(spec) = &service.spec else { return };
    let ip = match spec.cluster_ip.as_deref() {
        None | Some("" | "None") => return,
        Some(ip) => ip,
    };
    let prefix = variable_name(name);
    env.insert(format!("{prefix}_SERVICE_HOST"), ip.to_owned());
    for (index, port) in spec.ports.iter().flatten().enumerate() {
        let number = port.port.to_string();
        let url = url(ip, port);
        if index == 0 {
            env.insert(format!("{prefix}_SERVICE_PORT"), number.clone());
            env.insert(format!("{prefix}_PORT"), url.clone());
        }
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            let variable = format!("{prefix}_SERVICE_PORT_{}", variable_name(name));
            env.insert(variable, number.clone());
        }
        let link = format!("{prefix}_PORT_{number}_{}", protocol(port).to_uppercase());
        env.insert(format!("{link}_PROTO"), protocol(port).to_lowercase());
        env.insert(format!("{link}_PORT"), number);
        env.insert(format!("{link}_ADDR"), ip.to_owned());
        env.insert(link, url);
    }
}

fn variable_name(name: &str) -> String {
    name.replace('-', "_").to_uppercase()
}

fn protocol(port: &ServicePort) -> &str {
    match port.protocol.as_deref() {
        None | Some("") => "TCP",
        Some(protocol) => protocol,
    }
}

fn url(ip: &str, port: &ServicePort) -> String {
    let scheme = protocol(port).to_lowercase();
    if ip.contains(':') {
        format!("{scheme}://[{ip}]:{}", port.port)
    } else {
        format!("{scheme}://{ip}:{}", port.port)
    }
}
