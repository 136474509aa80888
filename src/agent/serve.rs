//! Putting the node's API together: routes, the gate in front of them, TLS.
//!
//! In: read handles of the other parts. Out: the bound listeners' tasks.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use tokio::sync::watch;
use tracing::info;

use super::assembly::Assembly;
use super::{StartError, settings};
use crate::apiserver::{ApiServer, NoApiServer, NodeFeed, Reviews};
use crate::certificate::Store;
use crate::config::{Authorization, ServerConfig};
use crate::listen::{HttpServer, Limits};
use crate::pod::DesiredPods;
use crate::runtime::{self, Observer};
use crate::server::api::container_logs::{self, ContainerLogDeps, LogChanges};
use crate::server::api::streams::{self, StreamDeps, StreamLimits};
use crate::server::api::{self, Bounds, PodDirectory, StatsDeps, Themes, node_logs};
use crate::server::auth::{
    AccessReviews, Anonymous, Authenticator, Authorizer, Gate, TokenReviews,
};
use crate::server::https::HttpsServer;
use crate::server::tls::{self, ClientCa, Serving, ServingBootstrap};
use crate::server::{self, Health, HealthCheck};
use crate::stats::{Collector, CollectorDeps};
use crate::status::StatusView;

/// What the API shows, and whom it asks.
pub(super) struct Served {
    pub(super) runtime: runtime::Handles,
    pub(super) desired: watch::Receiver<DesiredPods>,
    pub(super) statuses: StatusView,
    /// `None`: standalone.
    pub(super) api: Option<(ApiServer, NodeFeed)>,
}

/// Where the listeners are; tells the ports if 0 was configured.
#[derive(Debug, Clone, Copy, Default)]
pub struct Addresses {
    /// Health and metrics, without TLS.
    pub health: Option<SocketAddr>,
    /// The node's API, with TLS.
    pub api: Option<SocketAddr>,
}

/// Metrics of what is served, which must be known before anything is.
struct ServedMetrics {
    requests: server::Metrics,
    streams: streams::Metrics,
}

impl Assembly {
    /// Binds the listeners, as far as they are configured. The health that they show is
    /// given back, for others to ask as well.
    ///
    /// # Errors
    /// If an address cannot be bound, or TLS cannot be set up.
    pub(super) async fn serve(
        &mut self,
        served: Served,
        checks: Vec<HealthCheck>,
    ) -> Result<(Addresses, Arc<Health>), StartError> {
        let metrics = ServedMetrics {
            requests: server::Metrics::new(&mut self.registry),
            streams: streams::Metrics::new(&mut self.registry),
        };
        let health = Arc::new(Health::new(checks, std::mem::take(&mut self.registry)));
        let themes = self.themes(&served, &health, metrics.streams)?;
        let config = self.config.server.clone();
        if let Some(address) = config.read_only {
            let router = themes.clone().read_only(&metrics.requests);
            self.plain("read-only", address, router)?;
        }
        let plain = match config.healthz {
            Some(address) => Some(self.plain("healthz", address, health.routes())?),
            None => None,
        };
        let api = match config.secure {
            Some(address) => {
                let gate = Arc::new(self.gate(&config, &served)?);
                let router = themes.secure(config.handlers.debugging, gate, &metrics.requests);
                Some(self.secure(address, &config, served, router).await?)
            }
            None => None,
        };
        let addresses = Addresses { health: plain, api };
        Ok((addresses, health))
    }

    /// The routes of the node's API. Log followers, sessions and commands have
    /// bounds of their own.
    fn themes(
        &mut self,
        served: &Served,
        health: &Arc<Health>,
        stream_metrics: streams::Metrics,
    ) -> Result<Themes, StartError> {
        let bounds = Bounds::default();
        let observer = Arc::clone(&served.runtime.observer);
        let pods = PodDirectory::new(
            served.desired.clone(),
            served.statuses.clone(),
            Arc::clone(&observer),
        );
        let stats = api::stats(StatsDeps {
            collector: self.collector(served)?,
        });
        let always = health
            .routes()
            .merge(pods.clone().routes())
            .merge(api::probe_metrics(std::mem::take(&mut self.probe_registry)))
            .merge(stats);
        let debugging = api::running_pods(Arc::clone(&observer))
            .merge(api::configz(self.config.effective.clone()))
            .merge(node_logs::routes(settings::node_logs(&self.config)));
        let sessions = streams::routes(StreamDeps {
            pods: pods.clone(),
            runtime: Arc::clone(&served.runtime.streaming),
            checkpoints: self.config.paths.root_dir.join("checkpoints"),
            limits: StreamLimits::default(),
            metrics: stream_metrics,
            shutdown: self.shutdown.outlets.clone(),
        });
        Ok(Themes {
            always: bounds.around(always),
            debugging: bounds
                .around(debugging)
                .merge(sessions)
                .merge(self.container_logs(pods, observer)),
        })
    }

