//! Which layer wins.

use std::time::Duration;

use super::super::{Authorization, EvictionSignal, ThresholdValue};
use super::{Files, config_of};

#[test]
fn flags_win_over_files_and_files_over_defaults() {
    type Read = fn(&super::Config) -> String;
    let table: [(&str, &str, Read, [&str; 3]); 8] = [
        (
            "maxPods: 50",
            "--max-pods=60",
            |c| c.node.max_pods.to_string(),
            ["110", "50", "60"],
        ),
        (
            "registerNode: false",
            "--register-node=true",
            |c| c.node.register.to_string(),
            ["true", "false", "true"],
        ),
        (
            "clusterDNS: [10.0.0.1]",
            "--cluster-dns=10.0.0.9",
            |c| format!("{:?}", c.dns.cluster_dns),
            ["[]", "[10.0.0.1]", "[10.0.0.9]"],
        ),
        (
            "kubeReserved: {cpu: 1}",
            "--kube-reserved=memory=1Gi",
            |c| format!("{:?}", c.reserved.kube),
            ["{}", r#"{"cpu": "1"}"#, r#"{"memory": "1Gi"}"#],
        ),
        (
            "runtimeRequestTimeout: 3m",
            "--runtime-request-timeout=1m30s",
            |c| c.runtime.request_timeout.as_secs().to_string(),
            ["120", "180", "90"],
        ),
        (
            "containerRuntimeEndpoint: unix:///a.sock",
            "--container-runtime-endpoint=/b.sock",
            |c| c.runtime.endpoint.display().to_string(),
            ["/run/containerd/containerd.sock", "/a.sock", "/b.sock"],
        ),
        (
            "resolvConf: /a",
            "--resolv-conf=",
            |c| format!("{:?}", c.dns.resolv_conf),
            [r#"Some("/etc/resolv.conf")"#, r#"Some("/a")"#, "None"],
        ),
        (
            "logging: {verbosity: 2}",
            "-v=5",
            |c| c.log.verbosity.0.to_string(),
            ["0", "2", "5"],
        ),
    ];
    for (field, flag, read, [default, file, both]) in table {
        let field = field.replace("cpu: 1", "cpu: \"1\"");
        assert_eq!(read(&config_of("", &[])), default, "{field}");
        assert_eq!(read(&config_of(&field, &[])), file, "{field}");
        assert_eq!(read(&config_of(&field, &[flag])), both, "{flag}");
        assert_eq!(read(&config_of("", &[flag])), both, "{flag}");
    }
}

#[test]
fn zeros_are_unset_in_files_and_meant_on_the_command_line() {
    let file = config_of("maxPods: 0\nsyncFrequency: 0s\nregistryBurst: 0", &[]);
    assert_eq!(file.node.max_pods, 110);
    assert_eq!(file.pod.sync_frequency, Duration::from_secs(60));
    assert_eq!(file.images.pull_rate.unwrap().burst, 10);
    let flags = config_of("maxPods: 9", &["--max-pods=0", "--registry-burst=0"]);
    assert_eq!(flags.node.max_pods, 0);
    assert_eq!(flags.images.pull_rate.unwrap().burst, 0);
    // Where zero has a meaning, it has it in files, too.
    let off = config_of("healthzPort: 0\nregistryPullQPS: 0\neventRecordQPS: 0", &[]);
    assert_eq!(off.server.healthz, None);
    assert_eq!(off.images.pull_rate, None);
    assert_eq!(off.events.rate, None);
}

#[test]
fn feature_gates_of_flags_join_those_of_files() {
    let config = config_of(
        "featureGates: {KubeletCrashLoopBackOffMax: false, MemoryQoS: false}",
        &["--feature-gates=MemoryQoS=true"],
    );
    assert!(!config.gates.enabled("KubeletCrashLoopBackOffMax"));
    assert!(config.gates.enabled("MemoryQoS"));
}

#[test]
fn drop_ins_are_laid_over_the_file_in_order_of_their_paths() {
    let files = Files::new()
        .with_fields(
            "config.yaml",
            "maxPods: 1\npodsPerCore: 1\nclusterDomain: a\nclusterDNS: [10.0.0.1, 10.0.0.2]\n\
             systemReserved: {cpu: 100m, memory: 1Gi}\n",
        )
        .with_fields("d/10-first.conf", "maxPods: 2\nclusterDomain: b\n")
        .with_fields("d/10-first.conf.bak", "nonsense: true\n")
        .with_fields("d/20-dir/a.conf", "maxPods: 3\nclusterDNS: [10.0.0.3]\n")
        .with_fields(
            "d/30-last.conf",
            "podsPerCore: null\nsystemReserved: {cpu: 200m}\n",
        );
    let args = ["--config={dir}/config.yaml", "--config-dir={dir}/d"];
    let config = files.load(&args).unwrap().config;
    assert_eq!(config.node.max_pods, 3);
    assert_eq!(config.node.pods_per_core, None, "null removes");
    assert_eq!(config.dns.cluster_domain.as_deref(), Some("b"));
    assert_eq!(config.dns.cluster_dns.len(), 1, "lists are replaced");
    assert_eq!(config.reserved.system["cpu"], "200m", "maps are merged");
    assert_eq!(config.reserved.system["memory"], "1Gi");

    let flagged = files.load(&[args[0], args[1], "--max-pods=4"]).unwrap();
    assert_eq!(flagged.config.node.max_pods, 4);
}

#[test]
fn drop_ins_must_say_what_they_are() {
    let files = Files::new()
        .with("d/a.conf", "maxPods: 3\n")
        .with("d/b.conf", "apiVersion: v1\nkind: Pod\nspec: {}\n")
        .with("d/c.conf", "");
    insta::assert_snapshot!(files.errors(&["--config-dir={dir}/d"]), @r#"
    3 errors in the configuration
      {dir}/d/a.conf: expected apiVersion "kubelet.config.k8s.io/v1beta1" and kind "KubeletConfiguration", found neither
      {dir}/d/b.conf: expected apiVersion "kubelet.config.k8s.io/v1beta1" and kind "KubeletConfiguration", found "v1" and "Pod"
      {dir}/d/c.conf: expected apiVersion "kubelet.config.k8s.io/v1beta1" and kind "KubeletConfiguration", found neither
    "#);
    insta::assert_snapshot!(files.errors(&["--config-dir={dir}/none"]), @r#"{dir}/none: cannot be read: No such file or directory (os error 2)"#);
}

#[test]
fn errors_point_at_the_layer_that_wrote_the_value() {
    let files = Files::new()
        .with_fields(
            "config.yaml",
            "systemReserved:\n  cpu: lots\nfeatureGates: {Nope: true}\n",
        )
        .with_fields("d/a.conf", "maxPods: -1\nsystemReserved: {memory: lots}\n")
        .with_fields("d/b.conf", "maxPods: -2\nmaxPodz: 1\n");
    let args = [
        "--config={dir}/config.yaml",
        "--config-dir={dir}/d",
        "--feature-gates=Neither=true",
    ];
    insta::assert_snapshot!(files.errors(&args), @r#"{dir}/d/b.conf:4:1: unknown field "maxPodz" (did you mean "maxPods"?)"#);
    let files = files.with_fields("d/b.conf", "maxPods: -2\n");
    insta::assert_snapshot!(files.errors(&args), @r#"
    5 errors in the configuration
      {dir}/config.yaml:4:8: systemReserved.cpu: "lots" is not a quantity like "100m" or "1Gi"
      {dir}/config.yaml:5:22: featureGates.Nope: Nope is no feature gate
      {dir}/d/b.conf:3:10: maxPods: must not be negative
      {dir}/d/a.conf:4:26: systemReserved.memory: "lots" is not a quantity like "100m" or "1Gi"
      --feature-gates: Neither is no feature gate
    "#);
}

#[test]
fn without_a_file_the_old_insecure_defaults_hold() {
    let bare = Files::new().load(&[]).unwrap().config;
    assert!(bare.server.authentication.anonymous);
    assert_eq!(bare.server.authentication.webhook_cache_ttl, None);
    assert_eq!(bare.server.authorization, Authorization::AlwaysAllow);
    assert_eq!(bare.server.read_only.unwrap().port(), 10255);
    assert!(bare.eviction.hard.is_empty());

    let secure = config_of("", &[]);
    assert!(!secure.server.authentication.anonymous);
    assert!(secure.server.authentication.webhook_cache_ttl.is_some());
    assert!(matches!(
        secure.server.authorization,
        Authorization::Webhook { .. }
    ));
    assert_eq!(secure.server.read_only, None);
    assert_eq!(secure.eviction.hard.len(), 5);

    let files = Files::new().with_fields(
        "d/a.conf",
        "readOnlyPort: 0\nauthorization: {mode: Webhook}\nauthentication: {anonymous: null}\n",
    );
    let dropped = files.load(&["--config-dir={dir}/d"]).unwrap().config;
    assert_eq!(dropped.server.read_only, None);
    assert!(!dropped.server.authentication.anonymous);
    assert_eq!(
        dropped.server.authentication.webhook_cache_ttl, None,
        "what no drop-in mentions keeps the old default"
    );
    assert!(matches!(
        dropped.server.authorization,
        Authorization::Webhook { .. }
    ));
}

#[test]
fn hard_eviction_thresholds_are_replaced_or_merged() {
    let hard = |fields: &str, flags: &[&str]| config_of(fields, flags).eviction.hard;
    let given = "evictionHard: {memory.available: 1Gi}\n";
    let replaced = hard(given, &[]);
    assert_eq!(replaced.len(), 1);
    let merged = hard(&format!("{given}mergeDefaultEvictionSettings: true"), &[]);
    assert_eq!(merged.len(), 5);
    assert_eq!(
        merged[&EvictionSignal::MemoryAvailable],
        ThresholdValue::Quantity("1Gi".to_owned())
    );
    assert!(hard("evictionHard: {}", &[]).is_empty());
    assert_eq!(hard("evictionHard: null", &[]).len(), 5);
    let flag = hard(given, &["--eviction-hard=nodefs.available<20%"]);
    assert_eq!(
        flag.into_iter().collect::<Vec<_>>(),
        [(
            EvictionSignal::NodeFsAvailable,
            ThresholdValue::Percent(20.0)
        )]
    );
}

#[test]
fn the_report_frequency_follows_the_update_frequency_of_a_file() {
    let report = |fields: &str, flags: &[&str]| {
        let node = config_of(fields, flags).node;
        (
            node.status_update_frequency.as_secs(),
            node.status_report_frequency.as_secs(),
        )
    };
    assert_eq!(report("", &[]), (10, 300));
    assert_eq!(report("nodeStatusUpdateFrequency: 20s", &[]), (20, 20));
    assert_eq!(
        report(
            "nodeStatusUpdateFrequency: 20s\nnodeStatusReportFrequency: 60s",
            &[]
        ),
        (20, 60)
    );
    assert_eq!(
        report("", &["--node-status-update-frequency=20s"]),
        (20, 300)
    );
}

#[test]
fn paths_in_files_are_relative_to_the_file() {
    let files = Files::new().with_fields(
        "etc/config.yaml",
        "staticPodPath: manifests\nresolvConf: \"\"\npodLogsDir: /logs\n",
    );
    let config = files
        .load(&["--config={dir}/etc/config.yaml"])
        .unwrap()
        .config;
    assert_eq!(
        config.source.static_pod_path,
        Some(files.path("etc/manifests"))
    );
    assert_eq!(config.dns.resolv_conf, None);
    let flag = files
        .load(&["--config={dir}/etc/config.yaml", "--pod-manifest-path=here"])
        .unwrap();
    assert_eq!(flag.config.source.static_pod_path, Some("here".into()));
}
