//! Which fields this agent honours, and what it says about the others.
//!
//! Every field of the file format has a row here; a test holds the table complete, so no
//! field can be read and silently dropped. Whoever makes a field work changes its row.

use super::error::{ConfigError, ConfigWarning, Problem};
use super::schema::{Leaf, Read};

/// What becomes of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Support {
    /// It does what it says.
    Honoured,
    /// It cannot make a difference: upstream ignores it too, or it tunes a mechanism this
    /// agent does without.
    Immaterial,
    /// Setting it to anything but its default gets a warning.
    NotYet,
    /// It does something, and not all; the warning says what.
    Partly(&'static str),
    /// Setting it to anything but its default is refused, as pods would run with less
    /// isolation than was asked for.
    Refused,
}
use Support::{Honoured, Immaterial, NotYet, Partly, Refused};

pub(super) const TABLE: &[(&str, Support)] = &[
    ("apiVersion", Immaterial),
    ("kind", Immaterial),
    ("enableServer", Honoured),
    ("staticPodPath", Honoured),
    ("podLogsDir", Honoured),
    ("syncFrequency", Immaterial),
    ("fileCheckFrequency", Honoured),
    ("httpCheckFrequency", Immaterial),
    ("staticPodURL", NotYet),
    ("staticPodURLHeader", NotYet),
    ("address", Honoured),
    ("port", Honoured),
    ("readOnlyPort", Honoured),
    ("tlsCertFile", Honoured),
    ("tlsPrivateKeyFile", Honoured),
    (
        "tlsCipherSuites",
        Partly(
            "only ECDHE suites with AES-GCM or ChaCha20-Poly1305 are spoken, the others are left out",
        ),
    ),
    ("tlsCurvePreferences", NotYet),
    ("tlsMinVersion", Honoured),
    ("rotateCertificates", Honoured),
    ("serverTLSBootstrap", Honoured),
    ("authentication.x509.clientCAFile", Honoured),
    ("authentication.webhook.enabled", Honoured),
    ("authentication.webhook.cacheTTL", Honoured),
    ("authentication.anonymous.enabled", Honoured),
    ("authorization.mode", Honoured),
    ("authorization.webhook.cacheAuthorizedTTL", Honoured),
    ("authorization.webhook.cacheUnauthorizedTTL", Honoured),
    ("registryPullQPS", Honoured),
    ("registryBurst", Honoured),
    ("imagePullCredentialsVerificationPolicy", Honoured),
    ("preloadedImagesVerificationAllowlist", Honoured),
    ("eventRecordQPS", Honoured),
    ("eventBurst", Honoured),
    ("enableDebuggingHandlers", Honoured),
    ("enableContentionProfiling", Immaterial),
    ("healthzPort", Honoured),
    ("healthzBindAddress", Honoured),
    ("oomScoreAdj", Honoured),
    ("clusterDomain", Honoured),
    ("clusterDNS", Honoured),
    ("streamingConnectionIdleTimeout", Immaterial),
    ("nodeStatusUpdateFrequency", Honoured),
    ("nodeStatusReportFrequency", Honoured),
    ("nodeLeaseDurationSeconds", Honoured),
    ("imageMinimumGCAge", NotYet),
    ("imageMaximumGCAge", NotYet),
    ("imageGCHighThresholdPercent", NotYet),
    ("imageGCLowThresholdPercent", NotYet),
    ("volumeStatsAggPeriod", Honoured),
    ("kubeletCgroups", NotYet),
    ("systemCgroups", NotYet),
    ("cgroupRoot", Honoured),
    ("cgroupsPerQOS", Honoured),
    ("cgroupDriver", Honoured),
    ("cpuManagerPolicy", Refused),
    ("singleProcessOOMKill", Honoured),
    ("cpuManagerPolicyOptions", NotYet),
    ("cpuManagerReconcilePeriod", Immaterial),
    ("memoryManagerPolicy", Refused),
    ("topologyManagerPolicy", Refused),
    ("topologyManagerScope", Immaterial),
    ("topologyManagerPolicyOptions", NotYet),
    ("qosReserved", NotYet),
    ("runtimeRequestTimeout", Honoured),
    ("hairpinMode", Immaterial),
    ("maxPods", Honoured),
    ("podCIDR", NotYet),
    ("podPidsLimit", Honoured),
    ("resolvConf", Honoured),
    ("runOnce", Immaterial),
    ("cpuCFSQuota", Honoured),
    ("cpuCFSQuotaPeriod", Honoured),
    ("nodeStatusMaxImages", Honoured),
    ("maxOpenFiles", Honoured),
    ("contentType", Immaterial),
    ("kubeAPIQPS", Honoured),
    ("kubeAPIBurst", Honoured),
    ("serializeImagePulls", Honoured),
    ("maxParallelImagePulls", Honoured),
    (
        "evictionHard",
        Partly("only lowers the node's allocatable resources; eviction is not supported yet"),
    ),
    ("evictionSoft", NotYet),
    ("evictionSoftGracePeriod", NotYet),
    ("evictionPressureTransitionPeriod", Honoured),
    ("evictionMaxPodGracePeriod", NotYet),
    ("evictionMinimumReclaim", NotYet),
    ("mergeDefaultEvictionSettings", Honoured),
    ("podsPerCore", Honoured),
    ("enableControllerAttachDetach", Honoured),
    ("protectKernelDefaults", Honoured),
    ("makeIPTablesUtilChains", Immaterial),
    ("iptablesMasqueradeBit", Immaterial),
    ("iptablesDropBit", Immaterial),
    ("featureGates", Honoured),
    ("failSwapOn", Honoured),
    ("memorySwap.swapBehavior", NotYet),
    ("containerLogMaxSize", Honoured),
    ("containerLogMaxFiles", Honoured),
    ("containerLogMaxWorkers", Honoured),
    ("containerLogMonitorInterval", Honoured),
    ("configMapAndSecretChangeDetectionStrategy", Immaterial),
    ("systemReserved", Honoured),
    ("kubeReserved", Honoured),
    ("reservedSystemCPUs", Honoured),
    ("showHiddenMetricsForVersion", NotYet),
    ("systemReservedCgroup", Honoured),
    ("kubeReservedCgroup", Honoured),
    ("enforceNodeAllocatable", Honoured),
    ("allowedUnsafeSysctls", Honoured),
    ("volumePluginDir", NotYet),
    ("providerID", Honoured),
    ("kernelMemcgNotification", Immaterial),
    ("logging.format", Honoured),
    ("logging.flushFrequency", Immaterial),
    ("logging.verbosity", Honoured),
    ("logging.vmodule", Honoured),
    ("logging.options.text.splitStream", NotYet),
    ("logging.options.text.infoBufferSize", NotYet),
    ("logging.options.json.splitStream", NotYet),
    ("logging.options.json.infoBufferSize", NotYet),
    ("enableSystemLogHandler", Honoured),
    ("enableSystemLogQuery", Honoured),
    ("shutdownGracePeriod", NotYet),
    ("shutdownGracePeriodCriticalPods", NotYet),
    ("shutdownGracePeriodByPodPriority", NotYet),
    ("crashLoopBackOff.maxContainerRestartPeriod", Honoured),
    ("reservedMemory", NotYet),
    ("enableProfilingHandler", Immaterial),
    ("enableDebugFlagsHandler", NotYet),
    ("seccompDefault", Honoured),
    ("memoryThrottlingFactor", NotYet),
    ("memoryReservationPolicy", NotYet),
    ("registerWithTaints", Honoured),
    ("registerNode", Honoured),
    ("tracing.endpoint", NotYet),
    ("tracing.samplingRatePerMillion", NotYet),
    ("localStorageCapacityIsolation", Honoured),
    ("containerRuntimeEndpoint", Honoured),
    ("imageServiceEndpoint", Honoured),
    ("failCgroupV1", Honoured),
    ("userNamespaces.idsPerPod", Honoured),
];

