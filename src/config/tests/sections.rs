//! Values that take more than copying.

use std::num::NonZeroU32;

use super::super::{Enforcement, ImageVerification, IpFamily, NodeIps};
use super::{Files, config_of};

fn from_flags(flags: &[&str]) -> super::Config {
    Files::new().load(flags).unwrap().config
}

#[test]
fn the_node_is_named_after_the_machine_unless_told() {
    assert_eq!(from_flags(&[]).node.name, "test-host");
    let named = from_flags(&["--hostname-override= Node-A "]);
    assert_eq!(named.node.name, "node-a");
    let unnamed = super::load_for_host(&super::run_args(&[]), " ").unwrap_err();
    assert_eq!(
        unnamed.to_string(),
        "--hostname-override: is needed, as the hostname is empty"
    );
}

#[test]
fn node_ips() {
    let table = [
        ("10.0.0.1", NodeIps::One("10.0.0.1".parse().unwrap())),
        ("0.0.0.0", NodeIps::PreferFamily(IpFamily::V4)),
        ("::", NodeIps::PreferFamily(IpFamily::V6)),
        (
            "fd00::1, 10.0.0.1",
            NodeIps::Pair("fd00::1".parse().unwrap(), "10.0.0.1".parse().unwrap()),
        ),
    ];
    for (given, expected) in table {
        let config = from_flags(&[&format!("--node-ip={given}")]);
        assert_eq!(config.node.ips, expected);
    }
    assert_eq!(from_flags(&[]).node.ips, NodeIps::Auto);
    for bad in ["x", "10.0.0.1,10.0.0.2", "::,10.0.0.1", "1.1.1.1,::1,::2"] {
        let flag = format!("--node-ip={bad}");
        assert!(Files::new().load(&[&flag]).is_err(), "{bad}");
    }
}

#[test]
fn taints_come_from_files_and_flags() {
    let taint = |config: super::Config| {
        let taint = config.node.taints[0].clone();
        (taint.key, taint.value, taint.effect)
    };
    let expected = (
        "a.io/b".to_owned(),
        Some("c".to_owned()),
        "NoExecute".to_owned(),
    );
    let file = config_of(
        "registerWithTaints: [{key: a.io/b, value: c, effect: NoExecute}]",
        &[],
    );
    assert_eq!(taint(file), expected);
    let flag = from_flags(&["--register-with-taints=a.io/b=c:NoExecute,d:NoSchedule"]);
    assert_eq!(flag.node.taints.len(), 2);
    assert_eq!(taint(flag), expected);
}

#[test]
fn parallel_pulls() {
    let limit = |fields: &str| config_of(fields, &[]).images.max_parallel_pulls;
    assert_eq!(limit(""), NonZeroU32::new(1));
    assert_eq!(limit("maxParallelImagePulls: 5"), NonZeroU32::new(5));
    assert_eq!(limit("serializeImagePulls: false"), None);
    assert_eq!(limit("maxParallelImagePulls: 1"), NonZeroU32::new(1));
    assert_eq!(
        limit("serializeImagePulls: false\nmaxParallelImagePulls: 3"),
        NonZeroU32::new(3)
    );
}

#[test]
fn image_verification() {
    let of = |fields: &str| config_of(fields, &[]).images.verification;
    assert_eq!(of(""), ImageVerification::NeverForPreloaded);
    assert_eq!(
        of(
            "imagePullCredentialsVerificationPolicy: NeverVerifyAllowlistedImages\n\
             preloadedImagesVerificationAllowlist: [docker.io/a/b]"
        ),
        ImageVerification::NeverForAllowlisted(vec!["docker.io/a/b".to_owned()])
    );
}

#[test]
fn reserved_cpus_replace_reserved_cpu_time() {
    let reserved = config_of(
        "reservedSystemCPUs: 0-2,7\nkubeReserved: {cpu: 100m, memory: 1Gi}\nsystemReserved: {cpu: 50m}",
        &[],
    )
    .reserved;
    assert_eq!(reserved.cpus.into_iter().collect::<Vec<_>>(), [0, 1, 2, 7]);
    assert_eq!(reserved.system["cpu"], "4");
    assert!(!reserved.kube.contains_key("cpu"));
    assert_eq!(reserved.kube["memory"], "1Gi");
}

#[test]
fn enforcements() {
    let config = config_of(
        "enforceNodeAllocatable: [pods, kube-reserved-compressible]\nkubeReservedCgroup: /k",
        &[],
    );
    assert_eq!(
        config.cgroup.enforce.into_iter().collect::<Vec<_>>(),
        [Enforcement::Pods, Enforcement::KubeReservedCompressible]
    );
}

#[test]
fn limits_that_can_be_off() {
    let config = config_of(
        "podPidsLimit: 0\nnodeStatusMaxImages: -1\ncontainerLogMaxSize: \"-1\"\n\
         evictionMaxPodGracePeriod: -1\nenableServer: false",
        &[],
    );
    assert_eq!(config.pod.pids_limit, None);
    assert_eq!(config.node.max_images, None);
    assert_eq!(config.container_logs.max_bytes, None);
    assert_eq!(config.eviction.max_pod_grace_period, None);
    assert_eq!(config.server.secure, None);
}

#[test]
fn soft_eviction_has_its_grace_period() {
    let soft = config_of(
        "evictionSoft: {memory.available: 1.5Gi}\nevictionSoftGracePeriod: {memory.available: 1m30s}",
        &[],
    )
    .eviction
    .soft;
    let (_, threshold) = soft.into_iter().next().unwrap();
    assert_eq!(threshold.grace_period.as_secs(), 90);
}
