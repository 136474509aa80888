//! From single results to verdicts: thresholds, and when a probe has said
//! enough.
//!
//! In: results of one probe of one container, in order, and which instance they
//! speak of. Out: changes of the verdict. When to ask is [`schedule`](super::schedule)'s
//! business.

use k8s_openapi::api::core::v1::Probe;

use super::{ProbeKind, Verdict};
use crate::pod::observed::ContainerId;

/// How many equal results in a row make a verdict; at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    pub successes: u32,
    pub failures: u32,
}

impl Thresholds {
    /// `successThreshold` and `failureThreshold`, with the API's defaults.
    #[must_use]
    pub fn of(probe: &Probe) -> Self {
        let given = |value: Option<i32>, default| {
            u32::try_from(value.unwrap_or_default())
                .ok()
                .filter(|value| *value > 0)
                .unwrap_or(default)
        };
        Self {
            successes: given(probe.success_threshold, 1),
            failures: given(probe.failure_threshold, 3),
        }
    }
}

/// What one probe has come to say of the container's present instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracker {
    kind: ProbeKind,
    thresholds: Thresholds,
    instance: Option<ContainerId>,
    verdict: Option<bool>,
    /// The last result, and how often it came in a row.
    streak: Option<(bool, u32)>,
}

impl Tracker {
    #[must_use]
    pub fn new(kind: ProbeKind, thresholds: Thresholds) -> Self {
        Self {
            kind,
            thresholds,
            instance: None,
            verdict: None,
            streak: None,
        }
    }

    /// Turns to `instance`, of which `known` is known already. Everything said
    /// of another instance is forgotten. True if it is another one.
    pub fn turn_to(&mut self, instance: &ContainerId, known: Option<bool>) -> bool {
        if self.instance.as_ref() == Some(instance) {
            return false;
        }
        self.instance = Some(instance.clone());
        self.verdict = known;
        self.streak = None;
        true
    }

    /// Whether there is nothing more to ask of this instance: it was found dead
    /// and will be replaced, or its start is decided.
    #[must_use]
    pub fn is_held(&self) -> bool {
        match self.kind {
            ProbeKind::Startup => self.verdict.is_some(),
            ProbeKind::Liveness => self.verdict == Some(false),
            ProbeKind::Readiness => false,
        }
    }

    /// What holds at present: the verdict, or what holds until there is one.
    #[must_use]
    pub fn passes(&self) -> Option<bool> {
        self.verdict.or(match self.kind {
            ProbeKind::Startup => None,
            ProbeKind::Liveness => Some(true),
            ProbeKind::Readiness => Some(false),
        })
    }

    /// Takes in one result. Returns the verdict if it changes what holds.
    pub fn record(&mut self, passed: bool) -> Option<Verdict> {
        let instance = self.instance.clone()?;
        if self.is_held() {
            return None;
        }
        let count = match self.streak {
            Some((same, count)) if same == passed => count.saturating_add(1),
            _ => 1,
        };
        self.streak = Some((passed, count));
        let threshold = if passed {
            self.thresholds.successes
        } else {
            self.thresholds.failures
        };
        if count < threshold {
            return None;
        }
        let before = self.passes();
        self.verdict = Some(passed);
        (before != Some(passed)).then_some(Verdict { instance, passed })
    }
}

#[cfg(test)]
mod tests {
    use ProbeKind::{Liveness, Readiness, Startup};
    use proptest::prelude::*;

    use super::*;

    fn id(name: &str) -> ContainerId {
        ContainerId(name.to_owned())
    }

    fn tracker(kind: ProbeKind, successes: u32, failures: u32) -> Tracker {
        let thresholds = Thresholds {
            successes,
            failures,
        };
        let mut tracker = Tracker::new(kind, thresholds);
        assert!(tracker.turn_to(&id("a"), None));
        tracker
    }

