//! The fields of `KubeletConfiguration` (`kubelet.config.k8s.io/v1beta1`, Kubernetes 1.36),
//! under the names and with the types they have in a file. Nothing here is defaulted.

use std::collections::BTreeMap;

use serde::Serialize;

use super::document::{Node, Value};
use super::duration::GoDuration;
use super::error::ConfigError;
use super::schema::{FromNode, Setting, object};

/// A map whose entries several files and flags may have contributed to.
pub(super) type TextMap = BTreeMap<String, Setting<String>>;

object! {
    /// A whole configuration file, or several laid over each other.
    KubeletConfiguration {
        api_version: Setting<String> = "apiVersion",
        kind: Setting<String> = "kind",
        enable_server: Setting<bool> = "enableServer",
        static_pod_path: Setting<String> = "staticPodPath",
        pod_logs_dir: Setting<String> = "podLogsDir",
        sync_frequency: Setting<GoDuration> = "syncFrequency",
        file_check_frequency: Setting<GoDuration> = "fileCheckFrequency",
        http_check_frequency: Setting<GoDuration> = "httpCheckFrequency",
        static_pod_url: Setting<String> = "staticPodURL",
        static_pod_url_header: Setting<BTreeMap<String, Vec<String>>> = "staticPodURLHeader",
        address: Setting<String> = "address",
        port: Setting<i32> = "port",
        read_only_port: Setting<i32> = "readOnlyPort",
        tls_cert_file: Setting<String> = "tlsCertFile",
        tls_private_key_file: Setting<String> = "tlsPrivateKeyFile",
        tls_cipher_suites: Setting<Vec<String>> = "tlsCipherSuites",
        tls_curve_preferences: Setting<Vec<i32>> = "tlsCurvePreferences",
        tls_min_version: Setting<String> = "tlsMinVersion",
        rotate_certificates: Setting<bool> = "rotateCertificates",
        server_tls_bootstrap: Setting<bool> = "serverTLSBootstrap",
        authentication: Authentication = "authentication",
        authorization: Authorization = "authorization",
        registry_pull_qps: Setting<i32> = "registryPullQPS",
        registry_burst: Setting<i32> = "registryBurst",
        image_pull_credentials_verification_policy: Setting<String> = "imagePullCredentialsVerificationPolicy",
        preloaded_images_verification_allowlist: Setting<Vec<String>> = "preloadedImagesVerificationAllowlist",
        event_record_qps: Setting<i32> = "eventRecordQPS",
        event_burst: Setting<i32> = "eventBurst",
        enable_debugging_handlers: Setting<bool> = "enableDebuggingHandlers",
        enable_contention_profiling: Setting<bool> = "enableContentionProfiling",
        healthz_port: Setting<i32> = "healthzPort",
        healthz_bind_address: Setting<String> = "healthzBindAddress",
        oom_score_adj: Setting<i32> = "oomScoreAdj",
        cluster_domain: Setting<String> = "clusterDomain",
        cluster_dns: Setting<Vec<Setting<String>>> = "clusterDNS",
        streaming_connection_idle_timeout: Setting<GoDuration> = "streamingConnectionIdleTimeout",
        node_status_update_frequency: Setting<GoDuration> = "nodeStatusUpdateFrequency",
        node_status_report_frequency: Setting<GoDuration> = "nodeStatusReportFrequency",
        node_lease_duration_seconds: Setting<i32> = "nodeLeaseDurationSeconds",
        image_minimum_gc_age: Setting<GoDuration> = "imageMinimumGCAge",
        image_maximum_gc_age: Setting<GoDuration> = "imageMaximumGCAge",
        image_gc_high_threshold_percent: Setting<i32> = "imageGCHighThresholdPercent",
        image_gc_low_threshold_percent: Setting<i32> = "imageGCLowThresholdPercent",
        volume_stats_agg_period: Setting<GoDuration> = "volumeStatsAggPeriod",
        kubelet_cgroups: Setting<String> = "kubeletCgroups",
        system_cgroups: Setting<String> = "systemCgroups",
        cgroup_root: Setting<String> = "cgroupRoot",
        cgroups_per_qos: Setting<bool> = "cgroupsPerQOS",
        cgroup_driver: Setting<String> = "cgroupDriver",
        cpu_manager_policy: Setting<String> = "cpuManagerPolicy",
        single_process_oom_kill: Setting<bool> = "singleProcessOOMKill",
        cpu_manager_policy_options: Setting<BTreeMap<String, String>> = "cpuManagerPolicyOptions",
        cpu_manager_reconcile_period: Setting<GoDuration> = "cpuManagerReconcilePeriod",
        memory_manager_policy: Setting<String> = "memoryManagerPolicy",
        topology_manager_policy: Setting<String> = "topologyManagerPolicy",
        topology_manager_scope: Setting<String> = "topologyManagerScope",
        topology_manager_policy_options: Setting<BTreeMap<String, String>> = "topologyManagerPolicyOptions",
        qos_reserved: Setting<BTreeMap<String, String>> = "qosReserved",
        runtime_request_timeout: Setting<GoDuration> = "runtimeRequestTimeout",
        hairpin_mode: Setting<String> = "hairpinMode",
        max_pods: Setting<i32> = "maxPods",
        pod_cidr: Setting<String> = "podCIDR",
        pod_pids_limit: Setting<i64> = "podPidsLimit",
        resolv_conf: Setting<String> = "resolvConf",
        run_once: Setting<bool> = "runOnce",
        cpu_cfs_quota: Setting<bool> = "cpuCFSQuota",
        cpu_cfs_quota_period: Setting<GoDuration> = "cpuCFSQuotaPeriod",
        node_status_max_images: Setting<i32> = "nodeStatusMaxImages",
        max_open_files: Setting<i64> = "maxOpenFiles",
        content_type: Setting<String> = "contentType",
        kube_api_qps: Setting<i32> = "kubeAPIQPS",
        kube_api_burst: Setting<i32> = "kubeAPIBurst",
        serialize_image_pulls: Setting<bool> = "serializeImagePulls",
        max_parallel_image_pulls: Setting<i32> = "maxParallelImagePulls",
        eviction_hard: Setting<TextMap> = "evictionHard",
        eviction_soft: Setting<TextMap> = "evictionSoft",
        eviction_soft_grace_period: Setting<TextMap> = "evictionSoftGracePeriod",
        eviction_pressure_transition_period: Setting<GoDuration> = "evictionPressureTransitionPeriod",
        eviction_max_pod_grace_period: Setting<i32> = "evictionMaxPodGracePeriod",
        eviction_minimum_reclaim: Setting<TextMap> = "evictionMinimumReclaim",
        merge_default_eviction_settings: Setting<bool> = "mergeDefaultEvictionSettings",
        pods_per_core: Setting<i32> = "podsPerCore",
        enable_controller_attach_detach: Setting<bool> = "enableControllerAttachDetach",
        protect_kernel_defaults: Setting<bool> = "protectKernelDefaults",
        make_iptables_util_chains: Setting<bool> = "makeIPTablesUtilChains",
        iptables_masquerade_bit: Setting<i32> = "iptablesMasqueradeBit",
        iptables_drop_bit: Setting<i32> = "iptablesDropBit",
        feature_gates: Setting<BTreeMap<String, Setting<bool>>> = "featureGates",
        fail_swap_on: Setting<bool> = "failSwapOn",
        memory_swap: MemorySwap = "memorySwap",
        container_log_max_size: Setting<String> = "containerLogMaxSize",
        container_log_max_files: Setting<i32> = "containerLogMaxFiles",
        container_log_max_workers: Setting<i32> = "containerLogMaxWorkers",
        container_log_monitor_interval: Setting<GoDuration> = "containerLogMonitorInterval",
        change_detection_strategy: Setting<String> = "configMapAndSecretChangeDetectionStrategy",
        system_reserved: Setting<TextMap> = "systemReserved",
        kube_reserved: Setting<TextMap> = "kubeReserved",
        reserved_system_cpus: Setting<String> = "reservedSystemCPUs",
        show_hidden_metrics_for_version: Setting<String> = "showHiddenMetricsForVersion",
        system_reserved_cgroup: Setting<String> = "systemReservedCgroup",
        kube_reserved_cgroup: Setting<String> = "kubeReservedCgroup",
        enforce_node_allocatable: Setting<Vec<String>> = "enforceNodeAllocatable",
        allowed_unsafe_sysctls: Setting<Vec<String>> = "allowedUnsafeSysctls",
        volume_plugin_dir: Setting<String> = "volumePluginDir",
        provider_id: Setting<String> = "providerID",
        kernel_memcg_notification: Setting<bool> = "kernelMemcgNotification",
        logging: Logging = "logging",
        enable_system_log_handler: Setting<bool> = "enableSystemLogHandler",
        enable_system_log_query: Setting<bool> = "enableSystemLogQuery",
        shutdown_grace_period: Setting<GoDuration> = "shutdownGracePeriod",
        shutdown_grace_period_critical_pods: Setting<GoDuration> = "shutdownGracePeriodCriticalPods",
        shutdown_grace_period_by_pod_priority: Setting<Vec<ShutdownGracePeriodByPodPriority>> = "shutdownGracePeriodByPodPriority",
        crash_loop_back_off: CrashLoopBackOff = "crashLoopBackOff",
        reserved_memory: Setting<Vec<MemoryReservation>> = "reservedMemory",
        enable_profiling_handler: Setting<bool> = "enableProfilingHandler",
        enable_debug_flags_handler: Setting<bool> = "enableDebugFlagsHandler",
        seccomp_default: Setting<bool> = "seccompDefault",
        memory_throttling_factor: Setting<f64> = "memoryThrottlingFactor",
        memory_reservation_policy: Setting<String> = "memoryReservationPolicy",
        register_with_taints: Setting<Vec<Taint>> = "registerWithTaints",
        register_node: Setting<bool> = "registerNode",
        tracing: Tracing = "tracing",
        local_storage_capacity_isolation: Setting<bool> = "localStorageCapacityIsolation",
        container_runtime_endpoint: Setting<String> = "containerRuntimeEndpoint",
        image_service_endpoint: Setting<String> = "imageServiceEndpoint",
        fail_cgroup_v1: Setting<bool> = "failCgroupV1",
        user_namespaces: UserNamespaces = "userNamespaces",
    }

