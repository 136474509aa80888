//! The service proxy: what a Service means on this node, as iptables rules.
//!
//! In: Services, EndpointSlices and this node's labels and addresses, from the API
//! server or from the manifest folder. Out: rules in the kernel, and reports of how
//! that went. It is kube-proxy's iptables mode, with the same chains and the same
//! rules in them, inside the agent's process.
//!
//! ```text
//!  apiserver ──Service, EndpointSlice──► index ──► select ──► rules ──► render
//!  source (manifest folder) ───────────►   │   pure from here to the text   │
//!                                          ▼                                ▼
//!                                       stale ──► conntrack              apply ──► iptables-restore
//!                                                                           ▲
//!                                              others' changes ── watch ────┘
//! ```

mod address;
pub mod apply;
pub mod conntrack;
pub mod health;
pub mod inbox;
pub mod index;
pub mod limits;
pub mod local;
pub mod metrics;
pub mod model;
pub mod pace;
pub mod presence;
pub mod problem;
pub mod render;
pub mod rules;
#[cfg(any(test, feature = "testing"))]
pub mod scenarios;
pub mod select;
pub mod service;
pub mod settings;
pub mod slice;
pub mod stale;
pub mod standalone;
pub mod task;
#[cfg(test)]
mod trace;
