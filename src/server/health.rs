//! `/healthz` and the agent's own metrics, for both listeners: plain HTTP on
//! `healthzBindAddress:healthzPort`, and the node's API.
//!
//! `/metrics/slis` has the checks' results as metrics (KEP-3466), as they were
//! found whenever somebody asked for one.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
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
    checks: Vec<HealthCheck>,
    registry: Registry,
    slis: Slis,
}

impl Health {
    #[must_use]
    pub fn new(checks: Vec<HealthCheck>, registry: Registry) -> Self {
        Self {
            checks,
            registry,
            slis: Slis::default(),
        }
    }

    /// `/healthz`, `/healthz/{check}`, `/metrics` and `/metrics/slis`.
    pub fn routes(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/healthz", get(healthz))
            .route("/healthz/{check}", get(one_check))
            .route("/metrics", get(metrics))
            .route("/metrics/slis", get(slis))
            .with_state(Arc::clone(self))
    }

    /// Makes all checks: what is wrong, by the check's name; empty if all is well.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let failure = |check: &HealthCheck| {
            let why = self.outcome(check).err()?;
            Some(format!("{} failed: {why}", check.name))
        };
        self.checks.iter().filter_map(failure).collect()
    }

    /// Makes one check, and notes how it went.
    fn outcome(&self, check: &HealthCheck) -> Result<(), String> {
        let outcome = (check.check)();
        self.slis.note(check.name, outcome.is_ok());
        outcome
    }
}

/// The results of checks as metrics.
struct Slis {
    registry: Registry,
    last: Family<CheckLabels, Gauge>,
    counts: Family<ResultLabels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CheckLabels {
    name: &'static str,
    r#type: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    name: &'static str,
    status: &'static str,
    r#type: &'static str,
}

impl Default for Slis {
    fn default() -> Self {
        let mut registry = Registry::default();
        let (last, counts) = (Family::default(), Family::default());
        registry.register(
            "kubernetes_healthcheck",
            "Whether the check went well when it was made last",
            Family::clone(&last),
        );
        registry.register(
            "kubernetes_healthchecks",
            "Checks made, by how they went",
            Family::clone(&counts),
        );
        Self {
            registry,
            last,
            counts,
        }
    }
}

impl Slis {
    fn note(&self, name: &'static str, is_sound: bool) {
        const TYPE: &str = "healthz";
        let check = CheckLabels { name, r#type: TYPE };
        self.last.get_or_create(&check).set(is_sound.into());
        let result = ResultLabels {
            name,
            status: if is_sound { "success" } else { "error" },
            r#type: TYPE,
        };
        self.counts.get_or_create(&result).inc();
    }
}

async fn healthz(State(health): State<Arc<Health>>, RawQuery(query): RawQuery) -> Response {
    let verbose = query
        .as_deref()
        .is_some_and(|query| query.split('&').any(|part| part.starts_with("verbose")));
    let mut report = String::new();
    let mut sound = true;
    for check in &health.checks {
        let line = match health.outcome(check) {
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
        Some(check) => match health.outcome(check) {
            Ok(()) => "ok".into_response(),
            Err(why) => (
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("internal server error: {why}\n"),
            )
                .into_response(),
        },
    }
}

async fn slis(State(health): State<Arc<Health>>, headers: HeaderMap) -> Response {
    for check in &health.checks {
        // Only its being noted is of interest here.
        let _ = health.outcome(check);
    }
    exposition::answer(&health.slis.registry, &headers)
}

async fn metrics(State(health): State<Arc<Health>>, headers: HeaderMap) -> Response {
    exposition::answer(&health.registry, &headers)
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tower::ServiceExt;

    use super::*;

    async fn page(router: &Router, path: &str) -> (u16, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), 4096).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn checks_are_answered_and_their_results_are_metrics() {
        let sound = HealthCheck {
            name: "ping",
            check: Box::new(|| Ok(())),
        };
        let broken = HealthCheck {
            name: "syncloop",
            check: Box::new(|| Err("stuck".to_owned())),
        };
        let health = Arc::new(Health::new(vec![sound, broken], Registry::default()));
        let router = health.routes();
        assert_eq!(page(&router, "/healthz/ping").await, (200, "ok".to_owned()));
        assert_eq!(page(&router, "/healthz/none").await.0, 404);
        let (status, report) = page(&router, "/healthz").await;
        assert_eq!(status, 500);
        assert!(report.contains("[-]syncloop failed: stuck"), "{report}");
        let (_, text) = page(&router, "/metrics/slis").await;
        for line in [
            "kubernetes_healthcheck{name=\"ping\",type=\"healthz\"} 1",
            "kubernetes_healthcheck{name=\"syncloop\",type=\"healthz\"} 0",
            "kubernetes_healthchecks_total{name=\"ping\",status=\"success\",type=\"healthz\"} 3",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
