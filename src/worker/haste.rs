//! How long a step may still wait, told to it while it is under way.
//!
//! Hooks and graceful stops take as long as a pod's author allows; then the pod
//! is deleted, or its grace shortened, or the agent shuts down. The worker's
//! side says so ([`Hurry`]); the step's side ([`Pace`]) gives up its hook or
//! shortens its stop, and no call to the runtime is left half done.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

#[cfg(test)]
mod tests;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Haste {
    None,
    /// The agent shuts down; the pod stays.
    Leaving,
    /// The pod ends: its containers are to be stopped by then.
    Ending {
        by: Instant,
    },
}

/// The side of whoever started the step.
#[derive(Debug)]
pub(super) struct Hurry(watch::Sender<Haste>);

/// The side of the step.
#[derive(Debug, Clone)]
pub(super) struct Pace(watch::Receiver<Haste>);

impl Hurry {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(Haste::None))
    }

    pub(super) fn pace(&self) -> Pace {
        Pace(self.0.subscribe())
    }

    /// The agent shuts down.
    pub(super) fn leave(&self) {
        self.0.send_if_modified(|haste| {
            let first = *haste == Haste::None;
            if first {
                *haste = Haste::Leaving;
            }
            first
        });
    }

    /// The pod ends, and its containers have `grace` from now. It only ever
    /// shrinks.
    pub(super) fn end_within(&self, grace: Duration) {
        // Centuries of grace are no haste.
        let Some(by) = Instant::now().checked_add(grace) else {
            return;
        };
        self.0.send_if_modified(|haste| {
            let is_sooner = !matches!(haste, Haste::Ending { by: before } if *before <= by);
            if is_sooner {
                *haste = Haste::Ending { by };
            }
            is_sooner
        });
    }
}

impl Pace {
    /// Of a step that nobody will ever hurry.
    pub(super) fn leisurely() -> Self {
        Hurry::new().pace()
    }

    /// Completes when the step is not to wait for hooks any more.
    pub(super) async fn hurried(&self) {
        let mut haste = self.0.clone();
        if haste.wait_for(|haste| *haste != Haste::None).await.is_err() {
            std::future::pending().await
        }
    }

    /// Starts the clock of a graceful stop.
    pub(super) fn clock(&self, grace: Duration) -> GraceClock {
        let mut clock = GraceClock {
            begun: Instant::now(),
            grace,
            haste: self.0.clone(),
        };
        clock.follow();
        clock
    }
}

/// What is left of a container's grace.
#[derive(Debug)]
pub(super) struct GraceClock {
    begun: Instant,
    grace: Duration,
    haste: watch::Receiver<Haste>,
}

impl GraceClock {
    /// In whole seconds, as runtimes count: only full seconds that have passed
    /// are taken off.
    pub(super) fn left(&self) -> Duration {
        let left = self.exactly_left();
        let begun_second = u64::from(left.subsec_nanos() > 0);
        Duration::from_secs(left.as_secs().saturating_add(begun_second))
    }

    /// Completes when nothing is left.
    pub(super) async fn run_out(&mut self) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.exactly_left()) => return,
                () = self.shortened() => {}
            }
        }
    }

    /// Completes when less is left than a moment ago and time has not just
    /// passed.
    pub(super) async fn shortened(&mut self) {
        while self.haste.changed().await.is_ok() {
            if self.follow() {
                return;
            }
        }
        std::future::pending().await
    }

    fn exactly_left(&self) -> Duration {
        self.grace.saturating_sub(self.begun.elapsed())
    }

    /// Takes in what was last told. True if it shortens the grace.
    fn follow(&mut self) -> bool {
        let Haste::Ending { by } = *self.haste.borrow_and_update() else {
            return false;
        };
        let grace = by.saturating_duration_since(self.begun);
        let is_shorter = grace < self.grace;
        self.grace = self.grace.min(grace);
        is_shorter
    }
}
