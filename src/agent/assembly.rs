//! Putting an agent together, one part after the other.
//!
//! In: the configuration and the prepared machine. Out: the named tasks, and
//! what they share: a registry of metrics and two steps of shutdown. Each method
//! makes one part, adds its tasks, and hands back what the next parts need.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, watch};
use tracing::info;

use super::host::{self, Host};
use super::serve::Served;
use super::service_proxy::{self, Hearing, ServiceProxy};
use super::supervise::{Agent, Shutdown, Tasks};
use super::systemd::{Signs, SystemdTask};
use super::{StartError, metrics, settings};
use crate::apiserver::{
    self, ApiServer, ApiSettings, Bootstrap, BootstrapFile, Connection, EventRecorder, Identity,
    IdentityMetrics, IdentitySettings, NoApiServer, NodeFeed, NodePort, ObjectRefs, PodFeed,
    Reconnect, ServiceFeed, Standing, Tokens,
};
use crate::config::{Config, KUBERNETES_VERSION, ServiceProxyMode};
use crate::node::{ExtraCondition, LeaseTask, NodeDeps, NodeTask};
use crate::pod::DesiredPods;
use crate::proxy::inbox::Inbox;
use crate::proxy::presence::Mode;
use crate::proxy::standalone::Ranges;
use crate::runtime::{self, Images};
use crate::server::HealthCheck;
use crate::server::explain::ExplainServer;
use crate::source::manifest::Kinds;
use crate::source::{
    self, ManifestConfig, ManifestObjects, ManifestServices, ManifestSnapshot, ManifestSource,
    ServiceInputs, Sources,
};
use crate::status::{Reporter, ReporterInputs, StandaloneStatus, StatusHandle, StatusView};
use crate::volume::{HostVolumes, VolumeSettings};
use crate::worker::{
    self, Admission, AdmissionDeps, Heartbeat, Manager, PodsView, ProbeMetrics, Probing,
    StartTurns, WorkerDeps,
};

/// The node's own names, for pods on its network.
const ETC_HOSTS: &str = "/etc/hosts";
/// The workers' manager counts as alive for this long without a sign of life,
/// or for twice `syncFrequency` if that is longer.
const LOOP_PATIENCE: Duration = Duration::from_secs(5 * 60);

/// An agent in the making.
pub(super) struct Assembly {
    pub(super) config: Config,
    pub(super) host: Host,
    pub(super) registry: Registry,
    /// What `/metrics/probes` serves.
    pub(super) probe_registry: Registry,
    pub(super) tasks: Tasks,
    pub(super) shutdown: Shutdown,
}

/// What is heard from the API server.
pub(super) struct Feeds {
    pub(super) pods: PodFeed,
    pub(super) node: NodeFeed,
    pub(super) services: ServiceFeed,
}

/// What workers are given besides the machine.
pub(super) struct WorkerInputs {
    pub(super) runtime: runtime::Handles,
    /// `None`: standalone.
    pub(super) api: Option<ApiServer>,
    pub(super) node: Option<NodeFeed>,
    pub(super) services: ServiceFeed,
    pub(super) status: StatusHandle,
    pub(super) events: EventRecorder,
    pub(super) desired: watch::Receiver<DesiredPods>,
    pub(super) manifests: watch::Receiver<ManifestSnapshot>,
}

impl Assembly {
    pub(super) fn new(config: Config, host: Host) -> Self {
        let mut registry = Registry::default();
        metrics::register_identity(&mut registry, &config.node.name);
        Self {
            config,
            host,
            registry,
            probe_registry: Registry::default(),
            tasks: Tasks::default(),
            shutdown: Shutdown::default(),
        }
    }

    /// The runtime's ports. Nothing is connected before the first call.
    pub(super) fn runtime(&mut self) -> runtime::Handles {
        let metrics = runtime::Metrics::new(&mut self.registry);
        let (handles, tasks) = runtime::connect(&settings::runtime(&self.config), &metrics);
        self.tasks
            .add("runtime", tasks.run(self.shutdown.outlets.clone()));
        handles
    }

    /// Rotates containers' logs, unless that is turned off.
    pub(super) fn log_rotation(&mut self, runtime: &runtime::Handles) {
        if let Some(settings) = settings::log_rotation(&self.config) {
            let task = runtime.log_rotation(settings);
            self.tasks
                .add("log-rotation", task.run(self.shutdown.work.clone()));
        }
    }

