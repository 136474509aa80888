//! Pauses between tries of a call that keeps failing: doubling, with jitter,
//! and bounded so that a returning API server is noticed within seconds.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};

use super::Disposition;

// Jitter adds up to the pause itself.
const SHORTEST: Duration = Duration::from_millis(400);
const LONGEST: Duration = Duration::from_secs(6);

/// The pauses of one series of failures.
#[derive(Debug)]
pub(crate) struct Backoff {
    pauses: ExponentialBackoff,
}

impl Backoff {
    /// From 0.4 s to at most 12 s.
    pub(crate) fn new() -> Self {
        Self::starting_at(SHORTEST)
    }

    /// From `shortest` to at most 12 s, for what others wait for.
    pub(crate) fn starting_at(shortest: Duration) -> Self {
        Self {
            pauses: ExponentialBuilder::default()
                .with_min_delay(shortest)
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

    /// The pause after one more failure; longer if the server asked for it.
    pub(crate) fn after(&mut self, failure: Disposition) -> Duration {
        let own = self.next();
        match failure {
            Disposition::Retry(Some(asked)) => own.max(asked),
            _ => own,
        }
    }
}
