//! Our specs as CRI messages. Pure: every decision was made by the renderer,
//! and nothing is added here but CRI's spelling.

use super::cri::security_profile::ProfileType;
use super::cri::{self, Int64Value};
use crate::pod::PodUid;
use crate::pod::spec::{
    ContainerSecurity, ContainerSpec, GroupsPolicy, LinuxResources, MountPropagation, MountSpec,
    NamespaceMode, Namespaces, PortMapping, Protocol, RegistryAuth, RunAs, SandboxSpec,
    SeccompProfile, SelinuxOptions,
};
use crate::pod::stamp::LABEL_POD_UID;
use crate::pod::userns::IdMapping;

#[cfg(test)]
mod tests;

/// Selects one pod's sandboxes.
pub(super) fn sandboxes_of(uid: &PodUid) -> cri::PodSandboxFilter {
    cri::PodSandboxFilter {
        label_selector: [(LABEL_POD_UID.to_owned(), uid.to_string())].into(),
        ..Default::default()
    }
}

/// Selects one pod's containers.
pub(super) fn containers_of(uid: &PodUid) -> cri::ContainerFilter {
    cri::ContainerFilter {
        label_selector: [(LABEL_POD_UID.to_owned(), uid.to_string())].into(),
        ..Default::default()
    }
}

pub(super) fn sandbox_config(spec: &SandboxSpec) -> cri::PodSandboxConfig {
    cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: spec.name.name.to_string(),
            uid: spec.uid.to_string(),
            namespace: spec.name.namespace.to_string(),
            attempt: spec.attempt,
        }),
        hostname: spec.hostname.clone(),
        log_directory: path(&spec.log_directory),
        dns_config: Some(cri::DnsConfig {
            servers: spec.dns.servers.clone(),
            searches: spec.dns.searches.clone(),
            options: spec.dns.options.clone(),
        }),
        port_mappings: spec.port_mappings.iter().map(port_mapping).collect(),
        labels: spec.labels.clone(),
        annotations: spec.annotations.clone(),
        linux: Some(cri::LinuxPodSandboxConfig {
            cgroup_parent: spec.cgroup_parent.clone(),
            security_context: Some(sandbox_security(spec)),
            sysctls: spec.sysctls.clone(),
            overhead: spec.overhead.as_ref().map(resources),
            resources: Some(resources(&spec.resources)),
        }),
    }
}

pub(super) fn container_config(spec: &ContainerSpec) -> cri::ContainerConfig {
    // With a user namespace, what is mounted shows the pod's own IDs.
    let users = spec.security.namespaces.users;
    cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata {
            name: spec.name.clone(),
            attempt: spec.attempt,
        }),
        image: Some(cri::ImageSpec {
            image: spec.image.0.clone(),
            user_specified_image: spec.user_image.clone(),
            ..Default::default()
        }),
        command: spec.command.clone(),
        args: spec.args.clone(),
        working_dir: spec.working_dir.clone(),
        envs: spec.envs.iter().map(env).collect(),
        mounts: spec.mounts.iter().map(|m| mount(m, users)).collect(),
        labels: spec.labels.clone(),
        annotations: spec.annotations.clone(),
        log_path: path(&spec.log_path),
        stdin: spec.stdin,
        stdin_once: spec.stdin_once,
        tty: spec.tty,
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(resources(&spec.resources)),
            security_context: Some(cri::LinuxContainerSecurityContext {
                namespace_options: Some(container_namespaces(spec)),
                ..container_security(&spec.security)
            }),
        }),
        stop_signal: cri::Signal::RuntimeDefault.into(),
    }
}

pub(super) fn auth_config(auth: &RegistryAuth) -> cri::AuthConfig {
    cri::AuthConfig {
        username: auth.username.clone(),
        password: auth.password.clone(),
        auth: auth.auth.clone(),
        server_address: String::new(),
        identity_token: auth.identity_token.clone(),
        registry_token: auth.registry_token.clone(),
    }
}

