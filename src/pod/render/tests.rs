use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Container, Secret};

use super::*;
use crate::pod::facts::{CgroupVersion, NodeFacts};
use crate::pod::inputs::{ContainerFiles, MountedVolume, MountedVolumes, PodRuntime, ResolvedRefs};
use crate::pod::model::DesiredPod;
use crate::pod::spec::{
    ContainerSpec, ImageId, ImageRequest, MountPropagation, NamespaceMode, PresentImage,
    PullPolicy, RunAs, SeccompProfile,
};
use crate::pod::testing::{first, from_manifest, node, pod, with_spec};

mod security;
mod sub_paths;

/// What a container is rendered with unless a test says otherwise.
struct Given {
    image_user: Option<RunAs>,
    sandbox_ips: Vec<IpAddr>,
    volumes: MountedVolumes,
    files: ContainerFiles,
    refs: ResolvedRefs,
    runtime: PodRuntime,
    node: NodeFacts,
}

impl Given {
    fn new() -> Self {
        let map: ConfigMap = serde_json::from_str(r#"{"data": {"level": "info"}}"#).unwrap();
        let secret: Secret = serde_json::from_str(r#"{"data": {"password": "czNjcmV0"}}"#).unwrap();
        Self {
            image_user: None,
            sandbox_ips: vec!["10.0.0.5".parse().unwrap()],
            volumes: MountedVolumes::default(),
            files: ContainerFiles {
                etc_hosts: Some("/pods/u/etc-hosts".into()),
                termination_log: Some("/pods/u/containers/c/0badcafe".into()),
                sub_paths: BTreeMap::new(),
            },
            refs: ResolvedRefs {
                config_maps: BTreeMap::from([("db".into(), map)]),
                secrets: BTreeMap::from([("db".into(), secret)]),
                files: BTreeMap::new(),
                service_env: vec![("KUBERNETES_SERVICE_HOST".into(), "10.96.0.1".into())],
            },
            runtime: PodRuntime::default(),
            node: node(),
        }
    }

    fn with_volume(mut self, name: &str, read_only: bool) -> Self {
        let volume = MountedVolume {
            host_path: format!("/pods/u/volumes/{name}").into(),
            read_only,
        };
        self.volumes.volumes.insert(name.into(), volume);
        self
    }

    fn render(
        &self,
        pod: &DesiredPod,
        container: &Container,
    ) -> Result<ContainerSpec, RenderError> {
        self.with_input(pod, container, super::container)
    }

    fn with_input<T>(
        &self,
        pod: &DesiredPod,
        container: &Container,
        render: impl FnOnce(&ContainerInput<'_>) -> T,
    ) -> T {
        render(&ContainerInput {
            pod,
            container,
            process_target: None,
            attempt: 2,
            backoff: Some(Duration::from_secs(40)),
            image: &PresentImage {
                id: ImageId("sha256:1234".into()),
                user: self.image_user.clone(),
            },
            sandbox_ips: &self.sandbox_ips,
            volumes: &self.volumes,
            files: &self.files,
            refs: &self.refs,
            runtime: &self.runtime,
            node: &self.node,
        })
    }

    /// What the one container of a pod wants of its volumes.
    fn sub_paths(&self, container: &str) -> Result<Vec<(usize, String)>, String> {
        let pod = with_spec(&format!(
            "{{containers: [{{name: c, image: i, {container}}}]}}"
        ));
        let wanted = self.with_input(&pod, first(&pod), super::sub_paths);
        let wanted = wanted.map_err(|error| error.message)?;
        Ok(wanted
            .into_iter()
            .map(|part| (part.index, part.path))
            .collect())
    }

    /// Renders the one container of a pod.
    fn only(&self, container: &str) -> Result<ContainerSpec, String> {
        let pod = with_spec(&format!(
            "{{containers: [{{name: c, image: i, {container}}}]}}"
        ));
        let spec = self.render(&pod, first(&pod));
        spec.map_err(|error| error.message)
    }
}

/// The sandbox and all containers of a fixture.
fn assert_golden(name: &str, pod: &DesiredPod, given: &Given) {
    let spec = pod.pod.spec.as_ref().unwrap();
    let sandbox = sandbox(pod, 1, &PodRuntime::default(), &given.node).unwrap();
    let containers: Vec<ContainerSpec> = spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers)
        .map(|container| given.render(pod, container).unwrap())
        .collect();
    insta::with_settings!({prepend_module_to_snapshot => false}, {
        insta::assert_yaml_snapshot!(format!("{name}-sandbox"), sandbox);
        insta::assert_yaml_snapshot!(format!("{name}-containers"), containers);
    });
}

#[test]
fn a_pod_of_a_deployment() {
    let given = Given::new().with_volume("kube-api-access-7xk2v", false);
    assert_golden(
        "deployment",
        &pod(include_str!("testdata/deployment.yaml")),
        &given,
    );
}

#[test]
fn a_guaranteed_pod() {
    let given = Given::new()
        .with_volume("data", false)
        .with_volume("settings", true);
    assert_golden(
        "guaranteed",
        &pod(include_str!("testdata/guaranteed.yaml")),
        &given,
    );
}

#[test]
fn a_burstable_pod() {
    assert_golden(
        "burstable",
        &pod(include_str!("testdata/burstable.yaml")),
        &Given::new(),
    );
}

#[test]
fn a_best_effort_pod_on_cgroup_v1() {
    let mut given = Given::new();
    given.node.cgroup.version = CgroupVersion::V1;
    given.image_user = Some(RunAs::UserName("daemon".into()));
    assert_golden(
        "besteffort",
        &pod(include_str!("testdata/besteffort.yaml")),
        &given,
    );
}

#[test]
fn a_pod_on_the_hosts_network() {
    let mut given = Given::new().with_volume("root", false);
    given.sandbox_ips.clear();
    assert_golden(
        "hostnetwork",
        &pod(include_str!("testdata/hostnetwork.yaml")),
        &given,
    );
}

#[test]
fn a_static_api_server() {
    let mut given = Given::new()
        .with_volume("ca-certs", false)
        .with_volume("k8s-certs", false);
    given.sandbox_ips.clear();
    let pod = from_manifest(pod(include_str!("testdata/apiserver.yaml")));
    assert_golden("apiserver", &pod, &given);
}

#[test]
fn swap_on_cgroup_v1_is_none() {
    let mut given = Given::new();
    let container = "resources: {limits: {memory: 1Gi}}";
    assert_eq!(
        given.only(container).unwrap().resources.memory_swap_limit,
        0
    );
    given.node.cgroup.version = CgroupVersion::V1;
    let resources = given.only(container).unwrap().resources;
    assert_eq!(resources.memory_swap_limit, 1 << 30);
    assert!(resources.unified.is_empty());
}

#[test]
fn quotas_and_group_kill_can_be_off() {
    let mut given = Given::new();
    given.node.cgroup.enforce_cpu_quota = false;
    given.node.cgroup.single_process_oom_kill = true;
    let resources = given
        .only("resources: {limits: {cpu: 1}}")
        .unwrap()
        .resources;
    assert_eq!((resources.cpu_period, resources.cpu_quota), (0, 0));
    assert_eq!(resources.cpu_shares, 1024);
    assert!(resources.unified.is_empty());
}

#[test]
fn a_container_without_limits_has_its_pods() {
    let pod = with_spec(
        "{resources: {limits: {cpu: 2, memory: 1Gi, hugepages-2Mi: 2Mi}}, containers: [{name: c}]}",
    );
    let resources = Given::new().render(&pod, first(&pod)).unwrap().resources;
    assert_eq!(resources.memory_limit, 1 << 30);
    assert_eq!(resources.cpu_quota, 200_000);
    assert_eq!(resources.hugepage_limits[0], ("2MB".to_owned(), 2 << 20));
}

#[test]
fn who_may_not_be_root() {
    let tail = "(pod: \"p_default(u)\", container: c)";
    let non_root = "securityContext: {runAsNonRoot: true}";
    let as_root = "securityContext: {runAsNonRoot: true, runAsUser: 0}";
    let as_user = "securityContext: {runAsNonRoot: true, runAsUser: 5}";
    for (container, image_user, expected) in [
        (
            as_root,
            None,
            Err("container's runAsUser breaks non-root policy"),
        ),
        (as_user, None, Ok(RunAs::Uid(5))),
        (
            non_root,
            None,
            Err("container has runAsNonRoot and image will run as root"),
        ),
        (
            non_root,
            Some(RunAs::UserName("web".into())),
            Err(
                "container has runAsNonRoot and image has non-numeric user (web), cannot verify \
                 user is non-root",
            ),
        ),
        (
            non_root,
            Some(RunAs::Uid(1 << 40)),
            Err(
                "container has runAsNonRoot and image has an invalid user id (1099511627776). \
                 (Must be 1-(2147483647)): must be between 0 and 2147483647, inclusive",
            ),
        ),
        (non_root, Some(RunAs::Uid(7)), Ok(RunAs::Uid(7))),
        (
            "securityContext: {runAsNonRoot: false}",
            None,
            Ok(RunAs::Uid(0)),
        ),
        (
            "tty: false",
            Some(RunAs::UserName("web".into())),
            Ok(RunAs::UserName("web".into())),
        ),
    ] {
        let mut given = Given::new();
        given.image_user = image_user;
        let run_as = given.only(container).map(|spec| spec.security.run_as);
        let expected = expected.map_err(|message: &str| format!("{message} {tail}"));
        assert_eq!(run_as, expected, "{container}");
    }
}

#[test]
fn the_container_overrides_the_pod() {
    let pod = with_spec(
        "{securityContext: {runAsUser: 1, runAsGroup: 2, runAsNonRoot: true,
            seccompProfile: {type: RuntimeDefault}, appArmorProfile: {type: RuntimeDefault}},
          containers: [{name: c, securityContext: {runAsUser: 0, runAsNonRoot: false,
            seccompProfile: {type: Unconfined}, appArmorProfile: {type: Unconfined}}}]}",
    );
    let security = Given::new().render(&pod, first(&pod)).unwrap().security;
    assert_eq!(security.run_as, RunAs::Uid(0));
    assert_eq!(security.run_as_group, Some(2));
    assert_eq!(security.seccomp, SeccompProfile::Unconfined);
    assert_eq!(security.apparmor, "unconfined");
}

