//! Health check node ports: a listener for each Service with one, which tells a load
//! balancer whether this node has endpoints for it.
//!
//! In: the Services and their local endpoints, on a `watch`; the proxy's own health.
//! Out: listeners that follow it, and an event about each that cannot be opened,
//! which is tried again every 10 s.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::ProxyHealth;
use crate::apiserver::{ProxyEvent, ProxyEventAbout};
use crate::error::chain;
use crate::listen::{HttpServer, Limits};
use crate::pod::Severity;
use crate::proxy::model::ServiceName;

/// How many endpoints there are, for load balancers that can weigh nodes.
const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");
/// Between two tries to listen on a port that somebody else has.
const RETRY: Duration = Duration::from_secs(10);

/// Where events go. Must not block.
pub type EventSender = Arc<dyn Fn(ProxyEvent) + Send + Sync>;

/// One Service's health check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Check {
    /// `healthCheckNodePort`.
    pub port: NonZeroU16,
    /// Ready endpoints on this node, each address once.
    pub local: usize,
}

/// All health checks that there should be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WantedChecks {
    /// Where to listen: this node's addresses that `nodePortAddresses` names. Empty:
    /// on all of them.
    pub addresses: Vec<IpAddr>,
    pub checks: BTreeMap<Arc<ServiceName>, Check>,
}

/// What the listeners work with.
#[derive(Clone)]
pub struct ServiceChecksDeps {
    pub node_name: Arc<str>,
    pub wanted: watch::Receiver<Arc<WantedChecks>>,
    pub health: ProxyHealth,
    pub events: EventSender,
}

/// The listeners, and the task that follows what is wanted.
pub struct ServiceChecks {
    deps: ServiceChecksDeps,
    open: BTreeMap<Arc<ServiceName>, Open>,
    /// Ports that could not be had, and when to try again.
    refused: BTreeMap<Arc<ServiceName>, (NonZeroU16, Instant)>,
}

/// One Service's listeners; dropped, they close at once.
struct Open {
    port: NonZeroU16,
    addresses: Vec<IpAddr>,
    answer: Arc<Answer>,
    servers: JoinSet<io::Result<()>>,
}

/// What one Service's listeners answer.
struct Answer {
    service: Arc<ServiceName>,
    local: AtomicUsize,
    health: ProxyHealth,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
struct ListenError {
    address: SocketAddr,
    source: io::Error,
}

impl ServiceChecks {
    #[must_use]
    pub fn new(deps: ServiceChecksDeps) -> Self {
        Self {
            deps,
            open: BTreeMap::new(),
            refused: BTreeMap::new(),
        }
    }

    /// Follows what is wanted until shutdown, then closes all listeners.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let follow = async {
            loop {
                let wanted = Arc::clone(&self.deps.wanted.borrow_and_update());
                self.follow(&wanted).await;
                let retry = self.refused.values().map(|(_, at)| *at).min();
                tokio::select! {
                    changed = self.deps.wanted.changed() => {
                        if changed.is_err() {
                            // The last word stands until shutdown.
                            sleep_until(retry).await;
                        }
                    }
                    () = sleep_until(retry) => {}
                }
            }
        };
        shutdown.run_until_cancelled(follow).await;
    }

    async fn follow(&mut self, wanted: &WantedChecks) {
        // First of all: a port may go from one Service to another.
        self.close_unwanted(wanted).await;
        self.refused.retain(|service, (port, _)| {
            wanted.checks.get(service).map(|check| check.port) == Some(*port)
        });
        for (service, check) in &wanted.checks {
            if let Some(open) = self.open.get(service) {
                open.answer.local.store(check.local, Ordering::Relaxed);
            } else if self.is_due(service) {
                self.open(service, *check, &wanted.addresses);
            }
        }
    }

    async fn close_unwanted(&mut self, wanted: &WantedChecks) {
        let is_unwanted = |service: &Arc<ServiceName>, open: &mut Open| {
            open.addresses != wanted.addresses
                || wanted.checks.get(service).map(|check| check.port) != Some(open.port)
        };
        for (service, mut open) in self.open.extract_if(.., is_unwanted) {
            debug!(%service, port = open.port, "closing a health check node port");
            open.servers.shutdown().await;
        }
    }

    fn is_due(&self, service: &ServiceName) -> bool {
        let refused = self.refused.get(service);
        refused.is_none_or(|(_, again)| *again <= Instant::now())
    }

    fn open(&mut self, service: &Arc<ServiceName>, check: Check, addresses: &[IpAddr]) {
        let answer = Arc::new(Answer {
            service: Arc::clone(service),
            local: AtomicUsize::new(check.local),
            health: self.deps.health.clone(),
        });
        match listen(&answer, check.port, addresses) {
            Ok(servers) => {
                debug!(%service, port = check.port, "a health check node port is open");
                self.refused.remove(service);
                let open = Open {
                    port: check.port,
                    addresses: addresses.to_vec(),
                    answer,
                    servers,
                };
                self.open.insert(Arc::clone(service), open);
            }
            Err(error) => {
                let again = Instant::now() + RETRY;
                self.refused
                    .insert(Arc::clone(service), (check.port, again));
                (self.deps.events)(refusal(&self.deps.node_name, service, check.port, &error));
            }
        }
    }
}

/// Listens on all of the addresses, or on none.
fn listen(
    answer: &Arc<Answer>,
    port: NonZeroU16,
    addresses: &[IpAddr],
) -> Result<JoinSet<io::Result<()>>, ListenError> {
    let everywhere = [IpAddr::V4(Ipv4Addr::UNSPECIFIED)];
    let addresses = match addresses {
        [] => &everywhere,
        some => some,
    };
    let router = Router::new().fallback(say).with_state(Arc::clone(answer));
    let bind = |ip: &IpAddr| {
        let address = SocketAddr::new(*ip, port.get());
        HttpServer::bind(address, router.clone(), Limits::CHECKS)
            .map_err(|source| ListenError { address, source })
    };
    let bound: Vec<HttpServer> = addresses.iter().map(bind).collect::<Result<_, _>>()?;
    let mut servers = JoinSet::new();
    for server in bound {
        // They end with their set.
        servers.spawn(server.run(CancellationToken::new()));
    }
    Ok(servers)
}

/// Upstream's event, in upstream's words.
fn refusal(
    node_name: &str,
    service: &ServiceName,
    port: NonZeroU16,
    error: &ListenError,
) -> ProxyEvent {
    ProxyEvent {
        about: ProxyEventAbout::Service {
            namespace: service.namespace.to_string(),
            name: service.name.to_string(),
            uid: None,
        },
        severity: Severity::Warning,
        reason: "FailedToStartServiceHealthcheck",
        action: "Listen",
        message: format!(
            "node {node_name} failed to start healthcheck \"{service}\" on port {port}: {}",
            chain(error)
        ),
    }
}

/// The answer to any request.
async fn say(State(answer): State<Arc<Answer>>) -> Response {
    let local = answer.local.load(Ordering::Relaxed);
    let healthy = answer.health.is_healthy();
    let code = if local > 0 && healthy {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let headers = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (WEIGHT, local.to_string()),
    ];
    let body = json!({
        "service": {
            "namespace": answer.service.namespace,
            "name": answer.service.name,
        },
        "localEndpoints": local,
        "serviceProxyHealthy": healthy,
    });
    (code, headers, axum::Json(body)).into_response()
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