fn sandbox_security(spec: &SandboxSpec) -> cri::LinuxSandboxSecurityContext {
    cri::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(spec.namespaces)),
        selinux_options: spec.selinux.as_ref().map(selinux),
        run_as_user: spec.run_as_user.map(int64),
        supplemental_groups: spec.supplemental_groups.clone(),
        privileged: spec.privileged,
        run_as_group: spec.run_as_group.map(int64),
        seccomp: Some(seccomp(&spec.seccomp)),
        supplemental_groups_policy: groups_policy(spec.groups_policy).into(),
    }
}

fn container_security(security: &ContainerSecurity) -> cri::LinuxContainerSecurityContext {
    let (run_as_user, run_as_username) = match &security.run_as {
        RunAs::Uid(uid) => (Some(int64(*uid)), String::new()),
        RunAs::UserName(name) => (None, name.clone()),
    };
    cri::LinuxContainerSecurityContext {
        capabilities: Some(cri::Capability {
            add_capabilities: security.add_capabilities.clone(),
            drop_capabilities: security.drop_capabilities.clone(),
        }),
        privileged: security.privileged,
        namespace_options: Some(namespaces(security.namespaces)),
        selinux_options: security.selinux.as_ref().map(selinux),
        run_as_user,
        run_as_username,
        readonly_rootfs: security.read_only_root,
        supplemental_groups: security.supplemental_groups.clone(),
        // Both spellings: containerd 1.6 prefers the new, older ones know only
        // the old.
        apparmor_profile: security.apparmor.clone(),
        apparmor: apparmor(&security.apparmor),
        no_new_privs: security.no_new_privs,
        run_as_group: security.run_as_group.map(int64),
        masked_paths: security.masked_paths.clone(),
        readonly_paths: security.readonly_paths.clone(),
        seccomp: Some(seccomp(&security.seccomp)),
        supplemental_groups_policy: groups_policy(security.groups_policy).into(),
    }
}

fn groups_policy(policy: GroupsPolicy) -> cri::SupplementalGroupsPolicy {
    match policy {
        GroupsPolicy::Merge => cri::SupplementalGroupsPolicy::Merge,
        GroupsPolicy::Strict => cri::SupplementalGroupsPolicy::Strict,
    }
}

fn selinux(options: &SelinuxOptions) -> cri::SeLinuxOption {
    cri::SeLinuxOption {
        user: options.user.clone(),
        role: options.role.clone(),
        r#type: options.kind.clone(),
        level: options.level.clone(),
    }
}

fn apparmor(profile: &str) -> Option<cri::SecurityProfile> {
    let (kind, localhost_ref) = match profile {
        "" => return None,
        "runtime/default" => (ProfileType::RuntimeDefault, ""),
        "unconfined" => (ProfileType::Unconfined, ""),
        other => (
            ProfileType::Localhost,
            other.strip_prefix("localhost/").unwrap_or(other),
        ),
    };
    Some(cri::SecurityProfile {
        profile_type: kind.into(),
        localhost_ref: localhost_ref.to_owned(),
    })
}

fn seccomp(profile: &SeccompProfile) -> cri::SecurityProfile {
    let (kind, localhost_ref) = match profile {
        SeccompProfile::RuntimeDefault => (ProfileType::RuntimeDefault, String::new()),
        SeccompProfile::Unconfined => (ProfileType::Unconfined, String::new()),
        SeccompProfile::Localhost(file) => (ProfileType::Localhost, path(file)),
    };
    cri::SecurityProfile {
        profile_type: kind.into(),
        localhost_ref,
    }
}

fn namespaces(namespaces: Namespaces) -> cri::NamespaceOption {
    cri::NamespaceOption {
        network: namespace_mode(namespaces.network).into(),
        pid: namespace_mode(namespaces.pid).into(),
        ipc: namespace_mode(namespaces.ipc).into(),
        target_id: String::new(),
        userns_options: Some(user_namespace(namespaces.users)),
    }
}

