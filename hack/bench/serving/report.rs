//! The figures of both agents, and how they stand to the targets.

use std::fmt;

use serde::Serialize;

use super::load::Served;
use super::{CALLS, FOLLOWERS, PODS, SESSIONS};
use crate::report::Verdict;
use crate::report::turns::{Pair, Turns, megabytes};
use crate::stats::Samples;

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
#[serde(transparent)]
pub(crate) struct Report(pub(super) Turns<Turn>);

impl Report {
    /// What has a target, with it.
    fn judged(&self) -> [(Pair, &'static str, f64); 3] {
        let Self(turns) = self;
        [
            (
                turns.pair("kubectl exec, p50, s", |turn| turn.exec.percentile(50)),
                "latency of kubectl exec to upstream",
                1.0,
            ),
            (
                turns.pair("agent's CPU under load, %", |turn| Some(turn.cpu * 100.0)),
                "CPU under load to upstream",
                0.5,
            ),
            (
                turns.pair("agent's RSS under load, MB", |turn| {
                    Some(megabytes(turn.resident))
                }),
                "RSS under load to upstream",
                0.5,
            ),
        ]
    }

    fn others(&self) -> [Pair; 4] {
        let Self(turns) = self;
        #[expect(clippy::cast_precision_loss, reason = "nobody serves 2^52 lines")]
        let rate = |count: u64| Some(count as f64 / turns.seconds);
        [
            turns.pair("kubectl exec, p90, s", |turn| turn.exec.percentile(90)),
            turns.pair("served: log lines a second", |turn| {
                rate(turn.served.log_lines)
            }),
            turns.pair("served: echoed lines a second", |turn| {
                rate(turn.served.echoes)
            }),
            turns.pair("served: scrapes a second", |turn| rate(turn.served.scrapes)),
        ]
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {PODS} pods, {FOLLOWERS} log followers, {SESSIONS} exec sessions, \
             /metrics/resource and /stats/summary at 1 Hz; {CALLS} timed execs\n",
            self.0.heading()
        )?;
        let judged = self.judged();
        writeln!(f, "{}", Pair::header())?;
        for (pair, ..) in &judged {
            writeln!(f, "{pair}")?;
        }
        for pair in self.others() {
            writeln!(f, "{pair}")?;
        }
        writeln!(f)?;
        for (pair, what, target) in &judged {
            writeln!(f, "{}", Verdict::new(*what, pair.to_upstream(), *target))?;
        }
        Ok(())
    }
}
