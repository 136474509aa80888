//! The loop that registers the node and keeps its status told.
//!
//! It wakes when the runtime's health or the Node object changes and every
//! `nodeStatusUpdateFrequency`, computes the status, and sends it when there
//! is something new or the report period has passed. The API server may be
//! away for any time: registration goes on for ever, a status waits for the
//! next round.
//!
//! A Node that is deleted while the agent runs is not created again: somebody
//! wanted it gone. A restart registers it.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::address::{self, AddressError};
use super::conditions::ExtraCondition;
use super::facts::{self, FactsError, MachineFacts, Readings};
use super::pressure::{self, Hysteresis, Pressure};
use super::registration::{self, ExtendedResources};
use super::status::{self, Observed, ReportCause};
use super::{NodeSettings, events, patch};
use crate::apiserver::{ApiError, Backoff, Disposition, NodeEvent, NodePort};
use crate::error::chain;
use crate::runtime::{LocalImage, RuntimeHealth};

/// Calls that are tried in one round.
const TRIES: u32 = 5;
/// How long a runtime may take to get well after the agent's start before an
/// existing node is told not to be ready.
const RUNTIME_GRACE: Duration = Duration::from_secs(30);
/// Computations are spread by up to this part of their period.
const JITTER: f64 = 0.04;
/// Between tries of what the node cannot do without: short at first, as the
/// cluster waits for it.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// `metadata.uid` of the Node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeUid(pub String);

/// Where events about the node go. Must not block.
pub type EventSender = Arc<dyn Fn(NodeEvent) + Send + Sync>;

/// What changes on the machine. A port, so that tests need no machine.
#[async_trait]
pub trait Probe: Send + Sync {
    /// The time that others see in the status.
    fn now(&self) -> Timestamp;
    /// What is left of things that pods use up.
    fn readings(&self) -> Result<Readings, FactsError>;
    /// The node's internal addresses; `previous` is the last answer.
    async fn internal_ips(&self, previous: &[IpAddr]) -> Result<Vec<IpAddr>, AddressError>;
}

/// The machine itself.
#[derive(Debug, Clone)]
pub struct HostProbe {
    pub settings: Arc<NodeSettings>,
    pub root_dir: PathBuf,
}

#[async_trait]
impl Probe for HostProbe {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn readings(&self) -> Result<Readings, FactsError> {
        facts::readings(&self.root_dir)
    }

    async fn internal_ips(&self, previous: &[IpAddr]) -> Result<Vec<IpAddr>, AddressError> {
        address::discover(&self.settings, previous).await
    }
}

/// What the loop works with.
pub struct NodeDeps {
    pub settings: Arc<NodeSettings>,
    pub facts: MachineFacts,
    /// What to do with devices that an existing Node tells of.
    pub extended: ExtendedResources,
    pub port: Arc<dyn NodePort>,
    pub probe: Arc<dyn Probe>,
    pub health: watch::Receiver<RuntimeHealth>,
    pub images: watch::Receiver<Arc<Vec<LocalImage>>>,
    /// Conditions of other parts; a change is told at once. Senders may hang up.
    pub extra: watch::Receiver<Vec<ExtraCondition>>,
    /// The Node as the reflector has it; `None` until it does. Senders may
    /// hang up: then what this loop wrote itself has to do.
    pub node: watch::Receiver<Option<Arc<Node>>>,
    pub events: EventSender,
}

/// The loop's state.
pub struct NodeTask {
    deps: NodeDeps,
    registered: watch::Sender<Option<NodeUid>>,
    /// The Node in the last answer of the API server.
    answered: Option<Arc<Node>>,
    /// Conditions computed last, sent or not.
    conditions: Vec<NodeCondition>,
    internal_ips: Vec<IpAddr>,
    hysteresis: Hysteresis,
    /// What the runtime said when the last round began.
    considered: RuntimeHealth,
    last_report: Option<Instant>,
    report_period: Duration,
    unschedulable: bool,
}

impl NodeTask {
    /// The loop, and where the Node's UID appears once it is registered.
    #[must_use]
    pub fn new(deps: NodeDeps) -> (Self, watch::Receiver<Option<NodeUid>>) {
        let (registered, receiver) = watch::channel(None);
        let task = Self {
            report_period: deps.settings.status_report_frequency,
            deps,
            registered,
            answered: None,
            conditions: Vec::new(),
            internal_ips: Vec::new(),
            hysteresis: Hysteresis::default(),
            considered: RuntimeHealth::default(),
            last_report: None,
            unschedulable: false,
        };
        (task, receiver)
    }

