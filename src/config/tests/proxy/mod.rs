//! The service proxy's configuration: files as installers write them, values, mistakes.

mod agent;
mod cli;
mod errors;

use std::collections::BTreeSet;

use proptest::prelude::*;

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

proptest! {
    // A command line of so many flags takes milliseconds to read.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_reads_back(
        bit in 0..=31,
        all in any::<bool>(),
        (sync, min) in (1_i64..=100_000).prop_flat_map(|sync| (Just(sync), 0..=sync)),
        per_core in 0..=i32::MAX,
        established in 0_i64..=i64::MAX / 1_000_000,
        qps in -1.0_f64..1000.0,
        port in 1_u16..,
        v4 in any::<[u8; 4]>(),
        v6 in any::<[u16; 8]>(),
        length in 0..=32,
        // Also such as YAML takes for numbers, dates and nothing.
        interface in "[a-z0-9.:~_-]{1,15}|null|1e3|0x1f|2001-01-01",
        node in "[a-z0-9.-]{1,20}",
    ) {
        let (v4, v6) = (std::net::Ipv4Addr::from(v4), std::net::Ipv6Addr::from(v6));
        let flags = [
            format!("--iptables-masquerade-bit={bit}"),
            format!("--masquerade-all={all}"),
            format!("--iptables-sync-period={sync}ms"),
            format!("--iptables-min-sync-period={min}ms"),
            format!("--conntrack-max-per-core={per_core}"),
            format!("--conntrack-tcp-timeout-established={established}ms"),
            format!("--kube-api-qps={qps}"),
            format!("--healthz-bind-address=[{v6}]:{port}"),
            format!("--metrics-bind-address={v4}"),
            format!("--cluster-cidr={v6}/{length},{v4}/{length}"),
            format!("--nodeport-addresses={v4}/{length}"),
            "--detect-local-mode=InterfaceNamePrefix".to_owned(),
            format!("--pod-interface-name-prefix={interface}"),
            format!("--hostname-override={node}"),
        ];
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let given = Files::new().load_proxy(&flags).unwrap();
        let files = Files::new().with("config.conf", &given.config.to_yaml());
        let again = files.load_proxy(&[FILE]).unwrap();
        prop_assert_eq!(again.config, given.config);
        prop_assert_eq!(again.process, given.process);
        prop_assert_eq!(again.warnings, []);
    }

    #[test]
    fn any_text_is_read_or_refused(text in ".*") {
        let flags = [
            "bind-address",
            "cluster-cidr",
            "healthz-bind-address",
            "nodeport-addresses",
            "kube-api-qps",
            "proxy-mode",
            "pod-bridge-interface",
        ];
        let mut flags: Vec<_> = flags.iter().map(|flag| format!("--{flag}={text}")).collect();
        flags.push("--detect-local-mode=BridgeInterface".to_owned());
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let _ = Files::new().load_proxy(&flags);
    }
}
