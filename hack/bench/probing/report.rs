//! The figures of both agents, and how they stand to the target.

use std::fmt;

use serde::Serialize;

use super::{PERIOD, PODS};
use crate::report::Verdict;
use crate::report::turns::{Pair, Turns, megabytes};

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
#[serde(transparent)]
pub(crate) struct Report(pub(super) Turns<Turn>);

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(turns) = self;
        writeln!(
            f,
            "{}: {PODS} pods, each with an exec probe every {PERIOD} s\n",
            turns.heading()
        )?;
        let percent =
            |name, share: fn(&Turn) -> f64| turns.pair(name, move |turn| Some(share(turn) * 100.0));
        let agent = percent("agent's CPU, %", |turn| turn.agent);
        let to_upstream = agent.to_upstream();
        let all = |turn: &Turn| turn.agent + turn.containerd + turn.shims;
        let pairs = [
            agent,
            percent("containerd's CPU, %", |turn| turn.containerd),
            percent("shims' CPU, %", |turn| turn.shims),
            percent("all of it, %", all),
            turns.pair("agent's RSS, MB", |turn| Some(megabytes(turn.resident))),
        ];
        writeln!(f, "{}", Pair::header())?;
        pairs.iter().try_for_each(|pair| writeln!(f, "{pair}"))?;
        let what = "agent's own share of CPU to upstream";
        writeln!(f, "\n{}", Verdict::new(what, to_upstream, 1.0 / 3.0))
    }
}
