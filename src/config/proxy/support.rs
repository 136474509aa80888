//! Which fields the service proxy honours, and what it says about the others.
//!
//! As in the agent's table, every field has a row, and a test holds it complete. Rules of
//! `logging` are the agent's.

use super::raw::KubeProxyConfiguration;
use crate::config::error::{ConfigError, ConfigWarning};
use crate::config::support::{self, Support};
use Support::{Honoured, Immaterial, NotYet, Partly};

const OTHER_MODE: Support = Partly("belongs to another proxy mode and has no effect");

#[rustfmt::skip]
pub(in crate::config) const TABLE: &[(&str, Support)] = &[
    ("apiVersion", Immaterial),
    ("kind", Immaterial),
    ("featureGates", Honoured),
    ("clientConnection.kubeconfig", Honoured),
    ("clientConnection.acceptContentTypes", Immaterial),
    ("clientConnection.contentType", Immaterial),
    ("clientConnection.qps", Honoured),
    ("clientConnection.burst", Honoured),
    ("hostnameOverride", Honoured),
    ("bindAddress", Honoured),
    ("healthzBindAddress", Honoured),
    ("metricsBindAddress", Honoured),
    ("bindAddressHardFail", Honoured),
    ("enableProfiling", NotYet),
    ("showHiddenMetricsForVersion", NotYet),
    ("mode", Honoured),
    ("iptables.masqueradeBit", Honoured),
    ("iptables.masqueradeAll", Honoured),
    ("iptables.localhostNodePorts", Honoured),
    ("iptables.syncPeriod", Honoured),
    ("iptables.minSyncPeriod", Honoured),
    ("ipvs.syncPeriod", OTHER_MODE),
    ("ipvs.minSyncPeriod", OTHER_MODE),
    ("ipvs.scheduler", OTHER_MODE),
    ("ipvs.excludeCIDRs", OTHER_MODE),
    ("ipvs.strictARP", OTHER_MODE),
    ("ipvs.tcpTimeout", OTHER_MODE),
    ("ipvs.tcpFinTimeout", OTHER_MODE),
    ("ipvs.udpTimeout", OTHER_MODE),
    ("nftables.masqueradeBit", OTHER_MODE),
    ("nftables.masqueradeAll", OTHER_MODE),
    ("nftables.syncPeriod", OTHER_MODE),
    ("nftables.minSyncPeriod", OTHER_MODE),
    ("winkernel.networkName", OTHER_MODE),
    ("winkernel.sourceVip", OTHER_MODE),
    ("winkernel.enableDSR", OTHER_MODE),
    ("winkernel.rootHnsEndpointName", OTHER_MODE),
    ("winkernel.forwardHealthCheckVip", OTHER_MODE),
    ("detectLocalMode", Honoured),
    ("detectLocal.bridgeInterface", Honoured),
    ("detectLocal.interfaceNamePrefix", Honoured),
    ("clusterCIDR", Honoured),
    ("nodePortAddresses", Honoured),
    ("oomScoreAdj", Honoured),
    ("conntrack.maxPerCore", Honoured),
    ("conntrack.min", Honoured),
    ("conntrack.tcpEstablishedTimeout", Honoured),
    ("conntrack.tcpCloseWaitTimeout", Honoured),
    ("conntrack.tcpBeLiberal", Honoured),
    ("conntrack.udpTimeout", Honoured),
    ("conntrack.udpStreamTimeout", Honoured),
    // Watches do not lose what a periodic resync would find again.
    ("configSyncPeriod", Immaterial),
    ("portRange", Immaterial),
    ("windowsRunAsService", OTHER_MODE),
];

/// What the process as a whole has one of, and the agent's own configuration decides. The
/// kubeconfig is left out: every file names one, and the agent reaches the same cluster.
const AGENTS: &[&str] = &[
    "clientConnection.qps",
    "clientConnection.burst",
    "hostnameOverride",
    "oomScoreAdj",
];

fn support(path: &str) -> Option<Support> {
    let row = TABLE.iter().find(|(field, _)| *field == path);
    row.map(|(_, support)| *support)
        .or_else(|| is_logging(path).then(|| support::support(path)).flatten())
}

/// Whether a field says how the process logs.
pub(super) fn is_logging(path: &str) -> bool {
    path.starts_with("logging.")
}

/// What will not happen when the proxy is a process of its own.
pub(super) fn review_alone(
    given: &KubeProxyConfiguration,
) -> (Vec<ConfigWarning>, Vec<ConfigError>) {
    support::review(given, &super::defaults::pristine(), support)
}

/// What will not happen when the proxy is a part of the agent on node `node_name`.
pub(super) fn review_in_agent(
    given: &KubeProxyConfiguration,
    node_name: &str,
) -> (Vec<ConfigWarning>, Vec<ConfigError>) {
    const AGENT_DECIDES: Support = Partly("has no effect, the agent's own setting does");
    let names_this_node = given.hostname_override.get().trim().to_lowercase() == node_name;
    support::review(given, &super::defaults::pristine(), |path| {
        if path == "hostnameOverride" && names_this_node {
            Some(Honoured)
        } else if AGENTS.contains(&path) || is_logging(path) {
            Some(AGENT_DECIDES)
        } else {
            support(path)
        }
    })
}
