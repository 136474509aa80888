//! What the service proxy counts and measures, under kube-proxy's names, with its
//! labels and buckets.
//!
//! Raised where things happen: by the loop that applies rules, by the clean-up of
//! connection tracking, by the health server. Clones share the numbers.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family as Series;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets, linear_buckets};
use prometheus_client::registry::{Metric, Registry};

use super::model::{Family, Source, Table};

/// How much of the rules an application of them wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncKind {
    /// All of them.
    Full,
    /// What differed.
    Partial,
}

/// Which of a Service's traffic policies is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrafficPolicy {
    Internal,
    External,
}

type Histograms<L> = Series<L, Histogram, fn() -> Histogram>;
type Seconds = Gauge<f64, AtomicU64>;

/// See the module's text.
#[derive(Debug, Clone)]
pub struct Metrics {
    syncs: Histograms<FamilyLabels>,
    full_syncs: Histograms<FamilyLabels>,
    partial_syncs: Histograms<FamilyLabels>,
    last_synced: Series<FamilyLabels, Seconds>,
    last_queued: Series<FamilyLabels, Seconds>,
    programming: Histograms<FamilyLabels>,
    restore_failures: Series<FamilyLabels, Counter>,
    partial_restore_failures: Series<FamilyLabels, Counter>,
    rules: Series<TableLabels, Gauge>,
    rules_written: Series<TableLabels, Gauge>,
    no_local_endpoints: Series<PolicyLabels, Gauge>,
    conntrack: Histograms<FamilyLabels>,
    conntrack_deleted: Series<FamilyLabels, Counter>,
    endpoint_changes: Changes,
    service_changes: Changes,
    healthz: Series<CodeLabels, Counter>,
    livez: Series<CodeLabels, Counter>,
}

