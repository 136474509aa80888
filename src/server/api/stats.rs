//! `/stats/summary`, `/metrics/resource` and `/metrics/cadvisor`.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use tracing::warn;

use crate::error::chain;
use crate::stats::{self, Collector, Detail, Extent, Snapshot, StatsError};

/// What these routes need.
#[derive(Clone)]
pub struct StatsDeps {
    pub collector: Collector,
}

/// The routes, without authentication.
pub fn routes(deps: StatsDeps) -> Router {
    Router::new()
        .route("/stats/summary", get(summary).post(summary))
        .route("/metrics/resource", get(resource))
        .route("/metrics/cadvisor", get(cadvisor))
        .with_state(deps)
}

#[derive(Debug, Default, Deserialize)]
struct SummaryQuery {
    #[serde(default)]
    only_cpu_and_memory: String,
}

async fn summary(State(deps): State<StatsDeps>, Query(query): Query<SummaryQuery>) -> Response {
    let extent = if is_true(&query.only_cpu_and_memory) {
        Extent::CpuAndMemory
    } else {
        Extent::Everything
    };
    match deps.collector.snapshot(Detail::Summary).await {
        Ok(snapshot) => Json(stats::summary(
            &snapshot,
            deps.collector.node_name(),
            extent,
        ))
        .into_response(),
        Err(error) => {
            let message = format!("Internal Error: {}", chain(&error));
            (StatusCode::INTERNAL_SERVER_ERROR, message).into_response()
        }
    }
}

/// As Go reads truth values.
fn is_true(text: &str) -> bool {
    ["1", "t", "T", "true", "TRUE", "True"].contains(&text)
}

async fn resource(State(deps): State<StatsDeps>) -> Response {
    let snapshot = known(deps.collector.snapshot(Detail::CpuAndMemory).await);
    exposition(stats::resource(snapshot.as_deref()))
}

async fn cadvisor(State(deps): State<StatsDeps>) -> Response {
    let snapshot = known(deps.collector.snapshot(Detail::Metrics).await);
    exposition(stats::cadvisor(
        snapshot.as_deref(),
        deps.collector.machine(),
    ))
}

/// A failure is a metric of its own here, not an error.
fn known(snapshot: Result<Arc<Snapshot>, StatsError>) -> Option<Arc<Snapshot>> {
    snapshot
        .inspect_err(|error| warn!(error = %chain(error), "cannot tell what is used"))
        .ok()
}

fn exposition(text: String) -> Response {
    ([(header::CONTENT_TYPE, stats::CONTENT_TYPE)], text).into_response()
}

#[cfg(test)]
mod tests;
