//! Init and regular containers of a pod.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, PodSpec, ResourceRequirements, VolumeMount,
};

use super::name::Format;
use super::{FieldError, Seen, one_of, required_name};
use crate::pod::quantity::Quantity;

pub(super) fn check(spec: &PodSpec, volumes: &BTreeSet<&str>, errors: &mut Vec<FieldError>) {
    if spec.containers.is_empty() {
        errors.push(FieldError::required("spec.containers", ""));
    }
    let mut names = Seen::default();
    // Regular ones first: an init container that takes one of their names is
    // the one at fault.
    let regular = spec.containers.iter().map(|c| ("containers", c));
    let init = spec
        .init_containers
        .iter()
        .flatten()
        .map(|c| ("initContainers", c));
    let mut index_of = IndexOf::default();
    for (list, container) in regular.chain(init) {
        let path = format!("spec.{list}[{}]", index_of.next(list));
        if !container.name.is_empty() {
            names.check(&format!("{path}.name"), &container.name, errors);
        }
        check_container(&path, container, errors);
        check_mounts(&path, container, volumes, errors);
        check_ports(&path, container, spec, errors);
    }
    check_host_ports(&spec.containers, errors);
}

#[derive(Default)]
struct IndexOf {
    list: &'static str,
    next: usize,
}

impl IndexOf {
    fn next(&mut self, list: &'static str) -> usize {
        if self.list != list {
            *self = Self { list, next: 0 };
        }
        self.next += 1;
        self.next - 1
    }
}

fn check_container(path: &str, container: &Container, errors: &mut Vec<FieldError>) {
    let name = Some(container.name.as_str());
    required_name(&format!("{path}.name"), name, Format::Label, errors);
    if container.image.as_deref().unwrap_or_default().is_empty() {
        errors.push(FieldError::required(format!("{path}.image"), ""));
    }
    one_of(
        &format!("{path}.imagePullPolicy"),
        container.image_pull_policy.as_deref(),
        &["Always", "IfNotPresent", "Never"],
        errors,
    );
    one_of(
        &format!("{path}.terminationMessagePolicy"),
        container.termination_message_policy.as_deref(),
        &["File", "FallbackToLogsOnError"],
        errors,
    );
    for (index, env) in container.env.iter().flatten().enumerate() {
        let path = format!("{path}.env[{index}]");
        let name = Some(env.name.as_str());
        required_name(&format!("{path}.name"), name, Format::EnvName, errors);
        if env.value_from.is_some() && env.value.as_deref().is_some_and(|value| !value.is_empty()) {
            errors.push(FieldError::invalid(
                format!("{path}.valueFrom"),
                "",
                "may not be specified when `value` is not empty",
            ));
        }
    }
    if let Some(resources) = &container.resources {
        check_resources(&format!("{path}.resources"), resources, errors);
    }
}

fn check_resources(path: &str, resources: &ResourceRequirements, errors: &mut Vec<FieldError>) {
    let limit_of = |name| {
        resources
            .limits
            .as_ref()
            .and_then(|limits| limits.get(name))
    };
    for (field, quantities) in [
        ("limits", &resources.limits),
        ("requests", &resources.requests),
    ] {
        for (name, quantity) in quantities.iter().flatten() {
            // A request that was copied from its limit is not a second error.
            if field == "requests" && limit_of(name) == Some(quantity) {
                continue;
            }
            let path = format!("{path}.{field}[{name}]");
            let rule = match Quantity::try_from(quantity) {
                Err(_) => "must be a number with an optional suffix such as m, k, Mi or Gi",
                Ok(amount) if amount.is_negative() => "must be greater than or equal to 0",
                Ok(_) => continue,
            };
            errors.push(FieldError::invalid(path, &quantity.0, rule));
        }
    }
}

