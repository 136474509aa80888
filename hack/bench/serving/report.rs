//! The figures of both agents, and how they stand to the targets.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::load::Served;
use super::{CALLS, FOLLOWERS, PODS, SESSIONS};
use crate::cluster::Cluster;
use crate::report::{Subject, Verdict};
use crate::stats::{Samples, median};

/// What one turn of one agent gave.
#[derive(Debug, Serialize)]
pub(crate) struct Turn {
    /// `kubectl exec … true`, from kubectl's start to its end.
    pub(crate) exec: Samples,
    /// Share of one core under the load.
    pub(crate) cpu: f64,
    /// Bytes, at the end of the load.
    pub(crate) resident: u64,
    pub(crate) served: Served,
}

/// All turns.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    containerd: String,
    rounds: usize,
    seconds: f64,
    turns: BTreeMap<Subject, Vec<Turn>>,
}

impl Report {
    pub(super) fn new(cluster: &Cluster, rounds: usize, window: Duration) -> Self {
        Self {
            containerd: cluster.fact("CONTAINERD").to_owned(),
            rounds,
            seconds: window.as_secs_f64(),
            turns: BTreeMap::new(),
        }
    }

    pub(super) fn add(&mut self, subject: Subject, turn: Turn) {
        self.turns.entry(subject).or_default().push(turn);
    }

    /// The median of our turns' figures, and of upstream's.
    fn figures(&self, figure: impl Fn(&Turn) -> Option<f64>) -> [Option<f64>; 2] {
        [Subject::Ours, Subject::Upstream].map(|subject| {
            let turns = self.turns.get(&subject)?;
            median(turns.iter().filter_map(&figure))
        })
    }

    fn rows(&self) -> Vec<(&'static str, [Option<f64>; 2])> {
        #[expect(
            clippy::cast_precision_loss,
            reason = "no agent has 2^52 bytes, nor serves as many lines"
        )]
        let number = |number: u64| number as f64;
        let rate = |count: u64| Some(number(count) / self.seconds);
        vec![
            (
                "kubectl exec, p50, s",
                self.figures(|turn| turn.exec.percentile(50)),
            ),
            (
                "kubectl exec, p90, s",
                self.figures(|turn| turn.exec.percentile(90)),
            ),
            (
                "agent's CPU under load, %",
                self.figures(|turn| Some(turn.cpu * 100.0)),
            ),
            (
                "agent's RSS under load, MB",
                self.figures(|turn| Some(number(turn.resident) / 1e6)),
            ),
            (
                "served: log lines a second",
                self.figures(|turn| rate(turn.served.log_lines)),
            ),
            (
                "served: echoed lines a second",
                self.figures(|turn| rate(turn.served.echoes)),
            ),
            (
                "served: scrapes a second",
                self.figures(|turn| rate(turn.served.scrapes)),
            ),
        ]
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "containerd {}, {} rounds of {} s: {PODS} pods, {FOLLOWERS} log followers, {SESSIONS} \
             exec sessions, /metrics/resource and /stats/summary at 1 Hz; {CALLS} timed execs\n",
            self.containerd, self.rounds, self.seconds
        )?;
        writeln!(
            f,
            "{:<38}{:>10}{:>10}{:>15}",
            "", "ours", "upstream", "ours/upstream"
        )?;
        let show =
            |figure: Option<f64>| figure.map_or("-".to_owned(), |figure| format!("{figure:.2}"));
        let ratio = |[ours, upstream]: [Option<f64>; 2]| Some(ours? / upstream?);
        let rows = self.rows();
        for (name, figures) in &rows {
            let [ours, upstream] = *figures;
            writeln!(
                f,
                "{name:<38}{:>10}{:>10}{:>15}",
                show(ours),
                show(upstream),
                show(ratio(*figures))
            )?;
        }
        writeln!(f)?;
        let targets = [
            (0, "latency of kubectl exec to upstream", 1.0),
            (2, "CPU under load to upstream", 0.5),
            (3, "RSS under load to upstream", 0.5),
        ];
        for (row, what, target) in targets {
            let figure = ratio(rows[row].1);
            writeln!(f, "{}", Verdict::new(what, figure, target))?;
        }
        Ok(())
    }
}
