//! Turns of both agents under the same load, and their figures side by side.
//!
//! In: what one turn gives. Out: every turn for JSON, and rows of medians.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use super::Subject;
use crate::cluster::{Cluster, Kind};
use crate::stats::median;
use crate::{by_turns, progress};

/// Every turn of both agents.
#[derive(Debug, Serialize)]
pub(crate) struct Turns<T> {
    containerd: String,
    rounds: usize,
    /// How long each was watched.
    pub(crate) seconds: f64,
    pub(crate) turns: BTreeMap<Subject, Vec<T>>,
}

impl<T> Turns<T> {
    /// Lets both agents, or the only one that is wanted, have `rounds` turns.
    pub(crate) async fn take(
        cluster: &Cluster,
        rounds: usize,
        window: Duration,
        only: Option<Subject>,
        turn: impl AsyncFn(Kind) -> Result<T>,
    ) -> Result<Self> {
        let mut taken = Self {
            containerd: cluster.fact("CONTAINERD").to_owned(),
            rounds,
            seconds: window.as_secs_f64(),
            turns: BTreeMap::new(),
        };
        for round in 1..=rounds {
            let turns = by_turns(round).into_iter();
            for (kind, subject) in turns.filter(|turn| only.is_none_or(|it| it == turn.1)) {
                progress(&format!("round {round} of {rounds}: {subject}"));
                let turn = turn(kind).await.with_context(|| subject.to_string())?;
                taken.turns.entry(subject).or_default().push(turn);
            }
        }
        Ok(taken)
    }

    /// What was measured how often, for the first line of a table.
    pub(crate) fn heading(&self) -> String {
        let Self {
            containerd,
            rounds,
            seconds,
            ..
        } = self;
        format!("containerd {containerd}, {rounds} rounds of {seconds} s")
    }

    /// The median of each agent's turns.
    pub(crate) fn pair(&self, name: &'static str, figure: impl Fn(&T) -> Option<f64>) -> Pair {
        let of = |subject| median(self.turns.get(&subject)?.iter().filter_map(&figure));
        Pair {
            name,
            ours: of(Subject::Ours),
            upstream: of(Subject::Upstream),
        }
    }
}

/// One figure of both agents; a line of the table.
#[derive(Debug)]
pub(crate) struct Pair {
    name: &'static str,
    ours: Option<f64>,
    upstream: Option<f64>,
}

impl Pair {
    /// The line above the pairs.
    pub(crate) fn header() -> String {
        let columns = ["ours", "upstream", "ours/upstream"];
        line("", columns.map(str::to_owned))
    }

    pub(crate) fn to_upstream(&self) -> Option<f64> {
        Some(self.ours? / self.upstream?)
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figures = [self.ours, self.upstream, self.to_upstream()];
        let shown =
            figures.map(|it| it.map_or_else(|| "-".to_owned(), |figure| format!("{figure:.2}")));
        f.write_str(&line(self.name, shown))
    }
}

fn line(name: &str, [ours, upstream, ratio]: [String; 3]) -> String {
    format!("{name:<38}{ours:>10}{upstream:>10}{ratio:>15}")
}

/// Bytes as megabytes.
pub(crate) fn megabytes(bytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "no agent has 2^52 bytes")]
    let bytes = bytes as f64;
    bytes / 1e6
}
