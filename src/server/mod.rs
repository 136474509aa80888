//! What the agent serves: the node's API over HTTPS, health and metrics over
//! HTTP on the loopback, and explanations over a root-only unix socket.
//!
//! In: read handles, the runtime's streams, and the API server's word on who may
//! call. Nothing here changes a pod.
//!
//! | file | what |
//! |---|---|
//! | `api` | the routes of the node's API |
//! | `auth` | who calls, and whether they may |
//! | `tls` | certificates, and whose client certificates count |
//! | `https` | the listener with TLS; the others are `crate::listen`'s |
//! | `health`, `metrics`, `exposition` | checks, counts of requests, metrics as text |
//! | `explain` | `kubelet explain` |

pub mod api;
pub mod auth;
pub mod explain;
mod exposition;
mod health;
pub mod https;
mod metrics;
pub mod tls;

pub use health::{Health, HealthCheck};
pub use metrics::Metrics;
