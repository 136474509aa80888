//! Every flag of kube-proxy that sets a field of `KubeProxyConfiguration`. A row is a fact
//! about upstream's command line.

use super::Form::{Bool, Gates, Integer, Ip, List, Modules, Number, Text};
use super::{FieldFlag, flag};

#[rustfmt::skip]
pub(super) const FIELD_FLAGS: &[FieldFlag] = &[
    flag("bind-address", "bindAddress", Ip),
    flag("bind-address-hard-fail", "bindAddressHardFail", Bool),
    flag("cluster-cidr", "clusterCIDR", Text),
    flag("config-sync-period", "configSyncPeriod", Text),
    flag("conntrack-max-per-core", "conntrack.maxPerCore", Integer),
    flag("conntrack-min", "conntrack.min", Integer),
    flag("conntrack-tcp-be-liberal", "conntrack.tcpBeLiberal", Bool),
    flag("conntrack-tcp-timeout-close-wait", "conntrack.tcpCloseWaitTimeout", Text),
    flag("conntrack-tcp-timeout-established", "conntrack.tcpEstablishedTimeout", Text),
    flag("conntrack-udp-timeout", "conntrack.udpTimeout", Text),
    flag("conntrack-udp-timeout-stream", "conntrack.udpStreamTimeout", Text),
    flag("detect-local-mode", "detectLocalMode", Text),
    flag("feature-gates", "featureGates", Gates),
    flag("healthz-bind-address", "healthzBindAddress", Text),
    flag("iptables-localhost-nodeports", "iptables.localhostNodePorts", Bool),
    flag("iptables-masquerade-bit", "iptables.masqueradeBit", Integer),
    flag("iptables-min-sync-period", "iptables.minSyncPeriod", Text),
    flag("iptables-sync-period", "iptables.syncPeriod", Text),
    flag("ipvs-exclude-cidrs", "ipvs.excludeCIDRs", List),
    flag("ipvs-min-sync-period", "ipvs.minSyncPeriod", Text),
    flag("ipvs-scheduler", "ipvs.scheduler", Text),
    flag("ipvs-strict-arp", "ipvs.strictARP", Bool),
    flag("ipvs-sync-period", "ipvs.syncPeriod", Text),
    flag("ipvs-tcp-timeout", "ipvs.tcpTimeout", Text),
    flag("ipvs-tcpfin-timeout", "ipvs.tcpFinTimeout", Text),
    flag("ipvs-udp-timeout", "ipvs.udpTimeout", Text),
    flag("kube-api-burst", "clientConnection.burst", Integer),
    flag("kube-api-content-type", "clientConnection.contentType", Text),
    flag("kube-api-qps", "clientConnection.qps", Number),
    flag("kubeconfig", "clientConnection.kubeconfig", Text),
    flag("log-flush-frequency", "logging.flushFrequency", Text),
    flag("log-json-info-buffer-size", "logging.options.json.infoBufferSize", Text),
    flag("log-json-split-stream", "logging.options.json.splitStream", Bool),
    flag("log-text-info-buffer-size", "logging.options.text.infoBufferSize", Text),
    flag("log-text-split-stream", "logging.options.text.splitStream", Bool),
    flag("logging-format", "logging.format", Text),
    flag("masquerade-all", "iptables.masqueradeAll", Bool),
    flag("metrics-bind-address", "metricsBindAddress", Text),
    flag("nodeport-addresses", "nodePortAddresses", List),
    flag("oom-score-adj", "oomScoreAdj", Integer),
    flag("pod-bridge-interface", "detectLocal.bridgeInterface", Text),
    flag("pod-interface-name-prefix", "detectLocal.interfaceNamePrefix", Text),
    flag("profiling", "enableProfiling", Bool),
    flag("proxy-mode", "mode", Text),
    flag("show-hidden-metrics-for-version", "showHiddenMetricsForVersion", Text),
    flag("v", "logging.verbosity", Integer),
    flag("vmodule", "logging.vmodule", Modules),
];

/// Flags upstream still reads and advises against, with what to write instead.
pub(super) const REMOVED: &[(&str, &str)] = &[
    (
        "healthz-port",
        "set the port in --healthz-bind-address, or nothing there to turn it off",
    ),
    (
        "metrics-port",
        "set the port in --metrics-bind-address, or nothing there to turn it off",
    ),
];
