//! The defaults of `KubeletConfiguration`, including those that depend on other fields.
//!
//! Fields without a line here have no default: unset is a meaning of its own, or it is the
//! type's zero.

use std::collections::BTreeMap;

use super::document::{Node, Value};
use super::duration::GoDuration;
use super::error::Origin;
use super::raw::{FlushFrequency, KubeletConfiguration, Logging, QuantityText};
use super::schema::Read;

/// Thresholds of a configuration file that sets none.
const EVICTION_HARD: [(&str, &str); 5] = [
    ("memory.available", "100Mi"),
    ("nodefs.available", "10%"),
    ("nodefs.inodesFree", "5%"),
    ("imagefs.available", "15%"),
    ("imagefs.inodesFree", "5%"),
];

const fn secs(n: i64) -> GoDuration {
    GoDuration::from_secs(n)
}

/// The layer below all others when there is no `--config`: the defaults from before there
/// were configuration files, which never hardened so as not to break old command lines.
/// Drop-ins and flags are laid over it.
pub(super) fn legacy_layer() -> Node {
    let origin = Origin::LegacyDefault;
    let mut layer = Node::empty_map(origin.clone());
    let mut set = |path: &str, value: Value| {
        let origin = origin.clone();
        layer.set(path, Node { origin, value });
    };
    set("authentication.anonymous.enabled", Value::Bool(true));
    set("authentication.webhook.enabled", Value::Bool(false));
    set("authorization.mode", Value::Text("AlwaysAllow".to_owned()));
    set("readOnlyPort", Value::Integer(10255));
    set("evictionHard", Value::Map(BTreeMap::new()));
    layer
}

/// Completes `evictionHard` of the `--config` file, before drop-ins are laid over it: all
/// the defaults if the field is absent, the missing ones if the file asks for a merge.
pub(super) fn complete_eviction_hard(file: &mut Node) {
    let is_set = |path: &str| file.at(path).is_some_and(|node| node.value != Value::Null);
    let merge = file
        .at("mergeDefaultEvictionSettings")
        .is_some_and(|node| node.value == Value::Bool(true));
    let mut layer = Node::empty_map(Origin::Default);
    if is_set("evictionHard") && !merge {
        return;
    }
    let missing: Vec<_> = EVICTION_HARD
        .iter()
        .filter(|(signal, _)| {
            file.get("evictionHard")
                .and_then(|map| map.get(signal))
                .is_none()
        })
        .collect();
    for (signal, threshold) in missing {
        let node = Node {
            origin: Origin::Default,
            value: Value::Text((*threshold).to_owned()),
        };
        layer.insert(signal, node);
    }
    let mut completed = Node::empty_map(Origin::Default);
    completed.insert("evictionHard", layer);
    file.merge(completed);
}

/// Fills in everything that has a default.
pub(super) fn apply(raw: &mut KubeletConfiguration) {
    frequencies(raw);
    server(raw);
    authentication(raw);
    node(raw);
    resources(raw);
    images_and_logs(raw);
}

fn frequencies(raw: &mut KubeletConfiguration) {
    raw.sync_frequency.default_zero_to(secs(60));
    raw.file_check_frequency.default_zero_to(secs(20));
    raw.http_check_frequency.default_zero_to(secs(20));
    raw.streaming_connection_idle_timeout
        .default_zero_to(secs(4 * 3600));
    // A file that only says how often to compute status means that for reporting, too. On
    // the command line the flag came after reporting had its default.
    let update = &raw.node_status_update_frequency;
    let report = if update.get() == GoDuration::ZERO || update.origin.is_flag() {
        secs(300)
    } else {
        update.get()
    };
    raw.node_status_report_frequency.default_zero_to(report);
    raw.node_status_update_frequency.default_zero_to(secs(10));
    raw.node_lease_duration_seconds.default_zero_to(40);
    raw.volume_stats_agg_period.default_zero_to(secs(60));
    raw.runtime_request_timeout.default_zero_to(secs(120));
    raw.cpu_manager_reconcile_period.default_zero_to(secs(10));
    raw.crash_loop_back_off
        .max_container_restart_period
        .default_to(secs(300));
}

fn server(raw: &mut KubeletConfiguration) {
    raw.enable_server.default_to(true);
    raw.address.default_zero_to("0.0.0.0".to_owned());
    raw.port.default_zero_to(10250);
    raw.healthz_port.default_to(10248);
    raw.healthz_bind_address
        .default_zero_to("127.0.0.1".to_owned());
    raw.enable_debugging_handlers.default_to(true);
    raw.enable_system_log_handler.default_to(true);
    raw.enable_profiling_handler.default_to(true);
    raw.enable_debug_flags_handler.default_to(true);
    logging(&mut raw.logging);
}