    /// The API server's client, and what keeps its credentials good; `None` without a
    /// kubeconfig.
    ///
    /// # Errors
    /// If there is nothing to begin with: neither a kubeconfig nor one to get it with.
    pub(super) async fn api_server(&mut self) -> Result<Option<ApiServer>, StartError> {
        let Some(settings) = settings::api(&self.config) else {
            return Ok(None);
        };
        let identity = settings::identity(&self.config);
        let standing = match &identity {
            Some(identity) => identity.standing(Timestamp::now())?,
            None => Standing::Known,
        };
        let (api, connection) = match standing {
            Standing::Known => apiserver::connect(&settings).await?,
            Standing::New => apiserver::connect_later(&settings),
        };
        let work = self.shutdown.work.clone();
        if let Some(identity) = identity {
            let task = self.identity(identity, &settings, &api, &connection);
            self.tasks.add("client-certificate", task.run(work.clone()));
        }
        self.tasks.add("credentials", connection.follow(work));
        Ok(Some(api))
    }

    fn identity(
        &mut self,
        identity: IdentitySettings,
        settings: &ApiSettings,
        api: &ApiServer,
        connection: &Arc<Connection>,
    ) -> Identity {
        let metrics = IdentityMetrics::default();
        metrics.register(&mut self.registry);
        let (expires, shown) = watch::channel(None);
        apiserver::register_ttl(&mut self.registry, shown);
        Identity {
            own: Arc::new(api.clone()),
            bootstrap: identity.bootstrap.clone().map(|file| {
                Arc::new(BootstrapFile(settings.with_kubeconfig(file))) as Arc<dyn Bootstrap>
            }),
            connection: Arc::clone(connection) as Arc<dyn Reconnect>,
            settings: identity,
            metrics,
            expires,
        }
    }

    /// The recorder of events, which go to the API server or to the log, and
    /// the machine's own events.
    pub(super) fn events(&mut self, api: Option<&ApiServer>) -> EventRecorder {
        let node_name: Arc<str> = self.config.node.name.as_str().into();
        let recorder = match api {
            None => EventRecorder::log_only(node_name),
            Some(api) => {
                let (recorder, task) = EventRecorder::new(node_name, Arc::new(api.clone()));
                self.tasks
                    .add("events", task.run(self.shutdown.outlets.clone()));
                recorder
            }
        };
        recorder.metrics().register(&mut self.registry);
        self.host.tell(&recorder);
        let shutdown = self.shutdown.work.clone();
        if let Some(task) = self.host.enforce_later(&self.config, &recorder, shutdown) {
            self.tasks.add("allocatable", task);
        }
        recorder
    }

    // === with an API server ===

    /// Starts to listen to the API server.
    /// `proxy`: where the service proxy wants to have what it needs.
    pub(super) fn feeds(&mut self, api: &ApiServer, proxy: Option<&Inbox>) -> Feeds {
        let outlets = &self.shutdown.outlets;
        let (pod_reflector, pods) = api.reflect_pods();
        let (node_reflector, node) = api.reflect_node();
        let (mut service_reflector, services) = api.reflect_services();
        if let Some(inbox) = proxy {
            service_reflector = service_reflector.with_proxy(inbox.services());
            let slices = api.reflect_slices(inbox.slices());
            self.tasks
                .add("endpointslices", slices.run(outlets.clone()));
        }
        self.tasks.add("pods", pod_reflector.run(outlets.clone()));
        self.tasks
            .add("node-watch", node_reflector.run(outlets.clone()));
        self.tasks
            .add("services", service_reflector.run(outlets.clone()));
        self.tasks
            .add("objects", api.reflect_objects().run(outlets.clone()));
        Feeds {
            pods,
            node,
            services,
        }
    }

    /// Registers the node, reports its status and renews its Lease.
    pub(super) fn node(
        &mut self,
        api: &ApiServer,
        feed: NodeFeed,
        runtime: &runtime::Handles,
        events: EventRecorder,
        conditions: watch::Receiver<Vec<ExtraCondition>>,
    ) {
        let config = &self.config;
        let (node, registered) = NodeTask::new(NodeDeps {
            settings: self.host.node.clone(),
            facts: self.host.machine.clone(),
            extended: host::extended_resources(config),
            port: Arc::new(api.clone()),
            probe: Arc::new(self.host.probe(config)),
            health: runtime.observer.health(),
            images: runtime.inventory.clone(),
            extra: conditions,
            node: feed,
            events: Arc::new(move |event| events.record_node(event)),
        });
        let lease = LeaseTask::new(
            Arc::new(api.clone()),
            config.node.name.clone(),
            config.node.lease_duration,
            registered,
        );
        let work = &self.shutdown.work;
        self.tasks.add("node", node.run(work.clone()));
        self.tasks.add("lease", lease.run(work.clone()));
    }

