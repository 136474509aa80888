use std::collections::BTreeMap;

use super::*;
use crate::pod::spec::{DnsSpec, ImageId, SelinuxOptions};
use crate::pod::{ContainerId, PodName};

fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    owned.collect()
}

fn some_resources() -> LinuxResources {
    LinuxResources {
        cpu_shares: 102,
        cpu_period: 100_000,
        cpu_quota: 20_000,
        memory_limit: 64 << 20,
        oom_score_adj: 999,
        memory_swap_limit: 65 << 20,
        hugepage_limits: vec![("2MB".to_owned(), 4 << 20)],
        unified: pairs(&[("memory.oom.group", "1")]),
    }
}

const NAMESPACES: Namespaces = Namespaces {
    network: NamespaceMode::Node,
    ipc: NamespaceMode::Pod,
    pid: NamespaceMode::Container,
    users: Some(IdMapping {
        host_id: 65_536,
        container_id: 1,
        length: 131_072,
    }),
};

/// Every field differs from its default, so that none can be forgotten.
fn sandbox() -> SandboxSpec {
    SandboxSpec {
        uid: PodUid::from("uid-1"),
        name: PodName::new("default", "web"),
        attempt: 2,
        hostname: "host".to_owned(),
        log_directory: "/var/log/pods/default_web_uid-1".into(),
        dns: DnsSpec {
            servers: vec!["10.96.0.10".to_owned()],
            searches: vec!["svc.cluster.local".to_owned()],
            options: vec!["ndots:5".to_owned()],
        },
        port_mappings: vec![PortMapping {
            protocol: Protocol::Sctp,
            container_port: 80,
            host_port: 8080,
            host_ip: Some([127, 0, 0, 1].into()),
        }],
        labels: pairs(&[("app", "web")]),
        annotations: pairs(&[("note", "n")]),
        cgroup_parent: "/kubepods/poduid-1".to_owned(),
        sysctls: pairs(&[("net.core.somaxconn", "1")]),
        namespaces: NAMESPACES,
        privileged: true,
        run_as_user: Some(1),
        run_as_group: Some(2),
        supplemental_groups: vec![3],
        groups_policy: GroupsPolicy::Strict,
        selinux: Some(selinux_options()),
        seccomp: SeccompProfile::Localhost("/seccomp/p.json".into()),
        resources: some_resources(),
        overhead: Some(some_resources()),
        runtime_handler: "runsc".to_owned(),
    }
}

fn container() -> ContainerSpec {
    ContainerSpec {
        name: "main".to_owned(),
        attempt: 3,
        image: ImageId("sha256:1".to_owned()),
        user_image: "web:1".to_owned(),
        command: vec!["/web".to_owned()],
        args: vec!["-v".to_owned()],
        working_dir: "/srv".to_owned(),
        envs: vec![("A".to_owned(), "1".to_owned())],
        mounts: vec![MountSpec {
            container_path: "/data".to_owned(),
            host_path: "/host/data".into(),
            read_only: true,
            recursive_read_only: true,
            propagation: MountPropagation::Bidirectional,
        }],
        labels: pairs(&[("l", "1")]),
        annotations: pairs(&[("a", "1")]),
        log_path: "main/3.log".into(),
        stdin: true,
        stdin_once: true,
        tty: true,
        resources: some_resources(),
        security: security(),
        process_target: None,
    }
}

fn security() -> ContainerSecurity {
    ContainerSecurity {
        privileged: true,
        read_only_root: true,
        no_new_privs: true,
        run_as: RunAs::Uid(1000),
        run_as_group: Some(1001),
        supplemental_groups: vec![1002],
        groups_policy: GroupsPolicy::Strict,
        add_capabilities: vec!["NET_ADMIN".to_owned()],
        drop_capabilities: vec!["ALL".to_owned()],
        seccomp: SeccompProfile::RuntimeDefault,
        apparmor: "localhost/web".to_owned(),
        masked_paths: vec!["/proc/kcore".to_owned()],
        readonly_paths: vec!["/proc/sys".to_owned()],
        namespaces: NAMESPACES,
        selinux: Some(selinux_options()),
    }
}

fn selinux_options() -> SelinuxOptions {
    SelinuxOptions {
        user: "u".to_owned(),
        role: "r".to_owned(),
        kind: "t".to_owned(),
        level: "l".to_owned(),
    }
}

#[test]
fn a_sandbox_as_cri() {
    insta::assert_debug_snapshot!(sandbox_config(&sandbox()));
}

#[test]
fn a_container_as_cri() {
    insta::assert_debug_snapshot!(container_config(&container()));
}

#[test]
fn users_of_the_host_are_said_to_be_so() {
    let host = user_namespace(None);
    assert_eq!(host.mode(), cri::NamespaceMode::Node);
    assert!(host.uids.is_empty() && host.gids.is_empty());
}

#[test]
fn a_container_may_join_the_processes_of_another() {
    let joined = container_config(&ContainerSpec {
        process_target: Some(ContainerId("app-0".to_owned())),
        ..container()
    });
    let options = joined
        .linux
        .and_then(|linux| linux.security_context)
        .and_then(|security| security.namespace_options)
        .expect("namespaces");
    assert_eq!(
        (options.pid(), options.target_id.as_str()),
        (cri::NamespaceMode::Target, "app-0")
    );
    let own = namespaces(NAMESPACES);
    assert_eq!((options.network, options.ipc), (own.network, own.ipc));
}

#[test]
fn a_user_is_named_by_number_or_by_name() {
    let by_name = container_security(&ContainerSecurity {
        run_as: RunAs::UserName("nobody".to_owned()),
        ..security()
    });
    assert_eq!(
        (by_name.run_as_user, by_name.run_as_username.as_str()),
        (None, "nobody")
    );
    let by_number = container_security(&security());
    let expected = (Some(Int64Value { value: 1000 }), "");
    assert_eq!(
        (by_number.run_as_user, by_number.run_as_username.as_str()),
        expected
    );
}

#[test]
fn apparmor_profiles_are_spelled_both_ways() {
    let cases = [
        ("runtime/default", Some((ProfileType::RuntimeDefault, ""))),
        ("unconfined", Some((ProfileType::Unconfined, ""))),
        ("localhost/web", Some((ProfileType::Localhost, "web"))),
        ("", None),
    ];
    for (profile, expected) in cases {
        let profile = apparmor(profile);
        let seen = profile
            .as_ref()
            .map(|p| (p.profile_type(), p.localhost_ref.as_str()));
        assert_eq!(seen, expected);
    }
}

#[test]
fn credentials_are_never_shown() {
    let auth = auth_config(&RegistryAuth {
        password: "secret".to_owned(),
        ..Default::default()
    });
    let request = cri::PullImageRequest {
        auth: Some(auth),
        ..Default::default()
    };
    assert!(!format!("{request:?}").contains("secret"));
}
