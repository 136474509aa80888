//! Turns at starting pods, so that many at once do not all wait for the last.
//!
//! A sandbox costs a tenth of a second of CPU. Ninety that are made side by
//! side on two cores are all ready after nine seconds; made a few at a time
//! the first is ready at once, the middle one after half of that, and the last
//! no later. In: the work. Out: its result.
//!
//! A turn is about CPU, so work that waits for something else must not hold it:
//! it ends after [`LONGEST`] even if the work goes on. A network plugin or a
//! runtime that hangs delays others by no more than that.

use std::num::NonZero;
use std::pin::pin;
use std::time::Duration;

use tokio::sync::Semaphore;

/// Longer than a sandbox takes when every turn is taken.
const LONGEST: Duration = Duration::from_millis(500);

/// Starting a pod is half computing and half waiting.
const TURNS_PER_CPU: usize = 2;
const LEAST_TURNS: usize = 4;

#[derive(Debug)]
pub struct StartTurns(Turns);

impl StartTurns {
    /// As many turns as this machine's CPUs can make use of.
    #[must_use]
    pub fn of_this_machine() -> Self {
        Self::of(std::thread::available_parallelism().map_or(1, NonZero::get))
    }

    fn of(cpus: usize) -> Self {
        let count = cpus.saturating_mul(TURNS_PER_CPU).max(LEAST_TURNS);
        Self(Turns::new(count, LONGEST))
    }

    /// Does the work when its turn has come; first come, first served.
    pub(super) async fn take<W: Future>(&self, work: W) -> W::Output {
        self.0.take(work).await
    }
}

/// A number of turns at something that costs CPU at its beginning.
#[derive(Debug)]
pub(super) struct Turns {
    free: Semaphore,
    longest: Duration,
}

impl Turns {
    /// `count` at a time, each for at most `longest`.
    pub(super) fn new(count: usize, longest: Duration) -> Self {
        Self {
            free: Semaphore::new(count),
            longest,
        }
    }

    /// Does the work when its turn has come; first come, first served.
    pub(super) async fn take<W: Future>(&self, work: W) -> W::Output {
        // It fails if closed only, and nobody closes it.
        let turn = self.free.acquire().await.ok();
        let mut work = pin!(work);
        match tokio::time::timeout(self.longest, &mut work).await {
            Ok(done) => done,
            Err(_) => {
                drop(turn);
                work.await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;
    use tokio::time::Instant;

    use super::*;

    /// Each piece takes `long`; when each was done, and how many ever ran at
    /// once.
    async fn run(pieces: usize, long: Duration) -> (Vec<Duration>, usize) {
        let turns = StartTurns::of(1);
        let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let begun = Instant::now();
        let work = async || {
            most.fetch_max(
                running.fetch_add(1, Ordering::Relaxed) + 1,
                Ordering::Relaxed,
            );
            tokio::time::sleep(long).await;
            running.fetch_sub(1, Ordering::Relaxed);
        };
        let piece = async || {
            turns.take(work()).await;
            begun.elapsed()
        };
        let done = join_all((0..pieces).map(|_| piece())).await;
        (done, most.into_inner())
    }

    #[tokio::test(start_paused = true)]
    async fn short_work_runs_a_few_at_a_time_in_order() {
        let (done, most) = run(10, Duration::from_millis(100)).await;
        assert_eq!(most, LEAST_TURNS);
        assert!(done.is_sorted(), "{done:?}");
        let tenths: Vec<_> = done.iter().map(|at| at.as_millis() / 100).collect();
        assert_eq!(tenths, [1, 1, 1, 1, 2, 2, 2, 2, 3, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_hangs_delays_the_next_by_one_turn_only() {
        let (done, most) = run(8, Duration::from_secs(60)).await;
        assert_eq!(most, 8);
        let last = done.last().map(Duration::as_millis);
        assert!(
            last.is_some_and(|at| (60_500..60_600).contains(&at)),
            "{done:?}"
        );
    }
}
