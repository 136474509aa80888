//! The figures at every number of services, and how they stand to the targets.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::cluster::Cluster;
use crate::report::{Row, Subject, Verdict, seconds};
use crate::stats::{Samples, median};

/// What one turn of one subject gave. Durations are seconds in JSON.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Turn {
    /// From the process's start until all rules are there.
    #[serde(serialize_with = "perhaps_seconds")]
    pub(crate) first_sync: Option<Duration>,
    /// From the API's answer to a change until packets follow it.
    pub(crate) latency: Samples,
    /// For one change.
    #[serde(serialize_with = "seconds")]
    pub(crate) cpu: Duration,
    /// Bytes that the proxy adds to the node.
    pub(crate) resident: Option<u64>,
}

/// All turns, by the number of services.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    containerd: String,
    rounds: usize,
    changes: u32,
    sizes: BTreeMap<usize, BTreeMap<Subject, Vec<Turn>>>,
}

impl Report {
    pub(super) fn new(cluster: &Cluster, rounds: usize, changes: u32) -> Self {
        Self {
            containerd: cluster.fact("CONTAINERD").to_owned(),
            rounds,
            changes,
            sizes: BTreeMap::new(),
        }
    }

    pub(super) fn add(&mut self, size: usize, subject: Subject, turn: Turn) {
        let turns = self.sizes.entry(size).or_default();
        turns.entry(subject).or_default().push(turn);
    }
}

/// The figures at one number of services.
struct Rows {
    first_sync: Row,
    p50: Row,
    p90: Row,
    cpu: Row,
    resident: Row,
}

impl Rows {
    fn of(size: usize, turns: &BTreeMap<Subject, Vec<Turn>>) -> Self {
        let row = |name: &str, figure: &dyn Fn(&[Turn]) -> Option<f64>| {
            let of = |subject| figure(turns.get(&subject).map_or(&[], Vec::as_slice));
            let figures = [Subject::Raw, Subject::Ours, Subject::Upstream].map(of);
            Row::new(format!("{size} services: {name}"), figures)
        };
        let latency = |percent| {
            move |turns: &[Turn]| {
                let mut all = Samples::default();
                turns.iter().for_each(|turn| all.extend(&turn.latency));
                all.percentile(percent).map(milliseconds)
            }
        };
        let cpu = |turn: &Turn| milliseconds(turn.cpu.as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "no agent has 2^52 bytes")]
        let megabytes = |turn: &Turn| Some(turn.resident? as f64 / 1e6);
        let first_sync = |turn: &Turn| turn.first_sync.map(|sync| sync.as_secs_f64());
        Self {
            first_sync: row("first sync, s", &|turns| {
                median(turns.iter().filter_map(first_sync))
            }),
            p50: row("change p50, ms", &latency(50)),
            p90: row("change p90, ms", &latency(90)),
            cpu: row("CPU a change, ms", &|turns| median(turns.iter().map(cpu))),
            resident: row("RSS, MB", &|turns| {
                median(turns.iter().filter_map(megabytes))
            }),
        }
    }

    /// What is asked for at this size: latency, CPU and memory, as parts of upstream's.
    fn verdicts(&self, size: usize) -> Vec<Verdict> {
        let targets = match size {
            1000 => [1.0 / 3.0, 1.0 / 4.0, 1.0 / 5.0],
            7000 => [1.0 / 4.0, 1.0 / 6.0, 1.0 / 5.0],
            _ => return Vec::new(),
        };
        let rows = [&self.p50, &self.cpu, &self.resident];
        let judged = rows.iter().zip(targets);
        judged
            .map(|(row, target)| {
                let what = format!("{} to upstream", row.name());
                Verdict::new(what, row.to_upstream(), target)
            })
            .collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "containerd {}, {} rounds, {} changes in each\n",
            self.containerd, self.rounds, self.changes
        )?;
        writeln!(f, "{}", Row::header("floor", "to floor"))?;
        let mut verdicts = Vec::new();
        for (size, turns) in &self.sizes {
            let rows = Rows::of(*size, turns);
            verdicts.extend(rows.verdicts(*size));
            let shown = [
                &rows.first_sync,
                &rows.p50,
                &rows.p90,
                &rows.cpu,
                &rows.resident,
            ];
            for row in shown {
                writeln!(f, "{row}")?;
            }
        }
        writeln!(f)?;
        verdicts
            .iter()
            .try_for_each(|verdict| writeln!(f, "{verdict}"))
    }
}

fn milliseconds(seconds: f64) -> f64 {
    seconds * 1e3
}

fn perhaps_seconds<S: serde::Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    duration.map(|it| it.as_secs_f64()).serialize(serializer)
}
