//! The resolved configuration of the service proxy: plain data, in which `None` means what
//! its comment says. Values come from `KubeProxyConfiguration`
//! (`kubeproxy.config.k8s.io/v1alpha1`) unless a comment names a flag.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Serialize;

use crate::config::duration::{as_go_string, option_as_go_string};
use crate::config::gates::FeatureGates;
use crate::config::sections::{LogConfig, RateLimit};

/// The service proxy as a part of the agent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ServiceProxyConfig {
    /// `--service-proxy`.
    pub mode: ServiceProxyMode,
    /// How it works if it runs. Without `--proxy-config` these are upstream's defaults, but
    /// for [`ProxyConfig::local`], which is the node's own pod addresses: the agent knows
    /// its Node, and nobody told it the cluster's.
    pub proxy: ProxyConfig,
}

/// Whether the agent does the service proxy's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceProxyMode {
    /// If nobody else does on this node.
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// How the service proxy works, wherever it runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProxyConfig {
    /// `metadata.name` of the Node, lower case: the agent's, or `--hostname-override`,
    /// `hostnameOverride` or the hostname.
    pub node_name: String,
    /// `bindAddress`, which nothing is bound to: the node's own address, and with it the
    /// primary family. `None`: the Node object says.
    pub bind_address: Option<IpAddr>,
    /// Listener of `/healthz` and `/livez`; `None`: off.
    pub healthz: Option<SocketAddr>,
    /// Listener of `/metrics` and the like; `None`: off.
    pub metrics: Option<SocketAddr>,
    /// A listener whose port is taken ends the process, instead of being tried again.
    pub bind_hard_fail: bool,
    /// Serve `/debug/pprof` with the metrics.
    pub profiling: bool,
    /// Bit of the packet mark that says "masquerade", 0 to 31.
    pub masquerade_bit: u8,
    /// Masquerade everything that is sent to cluster IPs.
    pub masquerade_all: bool,
    /// Node ports answer on 127.0.0.0/8, too.
    pub localhost_node_ports: bool,
    /// Between tries after a failure, and between checks that the rules are there.
    #[serde(serialize_with = "as_go_string")]
    pub sync_period: Duration,
    /// At least this long between changes of the rules; at most `sync_period`.
    #[serde(serialize_with = "as_go_string")]
    pub min_sync_period: Duration,
    /// How traffic of this node's own pods is told from other traffic.
    pub local: LocalTraffic,
    /// On which of the node's addresses node ports answer.
    pub node_port_addresses: NodePortAddresses,
    /// Limits and timeouts of connection tracking.
    pub conntrack: ConntrackConfig,
    /// Feature gates, defaults included. In an agent these are the proxy's alone.
    pub gates: FeatureGates,
    /// All of it as one file would have it, defaults included, for `/configz`.
    #[serde(skip)]
    pub effective: serde_json::Value,
}

/// What marks traffic as coming from a pod of this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum LocalTraffic {
    /// Its source is among the addresses of all the cluster's pods. A family without a
    /// range has no way of telling.
    ClusterCidr {
        /// The pods' IPv4 addresses.
        v4: Option<Ipv4Net>,
        /// The pods' IPv6 addresses.
        v6: Option<Ipv6Net>,
    },
    /// Its source is in the Node's `spec.podCIDRs`.
    NodeCidr,
    /// It comes in by the network interface of this name.
    BridgeInterface(String),
    /// It comes in by a network interface whose name begins so.
    InterfaceNamePrefix(String),
}

/// On which of the node's addresses node ports answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum NodePortAddresses {
    /// On all.
    All,
    /// On those in the Node object.
    Primary,
    /// On those in these ranges; a family that has no range here answers on all.
    Cidrs(Vec<IpNet>),
}

/// Limits and timeouts of connection tracking; `None` and `false`: the kernel's setting is
/// left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ConntrackConfig {
    /// Connections per CPU core. `None` leaves the table's size alone whatever `min` is.
    pub max_per_core: Option<NonZeroU32>,
    /// Connections at least, however few cores there are.
    pub min: u32,
    /// Of established TCP connections.
    #[serde(serialize_with = "option_as_go_string")]
    pub tcp_established_timeout: Option<Duration>,
    /// Of TCP connections that one side has closed.
    #[serde(serialize_with = "option_as_go_string")]
    pub tcp_close_wait_timeout: Option<Duration>,
    /// Take packets outside of the TCP window for valid.
    pub tcp_be_liberal: bool,
    /// Of UDP without answers.
    #[serde(serialize_with = "option_as_go_string")]
    pub udp_timeout: Option<Duration>,
    /// Of UDP with answers.
    #[serde(serialize_with = "option_as_go_string")]
    pub udp_stream_timeout: Option<Duration>,
}

/// What a service proxy needs besides when it is a process of its own.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProxyProcessConfig {
    /// How to reach the API server; `None`: as pods do, by their service account.
    pub kubeconfig: Option<PathBuf>,
    /// Client-side limit of requests; `None`: no limit.
    pub rate: Option<RateLimit>,
    /// `/proc/self/oom_score_adj`, −1000 to 1000.
    pub oom_score_adj: i32,
    /// The process's log.
    pub log: LogConfig,
}
