//! Pauses between tries of a call that keeps failing: 0.4 s, doubling, with
//! jitter, never above 12 s, so that a returning API server is noticed
//! within seconds.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};

// Jitter adds up to the pause itself.
const SHORTEST: Duration = Duration::from_millis(400);
const LONGEST: Duration = Duration::from_secs(6);

/// The pauses of one series of failures.
#[derive(Debug)]
pub(crate) struct Backoff {
    pauses: ExponentialBackoff,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self {
            pauses: ExponentialBuilder::default()
                .with_min_delay(SHORTEST)
                .with_max_delay(LONGEST)
                .with_jitter()
                .without_max_times()
                .build(),
        }
    }

    /// The pause after one more failure.
    pub(crate) fn next(&mut self) -> Duration {
        // The series has no end; the fallback states what it converges to.
        self.pauses.next().unwrap_or(LONGEST)
    }
}