#[test]
fn the_node_has_a_default_for_seccomp() {
    let mut given = Given::new();
    assert_eq!(
        given.only("tty: false").unwrap().security.seccomp,
        SeccompProfile::Unconfined
    );
    given.node.seccomp_default = true;
    assert_eq!(
        given.only("tty: false").unwrap().security.seccomp,
        SeccompProfile::RuntimeDefault
    );
}

#[test]
fn static_pods_may_name_apparmor_profiles_in_annotations() {
    let yaml = |value: &str| {
        format!(
            "metadata: {{name: p, annotations: {{container.apparmor.security.beta.kubernetes.io/c: {value}}}}}\n\
             spec: {{securityContext: {{appArmorProfile: {{type: Unconfined}}}}, containers: [{{name: c}}]}}"
        )
    };
    for (value, expected) in [
        ("localhost/web", "localhost/web"),
        ("runtime/default", "runtime/default"),
        ("nonsense", "unconfined"),
    ] {
        let pod = pod(&yaml(value));
        let spec = Given::new().render(&pod, first(&pod)).unwrap();
        assert_eq!(spec.security.apparmor, expected);
    }
}

#[test]
fn namespaces_are_shared_on_demand() {
    for (spec, pid) in [
        ("{containers: [{name: c}]}", NamespaceMode::Container),
        (
            "{shareProcessNamespace: true, containers: [{name: c}]}",
            NamespaceMode::Pod,
        ),
        (
            "{hostPID: true, shareProcessNamespace: true, containers: [{name: c}]}",
            NamespaceMode::Node,
        ),
    ] {
        let sandbox = sandbox(&with_spec(spec), 0, &PodRuntime::default(), &node()).unwrap();
        assert_eq!(sandbox.namespaces.pid, pid);
        assert_eq!(sandbox.namespaces.network, NamespaceMode::Pod);
    }
}

