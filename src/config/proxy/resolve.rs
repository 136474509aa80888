//! From defaulted fields to [`ProxyConfig`] and [`ProxyProcessConfig`]: values are parsed
//! into their types, and every one that upstream refuses is reported.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;

use ipnet::IpNet;

use super::defaults;
use super::raw::{ClientConnection, Conntrack, KubeProxyConfiguration};
use super::section::{
    ConntrackConfig, LocalTraffic, NodePortAddresses, ProxyConfig, ProxyProcessConfig,
};
use crate::config::duration::GoDuration;
use crate::config::gates::FeatureGates;
use crate::config::resolve::{self, Problems, text};
use crate::config::schema::Setting;
use crate::config::sections::RateLimit;

/// The longest name a network interface can have.
const INTERFACE_NAME_MAX: usize = 15;

/// Makes the configuration, or something like it with errors in `problems`.
pub(super) fn config(
    raw: &KubeProxyConfiguration,
    node_name: &str,
    gates: FeatureGates,
    problems: &mut Problems,
) -> ProxyConfig {
    mode(&raw.mode, problems);
    periods(raw, problems);
    let iptables = &raw.iptables;
    let masquerade_bit = problems.within(&iptables.masquerade_bit, 0..=31);
    ProxyConfig {
        node_name: node_name.to_owned(),
        bind_address: problems
            .ip(&raw.bind_address)
            .filter(|ip| !ip.is_unspecified()),
        healthz: listener(&raw.healthz_bind_address, problems),
        metrics: listener(&raw.metrics_bind_address, problems),
        bind_hard_fail: raw.bind_address_hard_fail.get(),
        profiling: raw.enable_profiling.get(),
        masquerade_bit: u8::try_from(masquerade_bit).unwrap_or(0),
        masquerade_all: iptables.masquerade_all.get(),
        localhost_node_ports: iptables.localhost_node_ports.get(),
        sync_period: iptables.sync_period.get().to_std(),
        min_sync_period: problems.period(&iptables.min_sync_period),
        local: local_traffic(raw, problems),
        node_port_addresses: node_port_addresses(&raw.node_port_addresses, problems),
        conntrack: conntrack(&raw.conntrack, problems),
        gates,
        effective: serde_json::Value::Null,
    }
}

/// Makes what only a process of its own needs. Its rules hold for all files.
pub(super) fn process(raw: &KubeProxyConfiguration, problems: &mut Problems) -> ProxyProcessConfig {
    ProxyProcessConfig {
        // Unlike the agent's, upstream's proxy takes the path as it is.
        kubeconfig: text(&raw.client_connection.kubeconfig).map(PathBuf::from),
        rate: rate(&raw.client_connection, problems),
        oom_score_adj: problems.within(&raw.oom_score_adj, -1000..=1000),
        log: resolve::log(&raw.logging, problems),
    }
}

fn mode(setting: &Setting<String>, problems: &mut Problems) {
    match setting.get().as_str() {
        "" | "iptables" => {}
        mode @ ("ipvs" | "nftables" | "kernelspace" | "winkernel") => {
            problems.add(setting.invalid(format!(
                "this proxy has no mode {mode:?}, only \"iptables\"; for {mode:?} run kube-proxy \
                 instead"
            )));
        }
        other => {
            problems.add(setting.invalid(format!("must be \"iptables\" or empty, is {other:?}")))
        }
    }
}

fn periods(raw: &KubeProxyConfiguration, problems: &mut Problems) {
    for period in [&raw.iptables.sync_period, &raw.config_sync_period] {
        if period.get() <= GoDuration::ZERO {
            problems.add(period.invalid("must be greater than 0"));
        }
    }
    let (min, most) = (&raw.iptables.min_sync_period, &raw.iptables.sync_period);
    if min.get() > most.get() && most.get() > GoDuration::ZERO {
        // Whichever of the two was written is the one to look at.
        let given = if min.origin.is_given() { min } else { most };
        problems.add(given.invalid(format!(
            "iptables.minSyncPeriod ({}) must be at most iptables.syncPeriod ({})",
            min.get(),
            most.get(),
        )));
    }
}

/// An address to listen on; empty is none.
fn listener(setting: &Setting<String>, problems: &mut Problems) -> Option<SocketAddr> {
    let text = text(setting)?;
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() != 0 => Some(address),
        Ok(_) => {
            problems.add(setting.invalid("the port must be from 1 to 65535, is 0"));
            None
        }
        Err(_) => {
            problems.add(setting.invalid(format!(
                "{text:?} is neither an IP address nor one with a port, like \"0.0.0.0:10256\" \
                 or \"[::]:10256\""
            )));
            None
        }
    }
}

