//! The files kubeadm writes.

use std::net::SocketAddr;
use std::path::Path;

use super::super::CgroupDriver;
use super::Files;

/// As kubeadm 1.36 writes it on a joining node of a default cluster.
const CONFIG: &str = r#"apiVersion: kubelet.config.k8s.io/v1beta1
authentication:
  anonymous:
    enabled: false
  webhook:
    cacheTTL: 0s
    enabled: true
  x509:
    clientCAFile: /etc/kubernetes/pki/ca.crt
authorization:
  mode: Webhook
  webhook:
    cacheAuthorizedTTL: 0s
    cacheUnauthorizedTTL: 0s
cgroupDriver: systemd
clusterDNS:
- 10.96.0.10
clusterDomain: cluster.local
containerRuntimeEndpoint: unix:///var/run/containerd/containerd.sock
cpuManagerReconcilePeriod: 0s
crashLoopBackOff: {}
evictionPressureTransitionPeriod: 0s
fileCheckFrequency: 0s
healthzBindAddress: 127.0.0.1
healthzPort: 10248
httpCheckFrequency: 0s
imageMaximumGCAge: 0s
imageMinimumGCAge: 0s
kind: KubeletConfiguration
logging:
  flushFrequency: 0
  options:
    json:
      infoBufferSize: "0"
    text:
      infoBufferSize: "0"
  verbosity: 0
memorySwap: {}
nodeStatusReportFrequency: 0s
nodeStatusUpdateFrequency: 0s
resolvConf: /run/systemd/resolve/resolv.conf
rotateCertificates: true
runtimeRequestTimeout: 0s
shutdownGracePeriod: 0s
shutdownGracePeriodCriticalPods: 0s
staticPodPath: /etc/kubernetes/manifests
streamingConnectionIdleTimeout: 0s
syncFrequency: 0s
volumeStatsAggPeriod: 0s
"#;

/// As the unit file of the packages passes them, with an environment file's on top.
const FLAGS: [&str; 4] = [
    "--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf",
    "--kubeconfig=/etc/kubernetes/kubelet.conf",
    "--config={dir}/config.yaml",
    "--register-with-taints=node-role.kubernetes.io/control-plane:NoSchedule",
];

#[test]
fn a_joined_node_is_configured() {
    let files = Files::new().with("config.yaml", CONFIG);
    let config = files.load(&FLAGS).unwrap().config;
    assert_eq!(config.node.name, "test-host");
    assert_eq!(
        config.api.kubeconfig.as_deref(),
        Some(Path::new("/etc/kubernetes/kubelet.conf"))
    );
    assert!(config.api.rotate_certificates);
    assert_eq!(config.cgroup.driver, CgroupDriver::Systemd);
    assert_eq!(
        config.source.static_pod_path.as_deref(),
        Some(Path::new("/etc/kubernetes/manifests"))
    );
    assert_eq!(
        config.server.healthz,
        Some(SocketAddr::from(([127, 0, 0, 1], 10248)))
    );
    assert_eq!(config.node.taints.len(), 1);
    assert_eq!(config.node.taints[0].value, None);
    assert_eq!(config.eviction.hard.len(), 5);
    // The whole of it, as a change detector for defaults.
    let mut value = serde_json::to_value(&config).unwrap();
    value["gates"].take();
    insta::assert_yaml_snapshot!("kubeadm_config", value);
}

/// `KUBELET_KUBEADM_ARGS` in `kubeadm-flags.env`, of 1.36 and of the versions whose files
/// an upgraded node still has.
#[test]
fn the_flags_that_kubeadm_passes_are_known() {
    let files = Files::new().with("config.yaml", CONFIG);
    for flag in [
        "--hostname-override=worker-1",
        "--register-with-taints=node-role.kubernetes.io/control-plane:NoSchedule",
        "--container-runtime-endpoint=unix:///var/run/containerd/containerd.sock",
        "--node-ip=192.0.2.7",
        "--node-labels=node.kubernetes.io/pool=a",
        "--cgroup-driver=systemd",
        "--rotate-certificates=true",
    ] {
        let flags = [FLAGS[0], FLAGS[1], FLAGS[2], flag];
        assert!(files.load(&flags).is_ok(), "{flag}");
    }
}

/// kubeadm leaves the endpoint out where `instance-config.yaml` does not give it.
#[test]
fn an_empty_endpoint_is_the_default_one() {
    let empty = CONFIG.replace("unix:///var/run/containerd/containerd.sock", "\"\"");
    let files = Files::new().with("config.yaml", &empty);
    let config = files.load(&FLAGS).unwrap().config;
    assert_eq!(
        config.effective["containerRuntimeEndpoint"],
        "unix:///run/containerd/containerd.sock"
    );
}

#[test]
fn the_effective_configuration_can_be_read_again() {
    let files = Files::new().with("config.yaml", CONFIG);
    let config = files.load(&FLAGS).unwrap().config;
    assert_eq!(config.effective["maxPods"], 110);
    assert_eq!(config.effective["syncFrequency"], "1m0s");
    assert_eq!(
        config.effective["authentication"]["x509"]["clientCAFile"],
        "/etc/kubernetes/pki/ca.crt"
    );
    let again = Files::new().with("config.yaml", &config.effective.to_string());
    assert_eq!(again.load(&FLAGS).unwrap().config, config);
}

#[test]
fn what_kubeadm_writes_is_no_cause_for_warnings() {
    let files = Files::new().with("config.yaml", CONFIG);
    assert!(files.warnings(&FLAGS).is_empty());
    let empty_maps = CONFIG.replace("crashLoopBackOff: {}", "crashLoopBackOff: null");
    let files = Files::new().with("config.yaml", &empty_maps);
    assert!(files.load(&FLAGS).is_ok());
}