#[derive(Debug, Clone, Default)]
struct Changes {
    total: Counter,
    pending: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FamilyLabels {
    ip_family: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TableLabels {
    ip_family: &'static str,
    table: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PolicyLabels {
    ip_family: &'static str,
    traffic_policy: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabels {
    code: u16,
}

impl From<Family> for FamilyLabels {
    fn from(family: Family) -> Self {
        Self {
            ip_family: family.as_str(),
        }
    }
}

/// From a millisecond to sixteen seconds.
fn work_buckets() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 15))
}

/// From nothing to five minutes, finest in the first.
fn programming_buckets() -> Histogram {
    Histogram::new(
        [0.0]
            .into_iter()
            .chain(linear_buckets(0.25, 0.25, 2))
            .chain(linear_buckets(1.0, 1.0, 59))
            .chain(linear_buckets(60.0, 5.0, 12))
            .chain(linear_buckets(120.0, 30.0, 7)),
    )
}

fn work() -> Histograms<FamilyLabels> {
    Series::new_with_constructor(work_buckets)
}

impl Metrics {
    /// Makes the metrics and registers them.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            syncs: work(),
            full_syncs: work(),
            partial_syncs: work(),
            last_synced: Series::default(),
            last_queued: Series::default(),
            programming: Series::new_with_constructor(programming_buckets),
            restore_failures: Series::default(),
            partial_restore_failures: Series::default(),
            rules: Series::default(),
            rules_written: Series::default(),
            no_local_endpoints: Series::default(),
            conntrack: work(),
            conntrack_deleted: Series::default(),
            endpoint_changes: Changes::default(),
            service_changes: Changes::default(),
            healthz: Series::default(),
            livez: Series::default(),
        };
        metrics.register_syncs(registry);
        metrics.register_changes(registry);
        metrics.register_others(registry);
        metrics
    }

    fn register_syncs(&self, registry: &mut Registry) {
        let registry = &mut Names(registry);
        registry.add(
            "sync_proxy_rules_duration_seconds",
            "How long it took to bring the rules up to date",
            &self.syncs,
        );
        registry.add(
            "sync_full_proxy_rules_duration_seconds",
            "How long it took to write all rules",
            &self.full_syncs,
        );
        registry.add(
            "sync_partial_proxy_rules_duration_seconds",
            "How long it took to write the rules that differed",
            &self.partial_syncs,
        );
        registry.add(
            "sync_proxy_rules_last_timestamp_seconds",
            "When the rules were last brought up to date, since the epoch",
            &self.last_synced,
        );
        registry.add(
            "sync_proxy_rules_last_queued_timestamp_seconds",
            "When rules last had a cause to change, since the epoch",
            &self.last_queued,
        );
        // The registry adds `_total` to counters.
        registry.add(
            "sync_proxy_rules_iptables_restore_failures",
            "Runs of iptables-restore that failed",
            &self.restore_failures,
        );
        registry.add(
            "sync_proxy_rules_iptables_partial_restore_failures",
            "Runs of iptables-restore with a part of the rules that failed",
            &self.partial_restore_failures,
        );
        registry.add(
            "sync_proxy_rules_iptables_total",
            "Rules that the proxy has in the kernel",
            &self.rules,
        );
        registry.add(
            "sync_proxy_rules_iptables_last",
            "Rules that were written last",
            &self.rules_written,
        );
    }

    fn register_changes(&self, registry: &mut Registry) {
        let registry = &mut Names(registry);
        registry.add(
            "sync_proxy_rules_endpoint_changes",
            "Changes of EndpointSlices seen",
            &self.endpoint_changes.total,
        );
        registry.add(
            "sync_proxy_rules_endpoint_changes_pending",
            "Services with changes of EndpointSlices that the rules do not have yet",
            &self.endpoint_changes.pending,
        );
        registry.add(
            "sync_proxy_rules_service_changes",
            "Changes of Services seen",
            &self.service_changes.total,
        );
        registry.add(
            "sync_proxy_rules_service_changes_pending",
            "Services with changes of their own that the rules do not have yet",
            &self.service_changes.pending,
        );
    }

    fn register_others(&self, registry: &mut Registry) {
        let registry = &mut Names(registry);
        registry.add(
            "network_programming_duration_seconds",
            "Time from the change of a pod or Service to rules that have it",
            &self.programming,
        );
        registry.add(
            "sync_proxy_rules_no_local_endpoints_total",
            "Services with traffic policy Local and no endpoint on this node",
            &self.no_local_endpoints,
        );
        registry.add(
            "conntrack_reconciler_sync_duration_seconds",
            "How long it took to clean up connection tracking",
            &self.conntrack,
        );
        registry.add(
            "conntrack_reconciler_deleted_entries",
            "Entries of connection tracking that were deleted",
            &self.conntrack_deleted,
        );
        registry.add(
            "proxy_healthz",
            "Answers of /healthz, by status code",
            &self.healthz,
        );
        registry.add(
            "proxy_livez",
            "Answers of /livez, by status code",
            &self.livez,
        );
    }

    /// Raises one of each: what was never raised is not served, and so not compared
    /// with the documentation.
    #[cfg(test)]
    pub(crate) fn touch(&self) {
        let second = Duration::from_secs(1);
        for kind in [SyncKind::Full, SyncKind::Partial] {
            self.synced(Family::V4, kind, second, Timestamp::UNIX_EPOCH);
        }
        self.queued(Family::V4, Timestamp::UNIX_EPOCH);
        self.restore_failed(Family::V4, SyncKind::Partial);
        self.programmed(Family::V4, second);
        self.rules(Family::V4, Table::Nat, 1);
        self.rules_written(Family::V4, Table::Nat, 1);
        self.no_local_endpoints(Family::V4, TrafficPolicy::Internal, 1);
        self.conntrack(Family::V4, second, 1);
        self.changed(Source::Services, 1);
        self.pending(Source::Endpoints, 1);
        self.healthz(200);
        self.livez(200);
    }

    /// Rules were brought up to date, at `at`.
    pub fn synced(&self, family: Family, kind: SyncKind, took: Duration, at: Timestamp) {
        let labels = FamilyLabels::from(family);
        let seconds = took.as_secs_f64();
        let by_kind = match kind {
            SyncKind::Full => &self.full_syncs,
            SyncKind::Partial => &self.partial_syncs,
        };
        by_kind.get_or_create(&labels).observe(seconds);
        self.syncs.get_or_create(&labels).observe(seconds);
        let last = self.last_synced.get_or_create(&labels);
        last.set(since_epoch(at));
    }

    /// Rules have a cause to change, since `at`.
    pub fn queued(&self, family: Family, at: Timestamp) {
        let last = self.last_queued.get_or_create(&family.into());
        last.set(since_epoch(at));
    }

    /// iptables-restore failed.
    pub fn restore_failed(&self, family: Family, kind: SyncKind) {
        let labels = FamilyLabels::from(family);
        self.restore_failures.get_or_create(&labels).inc();
        if kind == SyncKind::Partial {
            self.partial_restore_failures.get_or_create(&labels).inc();
        }
    }

    /// A change is in the kernel, so long after it happened. Once for each slice.
    pub fn programmed(&self, family: Family, after: Duration) {
        let histogram = self.programming.get_or_create(&family.into());
        histogram.observe(after.as_secs_f64());
    }

    /// The rules that the proxy has in this table.
    pub fn rules(&self, family: Family, table: Table, count: usize) {
        let gauge = self.rules.get_or_create(&table_labels(family, table));
        gauge.set(clamped(count));
    }

    /// The rules that the last application wrote into this table.
    pub fn rules_written(&self, family: Family, table: Table, count: usize) {
        let labels = table_labels(family, table);
        self.rules_written
            .get_or_create(&labels)
            .set(clamped(count));
    }

    /// Services whose policy is Local and that have no endpoint here.
    pub fn no_local_endpoints(&self, family: Family, policy: TrafficPolicy, count: usize) {
        let labels = PolicyLabels {
            ip_family: family.as_str(),
            traffic_policy: match policy {
                TrafficPolicy::Internal => "internal",
                TrafficPolicy::External => "external",
            },
        };
        self.no_local_endpoints
            .get_or_create(&labels)
            .set(clamped(count));
    }

    /// Connection tracking was cleaned up.
    pub fn conntrack(&self, family: Family, took: Duration, deleted: u64) {
        let labels = FamilyLabels::from(family);
        let histogram = self.conntrack.get_or_create(&labels);
        histogram.observe(took.as_secs_f64());
        self.conntrack_deleted
            .get_or_create(&labels)
            .inc_by(deleted);
    }

    /// So many changes of objects were seen.
    pub fn changed(&self, source: Source, count: u64) {
        self.changes(source).total.inc_by(count);
    }

    /// Of so many Services, changes are not in the rules yet.
    pub fn pending(&self, source: Source, count: usize) {
        self.changes(source).pending.set(clamped(count));
    }

    fn changes(&self, source: Source) -> &Changes {
        match source {
            Source::Services => &self.service_changes,
            Source::Endpoints => &self.endpoint_changes,
        }
    }

    /// `/healthz` was answered.
    pub(super) fn healthz(&self, code: u16) {
        self.healthz.get_or_create(&CodeLabels { code }).inc();
    }

    /// `/livez` was answered.
    pub(super) fn livez(&self, code: u16) {
        self.livez.get_or_create(&CodeLabels { code }).inc();
    }
}

