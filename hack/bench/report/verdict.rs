//! The figures beside their targets. Said, never asserted: the machine may be
//! busy.

use std::fmt;

use super::{Report, rows};
use crate::CROWDS;

/// One target and how far off it we are.
#[derive(Debug)]
pub(crate) struct Verdict {
    what: String,
    figure: Option<f64>,
    target: f64,
}

impl Verdict {
    pub(crate) fn new(what: impl Into<String>, figure: Option<f64>, target: f64) -> Self {
        Self {
            what: what.into(),
            figure,
            target,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, target, .. } = self;
        match self.figure {
            Some(figure) if figure <= *target => {
                write!(f, "reached  {what}: {figure:.2} (target {target:.2})")
            }
            Some(figure) => write!(f, "missed   {what}: {figure:.2} (target {target:.2})"),
            None => write!(f, "unknown  {what}: not measured (target {target:.2})"),
        }
    }
}

pub(super) fn all(report: &Report) -> Vec<Verdict> {
    let third = 1.0 / 3.0;
    let [few, many] = CROWDS;
    debug_assert_eq!((few, many), (30, 90), "the targets are for these");
    let verdict = |what: &str, figure, target| Verdict::new(what, figure, target);
    let start = rows::start_in_sequence(report);
    let first = rows::first_pod(report);
    let beyond_runtime = first.ours.zip(start.raw).map(|(first, raw)| first - raw);
    vec![
        verdict(
            "start one after another, p50 to raw CRI",
            start.to_raw(),
            1.25,
        ),
        verdict(
            "start one after another, p50 to upstream",
            start.to_upstream(),
            1.0,
        ),
        verdict(
            "start of 90 at once, max to upstream",
            rows::slowest_start(report, many).to_upstream(),
            1.0,
        ),
        verdict(
            "RSS with 90 pods to upstream",
            rows::resident(report, many).to_upstream(),
            third,
        ),
        verdict(
            "CPU at rest with 30 pods to upstream",
            rows::idle(report).to_upstream(),
            0.2,
        ),
        verdict(
            "CPU per pod started to upstream",
            rows::cpu_per_pod(report).to_upstream(),
            third,
        ),
        verdict(
            "first pod, seconds beyond its raw CRI time",
            beyond_runtime,
            1.0,
        ),
    ]
}
