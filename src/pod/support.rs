//! What a pod asks for that this agent does not do yet.
//!
//! In: a pod. Out: one finding per field, either a reason to refuse the pod,
//! because running it without the feature would be wrong, or a warning that it
//! runs and the field has no effect. The list shrinks as features arrive; it is
//! the one place that says what is missing.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Volume, VolumeProjection};
use serde::Serialize;

#[cfg(test)]
mod tests;

/// Status reason of a pod that is refused for what it asks.
pub const REASON_UNSUPPORTED: &str = "PodFeatureUnsupported";

/// One field that is not honoured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unsupported {
    /// E.g. `spec.volumes[0].csi`.
    pub field_path: String,
    pub effect: Effect,
    /// A sentence for people, without the path.
    pub message: String,
}

/// What follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Effect {
    /// The pod must not run.
    Refuse,
    /// The pod runs as if the field were not there.
    Warn,
}

/// Everything in `pod` that is not honoured, in the order of the fields.
#[must_use]
pub fn unsupported(pod: &Pod) -> Vec<Unsupported> {
    let mut found = Findings(Vec::new());
    if let Some(spec) = &pod.spec {
        pod_level(spec, &mut found);
        for (index, container) in spec.init_containers.iter().flatten().enumerate() {
            let path = format!("spec.initContainers[{index}]");
            container_level(&path, container, &mut found);
        }
        for (index, container) in spec.containers.iter().enumerate() {
            let path = format!("spec.containers[{index}]");
            container_level(&path, container, &mut found);
        }
        for (index, volume) in spec.volumes.iter().flatten().enumerate() {
            volume_level(&format!("spec.volumes[{index}]"), volume, &mut found);
        }
    }
    found.0
}

struct Findings(Vec<Unsupported>);

impl Findings {
    fn refuse(&mut self, field_path: String, message: &str) {
        self.add(field_path, Effect::Refuse, message);
    }

    fn warn(&mut self, field_path: String, message: &str) {
        self.add(field_path, Effect::Warn, message);
    }

    fn add(&mut self, field_path: String, effect: Effect, message: &str) {
        self.0.push(Unsupported {
            field_path,
            effect,
            message: message.to_owned(),
        });
    }
}

fn is_set(value: Option<&str>) -> bool {
    value.is_some_and(|value| !value.is_empty())
}

fn has_items<T>(list: Option<&Vec<T>>) -> bool {
    list.is_some_and(|list| !list.is_empty())
}

fn pod_level(spec: &PodSpec, found: &mut Findings) {
    if has_items(spec.resource_claims.as_ref()) {
        found.refuse(
            "spec.resourceClaims".into(),
            "resource claims are not supported yet",
        );
    }
}

fn container_level(path: &str, container: &Container, found: &mut Findings) {
    let claims = container
        .resources
        .as_ref()
        .and_then(|resources| resources.claims.as_ref());
    if has_items(claims) {
        found.refuse(
            format!("{path}.resources.claims"),
            "resource claims are not supported yet",
        );
    }
    if has_items(container.volume_devices.as_ref()) {
        found.refuse(
            format!("{path}.volumeDevices"),
            "block volumes are not supported yet",
        );
    }
    hooks(path, container, found);
}

fn hooks(path: &str, container: &Container, found: &mut Findings) {
    let Some(lifecycle) = &container.lifecycle else {
        return;
    };
    if is_set(lifecycle.stop_signal.as_deref()) {
        found.warn(
            format!("{path}.lifecycle.stopSignal"),
            "the image's own stop signal is used",
        );
    }
}

fn volume_level(path: &str, volume: &Volume, found: &mut Findings) {
    if let Some(medium) = volume
        .empty_dir
        .as_ref()
        .and_then(|empty_dir| empty_dir.medium.as_deref())
        && !matches!(medium, "" | "Memory")
    {
        found.refuse(
            format!("{path}.emptyDir.medium"),
            &format!("the medium {medium} is not supported yet"),
        );
    }
    let projections = volume
        .projected
        .iter()
        .flat_map(|projected| projected.sources.iter().flatten());
    for (index, source) in projections.enumerate() {
        projection_level(&format!("{path}.projected.sources[{index}]"), source, found);
    }
    if let Some(kind) = other_volume_type(volume) {
        found.refuse(
            format!("{path}.{kind}"),
            "volumes of this type are not supported yet",
        );
    }
}

fn projection_level(path: &str, source: &VolumeProjection, found: &mut Findings) {
    for (field, used) in [
        ("clusterTrustBundle", source.cluster_trust_bundle.is_some()),
        ("podCertificate", source.pod_certificate.is_some()),
    ] {
        if used {
            found.refuse(
                format!("{path}.{field}"),
                "this source is not supported yet",
            );
        }
    }
}

/// The API name of the volume's type, if it is none of those we know.
fn other_volume_type(volume: &Volume) -> Option<String> {
    let unknown = Volume {
        name: String::new(),
        empty_dir: None,
        host_path: None,
        projected: None,
        config_map: None,
        secret: None,
        downward_api: None,
        ..volume.clone()
    };
    // The serialised form names whatever is left, also the types that a later
    // API adds.
    let serde_json::Value::Object(fields) = serde_json::to_value(unknown).ok()? else {
        return None;
    };
    fields
        .into_iter()
        .map(|(key, _)| key)
        .find(|key| key != "name")
}
