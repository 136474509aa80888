//! The service proxy's configuration: files as installers write them, values, mistakes.

mod agent;
mod cli;
mod errors;

use std::collections::BTreeSet;

use super::super::schema::Read;
use super::super::{
    ConfigErrors, LoadedProxy, LocalTraffic, NodePortAddresses, ProxyArgs, ProxyConfig,
    load_proxy_for_host, proxy,
};
use super::{Cli, Files, parse};

/// First lines of every file.
const HEADER: &str = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";

/// As kubeadm 1.36 writes it into the ConfigMap of a cluster with 10.244.0.0/16 for pods.
const KUBEADM: &str = include_str!("kubeadm-config.conf");

impl Files {
    /// Writes the fields of a KubeProxyConfiguration.
    fn with_proxy_fields(self, name: &str, fields: &str) -> Self {
        self.with(name, &format!("{HEADER}{fields}"))
    }

    fn load_proxy(&self, args: &[&str]) -> Result<LoadedProxy, ConfigErrors> {
        let args: Vec<_> = ["proxy"].iter().chain(args).copied().collect();
        match self.parse(&args) {
            Cli::Proxy(args) => load_proxy_for_host(&args, "Test-Host"),
            other => panic!("not the proxy: {other:?}"),
        }
    }

    fn proxy_errors(&self, args: &[&str]) -> String {
        self.shown(self.load_proxy(args).unwrap_err())
    }

    fn proxy_warnings(&self, args: &[&str]) -> String {
        let loaded = self.load_proxy(args).unwrap();
        let lines: Vec<_> = loaded
            .warnings
            .iter()
            .map(|line| self.shown(line))
            .collect();
        lines.join("\n")
    }
}

fn proxy_args(args: &[&str]) -> ProxyArgs {
    let args: Vec<_> = ["proxy"].iter().chain(args).copied().collect();
    match parse(&args).unwrap() {
        Cli::Proxy(args) => *args,
        other => panic!("not the proxy: {other:?}"),
    }
}

const FILE: &str = "--config={dir}/config.conf";

/// The configuration from fields of a file.
fn config_of(fields: &str) -> ProxyConfig {
    let files = Files::new().with_proxy_fields("config.conf", fields);
    files.load_proxy(&[FILE]).unwrap().config
}

/// The errors from fields of a file.
fn errors_of(fields: &str) -> String {
    let files = Files::new().with_proxy_fields("config.conf", fields);
    files.proxy_errors(&[FILE])
}

/// All of it, as a change detector.
fn shown(loaded: &LoadedProxy) -> serde_json::Value {
    serde_json::json!({ "config": loaded.config, "process": loaded.process })
}

#[test]
fn kubeadms_file_loads_without_a_word() {
    let files = Files::new().with("config.conf", KUBEADM);
    let loaded = files
        .load_proxy(&[FILE, "--hostname-override=Node-1"])
        .unwrap();
    assert_eq!(loaded.warnings, []);
    insta::assert_yaml_snapshot!("kubeadm_proxy", shown(&loaded));
}

#[test]
fn defaults_are_upstreams() {
    let loaded = Files::new().load_proxy(&[]).unwrap();
    assert_eq!(loaded.warnings, []);
    insta::assert_yaml_snapshot!("default_proxy", shown(&loaded));
}

#[test]
fn a_written_configuration_has_every_field_and_reads_the_same() {
    let default = Files::new().load_proxy(&[]).unwrap().config;
    let text = default.to_yaml();
    insta::assert_snapshot!("written_proxy", text);
    let files = Files::new().with("config.conf", &text);
    let again = files.load_proxy(&[FILE]).unwrap();
    assert_eq!(again.warnings, []);
    assert_eq!(again.config, default);
    let written: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
    assert_eq!(written, default.effective);
}

#[test]
fn every_field_has_a_row_and_every_row_a_field() {
    let mut leaves = Vec::new();
    proxy::pristine().leaves(&mut leaves);
    let fields: BTreeSet<_> = leaves
        .iter()
        .map(|leaf| leaf.path.as_str())
        .filter(|path| !path.starts_with("logging."))
        .collect();
    let rows: BTreeSet<_> = proxy::TABLE.iter().map(|(path, _)| *path).collect();
    assert_eq!(fields, rows);
    assert_eq!(rows.len(), proxy::TABLE.len(), "a row is repeated");
}

