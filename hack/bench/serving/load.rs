//! People and programs that ask a node all at once, through the API server as
//! they do.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::{AsyncBufReadExt, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::LogParams;
use kube::{Api, Client};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::cluster::Cluster;
use crate::pods::{self, Made, NAMESPACE};

/// What is scraped, each once a second.
const SCRAPES: [&str; 2] = ["metrics/resource", "stats/summary"];
const SECOND: Duration = Duration::from_secs(1);
/// Time for all followers and sessions to have had their first line.
const PATIENCE: Duration = Duration::from_secs(60);

/// How much came through, so that it can be seen that both agents had the same
/// to do.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Served {
    pub(crate) log_lines: u64,
    pub(crate) echoes: u64,
    pub(crate) scrapes: u64,
}

impl Served {
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self {
            log_lines: self.log_lines - earlier.log_lines,
            echoes: self.echoes - earlier.echoes,
            scrapes: self.scrapes - earlier.scrapes,
        }
    }
}

#[derive(Debug, Default)]
struct Counters {
    log_lines: AtomicU64,
    echoes: AtomicU64,
    scrapes: AtomicU64,
}

/// The load, until it is stopped.
pub(crate) struct Load {
    tasks: JoinSet<Result<()>>,
    counters: Arc<Counters>,
}

impl Load {
    /// Starts everything and waits until lines come.
    pub(crate) async fn start(
        cluster: &Cluster,
        made: &[Made],
        followers: usize,
        sessions: usize,
    ) -> Result<Self> {
        let client = pods::client(cluster).await?;
        let counters = Arc::new(Counters::default());
        let mut tasks = JoinSet::new();
        for pod in made.iter().cycle().take(followers) {
            tasks.spawn(follow(
                client.clone(),
                pod.name().to_owned(),
                Arc::clone(&counters),
            ));
        }
        for pod in made.iter().cycle().take(sessions) {
            let session = kubectl(cluster, &["exec", "-i", pod.name(), "--", "cat"]);
            tasks.spawn(converse(session, Arc::clone(&counters)));
        }
        for path in SCRAPES {
            let node = cluster.fact("NODE_NAME");
            let uri = format!("/api/v1/nodes/{node}/proxy/{path}");
            tasks.spawn(scrape(client.clone(), uri, Arc::clone(&counters)));
        }
        let load = Self { tasks, counters };
        load.await_first(u64::try_from(sessions)?).await?;
        Ok(load)
    }

    async fn await_first(&self, sessions: u64) -> Result<()> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while self.served().echoes < sessions || self.served().scrapes < 2 {
            ensure!(
                tokio::time::Instant::now() < deadline,
                "not all came through in {PATIENCE:?}: {:?}",
                self.served()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    pub(crate) fn served(&self) -> Served {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Served {
            log_lines: read(&self.counters.log_lines),
            echoes: read(&self.counters.echoes),
            scrapes: read(&self.counters.scrapes),
        }
    }

    /// Ends all of it; says what had ended by itself.
    pub(crate) async fn stop(mut self) {
        while let Some(ended) = self.tasks.try_join_next() {
            eprintln!("bench: a client ended early: {ended:?}");
        }
        self.tasks.shutdown().await;
    }
}

/// kubectl with the cluster's credentials, ended with its handle.
pub(crate) fn kubectl(cluster: &Cluster, args: &[&str]) -> Command {
    let mut command = Command::new(cluster.fact("KUBECTL"));
    command
        .args([
            "--kubeconfig",
            cluster.fact("KUBECONFIG"),
            "--namespace",
            NAMESPACE,
        ])
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true);
    command
}

async fn follow(client: Client, pod: String, counters: Arc<Counters>) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(client, NAMESPACE);
    let params = LogParams {
        follow: true,
        tail_lines: Some(1),
        ..LogParams::default()
    };
    let mut lines = pods.log_stream(&pod, &params).await?.lines();
    while let Some(line) = lines.next().await {
        line?;
        counters.log_lines.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Sends a line a second to a session that echoes, and reads it back.
async fn converse(mut session: Command, counters: Arc<Counters>) -> Result<()> {
    let mut session = session
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdin = session.stdin.take().context("no stdin")?;
    let mut stdout = BufReader::new(session.stdout.take().context("no stdout")?).lines();
    let mut second = tokio::time::interval(SECOND);
    loop {
        second.tick().await;
        stdin.write_all(b"are you there?\n").await?;
        stdout.next_line().await?.context("the session ended")?;
        counters.echoes.fetch_add(1, Ordering::Relaxed);
    }
}

async fn scrape(client: Client, uri: String, counters: Arc<Counters>) -> Result<()> {
    let mut second = tokio::time::interval(SECOND);
    loop {
        second.tick().await;
        let request = http::Request::get(&uri).body(Vec::new())?;
        client.request_text(request).await?;
        counters.scrapes.fetch_add(1, Ordering::Relaxed);
    }
}