#[test]
fn mounts_follow_the_container_and_the_volume() {
    let given = Given::new().with_volume("v", false).with_volume("ro", true);
    let mounts = given
        .only("volumeMounts: [{name: v, mountPath: data}, {name: ro, mountPath: /etc/hosts, mountPropagation: Bidirectional}]")
        .unwrap()
        .mounts;
    let seen: Vec<_> = mounts
        .iter()
        .map(|m| (m.container_path.as_str(), m.read_only, m.propagation))
        .collect();
    assert_eq!(
        seen,
        [
            ("/data", false, MountPropagation::Private),
            ("/etc/hosts", true, MountPropagation::Bidirectional),
            ("/dev/termination-log", false, MountPropagation::Private),
        ]
    );
}

#[test]
fn what_cannot_be_rendered_is_said() {
    let given = Given::new().with_volume("v", false);
    for (container, message) in [
        (
            "volumeMounts: [{name: none, mountPath: /x}]",
            "cannot find volume \"none\" to mount into container \"c\"",
        ),
        (
            "volumeMounts: [{name: v, mountPath: /x, subPath: unprepared}]",
            "failed to prepare subPath for volumeMount \"v\" of container \"c\"",
        ),
        (
            "volumeMounts: [{name: v, mountPath: /x, mountPropagation: Odd}]",
            "invalid MountPropagation mode: \"Odd\"",
        ),
        (
            "volumeMounts: [{name: v, mountPath: /x, readOnly: true, recursiveReadOnly: Enabled}]",
            "failed to resolve recursive read-only mode: volume \"v\" requested recursive read-only \
             mode, but it is not supported by the runtime",
        ),
        (
            "volumeMounts: [{name: v, mountPath: /x, recursiveReadOnly: IfPossible}]",
            "failed to resolve recursive read-only mode: volume \"v\" requested recursive read-only \
             mode, but it is not read-only",
        ),
        (
            "volumeDevices: [{name: d, devicePath: /dev/d}]",
            "cannot find volume \"d\" to pass into container \"c\"",
        ),
        (
            "resources: {limits: {cpu: many}}",
            "invalid quantity of \"cpu\" in container \"c\": quantity \"many\" is not a number with \
             an optional suffix (n u m k M G T P E, Ki Mi Gi Ti Pi Ei) or exponent",
        ),
        (
            "securityContext: {seccompProfile: {type: Localhost}}",
            "localhostProfile must be set if seccompProfile type is Localhost.",
        ),
        (
            "env: [{name: A, valueFrom: {secretKeyRef: {name: db, key: k}}}]",
            "couldn't find key k in Secret default/db",
        ),
    ] {
        assert_eq!(given.only(container), Err(message.into()), "{container}");
    }
}