/// What becomes of a field of `KubeletConfiguration`.
pub(super) fn support(path: &str) -> Option<Support> {
    TABLE
        .iter()
        .find(|(field, _)| *field == path)
        .map(|(_, support)| *support)
}

/// Compares what was set with the defaults and says what will not happen.
pub(super) fn review<T: Read>(
    given: &T,
    defaults: &T,
    support: impl Fn(&str) -> Option<Support>,
) -> (Vec<ConfigWarning>, Vec<ConfigError>) {
    let mut warnings = Vec::new();
    let mut errors = Vec::new();
    for leaf in changed(given, defaults) {
        match support(&leaf.path) {
            Some(Honoured | Immaterial) => {}
            Some(Partly(what)) => warnings.push(warning(leaf, what)),
            Some(NotYet) | None => {
                warnings.push(warning(leaf, "is not supported yet and has no effect"));
            }
            Some(Refused) => errors.push(ConfigError {
                problem: Problem::Unsupported(leaf.shown.unwrap_or_default()),
                origin: leaf.origin,
                field: leaf.path,
            }),
        }
    }
    (warnings, errors)
}

/// Fields a person set to something else than the default.
pub(super) fn changed<T: Read>(given: &T, defaults: &T) -> Vec<Leaf> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    given.leaves(&mut ours);
    defaults.leaves(&mut theirs);
    ours.into_iter()
        .zip(theirs)
        .filter(|(ours, theirs)| ours.origin.is_given() && ours.shown != theirs.shown)
        .map(|(ours, _)| ours)
        .collect()
}

fn warning(leaf: Leaf, message: &str) -> ConfigWarning {
    ConfigWarning {
        origin: leaf.origin,
        field: leaf.path,
        message: message.to_owned(),
    }
}
