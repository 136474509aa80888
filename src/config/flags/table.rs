//! Every flag that sets a field of `KubeletConfiguration`, and flags that no longer do
//! anything. A row is a fact about upstream's command line.

use super::Form::{
    self, Bool, Gates, Headers, Integer, Ip, List, Map, Modules, Numa, Taints, Text, Thresholds,
};

/// A flag that sets a field.
pub(super) struct FieldFlag {
    /// Without dashes.
    pub(super) name: &'static str,
    /// Dotted path of the field.
    pub(super) field: &'static str,
    pub(super) form: Form,
}

const fn flag(name: &'static str, field: &'static str, form: Form) -> FieldFlag {
    FieldFlag { name, field, form }
}

pub(super) const FIELD_FLAGS: &[FieldFlag] = &[
    flag("address", "address", Ip),
    flag("allowed-unsafe-sysctls", "allowedUnsafeSysctls", List),
    flag("anonymous-auth", "authentication.anonymous.enabled", Bool),
    flag(
        "authentication-token-webhook",
        "authentication.webhook.enabled",
        Bool,
    ),
    flag(
        "authentication-token-webhook-cache-ttl",
        "authentication.webhook.cacheTTL",
        Text,
    ),
    flag("authorization-mode", "authorization.mode", Text),
    flag(
        "authorization-webhook-cache-authorized-ttl",
        "authorization.webhook.cacheAuthorizedTTL",
        Text,
    ),
    flag(
        "authorization-webhook-cache-unauthorized-ttl",
        "authorization.webhook.cacheUnauthorizedTTL",
        Text,
    ),
    flag("cgroup-driver", "cgroupDriver", Text),
    flag("cgroup-root", "cgroupRoot", Text),
    flag("cgroups-per-qos", "cgroupsPerQOS", Bool),
    flag("client-ca-file", "authentication.x509.clientCAFile", Text),
    flag("cluster-dns", "clusterDNS", List),
    flag("cluster-domain", "clusterDomain", Text),
    flag("container-log-max-files", "containerLogMaxFiles", Integer),
    flag("container-log-max-size", "containerLogMaxSize", Text),
    flag(
        "container-runtime-endpoint",
        "containerRuntimeEndpoint",
        Text,
    ),
    flag("contention-profiling", "enableContentionProfiling", Bool),
    flag("cpu-cfs-quota", "cpuCFSQuota", Bool),
    flag("cpu-cfs-quota-period", "cpuCFSQuotaPeriod", Text),
    flag("cpu-manager-policy", "cpuManagerPolicy", Text),
    flag("cpu-manager-policy-options", "cpuManagerPolicyOptions", Map),
    flag(
        "cpu-manager-reconcile-period",
        "cpuManagerReconcilePeriod",
        Text,
    ),
    flag(
        "enable-controller-attach-detach",
        "enableControllerAttachDetach",
        Bool,
    ),
    flag("enable-debugging-handlers", "enableDebuggingHandlers", Bool),
    flag("enable-server", "enableServer", Bool),
    flag("enforce-node-allocatable", "enforceNodeAllocatable", List),
    flag("event-burst", "eventBurst", Integer),
    flag("event-qps", "eventRecordQPS", Integer),
    flag("eviction-hard", "evictionHard", Thresholds),
    flag(
        "eviction-max-pod-grace-period",
        "evictionMaxPodGracePeriod",
        Integer,
    ),
    flag("eviction-minimum-reclaim", "evictionMinimumReclaim", Map),
    flag(
        "eviction-pressure-transition-period",
        "evictionPressureTransitionPeriod",
        Text,
    ),
    flag("eviction-soft", "evictionSoft", Thresholds),
    flag("eviction-soft-grace-period", "evictionSoftGracePeriod", Map),
    flag("fail-cgroupv1", "failCgroupV1", Bool),
    flag("fail-swap-on", "failSwapOn", Bool),
    flag("feature-gates", "featureGates", Gates),
    flag("file-check-frequency", "fileCheckFrequency", Text),
    flag("hairpin-mode", "hairpinMode", Text),
    flag("healthz-bind-address", "healthzBindAddress", Ip),
    flag("healthz-port", "healthzPort", Integer),
    flag("http-check-frequency", "httpCheckFrequency", Text),
    flag(
        "image-gc-high-threshold",
        "imageGCHighThresholdPercent",
        Integer,
    ),
    flag(
        "image-gc-low-threshold",
        "imageGCLowThresholdPercent",
        Integer,
    ),
    flag("image-service-endpoint", "imageServiceEndpoint", Text),
    flag("kernel-memcg-notification", "kernelMemcgNotification", Bool),
    flag("kube-api-burst", "kubeAPIBurst", Integer),
    flag("kube-api-content-type", "contentType", Text),
    flag("kube-api-qps", "kubeAPIQPS", Integer),
    flag("kube-reserved", "kubeReserved", Map),
    flag("kube-reserved-cgroup", "kubeReservedCgroup", Text),
    flag("kubelet-cgroups", "kubeletCgroups", Text),
    flag(
        "local-storage-capacity-isolation",
        "localStorageCapacityIsolation",
        Bool,
    ),
    flag("log-flush-frequency", "logging.flushFrequency", Text),
    flag(
        "log-json-info-buffer-size",
        "logging.options.json.infoBufferSize",
        Text,
    ),
    flag(
        "log-json-split-stream",
        "logging.options.json.splitStream",
        Bool,
    ),
    flag(
        "log-text-info-buffer-size",
        "logging.options.text.infoBufferSize",
        Text,
    ),
    flag(
        "log-text-split-stream",
        "logging.options.text.splitStream",
        Bool,
    ),
    flag("logging-format", "logging.format", Text),
    flag("make-iptables-util-chains", "makeIPTablesUtilChains", Bool),
    flag("manifest-url", "staticPodURL", Text),
    flag("manifest-url-header", "staticPodURLHeader", Headers),
    flag("max-open-files", "maxOpenFiles", Integer),
    flag("max-pods", "maxPods", Integer),
    flag("memory-manager-policy", "memoryManagerPolicy", Text),
    flag("minimum-image-ttl-duration", "imageMinimumGCAge", Text),
    flag("node-status-max-images", "nodeStatusMaxImages", Integer),
    flag(
        "node-status-update-frequency",
        "nodeStatusUpdateFrequency",
        Text,
    ),
    flag("oom-score-adj", "oomScoreAdj", Integer),
    flag("pod-cidr", "podCIDR", Text),
    flag("pod-manifest-path", "staticPodPath", Text),
    flag("pod-max-pids", "podPidsLimit", Integer),
    flag("pods-per-core", "podsPerCore", Integer),
    flag("port", "port", Integer),
    flag("protect-kernel-defaults", "protectKernelDefaults", Bool),
    flag("provider-id", "providerID", Text),
    flag("qos-reserved", "qosReserved", Map),
    flag("read-only-port", "readOnlyPort", Integer),
    flag("register-node", "registerNode", Bool),
    flag("register-with-taints", "registerWithTaints", Taints),
    flag("registry-burst", "registryBurst", Integer),
    flag("registry-qps", "registryPullQPS", Integer),
    flag("reserved-cpus", "reservedSystemCPUs", Text),
    flag("reserved-memory", "reservedMemory", Numa),
    flag("resolv-conf", "resolvConf", Text),
    flag("rotate-certificates", "rotateCertificates", Bool),
    flag("rotate-server-certificates", "serverTLSBootstrap", Bool),
    flag("runonce", "runOnce", Bool),
    flag("runtime-request-timeout", "runtimeRequestTimeout", Text),
    flag("seccomp-default", "seccompDefault", Bool),
    flag("serialize-image-pulls", "serializeImagePulls", Bool),
    flag(
        "streaming-connection-idle-timeout",
        "streamingConnectionIdleTimeout",
        Text,
    ),
    flag("sync-frequency", "syncFrequency", Text),
    flag("system-cgroups", "systemCgroups", Text),
    flag("system-reserved", "systemReserved", Map),
    flag("system-reserved-cgroup", "systemReservedCgroup", Text),
    flag("tls-cert-file", "tlsCertFile", Text),
    flag("tls-cipher-suites", "tlsCipherSuites", List),
    flag("tls-min-version", "tlsMinVersion", Text),
    flag("tls-private-key-file", "tlsPrivateKeyFile", Text),
    flag("topology-manager-policy", "topologyManagerPolicy", Text),
    flag(
        "topology-manager-policy-options",
        "topologyManagerPolicyOptions",
        Map,
    ),
    flag("topology-manager-scope", "topologyManagerScope", Text),
    flag("v", "logging.verbosity", Integer),
    flag("vmodule", "logging.vmodule", Modules),
    flag("volume-plugin-dir", "volumePluginDir", Text),
    flag("volume-stats-agg-period", "volumeStatsAggPeriod", Text),
];

