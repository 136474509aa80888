//! Measures a node agent as its users meet it: how long pods take to run and to
//! go, what the agent costs meanwhile and at rest, and how soon it is of use
//! after its start. The same for our agent and upstream's kubelet, with the
//! bare runtime beside them, by turns on one cluster.
//!
//! In: a running cluster of `hack/cluster`. Out: a table, or JSON with every
//! sample. Nothing here passes or fails; the verdicts are for people. Started
//! by `hack/bench/run`.

mod agent;
mod cluster;
mod connections;
mod cri;
mod netns;
mod pods;
mod probing;
mod process;
mod proxying;
mod report;
mod serving;
mod stats;

use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use serde::Serialize;

use agent::Bench;
use cluster::{Cluster, Kind};
use pods::{COMMAND, Pods};
use report::{Report, Subject};

/// Command line.
#[derive(Debug, Parser)]
struct Args {
    /// What is measured.
    #[arg(long, value_enum, default_value = "pods")]
    what: What,
    /// Name of the cluster.
    #[arg(long)]
    cluster: String,
    /// Our agent's program; without it, the newest that is built.
    #[arg(long)]
    kubelet: Option<PathBuf>,
    /// How often each subject has its turn.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Pods started and deleted one after another, each turn.
    #[arg(long, default_value_t = 12)]
    sequence: usize,
    /// How long the agent is watched at rest, or under load, in seconds.
    #[arg(long, default_value_t = 30)]
    idle: u64,
    /// Numbers of services, each larger than the one before.
    #[arg(long, value_delimiter = ',', default_value = "1000,7000,30000")]
    services: Vec<usize>,
    /// Changes of endpoints, each turn.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    changes: u32,
    /// Only this agent, where that is possible.
    #[arg(long, value_enum)]
    only: Option<Agent>,
    /// What is printed.
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Starts and ends of pods, and the agent at rest.
    Pods,
    /// The agent while it is asked for logs, sessions and metrics.
    Serving,
    /// The agent and the runtime while a full node's probes run commands.
    Density,
    /// The service proxy among many services.
    Proxy,
    /// Connections through a service while all around it changes.
    Connections,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Agent {
    Ours,
    Upstream,
}

impl From<Agent> for Subject {
    fn from(agent: Agent) -> Self {
        match agent {
            Agent::Ours => Self::Ours,
            Agent::Upstream => Self::Upstream,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// The smaller and the larger number of pods that are started at once.
pub(crate) const CROWDS: [usize; 2] = [30, 90];

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<()> {
    let cluster = Cluster::open(&args.cluster, args.kubelet.clone())?;
    match args.what {
        What::Pods => show(&measure_pods(&cluster, &args).await?, args.output),
        What::Serving => {
            let window = Duration::from_secs(args.idle);
            let report = serving::measure(&cluster, args.rounds, window).await?;
            show(&report, args.output)
        }
        What::Density => {
            let window = Duration::from_secs(args.idle);
            let report = probing::measure(&cluster, args.rounds, window).await?;
            show(&report, args.output)
        }
        What::Proxy => {
            let plan = proxying::Plan {
                sizes: args.services,
                rounds: args.rounds,
                changes: args.changes,
                only: args.only.map(Subject::from),
            };
            show(&proxying::measure(&cluster, plan).await?, args.output)
        }
        What::Connections => {
            let phase = Duration::from_secs(args.idle);
            let only = args.only.map(Subject::from);
            let report = connections::measure(&cluster, args.rounds, phase, only).await?;
            show(&report, args.output)
        }
    }
}

fn show(report: &(impl Display + Serialize), output: Output) -> Result<()> {
    match output {
        Output::Table => print!("{report}"),
        Output::Json => println!("{}", serde_json::to_string_pretty(report)?),
    }
    Ok(())
}

async fn measure_pods(cluster: &Cluster, args: &Args) -> Result<Report> {
    let pods = Pods::connect(cluster, COMMAND).await?;
    let runtime = cri::Runtime::connect(cluster);
    let bench = Bench {
        cluster,
        pods: &pods,
        sequence: args.sequence,
        idle: Duration::from_secs(args.idle),
    };
    let mut report = Report::new(cluster, args.rounds, args.sequence, args.idle);
    for round in 1..=args.rounds {
        progress(&format!("round {round} of {}: raw CRI", args.rounds));
        cluster.switch(Kind::None)?;
        let raw = cri::measure(&runtime, args.sequence)
            .await
            .context("raw CRI")?;
        report.add(Subject::Raw, raw);
        for (kind, subject) in by_turns(round) {
            progress(&format!("round {round} of {}: {subject}", args.rounds));
            let measured = bench.measure(kind).await;
            report.add(subject, measured.with_context(|| subject.to_string())?);
        }
    }
    Ok(report)
}

/// Who comes first changes with every round: what warms up, warms up for both.
pub(crate) fn by_turns(round: usize) -> [(Kind, Subject); 2] {
    let ours = (Kind::Ours, Subject::Ours);
    let upstream = (Kind::Upstream, Subject::Upstream);
    if round % 2 == 1 {
        [ours, upstream]
    } else {
        [upstream, ours]
    }
}

/// For whoever waits; the result is alone on stdout.
fn progress(what: &str) {
    eprintln!("bench: {what}");
}
