//! The loop: what changed into rules, rules into the kernel, and what came of it.
//!
//! Inputs: the [`Inbox`] of Services and EndpointSlices, our Node, the pods of this
//! node, and what others do to our chains. Outputs: the kernel's tables, the health
//! checks that are wanted, the verdict whose work the Services are, health, metrics,
//! events.
//!
//! Nothing is queued here. What has changed is taken into the rule sets whenever the
//! loop comes round; a family is synced when it has something to say and its pace
//! allows (`pace`). What fails is tried again with everything, and nothing is
//! forgotten meanwhile.

mod family;
mod report;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::family::{FamilyProxy, SyncDeps};
use super::apply::Iptables;
use super::apply::watch::{Disturbance, Disturbances, WatchError};
use super::conntrack::Conntrack;
use super::health::{Check, EventSender, NodePart, ProxyHealth, WantedChecks};
use super::inbox::Inbox;
use super::local::NodeView;
use super::metrics::Metrics;
use super::presence::{self, Mode, Rewrites, Verdict};
use super::rules::NodePortAddresses;
use super::settings::{FamilyFacts, ProxySettings};
use crate::apiserver::{NodeFeed, ProxyEvent, ProxyEventAbout};
use crate::error::chain;
use crate::pod::{DesiredPods, Severity};

/// How long rules wait for the Node object, which decides what is local traffic.
const NODE_PATIENCE: Duration = Duration::from_secs(30);
/// Before looking for others' changes is begun again after it failed.
const LOOKOUT_PAUSE: Duration = Duration::from_secs(5);

/// Looks for others' changes for as long as it can.
pub type Looking = Pin<Box<dyn Future<Output = WatchError> + Send>>;
/// Begins to look for others' changes.
pub type Lookout = Box<dyn Fn() -> Result<(Looking, Disturbances), WatchError> + Send + Sync>;

/// What the loop works with.
pub struct ProxyDeps {
    pub settings: ProxySettings,
    /// The families that this machine can do.
    pub families: Vec<FamilyFacts>,
    pub mode: Mode,
    pub inbox: Inbox,
    /// `None`: there is no API server to have one.
    pub node: Option<NodeFeed>,
    /// What this node runs, for the verdict; `None`: nobody else can be here.
    pub pods: Option<watch::Receiver<DesiredPods>>,
    pub iptables: Arc<dyn Iptables>,
    pub conntrack: Arc<dyn Conntrack>,
    pub lookout: Lookout,
    /// Brings the kernel's settings in order, when work begins.
    pub prepare: Box<dyn Fn() + Send + Sync>,
    /// All addresses of this machine.
    pub addresses: Arc<dyn Fn() -> BTreeSet<IpAddr> + Send + Sync>,
    pub health: ProxyHealth,
    pub metrics: Metrics,
    pub events: EventSender,
    pub checks: watch::Sender<Arc<WantedChecks>>,
    pub verdict: watch::Sender<Option<Verdict>>,
}

/// The service proxy's loop.
pub struct ProxyTask {
    deps: ProxyDeps,
    families: Vec<FamilyProxy>,
    node: NodeView,
    /// Until when the Node is waited for.
    node_deadline: Option<Instant>,
    rewrites: Rewrites,
    lookout: Option<(Looking, Disturbances)>,
    look_again: Instant,
    report: report::Reporter,
}

/// What the loop comes round for.
enum Wake {
    Shutdown,
    Objects,
    Node,
    Pods,
    Disturbed(Disturbance),
    Blind(WatchError),
    Due,
}

impl ProxyTask {
    #[must_use]
    pub fn new(deps: ProxyDeps) -> Self {
        let node = NodeView::default();
        let machine = (deps.addresses)();
        let families = deps
            .families
            .iter()
            .map(|facts| {
                let settings = deps.settings.rules(*facts, &node, &machine);
                FamilyProxy::new(facts.family, settings, deps.settings.pace)
            })
            .collect();
        let now = Instant::now();
        Self {
            families,
            node,
            node_deadline: deps.node.as_ref().map(|_| now + NODE_PATIENCE),
            rewrites: Rewrites::default(),
            lookout: None,
            look_again: now,
            report: report::Reporter::new(
                deps.metrics.clone(),
                deps.health.clone(),
                deps.events.clone(),
            ),
            deps,
        }
    }

