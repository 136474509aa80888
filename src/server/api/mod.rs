//! The node's API on `address:port`: what kubectl, the API server, metrics-server
//! and Prometheus ask of a node.
//!
//! In: read handles of the other modules, and the runtime's streams. Out: one
//! [`axum::Router`] per theme, joined here; who may call what is decided before
//! a handler runs ([`crate::server::auth`]).
//!
//! | path | theme |
//! |---|---|
//! | `/healthz`, `/metrics` | [`crate::server::Health`] |
//! | `/pods`, `/runningpods/` | `pods`, `running` |
//! | `/configz`, `/metrics/probes` | here |
//! | `/containerLogs/` | [`container_logs`] |
//! | `/logs/` | [`node_logs`] |
//! | `/exec`, `/attach`, `/portForward`, `/run`, `/checkpoint` | [`streams`] |
//! | `/stats/summary`, `/metrics/{resource,cadvisor}` | `stats` |

mod bounds;
pub mod container_logs;
pub mod node_logs;
mod pods;
mod rooted;
mod running;
mod stats;
pub mod streams;

use std::sync::Arc;

use axum::http::{HeaderMap, StatusCode};
use axum::routing::{any, get};
use axum::{Json, Router, middleware};
use prometheus_client::registry::Registry;
use serde_json::json;

pub use bounds::Bounds;
pub use pods::{FoundPod, PodDirectory};
pub use running::running_pods;
pub use stats::{StatsDeps, routes as stats};

use super::auth::{Gate, admit};
use super::exposition;
use super::metrics::{Metrics, ServerType, count};

/// First parts of paths that exist only with `enableDebuggingHandlers`.
const DEBUGGING_PATHS: &[&str] = &[
    "/run",
    "/exec",
    "/attach",
    "/portForward",
    "/containerLogs",
    "/runningpods",
    "/debug/pprof",
    "/logs",
];

/// The routes, by what they depend on.
#[derive(Clone, Default)]
pub struct Themes {
    /// On every listener.
    pub always: Router,
    /// What reaches into pods and into the node; not on the read-only listener,
    /// and nowhere without `enableDebuggingHandlers`.
    pub debugging: Router,
}

impl Themes {
    /// The router of the HTTPS listener.
    pub fn secure(self, debugging_is_enabled: bool, gate: Arc<Gate>, metrics: &Metrics) -> Router {
        let routes = if debugging_is_enabled {
            self.always.merge(self.debugging)
        } else {
            self.always.merge(disabled())
        };
        routes
            .layer(middleware::from_fn_with_state(gate, admit))
            .layer(middleware::from_fn_with_state(
                (metrics.clone(), ServerType::ReadWrite),
                count,
            ))
    }

    /// The router of the read-only listener, which asks nobody who they are.
    pub fn read_only(self, metrics: &Metrics) -> Router {
        self.always
            .merge(disabled())
            .layer(middleware::from_fn_with_state(
                (metrics.clone(), ServerType::ReadOnly),
                count,
            ))
    }
}

/// `/metrics/probes`: the results of probes.
pub fn probe_metrics(registry: Registry) -> Router {
    let registry = Arc::new(registry);
    let answer = move |headers: HeaderMap| {
        let registry = Arc::clone(&registry);
        async move { exposition::answer(&registry, &headers) }
    };
    Router::new().route("/metrics/probes", get(answer))
}

/// `/configz`: the configuration in force, as a whole.
pub fn configz(effective: serde_json::Value) -> Router {
    let document = Arc::new(json!({ "kubeletconfig": effective }));
    let answer = move || {
        let document = Arc::clone(&document);
        async move { Json(document) }
    };
    Router::new().route("/configz", get(answer))
}

fn disabled() -> Router {
    let answer = || async {
        (
            StatusCode::METHOD_NOT_ALLOWED,
            "Debug endpoints are disabled.",
        )
    };
    DEBUGGING_PATHS.iter().fold(Router::new(), |router, path| {
        router
            .route(path, any(answer))
            .route(&format!("{path}/"), any(answer))
            .route(&format!("{path}/{{*rest}}"), any(answer))
    })
}
