//! `/exec`, `/attach`, `/portForward`, `/run` and `/checkpoint`: commands in
//! containers, and byte streams to them.
//!
//! In: requests whose caller has been found to have the right; the pods of this
//! node; the runtime's [`Streaming`] port. Out: bytes relayed between a caller's
//! upgraded connection and the runtime's streaming server, which nobody here
//! looks into: SPDY or WebSocket, as the caller and the runtime agree.
//!
//! | file | what |
//! |---|---|
//! | `request` | what a query and its headers ask for; pure |
//! | `target` | which container or sandbox that is; pure |
//! | `refusal` | why not, in HTTP's terms |
//! | `handlers` | one function a path |
//! | `relay` | both upgrades, then one task a session |
//! | `pump` | bytes both ways, until both ways are done |

mod handlers;
mod metrics;
mod pump;
mod refusal;
mod relay;
mod request;
mod target;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio_util::sync::CancellationToken;

pub use metrics::Metrics;

use super::PodDirectory;
use crate::runtime::Streaming;

/// What the handlers work with.
pub struct StreamDeps {
    pub pods: PodDirectory,
    pub runtime: Arc<dyn Streaming>,
    /// Where checkpoints are written.
    pub checkpoints: PathBuf,
    pub limits: StreamLimits,
    pub metrics: Metrics,
    /// Ends all sessions.
    pub shutdown: CancellationToken,
}

/// Bounds on number and time.
#[derive(Debug, Clone, Copy)]
pub struct StreamLimits {
    /// Sessions of exec, attach and port-forward at a time. Each has a task,
    /// two sockets and two small buffers.
    pub sessions: usize,
    /// Requests of `/run` and `/checkpoint` at a time. The output of a command
    /// is held in memory, up to 32 MiB.
    pub commands: usize,
    /// For the runtime's streaming server to accept a connection.
    pub connect: Duration,
    /// For each side to switch protocols, once it is asked to.
    pub upgrade: Duration,
    /// For one direction of a session to be still after the other has ended.
    pub linger: Duration,
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self {
            sessions: 1024,
            commands: 16,
            connect: Duration::from_secs(5),
            upgrade: Duration::from_secs(30),
            linger: Duration::from_secs(10),
        }
    }
}

/// The paths named above, for a server that can hand over its connections
/// (HTTP/1.1, served with upgrades).
pub fn routes(deps: StreamDeps) -> Router {
    handlers::routes(deps)
}
