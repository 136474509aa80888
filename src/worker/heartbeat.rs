//! Whether the manager's loop still turns: written by the loop, read by the
//! health check.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// Clonable; all clones tell of one loop.
#[derive(Debug, Clone)]
pub struct Heartbeat {
    last: watch::Sender<Instant>,
}

impl Default for Heartbeat {
    /// Has beaten just now.
    fn default() -> Self {
        Self {
            last: watch::Sender::new(Instant::now()),
        }
    }
}

impl Heartbeat {
    /// The loop has come round.
    pub fn beat(&self) {
        self.last.send_replace(Instant::now());
    }

    /// Time since the last beat.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.last.borrow().elapsed()
    }
}
