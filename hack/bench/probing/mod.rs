//! What a full node's exec probes cost: the agent's own share, and the
//! runtime's, which starts a process for each.
//!
//! In: a running cluster. Out: a table beside upstream's, or JSON.

mod report;

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::cluster::{Cluster, Kind};
use crate::pods::{COMMAND, Pods};
use crate::process::{Process, find};
use crate::progress;
use crate::report::turns::Turns;
pub(crate) use report::{Report, Turn};

/// Pods on the node.
const PODS: usize = 100;
/// What each is probed with; the cheapest command there is, so that what is
/// measured is the probing.
const PROBE: [&str; 1] = ["true"];
/// Seconds between two probes of a pod.
const PERIOD: u32 = 10;
/// Until every pod has been probed at least once, and starts cost nothing more.
const SETTLE: Duration = Duration::from_secs(15);

/// Lets both agents have `rounds` turns.
pub(crate) async fn measure(cluster: &Cluster, rounds: usize, window: Duration) -> Result<Report> {
    let pods = Pods::connect(cluster, COMMAND)
        .await?
        .probed_by(&PROBE, PERIOD);
    let turn = async |kind| turn(cluster, &pods, kind, window).await;
    let turns = Turns::take(cluster, rounds, window, None, turn).await?;
    Ok(Report(turns))
}

async fn turn(cluster: &Cluster, pods: &Pods, kind: Kind, window: Duration) -> Result<Turn> {
    cluster.switch(kind)?;
    progress("  starting pods");
    let made = pods.create_all("probed", PODS).await?;
    pods.await_ready(&made).await?;
    tokio::time::sleep(SETTLE).await;
    progress("  probes");
    let agent = Process(cluster.agent_pid()?);
    let containerd = Process(cluster.pid("containerd")?);
    let shims = find("containerd-shim", cluster.fact("CONTAINERD_SOCKET"))?;
    anyhow::ensure!(shims.len() >= PODS, "only {} shims", shims.len());
    let used = || -> Result<[Duration; 3]> {
        let shims = shims.iter().map(|shim| shim.cpu());
        Ok([
            agent.cpu()?,
            containerd.cpu()?,
            shims.sum::<Result<Duration>>()?,
        ])
    };
    let (begun, before) = (Instant::now(), used()?);
    tokio::time::sleep(window).await;
    let (after, took) = (used()?, begun.elapsed().as_secs_f64());
    let share = |index: usize| after[index].saturating_sub(before[index]).as_secs_f64() / took;
    let turn = Turn {
        agent: share(0),
        containerd: share(1),
        shims: share(2),
        resident: agent.resident()?,
    };
    pods.delete_all(&made).await?;
    Ok(turn)
}