#[test]
fn sandboxes_that_cannot_be() {
    for (spec, message) in [
        (
            "{hostUsers: false, containers: []}",
            "can't set `spec.hostUsers: false`, runtime does not support user namespaces",
        ),
        (
            "{securityContext: {supplementalGroupsPolicy: Strict}, containers: []}",
            "SupplementalGroupsPolicy=Strict is not supported in this node",
        ),
        (
            "{hostname: A, containers: []}",
            "pod Hostname \"A\" is not a valid DNS label",
        ),
        (
            "{containers: [{name: c, ports: [{containerPort: 70000}]}]}",
            "invalid containerPort 70000 of container \"c\"",
        ),
        (
            "{containers: [{name: c, ports: [{containerPort: 1, hostIP: x}]}]}",
            "invalid hostIP x of container \"c\"",
        ),
        (
            "{containers: [{name: c, ports: [{containerPort: 1, protocol: ICMP}]}]}",
            "invalid protocol ICMP of container \"c\"",
        ),
    ] {
        let error = sandbox(&with_spec(spec), 0, &PodRuntime::default(), &node()).unwrap_err();
        assert_eq!(error.message, message);
        assert_eq!(error.reason, WaitingReason::CreateContainerConfigError);
    }
}

#[test]
fn ten_thousand_ports_are_mapped_once_each() {
    let ports: Vec<String> = (0..10_000)
        .map(|i| {
            format!(
                "{{containerPort: {}, hostPort: {}}}",
                i % 5000 + 1,
                i % 5000 + 1
            )
        })
        .collect();
    let spec = format!(
        "{{containers: [{{name: c, ports: [{}]}}]}}",
        ports.join(", ")
    );
    assert_eq!(
        sandbox(&with_spec(&spec), 0, &PodRuntime::default(), &node())
            .unwrap()
            .port_mappings
            .len(),
        5000
    );
}

