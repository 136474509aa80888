//! The composition root: makes every handle in dependency order, and runs the
//! long-lived tasks.
//!
//! [`build`] does everything that can fail at start: it checks the machine,
//! reads credentials and binds listeners. [`Agent::run`] spawns and supervises.
//! Nothing is awaited from the API server or the runtime before that: both may
//! be away, and come when they come.

mod error;
mod settings;
mod supervise;
pub mod telemetry;

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use error::StartError;
pub use supervise::{Agent, shutdown_signals};

use crate::apiserver::{self, ApiServer, EventRecorder, NoApiServer, ObjectRefs, Tokens};
use crate::cgroup::{CgroupFs, CgroupSettings, Hierarchy};
use crate::config::{CgroupDriver, Config};
use crate::error::chain;
use crate::node::registration::ExtendedResources;
use crate::node::tunables::{self, KernelDefaults};
use crate::node::{
    self, HostProbe, LeaseTask, MachineFacts, NodeDeps, NodeSettings, NodeTask, address, facts,
    process, resources, root_dir,
};
use crate::pod::facts::{CgroupVersion, NodeDns, NodeFacts};
use crate::pod::spec::DnsSpec;
use crate::pod::{DesiredPods, dns};
use crate::runtime;
use crate::server::explain::ExplainServer;
use crate::server::{HealthCheck, HealthServer};
use crate::source::{self, ManifestConfig, ManifestSource, Sources};
use crate::status::{Reporter, ReporterInputs, StandaloneStatus, StatusHandle};
use crate::volume::{HostVolumes, VolumeSettings};
use crate::worker::{Manager, WorkerDeps};
use supervise::Tasks;

/// The container runtime that this agent speaks to: the scheme of container
/// IDs (`containerd://…`).
const RUNTIME_NAME: &str = "containerd";
/// The node's own names, for pods on its network.
const ETC_HOSTS: &str = "/etc/hosts";

/// Prepares an agent.
///
/// # Errors
/// When this machine, or what was configured, cannot carry one. All of these
/// are for a person to mend; a runtime or API server that is away is not one of
/// them.
pub async fn build(config: Config) -> Result<Agent, StartError> {
    let mut registry = Registry::default();
    let host = Host::prepare(&config).await?;
    let shutdown = Shutdown::default();
    let mut tasks = Tasks::default();

    let metrics = runtime::Metrics::new(&mut registry);
    let (runtime, runtime_tasks) = runtime::connect(&settings::runtime(&config), &metrics);
    tasks.add("runtime", runtime_tasks.run(shutdown.outlets.clone()));

    let api = connect(&config).await?;
    let (events, event_task) = recorder(&config, api.as_ref());
    if let Some(task) = event_task {
        tasks.add("events", task.run(shutdown.outlets.clone()));
    }
    host.tell(&events);

    let (desired_out, desired) = watch::channel(DesiredPods::default());
    let status = StatusHandle::default();
    let services = match &api {
        Some(api) => with_api_server(
            api,
            &config,
            &host,
            &runtime,
            &events,
            status.clone(),
            desired.clone(),
            &shutdown,
            &mut tasks,
        ),
        None => standalone(status.clone(), desired.clone(), &shutdown, &mut tasks),
    };
    let api_pods = services.api_pods;
    sources(&config, api_pods, desired_out, &shutdown, &mut tasks);

    let (tokens, objects): (Arc<dyn Tokens>, Arc<dyn ObjectRefs>) = match &api {
        Some(api) => (Arc::new(api.clone()), Arc::new(api.clone())),
        None => (Arc::new(NoApiServer), Arc::new(NoApiServer)),
    };
    let facts = Arc::new(host.pod_facts(&config).await);
    let volumes = VolumeSettings {
        root_dir: config.paths.root_dir.clone(),
        allocatable: facts.allocatable,
    };
    let deps = Arc::new(WorkerDeps {
        sandboxes: runtime.sandboxes.clone(),
        images: runtime.images.clone(),
        observer: runtime.observer.clone(),
        volumes: Arc::new(HostVolumes::new(volumes, tokens, objects.clone())),
        cgroups: host.cgroups.clone(),
        objects,
        services: services.services,
        status,
        events,
        node: facts,
        etc_hosts: Arc::new(|| std::fs::read_to_string(ETC_HOSTS).unwrap_or_default()),
        clock: Arc::new(Timestamp::now),
    });
    let (manager, pods) = Manager::new(deps, desired, shutdown.work.clone());
    let explain =
        ExplainServer::bind(&config.paths.root_dir, pods).map_err(|source| StartError::Listen {
            what: "explain socket",
            source,
        })?;
    tasks.add_fallible("explain", explain.run(shutdown.outlets.clone()));
    let health = match config.server.healthz {
        Some(address) => {
            let server = HealthServer::bind(address, health_checks(), registry)
                .await
                .map_err(|source| StartError::Listen {
                    what: "healthz address",
                    source,
                })?;
            let bound = server.address().ok();
            tasks.add_fallible("healthz", server.run(shutdown.outlets.clone()));
            bound
        }
        None => None,
    };
    info!(
        node = %config.node.name,
        standalone = api.is_none(),
        cgroup = ?host.version,
        version = crate::config::KUBERNETES_VERSION,
        "ready to run"
    );
    Ok(Agent::new(tasks, manager, shutdown, health))
}

