//! Sections about the node itself: identity, API server, cgroups, reservations, events.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::Taint;

use super::super::cli::{NodeFlags, given};
use super::super::labels;
use super::super::raw::{self, KubeletConfiguration};
use super::super::schema::Setting;
use super::super::sections::{
    ApiConfig, CgroupConfig, CgroupDriver, Enforcement, EventConfig, IpFamily, NodeConfig, NodeIps,
    RateLimit, ReservedConfig,
};
use super::{Inputs, Problems, text};

/// Resources that can be withheld from pods.
const RESERVABLE: [&str; 4] = ["cpu", "memory", "ephemeral-storage", "pid"];

pub(super) fn node(inputs: &Inputs<'_>, problems: &mut Problems) -> NodeConfig {
    let Inputs { raw, flags, .. } = inputs;
    NodeConfig {
        name: inputs.node_name.clone(),
        ips: ips(given(&flags.node_ip), problems),
        labels: node_labels(&flags.node_labels, problems),
        taints: taints(&raw.register_with_taints, problems),
        provider_id: text(&raw.provider_id),
        register: raw.register_node.get(),
        external_cloud_provider: external_cloud(given(&flags.cloud_provider), problems),
        max_pods: problems.count(&raw.max_pods),
        pods_per_core: NonZeroU32::new(problems.count(&raw.pods_per_core)),
        status_update_frequency: problems.period(&raw.node_status_update_frequency),
        status_report_frequency: problems.period(&raw.node_status_report_frequency),
        lease_duration: lease_duration(raw, problems),
        max_images: max_images(&raw.node_status_max_images, problems),
        controller_attach_detach: raw.enable_controller_attach_detach.get(),
        local_storage_capacity_isolation: raw.local_storage_capacity_isolation.get(),
        standalone_pod_cidr: text(&raw.pod_cidr),
        make_iptables_util_chains: raw.make_iptables_util_chains.get(),
    }
}

fn ips(given: Option<&str>, problems: &mut Problems) -> NodeIps {
    let Some(given) = given else {
        return NodeIps::Auto;
    };
    let mut ips = Vec::new();
    for part in given.split(',').map(str::trim) {
        match part.parse::<IpAddr>() {
            Ok(ip) => ips.push(ip),
            Err(_) => problems.flag("node-ip", format!("{part:?} is not an IP address")),
        }
    }
    match *ips.as_slice() {
        [ip] if ip.is_unspecified() && ip.is_ipv6() => NodeIps::PreferFamily(IpFamily::V6),
        [ip] if ip.is_unspecified() => NodeIps::PreferFamily(IpFamily::V4),
        [ip] => NodeIps::One(ip),
        [first, second] if first.is_unspecified() || second.is_unspecified() => {
            problems.flag("node-ip", "0.0.0.0 and :: cannot be part of a pair");
            NodeIps::Auto
        }
        [first, second] if first.is_ipv4() != second.is_ipv4() => NodeIps::Pair(first, second),
        [] => NodeIps::Auto,
        _ => {
            problems.flag(
                "node-ip",
                "must be one address or a pair of one IPv4 and one IPv6 address",
            );
            NodeIps::Auto
        }
    }
}

fn node_labels(given: &[String], problems: &mut Problems) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for part in given.iter().flat_map(|text| text.split(',')) {
        if part.trim().is_empty() {
            continue;
        }
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        let (key, value) = (key.trim(), value.trim());
        if let Some(why) = labels::refusal(key, value) {
            problems.flag("node-labels", why);
        }
        all.insert(key.to_owned(), value.to_owned());
    }
    all
}

fn taints(setting: &Setting<Vec<raw::Taint>>, problems: &mut Problems) -> Vec<Taint> {
    setting
        .get()
        .into_iter()
        .map(|taint| {
            let (key, value, effect) = (taint.key.get(), taint.value.get(), taint.effect.get());
            if !labels::is_qualified_name(&key) {
                problems.add(
                    taint
                        .key
                        .invalid(format!("{key:?} is not a valid taint key")),
                );
            }
            if !labels::is_label_value(&value) {
                problems.add(
                    taint
                        .value
                        .invalid(format!("{value:?} is not a valid taint value")),
                );
            }
            let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"].map(|word| (word, ()));
            problems.one_of(&taint.effect, &effects);
            if taint.time_added.value.is_some() {
                problems.add(taint.time_added.invalid("must not be set"));
            }
            Taint {
                key,
                value: (!value.is_empty()).then_some(value),
                effect,
                time_added: None,
            }
        })
        .collect()
}

fn external_cloud(given: Option<&str>, problems: &mut Problems) -> bool {
    match given {
        None => false,
        Some("external") => true,
        Some(other) => {
            problems.flag(
                "cloud-provider",
                format!("must be empty or \"external\", is {other:?}"),
            );
            false
        }
    }
}

fn lease_duration(raw: &KubeletConfiguration, problems: &mut Problems) -> Duration {
    let setting = &raw.node_lease_duration_seconds;
    let seconds = u64::try_from(setting.get()).unwrap_or(0);
    if seconds == 0 {
        problems.add(setting.invalid("must be greater than 0"));
    }
    Duration::from_secs(seconds)
}

