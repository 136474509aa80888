//! What came of changes and syncs, for people and for metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::family::{FamilyProxy, SyncReport};
use crate::apiserver::{ProxyEvent, ProxyEventAbout};
use crate::error::chain;
use crate::pod::Severity;
use crate::proxy::apply::{IptablesError, NftablesError, Removal};
use crate::proxy::health::{EventSender, ProxyHealth};
use crate::proxy::inbox::Seen;
use crate::proxy::index::Change;
use crate::proxy::metrics::{Metrics, SyncKind, TrafficPolicy};
use crate::proxy::model::{Family, ServiceName, Source, Table};
use crate::proxy::problem::Problem;

/// Times of changes that wait for their rules, of one family; of more, the rest is not
/// measured.
const MOST_TRIGGERS: usize = 10_000;

pub(super) struct Reporter {
    metrics: Metrics,
    health: ProxyHealth,
    events: EventSender,
    /// What happened before is not measured, as upstream: nobody was there to follow it.
    started: Timestamp,
    /// When what happened that the rules do not show yet.
    triggers: BTreeMap<Family, Vec<Timestamp>>,
    /// Services with changes that the rules do not have yet.
    pending: BTreeMap<Source, BTreeSet<Arc<ServiceName>>>,
    /// Failures that last, as they were told last.
    failing: BTreeMap<Family, String>,
}

impl Reporter {
    pub(super) fn new(metrics: Metrics, health: ProxyHealth, events: EventSender) -> Self {
        Self {
            metrics,
            health,
            events,
            started: Timestamp::now(),
            triggers: BTreeMap::new(),
            pending: BTreeMap::new(),
            failing: BTreeMap::new(),
        }
    }

    /// Tells of objects that cannot be served as they are.
    pub(super) fn problems(&self, problems: impl IntoIterator<Item = Problem>) {
        for problem in problems {
            let Problem {
                service,
                uid,
                field,
                message,
            } = problem;
            warn!(%service, field, message, "a Service cannot be served as it is");
            (self.events)(ProxyEvent {
                about: ProxyEventAbout::Service {
                    namespace: service.namespace.to_string(),
                    name: service.name.to_string(),
                    uid: uid.map(String::from),
                },
                severity: Severity::Warning,
                reason: "ServiceNotFullyServed",
                action: "ProgramService",
                message: format!("{field}: {message}"),
            });
        }
    }

    /// Counts what came in.
    pub(super) fn seen(&self, seen: Seen) {
        self.metrics.changed(Source::Services, seen.services);
        self.metrics.changed(Source::Endpoints, seen.slices);
    }

    /// Notes that rules had a cause to change.
    pub(super) fn changed(
        &mut self,
        families: &[FamilyProxy],
        changes: &BTreeMap<Arc<ServiceName>, Change>,
    ) {
        let (now, at) = (Instant::now(), Timestamp::now());
        for family in families.iter().filter(|family| !family.rules().is_clean()) {
            self.health.queued(family.family(), now);
            self.metrics.queued(family.family(), at);
            let waiting = self.triggers.entry(family.family()).or_default();
            let room = MOST_TRIGGERS.saturating_sub(waiting.len());
            let triggers = changes.values().flat_map(|change| &change.triggers);
            let measured = triggers.filter(|trigger| **trigger > self.started);
            waiting.extend(measured.take(room));
        }
        if families.iter().all(|family| family.rules().is_clean()) {
            return;
        }
        for (name, change) in changes {
            for (is_cause, source) in [
                (change.by_service, Source::Services),
                (change.by_slices, Source::Endpoints),
            ] {
                if is_cause {
                    let pending = self.pending.entry(source).or_default();
                    pending.insert(Arc::clone(name));
                }
            }
        }
        self.tell_pending();
    }

    /// What waits for rules is somebody else's work now.
    pub(super) fn rest(&mut self) {
        self.triggers.clear();
        self.failing.clear();
        self.pending.clear();
        self.tell_pending();
    }

    fn tell_pending(&self) {
        for source in Source::ALL {
            let count = self.pending.get(&source).map_or(0, BTreeSet::len);
            self.metrics.pending(source, count);
        }
    }

