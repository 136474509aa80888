//! Requests to the node's API, counted under upstream's names.

use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Seconds, as client_golang's default buckets.
const BUCKETS: [f64; 11] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Requests by what they ask for. Clones share the counts.
#[derive(Debug, Clone)]
pub struct Metrics {
    requests: Family<Labels, Counter>,
    durations: Family<Labels, Histogram, fn() -> Histogram>,
    in_flight: Family<Labels, Gauge>,
}

/// Which of the listeners a request came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerType {
    ReadWrite,
    ReadOnly,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    method: &'static str,
    path: &'static str,
    server_type: &'static str,
    long_running: &'static str,
}

impl Metrics {
    /// Registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            in_flight: Family::default(),
        };
        registry.register(
            "kubelet_http_requests",
            "Requests to the node's API",
            metrics.requests.clone(),
        );
        registry.register(
            "kubelet_http_requests_duration_seconds",
            "Time until the head of the answer was ready",
            metrics.durations.clone(),
        );
        registry.register(
            "kubelet_http_inflight_requests",
            "Requests whose answer's head is not ready yet",
            metrics.in_flight.clone(),
        );
        metrics
    }

    /// So that every metric has a sample.
    #[cfg(test)]
    pub(crate) fn touch(&self) {
        let labels = Labels::of(&Method::GET, "/pods", ServerType::ReadWrite);
        let _ = self.requests.get_or_create(&labels);
        let _ = self.durations.get_or_create(&labels);
        let _ = self.in_flight.get_or_create(&labels);
    }
}

/// Middleware: counts one request.
pub(super) async fn count(
    State((metrics, server_type)): State<(Metrics, ServerType)>,
    request: Request,
    next: Next,
) -> Response {
    let labels = Labels::of(request.method(), request.uri().path(), server_type);
    metrics.requests.get_or_create(&labels).inc();
    let in_flight = InFlight::new(metrics.in_flight.get_or_create_owned(&labels));
    let began = Instant::now();
    let response = next.run(request).await;
    drop(in_flight);
    metrics
        .durations
        .get_or_create(&labels)
        .observe(began.elapsed().as_secs_f64());
    response
}

/// Counts itself as long as it lives: callers may vanish at any point.
struct InFlight(Gauge);

impl InFlight {
    fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Label values by the beginnings of paths; what a caller makes up is `other`,
/// so that nobody can fill the memory with names.
const PATHS: &[(&str, &str)] = &[
    ("/metrics/cadvisor", "metrics/cadvisor"),
    ("/metrics/probes", "metrics/probes"),
    ("/metrics/resource", "metrics/resource"),
    ("/metrics/slis", "metrics/slis"),
    ("/metrics", "metrics"),
    ("/healthz", "healthz"),
    ("/pods", "pods"),
    ("/runningpods", "runningpods"),
    ("/stats", "stats"),
    ("/configz", "configz"),
    ("/containerLogs", "containerLogs"),
    ("/logs", "logs"),
    ("/run", "run"),
    ("/exec", "exec"),
    ("/attach", "attach"),
    ("/portForward", "portForward"),
    ("/checkpoint", "checkpoint"),
    ("/debug", "debug"),
];

impl Labels {
    fn of(method: &Method, path: &str, server_type: ServerType) -> Self {
        let below = |prefix: &str| {
            path.strip_prefix(prefix)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let path = PATHS
            .iter()
            .find(|(prefix, _)| below(prefix))
            .map_or("other", |(_, label)| label);
        Self {
            method: match *method {
                Method::GET => "GET",
                Method::POST => "POST",
                Method::PUT => "PUT",
                Method::DELETE => "DELETE",
                Method::HEAD => "HEAD",
                Method::OPTIONS => "OPTIONS",
                Method::PATCH => "PATCH",
                _ => "other",
            },
            path,
            server_type: match server_type {
                ServerType::ReadWrite => "readwrite",
                ServerType::ReadOnly => "readonly",
            },
            long_running: match path {
                "exec" | "attach" | "portForward" | "debug" => "true",
                _ => "false",
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_paths_share_one_label() {
        for (path, wanted) in [
            ("/metrics", "metrics"),
            ("/metrics/resource", "metrics/resource"),
            ("/metrics/made-up", "metrics"),
            ("/containerLogs/ns/pod/main", "containerLogs"),
            ("/execute", "other"),
            ("/", "other"),
        ] {
            let labels = Labels::of(&Method::GET, path, ServerType::ReadWrite);
            assert_eq!(labels.path, wanted, "{path}");
        }
    }
}
