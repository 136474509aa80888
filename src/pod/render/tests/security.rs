//! What a pod may ask of the runtime's features, and what is asked of it then.

use super::*;
use crate::pod::inputs::RuntimeFeatures;
use crate::pod::spec::{GroupsPolicy, SelinuxOptions};
use crate::pod::userns::IdMapping;

/// A runtime that can do everything.
fn able() -> PodRuntime {
    PodRuntime {
        features: RuntimeFeatures {
            recursive_read_only_mounts: true,
            user_namespaces: true,
            supplemental_groups_policy: true,
        },
        ..PodRuntime::default()
    }
}

#[test]
fn groups_of_the_image_can_be_left_out() {
    let runtime = able();
    for (policy, expected) in [
        ("{}", Ok(GroupsPolicy::Merge)),
        ("{supplementalGroupsPolicy: Merge}", Ok(GroupsPolicy::Merge)),
        (
            "{fsGroup: 1, supplementalGroups: [2, 3], supplementalGroupsPolicy: Strict}",
            Ok(GroupsPolicy::Strict),
        ),
        (
            "{supplementalGroupsPolicy: Odd}",
            Err("unsupported supplementalGroupsPolicy: Odd".to_owned()),
        ),
    ] {
        let pod = with_spec(&format!(
            "{{securityContext: {policy}, containers: [{{name: c}}]}}"
        ));
        let of_sandbox = sandbox(&pod, 0, &runtime, &node());
        let of_sandbox = of_sandbox.map(|spec| spec.groups_policy);
        assert_eq!(of_sandbox.map_err(|error| error.message), expected);
        let mut given = Given::new();
        given.runtime = runtime.clone();
        let of_container = given.render(&pod, first(&pod));
        let of_container = of_container.map(|spec| spec.security.groups_policy);
        assert_eq!(of_container.map_err(|error| error.message), expected);
    }
}

#[test]
fn a_pods_groups_are_its_fs_group_and_those_listed() {
    let pod = with_spec(
        "{securityContext: {fsGroup: 1, supplementalGroups: [2, 3]}, containers: [{name: c}]}",
    );
    let sandbox = sandbox(&pod, 0, &PodRuntime::default(), &node()).unwrap();
    assert_eq!(sandbox.supplemental_groups, [1, 2, 3]);
    let container = Given::new().render(&pod, first(&pod)).unwrap();
    assert_eq!(container.security.supplemental_groups, [1, 2, 3]);
}

#[test]
fn user_namespaces() {
    let users = IdMapping {
        host_id: 131_072,
        container_id: 0,
        length: 65_536,
    };
    let with_users = PodRuntime {
        users: Some(users),
        ..able()
    };
    let of_class = PodRuntime {
        handler: "runsc".into(),
        ..PodRuntime::default()
    };
    for (host_users, runtime, expected) in [
        ("", &with_users, Ok(None)),
        ("hostUsers: true, ", &with_users, Ok(None)),
        ("hostUsers: false, ", &with_users, Ok(Some(users))),
        (
            "hostUsers: false, ",
            &of_class,
            Err(
                "can't set `spec.hostUsers: false`, RuntimeClass handler \"runsc\" does not \
                 support user namespaces",
            ),
        ),
    ] {
        let pod = with_spec(&format!("{{{host_users}containers: [{{name: c}}]}}"));
        let expected = expected.map_err(str::to_owned);
        let of_sandbox = sandbox(&pod, 0, runtime, &node());
        let of_sandbox = of_sandbox.map(|spec| spec.namespaces.users);
        assert_eq!(of_sandbox.map_err(|error| error.message), expected);
        let mut given = Given::new();
        given.runtime = runtime.clone();
        let of_container = given.render(&pod, first(&pod));
        let of_container = of_container.map(|spec| spec.security.namespaces.users);
        assert_eq!(of_container.map_err(|error| error.message), expected);
    }
}

#[test]
fn mounts_are_read_only_below_where_the_runtime_can() {
    let mut given = Given::new().with_volume("v", false);
    let mount = |mode: &str| {
        format!(
            "volumeMounts: [{{name: v, mountPath: /x, readOnly: true, recursiveReadOnly: {mode}}}]"
        )
    };
    let recursive = |given: &Given, mode: &str| {
        let spec = given.only(&mount(mode));
        spec.map(|spec| spec.mounts[0].recursive_read_only)
    };
    assert_eq!(recursive(&given, "IfPossible"), Ok(false));
    assert!(recursive(&given, "Enabled").is_err());
    given.runtime = able();
    for (mode, expected) in [
        ("Disabled", Ok(false)),
        ("IfPossible", Ok(true)),
        ("Enabled", Ok(true)),
        (
            "Odd",
            Err("unknown recursive read-only mode \"Odd\"".to_owned()),
        ),
    ] {
        assert_eq!(recursive(&given, mode), expected, "{mode}");
    }
    let shared = given.only(
        "volumeMounts: [{name: v, mountPath: /x, readOnly: true, recursiveReadOnly: Enabled, \
         mountPropagation: HostToContainer}]",
    );
    assert_eq!(
        shared,
        Err(
            "failed to resolve recursive read-only mode: volume \"v\" requested recursive \
             read-only mode, but it is not compatible with propagation \"HostToContainer\""
                .to_owned()
        )
    );
}