    fn collector(&self, served: &Served) -> Result<Collector, StartError> {
        let hierarchy = self.host.hierarchy.clone();
        Ok(Collector::new(CollectorDeps {
            settings: settings::stats(&self.config, &self.host.machine, hierarchy),
            desired: served.desired.clone(),
            observer: Arc::clone(&served.runtime.observer),
            usage: Arc::clone(&served.runtime.usage),
        })?)
    }

    /// Containers' logs, and the task that wakes their followers.
    fn container_logs(&mut self, pods: PodDirectory, observer: Arc<dyn Observer>) -> Router {
        let (changes, task) = LogChanges::new();
        self.tasks
            .add("log-changes", task.run(self.shutdown.outlets.clone()));
        container_logs::routes(ContainerLogDeps {
            pods,
            observer,
            directory: self.config.paths.pod_logs_dir.clone(),
            changes,
            streams: settings::log_streams(&self.config),
        })
    }

    /// A listener without TLS.
    fn plain(
        &mut self,
        name: &'static str,
        address: SocketAddr,
        router: Router,
    ) -> Result<SocketAddr, StartError> {
        let listen = |source| StartError::Listen { what: name, source };
        let server = HttpServer::bind(address, router, Limits::READERS).map_err(listen)?;
        let bound = server.address().map_err(listen)?;
        self.tasks
            .add_fallible(name, server.run(self.shutdown.outlets.clone()));
        Ok(bound)
    }

    async fn secure(
        &mut self,
        address: SocketAddr,
        config: &ServerConfig,
        served: Served,
        router: Router,
    ) -> Result<SocketAddr, StartError> {
        let listen = |source| StartError::Listen {
            what: "node API",
            source,
        };
        let tls = tls::server_config(
            self.serving(config, served)?,
            config.tls.min_version.as_deref(),
            &config.tls.cipher_suites,
        )?;
        let server = HttpsServer::bind(address, tls, router)
            .await
            .map_err(listen)?;
        let bound = server.address().map_err(listen)?;
        self.tasks
            .add_fallible("api", server.run(self.shutdown.outlets.clone()));
        info!(address = %bound, "serving the node's API");
        Ok(bound)
    }

    fn gate(&self, config: &ServerConfig, served: &Served) -> Result<Gate, StartError> {
        let reviews: Arc<dyn Reviews> = match &served.api {
            Some((api, _)) => Arc::new(api.clone()),
            None => Arc::new(NoApiServer),
        };
        let given = &config.authentication;
        let ca = given.client_ca_file.clone().map(ClientCa::from_file);
        Ok(Gate {
            authenticator: Authenticator {
                client_ca: ca.transpose()?,
                tokens: given
                    .webhook_cache_ttl
                    .map(|ttl| TokenReviews::new(Arc::clone(&reviews), ttl)),
                anonymous: if given.anonymous {
                    Anonymous::Allowed
                } else {
                    Anonymous::Refused
                },
            },
            authorizer: match config.authorization {
                Authorization::AlwaysAllow => Authorizer::AlwaysAllow,
                Authorization::Webhook {
                    allowed_ttl,
                    denied_ttl,
                } => Authorizer::Webhook(AccessReviews::new(
                    reviews,
                    self.config.node.name.clone(),
                    allowed_ttl,
                    denied_ttl,
                )),
            },
        })
    }

    /// The serving certificate: from files, from the cluster's signer, or made
    /// here. A standalone agent has no signer to ask.
    fn serving(&mut self, config: &ServerConfig, served: Served) -> Result<Serving, StartError> {
        let node_name = &self.config.node.name;
        let directory = &self.config.api.cert_dir;
        if let Some((certificate, key)) = config.tls.key_pair.clone() {
            return Ok(Serving::files(certificate, key)?);
        }
        let Some((api, node)) = served.api.filter(|_| config.tls.server_bootstrap) else {
            return Ok(Serving::self_signed(directory, node_name)?);
        };
        let store = Store::new(directory.clone(), "kubelet-server");
        let (task, serving) = ServingBootstrap::new(Arc::new(api), node_name.clone(), store, node);
        self.tasks.add(
            "serving-certificate",
            task.run(self.shutdown.outlets.clone()),
        );
        Ok(serving)
    }
}
