//! Services that no API server has checked.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::FieldError;
use super::name::Format;

const TYPES: &[&str] = &["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"];
const PROTOCOLS: &[&str] = &["TCP", "UDP", "SCTP"];
const POLICIES: &[&str] = &["Cluster", "Local"];
const AFFINITIES: &[&str] = &["None", "ClientIP"];

pub(super) fn check(service: &Service, errors: &mut Vec<FieldError>) {
    let metadata = &service.metadata;
    match metadata.name.as_deref().filter(|name| !name.is_empty()) {
        None => errors.push(FieldError::required(
            "metadata.name",
            "a service needs a name",
        )),
        Some(name) => errors.extend(Format::Label.check("metadata.name", name)),
    }
    let namespace = metadata
        .namespace
        .as_deref()
        .filter(|name| !name.is_empty());
    errors.extend(namespace.and_then(|name| Format::Label.check("metadata.namespace", name)));
    let Some(spec) = &service.spec else {
        errors.push(FieldError::required("spec", ""));
        return;
    };
    check_words(spec, errors);
    if spec.type_.as_deref() == Some("ExternalName") {
        return;
    }
    let is_headless = spec.cluster_ip.as_deref() == Some("None");
    check_addresses(spec, errors);
    if spec
        .selector
        .as_ref()
        .is_none_or(|selector| selector.is_empty())
    {
        let why = "nobody else could say which pods are meant";
        errors.push(FieldError::required("spec.selector", why));
    }
    let ports = spec.ports.as_deref().unwrap_or_default();
    if ports.is_empty() && !is_headless {
        errors.push(FieldError::required("spec.ports", ""));
    }
    check_ports(spec, ports, errors);
}

/// Fields that take one of a few words.
fn check_words(spec: &ServiceSpec, errors: &mut Vec<FieldError>) {
    for (path, value, supported) in [
        ("spec.type", &spec.type_, TYPES),
        ("spec.sessionAffinity", &spec.session_affinity, AFFINITIES),
        (
            "spec.internalTrafficPolicy",
            &spec.internal_traffic_policy,
            POLICIES,
        ),
        (
            "spec.externalTrafficPolicy",
            &spec.external_traffic_policy,
            POLICIES,
        ),
    ] {
        let value = value.as_deref().unwrap_or_default();
        if !value.is_empty() && !supported.contains(&value) {
            errors.push(FieldError::not_supported(path, value, supported));
        }
    }
}

fn check_addresses(spec: &ServiceSpec, errors: &mut Vec<FieldError>) {
    let one = spec.cluster_ip.as_deref().unwrap_or_default();
    let all = spec.cluster_ips.as_deref().unwrap_or_default();
    let mut check = |path: String, text: &str| {
        let usable = text.parse().is_ok_and(|ip: IpAddr| {
            !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast()
        });
        if !usable && !matches!(text, "" | "None") {
            let rule = "must be an IP address that a service can have, or None";
            errors.push(FieldError::invalid(path, text, rule));
        }
    };
    check("spec.clusterIP".into(), one);
    for (index, text) in all.iter().enumerate() {
        check(format!("spec.clusterIPs[{index}]"), text);
    }
    if let (false, Some(first)) = (one.is_empty(), all.first())
        && one != first
    {
        let rule = "must be the same as spec.clusterIP";
        errors.push(FieldError::invalid("spec.clusterIPs[0]", first, rule));
    }
    let are_v4 = all.iter().filter_map(|ip| ip.parse::<IpAddr>().ok());
    let are_v4: Vec<bool> = are_v4.map(|ip| ip.is_ipv4()).collect();
    if are_v4.len() != BTreeSet::from_iter(&are_v4).len() {
        let rule = "may hold one address of each family";
        errors.push(FieldError::invalid("spec.clusterIPs", all, rule));
    }
}

fn check_ports(spec: &ServiceSpec, ports: &[ServicePort], errors: &mut Vec<FieldError>) {
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    let is_cluster_ip = matches!(spec.type_.as_deref(), None | Some("" | "ClusterIP"));
    for (index, port) in ports.iter().enumerate() {
        let path = |field: &str| format!("spec.ports[{index}].{field}");
        let name = port.name.as_deref().unwrap_or_default();
        if name.is_empty() {
            if ports.len() > 1 {
                errors.push(FieldError::required(
                    path("name"),
                    "there are several ports",
                ));
            }
        } else {
            errors.extend(Format::Label.check(&path("name"), name));
            if !names.insert(name) {
                errors.push(FieldError::duplicate(path("name"), name));
            }
        }
        let protocol = match port.protocol.as_deref().unwrap_or_default() {
            "" => "TCP",
            protocol => protocol,
        };
        if !PROTOCOLS.contains(&protocol) {
            errors.push(FieldError::not_supported(
                path("protocol"),
                protocol,
                PROTOCOLS,
            ));
        }
        errors.extend(check_number(&path("port"), port.port));
        if !numbers.insert((protocol, port.port)) {
            errors.push(FieldError::duplicate(path("port"), port.port));
        }
        match &port.target_port {
            None | Some(IntOrString::Int(0)) => {}
            Some(IntOrString::Int(number)) => {
                errors.extend(check_number(&path("targetPort"), *number));
            }
            Some(IntOrString::String(name)) if name.is_empty() => {}
            Some(IntOrString::String(name)) => {
                errors.extend(Format::PortName.check(&path("targetPort"), name));
            }
        }
        match port.node_port {
            None | Some(0) => {}
            Some(_) if is_cluster_ip => {
                let why = "the type of the service is ClusterIP";
                errors.push(FieldError::forbidden(path("nodePort"), why));
            }
            Some(number) => errors.extend(check_number(&path("nodePort"), number)),
        }
    }
}

