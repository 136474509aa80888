//! From the configuration to what each module wants to be told. No decisions:
//! only names and units change here.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::apiserver::{ApiSettings, Credentials, IdentitySettings, Rate, Renewal};
use crate::certificate::Store;
use crate::cgroup::{Hierarchy, RootLimits};
use crate::config::{
    ApiConfig, CgroupConfig, CgroupDriver, Config, Enforcement, EventConfig, EvictionSignal,
    LocalTraffic, NodeIps, NodePortAddresses, ProxyConfig, ProxyProcessConfig, RateLimit,
    ReservedConfig, ThresholdValue,
};
use crate::node::resources::pod_budget;
use crate::node::{self, HardEviction, MachineFacts, NodeSettings, Reserved, Threshold};
use crate::pod::facts::CgroupFacts;
use crate::pod::facts::CgroupVersion;
use crate::pod::quantity::Quantity;
use crate::proxy;
use crate::proxy::limits::LimitSettings;
use crate::proxy::pace::PaceLimits;
use crate::proxy::settings::{NodePortChoice, ProxySettings};
use crate::runtime::{
    self, CredentialDirs, CredentialPlugin, ImageSettings, LogRotationSettings, PullRate,
    RuntimeSettings,
};
use crate::server::api::container_logs::StreamChoice;
use crate::server::api::node_logs::{NodeLogSettings, NodeLogs};
use crate::stats::{self, CgroupNames, DiskSettings, MachineInfo, StatsSettings};

/// How often all of the runtime is listed anew although events arrive.
const RELIST_PERIOD: Duration = Duration::from_secs(30);
/// What `/logs/` serves.
const NODE_LOGS: &str = "/var/log";
/// Where log shippers look for links to log files.
const CONTAINER_LINKS: &str = "/var/log/containers";

pub(super) fn api(config: &Config) -> Option<ApiSettings> {
    let api = &config.api;
    let kubeconfig = api.kubeconfig.clone()?;
    Some(ApiSettings {
        credentials: match api.rotate_certificates {
            true => Credentials::Node {
                kubeconfig,
                certificate: client_store(api),
            },
            false => Credentials::Kubeconfig(kubeconfig),
        },
        node_name: Arc::from(config.node.name.as_str()),
        calls: Some(rate(api.rate)),
        events: events(&config.events),
    })
}

fn client_store(api: &ApiConfig) -> Store {
    Store::new(api.cert_dir.clone(), "kubelet-client")
}

/// How the node's own certificate is got and renewed; `None` if neither is wanted.
pub(super) fn identity(config: &Config) -> Option<IdentitySettings> {
    let api = &config.api;
    let renewal = match (api.rotate_certificates, &api.bootstrap_kubeconfig) {
        (true, _) => Renewal::InTime,
        (false, Some(_)) => Renewal::Never,
        (false, None) => return None,
    };
    Some(IdentitySettings {
        node_name: config.node.name.clone(),
        kubeconfig: api.kubeconfig.clone()?,
        bootstrap: api.bootstrap_kubeconfig.clone(),
        store: client_store(api),
        renewal,
    })
}

fn events(config: &EventConfig) -> Option<Rate> {
    config.rate.map(rate)
}

fn rate(limit: RateLimit) -> Rate {
    Rate {
        per_second: f64::from(limit.per_second.get()),
        burst: limit.burst,
    }
}

/// How `kubelet proxy` reaches the API server.
pub(super) fn proxy_api(config: &ProxyConfig, process: &ProxyProcessConfig) -> ApiSettings {
    ApiSettings {
        credentials: match &process.kubeconfig {
            Some(file) => Credentials::Kubeconfig(file.clone()),
            None => Credentials::ServiceAccount,
        },
        node_name: Arc::from(config.node_name.as_str()),
        calls: process.rate.map(rate),
        events: None,
    }
}

pub(super) fn proxy(config: &ProxyConfig) -> ProxySettings {
    ProxySettings {
        bind_address: config.bind_address,
        masquerade_bit: config.masquerade_bit,
        masquerade_all: config.masquerade_all,
        localhost_node_ports: config.localhost_node_ports,
        local: match &config.local {
            LocalTraffic::ClusterCidr { v4, v6 } => {
                let ranges = [v4.map(IpNet::V4), v6.map(IpNet::V6)];
                proxy::settings::LocalTraffic::ClusterCidrs(ranges.into_iter().flatten().collect())
            }
            LocalTraffic::NodeCidr => proxy::settings::LocalTraffic::NodeCidrs,
            LocalTraffic::BridgeInterface(name) => {
                proxy::settings::LocalTraffic::BridgeInterface(name.as_str().into())
            }
            LocalTraffic::InterfaceNamePrefix(prefix) => {
                proxy::settings::LocalTraffic::InterfaceNamePrefix(prefix.as_str().into())
            }
        },
        node_ports: match &config.node_port_addresses {
            NodePortAddresses::All => NodePortChoice::All,
            NodePortAddresses::Primary => NodePortChoice::Primary,
            NodePortAddresses::Cidrs(ranges) => NodePortChoice::Cidrs(ranges.clone()),
        },
        pace: PaceLimits {
            longest: config.min_sync_period,
            longest_retry: config.sync_period,
        },
    }
}