    /// Runs until shutdown, and leaves the rules where they are.
    pub async fn run(mut self, shutdown: CancellationToken) {
        self.take_node();
        self.judge();
        self.take_objects();
        loop {
            self.look_out();
            self.sync().await;
            match self.wake(&shutdown).await {
                Wake::Shutdown => return,
                Wake::Objects => self.take_objects(),
                Wake::Node => {
                    self.take_node();
                    self.take_objects();
                }
                Wake::Pods => self.judge(),
                Wake::Disturbed(disturbance) => self.heed(&disturbance),
                Wake::Blind(error) => {
                    warn!(error = %chain(&error), "cannot see what others do to the rules of Services");
                    self.lookout = None;
                    self.look_again = Instant::now() + LOOKOUT_PAUSE;
                }
                Wake::Due => {
                    self.judge();
                    self.take_objects();
                }
            }
        }
    }

    async fn wake(&mut self, shutdown: &CancellationToken) -> Wake {
        let due = self.due_at();
        let disturbed = async {
            match &mut self.lookout {
                None => std::future::pending().await,
                Some((looking, disturbances)) => tokio::select! {
                    error = looking => Wake::Blind(error),
                    disturbance = disturbances.next() => Wake::Disturbed(disturbance),
                },
            }
        };
        tokio::select! {
            biased;
            () = shutdown.cancelled() => Wake::Shutdown,
            wake = disturbed => wake,
            () = changed(&mut self.deps.node) => Wake::Node,
            () = changed(&mut self.deps.pods) => Wake::Pods,
            () = self.deps.inbox.changed() => Wake::Objects,
            () = sleep_until(due) => Wake::Due,
        }
    }

    /// When there is something to do although nothing happens.
    fn due_at(&self) -> Option<Instant> {
        let now = Instant::now();
        let families = self
            .families
            .iter()
            .filter(|_| self.may_sync())
            .filter_map(|family| family.due_at(now.into_std()))
            .map(Instant::from_std);
        let lookout = self.lookout.is_none().then_some(self.look_again);
        let rival = self.rewrites.gone_at().map(Instant::from_std);
        families
            .chain(self.node_deadline)
            .chain(lookout)
            .chain(rival)
            .min()
    }

    // === what comes in ===

    fn take_node(&mut self) {
        let Some(feed) = &mut self.deps.node else {
            return;
        };
        let node = feed.borrow_and_update().clone();
        self.deps.health.set_node(NodePart::of(node.as_deref()));
        let Some(node) = node else { return };
        self.node_deadline = None;
        let view = NodeView::of(&node);
        if view == self.node {
            return;
        }
        self.node = view;
        let mut content = self.deps.inbox.content();
        content.index.set_zone(self.node.zone.as_deref());
        let machine = (self.deps.addresses)();
        for (family, facts) in self.families.iter_mut().zip(&self.deps.families) {
            family.resettle(self.deps.settings.rules(*facts, &self.node, &machine));
        }
    }

    /// Takes what has changed into the rule sets, once all is known that they are
    /// made of.
    fn take_objects(&mut self) {
        if self
            .node_deadline
            .is_some_and(|until| Instant::now() < until)
        {
            return;
        }
        self.node_deadline = None;
        let mut content = self.deps.inbox.content();
        self.report.seen(content.take_seen());
        if !content.is_complete() {
            return;
        }
        let changed = content.index.take_changed();
        let problems = content.index.take_problems();
        for family in &mut self.families {
            family.take(changed.keys(), &content.index);
        }
        let checks = wanted_checks(&self.families, &content.index);
        drop(content);
        if !changed.is_empty() {
            self.rewrites.expect(Instant::now().into_std());
        }
        self.want_checks(checks);
        self.report.problems(problems);
        if self.is_at_work() {
            self.report.changed(&self.families, &changed);
        }
    }

    fn want_checks(&self, checks: BTreeMap<Arc<super::model::ServiceName>, Check>) {
        let machine = (self.deps.addresses)();
        let addresses = self.deps.families.iter().flat_map(|facts| {
            let settings = &self.deps.settings;
            match settings.node_port_addresses(facts.family, &self.node, &machine) {
                NodePortAddresses::All => Vec::new(),
                NodePortAddresses::Only(addresses) => addresses,
            }
        });
        let wanted = Arc::new(WantedChecks {
            addresses: addresses.collect(),
            checks,
        });
        self.deps.checks.send_if_modified(|known| {
            let is_news = *known != wanted;
            *known = wanted;
            is_news
        });
    }