/// Shutdown in two steps: workers put down their work, then what they reported
/// is sent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shutdown {
    pub(crate) work: CancellationToken,
    pub(crate) outlets: CancellationToken,
}

fn health_checks() -> Vec<HealthCheck> {
    ["ping", "log", "syncloop"]
        .map(|name| HealthCheck {
            name,
            // Each task's end ends the process, so answering is being well.
            check: Box::new(|| Ok(())),
        })
        .into()
}

// === the machine ===

/// What the machine is, and has been made into.
struct Host {
    machine: MachineFacts,
    node: Arc<NodeSettings>,
    version: CgroupVersion,
    cgroups: Arc<CgroupFs>,
    enforced: Option<Result<(), crate::cgroup::CgroupError>>,
}

impl Host {
    async fn prepare(config: &Config) -> Result<Self, StartError> {
        process::set_oom_score_adj(config.process.oom_score_adj);
        process::set_max_open_files(config.process.max_open_files);
        root_dir::create(&config.paths.root_dir)?;
        root_dir::ensure_shared(&config.paths.root_dir);
        let defaults = if config.cgroup.protect_kernel_defaults {
            KernelDefaults::Protect
        } else {
            KernelDefaults::Write
        };
        tunables::ensure(Path::new(tunables::SYSCTL_ROOT), defaults)?;
        let machine = facts::collect(&config.paths.root_dir)?;
        if config.pod.fail_swap_on && machine.swap > 0 {
            return Err(StartError::SwapOn);
        }
        let hierarchy = Hierarchy::detect()?;
        let version = hierarchy.version();
        if version == CgroupVersion::V1 && config.cgroup.fail_on_v1 {
            return Err(StartError::CgroupV1);
        }
        let driver = match config.cgroup.driver {
            CgroupDriver::Cgroupfs => "cgroupfs",
            CgroupDriver::Systemd => "systemd",
        };
        let cgroups = CgroupFs::new(
            driver,
            CgroupSettings {
                root: config.cgroup.root.clone(),
                hierarchy,
            },
        )?;
        let node = Arc::new(settings::node(config));
        let host = Self {
            enforced: None,
            machine,
            node,
            version,
            cgroups: Arc::new(cgroups),
        };
        host.enforce(config).await
    }

    /// Makes the tree and sets what all pods together may use.
    async fn enforce(mut self, config: &Config) -> Result<Self, StartError> {
        let limits = settings::root_limits(config, &self.machine);
        self.cgroups.ensure_classes().await?;
        let result = self.cgroups.set_root_limits(&limits).await;
        if let Err(error) = &result {
            warn!(error = %chain(error), "cannot limit what all pods together may use");
        }
        self.enforced = settings::enforces_pods(config).then_some(result);
        Ok(self)
    }

    /// Events that the machine itself is worth.
    fn tell(&self, events: &EventRecorder) {
        if self.version == CgroupVersion::V1 {
            events.record_node(node::events::cgroup_v1());
        }
        match &self.enforced {
            Some(Ok(())) => events.record_node(node::events::allocatable_enforced()),
            Some(Err(error)) => {
                events.record_node(node::events::allocatable_not_enforced("kubepods", error));
            }
            None => {}
        }
    }

    async fn pod_facts(&self, config: &Config) -> NodeFacts {
        let capacity = resources::capacity(&self.machine, &self.node);
        let allocatable = resources::allocatable(&capacity, &self.node);
        let host_ips = self.addresses().await;
        NodeFacts {
            node_name: config.node.name.clone(),
            dns: node_dns(config, &host_ips),
            host_ips,
            capacity: capacity.compute(),
            allocatable: allocatable.compute(),
            hugepage_sizes: self
                .machine
                .hugepages
                .iter()
                .map(facts::HugePages::cri_size)
                .collect(),
            cgroup: settings::cgroup(config, self.version),
            root_dir: config.paths.root_dir.clone(),
            pod_logs_dir: config.paths.pod_logs_dir.clone(),
            seccomp_default: config.pod.seccomp_default,
            runtime_name: RUNTIME_NAME.to_owned(),
            max_crash_backoff: config.pod.crash_backoff_max,
        }
    }

    async fn addresses(&self) -> Vec<IpAddr> {
        match address::discover(&self.node, &[]).await {
            Ok(addresses) => addresses,
            Err(error) => {
                warn!(error = %chain(&error), "cannot tell the node's own addresses");
                Vec::new()
            }
        }
    }
}