/// A registry whose metrics are kube-proxy's.
struct Names<'a>(&'a mut Registry);

impl Names<'_> {
    fn add(&mut self, name: &str, help: &str, metric: &(impl Metric + Clone)) {
        self.0
            .register(format!("kubeproxy_{name}"), help, metric.clone());
    }
}

fn table_labels(family: Family, table: Table) -> TableLabels {
    TableLabels {
        ip_family: family.as_str(),
        table: table.as_str(),
    }
}

fn clamped(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn since_epoch(at: Timestamp) -> f64 {
    at.as_duration().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_served_under_kube_proxys_names() {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let at = Timestamp::from_millisecond(1_500).unwrap();
        metrics.queued(Family::V6, at);
        metrics.synced(Family::V6, SyncKind::Partial, Duration::from_millis(3), at);
        metrics.restore_failed(Family::V4, SyncKind::Full);
        metrics.programmed(Family::V4, Duration::from_secs(61));
        metrics.rules(Family::V4, Table::Filter, 7);
        metrics.changed(Source::Endpoints, 1);
        metrics.healthz(503);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            r#"kubeproxy_sync_proxy_rules_duration_seconds_bucket{le="0.002",ip_family="IPv6"} 0"#,
            r#"kubeproxy_sync_proxy_rules_duration_seconds_bucket{le="0.004",ip_family="IPv6"} 1"#,
            r#"kubeproxy_sync_partial_proxy_rules_duration_seconds_count{ip_family="IPv6"} 1"#,
            r#"kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family="IPv6"} 1.5"#,
            r#"kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{ip_family="IPv6"} 1.5"#,
            r#"kubeproxy_sync_proxy_rules_iptables_restore_failures_total{ip_family="IPv4"} 1"#,
            r#"kubeproxy_network_programming_duration_seconds_bucket{le="60.0",ip_family="IPv4"} 0"#,
            r#"kubeproxy_network_programming_duration_seconds_bucket{le="65.0",ip_family="IPv4"} 1"#,
            r#"kubeproxy_network_programming_duration_seconds_bucket{le="300.0",ip_family="IPv4"} 1"#,
            r#"kubeproxy_sync_proxy_rules_iptables_total{ip_family="IPv4",table="filter"} 7"#,
            "kubeproxy_sync_proxy_rules_endpoint_changes_total 1",
            "kubeproxy_sync_proxy_rules_service_changes_total 0",
            r#"kubeproxy_proxy_healthz_total{code="503"} 1"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
        for absent in [
            "sync_full_proxy_rules_duration_seconds_count",
            "partial_restore_failures_total",
        ] {
            assert!(!text.contains(absent), "{absent} in\n{text}");
        }
    }
}
