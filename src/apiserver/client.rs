//! The connection: settings in, an [`ApiServer`] out, which carries the ports'
//! calls over one HTTP client.
//!
//! Calls travel in lanes. A lane has a time limit for each call and may have a
//! rate limit, so that a flood of events delays no pod status and nothing
//! delays the heartbeat.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::Client;

use super::ApiError;
use super::connection::{Connection, Reconnect as _};
use super::followed::Followed;
use super::kubeconfig::KubeconfigError;
use super::limit::{Limiter, Rate};
use super::refs::Shared;
use crate::certificate::Store;

/// A call of the general lane that takes longer than this has failed.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// The same for node status and lease, below their period of 10 s and far
/// below the lease duration of 40 s.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(8);
/// Where the API server's address is written, and who we are to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    Kubeconfig(PathBuf),
    /// The same, with the client's certificate of the store, if that has one which
    /// has not expired.
    Node {
        kubeconfig: PathBuf,
        certificate: Store,
    },
    /// The service account and the environment of a pod.
    ServiceAccount,
}

/// How to reach the API server, and as whom.
#[derive(Debug, Clone)]
pub struct ApiSettings {
    pub credentials: Credentials,
    /// Name of our Node object.
    pub node_name: Arc<str>,
    /// `kubeAPIQPS`/`kubeAPIBurst`; `None`: no limit.
    pub calls: Option<Rate>,
    /// `eventRecordQPS`/`eventBurst`; `None`: no limit.
    pub events: Option<Rate>,
}

/// The only holder of a client; implements every write port. Clones share
/// connections, limits and caches.
#[derive(Clone)]
pub struct ApiServer {
    pub(super) client: Client,
    pub(super) node_name: Arc<str>,
    pub(super) calls: Arc<Lane>,
    pub(super) heartbeat: Arc<Lane>,
    pub(super) events: Arc<Lane>,
    /// Without a rate limit: what they cost is bounded by the caches of those who ask.
    pub(super) reviews: Arc<Lane>,
    pub(super) config_maps: Arc<Shared<ConfigMap>>,
    pub(super) secrets: Arc<Shared<Secret>>,
    pub(super) runtime_classes: Arc<Shared<RuntimeClass>>,
    pub(super) followed_config_maps: Arc<Followed<ConfigMap>>,
    pub(super) followed_secrets: Arc<Followed<Secret>>,
}

impl std::fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiServer")
            .field("node_name", &self.node_name)
            .finish_non_exhaustive()
    }
}

/// Reads the credentials and sets the client up, inside a tokio runtime. The
/// API server need not be there yet: nothing is sent.
///
/// # Errors
/// If the credentials cannot be used.
pub async fn connect(
    settings: &ApiSettings,
) -> Result<(ApiServer, Arc<Connection>), KubeconfigError> {
    let (api, connection) = connect_later(settings);
    connection.reconnect().await?;
    Ok((api, connection))
}

/// The same, where credentials are yet to come: calls wait for
/// [`reconnect`](super::Reconnect::reconnect).
#[must_use]
pub fn connect_later(settings: &ApiSettings) -> (ApiServer, Arc<Connection>) {
    let connection = Connection::new(settings.credentials.clone());
    (ApiServer::over(connection.client(), settings), connection)
}

impl ApiServer {
    /// Over a client that is set up already; the kubeconfig is not read.
    #[must_use]
    pub(super) fn over(client: Client, settings: &ApiSettings) -> Self {
        Self {
            client,
            node_name: settings.node_name.clone(),
            calls: Arc::new(Lane::new(settings.calls, CALL_TIMEOUT)),
            heartbeat: Arc::new(Lane::new(None, HEARTBEAT_TIMEOUT)),
            events: Arc::new(Lane::new(settings.events, CALL_TIMEOUT)),
            reviews: Arc::new(Lane::new(None, CALL_TIMEOUT)),
            config_maps: Arc::default(),
            secrets: Arc::default(),
            runtime_classes: Arc::default(),
            followed_config_maps: Arc::default(),
            followed_secrets: Arc::default(),
        }
    }
}

/// One kind of traffic: its limits, and the words for its failures.
#[derive(Debug)]
pub(super) struct Lane {
    limit: Option<Limiter>,
    timeout: Duration,
}

impl Lane {
    fn new(rate: Option<Rate>, timeout: Duration) -> Self {
        Self {
            limit: rate.map(Limiter::new),
            timeout,
        }
    }

    /// Waits for the rate limit, then makes the call within the time limit.
    pub(super) async fn call<T>(
        &self,
        call: &'static str,
        work: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, ApiError> {
        if let Some(limit) = &self.limit {
            limit.ready().await;
        }
        match tokio::time::timeout(self.timeout, work).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(ApiError::of_client(call, error)),
            Err(elapsed) => Err(ApiError::Unreachable {
                call,
                source: Box::new(elapsed),
            }),
        }
    }
}
