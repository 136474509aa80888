//! CPU rates from two readings of a counter. Pure.
//!
//! A rate needs a reading that is old enough for the difference to mean
//! something and young enough to be about now. Nothing is read in the background
//! to have one: the first call about a cgroup gives no rate, the next one does.
//! (Two readings in one call, a tenth of a second apart, would tell more of the
//! scheduler's period than of the container.)

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// The least age of a reading that a rate is computed from.
const YOUNGEST: Duration = Duration::from_secs(1);
/// The greatest.
const OLDEST: Duration = Duration::from_secs(120);

/// The last readings of all cgroups.
#[derive(Debug, Default)]
pub(super) struct Rates {
    known: HashMap<Arc<str>, Known>,
    round: u64,
}

#[derive(Debug)]
struct Known {
    /// Of a clock that does not jump.
    at: Duration,
    total: Duration,
    rate: Option<u64>,
    round: u64,
}

impl Rates {
    /// Takes a reading of the cgroup's CPU time, made at `now` on a clock that
    /// does not jump, and gives billionths of a CPU.
    pub(super) fn observe(
        &mut self,
        cgroup: &Arc<str>,
        now: Duration,
        total: Duration,
    ) -> Option<u64> {
        let round = self.round;
        let Some(known) = self.known.get_mut(cgroup) else {
            let known = Known {
                at: now,
                total,
                rate: None,
                round,
            };
            self.known.insert(Arc::clone(cgroup), known);
            return None;
        };
        known.round = round;
        let age = now.saturating_sub(known.at);
        if age < YOUNGEST && total >= known.total {
            return known.rate;
        }
        known.rate = total
            .checked_sub(known.total)
            .filter(|_| (YOUNGEST..=OLDEST).contains(&age))
            .and_then(|used| nano_cores(used, age));
        (known.at, known.total) = (now, total);
        known.rate
    }

    /// Ends a round: forgets cgroups that it had no reading of.
    pub(super) fn forget_unseen(&mut self) {
        let round = self.round;
        self.known.retain(|_, known| known.round == round);
        self.round += 1;
    }
}

fn nano_cores(used: Duration, within: Duration) -> Option<u64> {
    let nano_cores = used.as_nanos() * 1_000_000_000 / within.as_nanos().max(1);
    u64::try_from(nano_cores).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// `(time, CPU time) → rate`, one call after the other.
    fn rates(calls: &[(u64, u64)]) -> Vec<Option<u64>> {
        let mut rates = Rates::default();
        let path = Arc::from("/a");
        let calls = calls.iter();
        calls
            .map(|(now, total)| rates.observe(&path, ms(*now), ms(*total)))
            .collect()
    }

    #[test]
    fn a_rate_takes_two_readings() {
        assert_eq!(rates(&[(0, 500), (2000, 1500)]), [None, Some(500_000_000)]);
        assert_eq!(rates(&[(0, 0), (1000, 0)]), [None, Some(0)]);
    }

    #[test]
    fn readings_close_together_share_a_rate() {
        assert_eq!(
            rates(&[(0, 0), (600, 600), (1200, 600), (1300, 700), (2200, 1600)]),
            [
                None,
                None,
                Some(500_000_000),
                Some(500_000_000),
                Some(1_000_000_000)
            ]
        );
    }

    #[test]
    fn an_old_reading_tells_nothing_about_now() {
        assert_eq!(
            rates(&[(0, 0), (120_001, 1000), (122_001, 2000)]),
            [None, None, Some(500_000_000)]
        );
        assert_eq!(rates(&[(0, 0), (120_000, 120_000)])[1], Some(1_000_000_000));
    }

    #[test]
    fn a_counter_that_went_back_is_another_cgroups() {
        assert_eq!(
            rates(&[(0, 5000), (500, 100), (2500, 1100)]),
            [None, None, Some(500_000_000)]
        );
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let mut rates = Rates::default();
        let (stays, goes) = (Arc::from("/stays"), Arc::from("/goes"));
        rates.observe(&stays, ms(0), ms(0));
        rates.observe(&goes, ms(0), ms(0));
        rates.forget_unseen();
        assert_eq!(rates.known.len(), 2);
        rates.observe(&stays, ms(1000), ms(0));
        rates.forget_unseen();
        assert_eq!(rates.known.len(), 1);
    }
}
