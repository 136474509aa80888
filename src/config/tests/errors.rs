//! What a person reads after a mistake.

use super::{Files, errors_of};

#[test]
fn all_errors_of_a_file_come_at_once_with_their_places() {
    let errors = errors_of(
        r#"maxPod: 20
podsPerCore: two
clusterDNS: 10.0.0.10
syncFrequency: 30
authentication:
  anonymous:
    enabled: "no"
  webook: {}
systemReserved:
  cpu: 1
resolvConf: [a]
registerNode: true
maxOpenFiles: 99999999999999999999
logging: verbose
registerWithTaints:
- key: a
  effct: NoSchedule
- key: b
  effect: 7
frobnicate: 1
"#,
        &["--max-pods=x"],
    );
    insta::assert_snapshot!(errors, @r#"
    14 errors in the configuration
      {dir}/config.yaml:3:1: unknown field "maxPod" (did you mean "maxPods"?)
      {dir}/config.yaml:4:14: podsPerCore: expected a whole number, found "two"
      {dir}/config.yaml:5:13: clusterDNS: expected a list, found "10.0.0.10"
      {dir}/config.yaml:6:16: syncFrequency: expected a duration like "10s", found the number 30
      {dir}/config.yaml:9:14: authentication.anonymous.enabled: expected true or false, found "no"
      {dir}/config.yaml:10:3: authentication: unknown field "webook" (did you mean "webhook"?)
      {dir}/config.yaml:12:8: systemReserved.cpu: expected a string (put it in quotes), found the number 1
      {dir}/config.yaml:13:13: resolvConf: expected a string, found a list
      {dir}/config.yaml:15:15: maxOpenFiles: expected a whole number, found the number 100000000000000000000
      {dir}/config.yaml:16:10: logging: expected a map, found "verbose"
      {dir}/config.yaml:19:3: registerWithTaints[0]: unknown field "effct" (did you mean "effect"?)
      {dir}/config.yaml:21:11: registerWithTaints[1].effect: expected a string (put it in quotes), found the number 7
      {dir}/config.yaml:22:1: unknown field "frobnicate"
      --max-pods: expected a whole number, found "x"
    "#);
}

#[test]
fn json_is_read_as_strictly() {
    let files = Files::new().with(
        "config.json",
        "{\"apiVersion\": \"kubelet.config.k8s.io/v1beta1\",\n \"kind\": \"KubeletConfiguration\",\n \
         \"maxPods\": 20,\n \"maxpods\": 21, \"healthzPort\": \"10248\"}\n",
    );
    insta::assert_snapshot!(files.errors(&["--config={dir}/config.json"]), @r#"
    2 errors in the configuration
      {dir}/config.json:4:2: unknown field "maxpods" (did you mean "maxPods"?)
      {dir}/config.json:4:32: healthzPort: expected a whole number, found "10248"
    "#);
}

#[test]
fn repeated_fields_are_errors() {
    let errors = errors_of(
        "maxPods: 1\nauthorization:\n  mode: Webhook\n  mode: AlwaysAllow\nmaxPods: 2\n",
        &[],
    );
    insta::assert_snapshot!(errors, @r#"
    2 errors in the configuration
      {dir}/config.yaml:6:3: authorization: field "mode" is repeated; it was first set in line 5
      {dir}/config.yaml:7:1: field "maxPods" is repeated; it was first set in line 3
    "#);
}

#[test]
fn text_that_is_no_yaml_has_a_place() {
    insta::assert_snapshot!(errors_of("a: [1,\nb: {\n", &[]), @r#"{dir}/config.yaml:4:4: unclosed bracket '{'"#);
    insta::assert_snapshot!(errors_of("maxPods: 1\n---\nmaxPods: 2\n", &[]), @r#"{dir}/config.yaml:5:1: there is more than one document"#);
    insta::assert_snapshot!(Files::new().with("c.yaml", "").errors(&["--config={dir}/c.yaml"]), @r#"{dir}/c.yaml: expected apiVersion "kubelet.config.k8s.io/v1beta1" and kind "KubeletConfiguration", found neither"#);
    insta::assert_snapshot!(Files::new().errors(&["--config={dir}/missing.yaml"]), @r#"{dir}/missing.yaml: cannot be read: No such file or directory (os error 2)"#);
}

const OUT_OF_RANGE: &str = r#"nodeLeaseDurationSeconds: -1
systemCgroups: /x
eventBurst: -1
healthzPort: 70000
cpuCFSQuotaPeriod: 2s
imageGCHighThresholdPercent: 50
imageMaximumGCAge: 1m
iptablesDropBit: 32
nodeStatusMaxImages: -2
maxPods: -1
oomScoreAdj: 1001
maxParallelImagePulls: 0
runOnce: true
registerWithTaints:
- {key: "a b", effect: Never}
topologyManagerScope: node
shutdownGracePeriod: 500ms
shutdownGracePeriodCriticalPods: 2s
memorySwap: {swapBehavior: Unlimited}
crashLoopBackOff: {maxContainerRestartPeriod: 301s}
enforceNodeAllocatable: [pods, none, system-reserved, kube]
reservedSystemCPUs: 3-1
containerLogMaxWorkers: 0
containerLogMaxFiles: 1
containerLogMonitorInterval: 1s
containerLogMaxSize: big
podLogsDir: /var/../log
containerRuntimeEndpoint: tcp://1.2.3.4:5
kubeReserved: {gpu: "1", cpu: "-1", memory: 1GiB}
evictionHard: {memory.free: 1Gi, memory.available: "-5%"}
evictionSoft: {nodefs.available: 10%}
clusterDNS: [dns.example]
logging: {format: xml, verbosity: -1}
featureGates: {KubeletPSI: false, MemoryQos: true}
userNamespaces: {idsPerPod: 1000}
tlsCertFile: /a
authorization: {mode: RBAC}
"#;

#[test]
fn values_out_of_range_are_reported_together() {
    let errors = errors_of(
        OUT_OF_RANGE,
        &[
            "--node-labels=kubernetes.io/role=x,a b=c",
            "--cloud-provider=aws",
            "--root-dir=k",
        ],
    );
    insta::assert_snapshot!(errors, @r#"
    48 errors in the configuration
      {dir}/config.yaml:3:27: nodeLeaseDurationSeconds: must be greater than 0
      {dir}/config.yaml:4:16: systemCgroups: needs cgroupRoot
      {dir}/config.yaml:5:13: eventBurst: must not be negative
      {dir}/config.yaml:6:14: healthzPort: must be from 1 to 65535, is 70000
      {dir}/config.yaml:7:20: cpuCFSQuotaPeriod: must be from 1ms to 1s, is 2s
      {dir}/config.yaml:8:30: imageGCHighThresholdPercent: imageGCLowThresholdPercent (80) must be less than imageGCHighThresholdPercent (50)
      {dir}/config.yaml:9:20: imageMaximumGCAge: must be greater than imageMinimumGCAge (2m0s)
      {dir}/config.yaml:10:18: iptablesDropBit: must be from 0 to 31, is 32
      {dir}/config.yaml:11:22: nodeStatusMaxImages: must be -1 or greater
      {dir}/config.yaml:12:10: maxPods: must not be negative
      {dir}/config.yaml:13:14: oomScoreAdj: must be from -1000 to 1000, is 1001
      {dir}/config.yaml:14:24: maxParallelImagePulls: must be greater than 0
      {dir}/config.yaml:15:10: runOnce: must not be true; the mode is gone
      {dir}/config.yaml:17:9: registerWithTaints[0].key: "a b" is not a valid taint key
      {dir}/config.yaml:17:24: registerWithTaints[0].effect: must be one of "NoSchedule", "PreferNoSchedule", "NoExecute", is "Never"
      {dir}/config.yaml:18:23: topologyManagerScope: must be one of "container", "pod", is "node"
      {dir}/config.yaml:19:22: shutdownGracePeriod: must be 0 or at least 1s
      {dir}/config.yaml:20:34: shutdownGracePeriodCriticalPods: must be at most shutdownGracePeriod (500ms)
      {dir}/config.yaml:21:28: memorySwap.swapBehavior: must be one of "NoSwap", "LimitedSwap", is "Unlimited"
      {dir}/config.yaml:22:47: crashLoopBackOff.maxContainerRestartPeriod: must be from 1s to 5m0s, is 5m1s
      {dir}/config.yaml:23:25: enforceNodeAllocatable: "system-reserved" needs systemReservedCgroup
      {dir}/config.yaml:23:25: enforceNodeAllocatable: "none" cannot be combined with others
      {dir}/config.yaml:23:25: enforceNodeAllocatable: "kube" is not one of none, pods, system-reserved, kube-reserved, system-reserved-compressible, kube-reserved-compressible
      {dir}/config.yaml:24:21: reservedSystemCPUs: "3-1" is not a list of CPUs like "0-3,8"
      {dir}/config.yaml:25:25: containerLogMaxWorkers: must be at least 1
      {dir}/config.yaml:26:23: containerLogMaxFiles: must be at least 2
      {dir}/config.yaml:27:30: containerLogMonitorInterval: must be at least 3s
      {dir}/config.yaml:28:22: containerLogMaxSize: "big" is not a quantity like "10Mi"
      {dir}/config.yaml:29:13: podLogsDir: must be an absolute path without ".", ".." or empty parts
      {dir}/config.yaml:30:27: containerRuntimeEndpoint: "tcp://1.2.3.4:5" is not a Unix socket like "unix:///run/containerd/containerd.sock"
      {dir}/config.yaml:31:21: kubeReserved.gpu: "gpu" is not one of cpu, memory, ephemeral-storage, pid
      {dir}/config.yaml:31:31: kubeReserved.cpu: must not be negative
      {dir}/config.yaml:31:45: kubeReserved.memory: "1GiB" is not a quantity like "100m" or "1Gi"
      {dir}/config.yaml:32:29: evictionHard.memory.free: "memory.free" is not an eviction signal
      {dir}/config.yaml:32:52: evictionHard.memory.available: "-5%" is not between 0% and 100%
      {dir}/config.yaml:33:34: evictionSoft.nodefs.available: needs a period in evictionSoftGracePeriod
      {dir}/config.yaml:34:14: clusterDNS[0]: "dns.example" is not an IP address
      {dir}/config.yaml:35:19: logging.format: must be one of "text", "json", is "xml"
      {dir}/config.yaml:35:35: logging.verbosity: must be from 0 to 2147483647
      {dir}/config.yaml:36:28: featureGates.KubeletPSI: KubeletPSI is locked to true
      {dir}/config.yaml:36:46: featureGates.MemoryQos: MemoryQos is no feature gate (did you mean "MemoryQoS"?)
      {dir}/config.yaml:37:29: userNamespaces.idsPerPod: must be a multiple of 65536, is 1000
      {dir}/config.yaml:38:14: tlsCertFile: tlsCertFile and tlsPrivateKeyFile go together
      {dir}/config.yaml:39:23: authorization.mode: must be one of "Webhook", "AlwaysAllow", is "RBAC"
      --node-labels: a node may not set the label "kubernetes.io/role"; in the kubernetes.io and k8s.io namespaces it may set kubernetes.io/hostname, kubernetes.io/os, kubernetes.io/arch, beta.kubernetes.io/os, beta.kubernetes.io/arch, beta.kubernetes.io/instance-type, node.kubernetes.io/instance-type, topology.kubernetes.io/zone, topology.kubernetes.io/region, failure-domain.beta.kubernetes.io/zone, failure-domain.beta.kubernetes.io/region and keys below kubelet.kubernetes.io and node.kubernetes.io
      --node-labels: "a b" is not a valid label key
      --cloud-provider: must be empty or "external", is "aws"
      --root-dir: must be an absolute path without ".", ".." or empty parts
    "#);
}

/// Fields, flags, and the one error they make.
const RULES: &[(&str, &[&str], &str)] = &[
    (
        "serializeImagePulls: true\nmaxParallelImagePulls: 3",
        &[],
        "maxParallelImagePulls: must be 1 as long as serializeImagePulls is true",
    ),
    (
        "imageGCLowThresholdPercent: 85",
        &[],
        "imageGCLowThresholdPercent: imageGCLowThresholdPercent (85) must be less than imageGCHighThresholdPercent (85)",
    ),
    (
        "cgroupsPerQOS: false",
        &[],
        "cgroupsPerQOS: must not be false unless enforceNodeAllocatable is empty or [\"none\"]",
    ),
    (
        "",
        &["--cgroups-per-qos=false"],
        "--cgroups-per-qos: must not be false unless enforceNodeAllocatable is empty or [\"none\"]",
    ),
    (
        "kubeReservedCgroup: /k\nreservedSystemCPUs: 0-1",
        &[],
        "kubeReservedCgroup: cannot be combined with reservedSystemCPUs",
    ),
    (
        "enableSystemLogQuery: true\nenableSystemLogHandler: false",
        &[],
        "enableSystemLogQuery: needs enableSystemLogHandler",
    ),
    (
        "preloadedImagesVerificationAllowlist: [docker.io/library/a]",
        &[],
        "preloadedImagesVerificationAllowlist: needs imagePullCredentialsVerificationPolicy \"NeverVerifyAllowlistedImages\"",
    ),
    (
        "shutdownGracePeriod: 30s\nshutdownGracePeriodByPodPriority: [{priority: 1, shutdownGracePeriodSeconds: 1}]",
        &[],
        "shutdownGracePeriodByPodPriority: excludes shutdownGracePeriod and shutdownGracePeriodCriticalPods",
    ),
    (
        "crashLoopBackOff: {maxContainerRestartPeriod: 10s}",
        &["--feature-gates=KubeletCrashLoopBackOffMax=false"],
        "crashLoopBackOff.maxContainerRestartPeriod: needs the feature gate KubeletCrashLoopBackOffMax",
    ),
    (
        "cpuCFSQuotaPeriod: 10ms\nfeatureGates: {CustomCPUCFSQuotaPeriod: false}",
        &[],
        "cpuCFSQuotaPeriod: needs the feature gate CustomCPUCFSQuotaPeriod",
    ),
    (
        "memoryReservationPolicy: TieredReservation",
        &[],
        "memoryReservationPolicy: needs the feature gate MemoryQoS",
    ),
    (
        "reservedMemory: [{numaNode: 0, limits: {memory: 1Gi}}, {numaNode: 0, limits: {memory: 1Gi}}]",
        &[],
        "reservedMemory[1].limits: memory of node 0 is repeated",
    ),
    (
        "",
        &["--bootstrap-kubeconfig=/b"],
        "--bootstrap-kubeconfig: needs --kubeconfig, which says where to write the credentials",
    ),
    (
        "",
        &["--exit-on-lock-contention"],
        "--exit-on-lock-contention: needs --lock-file",
    ),
];

#[test]
fn rules_between_fields_name_the_field_that_was_written() {
    for (fields, flags, expected) in RULES {
        let errors = errors_of(fields, flags);
        assert!(errors.contains(expected), "{fields}: {errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
    }
}

#[test]
fn only_sysctls_of_a_pods_own_can_be_allowed() {
    let errors = errors_of("allowedUnsafeSysctls: [net.core.*, vm.swappiness]", &[]);
    insta::assert_snapshot!(errors, @r#"{dir}/config.yaml:3:23: allowedUnsafeSysctls: "vm.swappiness" is not known to be a pod's own (kernel.shm*, kernel.msg*, kernel.sem, fs.mqueue.*, net.*)"#);
}
