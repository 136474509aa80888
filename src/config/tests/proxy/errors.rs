//! What a person reads after a mistake in the proxy's file.

use super::{FILE, Files, errors_of};

#[test]
fn all_errors_of_a_file_come_at_once_with_their_places() {
    let errors = errors_of(
        "modes: iptables\niptables:\n  masqueradeAll: 'yes'\n  syncPeriods: 30s\n\
         conntrack: {maxPerCore: many}\nclusterCIDR: [10.0.0.0/8]\n\
         featureGates: {ContextualLogging: 1}\nnodePortAddresses: primary\n",
    );
    insta::assert_snapshot!(errors, @r#"
    7 errors in the configuration
      {dir}/config.conf:3:1: unknown field "modes" (did you mean "mode"?)
      {dir}/config.conf:5:18: iptables.masqueradeAll: expected true or false, found "yes"
      {dir}/config.conf:6:3: iptables: unknown field "syncPeriods" (did you mean "syncPeriod"?)
      {dir}/config.conf:7:25: conntrack.maxPerCore: expected a whole number, found "many"
      {dir}/config.conf:8:14: clusterCIDR: expected a string, found a list
      {dir}/config.conf:9:35: featureGates.ContextualLogging: expected true or false, found the number 1
      {dir}/config.conf:10:20: nodePortAddresses: expected a list, found "primary"
    "#);
}

#[test]
fn values_upstream_refuses_are_refused_together() {
    let errors = errors_of(
        "bindAddress: localhost\nhealthzBindAddress: 0.0.0.0:0\nmetricsBindAddress: :10249\n\
         clusterCIDR: 10.0.0.0/8,10.1.0.0/16,10.0.0.0\n\
         iptables: {masqueradeBit: 32, syncPeriod: 1s, minSyncPeriod: 2s}\n\
         conntrack: {maxPerCore: -1, min: -1, tcpEstablishedTimeout: -1s, udpTimeout: -1s}\n\
         clientConnection: {burst: -1}\nconfigSyncPeriod: -1s\noomScoreAdj: -1001\n\
         detectLocalMode: nodeCIDR\nmode: userspace\n\
         nodePortAddresses: [primary, 10.0.0.0, fd00::/129]\n\
         featureGates: {NFTablesProxyMode: false, Frobnicate: true, ContextualLoging: true}\n\
         logging: {format: xml}\n",
    );
    insta::assert_snapshot!(errors, @r#"
    23 errors in the configuration
      {dir}/config.conf:3:14: bindAddress: "localhost" is not an IP address
      {dir}/config.conf:4:21: healthzBindAddress: the port must be from 1 to 65535, is 0
      {dir}/config.conf:5:21: metricsBindAddress: ":10249" is neither an IP address nor one with a port, like "0.0.0.0:10256" or "[::]:10256"
      {dir}/config.conf:6:14: clusterCIDR: must be one range of addresses, or one of IPv4 and one of IPv6 with a comma between
      {dir}/config.conf:6:14: clusterCIDR: "10.0.0.0" is not a range of addresses like "10.0.0.0/8" or "fd00::/64"
      {dir}/config.conf:7:27: iptables.masqueradeBit: must be from 0 to 31, is 32
      {dir}/config.conf:7:62: iptables.minSyncPeriod: iptables.minSyncPeriod (2s) must be at most iptables.syncPeriod (1s)
      {dir}/config.conf:8:25: conntrack.maxPerCore: must not be negative
      {dir}/config.conf:8:34: conntrack.min: must not be negative
      {dir}/config.conf:8:61: conntrack.tcpEstablishedTimeout: must not be negative
      {dir}/config.conf:8:78: conntrack.udpTimeout: must not be negative
      {dir}/config.conf:9:27: clientConnection.burst: must not be negative
      {dir}/config.conf:10:19: configSyncPeriod: must be greater than 0
      {dir}/config.conf:11:14: oomScoreAdj: must be from -1000 to 1000, is -1001
      {dir}/config.conf:12:18: detectLocalMode: must be one of "ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix", is "nodeCIDR"
      {dir}/config.conf:13:7: mode: must be "iptables" or empty, is "userspace"
      {dir}/config.conf:14:21: nodePortAddresses[0]: "primary" excludes everything else
      {dir}/config.conf:14:30: nodePortAddresses[1]: "10.0.0.0" is not a range of addresses like "10.0.0.0/8" or "fd00::/64"
      {dir}/config.conf:14:40: nodePortAddresses[2]: "fd00::/129" is not a range of addresses like "10.0.0.0/8" or "fd00::/64"
      {dir}/config.conf:15:35: featureGates.NFTablesProxyMode: NFTablesProxyMode is locked to true
      {dir}/config.conf:15:54: featureGates.Frobnicate: Frobnicate is no feature gate
      {dir}/config.conf:15:78: featureGates.ContextualLoging: ContextualLoging is no feature gate (did you mean "ContextualLogging"?)
      {dir}/config.conf:16:19: logging.format: must be one of "text", "json", is "xml"
    "#);
}

#[test]
fn what_a_mode_of_local_traffic_needs_is_asked_for() {
    insta::assert_snapshot!(errors_of("detectLocalMode: BridgeInterface\n"), @r#"{dir}/config.conf:3:18: detectLocalMode: "BridgeInterface" needs detectLocal.bridgeInterface"#);
    insta::assert_snapshot!(errors_of("detectLocalMode: InterfaceNamePrefix\ndetectLocal: {interfaceNamePrefix: veth+}\n"), @r#"{dir}/config.conf:4:36: detectLocal.interfaceNamePrefix: "veth+" cannot be part of a network interface's name"#);
    insta::assert_snapshot!(errors_of("iptables: {minSyncPeriod: 1m}\n"), @"{dir}/config.conf:3:27: iptables.minSyncPeriod: iptables.minSyncPeriod (1m0s) must be at most iptables.syncPeriod (30s)");
    insta::assert_snapshot!(errors_of("iptables: {syncPeriod: 500ms}\n"), @"{dir}/config.conf:3:24: iptables.syncPeriod: iptables.minSyncPeriod (1s) must be at most iptables.syncPeriod (500ms)");
}

#[test]
fn other_modes_are_refused_with_what_to_do() {
    insta::assert_snapshot!(errors_of("mode: ipvs\n"), @r#"{dir}/config.conf:3:7: mode: this proxy has no mode "ipvs", only "iptables"; for "ipvs" run kube-proxy instead"#);
    insta::assert_snapshot!(Files::new().proxy_errors(&["--proxy-mode=nftables"]), @r#"--proxy-mode: this proxy has no mode "nftables", only "iptables"; for "nftables" run kube-proxy instead"#);
    insta::assert_snapshot!(errors_of("mode: kernelspace\n"), @r#"{dir}/config.conf:3:7: mode: this proxy has no mode "kernelspace", only "iptables"; for "kernelspace" run kube-proxy instead"#);
}

#[test]
fn a_file_of_another_kind_is_no_configuration() {
    let files = Files::new().with_fields("config.conf", "maxPods: 3\n");
    insta::assert_snapshot!(files.proxy_errors(&[FILE]), @r#"{dir}/config.conf: expected apiVersion "kubeproxy.config.k8s.io/v1alpha1" and kind "KubeProxyConfiguration", found "kubelet.config.k8s.io/v1beta1" and "KubeletConfiguration""#);
    insta::assert_snapshot!(Files::new().proxy_errors(&[FILE]), @"{dir}/config.conf: cannot be read: No such file or directory (os error 2)");
}

#[test]
fn what_has_no_effect_is_named() {
    let files = Files::new().with_proxy_fields(
        "config.conf",
        "ipvs: {scheduler: rr, strictARP: true}\nnftables: {masqueradeBit: 15}\n\
         winkernel: {networkName: l2bridge}\nenableProfiling: true\n\
         showHiddenMetricsForVersion: '1.35'\nportRange: 1-2\nconfigSyncPeriod: 1m\n\
         featureGates: {ComponentFlagz: true, ContextualLogging: false, MemoryQoS: true}\n\
         logging: {options: {json: {splitStream: true}}}\n",
    );
    insta::assert_snapshot!(files.proxy_warnings(&[FILE]), @r"
    {dir}/config.conf:10:32: featureGates: ComponentFlagz is not supported yet and has no effect
    {dir}/config.conf:10:57: featureGates: ContextualLogging cannot be turned off here
    {dir}/config.conf:11:41: logging.options.json.splitStream: is not supported yet and has no effect
    {dir}/config.conf:6:18: enableProfiling: is not supported yet and has no effect
    {dir}/config.conf:7:30: showHiddenMetricsForVersion: is not supported yet and has no effect
    {dir}/config.conf:3:19: ipvs.scheduler: belongs to another proxy mode and has no effect
    {dir}/config.conf:3:34: ipvs.strictARP: belongs to another proxy mode and has no effect
    {dir}/config.conf:4:27: nftables.masqueradeBit: belongs to another proxy mode and has no effect
    {dir}/config.conf:5:26: winkernel.networkName: belongs to another proxy mode and has no effect
    ");
}