    /// `authentication`.
    Authentication {
        x509: X509Authentication = "x509",
        webhook: WebhookAuthentication = "webhook",
        anonymous: AnonymousAuthentication = "anonymous",
    }

    /// `authentication.x509`.
    X509Authentication {
        client_ca_file: Setting<String> = "clientCAFile",
    }

    /// `authentication.webhook`.
    WebhookAuthentication {
        enabled: Setting<bool> = "enabled",
        cache_ttl: Setting<GoDuration> = "cacheTTL",
    }

    /// `authentication.anonymous`.
    AnonymousAuthentication {
        enabled: Setting<bool> = "enabled",
    }

    /// `authorization`.
    Authorization {
        mode: Setting<String> = "mode",
        webhook: WebhookAuthorization = "webhook",
    }

    /// `authorization.webhook`.
    WebhookAuthorization {
        cache_authorized_ttl: Setting<GoDuration> = "cacheAuthorizedTTL",
        cache_unauthorized_ttl: Setting<GoDuration> = "cacheUnauthorizedTTL",
    }

    /// `memorySwap`.
    MemorySwap {
        swap_behavior: Setting<String> = "swapBehavior",
    }

    /// `crashLoopBackOff`.
    CrashLoopBackOff {
        max_container_restart_period: Setting<GoDuration> = "maxContainerRestartPeriod",
    }

