//! The decision, as tables.

use serde_json::json;

use super::*;

const PATIENCE: Duration = Duration::from_secs(60);

fn clock(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

enum Did {
    Queued(Family, u64),
    /// When it began and when it was done.
    Updated(Family, u64, u64),
    Rested,
}

use Did::{Queued, Rested, Updated};
use Family::{V4, V6};

/// Whether each family is healthy at this second; no entry: nothing known.
fn healthy_at(history: &[Did], second: u64) -> Vec<(&'static str, bool)> {
    let start = Instant::now();
    let at = |second: u64| start + Duration::from_secs(second);
    let wall = |second: u64| clock(i64::try_from(second).unwrap());
    let mut vitals = Vitals::new(PATIENCE);
    for did in history {
        match did {
            Queued(family, when) => vitals.queued(*family, at(*when)),
            Updated(family, began, done) => vitals.updated(*family, at(*began), wall(*done)),
            Rested => vitals.rest(),
        }
    }
    let report = vitals.report(at(second), wall(second));
    let status: Vec<_> = report
        .status
        .iter()
        .map(|(family, report)| (*family, report.healthy))
        .collect();
    assert_eq!(report.healthy, status.iter().all(|(_, healthy)| *healthy));
    status
}

/// What happened, asked when, and which families are healthy.
type Row<'a> = (&'a [Did], u64, &'a [(&'a str, bool)]);

#[test]
fn a_family_is_healthy_unless_a_change_waits_too_long() {
    let table: &[Row<'_>] = &[
        // Nothing to do is well done.
        (&[], 1000, &[]),
        (&[Queued(V4, 0)], 59, &[]),
        (&[Updated(V4, 0, 1)], 1000, &[("IPv4", true)]),
        // Rules that never came are late as well.
        (&[Queued(V4, 0)], 60, &[("IPv4", false)]),
        (&[Updated(V4, 0, 1), Queued(V4, 10)], 69, &[("IPv4", true)]),
        (
            &[Updated(V4, 0, 1), Queued(V4, 10), Queued(V4, 50)],
            70,
            &[("IPv4", false)],
        ),
        (&[Queued(V4, 0), Updated(V4, 80, 81)], 90, &[("IPv4", true)]),
        // What came during a round is not in it.
        (
            &[Queued(V4, 0), Queued(V4, 11), Updated(V4, 10, 12)],
            71,
            &[("IPv4", false)],
        ),
        // One late family is enough.
        (
            &[Updated(V4, 0, 1), Updated(V6, 0, 1), Queued(V6, 5)],
            65,
            &[("IPv4", true), ("IPv6", false)],
        ),
        (&[Queued(V4, 0), Rested], 1000, &[]),
    ];
    for (number, (history, second, expected)) in table.iter().enumerate() {
        assert_eq!(healthy_at(history, *second), *expected, "row {number}");
    }
}

#[test]
fn what_nodes_say() {
    let node = |value| serde_json::from_value::<Node>(value).unwrap();
    let tainted = |key: &str| {
        node(json!({"spec": {"taints": [
            {"key": "a", "effect": "NoSchedule"}, {"key": key, "effect": "NoSchedule"},
        ]}}))
    };
    for (node, expected) in [
        (None, NodePart::Leaving),
        (Some(Node::default()), NodePart::Eligible),
        (Some(tainted("b")), NodePart::Eligible),
        (Some(tainted(TO_BE_DELETED)), NodePart::Leaving),
        (
            Some(node(
                json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
            )),
            NodePart::Leaving,
        ),
    ] {
        assert_eq!(NodePart::of(node.as_ref()), expected, "{node:?}");
    }
}

#[test]
fn a_report_in_upstreams_words() {
    let start = Instant::now();
    let mut vitals = Vitals::new(PATIENCE);
    vitals.updated(V4, start, clock(1));
    vitals.queued(V6, start);
    vitals.set_node(NodePart::Leaving);
    let report = vitals.report(start + PATIENCE, clock(60));
    insta::assert_json_snapshot!(report, @r#"
    {
      "lastUpdated": "2023-11-14T22:13:21Z",
      "currentTime": "2023-11-14T22:14:20Z",
      "nodeEligible": false,
      "healthy": false,
      "status": {
        "IPv4": {
          "lastUpdated": "2023-11-14T22:13:21Z",
          "healthy": true
        },
        "IPv6": {
          "lastUpdated": "0001-01-01T00:00:00Z",
          "healthy": false
        }
      }
    }
    "#);
}
