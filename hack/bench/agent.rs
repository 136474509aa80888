//! One agent's turn: first pod, one after another, crowds, and at rest.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::cluster::{Cluster, Kind};
use crate::pods::Pods;
use crate::process::{Process, since_boot};
use crate::report::Turn;
use crate::{CROWDS, progress};

/// What pods cost after they are Ready, events for instance, is counted for as
/// long as this.
const AFTERMATH: Duration = Duration::from_secs(2);
/// The time between a crowd and what is measured next.
const SETTLE: Duration = Duration::from_secs(5);

/// What all turns share.
#[derive(Debug)]
pub(crate) struct Bench<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) pods: &'a Pods,
    pub(crate) sequence: usize,
    pub(crate) idle: Duration,
}

impl Bench<'_> {
    pub(crate) async fn measure(&self, kind: Kind) -> Result<Turn> {
        let mut turn = Turn::default();
        self.cluster.switch(kind)?;
        self.first_pod(&mut turn).await?;
        let agent = Process(self.cluster.agent_pid()?);
        tokio::time::sleep(SETTLE).await;
        turn.resident.insert(0, agent.resident()?);
        self.one_by_one(agent, &mut turn).await?;
        for crowd in CROWDS {
            self.crowd(crowd, agent, &mut turn).await?;
        }
        Ok(turn)
    }

    /// A pod is bound to the node while the agent is away; how long after the
    /// agent's start does it run?
    async fn first_pod(&self, turn: &mut Turn) -> Result<()> {
        progress("  first pod");
        self.cluster.control_agent("stop")?;
        let pod = self.pods.create("first").await?;
        self.cluster.control_agent("start")?;
        let ready = self.pods.ready_at(&pod).await?;
        let started = Process(self.cluster.agent_pid()?).started()?;
        let ago = since_boot()?.saturating_sub(started);
        turn.first_pod.push(ago.saturating_sub(ready.elapsed()));
        self.pods.delete_all(&[pod]).await.map(drop)
    }

    async fn one_by_one(&self, agent: Process, turn: &mut Turn) -> Result<()> {
        progress("  one after another");
        let before = agent.cpu()?;
        let mut pods = Vec::new();
        for i in 0..self.sequence {
            let pod = self.pods.create(&format!("one-{i}")).await?;
            let wait = self.pods.await_ready(std::slice::from_ref(&pod)).await?;
            turn.start.extend(&wait);
            pods.push(pod);
        }
        tokio::time::sleep(AFTERMATH).await;
        turn.cpu = agent.cpu()?.saturating_sub(before);
        for pod in &pods {
            let wait = self.pods.delete_all(std::slice::from_ref(pod)).await?;
            turn.delete.extend(&wait);
        }
        Ok(())
    }

    async fn crowd(&self, count: usize, agent: Process, turn: &mut Turn) -> Result<()> {
        progress(&format!("  {count} at once"));
        tokio::time::sleep(SETTLE).await;
        let crowd = turn.crowds.entry(count).or_default();
        let before = agent.cpu()?;
        let pods = self
            .pods
            .create_all(&format!("crowd{count}"), count)
            .await?;
        crowd.start = self.pods.await_ready(&pods).await?;
        tokio::time::sleep(AFTERMATH).await;
        crowd.cpu = agent.cpu()?.saturating_sub(before);
        tokio::time::sleep(SETTLE).await;
        turn.resident.insert(count, agent.resident()?);
        if count == CROWDS[0] {
            turn.idle = Some(self.idle_share(agent).await?);
        }
        let crowd = turn.crowds.entry(count).or_default();
        crowd.delete = self.pods.delete_all(&pods).await?;
        Ok(())
    }

    /// The share of one core that the agent uses while nothing happens.
    async fn idle_share(&self, agent: Process) -> Result<f64> {
        progress("  at rest");
        let (begun, before) = (Instant::now(), agent.cpu()?);
        tokio::time::sleep(self.idle).await;
        let used = agent.cpu()?.saturating_sub(before);
        Ok(used.as_secs_f64() / begun.elapsed().as_secs_f64())
    }
}
