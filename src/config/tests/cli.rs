//! The command line as such.

use std::path::Path;

use super::super::{Cli, OutputFormat};
use super::{Files, parse, run_args};

#[test]
fn version_is_what_installers_expect() {
    assert_eq!(
        parse(&["--version"]).unwrap(),
        Cli::Version("Kubernetes v1.36.3".to_owned())
    );
    let Cli::Version(raw) = parse(&["--version=raw"]).unwrap() else {
        panic!("no version");
    };
    assert!(raw.starts_with("Kubernetes v1.36.3\nkubelet-rs "), "{raw}");
    assert!(matches!(parse(&["--version=false"]).unwrap(), Cli::Run(_)));
}

#[test]
fn explain_names_a_pod_and_finds_the_agent() {
    let explain = |args: &[&str]| match parse(args).unwrap() {
        Cli::Explain(explain) => explain,
        other => panic!("not explain: {other:?}"),
    };
    let default = explain(&["explain", "default/web"]);
    assert_eq!(default.pod.namespace, "default");
    assert_eq!(default.pod.name, "web");
    assert_eq!(default.output, OutputFormat::Text);
    assert_eq!(default.socket(), Path::new("/var/lib/kubelet/explain.sock"));

    let elsewhere = explain(&["explain", "a/b", "--root-dir", "/k", "--output", "json"]);
    assert_eq!(elsewhere.socket(), Path::new("/k/explain.sock"));
    assert_eq!(elsewhere.output, OutputFormat::Json);
    let socket = explain(&["explain", "a/b", "--socket=/s"]);
    assert_eq!(socket.socket(), Path::new("/s"));

    for bad in ["web", "/web", "default/", "a/b/c"] {
        assert!(parse(&["explain", bad]).is_err(), "{bad}");
    }
    assert!(parse(&["explain", "a/b", "--socket=/s", "--root-dir=/k"]).is_err());
}

#[test]
fn unknown_flags_and_arguments_are_errors() {
    for args in [
        &["--max-pod=3"][..],
        &["frobnicate"],
        &["--max-pods"],
        &["--pod-infra-container-image=pause"],
        &["--network-plugin", "cni"],
    ] {
        assert!(parse(args).is_err(), "{args:?}");
    }
    let removed = parse(&["--pod-infra-container-image=pause"]).unwrap_err();
    let text = removed.to_string();
    assert!(
        text.contains("--pod-infra-container-image does not exist any more: set the sandbox image"),
        "{text}"
    );
    let typo = parse(&["--max-pod=3"]).unwrap_err().to_string();
    assert!(typo.contains("--max-pods"), "{typo}");
}

#[test]
fn help_is_short_or_complete() {
    let help = |flag: &str| parse(&[flag]).unwrap_err().to_string();
    let (short, long) = (help("-h"), help("--help"));
    assert!(short.contains("--kubeconfig") && !short.contains("--max-pods"));
    assert!(long.contains("Set maxPods"), "{long}");
    for flag in ["--service-proxy", "--proxy-config"] {
        assert!(
            short.contains(flag) && long.contains(flag),
            "{flag}: {short}"
        );
    }
    assert!(!long.contains("--pod-infra-container-image"));
    assert!(short.lines().count() < 80, "{short}");
}

#[test]
fn flags_are_written_as_pflag_reads_them() {
    let config = |args: &[&str]| Files::new().load(args).unwrap().config;
    for args in [
        &["--v=4"][..],
        &["--v", "4"],
        &["-v=4"],
        &["-v", "4"],
        &["-v4"],
        &["-v1", "-v4"],
    ] {
        assert_eq!(config(args).log.verbosity.0, 4, "{args:?}");
    }
    for (args, register) in [
        (&["--register-node"][..], true),
        (&["--register-node=false"], false),
        (&["--register-node=F"], false),
        (&["--register-node=0", "--register-node=1"], true),
    ] {
        assert_eq!(config(args).node.register, register, "{args:?}");
    }
    assert_eq!(config(&["--oom-score-adj", "-7"]).process.oom_score_adj, -7);
    let twice = config(&["--cluster-dns=10.0.0.1,10.0.0.2", "--cluster-dns=10.0.0.3"]);
    assert_eq!(twice.dns.cluster_dns.len(), 3);
    let empty = config(&["--cloud-provider=", "--node-ip=", "--kubeconfig="]);
    assert!(empty.api.is_standalone());
}

#[test]
fn underscores_are_dashes_with_a_warning() {
    let files = Files::new();
    let loaded = files.load(&["--max_pods=7"]).unwrap();
    assert_eq!(loaded.config.node.max_pods, 7);
    assert_eq!(
        files.warnings(&["--max_pods=7"]),
        ["--max_pods: flag names have dashes; read as --max-pods"]
    );
    // Values keep theirs.
    let labels = files.load(&["--node-labels=a_b=c_d"]).unwrap();
    assert_eq!(labels.config.node.labels["a_b"], "c_d");
}

#[test]
fn flags_without_meaning_are_named() {
    assert_eq!(
        Files::new().warnings(&["--containerd=/run/x", "--housekeeping-interval", "10s"]),
        [
            "--containerd: is accepted and has no effect",
            "--housekeeping-interval: is accepted and has no effect",
        ]
    );
}

#[test]
fn bad_flag_values_are_reported_together() {
    let args = run_args(&[
        "--max-pods=many",
        "--register-node=maybe",
        "--sync-frequency=5",
        "--kube-reserved=cpu",
        "--node-ip=10.0.0.1,10.0.0.2",
        "--register-with-taints=a=b:Never,c",
    ]);
    let errors = super::load_for_host(&args, "h").unwrap_err();
    insta::assert_snapshot!(errors, @r#"
    5 errors in the configuration
      --kube-reserved: expected name=value, found "cpu"
      --register-with-taints: expected key=value:Effect, found "c"
      --sync-frequency: "5" is not a duration; write a number and a unit, like "10s" or "1h30m"
      --max-pods: expected a whole number, found "many"
      --register-node: expected true or false, found "maybe"
    "#);
}