    fn heed(&mut self, disturbance: &Disturbance) {
        if let Some(process) = &disturbance.writer {
            self.rewrites.note(process, Instant::now().into_std());
        }
        self.judge();
        if self.is_at_work() {
            info!(
                family = disturbance.family.as_str(),
                by = disturbance.by.as_deref().unwrap_or("unknown"),
                "somebody else changed the rules of Services: putting them right"
            );
        }
        let families = self.families.iter_mut();
        for family in families.filter(|family| family.family() == disturbance.family) {
            family.disturbed(&disturbance.chains);
        }
    }

    // === whose work it is ===

    fn is_at_work(&self) -> bool {
        let verdict = self.deps.verdict.borrow();
        verdict
            .as_ref()
            .is_some_and(|verdict| self.deps.mode.runs(verdict))
    }

    /// Whether rules can be written: it is ours to do, and all is known that they are
    /// made of.
    fn may_sync(&self) -> bool {
        self.is_at_work() && self.node_deadline.is_none() && self.deps.inbox.content().is_complete()
    }

    fn judge(&mut self) {
        self.rewrites.forget_gone(Instant::now().into_std());
        let verdict = match &mut self.deps.pods {
            None => Verdict::Alone,
            Some(pods) => {
                let pods = pods.borrow_and_update().clone();
                if !pods.ready.all() {
                    return;
                }
                let culprit = self.rewrites.culprit();
                presence::judge(pods.pods.values().map(|pod| &*pod.pod), culprit)
            }
        };
        let before = self.deps.verdict.borrow().clone();
        if before.as_ref() == Some(&verdict) {
            return;
        }
        let mode = self.deps.mode;
        info!(verdict = %presence::describe(&verdict, mode), "service proxy");
        if let Some(event) = presence::event(before.as_ref(), &verdict, mode) {
            (self.deps.events)(event);
        }
        if mode.runs(&verdict) {
            if before.is_none_or(|before| !mode.runs(&before)) {
                self.begin_work();
            }
        } else {
            self.deps.health.rest();
            self.report.rest();
        }
        self.deps.verdict.send_replace(Some(verdict));
    }

    /// Who was at work before has left rules that nobody here knows.
    fn begin_work(&mut self) {
        (self.deps.prepare)();
        self.families.iter_mut().for_each(FamilyProxy::begin);
        (self.deps.events)(ProxyEvent {
            about: ProxyEventAbout::Node,
            severity: Severity::Normal,
            reason: "Starting",
            action: "StartKubeProxy",
            message: String::new(),
        });
    }

    // === what goes out ===

    fn look_out(&mut self) {
        if self.lookout.is_some() || Instant::now() < self.look_again {
            return;
        }
        match (self.deps.lookout)() {
            Ok(lookout) => {
                self.lookout = Some(lookout);
                // Before it began, anything may have happened.
                self.families.iter_mut().for_each(FamilyProxy::distrust);
            }
            Err(error) => {
                warn!(error = %chain(&error), "cannot see what others do to the rules of Services");
                self.look_again = Instant::now() + LOOKOUT_PAUSE;
            }
        }
    }

    /// Syncs the families that are due.
    async fn sync(&mut self) {
        if !self.may_sync() {
            return;
        }
        let now = Instant::now().into_std();
        let machine = (self.deps.addresses)();
        let deps = SyncDeps {
            iptables: &*self.deps.iptables,
            conntrack: &*self.deps.conntrack,
        };
        let due = self
            .families
            .iter_mut()
            .filter(|family| family.due_at(now).is_some_and(|at| at <= now));
        let syncs = due.map(|family| {
            let settings = &self.deps.settings;
            let addresses = settings.node_ports_at(family.family(), &self.node, &machine);
            family.sync(&deps, addresses)
        });
        let reports = join_all(syncs).await;
        for report in reports {
            self.report.synced(&self.families, report);
        }
    }
}

/// What load balancers may ask, of both families together.
fn wanted_checks(
    families: &[FamilyProxy],
    index: &super::index::ServiceIndex,
) -> BTreeMap<Arc<super::model::ServiceName>, Check> {
    let mut wanted = BTreeMap::new();
    for family in families {
        for (name, check) in index.health_checks(family.family()) {
            let entry = wanted.entry(name).or_insert(Check {
                port: check.port,
                local: 0,
            });
            // An endpoint pod of a dual-stack Service is in both families.
            entry.local = entry.local.max(check.local_endpoints);
        }
    }
    wanted
}

async fn changed<T>(feed: &mut Option<watch::Receiver<T>>) {
    match feed {
        Some(feed) => {
            if feed.changed().await.is_err() {
                // Its sender has ended; the last word stands.
                std::future::pending().await
            }
        }
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
