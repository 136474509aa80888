//! Putting the service proxy together: the same way inside the agent and alone.
//!
//! In: its configuration, and where it hears of Services, of the Node and of pods.
//! Out: its tasks. Nothing of it can keep the agent from running: a machine without
//! iptables is told of, and looked at again.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::StartError;
use super::settings;
use super::supervise::Tasks;
use crate::apiserver::NodeFeed;
use crate::config::ProxyConfig;
use crate::error::chain;
use crate::listen::{HttpServer, Limits, serve_when_free};
use crate::node::ExtraCondition;
use crate::pod::DesiredPods;
use crate::proxy::apply::{HostIptables, Mode as IptablesMode, Programs};
use crate::proxy::conntrack::HostConntrack;
use crate::proxy::health::{
    self, EventSender, ProxyHealth, ServiceChecks, ServiceChecksDeps, WantedChecks,
};
use crate::proxy::inbox::Inbox;
use crate::proxy::index::NodeLocal;
use crate::proxy::limits;
use crate::proxy::metrics::Metrics;
use crate::proxy::model::Family;
use crate::proxy::presence::{self, Mode, Verdict};
use crate::proxy::rules::Backend;
use crate::proxy::settings::FamilyFacts;
use crate::proxy::task::{Lookout, ProxyDeps, ProxyTask};
use crate::server::{Health, HealthCheck};

/// Between two looks for an iptables that works.
const IPTABLES_RETRY: Duration = Duration::from_secs(30);

/// Where the proxy hears of the world.
pub(super) struct Hearing {
    pub(super) inbox: Inbox,
    /// `None`: there is no API server to have our Node.
    pub(super) node: Option<NodeFeed>,
    /// What this node runs; `None`: not known, so nobody else is looked for.
    pub(super) pods: Option<watch::Receiver<DesiredPods>>,
    pub(super) events: EventSender,
}

/// The proxy in the making.
pub(super) struct ServiceProxy {
    pub(super) config: ProxyConfig,
    pub(super) mode: Mode,
    pub(super) hearing: Hearing,
    /// Whose work the Services are.
    pub(super) verdict: watch::Sender<Option<Verdict>>,
}

/// An empty box for this node's Services.
pub(super) fn inbox(node_name: &str) -> Inbox {
    Inbox::new(NodeLocal {
        name: node_name.into(),
        zone: None,
    })
}

impl ServiceProxy {
    /// Adds the proxy's tasks.
    ///
    /// # Errors
    /// If a listener cannot be had that the configuration insists on.
    pub(super) fn assemble(
        self,
        tasks: &mut Tasks,
        shutdown: &CancellationToken,
    ) -> Result<(), StartError> {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let health = ProxyHealth::new(self.config.sync_period.saturating_mul(2));
        self.serve(&health, &metrics, registry, tasks, shutdown)?;
        let (checks, wanted) = watch::channel(Arc::new(WantedChecks::default()));
        let listeners = ServiceChecksDeps {
            node_name: self.config.node_name.as_str().into(),
            wanted,
            health: health.clone(),
            events: Arc::clone(&self.hearing.events),
        };
        let listen = move |until| ServiceChecks::new(listeners.clone()).run(until);
        let turn = self.turn();
        tasks.add(
            "service-health-checks",
            turn.whenever_ours(listen, shutdown.clone()),
        );
        let outputs = Outputs {
            health,
            metrics,
            checks,
        };
        tasks.add("service-proxy", self.run(outputs, shutdown.clone()));
        Ok(())
    }

    fn serve(
        &self,
        health: &ProxyHealth,
        metrics: &Metrics,
        registry: Registry,
        tasks: &mut Tasks,
        shutdown: &CancellationToken,
    ) -> Result<(), StartError> {
        let mut listen = |name, address, router: Router| -> Result<(), StartError> {
            // Only who is alone for certain can insist on a port.
            if self.config.bind_hard_fail && self.mode == Mode::On {
                let server = HttpServer::bind(address, router, Limits::READERS)
                    .map_err(|source| StartError::Listen { what: name, source })?;
                tasks.add_fallible(name, server.run(shutdown.clone()));
                return Ok(());
            }
            let serve =
                move |until| serve_when_free(name, address, router.clone(), Limits::READERS, until);
            let turn = self.turn();
            tasks.add(name, turn.whenever_ours(serve, shutdown.clone()));
            Ok(())
        };
        if let Some(address) = self.config.healthz {
            let routes = health::health_routes(health.clone(), metrics.clone());
            listen("proxy-healthz", address, routes)?;
        }
        if let Some(address) = self.config.metrics {
            let alive = HealthCheck {
                name: "ping",
                check: Box::new(|| Ok(())),
            };
            let routes = Arc::new(Health::new(vec![alive], registry))
                .routes()
                .merge(health::about_routes(self.config.effective.clone()));
            listen("proxy-metrics", address, routes)?;
        }
        Ok(())
    }

    fn turn(&self) -> Turn {
        Turn {
            verdict: self.verdict.subscribe(),
            mode: self.mode,
        }
    }

