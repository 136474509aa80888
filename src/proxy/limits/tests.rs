use std::fs;

use tempfile::TempDir;

use super::*;

/// A kernel with these values.
fn kernel(values: &[(Tunable, u64)]) -> TempDir {
    let root = TempDir::new().unwrap();
    for (tunable, value) in values {
        let path = root.path().join(tunable.path());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{value}\n")).unwrap();
    }
    root
}

fn nothing() -> LimitSettings {
    LimitSettings {
        max_per_core: 0,
        min: 131_072,
        tcp_established_timeout: Duration::ZERO,
        tcp_close_wait_timeout: Duration::ZERO,
        localhost_node_ports: false,
        ..LimitSettings::default()
    }
}

fn writes(
    settings: &LimitSettings,
    cpus: usize,
    current: &[(Tunable, u64)],
) -> Vec<(Tunable, u64)> {
    let current = current.iter().copied().collect();
    let plan = plan(settings, cpus, &current);
    plan.iter().map(|write| (write.tunable, write.to)).collect()
}

#[test]
fn defaults_on_an_untouched_machine() {
    let current = [
        (Tunable::ConntrackMax, 262_144),
        (Tunable::ConntrackBuckets, 65_536),
        (Tunable::TcpEstablishedTimeout, 432_000),
        (Tunable::TcpCloseWaitTimeout, 60),
        (Tunable::TcpBeLiberal, 0),
        (Tunable::UdpTimeout, 30),
        (Tunable::UdpStreamTimeout, 120),
        (Tunable::RouteLocalnet, 0),
    ];
    let others = [
        (Tunable::TcpEstablishedTimeout, 86_400),
        (Tunable::TcpCloseWaitTimeout, 3_600),
        (Tunable::RouteLocalnet, 1),
    ];
    let defaults = LimitSettings::default();
    assert_eq!(writes(&defaults, 8, &current), others);
    let larger = [
        (Tunable::ConntrackMax, 524_288),
        (Tunable::ConntrackBuckets, 131_072),
    ];
    assert_eq!(
        writes(&defaults, 16, &current),
        [&larger[..], &others].concat()
    );
}

#[test]
fn zero_leaves_everything_alone() {
    assert_eq!(writes(&nothing(), 8, &[]), []);
}

#[test]
fn entries_follow_the_cpus_between_two_limits() {
    for (per_core, min, cpus, max) in [
        (32_768, 131_072, 2, 131_072),
        (32_768, 131_072, 8, 262_144),
        (32_768, 131_072, 128, 1_048_576),
        (32_768, 0, 1, 32_768),
        (u32::MAX, 0, usize::MAX, 1_048_576),
    ] {
        let settings = LimitSettings {
            max_per_core: per_core,
            min,
            ..nothing()
        };
        let planned = writes(&settings, cpus, &[(Tunable::ConntrackBuckets, u64::MAX)]);
        assert_eq!(planned, [(Tunable::ConntrackMax, max)], "{cpus} CPUs");
    }
}

#[test]
fn buckets_only_become_more() {
    let settings = LimitSettings {
        max_per_core: 32_768,
        ..nothing()
    };
    for (now, planned) in [(32_767, true), (32_768, false), (40_000, false)] {
        let current = [
            (Tunable::ConntrackMax, 131_072),
            (Tunable::ConntrackBuckets, now),
        ];
        let expected = [(Tunable::ConntrackBuckets, 32_768)];
        let expected = if planned { &expected[..] } else { &[] };
        assert_eq!(writes(&settings, 1, &current), expected, "{now}");
    }
}

#[test]
fn what_is_set_is_written_once() {
    let settings = LimitSettings {
        max_per_core: 100_000,
        udp_timeout: Duration::from_secs(10),
        udp_stream_timeout: Duration::from_secs(20),
        tcp_be_liberal: true,
        ..LimitSettings::default()
    };
    let root = kernel(&Tunable::ALL.map(|tunable| (tunable, 0)));
    assert!(!tcp_be_liberal(root.path()));
    ensure(root.path(), &settings, 2);
    assert_eq!(
        current(root.path()).into_values().collect::<Vec<_>>(),
        [200_000, 50_000, 86_400, 3_600, 1, 10, 20, 1]
    );
    assert!(tcp_be_liberal(root.path()));
    assert_eq!(plan(&settings, 2, &current(root.path())), []);
}

#[test]
fn a_limit_that_resists_is_one_error_and_holds_up_nothing() {
    let root = kernel(&[
        (Tunable::ConntrackBuckets, 1),
        (Tunable::TcpCloseWaitTimeout, 60),
        (Tunable::TcpEstablishedTimeout, 60),
        (Tunable::RouteLocalnet, 0),
    ]);
    let max = root.path().join(Tunable::ConntrackMax.path());
    // Root may write to any file, but not to a directory.
    fs::create_dir_all(max).unwrap();
    let settings = LimitSettings::default();
    let plan = plan(&settings, 4, &current(root.path()));
    let errors = apply(root.path(), &plan);
    let failed: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        failed,
        ["cannot set /proc/sys/net/netfilter/nf_conntrack_max to 131072"]
    );
    let now = current(root.path());
    assert_eq!(now[&Tunable::ConntrackBuckets], 1);
    assert_eq!(now[&Tunable::TcpCloseWaitTimeout], 3_600);
    assert_eq!(now[&Tunable::RouteLocalnet], 1);
}

#[test]
fn an_unreadable_setting_is_not_liberal() {
    assert!(!tcp_be_liberal(kernel(&[]).path()));
}
