//! What was measured, and what it amounts to beside the targets.
//!
//! In: turns, any number for each subject. Out: a table for people, everything
//! for programs. Latencies of all turns of a subject are one heap of samples;
//! maxima, memory and CPU are taken turn by turn, and their median is shown.

mod rows;
pub(crate) mod turns;
mod verdict;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

pub(crate) use rows::Row;
pub(crate) use verdict::Verdict;

use crate::cluster::Cluster;
use crate::stats::Samples;

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Subject {
    Raw,
    Ours,
    Upstream,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Raw => "raw CRI",
            Self::Ours => "ours",
            Self::Upstream => "upstream",
        })
    }
}

/// What one turn of one subject gave. Durations are seconds in JSON.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Turn {
    /// One pod after another.
    pub(crate) start: Samples,
    pub(crate) delete: Samples,
    /// The agent's, for the starts one after another.
    #[serde(serialize_with = "seconds")]
    pub(crate) cpu: Duration,
    /// By the number of pods.
    pub(crate) crowds: BTreeMap<usize, Crowd>,
    /// From the agent's fork to its first pod being Ready.
    pub(crate) first_pod: Samples,
    /// Bytes, by the number of pods.
    pub(crate) resident: BTreeMap<usize, u64>,
    /// Share of one core at rest.
    pub(crate) idle: Option<f64>,
}

/// Pods that were started at once, and deleted at once.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Crowd {
    pub(crate) start: Samples,
    pub(crate) delete: Samples,
    #[serde(serialize_with = "seconds")]
    pub(crate) cpu: Duration,
}

/// Everything, as far as it was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    containerd: String,
    rounds: usize,
    pods_in_sequence: usize,
    idle_seconds: u64,
    turns: BTreeMap<Subject, Vec<Turn>>,
}

impl Report {
    pub(crate) fn new(
        cluster: &Cluster,
        rounds: usize,
        pods_in_sequence: usize,
        idle_seconds: u64,
    ) -> Self {
        Self {
            containerd: cluster.fact("CONTAINERD").to_owned(),
            rounds,
            pods_in_sequence,
            idle_seconds,
            turns: BTreeMap::new(),
        }
    }

    pub(crate) fn add(&mut self, subject: Subject, turn: Turn) {
        self.turns.entry(subject).or_default().push(turn);
    }

    fn turns(&self, subject: Subject) -> &[Turn] {
        self.turns.get(&subject).map_or(&[], Vec::as_slice)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "containerd {}, {} rounds, {} pods one after another in each, {} s at rest; seconds, \
             if not said otherwise\n",
            self.containerd, self.rounds, self.pods_in_sequence, self.idle_seconds
        )?;
        writeln!(f, "{}", Row::header("raw CRI", "ours/raw"))?;
        for row in rows::all(self) {
            writeln!(f, "{row}")?;
        }
        writeln!(f)?;
        for verdict in verdict::all(self) {
            writeln!(f, "{verdict}")?;
        }
        Ok(())
    }
}

/// A duration for JSON.
pub(crate) fn seconds<S: Serializer>(
    duration: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}
