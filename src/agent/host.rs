//! The machine: checked and made ready at start, and known from then on.
//!
//! In: the configuration. Out: [`Host`], with what others need to be told of
//! the machine; directories, kernel parameters and the cgroup tree as pods need
//! them.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::NodeStatus;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::reserved::{self, DaemonLimits};
use super::{StartError, settings};
use crate::apiserver::EventRecorder;
use crate::cgroup::{CgroupError, CgroupFs, CgroupSettings, Hierarchy};
use crate::config::{CgroupDriver, Config};
use crate::error::chain;
use crate::node::registration::{self, ExtendedResources};
use crate::node::tunables::{self, KernelDefaults};
use crate::node::{
    self, HostProbe, MachineFacts, NodeSettings, address, facts, process, resources, root_dir,
};
use crate::pod::admission::{self, NodeView, Support};
use crate::pod::dns;
use crate::pod::facts::{CgroupVersion, NodeDns, NodeFacts};
use crate::pod::spec::DnsSpec;
use crate::pod::sysctl::Allowlist;
use crate::pod::userns::{IdRange, IdRangeError};

/// The container runtime that this agent speaks to: the scheme of container
/// IDs (`containerd://…`).
const RUNTIME_NAME: &str = "containerd";

/// How long a limit that was refused is left alone; as upstream.
const ENFORCE_AGAIN: Duration = Duration::from_secs(60);

/// What the machine is, and has been made into.
pub(super) struct Host {
    pub(super) machine: MachineFacts,
    pub(super) node: Arc<NodeSettings>,
    pub(super) version: CgroupVersion,
    pub(super) cgroups: Arc<CgroupFs>,
    pub(super) hierarchy: Hierarchy,
    /// Where the users of pods with a user namespace are.
    pub(super) id_range: IdRange,
    /// Whether the limits of all pods together could be set; `None`: not asked
    /// for.
    enforced: Option<Result<(), CgroupError>>,
    /// Limits of daemons that were set.
    daemons: Vec<DaemonLimits>,
    /// What is wrong with `resolvConf`.
    resolver_problem: Option<String>,
}