    /// Registers and reports until shutdown.
    pub async fn run(mut self, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(self.drive()).await;
    }

    async fn drive(&mut self) {
        (self.deps.events)(events::starting());
        let started = Instant::now();
        wait_for(&mut self.deps.health, |health| health.checked).await;
        let node = self.register().await;
        tracing::info!(node = %self.deps.settings.name, "the node is registered");
        self.note_uid(&node);
        self.answered = Some(Arc::new(node));
        // A node that was ready before a restart must not be told otherwise
        // because its runtime needs a moment.
        let ready = wait_for(&mut self.deps.health, |health| {
            health.last_good.is_some() && health.runtime.is_none()
        });
        // Both outcomes lead to a report.
        let _ = tokio::time::timeout_at(started + RUNTIME_GRACE, ready).await;
        loop {
            self.report().await;
            self.wait_for_cause().await;
        }
    }

    // --- registration ---

    /// Creates the Node, or puts an existing one right; tries for ever.
    async fn register(&mut self) -> Node {
        let mut backoff = Backoff::starting_at(FIRST_PAUSE);
        loop {
            let attempt = if self.deps.settings.register {
                self.create_or_reconcile().await
            } else {
                self.deps.port.get().await
            };
            match attempt {
                Ok(node) => return node,
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "the node is not registered yet");
                    tokio::time::sleep(backoff.after(error.disposition())).await;
                }
            }
        }
    }

    async fn create_or_reconcile(&mut self) -> Result<Node, ApiError> {
        let initial = registration::initial_node(&self.deps.settings, &self.deps.facts);
        let node = self.refresh(&initial).await;
        match self.deps.port.create(&node).await {
            Ok(created) => {
                self.note_report(&Node::default(), &node, ReportCause::Change);
                return Ok(created);
            }
            // It exists; or may exist, and only creation is forbidden.
            Err(ApiError::Refused {
                code: 403 | 409, ..
            }) => {}
            Err(error) => return Err(error),
        }
        let existing = self.deps.port.get().await?;
        let wanted = registration::reconcile(&existing, &initial, self.deps.extended);
        match status_patch(&existing, &wanted)? {
            Some(patch) => self.deps.port.patch_status(&patch).await,
            None => Ok(existing),
        }
    }

    // --- status ---

    /// One round: computes the status and sends it if there is a cause to.
    async fn report(&mut self) {
        self.considered = says(&self.deps.health.borrow());
        for attempt in 0..TRIES {
            match self.try_report(attempt).await {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(error = %chain(&error), attempt, "cannot report the node's status");
                    let hopeless = matches!(
                        error.disposition(),
                        Disposition::Permanent
                            | Disposition::NotFound
                            | Disposition::Retry(Some(_))
                    );
                    if hopeless {
                        return;
                    }
                }
            }
        }
    }

    async fn try_report(&mut self, attempt: u32) -> Result<(), ApiError> {
        let known = match self.freshest() {
            Some(node) if attempt == 0 => node,
            _ => Arc::new(self.deps.port.get().await?),
        };
        self.note_uid(&known);
        self.note_schedulable(&known);
        let next = self.refresh(&known).await;
        let since_report = self.last_report.map(|at| at.elapsed());
        if !status::needs_report(&known, &next, since_report, self.report_period) {
            return Ok(());
        }
        let cause = if status::has_changed(&known, &next) || since_report.is_none() {
            ReportCause::Change
        } else {
            ReportCause::Period
        };
        if let Some(patch) = status_patch(&known, &next)? {
            let answer = self.deps.port.patch_status(&patch).await?;
            self.answered = Some(Arc::new(answer));
        }
        self.note_report(&known, &next, cause);
        Ok(())
    }

    /// Takes readings and computes the Node as it should be.
    async fn refresh(&mut self, base: &Node) -> Node {
        let pressure = self.pressure();
        let found = match self.deps.probe.internal_ips(&self.internal_ips).await {
            Ok(ips) => {
                self.internal_ips = ips;
                true
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "the node's address is not known");
                false
            }
        };
        let health = self.deps.health.borrow().clone();
        let images = Arc::clone(&self.deps.images.borrow());
        let extra = self.deps.extra.borrow_and_update().clone();
        let observed = Observed {
            facts: &self.deps.facts,
            internal_ips: found.then_some(self.internal_ips.as_slice()),
            pressure,
            runtime: &health,
            images: &images,
            extra: &extra,
            now: self.deps.probe.now(),
        };
        let node = status::refresh(base, &self.conditions, &self.deps.settings, &observed);
        let status = node.status.as_ref();
        self.conditions = status
            .and_then(|s| s.conditions.clone())
            .unwrap_or_default();
        node
    }

    fn pressure(&mut self) -> Pressure {
        let settings = &self.deps.settings;
        let seen = match self.deps.probe.readings() {
            Ok(readings) => pressure::assess(&readings, &self.deps.facts, &settings.eviction),
            Err(error) => {
                tracing::warn!(error = %chain(&error), "cannot tell what is left on this node");
                Pressure::default()
            }
        };
        let now = Instant::now().into_std();
        self.hysteresis
            .observe(seen, now, settings.pressure_transition_period)
    }

    /// The newer of what we wrote and what the reflector saw.
    fn freshest(&self) -> Option<Arc<Node>> {
        let reflected = self.deps.node.borrow().clone();
        let version = |node: &Arc<Node>| -> Option<u64> {
            node.metadata.resource_version.as_ref()?.parse().ok()
        };
        match (&self.answered, reflected) {
            (Some(answered), Some(reflected)) if version(answered) > version(&reflected) => {
                Some(Arc::clone(answered))
            }
            (_, Some(reflected)) => Some(reflected),
            (answered, None) => answered.clone(),
        }
    }

    fn note_report(&mut self, known: &Node, next: &Node, cause: ReportCause) {
        self.last_report = Some(Instant::now());
        let frequency = self.deps.settings.status_report_frequency;
        self.report_period = status::next_period(frequency, cause, rand::random());
        for event in events::of_change(&self.deps.settings.name, known, next) {
            (self.deps.events)(event);
        }
        tracing::debug!(?cause, "reported the node's status");
    }

    /// Another UID: somebody deleted the Node and created it anew.
    fn note_uid(&self, node: &Node) {
        let uid = node.metadata.uid.clone().map(NodeUid);
        self.registered.send_if_modified(|known| {
            let differs = *known != uid;
            *known = uid;
            differs
        });
    }

    fn note_schedulable(&mut self, known: &Node) {
        let spec = known.spec.as_ref();
        let unschedulable = spec.and_then(|s| s.unschedulable).unwrap_or_default();
        if unschedulable != self.unschedulable {
            self.unschedulable = unschedulable;
            let name = &self.deps.settings.name;
            (self.deps.events)(events::schedulable(name, unschedulable));
        }
    }

    /// Waits until there may be something to report.
    async fn wait_for_cause(&mut self) {
        let frequency = self.deps.settings.status_update_frequency;
        let tick = frequency.mul_f64(1.0 + JITTER * rand::random::<f64>());
        let tick = tokio::time::sleep(tick);
        tokio::pin!(tick);
        loop {
            if says(&self.deps.health.borrow_and_update()) != self.considered {
                return;
            }
            tokio::select! {
                biased;
                () = changed(&mut self.deps.health) => {}
                () = changed(&mut self.deps.extra) => return,
                () = changed(&mut self.deps.node) => return,
                () = &mut tick => return,
            }
        }
    }
}

/// What the runtime says, without when it said so.
fn says(health: &RuntimeHealth) -> RuntimeHealth {
    RuntimeHealth {
        last_good: None,
        ..health.clone()
    }
}

fn status_patch(known: &Node, next: &Node) -> Result<Option<serde_json::Value>, ApiError> {
    patch::node_status(known, next).map_err(|source| ApiError::Invalid {
        call: "patch node status",
        source: Box::new(source),
    })
}

/// Waits for a change; for ever if the sender is gone.
async fn changed<T>(receiver: &mut watch::Receiver<T>) {
    if receiver.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn wait_for<T>(receiver: &mut watch::Receiver<T>, condition: impl FnMut(&T) -> bool) {
    if receiver.wait_for(condition).await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests;
