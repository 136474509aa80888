//! The figures of both agents, and how they stand to the target.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::{PERIOD, PODS};
use crate::cluster::Cluster;
use crate::report::{Subject, Verdict};
use crate::stats::median;

/// What one turn of one agent gave; shares are of one core.
#[derive(Debug, Serialize)]
pub(crate) struct Turn {
    pub(crate) agent: f64,
    pub(crate) containerd: f64,
    /// With the processes that they started and waited for.
    pub(crate) shims: f64,
    /// The agent's, in bytes, at the end.
    pub(crate) resident: u64,
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
    fn figures(&self, figure: impl Fn(&Turn) -> f64) -> [Option<f64>; 2] {
        [Subject::Ours, Subject::Upstream].map(|subject| {
            let turns = self.turns.get(&subject)?;
            median(turns.iter().map(&figure))
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "containerd {}, {} rounds of {} s: {PODS} pods, each with an exec probe every {PERIOD} s\n",
            self.containerd, self.rounds, self.seconds
        )?;
        writeln!(
            f,
            "{:<38}{:>10}{:>10}{:>15}",
            "", "ours", "upstream", "ours/upstream"
        )?;
        #[expect(clippy::cast_precision_loss, reason = "no agent has 2^52 bytes")]
        let megabytes = |turn: &Turn| turn.resident as f64 / 1e6;
        let agent = self.figures(|turn| turn.agent * 100.0);
        let rows = [
            ("agent's CPU, %", agent),
            (
                "containerd's CPU, %",
                self.figures(|turn| turn.containerd * 100.0),
            ),
            ("shims' CPU, %", self.figures(|turn| turn.shims * 100.0)),
            (
                "all of it, %",
                self.figures(|turn| (turn.agent + turn.containerd + turn.shims) * 100.0),
            ),
            ("agent's RSS, MB", self.figures(megabytes)),
        ];
        let show =
            |figure: Option<f64>| figure.map_or("-".to_owned(), |figure| format!("{figure:.2}"));
        let ratio = |[ours, upstream]: [Option<f64>; 2]| Some(ours? / upstream?);
        for (name, figures) in rows {
            let [ours, upstream] = figures;
            writeln!(
                f,
                "{name:<38}{:>10}{:>10}{:>15}",
                show(ours),
                show(upstream),
                show(ratio(figures))
            )?;
        }
        let verdict = Verdict::new(
            "agent's own share of CPU to upstream",
            ratio(agent),
            1.0 / 3.0,
        );
        writeln!(f, "\n{verdict}")
    }
}
