//! Rotation of container logs.
//!
//! In: which containers run, and the sizes of their logs. Out: no log is much
//! larger than the limit, and no container has more files than configured, at
//! whatever speed it writes.
//!
//! | file | what |
//! |---|---|
//! | `names` | names of rotated logs; pure |
//! | `plan` | whether to rotate, and when to look again; pure |
//! | `files` | renaming, removing and compressing; blocking |
//! | `task` | the loop |

mod files;
mod names;
mod plan;
mod task;

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

pub use names::{Form, RotatedLog, Stamp};
pub use task::LogRotationTask;
pub(super) use task::ReopenLog;

/// What rotation has to be told (`containerLog*`).
#[derive(Debug, Clone)]
pub struct LogRotationSettings {
    /// `podLogsDir`.
    pub directory: PathBuf,
    /// Bytes at which a log is rotated.
    pub max_bytes: u64,
    /// Most files of one container, the live one included; at least 2.
    pub max_files: u32,
    /// Compressions at the same time.
    pub workers: NonZeroU32,
    /// The longest time between two looks at a log.
    pub interval: Duration,
}