    /// Runs from when there is an iptables that works.
    async fn run(self, outputs: Outputs, shutdown: CancellationToken) {
        let (iptables, families) = tokio::select! {
            () = shutdown.cancelled() => return,
            found = usable_iptables() => found,
        };
        let lookout = {
            let iptables = Arc::clone(&iptables);
            let look: Lookout = Box::new(move || {
                let (watch, disturbances) = iptables.watch()?;
                Ok((Box::pin(watch.run()), disturbances))
            });
            look
        };
        let limits = settings::proxy_limits(&self.config);
        let task = ProxyTask::new(ProxyDeps {
            settings: settings::proxy(&self.config),
            families,
            mode: self.mode,
            inbox: self.hearing.inbox,
            node: self.hearing.node,
            pods: self.hearing.pods,
            iptables,
            conntrack: Arc::new(HostConntrack),
            lookout,
            prepare: Box::new(move || limits::ensure(Path::new("/"), &limits, cpus())),
            addresses: Arc::new(machine_addresses),
            health: outputs.health,
            metrics: outputs.metrics,
            events: self.hearing.events,
            checks: outputs.checks,
            verdict: self.verdict,
        });
        task.run(shutdown).await;
    }
}

/// Whose turn it is to serve this node's Services.
struct Turn {
    verdict: watch::Receiver<Option<Verdict>>,
    mode: Mode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Ours,
    /// Or not known yet.
    Another,
}

impl Turn {
    /// Does something for as long as it is ours, each time anew: another proxy wants
    /// the same ports. `act` is given when to stop.
    async fn whenever_ours<F: Future>(
        mut self,
        act: impl Fn(CancellationToken) -> F,
        shutdown: CancellationToken,
    ) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.until(Whose::Ours) => {}
            }
            tokio::select! {
                _ = act(shutdown.clone()) => return,
                // Dropped, the listeners close at once.
                () = self.until(Whose::Another) => {}
            }
        }
    }

    async fn until(&mut self, whose: Whose) {
        let mode = self.mode;
        let is_so = |verdict: &Option<Verdict>| match verdict {
            Some(verdict) if mode.runs(verdict) => whose == Whose::Ours,
            Some(_) | None => whose == Whose::Another,
        };
        if self.verdict.wait_for(is_so).await.is_err() {
            // The proxy has ended, and with it the process.
            std::future::pending().await
        }
    }
}

/// Where the loop's results go.
struct Outputs {
    health: ProxyHealth,
    metrics: Metrics,
    checks: watch::Sender<Arc<WantedChecks>>,
}

/// What of iptables works here; it may be installed later than the agent.
async fn usable_iptables() -> (Arc<HostIptables>, Vec<FamilyFacts>) {
    let mut is_told = false;
    loop {
        let iptables = HostIptables::detect(&Programs::default()).await;
        let families = facts(&iptables);
        if !families.is_empty() {
            return (Arc::new(iptables), families);
        }
        if !std::mem::replace(&mut is_told, true)
            && let Err(error) = iptables.usable(Family::V4)
        {
            warn!(
                error = %chain(error),
                "iptables cannot be used, so Services do not work on this node; it is tried again"
            );
        }
        tokio::time::sleep(IPTABLES_RETRY).await;
    }
}

pub(super) fn facts(iptables: &HostIptables) -> Vec<FamilyFacts> {
    let tcp_liberal = limits::tcp_be_liberal(Path::new("/"));
    let mut usable = Vec::new();
    for family in Family::ALL {
        match iptables.usable(family) {
            Ok(facts) => usable.push(FamilyFacts {
                family,
                random_fully: facts.random_fully(),
                backend: match facts.mode {
                    IptablesMode::Nft => Backend::NfTables,
                    IptablesMode::Legacy => Backend::Legacy,
                },
                tcp_liberal,
            }),
            Err(error) => {
                let family = family.as_str();
                info!(family, error = %chain(error), "no Services in this family");
            }
        }
    }
    usable
}

pub(super) fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Of all interfaces; none if they cannot be listed.
fn machine_addresses() -> BTreeSet<IpAddr> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    interfaces.iter().map(if_addrs::Interface::ip).collect()
}

/// Keeps the Node's condition in line with the verdict.
pub(super) async fn tell_node(
    mut verdict: watch::Receiver<Option<Verdict>>,
    mode: Mode,
    out: watch::Sender<Vec<ExtraCondition>>,
    shutdown: CancellationToken,
) {
    loop {
        let condition = verdict
            .borrow_and_update()
            .as_ref()
            .and_then(|verdict| presence::condition(verdict, mode))
            .map_or(
                ExtraCondition::Absent(presence::CONDITION),
                ExtraCondition::Says,
            );
        out.send_replace(vec![condition]);
        let changed = tokio::select! {
            () = shutdown.cancelled() => return,
            changed = verdict.changed() => changed,
        };
        if changed.is_err() {
            // The proxy has ended; so will the agent.
            return shutdown.cancelled().await;
        }
    }
}
