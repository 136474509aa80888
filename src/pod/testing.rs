//! Pods and nodes for the tests of this module's functions.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};

use super::facts::{CgroupFacts, CgroupVersion, ComputeResources, NodeDns, NodeFacts};
use super::model::{DesiredPod, Intent, Origin, PodName, PodUid};
use super::spec::DnsSpec;

/// A pod of the API server, from YAML.
pub(super) fn pod(yaml: &str) -> DesiredPod {
    let pod: Pod = serde_saphyr::from_str(yaml).expect("the YAML of a pod");
    DesiredPod {
        uid: PodUid::new(pod.metadata.uid.as_deref().unwrap_or_default()),
        name: PodName::of(&pod),
        pod: Arc::new(pod),
        origin: Origin::Api,
        intent: Intent::Run,
    }
}

/// The pod `default/p`, UID `u`, with the given `spec` in YAML flow style.
pub(super) fn with_spec(spec: &str) -> DesiredPod {
    pod(&format!(
        "metadata: {{name: p, namespace: default, uid: u}}\nspec: {spec}"
    ))
}

/// The same as a static pod.
pub(super) fn from_manifest(pod: DesiredPod) -> DesiredPod {
    DesiredPod {
        origin: Origin::Static {
            path: PathBuf::from("/etc/kubernetes/manifests/p.yaml"),
        },
        ..pod
    }
}

/// The first regular container.
pub(super) fn first(pod: &DesiredPod) -> &Container {
    let spec = pod.pod.spec.as_ref().expect("a spec");
    spec.containers.first().expect("a container")
}

/// A node with 4 CPUs and 8 GiB on cgroup v2, with cluster DNS.
pub(crate) fn node() -> NodeFacts {
    let gib = 1 << 30;
    NodeFacts {
        node_name: "node-1".into(),
        host_ips: vec!["192.0.2.10".parse().expect("an IP")],
        capacity: ComputeResources {
            milli_cpu: 4000,
            memory: 8 * gib,
            ephemeral_storage: 100 * gib,
        },
        allocatable: ComputeResources {
            milli_cpu: 3900,
            memory: 7 * gib,
            ephemeral_storage: 90 * gib,
        },
        hugepage_sizes: vec!["2MB".into(), "1GB".into()],
        cgroup: CgroupFacts {
            version: CgroupVersion::V2,
            root: "/".into(),
            per_qos: true,
            enforce_cpu_quota: true,
            cpu_quota_period: Duration::from_millis(100),
            pids_limit: None,
            single_process_oom_kill: false,
        },
        dns: NodeDns {
            cluster_servers: vec!["10.96.0.10".parse().expect("an IP")],
            cluster_domain: "cluster.local".into(),
            host: DnsSpec {
                servers: vec!["192.0.2.53".into()],
                searches: vec!["example.com".into()],
                options: vec!["timeout:2".into()],
            },
        },
        root_dir: "/var/lib/kubelet".into(),
        pod_logs_dir: "/var/log/pods".into(),
        seccomp_default: false,
        thermal_paths: Vec::new(),
        runtime_name: "containerd".into(),
        max_crash_backoff: Duration::from_secs(300),
    }
}
