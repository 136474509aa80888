//! `/healthz` and the agent's own metrics, for both listeners: plain HTTP on
//! `healthzBindAddress:healthzPort`, and the node's API.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::registry::Registry;

use super::exposition;

/// One named check behind `/healthz`.
pub struct HealthCheck {
    pub name: &'static str,
    /// `Err`: what is wrong, for people.
    pub check: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
}

/// The checks and the metrics of this agent.
pub struct Health {
    pub checks: Vec<HealthCheck>,
    pub registry: Registry,
}

impl Health {
    /// `/healthz`, `/healthz/{check}` and `/metrics`.
    pub fn routes(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/healthz", get(healthz))
            .route("/healthz/{check}", get(one_check))
            .route("/metrics", get(metrics))
            .with_state(Arc::clone(self))
    }
}

async fn healthz(State(health): State<Arc<Health>>, RawQuery(query): RawQuery) -> Response {
    let verbose = query
        .as_deref()
        .is_some_and(|query| query.split('&').any(|part| part.starts_with("verbose")));
    let mut report = String::new();
    let mut sound = true;
    for check in &health.checks {
        let line = match (check.check)() {
            Ok(()) => format!("[+]{} ok", check.name),
            Err(why) => {
                sound = false;
                format!("[-]{} failed: {why}", check.name)
            }
        };
        // Writing to a string cannot fail.
        let _ = writeln!(report, "{line}");
    }
    match (sound, verbose) {
        (true, false) => "ok".into_response(),
        (true, true) => format!("{report}healthz check passed\n").into_response(),
        (false, _) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("{report}healthz check failed\n"),
        )
            .into_response(),
    }
}

async fn one_check(State(health): State<Arc<Health>>, Path(name): Path<String>) -> Response {
    match health.checks.iter().find(|check| check.name == name) {
        None => StatusCode::NOT_FOUND.into_response(),
        Some(check) => match (check.check)() {
            Ok(()) => "ok".into_response(),
            Err(why) => (
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("internal server error: {why}\n"),
            )
                .into_response(),
        },
    }
}

async fn metrics(State(health): State<Arc<Health>>, headers: HeaderMap) -> Response {
    exposition::answer(&health.registry, &headers)
}