impl Host {
    /// Reads the machine, checks it, and makes what pods need of it.
    ///
    /// # Errors
    /// If it cannot carry an agent.
    pub(super) async fn prepare(config: &Config) -> Result<Self, StartError> {
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
                hierarchy: hierarchy.clone(),
            },
        )?;
        let node = Arc::new(settings::node(config));
        let host = Self {
            enforced: None,
            daemons: reserved::daemons(config),
            resolver_problem: resolver_problem(config),
            machine,
            node,
            version,
            cgroups: Arc::new(cgroups),
            hierarchy,
            id_range: id_range(config)?,
        };
        host.enforce(config).await
    }

    /// Makes the tree and sets what all pods together, and the daemons, may use.
    async fn enforce(mut self, config: &Config) -> Result<Self, StartError> {
        let limits = settings::root_limits(config, &self.machine);
        self.cgroups.ensure_classes().await?;
        let result = self.cgroups.set_root_limits(&limits).await;
        if let Err(error) = &result {
            warn!(error = %chain(error), "cannot limit what all pods together may use");
        }
        self.enforced = settings::enforces_pods(config).then_some(result);
        for DaemonLimits {
            who,
            cgroup,
            limits,
        } in &self.daemons
        {
            let set = self.cgroups.set_daemon_limits(cgroup, limits).await;
            set.map_err(|source| StartError::Reserved {
                who,
                cgroup: cgroup.clone(),
                source,
            })?;
        }
        Ok(self)
    }

    /// Events that the machine itself is worth.
    pub(super) fn tell(&self, events: &EventRecorder) {
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
        if let Some(problem) = &self.resolver_problem {
            events.record_node(node::events::resolver_limits(problem.clone()));
        }
        for DaemonLimits { who, cgroup, .. } in &self.daemons {
            events.record_node(node::events::daemons_limited(who, cgroup));
        }
    }

    /// Goes on trying to limit what all pods together may use; `None` if that was
    /// done at the start. Pods that run already may use more than the limit, and
    /// the kernel refuses it until they use less.
    pub(super) fn enforce_later(
        &self,
        config: &Config,
        events: &EventRecorder,
        shutdown: CancellationToken,
    ) -> Option<impl Future<Output = ()> + Send + use<>> {
        if !matches!(self.enforced, Some(Err(_))) {
            return None;
        }
        let limits = settings::root_limits(config, &self.machine);
        let (cgroups, events) = (self.cgroups.clone(), events.clone());
        Some(async move {
            loop {
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => return,
                    () = tokio::time::sleep(ENFORCE_AGAIN) => {}
                }
                match cgroups.set_root_limits(&limits).await {
                    Ok(()) => break,
                    Err(error) => events
                        .record_node(node::events::allocatable_not_enforced("kubepods", &error)),
                }
            }
            events.record_node(node::events::allocatable_enforced());
            shutdown.cancelled().await;
        })
    }

    /// What pods are rendered with.
    pub(super) async fn pod_facts(&self, config: &Config) -> NodeFacts {
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
            thermal_paths: facts::thermal_paths(),
            runtime_name: RUNTIME_NAME.to_owned(),
            max_crash_backoff: config.pod.crash_backoff_max,
        }
    }

    /// The node as this machine knows it by itself, for admission.
    pub(super) fn node_view(&self) -> NodeView {
        let capacity = resources::capacity(&self.machine, &self.node);
        let allocatable = resources::allocatable(&capacity, &self.node);
        let mut node = registration::initial_node(&self.node, &self.machine);
        node.status = Some(NodeStatus {
            allocatable: Some(allocatable.to_list()),
            ..NodeStatus::default()
        });
        NodeView::of(&node)
    }

    /// What pods are judged by, besides the node.
    pub(super) fn admission(&self, config: &Config) -> admission::Settings {
        let support = |present| {
            if present {
                Support::Present
            } else {
                Support::Absent
            }
        };
        admission::Settings {
            sysctls: Allowlist::new(
                &self.machine.kernel_version,
                &config.pod.allowed_unsafe_sysctls,
            ),
            apparmor: support(facts::has_apparmor()),
            pod_level_resources: support(config.gates.enabled("PodLevelResources")),
        }
    }

    /// What changes on the machine, for the node's status.
    pub(super) fn probe(&self, config: &Config) -> HostProbe {
        HostProbe {
            settings: self.node.clone(),
            root_dir: config.paths.root_dir.clone(),
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

/// Devices that plugins offered before a restart are kept until they are heard
/// of again.
pub(super) fn extended_resources(config: &Config) -> ExtendedResources {
    if facts::has_device_checkpoint(&config.paths.root_dir) {
        ExtendedResources::Keep
    } else {
        ExtendedResources::Zero
    }
}

/// A file that cannot be read sets nothing aside.
fn id_range(config: &Config) -> Result<IdRange, IdRangeError> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    IdRange::of_node(
        &read("/etc/subuid"),
        &read("/etc/subgid"),
        config.pod.user_namespace_ids,
        config.node.max_pods,
    )
}

fn resolver_problem(config: &Config) -> Option<String> {
    let path = config.dns.resolv_conf.as_ref()?;
    let domain = config.dns.cluster_domain.as_deref().unwrap_or_default();
    match facts::read_resolv_conf(path) {
        Ok(text) => {
            let file = path.display().to_string();
            dns::host_limits(&dns::parse_resolv_conf(&text), &file, domain)
        }
        Err(error) => Some(format!("open {}: {error}", path.display())),
    }
}

/// Reads the node's resolver settings whenever it is called; `None` if they are
/// in no file, or cannot be read.
pub(super) fn resolver(config: &Config) -> impl Fn() -> Option<DnsSpec> + Send + Sync + use<> {
    let path = config.dns.resolv_conf.clone();
    move || {
        let text = facts::read_resolv_conf(path.as_ref()?).ok()?;
        Some(dns::parse_resolv_conf(&text))
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
