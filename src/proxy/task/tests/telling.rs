//! What the loop tells of its work: metrics, events, and what of others it clears away.

use jiff::{SignedDuration, Timestamp};

use super::*;

const PROGRAMMED: &str = r#"network_programming_duration_seconds_count{ip_family="IPv4"}"#;
const SEEN: &str = "sync_proxy_rules_endpoint_changes_total";
const PENDING: &str = "sync_proxy_rules_endpoint_changes_pending";
const SERVICES_SEEN: &str = "sync_proxy_rules_service_changes_total";
const SERVICES_PENDING: &str = "sync_proxy_rules_service_changes_pending";

impl World {
    /// A metric's value, by its name and labels; 0 if there is none.
    fn metric(&self, name: &str) -> u64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.metrics).unwrap();
        let prefix = format!("kubeproxy_{name} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&prefix));
        value.map_or(0, |value| value.parse().unwrap())
    }

    async fn until_metric(&self, name: &str, wanted: u64) {
        let is_so = async {
            while self.metric(name) != wanted {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let waited = tokio::time::timeout(DEADLINE, is_so).await;
        assert!(waited.is_ok(), "{name} is {}", self.metric(name));
    }
}

/// A slice that says when it was made to change.
fn triggered(address: &str, at: Timestamp) -> EndpointSlice {
    let mut slice = slice("a", &[address]);
    let annotation = "endpoints.kubernetes.io/last-change-trigger-time";
    let annotations = slice.metadata.annotations.get_or_insert_default();
    annotations.insert(annotation.to_owned(), at.to_string());
    slice
}

#[tokio::test(start_paused = true)]
async fn only_what_happens_while_it_runs_is_measured() {
    let mut world = World::at_work().await;
    let now = Timestamp::now();
    for (address, at, measured) in [
        ("10.1.0.2", now - SignedDuration::from_hours(1), 0),
        ("10.1.0.3", now, 1),
        ("10.1.0.4", now + SignedDuration::from_secs(5), 2),
    ] {
        world.slices.apply(&triggered(address, at));
        world.next_script().await;
        world.until_metric(PROGRAMMED, measured).await;
    }
}

#[tokio::test(start_paused = true)]
async fn changes_are_pending_until_the_rules_have_them() {
    let mut world = World::at_work().await;
    assert_eq!(world.metric(SEEN), 1);
    assert_eq!(world.metric(SERVICES_SEEN), 1);
    world.until_metric(PENDING, 0).await;
    for _ in 0..3 {
        world.iptables.fail_next(failure());
    }
    world.slices.apply(&slice("a", &["10.1.0.2"]));
    world.until_metric(PENDING, 1).await;
    assert_eq!(world.metric(SERVICES_PENDING), 0);
    // The same slice again, and a second Service.
    world.slices.apply(&slice("a", &["10.1.0.3"]));
    world.slices.apply(&slice("a", &["10.1.0.3"]));
    world.services.apply(&service("b", "10.96.0.2", json!({})));
    world.until_metric(SERVICES_PENDING, 1).await;
    assert_eq!(world.metric(PENDING), 1);
    world.next_script().await;
    world.until_metric(PENDING, 0).await;
    world.until_metric(SERVICES_PENDING, 0).await;
    assert_eq!(world.metric(SEEN), 4);
    assert_eq!(world.metric(SERVICES_SEEN), 2);
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_lasts_is_one_event_for_each_reason() {
    let mut world = World::at_work().await;
    world.events();
    for _ in 0..3 {
        world.iptables.fail_next(failure());
    }
    world.iptables.fail_next(refused("-A KUBE-SERVICES"));
    world.slices.apply(&slice("a", &["10.1.0.2"]));
    world.next_script().await;
    world.iptables.fail_next(failure());
    world.slices.apply(&slice("a", &["10.1.0.3"]));
    world.next_script().await;
    let reasons = ["xtables lock", "no such protocol", "xtables lock"];
    let events = world.events();
    assert_eq!(events.len(), reasons.len(), "{events:?}");
    for ((reason, message), wanted) in events.iter().zip(reasons) {
        assert_eq!(*reason, "ServiceRulesNotWritten");
        assert!(message.contains(wanted), "{message}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_nftables_modes_rules_go_after_ours_have_come() {
    let mut world = World::new(Mode::Auto);
    world.iptables.set_nftables_mode(Family::V4);
    world.iptables.fail_next(failure());
    world.list(&[service("a", "10.96.0.1", json!({}))], &[]);
    world.is_quiet().await;
    // Not ours to do yet.
    assert!(world.iptables.has_nftables_mode(Family::V4));
    world.pods.send_replace(pods_known(&[]));
    world.verdict.wait_for(Option::is_some).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(world.iptables.has_nftables_mode(Family::V4));
    world.next_script().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!world.iptables.has_nftables_mode(Family::V4));
}
