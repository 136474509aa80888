//! One address family: its rules, its flows, and one sync of them.
//!
//! In: the Services that changed, what others did to our chains. Out: a sync when one
//! is due, and what came of it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::proxy::apply::watch::Chains;
use crate::proxy::apply::{Iptables, IptablesError, NftablesError, Removal};
use crate::proxy::conntrack::{self, Cleaned, Conntrack, ConntrackError};
use crate::proxy::index::ServiceIndex;
use crate::proxy::metrics::SyncKind;
use crate::proxy::model::{Family, ServiceName};
use crate::proxy::pace::{Pace, PaceLimits};
use crate::proxy::rules::{RuleSet, RuleSettings};
use crate::proxy::stale::{self, Served, Truth};

/// Without any other reason, everything is written anew this often, as upstream does.
const FULL_EVERY: Duration = Duration::from_secs(3600);

/// What a sync needs besides the family's own state.
pub(super) struct SyncDeps<'a> {
    pub(super) iptables: &'a dyn Iptables,
    pub(super) conntrack: &'a dyn Conntrack,
}

/// What a sync did.
#[derive(Debug)]
pub(super) struct SyncReport {
    pub(super) family: Family,
    pub(super) began: Instant,
    pub(super) ended: Instant,
    pub(super) kind: SyncKind,
    /// Rules sent, by table.
    pub(super) filter_rules: usize,
    pub(super) nat_rules: usize,
    pub(super) result: Result<(), IptablesError>,
    /// A Service whose rules the kernel does not take, and which goes without them until
    /// it changes.
    pub(super) excluded: Option<Arc<ServiceName>>,
    /// Of kube-proxy's other mode; `None`: it was seen to before, or is yet to be.
    pub(super) leftovers: Option<Result<Removal, NftablesError>>,
    /// `None`: no flow can have become stale. With the time that it took.
    pub(super) flows: Option<(Duration, Result<Cleaned, ConntrackError>)>,
}

