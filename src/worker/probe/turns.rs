//! Turns at starting a command in a container, so that the probes of a whole
//! node do not start theirs at the same moment.
//!
//! A command costs the runtime about 50 ms of CPU before it runs, and a process
//! or two. A full node (110 pods, one exec probe each, every 10 s) starts 11 a
//! second: half a core, and less than one at a time on average. [`AT_ONCE`] is
//! only reached when many fall together; even a hundred that do are started
//! within 5 s of CPU, and never more than sixteen are competing for it.

use std::time::Duration;

use crate::worker::turns::Turns;

/// Commands of probes in their first [`LONGEST`], in the whole agent.
const AT_ONCE: usize = 16;
/// A command that is still running then only waits for itself: holding on to
/// the turn would let one pod's slow probes hold up everybody's.
const LONGEST: Duration = Duration::from_secs(1);

/// For the whole agent.
pub(super) fn exec_turns() -> Turns {
    Turns::new(AT_ONCE, LONGEST)
}
