//! Whether to rotate a log, and when to look at it again. Pure.
//!
//! A log is looked at when it can have reached the limit, going by how fast it
//! grew since the last look. Growth may set in at any time, so pauses also only
//! grow by a quarter from one look to the next: what has been quiet for long is
//! looked at rarely, what was just noisy, or has just begun, is not let out of
//! sight. After a silence a log is looked at after a quarter of its length.

use std::time::Duration;

use tokio::time::Instant;

#[cfg(test)]
mod tests;

/// The pause after the first look.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// However fast a log grows.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
/// A log that is rotated more often is not compressed: it could take longer
/// than the next rotation.
const CALM: Duration = Duration::from_secs(5);

/// The limits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Policy {
    pub(super) max_bytes: u64,
    /// The longest pause.
    pub(super) interval: Duration,
}

/// A look at a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) at: Instant,
    pub(super) size: u64,
    /// Until the next look.
    pub(super) pause: Duration,
}

impl Look {
    pub(super) fn next(&self) -> Instant {
        self.at + self.pause
    }

    /// The same log after its rotation.
    pub(super) fn rotated(self) -> Self {
        Self { size: 0, ..self }
    }
}

/// What a look at a log comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Rotate,
    Leave,
}

impl Policy {
    /// Judges a log that has `size` bytes at `now`.
    pub(super) fn judge(&self, before: Option<&Look>, size: u64, now: Instant) -> (Verdict, Look) {
        let verdict = if size > 0 && size >= self.max_bytes {
            Verdict::Rotate
        } else {
            Verdict::Leave
        };
        let left = match verdict {
            Verdict::Rotate => self.max_bytes,
            Verdict::Leave => self.max_bytes - size,
        };
        let longest = before.map_or(FIRST_PAUSE, |before| before.pause * 5 / 4);
        let filled = before.and_then(|before| time_to_grow(before, size, now, left));
        let pause = filled
            .unwrap_or(Duration::MAX)
            .min(longest)
            .clamp(SHORTEST_PAUSE, self.interval);
        let look = Look {
            at: now,
            size,
            pause,
        };
        (verdict, look)
    }
}

/// How long the log takes to grow by `left` bytes; `None` if it did not grow.
fn time_to_grow(before: &Look, size: u64, now: Instant, left: u64) -> Option<Duration> {
    let grown = size.checked_sub(before.size).filter(|grown| *grown > 0)?;
    let took = now.saturating_duration_since(before.at);
    let nanos = took.as_nanos() * u128::from(left) / u128::from(grown);
    Some(Duration::from_nanos(
        u64::try_from(nanos).unwrap_or(u64::MAX),
    ))
}

/// Whether there is time to compress what was rotated, if the log was rotated
/// `apart` before this time.
pub(super) fn may_compress(apart: Option<Duration>) -> bool {
    apart.is_none_or(|apart| apart >= CALM)
}