/// Flags that mean nothing here: they tune parts upstream has and this agent has not.
pub(super) const IGNORED: &[&str] = &[
    "application-metrics-count-limit",
    "boot-id-file",
    "container-hints",
    "containerd",
    "containerd-namespace",
    "enable-load-reader",
    "event-storage-age-limit",
    "event-storage-event-limit",
    "experimental-mounter-path",
    "global-housekeeping-interval",
    "housekeeping-interval",
    "log-cadvisor-usage",
    "machine-id-file",
    "max-housekeeping-interval",
    "maximum-dead-containers",
    "maximum-dead-containers-per-container",
    "minimum-container-ttl-duration",
    "storage-driver-buffer-duration",
    "storage-driver-db",
    "storage-driver-host",
    "storage-driver-password",
    "storage-driver-secure",
    "storage-driver-table",
    "storage-driver-user",
];

/// Those of [`IGNORED`] that take no value, or `true` or `false`.
pub(super) const IGNORED_BOOLS: &[&str] = &[
    "enable-load-reader",
    "log-cadvisor-usage",
    "storage-driver-secure",
];

/// Flags of older kubelets, with what to do about them.
pub(super) const REMOVED: &[(&str, &str)] = &[
    (
        "pod-infra-container-image",
        "set the sandbox image in the container runtime's configuration",
    ),
    (
        "container-runtime",
        "remove it; the runtime is always a CRI socket, see --container-runtime-endpoint",
    ),
    (
        "network-plugin",
        "remove it; the container runtime runs CNI plugins itself",
    ),
    (
        "cni-bin-dir",
        "set the CNI directories in the container runtime's configuration",
    ),
    (
        "cni-conf-dir",
        "set the CNI directories in the container runtime's configuration",
    ),
    (
        "cni-cache-dir",
        "set the CNI directories in the container runtime's configuration",
    ),
    ("network-plugin-mtu", "set the MTU in the CNI configuration"),
    (
        "keep-terminated-pod-volumes",
        "remove it; volumes of terminated pods are always removed",
    ),
];
