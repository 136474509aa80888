//! The service proxy as a part of the agent.

use super::super::super::ServiceProxyMode;
use super::{Files, KUBEADM, LocalTraffic};

const FILE: &str = "--proxy-config={dir}/config.conf";

#[test]
fn the_agent_decides_for_itself_unless_told() {
    let files = Files::new();
    for (args, mode) in [
        (&[][..], ServiceProxyMode::Auto),
        (&["--service-proxy=auto"], ServiceProxyMode::Auto),
        (&["--service-proxy", "on"], ServiceProxyMode::On),
        (
            &["--service-proxy=on", "--service-proxy=off"],
            ServiceProxyMode::Off,
        ),
    ] {
        let loaded = files.load(args).unwrap();
        assert_eq!(loaded.config.proxy.mode, mode);
        assert_eq!(loaded.warnings, []);
        assert_eq!(loaded.config.proxy.proxy.local, LocalTraffic::NodeCidr);
        assert_eq!(
            loaded.config.proxy.proxy.effective["detectLocalMode"],
            "NodeCIDR"
        );
    }
    assert!(super::parse(&["--service-proxy=maybe"]).is_err());
}

#[test]
fn kubeadms_file_serves_the_agent_too() {
    let files = Files::new().with("config.conf", KUBEADM);
    let loaded = files.load(&[FILE, "--hostname-override=Node-1"]).unwrap();
    assert_eq!(loaded.warnings, []);
    let proxy = loaded.config.proxy.proxy;
    assert_eq!(proxy.node_name, "node-1");
    assert_eq!(
        proxy.local,
        LocalTraffic::ClusterCidr {
            v4: Some("10.244.0.0/16".parse().unwrap()),
            v6: None
        }
    );
}

#[test]
fn what_the_agent_decides_is_named() {
    let files = Files::new().with_proxy_fields(
        "config.conf",
        "hostnameOverride: other\nclientConnection: {kubeconfig: /k, qps: 50, burst: 100}\n\
         logging: {verbosity: 4}\noomScoreAdj: 0\nipvs: {scheduler: rr}\n\
         featureGates: {ComponentStatusz: true}\n",
    );
    insta::assert_snapshot!(files.warnings(&[FILE]).join("\n"), @r"
    {dir}/config.conf:8:34: featureGates: ComponentStatusz is not supported yet and has no effect
    {dir}/config.conf:4:41: clientConnection.qps: has no effect, the agent's own setting does
    {dir}/config.conf:4:52: clientConnection.burst: has no effect, the agent's own setting does
    {dir}/config.conf:5:22: logging.verbosity: has no effect, the agent's own setting does
    {dir}/config.conf:3:19: hostnameOverride: has no effect, the agent's own setting does
    {dir}/config.conf:7:19: ipvs.scheduler: belongs to another proxy mode and has no effect
    {dir}/config.conf:6:14: oomScoreAdj: has no effect, the agent's own setting does
    ");
    let same = Files::new().with_proxy_fields("config.conf", "hostnameOverride: TEST-HOST\n");
    assert!(same.warnings(&[FILE]).is_empty());
}

#[test]
fn errors_of_both_files_come_together() {
    let files = Files::new()
        .with_fields("config.yaml", "maxPod: 3\n")
        .with_proxy_fields("config.conf", "mod: iptables\n");
    insta::assert_snapshot!(files.errors(&["--config={dir}/config.yaml", FILE]), @r#"
    2 errors in the configuration
      {dir}/config.yaml:3:1: unknown field "maxPod" (did you mean "maxPods"?)
      {dir}/config.conf:3:1: unknown field "mod"
    "#);
    let files = Files::new()
        .with_fields("config.yaml", "maxPods: -3\n")
        .with_proxy_fields("config.conf", "mode: ipvs\nlogging: {format: xml}\n");
    insta::assert_snapshot!(files.errors(&["--config={dir}/config.yaml", FILE]), @r#"
    3 errors in the configuration
      {dir}/config.conf:3:7: mode: this proxy has no mode "ipvs", only "iptables"; for "ipvs" run kube-proxy instead
      {dir}/config.conf:4:19: logging.format: must be one of "text", "json", is "xml"
      {dir}/config.yaml:3:10: maxPods: must not be negative
    "#);
}

#[test]
fn a_file_for_nothing_is_not_read() {
    let warnings = Files::new().warnings(&["--service-proxy=off", FILE]);
    assert_eq!(
        warnings,
        ["--proxy-config: has no effect with --service-proxy=off"]
    );
}
