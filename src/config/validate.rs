//! Rules between fields, and rules for fields no module reads yet: a configuration that
//! upstream refuses is refused here, whether or not the field would do anything.

use std::collections::BTreeSet;

use super::duration::GoDuration;
use super::error::Problem;
use super::gates::FeatureGates;
use super::raw::KubeletConfiguration;
use super::resolve::Problems;
use super::schema::Setting;
use crate::pod::quantity::Quantity;
use crate::pod::sysctl;

/// Checks defaulted fields; adds every broken rule to `problems`.
pub(super) fn check(raw: &KubeletConfiguration, gates: &FeatureGates, problems: &mut Problems) {
    words(raw, problems);
    numbers(raw, problems);
    image_collection(raw, problems);
    cgroups(raw, problems);
    reservations(raw, problems);
    shutdown(raw, gates, problems);
    gated(raw, gates, problems);
    sysctls(raw, problems);
    if raw.run_once.get() {
        problems.add(raw.run_once.invalid("must not be true; the mode is gone"));
    }
    if raw.enable_system_log_query.get() && !raw.enable_system_log_handler.get() {
        problems.add(
            raw.enable_system_log_query
                .invalid("needs enableSystemLogHandler"),
        );
    }
}

fn words(raw: &KubeletConfiguration, problems: &mut Problems) {
    let mut word = |setting: &Setting<String>, choices: &[&str]| {
        let choices: Vec<_> = choices.iter().map(|word| (*word, ())).collect();
        problems.one_of(setting, &choices);
    };
    word(&raw.cpu_manager_policy, &["none", "static"]);
    word(&raw.memory_manager_policy, &["None", "Static"]);
    word(
        &raw.topology_manager_policy,
        &["none", "best-effort", "restricted", "single-numa-node"],
    );
    word(&raw.topology_manager_scope, &["container", "pod"]);
    word(
        &raw.hairpin_mode,
        &["promiscuous-bridge", "hairpin-veth", "none"],
    );
    word(&raw.change_detection_strategy, &["Watch", "Cache", "Get"]);
    word(
        &raw.memory_reservation_policy,
        &["None", "TieredReservation"],
    );
}

fn numbers(raw: &KubeletConfiguration, problems: &mut Problems) {
    problems.within(&raw.iptables_drop_bit, 0..=31);
    problems.within(&raw.iptables_masquerade_bit, 0..=31);
    problems.within(&raw.tracing.sampling_rate_per_million, 0..=1_000_000);
    let factor = &raw.memory_throttling_factor;
    if !(factor.get() > 0.0 && factor.get() <= 1.0) {
        problems.add(factor.invalid("must be greater than 0 and at most 1"));
    }
}

/// A pod may set what it has of its own; the rest is the whole machine's.
fn sysctls(raw: &KubeletConfiguration, problems: &mut Problems) {
    let allowed = &raw.allowed_unsafe_sysctls;
    for pattern in allowed.get() {
        if !sysctl::is_namespaced(&pattern) {
            problems.add(allowed.invalid(format!(
                "{pattern:?} is not known to be a pod's own (kernel.shm*, kernel.msg*, \
                 kernel.sem, fs.mqueue.*, net.*)"
            )));
        }
    }
}

fn image_collection(raw: &KubeletConfiguration, problems: &mut Problems) {
    let (low, high) = (
        &raw.image_gc_low_threshold_percent,
        &raw.image_gc_high_threshold_percent,
    );
    if low.get() >= high.get() {
        // Whichever of the two was written is the one to look at.
        let given = if low.origin.is_given() { low } else { high };
        problems.add(given.invalid(format!(
            "imageGCLowThresholdPercent ({}) must be less than imageGCHighThresholdPercent ({})",
            low.get(),
            high.get(),
        )));
    }
    let (min, max) = (&raw.image_minimum_gc_age, &raw.image_maximum_gc_age);
    if max.get() > GoDuration::ZERO && max.get() <= min.get() {
        problems.add(max.invalid(format!(
            "must be greater than imageMinimumGCAge ({})",
            min.get()
        )));
    }
}

