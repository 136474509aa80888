//! The table: one figure for each subject, and the ratios.

use std::fmt;

use super::{Report, Subject, Turn};
use crate::CROWDS;
use crate::stats::{Samples, median};

/// One figure of every subject that has it.
#[derive(Debug)]
pub(crate) struct Row {
    name: String,
    /// Digits after the point.
    digits: usize,
    pub(super) raw: Option<f64>,
    pub(super) ours: Option<f64>,
    pub(super) upstream: Option<f64>,
}

impl Row {
    /// A row of figures that are there already: the least possible one, ours and
    /// upstream's.
    pub(crate) fn new(name: impl Into<String>, figures: [Option<f64>; 3]) -> Self {
        let [raw, ours, upstream] = figures;
        Self {
            name: name.into(),
            digits: 2,
            raw,
            ours,
            upstream,
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The line above the rows. `raw` and `to_raw` name the first and the fourth column.
    pub(crate) fn header(raw: &str, to_raw: &str) -> String {
        format!(
            "{:<38}{raw:>10}{:>10}{:>10}{to_raw:>10}{:>15}",
            "", "ours", "upstream", "ours/upstream"
        )
    }

    fn of(report: &Report, figure: impl Fn(&[Turn]) -> Option<f64>) -> Self {
        let of = |subject| figure(report.turns(subject));
        Self {
            name: String::new(),
            digits: 3,
            raw: of(Subject::Raw),
            ours: of(Subject::Ours),
            upstream: of(Subject::Upstream),
        }
    }

    fn named(self, name: impl Into<String>) -> Self {
        let name = name.into();
        Self { name, ..self }
    }

    fn digits(self, digits: usize) -> Self {
        Self { digits, ..self }
    }

    pub(crate) fn to_raw(&self) -> Option<f64> {
        Some(self.ours? / self.raw?)
    }

    pub(crate) fn to_upstream(&self) -> Option<f64> {
        Some(self.ours? / self.upstream?)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |figure: Option<f64>, digits| {
            figure.map_or("-".to_owned(), |figure| format!("{figure:.digits$}"))
        };
        write!(
            f,
            "{:<38}{:>10}{:>10}{:>10}{:>10}{:>15}",
            self.name,
            show(self.raw, self.digits),
            show(self.ours, self.digits),
            show(self.upstream, self.digits),
            show(self.to_raw(), 2),
            show(self.to_upstream(), 2),
        )
    }
}

pub(super) fn all(report: &Report) -> Vec<Row> {
    let start = |percent| {
        Row::of(report, move |turns| {
            pooled(turns, |turn| &turn.start, percent)
        })
    };
    let mut rows = vec![
        start_in_sequence(report),
        start(90).named("start, one after another: p90"),
    ];
    for crowd in CROWDS {
        let p50 = Row::of(report, |turns| {
            median_of(turns, |turn| turn.crowds.get(&crowd)?.start.percentile(50))
        });
        rows.push(p50.named(format!("start, {crowd} at once: p50")));
        rows.push(slowest_start(report, crowd));
    }
    let delete = Row::of(report, |turns| pooled(turns, |turn| &turn.delete, 50));
    rows.push(delete.named("deletion, one after another: p50"));
    for crowd in CROWDS {
        let p50 = Row::of(report, |turns| {
            median_of(turns, |turn| turn.crowds.get(&crowd)?.delete.percentile(50))
        });
        rows.push(p50.named(format!("deletion, {crowd} at once: p50")));
        let max = Row::of(report, |turns| {
            median_of(turns, |turn| turn.crowds.get(&crowd)?.delete.max())
        });
        rows.push(max.named(format!("deletion, {crowd} at once: max")));
    }
    rows.push(first_pod(report));
    rows.push(cpu_per_pod(report));
    for pods in [0].into_iter().chain(CROWDS) {
        rows.push(resident(report, pods));
    }
    rows.push(idle(report));
    rows
}

// === the figures that have targets ===

pub(super) fn start_in_sequence(report: &Report) -> Row {
    Row::of(report, |turns| pooled(turns, |turn| &turn.start, 50))
        .named("start, one after another: p50")
}

pub(super) fn slowest_start(report: &Report, crowd: usize) -> Row {
    let max = |turn: &Turn| turn.crowds.get(&crowd)?.start.max();
    Row::of(report, |turns| median_of(turns, max)).named(format!("start, {crowd} at once: max"))
}

pub(super) fn first_pod(report: &Report) -> Row {
    Row::of(report, |turns| pooled(turns, |turn| &turn.first_pod, 50))
        .named("first pod after the agent's start")
}

/// Of all starts of a turn together.
pub(super) fn cpu_per_pod(report: &Report) -> Row {
    let sequence = report.pods_in_sequence;
    let milliseconds = move |turn: &Turn| {
        let crowds = turn.crowds.iter();
        let (cpu, pods) = crowds.fold((turn.cpu, sequence), |(cpu, pods), (count, crowd)| {
            (cpu + crowd.cpu, pods + count)
        });
        let pods = u32::try_from(pods).ok()?;
        (!cpu.is_zero()).then(|| cpu.as_secs_f64() * 1e3 / f64::from(pods))
    };
    Row::of(report, |turns| median_of(turns, milliseconds))
        .named("agent's CPU per pod started, ms")
        .digits(1)
}

pub(super) fn resident(report: &Report, pods: usize) -> Row {
    #[expect(clippy::cast_precision_loss, reason = "no agent has 2^52 bytes")]
    let megabytes = |turn: &Turn| Some(*turn.resident.get(&pods)? as f64 / 1e6);
    Row::of(report, |turns| median_of(turns, megabytes))
        .named(format!("agent's RSS with {pods} pods, MB"))
        .digits(1)
}

pub(super) fn idle(report: &Report) -> Row {
    let percent = |turn: &Turn| turn.idle.map(|share| share * 100.0);
    Row::of(report, |turns| median_of(turns, percent))
        .named(format!("agent's CPU at rest, {} pods, %", CROWDS[0]))
        .digits(2)
}

/// A percentile over the samples of all turns.
fn pooled(turns: &[Turn], which: impl Fn(&Turn) -> &Samples, percent: usize) -> Option<f64> {
    let mut all = Samples::default();
    for turn in turns {
        all.extend(which(turn));
    }
    all.percentile(percent)
}

/// The median of the turns' figures.
fn median_of(turns: &[Turn], figure: impl Fn(&Turn) -> Option<f64>) -> Option<f64> {
    median(turns.iter().filter_map(figure))
}