fn container_namespaces(spec: &ContainerSpec) -> cri::NamespaceOption {
    let own = namespaces(spec.security.namespaces);
    match &spec.process_target {
        Some(target) => cri::NamespaceOption {
            pid: cri::NamespaceMode::Target.into(),
            target_id: target.0.clone(),
            ..own
        },
        None => own,
    }
}

fn user_namespace(users: Option<IdMapping>) -> cri::UserNamespace {
    let mode = match users {
        Some(_) => cri::NamespaceMode::Pod,
        None => cri::NamespaceMode::Node,
    };
    cri::UserNamespace {
        mode: mode.into(),
        uids: id_mappings(users),
        gids: id_mappings(users),
    }
}

fn id_mappings(users: Option<IdMapping>) -> Vec<cri::IdMapping> {
    let mapping = |mapping: IdMapping| cri::IdMapping {
        host_id: mapping.host_id,
        container_id: mapping.container_id,
        length: mapping.length,
    };
    users.map(mapping).into_iter().collect()
}

fn namespace_mode(mode: NamespaceMode) -> cri::NamespaceMode {
    match mode {
        NamespaceMode::Pod => cri::NamespaceMode::Pod,
        NamespaceMode::Container => cri::NamespaceMode::Container,
        NamespaceMode::Node => cri::NamespaceMode::Node,
    }
}

pub(super) fn resources(resources: &LinuxResources) -> cri::LinuxContainerResources {
    cri::LinuxContainerResources {
        cpu_period: resources.cpu_period,
        cpu_quota: resources.cpu_quota,
        cpu_shares: resources.cpu_shares,
        memory_limit_in_bytes: resources.memory_limit,
        oom_score_adj: resources.oom_score_adj,
        hugepage_limits: resources
            .hugepage_limits
            .iter()
            .map(|(page_size, limit)| cri::HugepageLimit {
                page_size: page_size.clone(),
                limit: *limit,
            })
            .collect(),
        unified: resources.unified.clone(),
        memory_swap_limit_in_bytes: resources.memory_swap_limit,
    }
}

fn port_mapping(mapping: &PortMapping) -> cri::PortMapping {
    let protocol = match mapping.protocol {
        Protocol::Tcp => cri::Protocol::Tcp,
        Protocol::Udp => cri::Protocol::Udp,
        Protocol::Sctp => cri::Protocol::Sctp,
    };
    cri::PortMapping {
        protocol: protocol.into(),
        container_port: mapping.container_port.into(),
        host_port: mapping.host_port.into(),
        host_ip: mapping.host_ip.map(|ip| ip.to_string()).unwrap_or_default(),
    }
}

fn env((key, value): &(String, String)) -> cri::KeyValue {
    cri::KeyValue {
        key: key.clone(),
        value: value.clone().into_bytes(),
    }
}

fn mount(mount: &MountSpec, users: Option<IdMapping>) -> cri::Mount {
    let propagation = match mount.propagation {
        MountPropagation::Private => cri::MountPropagation::PropagationPrivate,
        MountPropagation::HostToContainer => cri::MountPropagation::PropagationHostToContainer,
        MountPropagation::Bidirectional => cri::MountPropagation::PropagationBidirectional,
    };
    cri::Mount {
        container_path: mount.container_path.clone(),
        host_path: path(&mount.host_path),
        readonly: mount.read_only,
        selinux_relabel: false,
        propagation: propagation.into(),
        uid_mappings: id_mappings(users),
        gid_mappings: id_mappings(users),
        recursive_read_only: mount.recursive_read_only,
        image: None,
        image_sub_path: String::new(),
    }
}

fn int64(value: i64) -> Int64Value {
    Int64Value { value }
}

/// Paths come from the API as UTF-8 strings, so this loses nothing.
fn path(path: &std::path::Path) -> String {
    path.to_string_lossy().into_owned()
}