    /// `+` and `-` are results; the answer has one sign for every result: `.`
    /// for no news, the result where it became the verdict, `|` once held.
    fn told(mut tracker: Tracker, results: &str) -> String {
        results
            .chars()
            .map(|result| {
                if tracker.is_held() {
                    return '|';
                }
                match tracker.record(result == '+') {
                    None => '.',
                    Some(verdict) if verdict.passed => '+',
                    Some(_) => '-',
                }
            })
            .collect()
    }

    #[test]
    fn verdicts_come_with_thresholds() {
        for (kind, successes, failures, results, wanted) in [
            // Alive until found dead; then there is nothing to ask.
            (Liveness, 1, 3, "+--+---++", "......-||"),
            (Liveness, 1, 1, "-+", "-|"),
            // Not ready until found ready, and back and forth for ever.
            (Readiness, 1, 3, "--+--+---+", "..+.....-+"),
            (Readiness, 2, 1, "+-++-", "...+-"),
            (Readiness, 1, 1, "----", "...."),
            // Undecided until decided, either way.
            (Startup, 1, 3, "--+-", "..+|"),
            (Startup, 1, 3, "---+", "..-|"),
            (Startup, 1, 3, "+", "+"),
        ] {
            let tracker = tracker(kind, successes, failures);
            assert_eq!(told(tracker, results), wanted, "{kind:?} {results}");
        }
    }

    #[test]
    fn a_new_instance_begins_anew() {
        for kind in ProbeKind::ALL {
            let mut tracker = tracker(kind, 1, 2);
            let fresh = tracker.clone();
            tracker.record(true);
            tracker.record(false);
            assert!(!tracker.turn_to(&id("a"), None), "the same one");
            assert!(tracker.turn_to(&id("b"), None));
            assert_eq!(tracker.passes(), fresh.passes());
            assert!(!tracker.is_held());
            assert_eq!(tracker.record(false), None, "the streak is gone, too");
            let verdict = tracker.record(false);
            assert_eq!(verdict.is_some(), kind != Readiness);
            assert!(verdict.is_none_or(|verdict| verdict.instance == id("b")));
        }
    }

    #[test]
    fn what_is_known_needs_its_threshold_to_be_overturned() {
        let known = |kind, passed| {
            let mut tracker = tracker(kind, 1, 3);
            tracker.turn_to(&id("old"), Some(passed));
            tracker
        };
        assert_eq!(told(known(Readiness, true), "+---+"), "...-+");
        assert_eq!(told(known(Startup, true), "-"), "|");
        assert_eq!(told(known(Liveness, true), "---"), "..-");
    }

    #[test]
    fn thresholds_are_at_least_one() {
        let probe = |successes, failures| Probe {
            success_threshold: successes,
            failure_threshold: failures,
            ..Probe::default()
        };
        for (probe, successes, failures) in [
            (probe(None, None), 1, 3),
            (probe(Some(0), Some(-1)), 1, 3),
            (probe(Some(2), Some(5)), 2, 5),
        ] {
            let wanted = Thresholds {
                successes,
                failures,
            };
            assert_eq!(Thresholds::of(&probe), wanted);
        }
    }

    proptest! {
        #[test]
        fn a_verdict_is_backed_by_results_in_a_row(
            kind in prop::sample::select(ProbeKind::ALL.to_vec()),
            successes in 1_u32..4,
            failures in 1_u32..4,
            results in prop::collection::vec(any::<bool>(), 0..60),
        ) {
            let mut tracker = tracker(kind, successes, failures);
            let mut holds = tracker.passes();
            for (index, passed) in results.iter().enumerate() {
                let was_held = tracker.is_held();
                let news = tracker.record(*passed);
                if let Some(news) = news {
                    prop_assert!(!was_held);
                    prop_assert_ne!(holds, Some(news.passed), "no news");
                    holds = Some(news.passed);
                    let enough = if news.passed { successes } else { failures } as usize;
                    prop_assert!(index + 1 >= enough);
                    prop_assert!(results[index + 1 - enough..=index].iter().all(|r| *r == news.passed));
                }
                prop_assert_eq!(tracker.passes(), holds);
                prop_assert!(!was_held || tracker.is_held(), "held for good");
            }
        }
    }
}