    /// Sends pod statuses to the API server.
    pub(super) fn reporter(
        &mut self,
        api: &ApiServer,
        feeds: &Feeds,
        status: StatusHandle,
        desired: watch::Receiver<DesiredPods>,
    ) -> StatusView {
        let (reporter, view) = Reporter::new(ReporterInputs {
            updates: status,
            pods: feeds.pods.clone(),
            node: feeds.node.clone(),
            desired,
            port: Arc::new(api.clone()),
        });
        self.tasks
            .add("status", reporter.run(self.shutdown.outlets.clone()));
        view
    }

    // === without ===

    /// Keeps pod statuses to itself.
    pub(super) fn standalone_status(
        &mut self,
        status: StatusHandle,
        desired: watch::Receiver<DesiredPods>,
    ) -> StatusView {
        let (task, view) = StandaloneStatus::new(status, desired);
        self.tasks
            .add("status", task.run(self.shutdown.outlets.clone()));
        view
    }

    // === pods ===

    /// Joins what the API server and the manifests want.
    pub(super) fn sources(
        &mut self,
        api: Option<PodFeed>,
        out: watch::Sender<DesiredPods>,
    ) -> watch::Receiver<ManifestSnapshot> {
        let work = &self.shutdown.work;
        let (manifests, snapshot) = ManifestSource::new(ManifestConfig {
            path: self.config.source.static_pod_path.clone(),
            node_name: self.config.node.name.clone(),
            kinds: match api {
                Some(_) => Kinds::Pods,
                None => Kinds::PodsAndData,
            },
            rescan_every: self.config.source.file_check_frequency,
        });
        let sources = Sources {
            api,
            manifests: snapshot.clone(),
        };
        self.tasks.add("manifests", manifests.run(work.clone()));
        self.tasks
            .add("sources", source::run(sources, out, work.clone()));
        snapshot
    }

    /// Services of the manifests, where no API server tells of any.
    pub(super) fn manifest_services(
        &mut self,
        manifests: watch::Receiver<ManifestSnapshot>,
        desired: watch::Receiver<DesiredPods>,
        statuses: &StatusView,
        proxy: Option<&Inbox>,
    ) -> ServiceFeed {
        let inputs = ServiceInputs {
            manifests,
            desired,
            statuses: statuses.subscribe(),
            node_name: self.config.node.name.clone(),
        };
        let (mut task, feed) = ManifestServices::new(inputs, Ranges::default());
        if let Some(inbox) = proxy {
            task = task.with_proxy(inbox.services(), inbox.slices());
        }
        self.tasks
            .add("manifest-services", task.run(self.shutdown.work.clone()));
        feed
    }

    /// The workers' manager, and what it shows of them.
    pub(super) async fn workers(&mut self, inputs: WorkerInputs) -> (Manager, PodsView) {
        let metrics = worker::Metrics::new(&mut self.registry);
        let (commands, commanded) = mpsc::channel(worker::COMMANDS);
        let admission = Admission::new(AdmissionDeps {
            // Without API server nobody will ever tell of it.
            node: inputs.node.unwrap_or_else(|| watch::channel(None).1),
            fetch: inputs
                .api
                .clone()
                .map(|api| Arc::new(api) as Arc<dyn NodePort>),
            own: self.host.node_view(),
            settings: self.host.admission(&self.config),
            found: inputs.runtime.observer.pods(),
            health: inputs.runtime.observer.health(),
            commands,
            metrics: metrics.clone(),
        });
        let (tokens, objects): (Arc<dyn Tokens>, Arc<dyn ObjectRefs>) = match inputs.api {
            Some(api) => (Arc::new(api.clone()), Arc::new(api)),
            None => {
                let (objects, task) = ManifestObjects::new(inputs.manifests);
                let work = self.shutdown.work.clone();
                self.tasks.add("manifest-objects", task.run(work));
                (Arc::new(NoApiServer), Arc::new(objects))
            }
        };
        let node = Arc::new(self.host.pod_facts(&self.config).await);
        let volumes = VolumeSettings {
            root_dir: self.config.paths.root_dir.clone(),
            allocatable: node.allocatable,
            id_range: self.host.id_range,
        };
        let deps = Arc::new(WorkerDeps {
            sandboxes: inputs.runtime.sandboxes,
            images: inputs.runtime.images,
            streaming: inputs.runtime.streaming,
            observer: inputs.runtime.observer,
            volumes: Arc::new(HostVolumes::new(volumes, tokens, objects.clone())),
            cgroups: self.host.cgroups.clone(),
            objects,
            services: inputs.services,
            admission,
            status: inputs.status,
            events: inputs.events,
            metrics,
            start_turns: StartTurns::of_this_machine(),
            probing: Probing::new(
                ProbeMetrics::new(&mut self.probe_registry),
                Timestamp::now(),
                KUBERNETES_VERSION,
            ),
            node,
            resolver: Arc::new(host::resolver(&self.config)),
            etc_hosts: Arc::new(|| std::fs::read_to_string(ETC_HOSTS).unwrap_or_default()),
            clock: Arc::new(Timestamp::now),
        });
        let shutdown = self.shutdown.work.clone();
        let (manager, pods) = Manager::new(deps, inputs.desired, commanded, shutdown);
        worker::register_gauges(&mut self.registry, pods.clone());
        (manager, pods)
    }

