//! How many connections were lost, phase by phase.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::load::{Loss, Tally};
use super::{LONG_LIVED, Phase, RATE};
use crate::report::turns::Turns;

/// One turn of one agent.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Turn {
    pub(crate) phases: BTreeMap<Phase, Tally>,
}

/// All turns.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Report(pub(super) Turns<Turn>);

/// All turns of one agent in one phase together.
fn total<'a>(turns: impl Iterator<Item = &'a Tally>) -> Tally {
    turns.fold(Tally::default(), |mut sum, tally| {
        sum.served += tally.served;
        sum.slowest = sum.slowest.max(tally.slowest);
        for (sum, losses) in [
            (&mut sum.lost, &tally.lost),
            (&mut sum.broken, &tally.broken),
        ] {
            for (loss, count) in losses {
                *sum.entry(*loss).or_default() += count;
            }
        }
        sum
    })
}

fn losses(counts: &BTreeMap<Loss, u64>) -> String {
    let all: u64 = counts.values().sum();
    let kinds = counts.iter().filter(|(_, count)| **count > 0);
    let kinds: Vec<String> = kinds
        .map(|(loss, count)| format!("{count} {loss:?}").to_lowercase())
        .collect();
    if kinds.is_empty() {
        all.to_string()
    } else {
        format!("{all} ({})", kinds.join(", "))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(turns) = self;
        writeln!(
            f,
            "{} a phase: {LONG_LIVED} long-lived connections, {RATE} new ones a second\n",
            turns.heading()
        )?;
        writeln!(
            f,
            "{:<10}{:<10}{:>10}{:>12}  {:<34}long-lived broken",
            "", "", "served", "slowest, s", "new lost"
        )?;
        for phase in Phase::ALL {
            for (subject, turns) in &turns.turns {
                let tally = total(turns.iter().filter_map(|turn| turn.phases.get(&phase)));
                writeln!(
                    f,
                    "{:<10}{:<10}{:>10}{:>12.3}  {:<34}{}",
                    format!("{phase:?}").to_lowercase(),
                    subject.to_string(),
                    tally.served,
                    tally.slowest,
                    losses(&tally.lost),
                    losses(&tally.broken)
                )?;
            }
        }
        Ok(())
    }
}
