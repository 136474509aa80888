//! What is served at `healthzBindAddress`, and beside health and metrics at
//! `metricsBindAddress`; paths, bodies and status codes are upstream's.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};

use super::{ProxyHealth, Report};
use crate::proxy::metrics::Metrics;

#[derive(Clone)]
struct Asked {
    health: ProxyHealth,
    metrics: Metrics,
}

/// `/healthz` and `/livez`. The first is for load balancers, which are to leave a
/// node that is about to go; the second tells of the proxy alone.
pub fn health_routes(health: ProxyHealth, metrics: Metrics) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/livez", get(livez))
        .with_state(Asked { health, metrics })
}

async fn healthz(State(asked): State<Asked>) -> Response {
    let report = asked.health.report();
    let is_sound = report.healthy && report.node_eligible != Some(false);
    let code = code_of(is_sound);
    asked.metrics.healthz(code.as_u16());
    answer(code, report)
}

async fn livez(State(asked): State<Asked>) -> Response {
    let report = Report {
        node_eligible: None,
        ..asked.health.report()
    };
    let code = code_of(report.healthy);
    asked.metrics.livez(code.as_u16());
    answer(code, report)
}

fn code_of(is_sound: bool) -> StatusCode {
    if is_sound {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

fn answer(code: StatusCode, mut report: Report) -> Response {
    if code == StatusCode::OK {
        // Rules that need no change are up to date now, whenever they were written.
        report.last_updated = report.current_time;
    }
    let no_sniffing = [(header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (code, no_sniffing, axum::Json(report)).into_response()
}

/// `/proxyMode`, which the e2e suite asks for, and `/configz` with the
/// KubeProxyConfiguration in force.
pub fn about_routes(configuration: Value) -> Router {
    let configz = json!({ "kubeproxy.config.k8s.io": configuration });
    Router::new()
        .route("/proxyMode", get(|| async { "iptables" }))
        .route("/configz", get(move || async move { axum::Json(configz) }))
}

#[cfg(test)]
mod tests;