fn check_mounts(
    path: &str,
    container: &Container,
    volumes: &BTreeSet<&str>,
    errors: &mut Vec<FieldError>,
) {
    let mut paths = BTreeSet::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let path = format!("{path}.volumeMounts[{index}]");
        if !volumes.contains(mount.name.as_str()) {
            errors.push(FieldError::not_found(format!("{path}.name"), &mount.name));
        }
        if mount.mount_path.is_empty() {
            errors.push(FieldError::required(format!("{path}.mountPath"), ""));
        } else if !paths.insert(mount.mount_path.as_str()) {
            let field = format!("{path}.mountPath");
            errors.push(FieldError::invalid(
                field,
                &mount.mount_path,
                "must be unique",
            ));
        }
        check_mount_options(&path, mount, container, errors);
    }
}

fn check_mount_options(
    path: &str,
    mount: &VolumeMount,
    container: &Container,
    errors: &mut Vec<FieldError>,
) {
    if let Some(propagation) = &mount.mount_propagation {
        let field = format!("{path}.mountPropagation");
        let supported = ["Bidirectional", "HostToContainer", "None"];
        one_of(&field, Some(propagation), &supported, errors);
        let privileged = container
            .security_context
            .as_ref()
            .is_some_and(|context| context.privileged == Some(true));
        if propagation == "Bidirectional" && !privileged {
            errors.push(FieldError::forbidden(
                field,
                "Bidirectional mount propagation is available only to privileged containers",
            ));
        }
    }
    for (field, sub_path) in [
        ("subPath", &mount.sub_path),
        ("subPathExpr", &mount.sub_path_expr),
    ] {
        let Some(sub_path) = sub_path.as_deref().filter(|path| !path.is_empty()) else {
            continue;
        };
        let field = format!("{path}.{field}");
        if sub_path.starts_with('/') {
            errors.push(FieldError::invalid(
                field,
                sub_path,
                "must be a relative path",
            ));
        } else if sub_path.split('/').any(|part| part == "..") {
            errors.push(FieldError::invalid(
                field,
                sub_path,
                "must not contain '..'",
            ));
        }
    }
}

fn check_ports(path: &str, container: &Container, spec: &PodSpec, errors: &mut Vec<FieldError>) {
    let mut names = Seen::default();
    for (index, port) in container.ports.iter().flatten().enumerate() {
        let path = format!("{path}.ports[{index}]");
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            let field = format!("{path}.name");
            errors.extend(Format::PortName.check(&field, name));
            names.check(&field, name, errors);
        }
        let number = port.container_port;
        check_port_number(&format!("{path}.containerPort"), number, errors);
        if let Some(host_port) = port.host_port.filter(|&port| port != 0) {
            check_port_number(&format!("{path}.hostPort"), host_port, errors);
            if spec.host_network == Some(true) && host_port != number {
                errors.push(FieldError::invalid(
                    format!("{path}.containerPort"),
                    number,
                    "must match `hostPort` when `hostNetwork` is true",
                ));
            }
        }
        let protocol = port.protocol.as_deref();
        let supported = ["SCTP", "TCP", "UDP"];
        one_of(&format!("{path}.protocol"), protocol, &supported, errors);
    }
}

fn check_port_number(path: &str, number: i32, errors: &mut Vec<FieldError>) {
    match number {
        0 => errors.push(FieldError::required(path, "")),
        1..=65535 => {}
        _ => errors.push(FieldError::invalid(
            path,
            number,
            "must be between 1 and 65535, inclusive",
        )),
    }
}

/// Two containers of one pod cannot both have the same port of the host.
fn check_host_ports(containers: &[Container], errors: &mut Vec<FieldError>) {
    let mut taken = BTreeSet::new();
    for (container_index, container) in containers.iter().enumerate() {
        for (index, port) in container.ports.iter().flatten().enumerate() {
            let Some(key) = host_port_key(port) else {
                continue;
            };
            if !taken.insert(key) {
                errors.push(FieldError::duplicate(
                    format!("spec.containers[{container_index}].ports[{index}].hostPort"),
                    format!("{}/{}", key.0, key.2),
                ));
            }
        }
    }
}

fn host_port_key(port: &ContainerPort) -> Option<(&str, &str, i32)> {
    let host_port = port.host_port.filter(|&port| port != 0)?;
    Some((
        port.protocol.as_deref().unwrap_or_default(),
        port.host_ip.as_deref().unwrap_or_default(),
        host_port,
    ))
}