fn max_images(setting: &Setting<i32>, problems: &mut Problems) -> Option<usize> {
    match setting.get() {
        -1 => None,
        count => usize::try_from(count)
            .inspect_err(|_| problems.add(setting.invalid("must be -1 or greater")))
            .ok(),
    }
}

pub(super) fn api(
    raw: &KubeletConfiguration,
    flags: &NodeFlags,
    problems: &mut Problems,
) -> ApiConfig {
    /// Upstream's meaning of a rate of zero for the API server, which is not "unlimited".
    /// The unwrap is evaluated at compile time.
    const ZERO_QPS: NonZeroU32 = NonZeroU32::new(50).unwrap();
    let kubeconfig = given(&flags.kubeconfig).map(PathBuf::from);
    let bootstrap_kubeconfig = given(&flags.bootstrap_kubeconfig).map(PathBuf::from);
    if bootstrap_kubeconfig.is_some() && kubeconfig.is_none() {
        problems.flag(
            "bootstrap-kubeconfig",
            "needs --kubeconfig, which says where to write the credentials",
        );
    }
    let burst = problems.count(&raw.kube_api_burst);
    ApiConfig {
        kubeconfig,
        bootstrap_kubeconfig,
        rate: RateLimit {
            per_second: NonZeroU32::new(problems.count(&raw.kube_api_qps)).unwrap_or(ZERO_QPS),
            burst: if burst == 0 { 100 } else { burst },
        },
        rotate_certificates: raw.rotate_certificates.get(),
        cert_dir: flags.cert_dir.clone(),
    }
}

pub(super) fn cgroup(raw: &KubeletConfiguration, problems: &mut Problems) -> CgroupConfig {
    let drivers = [
        ("cgroupfs", CgroupDriver::Cgroupfs),
        ("systemd", CgroupDriver::Systemd),
    ];
    CgroupConfig {
        driver: problems
            .one_of(&raw.cgroup_driver, &drivers)
            .unwrap_or(CgroupDriver::Cgroupfs),
        root: text(&raw.cgroup_root).unwrap_or_else(|| "/".to_owned()),
        per_qos: raw.cgroups_per_qos.get(),
        fail_on_v1: raw.fail_cgroup_v1.get(),
        single_process_oom_kill: raw.single_process_oom_kill.value,
        enforce: enforcements(&raw.enforce_node_allocatable, problems),
        kube_reserved_cgroup: text(&raw.kube_reserved_cgroup),
        system_reserved_cgroup: text(&raw.system_reserved_cgroup),
        kubelet_cgroup: text(&raw.kubelet_cgroups),
        system_cgroup: text(&raw.system_cgroups),
        protect_kernel_defaults: raw.protect_kernel_defaults.get(),
    }
}

fn enforcements(setting: &Setting<Vec<String>>, problems: &mut Problems) -> BTreeSet<Enforcement> {
    let mut all = BTreeSet::new();
    let words = setting.get();
    for word in &words {
        let enforcement = match word.as_str() {
            "none" if words.len() == 1 => continue,
            "none" => {
                problems.add(setting.invalid("\"none\" cannot be combined with others"));
                continue;
            }
            "pods" => Enforcement::Pods,
            "system-reserved" => Enforcement::SystemReserved,
            "system-reserved-compressible" => Enforcement::SystemReservedCompressible,
            "kube-reserved" => Enforcement::KubeReserved,
            "kube-reserved-compressible" => Enforcement::KubeReservedCompressible,
            other => {
                problems.add(setting.invalid(format!(
                    "{other:?} is not one of none, pods, system-reserved, kube-reserved, \
                     system-reserved-compressible, kube-reserved-compressible"
                )));
                continue;
            }
        };
        if !all.insert(enforcement) {
            problems.add(setting.invalid(format!("{word:?} is repeated")));
        }
    }
    all
}

pub(super) fn reserved(raw: &KubeletConfiguration, problems: &mut Problems) -> ReservedConfig {
    let mut kube = problems.quantities(&raw.kube_reserved, &RESERVABLE);
    let mut system = problems.quantities(&raw.system_reserved, &RESERVABLE);
    let cpus = match text(&raw.reserved_system_cpus) {
        None => BTreeSet::new(),
        Some(list) => parse_cpu_list(&list).unwrap_or_else(|| {
            problems.add(
                raw.reserved_system_cpus
                    .invalid(format!("{list:?} is not a list of CPUs like \"0-3,8\"")),
            );
            BTreeSet::new()
        }),
    };
    if !cpus.is_empty() {
        kube.remove("cpu");
        system.insert("cpu".to_owned(), cpus.len().to_string());
    }
    ReservedConfig { kube, system, cpus }
}

/// CPUs as Linux lists them: `0-3,8`.
fn parse_cpu_list(list: &str) -> Option<BTreeSet<u32>> {
    /// More CPUs than any machine has; a bound on what a typo can allocate.
    const MOST: u32 = 65_536;
    let mut cpus = BTreeSet::new();
    for part in list.split(',').map(str::trim) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last >= MOST {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

pub(super) fn events(raw: &KubeletConfiguration, problems: &mut Problems) -> EventConfig {
    EventConfig {
        rate: problems.rate(&raw.event_record_qps, &raw.event_burst),
    }
}
