//! `/healthz` and `/metrics` on `healthzBindAddress:healthzPort`.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// One named check behind `/healthz`.
pub struct HealthCheck {
    pub name: &'static str,
    /// `Err`: what is wrong, for people.
    pub check: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
}

/// The bound health listener; answers once it is run.
pub struct HealthServer {
    listener: TcpListener,
    state: Arc<Health>,
}

struct Health {
    checks: Vec<HealthCheck>,
    registry: Registry,
}

impl HealthServer {
    /// Binds the address, so that a port in use is known before anything runs.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn bind(
        address: SocketAddr,
        checks: Vec<HealthCheck>,
        registry: Registry,
    ) -> std::io::Result<Self> {
        Ok(Self {
            listener: TcpListener::bind(address).await?,
            state: Arc::new(Health { checks, registry }),
        })
    }

    /// Where it listens; tells the port if 0 was asked for.
    ///
    /// # Errors
    /// The socket's address cannot be read.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until shutdown.
    ///
    /// # Errors
    /// The listener broke.
    pub async fn run(self, shutdown: CancellationToken) -> std::io::Result<()> {
        let router = Router::new()
            .route("/healthz", get(healthz))
            .route("/healthz/{check}", get(one_check))
            .route("/metrics", get(metrics))
            .with_state(self.state);
        axum::serve(self.listener, router)
            .with_graceful_shutdown(async move { shutdown.cancelled().await })
            .await
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

async fn metrics(State(health): State<Arc<Health>>) -> Response {
    let mut body = String::new();
    match prometheus_client::encoding::text::encode(&mut body, &health.registry) {
        Ok(()) => (
            [(
                header::CONTENT_TYPE,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
            )],
            body,
        )
            .into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