    // === services ===

    /// Where the service proxy will find this node's Services; `None` if it is off.
    pub(super) fn proxy_inbox(&self) -> Option<Inbox> {
        let config = &self.config.proxy;
        (config.mode != ServiceProxyMode::Off)
            .then(|| service_proxy::inbox(&config.proxy.node_name))
    }

    /// The service proxy, unless it is off. `conditions` becomes what the Node says
    /// of it.
    ///
    /// # Errors
    /// If a listener cannot be had that the configuration insists on.
    pub(super) fn service_proxy(
        &mut self,
        hearing: Hearing,
        conditions: watch::Sender<Vec<ExtraCondition>>,
    ) -> Result<(), StartError> {
        let config = self.config.proxy.clone();
        let mode = match config.mode {
            ServiceProxyMode::Off => return Ok(()),
            ServiceProxyMode::Auto => Mode::Auto,
            ServiceProxyMode::On => Mode::On,
        };
        let (verdict, verdicts) = watch::channel(None);
        let shutdown = self.shutdown.work.clone();
        let telling = service_proxy::tell_node(verdicts, mode, conditions, shutdown.clone());
        self.tasks.add("service-proxy-condition", telling);
        let proxy = ServiceProxy {
            config: config.proxy,
            mode,
            hearing,
            verdict,
        };
        proxy.assemble(&mut self.tasks, &shutdown)
    }

    // === what is served ===

    /// Binds the socket of `kubelet explain`.
    ///
    /// # Errors
    /// If that fails.
    pub(super) fn explain(
        &mut self,
        pods: PodsView,
        images: Arc<dyn Images>,
    ) -> Result<(), StartError> {
        let server =
            ExplainServer::bind(&self.config.paths.root_dir, pods, images).map_err(|source| {
                StartError::Listen {
                    what: "explain socket",
                    source,
                }
            })?;
        self.tasks
            .add_fallible("explain", server.run(self.shutdown.outlets.clone()));
        Ok(())
    }

    /// Binds the listeners, has systemd told how the agent is, and completes it.
    ///
    /// # Errors
    /// If a listener cannot be set up.
    pub(super) async fn finish(
        mut self,
        manager: Manager,
        pods: PodsView,
        served: Served,
    ) -> Result<Agent, StartError> {
        let patience = LOOP_PATIENCE.max(self.config.pod.sync_frequency.saturating_mul(2));
        let checks = health_checks(manager.heartbeat(), patience);
        let signs = Signs {
            runtime: served.runtime.observer.health(),
            pods,
            node: served.api.as_ref().map(|(_, feed)| feed.clone()),
        };
        let (addresses, health) = self.serve(served, checks).await?;
        let systemd = SystemdTask::new(signs, health);
        self.tasks
            .add("systemd", systemd.run(self.shutdown.work.clone()));
        info!(
            node = %self.config.node.name,
            standalone = self.config.api.kubeconfig.is_none(),
            cgroup = ?self.host.version,
            version = KUBERNETES_VERSION,
            "ready to run"
        );
        Ok(Agent::new(self.tasks, manager, self.shutdown, addresses))
    }
}

/// Upstream's checks. Every other task's end ends the process, so answering is
/// being well; only the manager could live on without moving.
fn health_checks(heartbeat: Heartbeat, patience: Duration) -> Vec<HealthCheck> {
    let sync_loop = move || {
        if heartbeat.age() <= patience {
            Ok(())
        } else {
            Err("sync Loop took longer than expected".to_owned())
        }
    };
    vec![
        HealthCheck {
            name: "ping",
            check: Box::new(|| Ok(())),
        },
        HealthCheck {
            name: "log",
            check: Box::new(|| Ok(())),
        },
        HealthCheck {
            name: "syncloop",
            check: Box::new(sync_loop),
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_sync_loop_fails_its_check_when_it_stands_still() {
        let heartbeat = Heartbeat::default();
        let checks = health_checks(heartbeat.clone(), LOOP_PATIENCE);
        let sync_loop = &checks
            .iter()
            .find(|check| check.name == "syncloop")
            .unwrap()
            .check;
        tokio::time::advance(LOOP_PATIENCE).await;
        assert_eq!(sync_loop(), Ok(()));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(sync_loop().is_err());
        heartbeat.beat();
        assert_eq!(sync_loop(), Ok(()));
    }
}