#[test]
fn listeners_take_an_address_with_or_without_a_port() {
    let table = [
        ("", "0.0.0.0:10256", "127.0.0.1:10249"),
        ("bindAddress: 192.0.2.1", "0.0.0.0:10256", "127.0.0.1:10249"),
        ("bindAddress: '::'", "[::]:10256", "[::1]:10249"),
        ("bindAddress: fd00::1", "[::]:10256", "[::1]:10249"),
        (
            "healthzBindAddress: 10.0.0.1\nmetricsBindAddress: 0.0.0.0:9",
            "10.0.0.1:10256",
            "0.0.0.0:9",
        ),
        (
            "healthzBindAddress: '::'\nmetricsBindAddress: '[fd00::1]:9'",
            "[::]:10256",
            "[fd00::1]:9",
        ),
    ];
    for (fields, healthz, metrics) in table {
        let config = config_of(fields);
        assert_eq!(config.healthz, Some(healthz.parse().unwrap()), "{fields}");
        assert_eq!(config.metrics, Some(metrics.parse().unwrap()), "{fields}");
    }
    let off = Files::new()
        .load_proxy(&["--healthz-bind-address=", "--metrics-bind-address", ""])
        .unwrap();
    assert_eq!((off.config.healthz, off.config.metrics), (None, None));
}

#[test]
fn the_nodes_own_address_is_one_or_unknown() {
    for (given, expected) in [
        ("0.0.0.0", None),
        ("'::'", None),
        ("192.0.2.1", Some("192.0.2.1")),
        ("fd00::1", Some("fd00::1")),
    ] {
        let config = config_of(&format!("bindAddress: {given}\n"));
        assert_eq!(config.bind_address, expected.map(|ip| ip.parse().unwrap()));
    }
}

#[test]
fn local_traffic_is_told_in_four_ways() {
    let cluster = |v4: Option<&str>, v6: Option<&str>| LocalTraffic::ClusterCidr {
        v4: v4.map(|net| net.parse().unwrap()),
        v6: v6.map(|net| net.parse().unwrap()),
    };
    let table = [
        ("", cluster(None, None)),
        ("clusterCIDR: 10.1.2.3/8", cluster(Some("10.0.0.0/8"), None)),
        (
            "clusterCIDR: fd00::/64,10.0.0.0/8\ndetectLocalMode: ClusterCIDR",
            cluster(Some("10.0.0.0/8"), Some("fd00::/64")),
        ),
        (
            "clusterCIDR: 10.0.0.0/8\ndetectLocalMode: NodeCIDR",
            LocalTraffic::NodeCidr,
        ),
        (
            "detectLocalMode: BridgeInterface\ndetectLocal: {bridgeInterface: cni0}",
            LocalTraffic::BridgeInterface("cni0".to_owned()),
        ),
        (
            "detectLocalMode: InterfaceNamePrefix\ndetectLocal: {interfaceNamePrefix: veth}",
            LocalTraffic::InterfaceNamePrefix("veth".to_owned()),
        ),
    ];
    for (fields, expected) in table {
        assert_eq!(config_of(fields).local, expected, "{fields}");
    }
}

#[test]
fn node_ports_answer_on_all_addresses_or_some() {
    let cidrs = |nets: &[&str]| {
        NodePortAddresses::Cidrs(nets.iter().map(|net| net.parse().unwrap()).collect())
    };
    for (given, expected) in [
        ("null", NodePortAddresses::All),
        ("[]", NodePortAddresses::All),
        ("[primary]", NodePortAddresses::Primary),
        (
            "[10.1.2.3/8, 'fd00::/64']",
            cidrs(&["10.0.0.0/8", "fd00::/64"]),
        ),
    ] {
        let config = config_of(&format!("nodePortAddresses: {given}\n"));
        assert_eq!(config.node_port_addresses, expected);
    }
}

#[test]
fn zero_leaves_connection_tracking_alone() {
    let zeros = config_of(
        "conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, \
         tcpCloseWaitTimeout: 0s, tcpBeLiberal: true, udpTimeout: 10s}",
    )
    .conntrack;
    assert_eq!(zeros.max_per_core, None);
    assert_eq!(zeros.tcp_established_timeout, None);
    assert_eq!(zeros.tcp_close_wait_timeout, None);
    assert!(zeros.tcp_be_liberal);
    assert_eq!(zeros.udp_timeout.map(|time| time.as_secs()), Some(10));
    let nulls = config_of("conntrack: {maxPerCore: null, tcpEstablishedTimeout: null}").conntrack;
    assert_eq!(nulls.max_per_core.map(|n| n.get()), Some(32768));
    assert_eq!(
        nulls.tcp_established_timeout.map(|time| time.as_secs()),
        Some(86400)
    );
}

#[test]
fn requests_are_limited_as_upstreams_are() {
    for (given, expected) in [
        ("{}", Some((5, 10))),
        ("{qps: 0, burst: 0}", Some((5, 10))),
        ("{qps: 0.5, burst: 3}", Some((1, 3))),
        ("{qps: 20}", Some((20, 10))),
        ("{qps: -1}", None),
    ] {
        let fields = format!("clientConnection: {given}\n");
        let files = Files::new().with_proxy_fields("config.conf", &fields);
        let rate = files.load_proxy(&[FILE]).unwrap().process.rate;
        assert_eq!(
            rate.map(|rate| (rate.per_second.get(), rate.burst)),
            expected,
            "{given}"
        );
    }
}