fn check_number(path: &str, number: i32) -> Option<FieldError> {
    let rule = "must be between 1 and 65535";
    (!(1..=65_535).contains(&number)).then(|| FieldError::invalid(path, number, rule))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The errors of a good Service in which fields of the spec are replaced.
    fn errors(changes: &Value) -> Vec<String> {
        let mut object = json!({
            "metadata": {"name": "web"},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]},
        });
        for (field, value) in changes.as_object().unwrap() {
            object["spec"][field] = value.clone();
        }
        of(object)
    }

    fn of(object: Value) -> Vec<String> {
        let mut errors = Vec::new();
        check(&serde_json::from_value(object).unwrap(), &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn good_services_pass() {
        for good in [
            json!({}),
            json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}),
            json!({"type": "LoadBalancer", "clusterIP": "", "sessionAffinity": "ClientIP"}),
            json!({"type": "ExternalName", "externalName": "a.b", "selector": null, "ports": null}),
            json!({"clusterIP": "None", "ports": []}),
            json!({"clusterIPs": ["10.96.0.7", "fd00::7"], "clusterIP": "10.96.0.7"}),
            json!({"ports": [
                {"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53},
            ]}),
        ] {
            assert_eq!(errors(&good), Vec::<String>::new(), "{good}");
        }
    }

    #[test]
    fn bad_fields_are_named() {
        let port = |port: Value| json!({"ports": [port]});
        for (bad, path) in [
            (json!({"type": "Magic"}), "spec.type"),
            (json!({"sessionAffinity": "Cookie"}), "spec.sessionAffinity"),
            (
                json!({"internalTrafficPolicy": "Here"}),
                "spec.internalTrafficPolicy",
            ),
            (
                json!({"externalTrafficPolicy": "Here"}),
                "spec.externalTrafficPolicy",
            ),
            (json!({"clusterIP": "10.96.0.256"}), "spec.clusterIP"),
            (json!({"clusterIP": "127.0.0.1"}), "spec.clusterIP"),
            (
                json!({"clusterIPs": ["10.0.0.1", "x"]}),
                "spec.clusterIPs[1]",
            ),
            (
                json!({"clusterIPs": ["10.0.0.1", "10.0.0.2"]}),
                "spec.clusterIPs",
            ),
            (
                json!({"clusterIP": "10.0.0.2", "clusterIPs": ["10.0.0.1"]}),
                "spec.clusterIPs[0]",
            ),
            (json!({"selector": {}}), "spec.selector"),
            (json!({"ports": []}), "spec.ports"),
            (port(json!({"port": 0})), "spec.ports[0].port"),
            (port(json!({"port": 80, "name": "A"})), "spec.ports[0].name"),
            (
                port(json!({"port": 80, "protocol": "ICMP"})),
                "spec.ports[0].protocol",
            ),
            (
                port(json!({"port": 80, "targetPort": 65_536})),
                "spec.ports[0].targetPort",
            ),
            (
                port(json!({"port": 80, "targetPort": "a--b"})),
                "spec.ports[0].targetPort",
            ),
            (
                port(json!({"port": 80, "nodePort": 30_000})),
                "spec.ports[0].nodePort",
            ),
            (
                json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": -1}]}),
                "spec.ports[0].nodePort",
            ),
            (
                json!({"ports": [{"name": "a", "port": 80}, {"name": "a", "port": 81}]}),
                "spec.ports[1].name",
            ),
            (
                json!({"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 80}]}),
                "spec.ports[1].port",
            ),
            (
                json!({"ports": [{"name": "a", "port": 80}, {"port": 81}]}),
                "spec.ports[1].name",
            ),
        ] {
            let errors = errors(&bad);
            let is_named = matches!(&errors[..], [one] if one.starts_with(&format!("{path}: ")));
            assert!(is_named, "{bad}: {errors:?}");
        }
    }

    #[test]
    fn a_service_needs_a_name_and_a_spec() {
        assert_eq!(
            of(json!({"metadata": {"namespace": "A"}})),
            [
                "metadata.name: Required value: a service needs a name",
                "metadata.namespace: Invalid value: \"A\": must consist of lower case \
                 alphanumeric characters or '-', and must start and end with an alphanumeric \
                 character",
                "spec: Required value",
            ]
        );
    }
}
