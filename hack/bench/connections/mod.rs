//! What connections through a service suffer while endpoints change, the agent dies and
//! comes back, and somebody flushes its rules: ours beside upstream's.
//!
//! In: a running cluster. Out: a table of lost connections, or JSON. Everything is inside
//! the node's network: clients, and four servers behind the service's endpoints, which
//! serve on when they are taken out, as pods that are asked to end do.

mod load;
mod report;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::task::block_in_place;

use crate::cluster::{Cluster, Kind};
use crate::netns::{inside, result};
use crate::progress;
use crate::proxying::Flags;
use crate::proxying::prober::{ADDRESSES, Group};
use crate::proxying::services::Services;
use crate::report::Subject;
use crate::report::turns::Turns;
use load::Load;
pub(crate) use report::{Report, Turn};

/// Connections that last as long as the measurement.
const LONG_LIVED: usize = 200;
/// New connections a second.
const RATE: u32 = 1000;
/// Between two changes of endpoints.
const CHANGE_EVERY: Duration = Duration::from_millis(500);
/// How long the node has no agent.
const AWAY: Duration = Duration::from_secs(5);

/// What happens while connections are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    Quiet,
    /// Half of the endpoints go, and come back for the other half.
    Changes,
    /// The agent is killed, and started after a while; endpoints change all the time.
    Restart,
    /// `iptables -t nat -F`, by hand.
    Flush,
}

impl Phase {
    const ALL: [Self; 4] = [Self::Quiet, Self::Changes, Self::Restart, Self::Flush];
}

/// Lets every agent have its turns; `length` is each phase's.
pub(crate) async fn measure(
    cluster: &Cluster,
    rounds: usize,
    length: Duration,
    only: Option<Subject>,
) -> Result<Report> {
    let netns = cluster.fact("NETNS");
    load::serve(netns).await?;
    let services = Services::start(cluster).await?;
    let flags = Flags::write(cluster)?;
    let turn = async |kind| {
        services.point(&ADDRESSES).await?;
        block_in_place(|| cluster.switch_with(kind, &flags.of(kind)))?;
        load::await_service(netns, services.changing).await?;
        turn(cluster, &services, kind, length).await
    };
    let turns = Turns::take(cluster, rounds, length, only, turn).await?;
    cluster.switch(Kind::None)?;
    Ok(Report(turns))
}

async fn turn(
    cluster: &Cluster,
    services: &Services,
    kind: Kind,
    length: Duration,
) -> Result<Turn> {
    let netns = cluster.fact("NETNS");
    let mut turn = Turn::default();
    let load = Load::start(netns, services.changing, LONG_LIVED, RATE);
    load.established(LONG_LIVED).await?;
    for phase in Phase::ALL {
        progress(&format!("  {phase:?}"));
        let before = load.tally();
        let begun = Instant::now();
        match phase {
            Phase::Quiet => {}
            Phase::Changes => churn(services, length).await?,
            Phase::Restart => {
                for component in components(kind) {
                    block_in_place(|| cluster.control(component, "kill"))?;
                }
                tokio::time::sleep(AWAY).await;
                for component in components(kind) {
                    block_in_place(|| cluster.control(component, "start"))?;
                }
                let left = length.saturating_sub(begun.elapsed());
                churn(services, left).await?;
            }
            Phase::Flush => flush(netns).await?,
        }
        tokio::time::sleep(length.saturating_sub(begun.elapsed())).await;
        // Those that were begun in this phase have their fate in it.
        tokio::time::sleep(load::LIMIT).await;
        turn.phases.insert(phase, load.tally().since(&before));
    }
    drop(load);
    Ok(turn)
}

/// Takes one half of the endpoints out, then the other, and has all back at the end.
async fn churn(services: &Services, length: Duration) -> Result<()> {
    let begun = Instant::now();
    let mut group = Group::A;
    while begun.elapsed() < length {
        services.point(&group.addresses()).await?;
        group = group.other();
        tokio::time::sleep(CHANGE_EVERY).await;
    }
    services.point(&ADDRESSES).await
}

fn components(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Upstream => &["kubelet", "kube-proxy"],
        Kind::Ours | Kind::None => &["kubelet"],
    }
}

async fn flush(netns: &str) -> Result<()> {
    result(inside(netns, || {
        let status = std::process::Command::new("iptables")
            .args(["--wait", "-t", "nat", "-F"])
            .status()?;
        ensure!(status.success(), "iptables -F: {status}");
        Ok(())
    }))
    .await
}