fn cgroups(raw: &KubeletConfiguration, problems: &mut Problems) {
    let is_empty = |setting: &Setting<String>| setting.get().is_empty();
    if !is_empty(&raw.system_cgroups) && is_empty(&raw.cgroup_root) {
        problems.add(raw.system_cgroups.invalid("needs cgroupRoot"));
    }
    let enforce = &raw.enforce_node_allocatable;
    let words = enforce.get();
    let has = |word: &str| words.iter().any(|given| given == word);
    let daemons = [
        (
            "system-reserved",
            "system-reserved-compressible",
            &raw.system_reserved_cgroup,
            "systemReservedCgroup",
        ),
        (
            "kube-reserved",
            "kube-reserved-compressible",
            &raw.kube_reserved_cgroup,
            "kubeReservedCgroup",
        ),
    ];
    for (all, compressible, cgroup, field) in daemons {
        if has(all) && has(compressible) {
            problems
                .add(enforce.invalid(format!("{all:?} and {compressible:?} exclude each other")));
        }
        for word in [all, compressible] {
            if has(word) && is_empty(cgroup) {
                problems.add(enforce.invalid(format!("{word:?} needs {field}")));
            }
        }
        if !is_empty(&raw.reserved_system_cpus) && !is_empty(cgroup) {
            problems.add(cgroup.invalid("cannot be combined with reservedSystemCPUs"));
        }
    }
    if !raw.cgroups_per_qos.get() && words.iter().any(|word| word != "none") {
        let given = if raw.cgroups_per_qos.origin.is_given() && !enforce.origin.is_given() {
            raw.cgroups_per_qos
                .invalid("must not be false unless enforceNodeAllocatable is empty or [\"none\"]")
        } else {
            enforce.invalid("needs cgroupsPerQOS")
        };
        problems.add(given);
    }
}

fn reservations(raw: &KubeletConfiguration, problems: &mut Problems) {
    let mut seen = BTreeSet::new();
    for reservation in raw.reserved_memory.get() {
        let node = reservation.numa_node.get();
        for (resource, quantity) in reservation.limits.get() {
            let limits = &reservation.limits;
            if resource != "memory" && !resource.starts_with("hugepages-") {
                problems.add(
                    limits.invalid(format!("{resource:?} is neither memory nor hugepages-SIZE")),
                );
            }
            match Quantity::parse(&quantity.0) {
                Ok(quantity) if !quantity.is_zero() => {}
                Ok(_) => problems.add(limits.invalid(format!("{resource}: must not be zero"))),
                Err(_) => problems
                    .add(limits.invalid(format!("{resource}: {:?} is not a quantity", quantity.0))),
            }
            if !seen.insert((node, resource.clone())) {
                problems.add(limits.invalid(format!("{resource} of node {node} is repeated")));
            }
        }
    }
}

fn shutdown(raw: &KubeletConfiguration, gates: &FeatureGates, problems: &mut Problems) {
    let total = &raw.shutdown_grace_period;
    let critical = &raw.shutdown_grace_period_critical_pods;
    for period in [total, critical] {
        let given = period.get();
        if given != GoDuration::ZERO && given < GoDuration::from_secs(1) {
            problems.add(period.invalid("must be 0 or at least 1s"));
        }
        if given > GoDuration::ZERO && !gates.enabled("GracefulNodeShutdown") {
            problems.add(period.invalid("needs the feature gate GracefulNodeShutdown"));
        }
    }
    if critical.get() > total.get() {
        problems.add(critical.invalid(format!(
            "must be at most shutdownGracePeriod ({})",
            total.get()
        )));
    }
    let by_priority = &raw.shutdown_grace_period_by_pod_priority;
    if by_priority.get().is_empty() {
        return;
    }
    if !gates.enabled("GracefulNodeShutdownBasedOnPodPriority") {
        problems.add(
            by_priority.invalid("needs the feature gate GracefulNodeShutdownBasedOnPodPriority"),
        );
    }
    if total.get() > GoDuration::ZERO || critical.get() > GoDuration::ZERO {
        problems.add(
            by_priority.invalid("excludes shutdownGracePeriod and shutdownGracePeriodCriticalPods"),
        );
    }
}

/// Fields that may only be set while a gate is on.
fn gated(raw: &KubeletConfiguration, gates: &FeatureGates, problems: &mut Problems) {
    let mut needs = |gate: &str, used: bool, error: &dyn Fn(Problem) -> super::ConfigError| {
        if used && !gates.enabled(gate) {
            let why = format!("needs the feature gate {gate}");
            problems.add(error(Problem::Invalid(why)));
        }
    };
    let bootstrap = &raw.server_tls_bootstrap;
    needs("RotateKubeletServerCertificate", bootstrap.get(), &|why| {
        bootstrap.error(why)
    });
    let backoff = &raw.crash_loop_back_off.max_container_restart_period;
    needs(
        "KubeletCrashLoopBackOffMax",
        backoff.origin.is_given(),
        &|why| backoff.error(why),
    );
    let period = &raw.cpu_cfs_quota_period;
    needs(
        "CustomCPUCFSQuotaPeriod",
        period.get() != GoDuration::from_millis(100),
        &|why| period.error(why),
    );
    let policy = &raw.image_pull_credentials_verification_policy;
    needs(
        "KubeletEnsureSecretPulledImages",
        policy.origin.is_given(),
        &|why| policy.error(why),
    );
    let reservation = &raw.memory_reservation_policy;
    needs(
        "MemoryQoS",
        reservation.get() == "TieredReservation",
        &|why| reservation.error(why),
    );
}
