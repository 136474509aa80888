//! What the agent serves: health and metrics over HTTP on the loopback, and
//! explanations over a root-only unix socket.
//!
//! In: read handles only. Nothing here can change anything.

pub mod api;
pub mod explain;
mod health;

pub use health::{HealthCheck, HealthServer};
