use super::*;
use crate::pod::testing::{pod, with_spec};

fn sums(spec: &str, overhead: Overhead) -> [(i64, i64); 2] {
    let sum = requests_limits(&with_spec(spec).pod, overhead);
    [sum.requests, sum.limits].map(|list| (list.cpu().milli_value(), list.memory().value()))
}

#[test]
fn regular_containers_add_up() {
    let spec = "{containers: [
        {name: a, resources: {requests: {cpu: 100m, memory: 1Ki}, limits: {cpu: 1, memory: 2Ki}}},
        {name: b, resources: {requests: {cpu: 50m}, limits: {memory: 1Ki}}},
        {name: c}]}";
    assert_eq!(sums(spec, Overhead::Included), [(150, 1024), (1000, 3072)]);
}

#[test]
fn init_containers_count_by_their_peak() {
    let small = "{containers: [{name: a, resources: {requests: {cpu: 1, memory: 10}}}],
        initContainers: [
          {name: i, resources: {requests: {cpu: 300m, memory: 40}}},
          {name: j, resources: {requests: {cpu: 200m, memory: 20}}}]}";
    assert_eq!(sums(small, Overhead::Included)[0], (1000, 40));
}

#[test]
fn sidecars_add_to_all_that_run_beside_them() {
    // j runs beside s only; at the end a and both sidecars do.
    let spec = "{containers: [{name: a, resources: {requests: {cpu: 100m}}}],
        initContainers: [
          {name: s, restartPolicy: Always, resources: {requests: {cpu: 200m}}},
          {name: j, resources: {requests: {cpu: 700m}}},
          {name: t, restartPolicy: Always, resources: {requests: {cpu: 50m}}}]}";
    assert_eq!(sums(spec, Overhead::Included)[0].0, 900);
    let no_peak = spec.replace("700m", "10m");
    assert_eq!(sums(&no_peak, Overhead::Included)[0].0, 350);
}

#[test]
fn overhead_adds_to_requests_and_to_limits_that_are_set() {
    let spec = "{overhead: {cpu: 250m, memory: 100},
        containers: [{name: a, resources: {requests: {cpu: 100m}, limits: {cpu: 1}}}]}";
    assert_eq!(sums(spec, Overhead::Included), [(350, 100), (1250, 0)]);
    assert_eq!(sums(spec, Overhead::Excluded), [(100, 0), (1000, 0)]);
}

#[test]
fn pod_level_values_win() {
    let spec = "{resources: {requests: {cpu: 2}, limits: {memory: 1Mi}},
        containers: [{name: a, resources: {requests: {cpu: 100m, memory: 5}, limits: {cpu: 1}}}]}";
    assert_eq!(sums(spec, Overhead::Included), [(2000, 5), (1000, 1 << 20)]);
}

#[test]
fn a_pod_is_bounded_if_all_its_containers_are() {
    let bounds = |spec: &str| {
        let sum = requests_limits(&with_spec(spec).pod, Overhead::Included);
        (sum.cpu_limited, sum.memory_limited)
    };
    let limit = "resources: {limits: {cpu: 1, memory: 1}}";
    let all = format!("{{containers: [{{name: a, {limit}}}, {{name: b, {limit}}}]}}");
    assert_eq!(bounds(&all), (true, true));
    let one = format!("{{containers: [{{name: a, {limit}}}, {{name: b}}]}}");
    assert_eq!(bounds(&one), (false, false));
    let init = format!("{{containers: [{{name: a, {limit}}}], initContainers: [{{name: i}}]}}");
    assert_eq!(bounds(&init), (false, false));
    let by_pod = "{resources: {limits: {cpu: 1}}, containers: [{name: a}]}";
    assert_eq!(bounds(by_pod), (true, false));
}

#[test]
fn cpu_in_kernel_units() {
    for (milli, shares) in [
        (0, 2),
        (1, 2),
        (2, 2),
        (3, 3),
        (100, 102),
        (1000, 1024),
        (1500, 1536),
        (256_000, 262_144),
        (1_000_000, 262_144),
        (-5, 2),
        (i64::MAX, 262_144),
        (i64::MIN, 2),
    ] {
        assert_eq!(cpu_shares(milli), shares, "{milli}m");
    }
    for (milli, quota) in [
        (0, 0),
        (1, 1000),
        (10, 1000),
        (11, 1100),
        (500, 50_000),
        (2500, 250_000),
        (i64::MAX, i64::MAX),
    ] {
        assert_eq!(cpu_quota(milli, 100_000), quota, "{milli}m");
    }
    assert_eq!(cpu_quota(500, 5_000), 2_500);
}

#[test]
fn page_sizes_as_the_kernel_spells_them() {
    for (size, label) in [
        ("2Mi", Some("2MB")),
        ("1Gi", Some("1GB")),
        ("1024Mi", Some("1GB")),
        ("64Ki", Some("64KB")),
        ("16Gi", Some("16GB")),
        ("2Ei", Some("2048PB")),
        ("2049", None),
        ("0", None),
        ("-2Mi", None),
        ("x", None),
        ("", None),
    ] {
        assert_eq!(page_size_label(size).as_deref(), label, "{size}");
    }
}

#[test]
fn an_unreadable_quantity_is_named() {
    let api = pod(
        "metadata: {name: p}\nspec: {containers: [{name: web, resources: {limits: {cpu: lots}}}]}",
    );
    let error = check(&api.pod).unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"invalid quantity of "cpu" in container "web""#
    );
    assert_eq!(
        requests_limits(&api.pod, Overhead::Included).limits,
        ResourceList::default()
    );
    assert_eq!(check(&with_spec("{containers: [{name: a}]}").pod), Ok(()));
}

/// Random pod specs and their sums (milli-CPU, bytes, bytes of 2 MiB pages) as
/// k8s.io/component-helpers v0.36.3 computes them.
#[test]
fn sums_are_upstreams() {
    #[derive(serde::Deserialize)]
    struct Case {
        spec: PodSpec,
        requests: [i64; 3],
        limits: [i64; 3],
        requests_without_overhead: [i64; 3],
        limits_without_overhead: [i64; 3],
    }
    let numbers = |list: &ResourceList| {
        let pages = list.get("hugepages-2Mi").unwrap_or_default();
        [
            list.cpu().milli_value(),
            list.memory().value(),
            pages.value(),
        ]
    };
    for line in include_str!("testdata/upstream.jsonl").lines() {
        let case: Case = serde_json::from_str(line).unwrap();
        let pod = Pod {
            spec: Some(case.spec),
            ..Pod::default()
        };
        let with = requests_limits(&pod, Overhead::Included);
        let without = requests_limits(&pod, Overhead::Excluded);
        let sums = [
            &with.requests,
            &with.limits,
            &without.requests,
            &without.limits,
        ];
        let expected = [
            case.requests,
            case.limits,
            case.requests_without_overhead,
            case.limits_without_overhead,
        ];
        assert_eq!(sums.map(numbers), expected, "{line}");
    }
}
