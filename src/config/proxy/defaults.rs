//! The defaults of `KubeProxyConfiguration`, including those that depend on other fields.
//!
//! Fields without a default of their own get their type's zero, so that a written
//! configuration names them all, as upstream's does.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::raw::{Conntrack, Ipvs, KubeProxyConfiguration, Nftables, Winkernel};
use crate::config::document::Node;
use crate::config::duration::GoDuration;
use crate::config::error::Origin;
use crate::config::schema::{Read, Setting};

/// Where `/healthz` is served.
const HEALTHZ_PORT: u16 = 10256;
/// Where `/metrics` is served.
const METRICS_PORT: u16 = 10249;

/// Requests per second to the API server, and how many at once.
pub(super) const QPS: f64 = 5.0;
pub(super) const BURST: i32 = 10;

const fn secs(n: i64) -> GoDuration {
    GoDuration::from_secs(n)
}

/// Fills in everything.
pub(super) fn apply(raw: &mut KubeProxyConfiguration) {
    raw.feature_gates.default_to(BTreeMap::new());
    crate::config::defaults::logging(&mut raw.logging);
    raw.logging.verbosity.default_to(0);
    client(raw);
    listeners(raw);
    process(raw);
    rules(raw);
    conntrack(&mut raw.conntrack);
    other_modes(&mut raw.ipvs, &mut raw.nftables, &mut raw.winkernel);
}

fn client(raw: &mut KubeProxyConfiguration) {
    let client = &mut raw.client_connection;
    client.kubeconfig.default_to(String::new());
    client.accept_content_types.default_to(String::new());
    client
        .content_type
        .default_zero_to("application/vnd.kubernetes.protobuf".to_owned());
    client.qps.default_zero_to(QPS);
    client.burst.default_zero_to(BURST);
    raw.config_sync_period.default_zero_to(secs(15 * 60));
}

fn listeners(raw: &mut KubeProxyConfiguration) {
    raw.bind_address.default_zero_to("0.0.0.0".to_owned());
    let is_ipv6 = raw
        .bind_address
        .get()
        .parse()
        .is_ok_and(|ip: IpAddr| ip.is_ipv6());
    let (every, own) = if is_ipv6 {
        ("::", "::1")
    } else {
        ("0.0.0.0", "127.0.0.1")
    };
    listener(&mut raw.healthz_bind_address, every, HEALTHZ_PORT);
    listener(&mut raw.metrics_bind_address, own, METRICS_PORT);
    raw.bind_address_hard_fail.default_to(false);
}

/// An address without a port gets the usual one. An empty text on the command line stays:
/// it turns the listener off.
fn listener(setting: &mut Setting<String>, address: &str, port: u16) {
    setting.default_zero_to(address.to_owned());
    if let Ok(ip) = setting.get().parse() {
        setting.value = Some(SocketAddr::new(ip, port).to_string());
    }
}

fn process(raw: &mut KubeProxyConfiguration) {
    raw.hostname_override.default_to(String::new());
    raw.enable_profiling.default_to(false);
    raw.show_hidden_metrics_for_version
        .default_to(String::new());
    raw.oom_score_adj.default_to(-999);
    raw.port_range.default_to(String::new());
}

fn rules(raw: &mut KubeProxyConfiguration) {
    raw.mode.default_zero_to("iptables".to_owned());
    let iptables = &mut raw.iptables;
    iptables.masquerade_bit.default_to(14);
    iptables.masquerade_all.default_to(false);
    iptables.localhost_node_ports.default_to(true);
    iptables.sync_period.default_zero_to(secs(30));
    iptables.min_sync_period.default_zero_to(secs(1));
    raw.detect_local_mode
        .default_zero_to("ClusterCIDR".to_owned());
    raw.detect_local.bridge_interface.default_to(String::new());
    raw.detect_local
        .interface_name_prefix
        .default_to(String::new());
    raw.cluster_cidr.default_to(String::new());
    raw.node_port_addresses.default_to(Vec::new());
}

fn conntrack(raw: &mut Conntrack) {
    raw.max_per_core.default_to(32 * 1024);
    raw.min.default_to(128 * 1024);
    raw.tcp_established_timeout.default_to(secs(24 * 3600));
    raw.tcp_close_wait_timeout.default_to(secs(3600));
    raw.tcp_be_liberal.default_to(false);
    raw.udp_timeout.default_to(GoDuration::ZERO);
    raw.udp_stream_timeout.default_to(GoDuration::ZERO);
}

fn other_modes(ipvs: &mut Ipvs, nftables: &mut Nftables, winkernel: &mut Winkernel) {
    ipvs.sync_period.default_zero_to(secs(30));
    ipvs.min_sync_period.default_to(GoDuration::ZERO);
    ipvs.scheduler.default_to(String::new());
    ipvs.exclude_cidrs.default_to(Vec::new());
    ipvs.strict_arp.default_to(false);
    for timeout in [
        &mut ipvs.tcp_timeout,
        &mut ipvs.tcp_fin_timeout,
        &mut ipvs.udp_timeout,
    ] {
        timeout.default_to(GoDuration::ZERO);
    }
    nftables.masquerade_bit.default_to(14);
    nftables.masquerade_all.default_to(false);
    nftables.sync_period.default_zero_to(secs(30));
    nftables.min_sync_period.default_zero_to(secs(1));
    for text in [
        &mut winkernel.network_name,
        &mut winkernel.source_vip,
        &mut winkernel.root_hns_endpoint_name,
    ] {
        text.default_to(String::new());
    }
    winkernel.enable_dsr.default_to(false);
    winkernel.forward_health_check_vip.default_to(false);
}

/// A configuration in which nobody set anything, to compare others with.
pub(in crate::config) fn pristine() -> KubeProxyConfiguration {
    let nothing = Node::empty_map(Origin::Default);
    let mut raw = KubeProxyConfiguration::read(Some(&nothing), "", &mut Vec::new());
    apply(&mut raw);
    raw
}