    pub(super) fn synced(&mut self, families: &[FamilyProxy], report: SyncReport) {
        let family = report.family;
        let took = report.ended.saturating_duration_since(report.began);
        match &report.result {
            Ok(()) => {
                self.succeeded(&report);
                if families.iter().all(|family| family.rules().is_clean()) {
                    self.pending.clear();
                    self.tell_pending();
                }
                if let Some(proxy) = families.iter().find(|proxy| proxy.family() == family) {
                    self.measure(proxy);
                }
            }
            Err(failure) => {
                self.metrics.restore_failed(family, report.kind);
                error!(
                    family = family.as_str(),
                    ?took,
                    error = %chain(failure),
                    "cannot write the rules of Services; it is tried again"
                );
                self.tell_failure(family, failure);
                let message = chain(failure).to_string();
                self.problems(report.excluded.iter().map(|service| Problem {
                    service: Arc::clone(service),
                    uid: None,
                    field: "spec".to_owned(),
                    message: format!("goes without rules until it changes: {message}"),
                }));
            }
        }
        if let Some(leftovers) = &report.leftovers {
            tell_leftovers(family, leftovers);
        }
        self.flows(report);
    }

    /// An event, unless it is the same as that of the try before.
    fn tell_failure(&mut self, family: Family, failure: &IptablesError) {
        let message = format!("{}: {}", family.as_str(), chain(failure));
        if self.failing.get(&family) == Some(&message) {
            return;
        }
        self.failing.insert(family, message.clone());
        (self.events)(ProxyEvent {
            about: ProxyEventAbout::Node,
            severity: Severity::Warning,
            reason: "ServiceRulesNotWritten",
            action: "ProgramServices",
            message,
        });
    }

    fn succeeded(&mut self, report: &SyncReport) {
        let family = report.family;
        self.failing.remove(&family);
        let took = report.ended.saturating_duration_since(report.began);
        let now = Timestamp::now();
        self.health.updated(family, Instant::from_std(report.began));
        self.metrics.synced(family, report.kind, took, now);
        for (table, written) in [
            (Table::Filter, report.filter_rules),
            (Table::Nat, report.nat_rules),
        ] {
            self.metrics.rules_written(family, table, written);
        }
        for trigger in self.triggers.remove(&family).unwrap_or_default() {
            let after = now.duration_since(trigger);
            // A clock elsewhere may be ahead of ours.
            let after = std::time::Duration::try_from(after).unwrap_or_default();
            self.metrics.programmed(family, after);
        }
        let (nat, filter) = (report.nat_rules, report.filter_rules);
        match report.kind {
            SyncKind::Full => {
                info!(
                    family = family.as_str(),
                    nat,
                    filter,
                    ?took,
                    "all rules of Services written"
                );
            }
            SyncKind::Partial => {
                debug!(
                    family = family.as_str(),
                    nat,
                    filter,
                    ?took,
                    "changed rules written"
                );
            }
        }
    }

    fn measure(&self, proxy: &FamilyProxy) {
        let (family, rules) = (proxy.family(), proxy.rules());
        for table in [Table::Filter, Table::Nat] {
            self.metrics.rules(family, table, rules.rules(table));
        }
        let lacking = rules.no_local_endpoints();
        for (policy, count) in [
            (TrafficPolicy::Internal, lacking.internal),
            (TrafficPolicy::External, lacking.external),
        ] {
            self.metrics.no_local_endpoints(family, policy, count);
        }
    }

    fn flows(&self, report: SyncReport) {
        let family = report.family.as_str();
        match report.flows {
            None => {}
            Some((took, Ok(cleaned))) => {
                let deleted = u64::try_from(cleaned.deleted).unwrap_or(u64::MAX);
                self.metrics.conntrack(report.family, took, deleted);
                if cleaned.deleted > 0 {
                    info!(family, deleted, "stale flows forgotten");
                }
                if let Some(failure) = cleaned.first_failure {
                    let failed = cleaned.failed;
                    warn!(family, failed, error = %chain(&failure), "stale flows are left");
                }
            }
            Some((_, Err(failure))) => {
                warn!(family, error = %chain(&failure), "cannot look for stale flows");
            }
        }
    }
}

/// Tells what became of the rules of kube-proxy's other mode.
fn tell_leftovers(family: Family, leftovers: &Result<Removal, NftablesError>) {
    let family = family.as_str();
    match leftovers {
        Ok(Removal::Removed) => info!(family, "rules of kube-proxy's nftables mode removed"),
        Ok(Removal::WasAbsent) => {}
        Err(failure) => {
            warn!(
                family,
                error = %chain(failure),
                "rules of kube-proxy's nftables mode may be left"
            );
        }
    }
}
