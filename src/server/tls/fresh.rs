//! Values read from files, read again when those change.
//!
//! There is no watcher: whoever uses the value looks at the files' metadata
//! first, at most once a second. So a change counts within that time, and files
//! that nobody uses cost nothing.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::TlsError;
use crate::error::chain;

/// How long a look at the files counts.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How a value is made of files.
type Read<T> = Box<dyn Fn() -> Result<T, TlsError> + Send + Sync>;

/// The newest good value of some files.
pub struct Fresh<T> {
    files: Vec<PathBuf>,
    read: Read<T>,
    state: Mutex<State<T>>,
}

struct State<T> {
    value: Arc<T>,
    /// Of the files when they were read last, well or badly.
    stamp: Vec<Option<Stamp>>,
    looked: Instant,
}

/// What changes when a file is written or replaced: device, inode, size, and
/// change time in seconds and nanoseconds.
type Stamp = (u64, u64, u64, i64, i64);

impl<T> Fresh<T> {
    /// Reads for the first time.
    ///
    /// # Errors
    /// If `read` fails.
    pub(super) fn new(
        files: Vec<PathBuf>,
        read: impl Fn() -> Result<T, TlsError> + Send + Sync + 'static,
    ) -> Result<Self, TlsError> {
        // Before the reading, so that a change in between is seen as one.
        let stamp = stamp_of(&files);
        let value = Arc::new(read()?);
        Ok(Self {
            files,
            read: Box::new(read),
            state: Mutex::new(State {
                value,
                stamp,
                looked: Instant::now(),
            }),
        })
    }

    /// The value as of a second ago at most. If the files became unusable, it
    /// is the last good one, with one warning for each change.
    pub(super) fn get(&self) -> Arc<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.elapsed() >= LOOK_EVERY {
            self.look(&mut state);
        }
        Arc::clone(&state.value)
    }

    fn look(&self, state: &mut State<T>) {
        state.looked = Instant::now();
        let stamp = stamp_of(&self.files);
        if stamp == state.stamp {
            return;
        }
        state.stamp = stamp;
        match (self.read)() {
            Ok(value) => {
                info!(files = ?self.files, "read changed files");
                state.value = Arc::new(value);
            }
            Err(error) => warn!(
                error = %chain(&error),
                "cannot use changed files, going on with what was read before"
            ),
        }
    }
}

impl<T> std::fmt::Debug for Fresh<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fresh")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

fn stamp_of(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    files.iter().map(|file| one_stamp(file)).collect()
}

fn one_stamp(file: &Path) -> Option<Stamp> {
    let data = std::fs::metadata(file).ok()?;
    Some((
        data.dev(),
        data.ino(),
        data.size(),
        data.ctime(),
        data.ctime_nsec(),
    ))
}
