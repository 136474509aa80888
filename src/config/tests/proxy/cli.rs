//! `kubelet proxy` as a command.

use std::path::Path;

use super::super::super::ProxyAction;
use super::{Cli, FILE, Files, LocalTraffic, NodePortAddresses, parse, proxy_args};

#[test]
fn one_of_four_things_is_done() {
    for (args, action) in [
        (&[][..], ProxyAction::Run),
        (&["--cleanup=false", "--write-config-to="], ProxyAction::Run),
        (&["--init-only"], ProxyAction::InitOnly),
        (&["--cleanup"], ProxyAction::Cleanup),
        (&["cleanup"], ProxyAction::Cleanup),
        (&["cleanup", "-v=4", "--config=/c"], ProxyAction::Cleanup),
        (
            &["--cleanup", "--write-config-to=/f"],
            ProxyAction::WriteConfig("/f".into()),
        ),
    ] {
        assert_eq!(*proxy_args(args).action(), action, "{args:?}");
    }
    let args = proxy_args(&["cleanup", "-v=4", "--config=/c"]);
    assert_eq!(args.config_file(), Some(Path::new("/c")));
    assert_eq!(proxy_args(&["--config="]).config_file(), None);
}

#[test]
fn the_version_is_told_here_too() {
    for args in [
        ["proxy", "--version"].as_slice(),
        &["proxy", "cleanup", "--version=true"],
    ] {
        let Cli::Version(text) = parse(args).unwrap() else {
            panic!("no version: {args:?}");
        };
        assert!(text.starts_with("Kubernetes v"), "{text}");
    }
}

#[test]
fn other_commands_flags_are_unknown_here() {
    for args in [
        &["proxy", "--max-pods=3"][..],
        &["proxy", "clean"],
        &["proxy", "--v=2", "cleanup"],
        &["proxy", "help"],
        &["--masquerade-all"],
        &["--kubeconfig=/k", "proxy"],
    ] {
        assert!(parse(args).is_err(), "{args:?}");
    }
    let text = parse(&["proxy", "--healthz-port=0"])
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("set the port in --healthz-bind-address"),
        "{text}"
    );
    let help = parse(&["proxy", "--help"]).unwrap_err().to_string();
    assert!(help.contains("Set iptables.masqueradeAll"), "{help}");
    assert!(help.contains("--write-config-to"), "{help}");
}

#[test]
fn flags_alone_make_a_configuration() {
    // As k3s passes them, and some more.
    let loaded = Files::new()
        .load_proxy(&[
            "--proxy-mode=iptables",
            "--healthz-bind-address=127.0.0.1",
            "--kubeconfig=/k",
            "--cluster-cidr=10.42.0.0/16,fd00::/56",
            "--conntrack-max-per-core=0",
            "--conntrack-tcp-timeout-established=0s",
            "--conntrack-tcp-timeout-close-wait=0s",
            "--hostname-override= Node-A ",
            "--masquerade-all",
            "--iptables-masquerade-bit=15",
            "--iptables-min-sync-period=0",
            "--nodeport-addresses=10.0.0.0/8",
            "--nodeport-addresses=fd00::/64",
            "--bind-address=",
            "--kube-api-qps=7.5",
            "--oom-score-adj=-5",
            "-v=3",
        ])
        .unwrap();
    assert_eq!(loaded.warnings, []);
    let (config, process) = (loaded.config, loaded.process);
    assert_eq!(config.node_name, "node-a");
    assert_eq!(config.healthz, Some("127.0.0.1:10256".parse().unwrap()));
    assert!(matches!(
        config.local,
        LocalTraffic::ClusterCidr {
            v4: Some(_),
            v6: Some(_)
        }
    ));
    assert_eq!(config.conntrack.max_per_core, None);
    assert_eq!(config.conntrack.tcp_established_timeout, None);
    assert!(config.masquerade_all && config.min_sync_period.is_zero());
    assert_eq!(config.masquerade_bit, 15);
    assert!(
        matches!(config.node_port_addresses, NodePortAddresses::Cidrs(nets) if nets.len() == 2)
    );
    assert_eq!(config.bind_address, None);
    assert_eq!(process.kubeconfig.as_deref(), Some(Path::new("/k")));
    assert_eq!(process.rate.map(|rate| rate.per_second.get()), Some(8));
    assert_eq!((process.oom_score_adj, process.log.verbosity.0), (-5, 3));
}

#[test]
fn a_file_makes_most_flags_void() {
    let files = Files::new().with_proxy_fields(
        "config.conf",
        "hostnameOverride: from-file\niptables: {masqueradeBit: 3}\nlogging: {verbosity: 1}\n",
    );
    let flags = [
        FILE,
        "--hostname-override=from-flag",
        "--masquerade-all",
        "--iptables-masquerade-bit=4",
        "--proxy-mode=ipvs",
        "-v=5",
    ];
    let loaded = files.load_proxy(&flags).unwrap();
    assert_eq!(loaded.config.node_name, "from-flag");
    assert_eq!(loaded.config.masquerade_bit, 3);
    assert!(!loaded.config.masquerade_all);
    assert_eq!(loaded.process.log.verbosity.0, 5);
    insta::assert_snapshot!(files.proxy_warnings(&flags), @r"
    --iptables-masquerade-bit: is ignored, as there is a --config file
    --masquerade-all: is ignored, as there is a --config file
    --proxy-mode: is ignored, as there is a --config file
    ");
    // A variable that is not set names nobody.
    let unnamed = files.load_proxy(&[FILE, "--hostname-override="]).unwrap();
    assert_eq!(unnamed.config.node_name, "from-file");
}

#[test]
fn bad_flags_are_reported_together() {
    insta::assert_snapshot!(Files::new().proxy_errors(&[
        "--masquerade-all=maybe",
        "--kube-api-qps=fast",
        "--feature-gates=x",
        "--config-sync-period=15",
    ]), @r#"
    4 errors in the configuration
      --feature-gates: expected name=value, found "x"
      --kube-api-qps: expected a number, found "fast"
      --masquerade-all: expected true or false, found "maybe"
      --config-sync-period: "15" is not a duration; write a number and a unit, like "10s" or "1h30m"
    "#);
    insta::assert_snapshot!(Files::new().proxy_errors(&[
        "--iptables-sync-period=0s",
        "--cluster-cidr=10.0.0.0",
        "--master=https://10.0.0.1",
        "--hostname-override= ",
    ]), @r#"
    4 errors in the configuration
      --master: is not supported; name the server in the kubeconfig
      --hostname-override: is needed, as the hostname is empty
      --iptables-sync-period: must be greater than 0
      --cluster-cidr: "10.0.0.0" is not a range of addresses like "10.0.0.0/8" or "fd00::/64"
    "#);
}
