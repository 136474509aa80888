//! Tests of [`super`]: what a pod says about itself.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn pod() -> Pod {
    serde_json::from_value(json!({
        "metadata": {
            "name": "web", "namespace": "shop", "uid": "u-1",
            "labels": {"tier": "front", "app": "web"},
            "annotations": {"note": "a \"b\"\nc\tü\u{200b}\u{1f600}\u{1}"},
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
