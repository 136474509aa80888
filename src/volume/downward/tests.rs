//! Tests of [`super`]: what a pod says about itself.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn node() -> ComputeResources {
    ComputeResources {
        milli_cpu: 3500,
        memory: 8 << 30,
        ephemeral_storage: 10 << 30,
    }
}

fn pod() -> Pod {
    serde_json::from_value(json!({
        "metadata": {
            "name": "web", "namespace": "shop", "uid": "u-1",
            "labels": {"tier": "front", "app": "web"},
            "annotations": {"note": "a \"b\"\nc\tü\u{200b}\u{1f600}\u{1}"},
        },
        "spec": {
            "containers": [
                {"name": "c", "resources": {
                    "limits": {"cpu": "1250m", "memory": "100M"},
                    "requests": {"cpu": "250m", "hugepages-2Mi": "4Mi"},
                }},
                {"name": "bare"},
            ],
            "initContainers": [{"name": "i", "resources": {"limits": {"memory": "1Mi"}}}],
        },
    }))
    .unwrap()
}

#[test]
fn fields_have_upstreams_text() {
    let cases = [
        ("metadata.name", "web"),
        ("metadata.namespace", "shop"),
        ("metadata.uid", "u-1"),
        ("metadata.labels", "app=\"web\"\ntier=\"front\""),
        ("metadata.labels['app']", "web"),
        ("metadata.labels['none']", ""),
        (
            "metadata.annotations['note']",
            "a \"b\"\nc\tü\u{200b}\u{1f600}\u{1}",
        ),
        (
            "metadata.annotations",
            r#"note="a \"b\"\nc\tü\u200b😀\x01""#,
        ),
    ];
    for (path, expected) in cases {
        assert_eq!(field(&pod(), path).as_deref(), Ok(expected), "{path}");
    }
    for path in [
        "status.podIP",
        "spec.nodeName",
        "metadata.name['x']",
        "",
        "metadata.labels['",
    ] {
        let error = field(&pod(), path).unwrap_err();
        assert_eq!(error.to_string(), format!("unsupported fieldPath: {path}"));
    }
    assert_eq!(field(&Pod::default(), "metadata.labels").as_deref(), Ok(""));
}

fn selector(container: &str, resource: &str, divisor: Option<&str>) -> ResourceFieldSelector {
    ResourceFieldSelector {
        container_name: Some(container.into()),
        divisor: divisor.map(|divisor| ApiQuantity(divisor.into())),
        resource: resource.into(),
    }
}

#[test]
fn resources_are_divided_and_rounded_up() {
    let cases = [
        ("c", "limits.cpu", None, "2"),
        ("c", "limits.cpu", Some("1m"), "1250"),
        ("c", "limits.cpu", Some("0"), "2"),
        ("c", "limits.memory", None, "100000000"),
        ("c", "limits.memory", Some("1Mi"), "96"),
        ("c", "requests.cpu", Some("1m"), "250"),
        ("c", "requests.memory", None, "0"),
        ("c", "requests.hugepages-2Mi", Some("1Mi"), "4"),
        ("c", "limits.ephemeral-storage", Some("1Gi"), "10"),
        ("bare", "limits.cpu", None, "4"),
        ("bare", "limits.memory", Some("1Gi"), "8"),
        ("i", "limits.memory", None, "1048576"),
    ];
    for (container, name, divisor, expected) in cases {
        let got = resource(&pod(), &selector(container, name, divisor), &node());
        assert_eq!(
            got.as_deref(),
            Ok(expected),
            "{container} {name} {divisor:?}"
        );
    }
}

#[test]
fn a_pod_level_limit_comes_before_the_nodes() {
    let mut pod = pod();
    pod.spec.as_mut().unwrap().resources =
        serde_json::from_value(json!({"limits": {"memory": "1Gi"}})).unwrap();
    let got = resource(
        &pod,
        &selector("bare", "limits.memory", Some("1Mi")),
        &node(),
    );
    assert_eq!(got.as_deref(), Ok("1024"));
}

#[test]
fn impossible_resources_are_refused() {
    let cases = [
        (
            selector("ghost", "limits.cpu", None),
            "container ghost not found",
        ),
        (
            selector("c", "limits.gpu", None),
            "unsupported container resource : limits.gpu",
        ),
        (
            selector("c", "usage.cpu", None),
            "unsupported container resource : usage.cpu",
        ),
        (
            selector("c", "cpu", None),
            "unsupported container resource : cpu",
        ),
        (
            selector("c", "limits.cpu", Some("-1")),
            "the divisor of limits.cpu must be positive",
        ),
        (
            selector("c", "limits.cpu", Some("x")),
            "cannot compute limits.cpu",
        ),
    ];
    for (selector, expected) in cases {
        let error = resource(&pod(), &selector, &node()).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

proptest! {
    #[test]
    fn quoting_leaves_one_printable_line(text in any::<String>()) {
        let quoted = go_quoted(&text);
        prop_assert!(quoted.starts_with('"') && quoted.ends_with('"') && quoted.len() >= 2);
        prop_assert!(!quoted.chars().any(char::is_control));
        let inner = &quoted[1..quoted.len() - 1];
        let unescaped_quote = inner.replace("\\\\", "").replace("\\\"", "").contains('"');
        prop_assert!(!unescaped_quote);
    }
}
