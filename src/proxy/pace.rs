//! When the next sync of a family may start: at once after a quiet time, at intervals
//! in a storm of changes, with growing pauses after failures.
//!
//! A sync takes in everything that has changed until it starts, so waiting a little
//! costs a change some time and saves the whole machine more. The pause follows from
//! what the last sync took: then proxying takes no more than a fifth of one CPU,
//! however many changes come, on a machine of any speed and with a table of any size.
//! Upstream's fixed second (`minSyncPeriod`) is the longest such pause.

use std::time::{Duration, Instant};

/// How long the pause is, in times of the sync before.
const PAUSE_PER_SYNC: u32 = 4;
/// The first pause after a failure; it doubles with each.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// The bounds of the pauses, from the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PaceLimits {
    /// The longest pause between syncs that succeed: `minSyncPeriod`.
    pub longest: Duration,
    /// The longest pause after failures: `syncPeriod`.
    pub longest_retry: Duration,
}

/// The memory of one family's last sync.
#[derive(Debug, Clone)]
pub struct Pace {
    limits: PaceLimits,
    ready_at: Option<Instant>,
    failures: u32,
}

impl Pace {
    #[must_use]
    pub const fn new(limits: PaceLimits) -> Self {
        Self {
            limits,
            ready_at: None,
            failures: 0,
        }
    }

    /// Before this, no sync; `None`: there was none yet, so at once.
    #[must_use]
    pub const fn ready_at(&self) -> Option<Instant> {
        self.ready_at
    }

    /// Whether the last sync failed, so that another is due without any change.
    #[must_use]
    pub const fn owes_a_retry(&self) -> bool {
        self.failures > 0
    }

    /// A sync has ended well.
    pub fn succeeded(&mut self, began: Instant, ended: Instant) {
        let took = ended.saturating_duration_since(began);
        let pause = took.saturating_mul(PAUSE_PER_SYNC).min(self.limits.longest);
        self.failures = 0;
        self.ready_at = Some(ended + pause);
    }

    /// A sync has failed.
    pub fn failed(&mut self, ended: Instant) {
        let pause = FIRST_RETRY
            .saturating_mul(2_u32.saturating_pow(self.failures))
            .min(self.limits.longest_retry);
        self.failures = self.failures.saturating_add(1);
        self.ready_at = Some(ended + pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: PaceLimits = PaceLimits {
        longest: Duration::from_secs(1),
        longest_retry: Duration::from_secs(30),
    };

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn the_first_sync_and_one_after_a_quiet_time_start_at_once() {
        let start = Instant::now();
        let mut pace = Pace::new(LIMITS);
        assert_eq!(pace.ready_at(), None);
        pace.succeeded(start, start + ms(20));
        assert_eq!(pace.ready_at(), Some(start + ms(100)));
    }

    #[test]
    fn no_pause_is_longer_than_the_configured_one() {
        let start = Instant::now();
        let mut pace = Pace::new(LIMITS);
        pace.succeeded(start, start + ms(8_000));
        assert_eq!(pace.ready_at(), Some(start + ms(9_000)));
        let never = PaceLimits {
            longest: Duration::ZERO,
            ..LIMITS
        };
        let mut pace = Pace::new(never);
        pace.succeeded(start, start + ms(50));
        assert_eq!(pace.ready_at(), Some(start + ms(50)));
    }

    #[test]
    fn pauses_after_failures_grow_and_a_success_ends_that() {
        let start = Instant::now();
        let mut pace = Pace::new(LIMITS);
        let mut pauses = Vec::new();
        for _ in 0..7 {
            pace.failed(start);
            let pause = pace.ready_at().unwrap().duration_since(start);
            pauses.push(pause.as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        assert!(pace.owes_a_retry());
        pace.succeeded(start, start);
        assert!(!pace.owes_a_retry());
        pace.failed(start);
        assert_eq!(pace.ready_at(), Some(start + ms(1_000)));
    }

    #[test]
    fn countless_failures_overflow_nothing() {
        let start = Instant::now();
        let mut pace = Pace::new(LIMITS);
        for _ in 0..100 {
            pace.failed(start);
        }
        assert_eq!(pace.ready_at(), Some(start + ms(30_000)));
    }
}