pub(super) struct FamilyProxy {
    family: Family,
    rules: RuleSet,
    truth: Truth,
    pace: Pace,
    full_due: Option<Instant>,
    /// Whether the kernel's rules may be others than those that were written.
    doubt: Doubt,
    /// The Service for which a line was refused last time.
    suspect: Option<Arc<ServiceName>>,
    /// Whether rules of kube-proxy's nftables mode may be there.
    leftovers: Leftovers,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leftovers {
    Unknown,
    SeenTo,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doubt {
    None,
    /// Something happened, perhaps to our rules: look before writing everything.
    Look,
}

impl FamilyProxy {
    pub(super) fn new(family: Family, settings: RuleSettings, pace: PaceLimits) -> Self {
        Self {
            family,
            rules: RuleSet::new(family, settings),
            truth: Truth::new(family),
            pace: Pace::new(pace),
            full_due: None,
            doubt: Doubt::None,
            suspect: None,
            leftovers: Leftovers::Unknown,
        }
    }

    pub(super) const fn family(&self) -> Family {
        self.family
    }

    pub(super) const fn rules(&self) -> &RuleSet {
        &self.rules
    }

    /// Makes all rules again, if they are to be made otherwise now.
    pub(super) fn resettle(&mut self, settings: RuleSettings) {
        self.rules.set_settings(settings);
    }

    /// Takes in how these Services are now.
    pub(super) fn take<'a>(
        &mut self,
        names: impl Iterator<Item = &'a Arc<ServiceName>>,
        index: &ServiceIndex,
    ) {
        for name in names {
            let ports = index.ports(name, self.family);
            self.rules.set(name, &ports);
            let served: Vec<_> = ports
                .iter()
                .filter(|(port, _)| stale::PROTOCOLS.contains(&port.name.protocol))
                .map(|(port, selected)| {
                    Served::new(port, selected).also(index.answering(&port.name, self.family))
                })
                .collect();
            self.truth.set(name, &served);
        }
        let checks = index.health_checks(self.family);
        self.rules
            .set_health_ports(checks.into_iter().map(|(name, check)| (name, check.port)));
    }

    /// Somebody else has changed these chains.
    pub(super) fn disturbed(&mut self, chains: &Chains) {
        match chains {
            Chains::Named(chains) => {
                let chains: Vec<_> = chains.iter().cloned().collect();
                self.rules.touched(&chains);
            }
            Chains::All => self.doubt = Doubt::Look,
        }
    }

    /// The Services are ours now, and somebody else's until a moment ago.
    pub(super) fn begin(&mut self) {
        self.distrust();
        self.leftovers = Leftovers::Unknown;
    }

    /// Nothing is known any more of what the kernel has.
    pub(super) fn distrust(&mut self) {
        self.rules.want_full();
    }

    /// When the next sync is due; `None`: not before something happens.
    pub(super) fn due_at(&self, now: Instant) -> Option<Instant> {
        let is_content = self.rules.is_clean() && self.doubt == Doubt::None;
        if is_content && !self.pace.owes_a_retry() {
            return self.full_due;
        }
        Some(self.pace.ready_at().map_or(now, |ready| ready.max(now)))
    }

    /// Brings the kernel to what the rules say now. `node_ports`: the addresses of this
    /// machine on which node ports answer.
    pub(super) async fn sync(
        &mut self,
        deps: &SyncDeps<'_>,
        node_ports: BTreeSet<IpAddr>,
    ) -> SyncReport {
        let began = now();
        if self.full_due.is_some_and(|due| due <= began) && !self.rules.is_large() {
            self.rules.want_full();
        }
        let mut report = SyncReport {
            family: self.family,
            began,
            ended: began,
            kind: SyncKind::Partial,
            filter_rules: 0,
            nat_rules: 0,
            result: Ok(()),
            excluded: None,
            leftovers: None,
            flows: None,
        };
        report.result = self.write(deps, &mut report).await;
        report.ended = now();
        match &report.result {
            Ok(()) => {
                self.suspect = None;
                self.pace.succeeded(began, report.ended);
                if report.kind == SyncKind::Full || self.full_due.is_some_and(|due| due <= began) {
                    self.full_due = Some(report.ended + FULL_EVERY);
                }
                report.leftovers = self.remove_leftovers(deps).await;
                report.flows = self.forget_stale_flows(deps, &node_ports).await;
            }
            Err(failure) => {
                report.excluded = self.exclude(failure);
                self.rules.failed();
                self.pace.failed(report.ended);
            }
        }
        report
    }

    /// Takes out the rules of a Service of which a line was refused twice: once may be
    /// an accident, and all others wait for it.
    fn exclude(&mut self, failure: &IptablesError) -> Option<Arc<ServiceName>> {
        let IptablesError::Refused { line, .. } = failure else {
            return None;
        };
        let author = self.rules.author(line).cloned();
        let before = std::mem::replace(&mut self.suspect, author.clone());
        let author = author.filter(|author| before.as_ref() == Some(author))?;
        self.rules.set(&author, &[]);
        Some(author)
    }

    /// Finds out whether a doubt is justified.
    async fn look(&mut self, deps: &SyncDeps<'_>) -> Result<(), IptablesError> {
        if self.doubt == Doubt::Look && !self.rules.wants_full() {
            let found = deps.iptables.found(self.family).await?;
            // What is not written yet is not expected there.
            if !self.rules.is_clean() || !self.rules.matches(&found) {
                self.rules.want_full();
            }
        }
        self.doubt = Doubt::None;
        Ok(())
    }

    async fn write(
        &mut self,
        deps: &SyncDeps<'_>,
        report: &mut SyncReport,
    ) -> Result<(), IptablesError> {
        self.look(deps).await?;
        let script = if self.rules.wants_full() {
            report.kind = SyncKind::Full;
            let found = deps.iptables.found(self.family).await?;
            self.truth.inherit(&found.destinations);
            Some(self.rules.full(&found))
        } else {
            self.rules.partial()
        };
        if let Some(script) = script {
            deps.iptables.restore(self.family, &script).await?;
            report.filter_rules = script.filter_rules;
            report.nat_rules = script.nat_rules;
            self.rules.sent();
        }
        Ok(())
    }

    /// After the rules, unlike upstream: until these are there, the others serve.
    async fn remove_leftovers(
        &mut self,
        deps: &SyncDeps<'_>,
    ) -> Option<Result<Removal, NftablesError>> {
        if self.leftovers == Leftovers::SeenTo {
            return None;
        }
        self.leftovers = Leftovers::SeenTo;
        Some(deps.iptables.remove_nftables_mode(self.family).await)
    }

    /// After the rules: before, a client's next packet would bring the same flow back.
    async fn forget_stale_flows(
        &mut self,
        deps: &SyncDeps<'_>,
        node_ports: &BTreeSet<IpAddr>,
    ) -> Option<(Duration, Result<Cleaned, ConntrackError>)> {
        if !self.truth.is_pass_due() {
            return None;
        }
        let began = now();
        let result = conntrack::clean(deps.conntrack, &mut self.truth, node_ports).await;
        Some((now().saturating_duration_since(began), result))
    }
}

/// By the clock that tests can stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