    /// `userNamespaces`.
    UserNamespaces {
        ids_per_pod: Setting<i64> = "idsPerPod",
    }

    /// `tracing`.
    Tracing {
        endpoint: Setting<String> = "endpoint",
        sampling_rate_per_million: Setting<i32> = "samplingRatePerMillion",
    }

    /// `logging`.
    Logging {
        format: Setting<String> = "format",
        flush_frequency: Setting<FlushFrequency> = "flushFrequency",
        verbosity: Setting<i64> = "verbosity",
        vmodule: Setting<Vec<VModuleItem>> = "vmodule",
        options: LoggingOptions = "options",
    }

    /// An item of `logging.vmodule`.
    VModuleItem {
        file_pattern: Setting<String> = "filePattern",
        verbosity: Setting<i64> = "verbosity",
    }

    /// `logging.options`.
    LoggingOptions {
        text: OutputRouting = "text",
        json: OutputRouting = "json",
    }

    /// `logging.options.text` and `.json`.
    OutputRouting {
        split_stream: Setting<bool> = "splitStream",
        info_buffer_size: Setting<QuantityText> = "infoBufferSize",
    }

    /// An item of `registerWithTaints`.
    Taint {
        key: Setting<String> = "key",
        value: Setting<String> = "value",
        effect: Setting<String> = "effect",
        time_added: Setting<String> = "timeAdded",
    }

    /// An item of `reservedMemory`.
    MemoryReservation {
        numa_node: Setting<i32> = "numaNode",
        limits: Setting<BTreeMap<String, QuantityText>> = "limits",
    }

    /// An item of `shutdownGracePeriodByPodPriority`.
    ShutdownGracePeriodByPodPriority {
        priority: Setting<i32> = "priority",
        shutdown_grace_period_seconds: Setting<i64> = "shutdownGracePeriodSeconds",
    }
}

/// `logging.flushFrequency`: nanoseconds as a number, or a duration as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub(super) struct FlushFrequency(pub(super) GoDuration);

impl FromNode for FlushFrequency {
    fn from_node(node: &Node, path: &str, errors: &mut Vec<ConfigError>) -> Option<Self> {
        match node.value {
            Value::Integer(nanos) => Some(Self(GoDuration::from_nanos(nanos))),
            _ => GoDuration::from_node(node, path, errors).map(Self),
        }
    }
}

/// A quantity, which a file may write as a number or as text.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub(super) struct QuantityText(pub(super) String);

impl FromNode for QuantityText {
    fn from_node(node: &Node, path: &str, errors: &mut Vec<ConfigError>) -> Option<Self> {
        match node.value {
            Value::Integer(number) => Some(Self(number.to_string())),
            Value::Float(number) => Some(Self(number.to_string())),
            _ => String::from_node(node, path, errors).map(Self),
        }
    }
}
