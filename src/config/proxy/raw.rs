//! The fields of `KubeProxyConfiguration` (`kubeproxy.config.k8s.io/v1alpha1`, Kubernetes
//! 1.36), under the names and with the types they have in a file. Nothing here is
//! defaulted.

use std::collections::BTreeMap;

use crate::config::duration::GoDuration;
use crate::config::raw::Logging;
use crate::config::schema::{Setting, object};

object! {
    /// A whole configuration file.
    KubeProxyConfiguration {
        api_version: Setting<String> = "apiVersion",
        kind: Setting<String> = "kind",
        feature_gates: Setting<BTreeMap<String, Setting<bool>>> = "featureGates",
        client_connection: ClientConnection = "clientConnection",
        logging: Logging = "logging",
        hostname_override: Setting<String> = "hostnameOverride",
        bind_address: Setting<String> = "bindAddress",
        healthz_bind_address: Setting<String> = "healthzBindAddress",
        metrics_bind_address: Setting<String> = "metricsBindAddress",
        bind_address_hard_fail: Setting<bool> = "bindAddressHardFail",
        enable_profiling: Setting<bool> = "enableProfiling",
        show_hidden_metrics_for_version: Setting<String> = "showHiddenMetricsForVersion",
        mode: Setting<String> = "mode",
        iptables: Iptables = "iptables",
        ipvs: Ipvs = "ipvs",
        nftables: Nftables = "nftables",
        winkernel: Winkernel = "winkernel",
        detect_local_mode: Setting<String> = "detectLocalMode",
        detect_local: DetectLocal = "detectLocal",
        cluster_cidr: Setting<String> = "clusterCIDR",
        node_port_addresses: Setting<Vec<Setting<String>>> = "nodePortAddresses",
        oom_score_adj: Setting<i32> = "oomScoreAdj",
        conntrack: Conntrack = "conntrack",
        config_sync_period: Setting<GoDuration> = "configSyncPeriod",
        port_range: Setting<String> = "portRange",
        windows_run_as_service: Setting<bool> = "windowsRunAsService",
    }

    /// `clientConnection`.
    ClientConnection {
        kubeconfig: Setting<String> = "kubeconfig",
        accept_content_types: Setting<String> = "acceptContentTypes",
        content_type: Setting<String> = "contentType",
        qps: Setting<f64> = "qps",
        burst: Setting<i32> = "burst",
    }

    /// `iptables`.
    Iptables {
        masquerade_bit: Setting<i32> = "masqueradeBit",
        masquerade_all: Setting<bool> = "masqueradeAll",
        localhost_node_ports: Setting<bool> = "localhostNodePorts",
        sync_period: Setting<GoDuration> = "syncPeriod",
        min_sync_period: Setting<GoDuration> = "minSyncPeriod",
    }

    /// `ipvs`.
    Ipvs {
        sync_period: Setting<GoDuration> = "syncPeriod",
        min_sync_period: Setting<GoDuration> = "minSyncPeriod",
        scheduler: Setting<String> = "scheduler",
        exclude_cidrs: Setting<Vec<String>> = "excludeCIDRs",
        strict_arp: Setting<bool> = "strictARP",
        tcp_timeout: Setting<GoDuration> = "tcpTimeout",
        tcp_fin_timeout: Setting<GoDuration> = "tcpFinTimeout",
        udp_timeout: Setting<GoDuration> = "udpTimeout",
    }

    /// `nftables`.
    Nftables {
        masquerade_bit: Setting<i32> = "masqueradeBit",
        masquerade_all: Setting<bool> = "masqueradeAll",
        sync_period: Setting<GoDuration> = "syncPeriod",
        min_sync_period: Setting<GoDuration> = "minSyncPeriod",
    }

    /// `winkernel`.
    Winkernel {
        network_name: Setting<String> = "networkName",
        source_vip: Setting<String> = "sourceVip",
        enable_dsr: Setting<bool> = "enableDSR",
        root_hns_endpoint_name: Setting<String> = "rootHnsEndpointName",
        forward_health_check_vip: Setting<bool> = "forwardHealthCheckVip",
    }

    /// `detectLocal`.
    DetectLocal {
        bridge_interface: Setting<String> = "bridgeInterface",
        interface_name_prefix: Setting<String> = "interfaceNamePrefix",
    }

    /// `conntrack`.
    Conntrack {
        max_per_core: Setting<i32> = "maxPerCore",
        min: Setting<i32> = "min",
        tcp_established_timeout: Setting<GoDuration> = "tcpEstablishedTimeout",
        tcp_close_wait_timeout: Setting<GoDuration> = "tcpCloseWaitTimeout",
        tcp_be_liberal: Setting<bool> = "tcpBeLiberal",
        udp_timeout: Setting<GoDuration> = "udpTimeout",
        udp_stream_timeout: Setting<GoDuration> = "udpStreamTimeout",
    }
}
