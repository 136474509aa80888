//! The text of a container's `/etc/hosts`.
//!
//! In: the pod, its IPs, and for pods on the host's network the node's own
//! file. Out: the whole text, or nothing if the container must not get one.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, HostAlias};

use super::hostname;
use super::model::DesiredPod;

/// Where the file stands in a container.
pub const ETC_HOSTS: &str = "/etc/hosts";

const HEADER: &str = "# Kubernetes-managed hosts file.\n";
const HEADER_HOST_NETWORK: &str = "# Kubernetes-managed hosts file (host network).\n";
const LOOPBACK: &str = "127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::0\tip6-localnet\n\
    fe00::0\tip6-mcastprefix\n\
    fe00::1\tip6-allnodes\n\
    fe00::2\tip6-allrouters\n";

/// The file's text. `None` if the container mounts something there itself, or
/// if the pod has no address yet (and is not on the host's network).
///
/// `ips` are the pod's addresses, `node_hosts` the text of the node's
/// `/etc/hosts`, `cluster_domain` the domain under which a pod with a subdomain
/// is known.
#[must_use]
pub fn render(
    pod: &DesiredPod,
    container: &Container,
    ips: &[IpAddr],
    node_hosts: &str,
    cluster_domain: &str,
) -> Option<String> {
    let spec = pod.pod.spec.as_ref()?;
    let host_network = spec.host_network.unwrap_or(false);
    if mounts_own(container) || (ips.is_empty() && !host_network) {
        return None;
    }
    let mut text = if host_network {
        format!("{HEADER_HOST_NETWORK}{node_hosts}")
    } else {
        managed(pod, ips, cluster_domain)
    };
    add_aliases(&mut text, spec.host_aliases.as_deref().unwrap_or_default());
    Some(text)
}

/// Whether the container brings its own `/etc/hosts`.
#[must_use]
pub fn mounts_own(container: &Container) -> bool {
    let mut mounts = container.volume_mounts.iter().flatten();
    mounts.any(|mount| mount.mount_path == ETC_HOSTS)
}

fn managed(pod: &DesiredPod, ips: &[IpAddr], cluster_domain: &str) -> String {
    let mut text = format!("{HEADER}{LOOPBACK}");
    // A pod whose name is invalid got no sandbox, so no address either.
    let Ok(name) = hostname::of(pod, cluster_domain) else {
        return text;
    };
    for ip in ips {
        let host = &name.host;
        let names = match name.domain.as_str() {
            "" => host.clone(),
            domain => format!("{host}.{domain}\t{host}"),
        };
        text.extend([ip.to_string().as_str(), "\t", &names, "\n"]);
    }
    text
}

fn add_aliases(text: &mut String, aliases: &[HostAlias]) {
    if aliases.is_empty() {
        return;
    }
    text.push_str("\n# Entries added by HostAliases.\n");
    for alias in aliases {
        let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
        text.extend([alias.ip.as_str(), "\t", &names, "\n"]);
    }
}

#[cfg(test)]
mod tests;
