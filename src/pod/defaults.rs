//! The defaults that the API server gives to every pod, for pods that never
//! pass one: static pods.
//!
//! In: a pod as its author wrote it. Out: the same pod in the form that every
//! other module reads, so that none of them has to know a default.

use k8s_openapi::api::core::v1::{
    Container, DownwardAPIVolumeFile, EmptyDirVolumeSource, HTTPGetAction, Lifecycle,
    ObjectFieldSelector, Pod, PodSecurityContext, PodSpec, Probe, ResourceRequirements, Volume,
};

use super::quantity::Quantity;
use super::resources::{self, CPU, MEMORY, Resources};

#[cfg(test)]
mod tests;

const DEFAULT_GRACE_SECONDS: i64 = 30;
const DEFAULT_FILE_MODE: i32 = 0o644;
const DEFAULT_TOKEN_SECONDS: i64 = 3600;

/// Fills in what is not set. Applying it twice changes nothing more.
///
/// Not covered: ephemeral containers, which a manifest cannot have; volume
/// types that only have defaults for clouds long gone.
pub fn apply(pod: &mut Pod) {
    let spec = pod.spec.get_or_insert_default();
    pod_level(spec);
    let init = spec.init_containers.iter_mut().flatten();
    for container in init.chain(&mut spec.containers) {
        container_level(container);
    }
    pod_requests(spec);
    if spec.host_network == Some(true) {
        host_network_ports(spec);
    }
    for volume in spec.volumes.iter_mut().flatten() {
        volume_level(volume);
    }
}

fn pod_level(spec: &mut PodSpec) {
    set(&mut spec.restart_policy, "Always");
    set(&mut spec.dns_policy, "ClusterFirst");
    set(&mut spec.scheduler_name, "default-scheduler");
    spec.termination_grace_period_seconds
        .get_or_insert(DEFAULT_GRACE_SECONDS);
    spec.security_context
        .get_or_insert_with(PodSecurityContext::default);
    spec.enable_service_links.get_or_insert(true);
    // The older name of the same field; the API keeps both equal.
    if is_empty(spec.service_account_name.as_deref()) {
        spec.service_account_name = spec.service_account.clone();
    }
}

fn container_level(container: &mut Container) {
    let pull_policy = pull_policy_for(container.image.as_deref().unwrap_or_default());
    set(&mut container.image_pull_policy, pull_policy);
    set(
        &mut container.termination_message_path,
        "/dev/termination-log",
    );
    set(&mut container.termination_message_policy, "File");
    if let Some(resources) = &mut container.resources {
        requests_from_limits(resources);
    }
    for port in container.ports.iter_mut().flatten() {
        set(&mut port.protocol, "TCP");
    }
    for source in container
        .env
        .iter_mut()
        .flatten()
        .filter_map(|env| env.value_from.as_mut())
    {
        if let Some(field) = &mut source.field_ref {
            field_level(field);
        }
        if let Some(file) = &mut source.file_key_ref {
            file.optional.get_or_insert(false);
        }
    }
    for probe in [
        &mut container.liveness_probe,
        &mut container.readiness_probe,
        &mut container.startup_probe,
    ]
    .into_iter()
    .flatten()
    {
        probe_level(probe);
    }
    if let Some(Lifecycle {
        post_start,
        pre_stop,
        ..
    }) = &mut container.lifecycle
    {
        for hook in [post_start, pre_stop].into_iter().flatten() {
            hook.http_get.iter_mut().for_each(http_level);
        }
    }
}

/// `Always` for the tag `latest`, spelt out or implied by neither tag nor
/// digest; else `IfNotPresent`.
#[must_use]
pub fn pull_policy_for(image: &str) -> &'static str {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    // A colon before the last slash belongs to the registry's port.
    let last_part = name.rsplit('/').next().unwrap_or(name);
    match (last_part.split_once(':'), digest) {
        (Some((_, "latest")), _) | (None, None) => "Always",
        _ => "IfNotPresent",
    }
}

/// Without a network of its own, a container's ports are the host's.
fn host_network_ports(spec: &mut PodSpec) {
    let init = spec.init_containers.iter_mut().flatten();
    let containers = init.chain(&mut spec.containers);
    for port in containers.flat_map(|container| container.ports.iter_mut().flatten()) {
        if port.host_port.unwrap_or(0) == 0 {
            port.host_port = Some(port.container_port);
        }
    }
}

