//! Objects of the API that a static pod names.
//!
//! A static pod has to start before there is an API server and stay when it is
//! gone, so it may name none; the list of what counts is upstream's. On a node
//! that has no API server, ConfigMaps and Secrets can be files too.

use k8s_openapi::api::core::v1::{Container, PodSpec, Volume, VolumeProjection};

use super::{FieldError, References};

pub(super) fn check(spec: &PodSpec, references: References, errors: &mut Vec<FieldError>) {
    let mut refuse = |path: String, resource: &str| {
        let kind = resource.split(' ').next().unwrap_or_default();
        if references == References::Files && matches!(kind, "configmaps" | "secrets") {
            return;
        }
        let detail = format!("static pods may not reference {resource}");
        errors.push(FieldError::forbidden(path, &detail));
    };
    let is_set = |name: &Option<String>| name.as_deref().is_some_and(|name| !name.is_empty());

    if is_set(&spec.service_account_name) || is_set(&spec.service_account) {
        refuse("spec.serviceAccountName".into(), "serviceaccounts");
    }
    for (index, secret) in spec.image_pull_secrets.iter().flatten().enumerate() {
        if !secret.name.is_empty() {
            refuse(format!("spec.imagePullSecrets[{index}]"), "secrets");
        }
    }
    if spec
        .resource_claims
        .as_ref()
        .is_some_and(|claims| !claims.is_empty())
    {
        refuse("spec.resourceClaims".into(), "resourceclaims");
    }
    let lists = [
        (
            "initContainers",
            spec.init_containers.as_deref().unwrap_or_default(),
        ),
        ("containers", &spec.containers),
    ];
    for (list, containers) in lists {
        for (index, container) in containers.iter().enumerate() {
            container_references(&format!("spec.{list}[{index}]"), container, &mut refuse);
        }
    }
    for (index, volume) in spec.volumes.iter().flatten().enumerate() {
        volume_references(&format!("spec.volumes[{index}]"), volume, &mut refuse);
    }
}

fn container_references(path: &str, container: &Container, refuse: &mut impl FnMut(String, &str)) {
    for (index, source) in container.env_from.iter().flatten().enumerate() {
        let path = format!("{path}.envFrom[{index}]");
        if source.secret_ref.is_some() {
            refuse(format!("{path}.secretRef"), "secrets");
        }
        if source.config_map_ref.is_some() {
            refuse(format!("{path}.configMapRef"), "configmaps");
        }
    }
    for (index, env) in container.env.iter().flatten().enumerate() {
        let Some(source) = &env.value_from else {
            continue;
        };
        let path = format!("{path}.env[{index}].valueFrom");
        if source.secret_key_ref.is_some() {
            refuse(format!("{path}.secretKeyRef"), "secrets");
        }
        if source.config_map_key_ref.is_some() {
            refuse(format!("{path}.configMapKeyRef"), "configmaps");
        }
    }
}

fn volume_references(path: &str, volume: &Volume, refuse: &mut impl FnMut(String, &str)) {
    let sources = [
        (
            volume.config_map.is_some(),
            "configMap",
            "configmaps (via configmap volumes)",
        ),
        (
            volume.secret.is_some(),
            "secret",
            "secrets (via secret volumes)",
        ),
        (volume.csi.is_some(), "csi", "csidrivers (via CSI volumes)"),
        (
            volume.glusterfs.is_some(),
            "glusterfs",
            "endpoints (via glusterFS volumes)",
        ),
        (
            volume.persistent_volume_claim.is_some(),
            "persistentVolumeClaim",
            "persistentvolumeclaims",
        ),
        (
            volume.ephemeral.is_some(),
            "ephemeral",
            "persistentvolumeclaims (via ephemeral volumes)",
        ),
        (
            volume.azure_file.is_some(),
            "azureFile",
            "secrets (via azureFile volumes)",
        ),
    ];
    for (_, field, resource) in sources.into_iter().filter(|(used, ..)| *used) {
        refuse(format!("{path}.{field}"), resource);
    }
    let projections = volume
        .projected
        .iter()
        .flat_map(|projected| projected.sources.iter().flatten());
    for (index, source) in projections.enumerate() {
        projection_references(
            &format!("{path}.projected.sources[{index}]"),
            source,
            refuse,
        );
    }
}

fn projection_references(
    path: &str,
    source: &VolumeProjection,
    refuse: &mut impl FnMut(String, &str),
) {
    let sources = [
        (
            source.config_map.is_some(),
            "configMap",
            "configmaps (via projected volumes)",
        ),
        (
            source.secret.is_some(),
            "secret",
            "secrets (via projected volumes)",
        ),
        (
            source.service_account_token.is_some(),
            "serviceAccountToken",
            "serviceaccounts (via projected volumes)",
        ),
        (
            source.cluster_trust_bundle.is_some(),
            "clusterTrustBundle",
            "clustertrustbundles",
        ),
        (
            source.pod_certificate.is_some(),
            "podCertificate",
            "podcertificates",
        ),
    ];
    for (_, field, resource) in sources.into_iter().filter(|(used, ..)| *used) {
        refuse(format!("{path}.{field}"), resource);
    }
}