#[test]
fn seccomp_profiles_stay_in_their_directory() {
    for (profile, expected) in [
        ("p.json", Some("/var/lib/kubelet/seccomp/p.json")),
        ("a/./b.json", Some("/var/lib/kubelet/seccomp/a/b.json")),
        ("../p.json", None),
        ("a/../../p.json", None),
        ("/etc/p.json", None),
    ] {
        let container = format!(
            "securityContext: {{seccompProfile: {{type: Localhost, localhostProfile: {profile}}}}}"
        );
        let seccomp = Given::new().only(&container).map(|s| s.security.seccomp);
        match expected {
            Some(path) => assert_eq!(seccomp, Ok(SeccompProfile::Localhost(path.into()))),
            None => assert_eq!(
                seccomp,
                Err(format!(
                    "localhostProfile {profile:?} must be a relative path without \"..\""
                ))
            ),
        }
    }
}

#[test]
fn what_containers_must_not_see() {
    let mut given = Given::new();
    given.node.thermal_paths = vec!["/sys/devices/system/cpu/cpu0/thermal_throttle".into()];
    let paths = |container: &str| {
        let security = given.only(container).unwrap().security;
        (security.masked_paths, security.readonly_paths)
    };
    let (masked, readonly) = paths("tty: false");
    assert_eq!(masked.len(), 13);
    assert_eq!(masked.last(), given.node.thermal_paths.first());
    assert!(readonly.contains(&"/proc/sys".to_owned()));
    assert_eq!(paths("securityContext: {procMount: Default}").0, masked);
    assert_eq!(
        paths("securityContext: {procMount: Unmasked}"),
        (Vec::new(), Vec::new())
    );
}

#[test]
fn selinux_options_are_the_containers_else_the_pods() {
    let pod = with_spec(
        "{securityContext: {seLinuxOptions: {level: 's0:c1', type: t, user: u, role: r}},
          containers: [{name: a}, {name: b, securityContext: {seLinuxOptions: {level: s0}}}]}",
    );
    let of_pod = SelinuxOptions {
        user: "u".into(),
        role: "r".into(),
        kind: "t".into(),
        level: "s0:c1".into(),
    };
    let sandbox = sandbox(&pod, 0, &PodRuntime::default(), &node()).unwrap();
    assert_eq!(sandbox.selinux, Some(of_pod.clone()));
    let spec = pod.pod.spec.as_ref().unwrap();
    let levels: Vec<_> = spec
        .containers
        .iter()
        .map(|c| Given::new().render(&pod, c).unwrap().security.selinux)
        .map(|options| options.unwrap().level)
        .collect();
    assert_eq!(levels, ["s0:c1", "s0"]);
}

#[test]
fn what_a_container_says_of_itself_alone() {
    let security = |context: &str| {
        let container = format!("securityContext: {context}");
        Given::new().only(&container).unwrap().security
    };
    let plain = security("{}");
    assert!(!plain.privileged && !plain.read_only_root && !plain.no_new_privs);
    assert!(security("{privileged: true}").privileged);
    assert!(security("{readOnlyRootFilesystem: true}").read_only_root);
    assert!(security("{allowPrivilegeEscalation: false}").no_new_privs);
    assert!(!security("{allowPrivilegeEscalation: true}").no_new_privs);
    let capabilities = security("{capabilities: {add: [NET_ADMIN], drop: [ALL]}}");
    assert_eq!(capabilities.add_capabilities, ["NET_ADMIN"]);
    assert_eq!(capabilities.drop_capabilities, ["ALL"]);
}

#[test]
fn sysctls_reach_the_runtime_with_dots() {
    let pod = with_spec(
        "{securityContext: {sysctls: [{name: kernel/shm_rmid_forced, value: '1'},
          {name: net.ipv4.tcp_syncookies, value: '0'}]}, containers: []}",
    );
    let sandbox = sandbox(&pod, 0, &PodRuntime::default(), &node()).unwrap();
    let sysctls: Vec<_> = sandbox.sysctls.into_iter().collect();
    let expected = [
        ("kernel.shm_rmid_forced", "1"),
        ("net.ipv4.tcp_syncookies", "0"),
    ];
    assert_eq!(sysctls, expected.map(|(k, v)| (k.into(), v.into())));
}

#[test]
fn the_handler_is_the_sandboxes() {
    let runtime = PodRuntime {
        handler: "runsc".into(),
        ..PodRuntime::default()
    };
    let pod = with_spec(
        "{runtimeClassName: sandboxed, overhead: {cpu: 250m, memory: 64Mi}, containers: [{name: c,
          resources: {requests: {cpu: 500m}, limits: {cpu: 1, memory: 128Mi}}}]}",
    );
    let sandbox = sandbox(&pod, 0, &runtime, &node()).unwrap();
    assert_eq!(sandbox.runtime_handler, "runsc");
    let overhead = sandbox.overhead.unwrap();
    assert_eq!((overhead.cpu_shares, overhead.cpu_quota), (256, 25_000));
    assert_eq!(overhead.memory_limit, 64 << 20);
    assert_eq!(sandbox.resources.cpu_shares, 512);
    assert_eq!(sandbox.resources.memory_limit, 128 << 20);
}
