//! The node's API on `address:port`: what kubectl, the API server, metrics-server
//! and Prometheus ask of a node.
//!
//! In: read handles of the other modules, and the runtime's streams. Out: one
//! [`axum::Router`] per theme; who may call what is decided before a handler
//! runs.

mod pods;

pub use pods::{FoundPod, PodDirectory};
