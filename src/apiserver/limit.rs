//! How often something may happen: a token bucket without a clock, and the
//! client-side limit of API calls built on it.
//!
//! The bucket is ours, not a crate's, because the event correlator needs it
//! with time as an argument and the rate-limiting crates bring their clocks.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A sustained rate and what may exceed it at once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Tokens that come back per second; greater than zero.
    pub per_second: f64,
    /// Tokens that a rested bucket holds; at least one.
    pub burst: u32,
}

impl Rate {
    /// The rate of a `kubeAPIQPS`/`kubeAPIBurst` pair. `None`: no limit, which
    /// is what a QPS of zero or less asks for.
    #[must_use]
    pub fn of_qps(qps: i32, burst: i32) -> Option<Self> {
        (qps > 0).then(|| Self {
            per_second: f64::from(qps),
            burst: u32::try_from(burst).unwrap_or(0).max(1),
        })
    }
}

/// A token bucket. All times are measured from one start of the caller's
/// choice; a clock that steps back just brings no tokens.
#[derive(Debug, Clone)]
pub(super) struct TokenBucket {
    rate: Rate,
    tokens: f64,
    refilled: Duration,
}

impl TokenBucket {
    pub(super) fn full(rate: Rate, now: Duration) -> Self {
        Self {
            rate,
            tokens: f64::from(rate.burst),
            refilled: now,
        }
    }

    /// Takes a token if there is one.
    pub(super) fn try_take(&mut self, now: Duration) -> bool {
        self.refill(now);
        let taken = self.tokens >= 1.0;
        if taken {
            self.tokens -= 1.0;
        }
        taken
    }

    /// Takes a token, on credit if need be, and answers how long the caller
    /// has to wait for it. Callers are thereby served in order.
    pub(super) fn reserve(&mut self, now: Duration) -> Duration {
        self.refill(now);
        self.tokens -= 1.0;
        Duration::try_from_secs_f64(-self.tokens / self.rate.per_second).unwrap_or_default()
    }

    fn refill(&mut self, now: Duration) {
        let elapsed = now.saturating_sub(self.refilled);
        self.refilled = now;
        self.tokens = (self.tokens + elapsed.as_secs_f64() * self.rate.per_second)
            .min(f64::from(self.rate.burst));
    }
}

/// Lets calls pass at a [`Rate`], in order of arrival.
#[derive(Debug)]
pub(super) struct Limiter {
    start: Instant,
    bucket: Mutex<TokenBucket>,
}

impl Limiter {
    pub(super) fn new(rate: Rate) -> Self {
        Self {
            start: Instant::now(),
            bucket: Mutex::new(TokenBucket::full(rate, Duration::ZERO)),
        }
    }

    /// Returns when the caller may make its call.
    pub(super) async fn ready(&self) {
        let wait = self
            .bucket
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .reserve(self.start.elapsed());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        per_second: 2.0,
        burst: 3,
    };

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_full_bucket_gives_its_burst_and_then_its_rate() {
        let mut bucket = TokenBucket::full(RATE, at(0));
        let taken: Vec<bool> = [0, 0, 0, 0, 499, 500, 501, 1000]
            .map(|ms| bucket.try_take(at(ms)))
            .to_vec();
        assert_eq!(taken, [true, true, true, false, false, true, false, true]);
    }

    #[test]
    fn a_bucket_never_holds_more_than_its_burst() {
        let mut bucket = TokenBucket::full(RATE, at(0));
        let taken = (0..10).filter(|_| bucket.try_take(at(1_000_000))).count();
        assert_eq!(taken, 3);
    }

    #[test]
    fn a_clock_that_steps_back_neither_gives_nor_breaks() {
        let mut bucket = TokenBucket::full(RATE, at(10_000));
        for _ in 0..3 {
            assert!(bucket.try_take(at(10_000)));
        }
        assert!(!bucket.try_take(at(0)));
        assert!(bucket.try_take(at(500)));
    }

    #[test]
    fn no_qps_is_no_limit() {
        assert_eq!(Rate::of_qps(0, 10), None);
        assert_eq!(Rate::of_qps(-1, 10), None);
        assert_eq!(Rate::of_qps(5, 0).map(|rate| rate.burst), Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn the_limiter_spaces_calls_beyond_the_burst() {
        let limiter = Limiter::new(RATE);
        let start = Instant::now();
        for _ in 0..5 {
            limiter.ready().await;
        }
        assert_eq!(start.elapsed().as_millis(), 1000);
    }
}