fn node_dns(config: &Config, host_ips: &[IpAddr]) -> NodeDns {
    let host = match &config.dns.resolv_conf {
        None => dns::resolver_on_node(host_ips),
        Some(path) => match facts::read_resolv_conf(path) {
            Ok(text) => dns::parse_resolv_conf(&text),
            Err(error) => {
                warn!(path = %path.display(), error = %chain(&error), "cannot read resolvConf");
                DnsSpec::default()
            }
        },
    };
    NodeDns {
        cluster_servers: config.dns.cluster_dns.clone(),
        cluster_domain: config.dns.cluster_domain.clone().unwrap_or_default(),
        host,
    }
}

// === the API server, or none ===

async fn connect(config: &Config) -> Result<Option<ApiServer>, StartError> {
    match settings::api(config) {
        None => Ok(None),
        Some(settings) => Ok(Some(apiserver::connect(&settings).await?)),
    }
}

fn recorder(
    config: &Config,
    api: Option<&ApiServer>,
) -> (EventRecorder, Option<apiserver::EventTask>) {
    let node_name: Arc<str> = config.node.name.as_str().into();
    match api {
        None => (EventRecorder::log_only(node_name), None),
        Some(api) => {
            let (recorder, task) = EventRecorder::new(node_name, Arc::new(api.clone()));
            (recorder, Some(task))
        }
    }
}

/// What workers and sources read of the API server.
struct ApiFeeds {
    api_pods: Option<apiserver::PodFeed>,
    services: apiserver::ServiceFeed,
}

fn standalone(
    status: StatusHandle,
    desired: watch::Receiver<DesiredPods>,
    shutdown: &Shutdown,
    tasks: &mut Tasks,
) -> ApiFeeds {
    let (task, _view) = StandaloneStatus::new(status, desired);
    tasks.add("status", task.run(shutdown.outlets.clone()));
    ApiFeeds {
        api_pods: None,
        services: watch::channel(None).1,
    }
}

/// Starts reflectors, the node's reports and pod statuses.
#[expect(
    clippy::too_many_arguments,
    reason = "one call, of handles made just before"
)]
fn with_api_server(
    api: &ApiServer,
    config: &Config,
    host: &Host,
    runtime: &runtime::Handles,
    events: &EventRecorder,
    status: StatusHandle,
    desired: watch::Receiver<DesiredPods>,
    shutdown: &Shutdown,
    tasks: &mut Tasks,
) -> ApiFeeds {
    let (pod_reflector, pods) = api.reflect_pods();
    let (node_reflector, node) = api.reflect_node();
    let (service_reflector, services) = api.reflect_services();
    tasks.add("pods", pod_reflector.run(shutdown.outlets.clone()));
    tasks.add("node-watch", node_reflector.run(shutdown.outlets.clone()));
    tasks.add("services", service_reflector.run(shutdown.outlets.clone()));

    let recorder = events.clone();
    let (node_task, registered) = NodeTask::new(NodeDeps {
        settings: host.node.clone(),
        facts: host.machine.clone(),
        extended: if facts::has_device_checkpoint(&config.paths.root_dir) {
            ExtendedResources::Keep
        } else {
            ExtendedResources::Zero
        },
        port: Arc::new(api.clone()),
        probe: Arc::new(HostProbe {
            settings: host.node.clone(),
            root_dir: config.paths.root_dir.clone(),
        }),
        health: runtime.observer.health(),
        images: runtime.inventory.clone(),
        node: node.clone(),
        events: Arc::new(move |event| recorder.record_node(event)),
    });
    tasks.add("node", node_task.run(shutdown.work.clone()));
    let lease = LeaseTask::new(
        Arc::new(api.clone()),
        config.node.name.clone(),
        config.node.lease_duration,
        registered,
    );
    tasks.add("lease", lease.run(shutdown.work.clone()));

    let (reporter, _view) = Reporter::new(ReporterInputs {
        updates: status,
        pods: pods.clone(),
        node,
        desired,
        port: Arc::new(api.clone()),
    });
    tasks.add("status", reporter.run(shutdown.outlets.clone()));
    ApiFeeds {
        api_pods: Some(pods),
        services,
    }
}

fn sources(
    config: &Config,
    api: Option<apiserver::PodFeed>,
    out: watch::Sender<DesiredPods>,
    shutdown: &Shutdown,
    tasks: &mut Tasks,
) {
    let (manifests, snapshot) = ManifestSource::new(ManifestConfig {
        path: config.source.static_pod_path.clone(),
        node_name: config.node.name.clone(),
        rescan_every: config.source.file_check_frequency,
    });
    tasks.add("manifests", manifests.run(shutdown.work.clone()));
    let sources = Sources {
        api,
        manifests: snapshot,
    };
    tasks.add("sources", source::run(sources, out, shutdown.work.clone()));
}
