//! Which resources of the node are short: readings against hard eviction
//! thresholds. Pure.
//!
//! Upstream's eviction manager decides this from its own measurements and also
//! looks at the image filesystem and at soft thresholds. Until there is one
//! here, memory is what the kernel calls available, and the disk is the root
//! directory's.

use std::time::{Duration, Instant};

use super::facts::{MachineFacts, Readings};
use super::settings::{HardEviction, Threshold};

/// What the pressure conditions say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pressure {
    pub memory: bool,
    pub disk: bool,
    pub pid: bool,
}

/// Compares one set of readings with the thresholds.
#[must_use]
pub fn assess(readings: &Readings, facts: &MachineFacts, eviction: &HardEviction) -> Pressure {
    let short = |threshold: Option<Threshold>, capacity: u64, available: u64| {
        let capacity = i64::try_from(capacity).unwrap_or(i64::MAX);
        let available = i64::try_from(available).unwrap_or(i64::MAX);
        threshold.is_some_and(|threshold| available < threshold.of(capacity))
    };
    let disk = facts.filesystem;
    // Some filesystems do not count inodes and say 0 of 0.
    let inodes_short = disk.inodes > 0
        && short(
            eviction.nodefs_inodes_free,
            disk.inodes,
            readings.nodefs_inodes_free,
        );
    Pressure {
        memory: short(
            eviction.memory_available,
            facts.memory,
            readings.memory_available,
        ),
        disk: inodes_short
            || short(
                eviction.nodefs_available,
                disk.bytes,
                readings.nodefs_available,
            ),
        pid: short(
            eviction.pid_available,
            facts.max_pids,
            readings.pids_available,
        ),
    }
}

/// Keeps a pressure up for a while after it was last seen, so that conditions
/// and taints do not flap around a threshold.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hysteresis {
    memory: Option<Instant>,
    disk: Option<Instant>,
    pid: Option<Instant>,
}

impl Hysteresis {
    /// Takes in what was seen at `now` and returns what to tell.
    pub fn observe(&mut self, seen: Pressure, now: Instant, keep: Duration) -> Pressure {
        let settle = |last: &mut Option<Instant>, seen: bool| {
            if seen {
                *last = Some(now);
            }
            last.is_some_and(|last| seen || now.duration_since(last) < keep)
        };
        Pressure {
            memory: settle(&mut self.memory, seen.memory),
            disk: settle(&mut self.disk, seen.disk),
            pid: settle(&mut self.pid, seen.pid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plenty() -> Readings {
        Readings {
            memory_available: 1 << 30,
            nodefs_available: 50_000_000 * 1024,
            nodefs_inodes_free: 500_000,
            pids_available: 30_000,
        }
    }

    #[test]
    fn thresholds() {
        let facts = MachineFacts::for_test();
        let eviction = HardEviction {
            pid_available: Some(Threshold::Percent(10.0)),
            ..HardEviction::default()
        };
        let none = Pressure::default();
        for (readings, expected) in [
            (plenty(), none),
            (
                Readings {
                    memory_available: (100 << 20) - 1,
                    ..plenty()
                },
                Pressure {
                    memory: true,
                    ..none
                },
            ),
            (
                Readings {
                    nodefs_available: 9_000_000 * 1024,
                    ..plenty()
                },
                Pressure { disk: true, ..none },
            ),
            (
                Readings {
                    nodefs_inodes_free: 49_999,
                    ..plenty()
                },
                Pressure { disk: true, ..none },
            ),
            (
                Readings {
                    pids_available: 3000,
                    ..plenty()
                },
                Pressure { pid: true, ..none },
            ),
        ] {
            assert_eq!(assess(&readings, &facts, &eviction), expected);
        }
    }

    #[test]
    fn pressure_stays_for_the_transition_period() {
        let keep = Duration::from_secs(300);
        let start = Instant::now();
        let mut hysteresis = Hysteresis::default();
        let none = Pressure::default();
        let disk = Pressure { disk: true, ..none };
        for (after, seen, told) in [
            (0, none, none),
            (10, disk, disk),
            (20, none, disk),
            (309, none, disk),
            (310, none, none),
        ] {
            let now = start + Duration::from_secs(after);
            assert_eq!(hysteresis.observe(seen, now, keep), told, "{after}");
        }
    }
}
