//! The sandbox of a pod.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, ContainerPort, PodSpec};

use super::{RenderError, linux, security};
use crate::pod::facts::NodeFacts;
use crate::pod::inputs::PodRuntime;
use crate::pod::model::DesiredPod;
use crate::pod::spec::{PortMapping, Protocol, SandboxSpec, SeccompProfile};
use crate::pod::{dns, hostname, qos, resources, stamp, sysctl};

/// The sandbox of a pod, `attempt` being how many there were before it.
///
/// # Errors
/// If the pod says something that no sandbox can be made of: an invalid host
/// name, port or quantity, or a feature that the runtime does not have.
pub fn sandbox(
    pod: &DesiredPod,
    attempt: u32,
    runtime: &PodRuntime,
    node: &NodeFacts,
) -> Result<SandboxSpec, RenderError> {
    resources::check(&pod.pod).map_err(|error| RenderError::config(&error))?;
    let empty = PodSpec::default();
    let spec = pod.pod.spec.as_ref().unwrap_or(&empty);
    let security = spec.security_context.as_ref();
    let sysctls = security.iter().flat_map(|s| s.sysctls.iter().flatten());
    Ok(SandboxSpec {
        uid: pod.uid.clone(),
        name: pod.name.clone(),
        attempt,
        hostname: hostname::for_kernel(pod, &node.dns.cluster_domain)
            .map_err(|error| RenderError::config(&error))?,
        log_directory: node.pod_logs_dir.join(format!(
            "{}_{}_{}",
            pod.name.namespace, pod.name.name, pod.uid
        )),
        dns: dns::render(pod, node).0,
        port_mappings: port_mappings(spec)?,
        labels: labels(pod),
        annotations: pod.pod.metadata.annotations.clone().unwrap_or_default(),
        cgroup_parent: qos::pod_cgroup(pod, node)
            .map(|c| c.path)
            .unwrap_or_default(),
        sysctls: sysctls
            .map(|s| (sysctl::normalise(&s.name), s.value.clone()))
            .collect(),
        namespaces: security::namespaces(Some(spec), runtime)?,
        privileged: any_privileged(spec),
        run_as_user: security.and_then(|s| s.run_as_user),
        run_as_group: security.and_then(|s| s.run_as_group),
        supplemental_groups: security::supplemental_groups(security),
        groups_policy: security::groups_policy(security, runtime)?,
        selinux: security
            .and_then(|s| s.se_linux_options.as_ref())
            .map(security::selinux),
        // The sandbox's own process needs no more; containers have their own.
        seccomp: SeccompProfile::RuntimeDefault,
        resources: linux::of_sandbox(&pod.pod, &node.cgroup),
        overhead: linux::of_overhead(spec, &node.cgroup),
        runtime_handler: runtime.handler.clone(),
    })
}

fn labels(pod: &DesiredPod) -> BTreeMap<String, String> {
    let mut labels = pod.pod.metadata.labels.clone().unwrap_or_default();
    labels.extend(identity(pod));
    labels
}

/// The labels that tell whose a sandbox or container is.
pub(super) fn identity(pod: &DesiredPod) -> [(String, String); 3] {
    [
        (stamp::LABEL_POD_NAME, pod.name.name.to_string()),
        (stamp::LABEL_POD_NAMESPACE, pod.name.namespace.to_string()),
        (stamp::LABEL_POD_UID, pod.uid.to_string()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
}

fn any_privileged(spec: &PodSpec) -> bool {
    let privileged = |c: &Container| {
        let security = c.security_context.as_ref();
        security.and_then(|s| s.privileged).unwrap_or(false)
    };
    let init = spec.init_containers.iter().flatten();
    let ephemeral = spec.ephemeral_containers.iter().flatten();
    spec.containers.iter().chain(init).any(privileged)
        || ephemeral
            .filter_map(|c| c.security_context.as_ref())
            .any(|s| s.privileged.unwrap_or(false))
}

fn port_mappings(spec: &PodSpec) -> Result<Vec<PortMapping>, RenderError> {
    let mut mappings = Vec::new();
    for container in &spec.containers {
        // A port counts once, by its name, or by all it says.
        let mut named = BTreeSet::new();
        let mut unnamed = BTreeSet::new();
        for port in container.ports.iter().flatten() {
            let mapping = port_mapping(container, port)?;
            let is_new = match port.name.as_deref().filter(|name| !name.is_empty()) {
                Some(name) => named.insert(name),
                None => unnamed.insert((
                    mapping.protocol,
                    mapping.host_ip,
                    mapping.container_port,
                    mapping.host_port,
                )),
            };
            if is_new {
                mappings.push(mapping);
            }
        }
    }
    Ok(mappings)
}

fn port_mapping(container: &Container, port: &ContainerPort) -> Result<PortMapping, RenderError> {
    let invalid = |field: &str, value: &dyn std::fmt::Display| {
        RenderError::config_message(format!(
            "invalid {field} {value} of container {:?}",
            container.name
        ))
    };
    let number = |field, value: i32| u16::try_from(value).map_err(|_| invalid(field, &value));
    Ok(PortMapping {
        protocol: match port.protocol.as_deref() {
            None | Some("" | "TCP") => Protocol::Tcp,
            Some("UDP") => Protocol::Udp,
            Some("SCTP") => Protocol::Sctp,
            Some(other) => return Err(invalid("protocol", &other)),
        },
        container_port: number("containerPort", port.container_port)?,
        host_port: number("hostPort", port.host_port.unwrap_or(0))?,
        host_ip: match port.host_ip.as_deref() {
            None | Some("") => None,
            Some(ip) => Some(ip.parse::<IpAddr>().map_err(|_| invalid("hostIP", &ip))?),
        },
    })
}
