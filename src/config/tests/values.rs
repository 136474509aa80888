//! Durations and labels.

use std::time::Duration;

use proptest::prelude::*;

use super::super::duration::GoDuration;
use super::super::labels;

#[test]
fn durations_are_gos() {
    let table: [(&str, Option<i64>, &str); 18] = [
        ("0", Some(0), "0s"),
        ("0s", Some(0), "0s"),
        ("10s", Some(10_000_000_000), "10s"),
        ("1m", Some(60_000_000_000), "1m0s"),
        ("1h30m", Some(5_400_000_000_000), "1h30m0s"),
        ("1.5s", Some(1_500_000_000), "1.5s"),
        (".5s", Some(500_000_000), "500ms"),
        ("1.s", Some(1_000_000_000), "1s"),
        ("100us", Some(100_000), "100µs"),
        ("100µs", Some(100_000), "100µs"),
        ("-1h", Some(-3_600_000_000_000), "-1h0m0s"),
        ("+3ns", Some(3), "3ns"),
        (
            "2562047h",
            Some(2_562_047 * 3_600_000_000_000),
            "2562047h0m0s",
        ),
        ("2562048h", None, ""),
        ("10", None, ""),
        ("s", None, ""),
        ("1d", None, ""),
        ("", None, ""),
    ];
    for (text, nanos, shown) in table {
        let parsed = text.parse::<GoDuration>().ok();
        assert_eq!(parsed, nanos.map(GoDuration::from_nanos), "{text}");
        if let Some(parsed) = parsed {
            assert_eq!(parsed.to_string(), shown);
        }
    }
    for bad in ["1..5s", ".s", "1s2", "1 s", "--1s", "-", "1sm", "٣s"] {
        assert!(bad.parse::<GoDuration>().is_err(), "{bad}");
    }
    assert_eq!(GoDuration::from_secs(-1).to_std(), Duration::ZERO);
}

#[test]
fn labels_a_node_may_set() {
    for good in [
        "a",
        "example.com/role",
        "kubernetes.io/hostname",
        "node.kubernetes.io/anything",
        "sub.node.kubernetes.io/anything",
        "kubelet.kubernetes.io/x",
        "topology.kubernetes.io/zone",
        "notkubernetes.io/x",
    ] {
        assert_eq!(labels::refusal(good, "v"), None, "{good}");
    }
    for bad in [
        "node-role.kubernetes.io/worker",
        "kubernetes.io/role",
        "x.k8s.io/y",
        "k8s.io/y",
        "notnode.kubernetes.io/x",
        "-a",
        "a/b/c",
        "A.com/x",
        "/x",
        "x/",
        "",
    ] {
        assert!(labels::refusal(bad, "v").is_some(), "{bad}");
    }
    assert!(labels::refusal("a", "b c").is_some());
    assert!(labels::refusal("a", &"x".repeat(64)).is_some());
    assert_eq!(labels::refusal("a", ""), None);
}

proptest! {
    #[test]
    fn a_printed_duration_reads_back(nanos in any::<i64>()) {
        let duration = GoDuration::from_nanos(nanos);
        prop_assert_eq!(duration.to_string().parse::<GoDuration>(), Ok(duration));
    }

    #[test]
    fn parsers_take_any_text(text in ".*") {
        let _ = text.parse::<GoDuration>();
        let _ = labels::refusal(&text, &text);
    }

    #[test]
    fn files_of_any_text_are_read_or_refused(text in "([a-z]+: |- |\\{|\\}|\\[|\\]|\"|\n| |[0-9]){0,40}") {
        let _ = super::super::document::parse(&text, std::path::Path::new("f"));
    }
}