pub(super) fn proxy_limits(config: &ProxyConfig) -> LimitSettings {
    let conntrack = &config.conntrack;
    LimitSettings {
        max_per_core: conntrack.max_per_core.map_or(0, NonZeroU32::get),
        min: conntrack.min,
        tcp_established_timeout: conntrack.tcp_established_timeout.unwrap_or_default(),
        tcp_close_wait_timeout: conntrack.tcp_close_wait_timeout.unwrap_or_default(),
        udp_timeout: conntrack.udp_timeout.unwrap_or_default(),
        udp_stream_timeout: conntrack.udp_stream_timeout.unwrap_or_default(),
        tcp_be_liberal: conntrack.tcp_be_liberal,
        localhost_node_ports: config.localhost_node_ports,
    }
}

pub(super) fn runtime(config: &Config) -> RuntimeSettings {
    RuntimeSettings {
        endpoint: config.runtime.endpoint.clone(),
        image_endpoint: (config.runtime.image_endpoint != config.runtime.endpoint)
            .then(|| config.runtime.image_endpoint.clone()),
        request_timeout: config.runtime.request_timeout,
        pod_logs_dir: config.paths.pod_logs_dir.clone(),
        container_links_dir: CONTAINER_LINKS.into(),
        images: images(config),
        relist_period: RELIST_PERIOD,
    }
}

fn images(config: &Config) -> ImageSettings {
    let from = &config.images;
    ImageSettings {
        max_parallel_pulls: from
            .max_parallel_pulls
            .and_then(|max| NonZeroUsize::try_from(max).ok()),
        pull_rate: from.pull_rate.map(|limit| PullRate {
            per_second: limit.per_second,
            burst: std::num::NonZeroU32::new(limit.burst).unwrap_or(limit.per_second),
        }),
        credential_plugins: from
            .credential_providers
            .iter()
            .map(|provider| CredentialPlugin {
                name: provider.name.clone(),
                directory: provider.directory.clone(),
                args: provider.args.clone(),
                env: provider.env.clone(),
                match_images: provider.match_images.clone(),
                default_cache: provider.default_cache,
                api_version: provider.api_version.clone(),
            })
            .collect(),
        credential_dirs: credential_dirs(&config.paths.root_dir),
        records: config.paths.root_dir.join("image_manager"),
        verification: from.verification.clone(),
    }
}

/// Where upstream looks for credentials: the agent's own directory, the working
/// directory, its user's, and the root.
fn credential_dirs(root_dir: &Path) -> CredentialDirs {
    let home = std::env::home_dir();
    let docker = home.iter().map(|home| home.join(".docker"));
    let here = || PathBuf::from(".");
    CredentialDirs {
        config_json: [root_dir.to_owned(), here()]
            .into_iter()
            .chain(docker)
            .chain([PathBuf::from("/.docker")])
            .collect(),
        docker_cfg: [root_dir.to_owned(), here()]
            .into_iter()
            .chain(home.clone())
            .chain([PathBuf::from("/")])
            .collect(),
    }
}

pub(super) fn node_logs(config: &Config) -> NodeLogSettings {
    let handlers = &config.server.handlers;
    NodeLogSettings {
        serve: match (handlers.system_logs, handlers.system_log_query) {
            (false, _) => NodeLogs::Disabled,
            (true, false) => NodeLogs::Files,
            (true, true) => NodeLogs::FilesAndQueries,
        },
        directory: NODE_LOGS.into(),
        journalctl: "journalctl".into(),
    }
}

pub(super) fn log_streams(config: &Config) -> StreamChoice {
    if config.gates.enabled("PodLogsQuerySplitStreams") {
        StreamChoice::Allowed
    } else {
        StreamChoice::Refused
    }
}

/// `None`: logs are not rotated.
pub(super) fn log_rotation(config: &Config) -> Option<LogRotationSettings> {
    let logs = &config.container_logs;
    Some(LogRotationSettings {
        directory: config.paths.pod_logs_dir.clone(),
        max_bytes: logs.max_bytes?,
        max_files: logs.max_files,
        workers: logs.workers,
        interval: logs.monitor_interval,
    })
}

pub(super) fn node(config: &Config) -> NodeSettings {
    let from = &config.node;
    NodeSettings {
        name: from.name.clone(),
        ips: match from.ips {
            NodeIps::Auto => node::NodeIps::Auto,
            NodeIps::PreferFamily(crate::config::IpFamily::V4) => node::NodeIps::PreferV4,
            NodeIps::PreferFamily(crate::config::IpFamily::V6) => node::NodeIps::PreferV6,
            NodeIps::One(ip) => node::NodeIps::One(ip),
            NodeIps::Pair(first, second) => node::NodeIps::Pair(first, second),
        },
        labels: from.labels.clone(),
        taints: from.taints.clone(),
        provider_id: from.provider_id.clone(),
        register: from.register,
        external_cloud_provider: from.external_cloud_provider,
        max_pods: from.max_pods,
        pods_per_core: from.pods_per_core.map(std::num::NonZeroU32::get),
        status_update_frequency: from.status_update_frequency,
        status_report_frequency: from.status_report_frequency,
        lease_duration: from.lease_duration,
        max_images: from.max_images,
        controller_attach_detach: from.controller_attach_detach,
        local_storage_isolation: from.local_storage_capacity_isolation,
        port: config.server.secure.map_or(0, |address| address.port()),
        kubelet_version: crate::config::KUBERNETES_VERSION.to_owned(),
        reserved: reserved(&config.reserved),
        eviction: hard_eviction(config),
        pressure_transition_period: config.eviction.pressure_transition_period,
    }
}

