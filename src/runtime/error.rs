//! What can go wrong between us and the runtime.

use std::time::Duration;

use crate::pod::WaitingReason;

/// A failed CRI call.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The runtime answered with an error; the text is its own.
    #[error("{call}: {message}")]
    Refused { call: &'static str, message: String },
    /// The object of the call is not there (any more).
    #[error("{call}: not found: {message}")]
    NotFound { call: &'static str, message: String },
    /// No answer within the call's deadline.
    #[error("{call}: no answer from the runtime within {limit:?}")]
    Timeout { call: &'static str, limit: Duration },
    /// The socket cannot be reached, or the connection broke.
    #[error("{call}: the runtime cannot be reached: {message}")]
    Unreachable { call: &'static str, message: String },
    /// The answer lacks something CRI demands.
    #[error("{call}: invalid answer: {message}")]
    Invalid { call: &'static str, message: String },
    /// A directory or link for container logs could not be made.
    #[error("cannot prepare the log directory {path}")]
    LogDirectory {
        path: std::path::PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// Why a command that was to be run to its end has no exit code.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// It ran for longer than it was allowed, and was killed.
    #[error("the command did not end within {limit:?}")]
    TimedOut { limit: Duration },
    /// It could not be started, or the runtime lost track of it. Says nothing
    /// about the container's health.
    #[error("cannot run the command")]
    Runtime(#[source] RuntimeError),
}

/// Why an image cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ImageError {
    /// The API's word for it: `ErrImagePull`, `ErrImageNeverPull`,
    /// `InvalidImageName`, ….
    pub reason: WaitingReason,
    pub message: String,
}