/// A rate below zero is no limit, as in upstream's client, and one below one is rounded up.
fn rate(client: &ClientConnection, problems: &mut Problems) -> Option<RateLimit> {
    let burst = match problems.count(&client.burst) {
        0 => defaults::BURST.unsigned_abs(),
        burst => burst,
    };
    let qps = match client.qps.get() {
        qps if qps < 0.0 => return None,
        0.0 => defaults::QPS,
        qps => qps,
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not negative, and saturating is right for what is too large"
    )]
    let per_second = qps.ceil() as u32;
    NonZeroU32::new(per_second).map(|per_second| RateLimit { per_second, burst })
}

fn local_traffic(raw: &KubeProxyConfiguration, problems: &mut Problems) -> LocalTraffic {
    let cluster = cluster_cidr(&raw.cluster_cidr, problems);
    let (mode, detect) = (&raw.detect_local_mode, &raw.detect_local);
    let modes = [
        ("ClusterCIDR", Detect::ClusterCidr),
        ("NodeCIDR", Detect::NodeCidr),
        ("BridgeInterface", Detect::BridgeInterface),
        ("InterfaceNamePrefix", Detect::InterfaceNamePrefix),
    ];
    match problems.one_of(mode, &modes) {
        Some(Detect::ClusterCidr) | None => cluster,
        Some(Detect::NodeCidr) => LocalTraffic::NodeCidr,
        Some(Detect::BridgeInterface) => {
            LocalTraffic::BridgeInterface(interface(mode, &detect.bridge_interface, problems))
        }
        Some(Detect::InterfaceNamePrefix) => LocalTraffic::InterfaceNamePrefix(interface(
            mode,
            &detect.interface_name_prefix,
            problems,
        )),
    }
}

#[derive(Debug, Clone, Copy)]
enum Detect {
    ClusterCidr,
    NodeCidr,
    BridgeInterface,
    InterfaceNamePrefix,
}

/// One range, or one of each family.
fn cluster_cidr(setting: &Setting<String>, problems: &mut Problems) -> LocalTraffic {
    let (mut v4, mut v6) = (None, None);
    for part in text(setting).iter().flat_map(|text| text.split(',')) {
        let repeated = match part.parse::<IpNet>() {
            Ok(IpNet::V4(net)) => v4.replace(net.trunc()).is_some(),
            Ok(IpNet::V6(net)) => v6.replace(net.trunc()).is_some(),
            Err(_) => {
                problems.add(setting.invalid(not_a_range(part)));
                continue;
            }
        };
        if repeated {
            problems.add(setting.invalid(
                "must be one range of addresses, or one of IPv4 and one of IPv6 with a comma \
                 between",
            ));
        }
    }
    LocalTraffic::ClusterCidr { v4, v6 }
}

fn not_a_range(text: &str) -> String {
    format!("{text:?} is not a range of addresses like \"10.0.0.0/8\" or \"fd00::/64\"")
}

/// The name, or its beginning, that `mode` needs.
fn interface(mode: &Setting<String>, setting: &Setting<String>, problems: &mut Problems) -> String {
    let name = setting.get();
    let usable = |c: char| c.is_ascii_graphic() && c != '/' && c != '+';
    if name.is_empty() {
        problems.add(mode.invalid(format!("{:?} needs {}", mode.get(), setting.path)));
    } else if name.len() > INTERFACE_NAME_MAX || !name.chars().all(usable) {
        problems.add(setting.invalid(format!(
            "{name:?} cannot be part of a network interface's name"
        )));
    }
    name
}

fn node_port_addresses(
    setting: &Setting<Vec<Setting<String>>>,
    problems: &mut Problems,
) -> NodePortAddresses {
    let given = setting.get();
    let is_primary = |item: &Setting<String>| item.get() == "primary";
    match given.as_slice() {
        [] => return NodePortAddresses::All,
        [only] if is_primary(only) => return NodePortAddresses::Primary,
        _ => {}
    }
    let mut ranges = Vec::new();
    for item in &given {
        match item.get().parse::<IpNet>() {
            Ok(range) => ranges.push(range.trunc()),
            Err(_) if is_primary(item) => {
                problems.add(item.invalid("\"primary\" excludes everything else"));
            }
            Err(_) => problems.add(item.invalid(not_a_range(&item.get()))),
        }
    }
    NodePortAddresses::Cidrs(ranges)
}

fn conntrack(raw: &Conntrack, problems: &mut Problems) -> ConntrackConfig {
    let max_per_core = NonZeroU32::new(problems.count(&raw.max_per_core));
    let min = problems.count(&raw.min);
    let mut timeout = |setting| Some(problems.period(setting)).filter(|time| !time.is_zero());
    ConntrackConfig {
        max_per_core,
        min,
        tcp_established_timeout: timeout(&raw.tcp_established_timeout),
        tcp_close_wait_timeout: timeout(&raw.tcp_close_wait_timeout),
        tcp_be_liberal: raw.tcp_be_liberal.get(),
        udp_timeout: timeout(&raw.udp_timeout),
        udp_stream_timeout: timeout(&raw.udp_stream_timeout),
    }
}
