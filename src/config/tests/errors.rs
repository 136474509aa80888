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
    insta::assert_snapshot!(errors, @"");
}

#[test]
fn json_is_read_as_strictly() {
    let files = Files::new().with(
        "config.json",
        "{\"apiVersion\": \"kubelet.config.k8s.io/v1beta1\",\n \"kind\": \"KubeletConfiguration\",\n \
         \"maxPods\": 20,\n \"maxpods\": 21, \"healthzPort\": \"10248\"}\n",
    );
    insta::assert_snapshot!(files.errors(&["--config={dir}/config.json"]), @"");
}

#[test]
fn repeated_fields_are_errors() {
    let errors = errors_of(
        "maxPods: 1\nauthorization:\n  mode: Webhook\n  mode: AlwaysAllow\nmaxPods: 2\n",
        &[],
    );
    insta::assert_snapshot!(errors, @"");
}

#[test]
fn text_that_is_no_yaml_has_a_place() {
    insta::assert_snapshot!(errors_of("a: [1,\nb: {\n", &[]), @"");
    insta::assert_snapshot!(errors_of("maxPods: 1\n---\nmaxPods: 2\n", &[]), @"");
    insta::assert_snapshot!(Files::new().with("c.yaml", "").errors(&["--config={dir}/c.yaml"]), @"");
    insta::assert_snapshot!(Files::new().errors(&["--config={dir}/missing.yaml"]), @"");
}

#[test]
fn values_out_of_range_are_reported_together() {
    let errors = errors_of(
        r#"nodeLeaseDurationSeconds: -1
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
"#,
        &[
            "--node-labels=kubernetes.io/role=x,a b=c",
            "--cloud-provider=aws",
            "--root-dir=k",
        ],
    );
    insta::assert_snapshot!(errors, @"");
}

#[test]
fn rules_between_fields_name_the_field_that_was_written() {
    let table = [
        (
            "serializeImagePulls: true\nmaxParallelImagePulls: 3",
            &[][..],
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
            "preloadedImagesVerificationAllowlist: [a]",
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
    for (fields, flags, expected) in table {
        let errors = errors_of(fields, flags);
        assert!(errors.contains(expected), "{fields}: {errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
    }
}