#[test]
fn a_pod_without_a_spec_does_no_harm() {
    let pod = pod("metadata: {name: p}");
    assert!(sandbox(&pod, 0, &PodRuntime::default(), &node()).is_ok());
    assert!(Given::new().render(&pod, &Container::default()).is_ok());
    assert_eq!(refs(&pod.pod), crate::pod::inputs::PodRefs::default());
}

#[test]
fn references_are_collected_from_all_containers() {
    let pod = with_spec(
        "{imagePullSecrets: [{name: pull}, {name: ''}],
          containers: [{name: c, envFrom: [{configMapRef: {name: m1}}, {secretRef: {name: s1}}]}],
          initContainers: [{name: i, env: [
            {name: A, value: x},
            {name: B, valueFrom: {configMapKeyRef: {name: m2, key: k}}},
            {name: C, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]}],
          ephemeralContainers: [{name: e, env: [{name: D, valueFrom: {secretKeyRef: {name: s2, key: k}}}]}]}",
    );
    let refs = refs(&pod.pod);
    assert_eq!(Vec::from_iter(refs.config_maps), ["m1", "m2"]);
    assert_eq!(Vec::from_iter(refs.secrets), ["s1", "s2"]);
    assert_eq!(Vec::from_iter(refs.pull_secrets), ["pull"]);
}

fn request(container: &str, refs: &ResolvedRefs) -> Result<ImageRequest, RenderError> {
    let pod = with_spec(&format!(
        "{{imagePullSecrets: [{{name: gone}}, {{name: pull}}], containers: [{{name: c, {container}}}]}}"
    ));
    image_request(&pod, first(&pod), refs)
}

#[test]
fn the_pull_policy_follows_the_tag() {
    for (container, policy) in [
        ("image: nginx", PullPolicy::Always),
        ("image: 'nginx:latest'", PullPolicy::Always),
        ("image: 'nginx:1.27'", PullPolicy::IfNotPresent),
        (
            "image: 'nginx@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef'",
            PullPolicy::IfNotPresent,
        ),
        ("image: 'localhost:5000/nginx'", PullPolicy::Always),
        ("image: nginx, imagePullPolicy: Never", PullPolicy::Never),
        (
            "image: nginx, imagePullPolicy: IfNotPresent",
            PullPolicy::IfNotPresent,
        ),
        (
            "image: 'nginx:1', imagePullPolicy: Always",
            PullPolicy::Always,
        ),
    ] {
        let request = request(container, &ResolvedRefs::default()).unwrap();
        assert_eq!(request.policy, policy, "{container}");
    }
}

#[test]
fn bad_image_names_are_refused() {
    for image in ["", "Nginx", "a b", "nginx:", "-", "r.example/"] {
        let error = request(&format!("image: {image:?}"), &ResolvedRefs::default()).unwrap_err();
        assert_eq!(error.reason, WaitingReason::InvalidImageName, "{image}");
    }
}

#[test]
fn pull_secrets_that_exist_are_used() {
    let secret: Secret = serde_json::from_str(
        r#"{"type": "kubernetes.io/dockerconfigjson",
            "data": {".dockerconfigjson": "eyJhdXRocyI6eyJyLmV4YW1wbGUiOnsiYXV0aCI6ImRUcHcifX19"}}"#,
    )
    .unwrap();
    let refs = ResolvedRefs {
        secrets: BTreeMap::from([("pull".into(), secret.clone()), ("other".into(), secret)]),
        ..ResolvedRefs::default()
    };
    let with_auth = request("image: r.example/app", &refs).unwrap();
    assert_eq!(with_auth.credentials.len(), 1);
    assert_eq!(with_auth.credentials[0].auth.username, "u");
    assert!(
        request("image: nginx", &refs)
            .unwrap()
            .credentials
            .is_empty()
    );

    let mut broken = refs;
    let pull = broken.secrets.get_mut("pull").unwrap();
    pull.data
        .as_mut()
        .unwrap()
        .values_mut()
        .for_each(|v| v.0 = b"{".to_vec());
    let error = request("image: r.example/app", &broken).unwrap_err();
    assert_eq!(error.reason, WaitingReason::ErrImagePull);
}