/// The defaults of `logging`, which is the same in all configuration files.
pub(super) fn logging(raw: &mut Logging) {
    raw.format.default_zero_to("text".to_owned());
    for routing in [&mut raw.options.text, &mut raw.options.json] {
        routing
            .info_buffer_size
            .default_to(QuantityText("0".to_owned()));
    }
    raw.flush_frequency.default_zero_to(FlushFrequency(secs(5)));
}

fn authentication(raw: &mut KubeletConfiguration) {
    let authentication = &mut raw.authentication;
    authentication.anonymous.enabled.default_to(false);
    authentication.webhook.enabled.default_to(true);
    authentication.webhook.cache_ttl.default_zero_to(secs(120));
    let authorization = &mut raw.authorization;
    authorization.mode.default_zero_to("Webhook".to_owned());
    let webhook = &mut authorization.webhook;
    webhook.cache_authorized_ttl.default_zero_to(secs(300));
    webhook.cache_unauthorized_ttl.default_zero_to(secs(30));
}

fn node(raw: &mut KubeletConfiguration) {
    raw.event_record_qps.default_to(50);
    raw.event_burst.default_zero_to(100);
    raw.kube_api_qps.default_to(50);
    raw.kube_api_burst.default_zero_to(100);
    raw.content_type
        .default_zero_to("application/vnd.kubernetes.protobuf".to_owned());
    raw.oom_score_adj.default_to(-999);
    raw.max_open_files.default_zero_to(1_000_000);
    raw.max_pods.default_zero_to(110);
    raw.node_status_max_images.default_to(50);
    raw.register_node.default_to(true);
    raw.enable_controller_attach_detach.default_to(true);
    raw.local_storage_capacity_isolation.default_to(true);
    raw.make_iptables_util_chains.default_to(true);
    raw.iptables_masquerade_bit.default_to(14);
    raw.iptables_drop_bit.default_to(15);
    raw.hairpin_mode
        .default_zero_to("promiscuous-bridge".to_owned());
    raw.resolv_conf.default_to("/etc/resolv.conf".to_owned());
    raw.change_detection_strategy
        .default_zero_to("Watch".to_owned());
    raw.volume_plugin_dir
        .default_zero_to("/usr/libexec/kubernetes/kubelet-plugins/volume/exec/".to_owned());
    raw.container_runtime_endpoint
        .default_zero_to("unix:///run/containerd/containerd.sock".to_owned());
}

fn resources(raw: &mut KubeletConfiguration) {
    raw.cgroups_per_qos.default_to(true);
    raw.cgroup_driver.default_zero_to("cgroupfs".to_owned());
    raw.fail_cgroup_v1.default_to(true);
    raw.enforce_node_allocatable
        .default_to(vec!["pods".to_owned()]);
    raw.cpu_manager_policy.default_zero_to("none".to_owned());
    raw.memory_manager_policy.default_zero_to("None".to_owned());
    raw.topology_manager_policy
        .default_zero_to("none".to_owned());
    raw.topology_manager_scope
        .default_zero_to("container".to_owned());
    raw.cpu_cfs_quota.default_to(true);
    raw.cpu_cfs_quota_period
        .default_to(GoDuration::from_millis(100));
    raw.pod_pids_limit.default_to(-1);
    raw.fail_swap_on.default_to(true);
    raw.memory_swap
        .swap_behavior
        .default_zero_to("NoSwap".to_owned());
    raw.memory_throttling_factor.default_to(0.9);
    raw.memory_reservation_policy
        .default_zero_to("None".to_owned());
    raw.seccomp_default.default_to(false);
    raw.user_namespaces.ids_per_pod.default_to(65536);
    raw.eviction_pressure_transition_period
        .default_zero_to(secs(300));
    raw.merge_default_eviction_settings.default_to(false);
}

fn images_and_logs(raw: &mut KubeletConfiguration) {
    raw.registry_pull_qps.default_to(5);
    raw.registry_burst.default_zero_to(10);
    // Asking for parallel pulls is asking for pulls not to be serialized.
    let parallel = raw.max_parallel_image_pulls.get() >= 2;
    raw.serialize_image_pulls.default_to(!parallel);
    raw.image_pull_credentials_verification_policy
        .default_zero_to("NeverVerifyPreloadedImages".to_owned());
    raw.image_minimum_gc_age.default_zero_to(secs(120));
    raw.image_gc_high_threshold_percent.default_to(85);
    raw.image_gc_low_threshold_percent.default_to(80);
    raw.container_log_max_size
        .default_zero_to("10Mi".to_owned());
    raw.container_log_max_files.default_to(5);
    raw.container_log_max_workers.default_to(1);
    raw.container_log_monitor_interval.default_to(secs(10));
    raw.pod_logs_dir.default_zero_to("/var/log/pods".to_owned());
}

/// A configuration in which nobody set anything, to compare others with.
pub(super) fn pristine() -> KubeletConfiguration {
    let mut file = Node::empty_map(Origin::Default);
    complete_eviction_hard(&mut file);
    let mut raw = KubeletConfiguration::read(Some(&file), "", &mut Vec::new());
    apply(&mut raw);
    raw
}
