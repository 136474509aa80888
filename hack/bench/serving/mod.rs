//! What it costs an agent to be asked: log followers, exec sessions and scrapes
//! at once, and how long one exec takes.
//!
//! In: a running cluster. Out: a table beside upstream's, or JSON.

mod load;
mod report;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::cluster::{Cluster, Kind};
use crate::pods::{CHATTY, Made, Pods};
use crate::process::Process;
use crate::progress;
use crate::report::turns::Turns;
use crate::stats::Samples;
use load::Load;
pub(crate) use report::{Report, Turn};

/// Pods on the node.
const PODS: usize = 90;
/// Streams of `kubectl logs -f`.
const FOLLOWERS: usize = 200;
/// Sessions of `kubectl exec -i`, each echoing one line a second.
const SESSIONS: usize = 50;
/// Calls of `kubectl exec … true`, one after another, that are timed.
const CALLS: usize = 20;
/// The time between a change and what is measured next.
const SETTLE: Duration = Duration::from_secs(7);

/// Lets both agents have `rounds` turns.
pub(crate) async fn measure(cluster: &Cluster, rounds: usize, window: Duration) -> Result<Report> {
    let pods = Pods::connect(cluster, CHATTY).await?;
    let turn = async |kind| turn(cluster, &pods, kind, window).await;
    let turns = Turns::take(cluster, rounds, window, None, turn).await?;
    Ok(Report(turns))
}

async fn turn(cluster: &Cluster, pods: &Pods, kind: Kind, window: Duration) -> Result<Turn> {
    cluster.switch(kind)?;
    progress("  starting pods");
    let made = pods.create_all("served", PODS).await?;
    pods.await_ready(&made).await?;
    let agent = Process(cluster.agent_pid()?);
    tokio::time::sleep(SETTLE).await;
    progress("  exec, one after another");
    let exec = exec_latency(cluster, &made).await?;
    progress("  followers, sessions and scrapes");
    let load = Load::start(cluster, &made, FOLLOWERS, SESSIONS).await?;
    tokio::time::sleep(SETTLE).await;
    let (begun, before, served) = (Instant::now(), agent.cpu()?, load.served());
    tokio::time::sleep(window).await;
    let used = agent.cpu()?.saturating_sub(before);
    let turn = Turn {
        exec,
        cpu: used.as_secs_f64() / begun.elapsed().as_secs_f64(),
        resident: agent.resident()?,
        served: load.served().since(&served),
    };
    load.stop().await;
    pods.delete_all(&made).await?;
    Ok(turn)
}

async fn exec_latency(cluster: &Cluster, made: &[Made]) -> Result<Samples> {
    let mut samples = Samples::default();
    for pod in made.iter().cycle().take(CALLS) {
        let begun = Instant::now();
        let status = load::kubectl(cluster, &["exec", pod.name(), "--", "true"])
            .status()
            .await
            .context("kubectl exec")?;
        anyhow::ensure!(status.success(), "kubectl exec: {status}");
        samples.push(begun.elapsed());
    }
    Ok(samples)
}
