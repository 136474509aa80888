//! Whether a pod that no API server has checked can be run at all.
//!
//! In: a static pod with its defaults ([`super::defaults`]). Out: everything
//! that is wrong with it, in the order of the fields and in the notation of
//! API errors. Checks what this node relies upon, not all that the API server
//! would: what only a scheduler or a controller reads is not looked at.

mod container;
mod name;
mod reference;
mod service;
mod volume;

use std::collections::BTreeSet;
use std::fmt;

use k8s_openapi::api::core::v1::{Pod, PodSpec, Service};

use name::Format;

#[cfg(test)]
mod tests;

/// One error about one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// E.g. `spec.containers[0].image`.
    pub path: String,
    /// E.g. `Required value`.
    pub message: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

impl FieldError {
    fn new(path: impl Into<String>, message: String) -> Self {
        Self {
            path: path.into(),
            message,
        }
    }

    /// The field must be there; `detail` may be empty.
    #[must_use]
    pub fn required(path: impl Into<String>, detail: &str) -> Self {
        Self::new(path, with_detail("Required value".into(), detail))
    }

    /// The value is malformed.
    #[must_use]
    pub fn invalid(path: impl Into<String>, value: impl fmt::Debug, detail: &str) -> Self {
        Self::new(
            path,
            with_detail(format!("Invalid value: {value:?}"), detail),
        )
    }

    /// The value is right by itself and wrong here.
    #[must_use]
    pub fn forbidden(path: impl Into<String>, detail: &str) -> Self {
        Self::new(path, with_detail("Forbidden".into(), detail))
    }

    fn duplicate(path: impl Into<String>, value: impl fmt::Debug) -> Self {
        Self::new(path, format!("Duplicate value: {value:?}"))
    }

    fn not_found(path: impl Into<String>, value: &str) -> Self {
        Self::new(path, format!("Not found: {value:?}"))
    }

    fn not_supported(path: impl Into<String>, value: &str, supported: &[&str]) -> Self {
        let supported: Vec<_> = supported.iter().map(|s| format!("{s:?}")).collect();
        Self::new(
            path,
            format!(
                "Unsupported value: {value:?}: supported values: {}",
                supported.join(", ")
            ),
        )
    }
}

fn with_detail(mut message: String, detail: &str) -> String {
    if !detail.is_empty() {
        message.push_str(": ");
        message.push_str(detail);
    }
    message
}

/// Which objects of the API a static pod may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum References {
    /// None, as upstream: it must run before there is an API server.
    Forbidden,
    /// ConfigMaps and Secrets, which lie beside it as files.
    Files,
}

/// All errors of a static pod; empty means that it can be run.
#[must_use]
pub fn static_pod(pod: &Pod, references: References) -> Vec<FieldError> {
    let mut errors = Vec::new();
    metadata(pod, &mut errors);
    match &pod.spec {
        Some(spec) => {
            let volumes = volume::check(spec, &mut errors);
            container::check(spec, &volumes, &mut errors);
            pod_level(spec, &mut errors);
            reference::check(spec, references, &mut errors);
        }
        None => errors.push(FieldError::required("spec", "")),
    }
    errors
}

fn metadata(pod: &Pod, errors: &mut Vec<FieldError>) {
    let meta = &pod.metadata;
    required_name(
        "metadata.name",
        meta.name.as_deref(),
        Format::Subdomain,
        errors,
    );
    required_name(
        "metadata.namespace",
        meta.namespace.as_deref(),
        Format::Label,
        errors,
    );
    // The UID becomes the name of directories and cgroups.
    required_name("metadata.uid", meta.uid.as_deref(), Format::Uid, errors);
}

fn required_name(path: &str, value: Option<&str>, format: Format, errors: &mut Vec<FieldError>) {
    match value {
        None | Some("") => errors.push(FieldError::required(path, "")),
        Some(name) => errors.extend(format.check(path, name)),
    }
}

fn optional_name(path: &str, value: Option<&str>, format: Format, errors: &mut Vec<FieldError>) {
    if let Some(name) = value.filter(|name| !name.is_empty()) {
        errors.extend(format.check(path, name));
    }
}

fn pod_level(spec: &PodSpec, errors: &mut Vec<FieldError>) {
    one_of(
        "spec.restartPolicy",
        spec.restart_policy.as_deref(),
        &["Always", "OnFailure", "Never"],
        errors,
    );
    dns(spec, errors);
    optional_name(
        "spec.hostname",
        spec.hostname.as_deref(),
        Format::Label,
        errors,
    );
    optional_name(
        "spec.subdomain",
        spec.subdomain.as_deref(),
        Format::Label,
        errors,
    );
    if let Some(seconds) = spec.active_deadline_seconds
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        errors.push(FieldError::invalid(
            "spec.activeDeadlineSeconds",
            seconds,
            "must be between 1 and 2147483647, inclusive",
        ));
    }
    if spec.host_pid == Some(true) && spec.share_process_namespace == Some(true) {
        errors.push(FieldError::invalid(
            "spec.shareProcessNamespace",
            true,
            "ShareProcessNamespace and HostPID cannot both be enabled",
        ));
    }
    if spec
        .ephemeral_containers
        .as_ref()
        .is_some_and(|containers| !containers.is_empty())
    {
        errors.push(FieldError::forbidden(
            "spec.ephemeralContainers",
            "cannot be set on create",
        ));
    }
}

/// Everything that keeps a Service of a manifest from being one, in the order of
/// the fields.
#[must_use]
pub fn service(service: &Service) -> Vec<FieldError> {
    let mut errors = Vec::new();
    service::check(service, &mut errors);
    errors
}

fn dns(spec: &PodSpec, errors: &mut Vec<FieldError>) {
    one_of(
        "spec.dnsPolicy",
        spec.dns_policy.as_deref(),
        &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"],
        errors,
    );
    let has_servers = spec
        .dns_config
        .as_ref()
        .and_then(|dns| dns.nameservers.as_ref())
        .is_some_and(|servers| !servers.is_empty());
    if spec.dns_policy.as_deref() == Some("None") && !has_servers {
        errors.push(FieldError::required(
            "spec.dnsConfig.nameservers",
            "must provide at least one DNS nameserver when `dnsPolicy` is None",
        ));
    }
}

fn one_of(path: &str, value: Option<&str>, supported: &[&str], errors: &mut Vec<FieldError>) {
    match value {
        None | Some("") => errors.push(FieldError::required(path, "")),
        Some(value) if !supported.contains(&value) => {
            errors.push(FieldError::not_supported(path, value, supported));
        }
        Some(_) => {}
    }
}

/// Tells the second use of a name from the first.
#[derive(Default)]
struct Seen<'a>(BTreeSet<&'a str>);

impl<'a> Seen<'a> {
    fn check(&mut self, path: &str, name: &'a str, errors: &mut Vec<FieldError>) {
        if !self.0.insert(name) {
            errors.push(FieldError::duplicate(path, name));
        }
    }
}