fn requests_from_limits(resources: &mut ResourceRequirements) {
    let Some(limits) = &resources.limits else {
        return;
    };
    let requests = resources.requests.get_or_insert_default();
    for (name, limit) in limits {
        requests
            .entry(name.clone())
            .or_insert_with(|| limit.clone());
    }
}

/// A pod with limits of its own that does not say what it asks for asks for what
/// its containers do, else for as much as it may have.
fn pod_requests(spec: &mut PodSpec) {
    let of_containers = resources::container_requests(spec);
    let Some(resources) = &mut spec.resources else {
        return;
    };
    let Some(limits) = resources.limits.as_ref().filter(|l| !l.is_empty()) else {
        return;
    };
    let requests = resources.requests.get_or_insert_default();
    for (name, written) in [
        (CPU, of_containers.get(CPU).map(Quantity::to_decimal)),
        (MEMORY, of_containers.get(MEMORY).map(Quantity::to_binary)),
    ] {
        if let Some(amount) = written {
            requests.entry(name.into()).or_insert(amount);
        }
    }
    for (name, limit) in limits {
        if Resources::may_be_pods(name) {
            requests
                .entry(name.clone())
                .or_insert_with(|| limit.clone());
        }
    }
}

fn probe_level(probe: &mut Probe) {
    set_number(&mut probe.timeout_seconds, 1);
    set_number(&mut probe.period_seconds, 10);
    set_number(&mut probe.success_threshold, 1);
    set_number(&mut probe.failure_threshold, 3);
    probe.http_get.iter_mut().for_each(http_level);
    if let Some(grpc) = &mut probe.grpc {
        grpc.service.get_or_insert_default();
    }
}

fn http_level(action: &mut HTTPGetAction) {
    set(&mut action.path, "/");
    set(&mut action.scheme, "HTTP");
}

fn volume_level(volume: &mut Volume) {
    let without_source = Volume {
        name: volume.name.clone(),
        ..Volume::default()
    };
    if *volume == without_source {
        volume.empty_dir = Some(EmptyDirVolumeSource::default());
    }
    if let Some(host_path) = &mut volume.host_path {
        host_path.type_.get_or_insert_default();
    }
    if let Some(secret) = &mut volume.secret {
        secret.default_mode.get_or_insert(DEFAULT_FILE_MODE);
    }
    if let Some(config_map) = &mut volume.config_map {
        config_map.default_mode.get_or_insert(DEFAULT_FILE_MODE);
    }
    if let Some(downward) = &mut volume.downward_api {
        downward.default_mode.get_or_insert(DEFAULT_FILE_MODE);
        downward_items(&mut downward.items);
    }
    if let Some(image) = &mut volume.image {
        let policy = pull_policy_for(image.reference.as_deref().unwrap_or_default());
        set(&mut image.pull_policy, policy);
    }
    if let Some(projected) = &mut volume.projected {
        projected.default_mode.get_or_insert(DEFAULT_FILE_MODE);
        for source in projected.sources.iter_mut().flatten() {
            if let Some(downward) = &mut source.downward_api {
                downward_items(&mut downward.items);
            }
            if let Some(token) = &mut source.service_account_token {
                token
                    .expiration_seconds
                    .get_or_insert(DEFAULT_TOKEN_SECONDS);
            }
        }
    }
}

fn downward_items(items: &mut Option<Vec<DownwardAPIVolumeFile>>) {
    for field in items
        .iter_mut()
        .flatten()
        .filter_map(|item| item.field_ref.as_mut())
    {
        field_level(field);
    }
}

fn field_level(field: &mut ObjectFieldSelector) {
    set(&mut field.api_version, "v1");
}

fn is_empty(value: Option<&str>) -> bool {
    value.is_none_or(str::is_empty)
}

/// An empty string means "not set", as in every Go type of the API.
fn set(field: &mut Option<String>, default: &str) {
    if is_empty(field.as_deref()) {
        *field = Some(default.to_owned());
    }
}

/// So does a zero.
fn set_number(field: &mut Option<i32>, default: i32) {
    if field.is_none_or(|value| value == 0) {
        *field = Some(default);
    }
}
