//! What the service proxy costs, and how soon packets follow: our agent's beside
//! upstream's kube-proxy, with the same services.
//!
//! In: a running cluster. Out: a table, or JSON.

mod flags;
mod floor;
pub(crate) mod prober;
mod report;
pub(crate) mod services;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::task::block_in_place;

use crate::cluster::{Cluster, Kind};
use crate::netns::result;
use crate::process::Process;
use crate::report::Subject;
use crate::{by_turns, progress};
pub(crate) use flags::Flags;
use prober::{Group, Prober};
pub(crate) use report::{Report, Turn};
use services::Services;

/// Between two changes: longer than kube-proxy's shortest period between two writes,
/// which would otherwise be what is measured.
const PAUSE: Duration = Duration::from_millis(1500);
/// The time between a change of the agent and what is measured next.
const SETTLE: Duration = Duration::from_secs(7);
/// How long the agent is watched while no service changes.
const QUIET: Duration = Duration::from_secs(10);
/// What takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(300);

/// What is measured, and on whom.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Numbers of services, in rising order.
    pub(crate) sizes: Vec<usize>,
    /// How often each subject has its turn, for each size.
    pub(crate) rounds: usize,
    /// Changes of endpoints in a turn.
    pub(crate) changes: u32,
    /// If it is only one of them.
    pub(crate) only: Option<Subject>,
}

/// Lets every subject have its turns at every size.
pub(crate) async fn measure(cluster: &Cluster, plan: Plan) -> Result<Report> {
    ensure!(plan.sizes.is_sorted(), "--services: not in rising order");
    let bench = Bench {
        cluster,
        netns: cluster.fact("NETNS"),
        flags: Flags::write(cluster)?,
        changes: plan.changes,
    };
    result(prober::listen(bench.netns)).await?;
    let mut services = Services::start(cluster).await?;
    let mut report = Report::new(cluster, plan.rounds, plan.changes);
    for size in plan.sizes {
        services.grow(size).await?;
        for round in 1..=plan.rounds {
            let turns = by_turns(round).into_iter();
            for (kind, subject) in turns.filter(|turn| plan.only.is_none_or(|it| it == turn.1)) {
                progress(&format!("{size} services, round {round}: {subject}"));
                let turn = bench.turn(&services, kind).await;
                report.add(size, subject, turn.with_context(|| subject.to_string())?);
                report.add(size, Subject::Raw, floor::measure(bench.netns).await?);
            }
        }
    }
    cluster.switch(Kind::None)?;
    Ok(report)
}

struct Bench<'a> {
    cluster: &'a Cluster,
    netns: &'a str,
    flags: Flags,
    changes: u32,
}

impl Bench<'_> {
    /// From a node without rules to the end of all changes.
    async fn turn(&self, services: &Services, kind: Kind) -> Result<Turn> {
        let without = match kind {
            Kind::Ours => Some(self.resident_without_proxy().await?),
            Kind::Upstream | Kind::None => None,
        };
        block_in_place(|| self.cluster.switch(Kind::None))?;
        services.point(&Group::A.addresses()).await?;
        progress("  first sync");
        let complete = prober::await_all(self.netns, services.samples(), PATIENCE);
        let component = match kind {
            Kind::Ours => "kubelet",
            Kind::Upstream | Kind::None => "kube-proxy",
        };
        block_in_place(|| self.cluster.switch_with(kind, &self.flags.of(kind)))?;
        let complete = result(complete).await?;
        let proxy = Process(self.cluster.pid(component)?);
        let mut turn = Turn {
            first_sync: Some(complete.saturating_sub(proxy.started()?)),
            ..Turn::default()
        };
        tokio::time::sleep(SETTLE).await;
        self.changes(services, proxy, &mut turn).await?;
        let resident = proxy.resident()?;
        turn.resident = Some(resident.saturating_sub(without.unwrap_or(0)));
        Ok(turn)
    }

    /// Flips one service's endpoints, one time after another.
    async fn changes(&self, services: &Services, proxy: Process, turn: &mut Turn) -> Result<()> {
        progress("  at rest");
        let before = proxy.cpu()?;
        tokio::time::sleep(QUIET).await;
        let at_rest = proxy.cpu()?.saturating_sub(before);
        progress("  changes");
        let prober = Prober::start(self.netns, services.changing);
        let mut group = Group::A;
        prober.reached(group, PATIENCE).await?;
        let (begun, before) = (Instant::now(), proxy.cpu()?);
        for _ in 0..self.changes {
            group = group.other();
            services.point(&group.addresses()).await?;
            let answered = Instant::now();
            let reached = prober.reached(group, PATIENCE).await?;
            turn.latency
                .push(reached.saturating_duration_since(answered));
            tokio::time::sleep(PAUSE).await;
        }
        let used = proxy.cpu()?.saturating_sub(before);
        let otherwise = at_rest.mul_f64(begun.elapsed().as_secs_f64() / QUIET.as_secs_f64());
        turn.cpu = used.saturating_sub(otherwise) / self.changes;
        Ok(())
    }

    /// What our agent needs for all the rest, with the same services in the cluster.
    async fn resident_without_proxy(&self) -> Result<u64> {
        progress("  without the proxy");
        block_in_place(|| {
            let flags = ["--service-proxy=off"];
            self.cluster.switch_with(Kind::Ours, &flags)
        })?;
        tokio::time::sleep(SETTLE).await;
        Process(self.cluster.agent_pid()?).resident()
    }
}