pub(super) fn reserved(config: &ReservedConfig) -> Reserved {
    let sum = |resource: &str, unit: fn(Quantity) -> i64| {
        [&config.kube, &config.system]
            .into_iter()
            .filter_map(|amounts| amounts.get(resource))
            .filter_map(|amount| Quantity::parse(amount).ok())
            .map(unit)
            .fold(0, i64::saturating_add)
    };
    Reserved {
        milli_cpu: sum("cpu", Quantity::milli_value),
        memory: sum("memory", Quantity::value),
        ephemeral_storage: sum("ephemeral-storage", Quantity::value),
        pids: sum("pid", Quantity::value),
    }
}

fn hard_eviction(config: &Config) -> HardEviction {
    let threshold = |signal| {
        config
            .eviction
            .hard
            .get(&signal)
            .and_then(|value| match value {
                ThresholdValue::Quantity(amount) => Quantity::parse(amount)
                    .ok()
                    .map(|amount| Threshold::Amount(amount.value())),
                ThresholdValue::Percent(percent) => Some(Threshold::Percent(*percent as f32)),
            })
    };
    HardEviction {
        memory_available: threshold(EvictionSignal::MemoryAvailable),
        nodefs_available: threshold(EvictionSignal::NodeFsAvailable),
        nodefs_inodes_free: threshold(EvictionSignal::NodeFsInodesFree),
        pid_available: threshold(EvictionSignal::PidAvailable),
        in_allocatable: !config.eviction.ignored_in_allocatable,
    }
}

pub(super) fn enforces_pods(config: &Config) -> bool {
    config.cgroup.enforce.contains(&Enforcement::Pods)
}

/// What all pods together may use. Without `enforceNodeAllocatable: [pods]`
/// that is the whole machine, which still gives pods their share of CPU time.
pub(super) fn root_limits(config: &Config, machine: &MachineFacts) -> RootLimits {
    let enforced = enforces_pods(config);
    let reserved = if enforced {
        reserved(&config.reserved)
    } else {
        Reserved::default()
    };
    let budget = pod_budget(machine, &reserved);
    let unsigned = |amount: i64| u64::try_from(amount).unwrap_or(0);
    RootLimits {
        cpu_shares: Some((unsigned(budget.milli_cpu) * 1024 / 1000).max(2)),
        memory_limit: enforced.then(|| unsigned(budget.memory)),
        pids_limit: (enforced && reserved.pids > 0).then_some(budget.pids),
    }
}

pub(super) fn cgroup(config: &Config, version: CgroupVersion) -> CgroupFacts {
    let CgroupConfig {
        root,
        per_qos,
        single_process_oom_kill,
        ..
    } = &config.cgroup;
    CgroupFacts {
        version,
        root: root.clone(),
        per_qos: *per_qos,
        enforce_cpu_quota: config.pod.cpu_cfs_quota,
        cpu_quota_period: config.pod.cpu_cfs_quota_period,
        pids_limit: config
            .pod
            .pids_limit
            .map(|limit| i64::try_from(limit).unwrap_or(i64::MAX)),
        single_process_oom_kill: version == CgroupVersion::V1
            || single_process_oom_kill.unwrap_or(false),
    }
}

pub(super) fn stats(
    config: &Config,
    machine: &MachineFacts,
    hierarchy: Hierarchy,
) -> StatsSettings {
    StatsSettings {
        node_name: config.node.name.clone(),
        hierarchy,
        names: CgroupNames {
            driver: match config.cgroup.driver {
                CgroupDriver::Cgroupfs => runtime::CgroupDriver::Cgroupfs,
                CgroupDriver::Systemd => runtime::CgroupDriver::Systemd,
            },
            root: config.cgroup.root.clone(),
        },
        disk: DiskSettings {
            root_dir: config.paths.root_dir.clone(),
            pod_logs_dir: config.paths.pod_logs_dir.clone(),
            volume_period: config.pod.volume_stats_period,
        },
        machine: MachineInfo {
            cpus: machine.cpus,
            topology: stats::topology(),
            memory: machine.memory,
            swap: machine.swap,
            machine_id: machine.machine_id.clone(),
            system_uuid: machine.system_uuid.clone(),
            boot_id: machine.boot_id.clone(),
            kernel_version: machine.kernel_version.clone(),
            os_image: machine.os_image.clone(),
        },
        runtime_cgroup: config.runtime.runtime_cgroup.clone(),
    }
}
