//! What a pod is called on its network: host name and domain.
//!
//! In: the pod and the cluster's domain. Out: the names that the sandbox gets
//! and that stand in `/etc/hosts`.

use k8s_openapi::api::core::v1::PodSpec;

use super::model::DesiredPod;

/// The longest label of a DNS name.
const MAX_HOSTNAME: usize = 63;
/// The longest DNS name.
const MAX_SUBDOMAIN: usize = 253;
/// What the kernel holds of a node name.
const MAX_KERNEL_HOSTNAME: usize = 64;

/// The pod's name on the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hostname {
    pub host: String,
    /// `<subdomain>.<namespace>.svc.<cluster domain>`; empty if the pod has no
    /// subdomain.
    pub domain: String,
}

/// A name that cannot be a host's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostnameError {
    #[error("pod {field} {name:?} is not a valid DNS {kind}")]
    Invalid {
        field: &'static str,
        kind: &'static str,
        name: String,
    },
    #[error("hostname for pod {pod:?} was invalid: {name:?}")]
    Empty { pod: String, name: String },
    #[error(
        "failed to construct FQDN from pod hostname and cluster domain, FQDN {fqdn} is too long \
         ({MAX_KERNEL_HOSTNAME} characters is the max, {} characters requested)",
        fqdn.len()
    )]
    TooLong { fqdn: String },
}

/// Host name and domain of a pod.
///
/// # Errors
/// If a name in the spec is not one that DNS allows.
pub fn of(pod: &DesiredPod, cluster_domain: &str) -> Result<Hostname, HostnameError> {
    let spec = pod.pod.spec.as_ref();
    let set = |field: fn(&PodSpec) -> &Option<String>| spec.and_then(|spec| field(spec).as_deref());
    if let Some(name) = set(|s| &s.hostname_override) {
        if !is_subdomain(name) {
            return Err(invalid("HostnameOverride", "subdomain", name));
        }
        return Ok(Hostname {
            host: truncate(pod, name)?,
            domain: String::new(),
        });
    }
    let nonempty = |name: &&str| !name.is_empty();
    let host = match set(|s| &s.hostname).filter(nonempty) {
        Some(name) if !is_label(name) => return Err(invalid("Hostname", "label", name)),
        Some(name) => name,
        None => &pod.name.name,
    };
    let domain = match set(|s| &s.subdomain).filter(nonempty) {
        Some(name) if !is_label(name) => return Err(invalid("Subdomain", "label", name)),
        Some(name) => format!("{name}.{}.svc.{cluster_domain}", pod.name.namespace),
        None => String::new(),
    };
    Ok(Hostname {
        host: truncate(pod, host)?,
        domain,
    })
}

/// The name that the kernel of the sandbox is told: with the domain if the pod
/// asks for it; empty on the host's network, whose name is not ours to set.
///
/// # Errors
/// If the name is not allowed by DNS or too long for the kernel.
pub fn for_kernel(pod: &DesiredPod, cluster_domain: &str) -> Result<String, HostnameError> {
    let set = |field: fn(&PodSpec) -> Option<bool>| {
        pod.pod.spec.as_ref().and_then(field).unwrap_or(false)
    };
    if set(|s| s.host_network) {
        return Ok(String::new());
    }
    let Hostname { host, domain } = of(pod, cluster_domain)?;
    if domain.is_empty() || !set(|s| s.set_hostname_as_fqdn) {
        return Ok(host);
    }
    let fqdn = format!("{host}.{domain}");
    if fqdn.len() > MAX_KERNEL_HOSTNAME {
        return Err(HostnameError::TooLong { fqdn });
    }
    Ok(fqdn)
}

fn invalid(field: &'static str, kind: &'static str, name: &str) -> HostnameError {
    HostnameError::Invalid {
        field,
        kind,
        name: name.into(),
    }
}

fn truncate(pod: &DesiredPod, name: &str) -> Result<String, HostnameError> {
    if name.len() <= MAX_HOSTNAME {
        return Ok(name.to_owned());
    }
    let end = name.floor_char_boundary(MAX_HOSTNAME);
    match name[..end].trim_end_matches(['-', '.']) {
        "" => Err(HostnameError::Empty {
            pod: pod.name.name.to_string(),
            name: name.into(),
        }),
        cut => Ok(cut.to_owned()),
    }
}

fn is_label(name: &str) -> bool {
    name.len() <= MAX_HOSTNAME && is_subdomain_part(name)
}

fn is_subdomain(name: &str) -> bool {
    name.len() <= MAX_SUBDOMAIN && name.split('.').all(is_subdomain_part)
}

/// Letters, digits and hyphens within; of any length, as the API has it.
fn is_subdomain_part(part: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !part.is_empty() && part.bytes().all(inner) && !part.starts_with('-') && !part.ends_with('-')
}

#[cfg(test)]
mod tests;
