//! Sections about what runs on the node: runtime, images, pods, DNS, container logs.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use super::super::cli::{NodeFlags, given};
use super::super::credential_providers;
use super::super::duration::GoDuration;
use super::super::raw::KubeletConfiguration;
use super::super::schema::Setting;
use super::super::sections::{
    ContainerLogConfig, DnsConfig, ImageConfig, ImageVerification, PodConfig, RuntimeConfig,
    SwapBehavior,
};
use super::{Inputs, Problems, file_path, text};
use crate::pod::quantity::Quantity;
use crate::pod::reference::ImageReference;

/// User-namespace ranges come in multiples of this many ids.
const USER_NAMESPACE_UNIT: i64 = 65_536;

pub(super) fn runtime(
    raw: &KubeletConfiguration,
    flags: &NodeFlags,
    problems: &mut Problems,
) -> RuntimeConfig {
    let endpoint = socket(&raw.container_runtime_endpoint, problems);
    let image_endpoint = match text(&raw.image_service_endpoint) {
        Some(_) => socket(&raw.image_service_endpoint, problems),
        None => endpoint.clone(),
    };
    RuntimeConfig {
        endpoint,
        image_endpoint,
        request_timeout: problems.period(&raw.runtime_request_timeout),
        runtime_cgroup: given(&flags.runtime_cgroups).map(str::to_owned),
    }
}

/// A Unix socket: `unix:///path`, `unix:/path`, or the path alone.
fn socket(setting: &Setting<String>, problems: &mut Problems) -> PathBuf {
    let endpoint = setting.get();
    let path = endpoint
        .strip_prefix("unix://")
        .or_else(|| endpoint.strip_prefix("unix:"))
        .unwrap_or(&endpoint);
    if !Path::new(path).is_absolute() {
        problems.add(setting.invalid(format!(
            "{endpoint:?} is not a Unix socket like \"unix:///run/containerd/containerd.sock\""
        )));
    }
    PathBuf::from(path)
}

pub(super) fn images(inputs: &Inputs<'_>, problems: &mut Problems) -> ImageConfig {
    let raw = inputs.raw;
    ImageConfig {
        max_parallel_pulls: max_parallel_pulls(raw, problems),
        pull_rate: problems.rate(&raw.registry_pull_qps, &raw.registry_burst),
        verification: match verification(raw, problems) {
            _ if !inputs.gates.enabled("KubeletEnsureSecretPulledImages") => {
                ImageVerification::Never
            }
            verification => verification,
        },
        credential_providers: credential_providers::load(
            given(&inputs.flags.image_credential_provider_config),
            given(&inputs.flags.image_credential_provider_bin_dir),
            &mut problems.0,
        ),
        gc_min_age: problems.period(&raw.image_minimum_gc_age),
        gc_max_age: Some(problems.period(&raw.image_maximum_gc_age)).filter(|age| !age.is_zero()),
        gc_high_threshold_percent: problems.percent(&raw.image_gc_high_threshold_percent),
        gc_low_threshold_percent: problems.percent(&raw.image_gc_low_threshold_percent),
    }
}

fn max_parallel_pulls(raw: &KubeletConfiguration, problems: &mut Problems) -> Option<NonZeroU32> {
    let setting = &raw.max_parallel_image_pulls;
    let limit = match setting.value {
        None => None,
        Some(given) => {
            let limit = u32::try_from(given).ok().and_then(NonZeroU32::new);
            if limit.is_none() {
                problems.add(setting.invalid("must be greater than 0"));
            }
            limit
        }
    };
    if !raw.serialize_image_pulls.get() {
        return limit;
    }
    if limit.is_some_and(|limit| limit > NonZeroU32::MIN) {
        problems.add(setting.invalid("must be 1 as long as serializeImagePulls is true"));
    }
    Some(NonZeroU32::MIN)
}

fn verification(raw: &KubeletConfiguration, problems: &mut Problems) -> ImageVerification {
    let allowlist = &raw.preloaded_images_verification_allowlist;
    let choices = [
        (
            "NeverVerifyPreloadedImages",
            ImageVerification::NeverForPreloaded,
        ),
        ("NeverVerify", ImageVerification::Never),
        (
            "NeverVerifyAllowlistedImages",
            ImageVerification::NeverForAllowlisted(allowlist.get()),
        ),
        ("AlwaysVerify", ImageVerification::Always),
    ];
    let policy = &raw.image_pull_credentials_verification_policy;
    let verification = problems
        .one_of(policy, &choices)
        .unwrap_or(ImageVerification::Always);
    let uses_list = matches!(verification, ImageVerification::NeverForAllowlisted(_));
    for pattern in allowlist.get() {
        if let Err(why) = allowlist_pattern(&pattern) {
            problems.add(allowlist.invalid(format!("{pattern:?}: {why}")));
        }
    }
    if !uses_list && !allowlist.get().is_empty() {
        problems.add(allowlist.invalid(
            "needs imagePullCredentialsVerificationPolicy \"NeverVerifyAllowlistedImages\"",
        ));
    }
    verification
}

/// A whole name of an image without its version, or the beginning of one up to `/*`.
fn allowlist_pattern(pattern: &str) -> Result<(), String> {
    if let Some(prefix) = pattern.strip_suffix("/*") {
        let is_plain = !prefix.contains(|c: char| c == '*' || c.is_whitespace());
        return if prefix.is_empty() || !is_plain {
            Err("must name a registry before its \"/*\", and have no other \"*\"".to_owned())
        } else {
            Ok(())
        };
    }
    let image: ImageReference = pattern.parse().map_err(|error| format!("{error}"))?;
    if image.name() == pattern {
        Ok(())
    } else {
        Err(format!(
            "must be a full name without tag and digest, like {:?}",
            image.name()
        ))
    }
}

pub(super) fn pod(raw: &KubeletConfiguration, problems: &mut Problems) -> PodConfig {
    let swap = [
        ("NoSwap", SwapBehavior::NoSwap),
        ("LimitedSwap", SwapBehavior::LimitedSwap),
    ];
    PodConfig {
        sync_frequency: problems.period(&raw.sync_frequency),
        crash_backoff_max: problems.period_within(
            &raw.crash_loop_back_off.max_container_restart_period,
            GoDuration::from_secs(1)..=GoDuration::from_secs(300),
        ),
        // Zero and below: the node's own limit.
        pids_limit: u64::try_from(raw.pod_pids_limit.get())
            .ok()
            .filter(|limit| *limit > 0),
        cpu_cfs_quota: raw.cpu_cfs_quota.get(),
        cpu_cfs_quota_period: problems.period_within(
            &raw.cpu_cfs_quota_period,
            GoDuration::from_millis(1)..=GoDuration::from_secs(1),
        ),
        seccomp_default: raw.seccomp_default.get(),
        allowed_unsafe_sysctls: raw.allowed_unsafe_sysctls.get(),
        swap: problems
            .one_of(&raw.memory_swap.swap_behavior, &swap)
            .unwrap_or(SwapBehavior::NoSwap),
        fail_swap_on: raw.fail_swap_on.get(),
        user_namespace_ids: user_namespace_ids(&raw.user_namespaces.ids_per_pod, problems),
        // Below zero: never.
        volume_stats_period: Some(raw.volume_stats_agg_period.get())
            .filter(|period| !period.is_negative())
            .map(GoDuration::to_std),
    }
}

fn user_namespace_ids(setting: &Setting<i64>, problems: &mut Problems) -> u32 {
    let ids = setting.get();
    if ids < USER_NAMESPACE_UNIT || ids % USER_NAMESPACE_UNIT != 0 {
        problems.add(setting.invalid(format!(
            "must be a multiple of {USER_NAMESPACE_UNIT}, is {ids}"
        )));
    }
    u32::try_from(ids).unwrap_or_else(|_| {
        problems.add(setting.invalid(format!("must be at most {}", u32::MAX)));
        0
    })
}

pub(super) fn dns(raw: &KubeletConfiguration, problems: &mut Problems) -> DnsConfig {
    DnsConfig {
        cluster_dns: raw
            .cluster_dns
            .get()
            .iter()
            .filter_map(|server| problems.ip(server))
            .collect(),
        cluster_domain: text(&raw.cluster_domain),
        resolv_conf: file_path(&raw.resolv_conf),
    }
}

pub(super) fn container_logs(
    raw: &KubeletConfiguration,
    problems: &mut Problems,
) -> ContainerLogConfig {
    let at_least = |problems: &mut Problems, setting: &Setting<i32>, least: u32| {
        let count = u32::try_from(setting.get()).unwrap_or(0);
        if count < least {
            problems.add(setting.invalid(format!("must be at least {least}")));
        }
        count
    };
    let max_files = at_least(problems, &raw.container_log_max_files, 2);
    let workers = at_least(problems, &raw.container_log_max_workers, 1);
    let interval = &raw.container_log_monitor_interval;
    if interval.get() < GoDuration::from_secs(3) {
        problems.add(interval.invalid("must be at least 3s"));
    }
    let size = &raw.container_log_max_size;
    let max_bytes = match Quantity::parse(&size.get()) {
        // A negative size is upstream's way to turn rotation off.
        Ok(quantity) => u64::try_from(quantity.value()).ok(),
        Err(_) => {
            let given = size.get();
            problems.add(size.invalid(format!("{given:?} is not a quantity like \"10Mi\"")));
            None
        }
    };
    ContainerLogConfig {
        max_bytes,
        max_files,
        workers: NonZeroU32::new(workers).unwrap_or(NonZeroU32::MIN),
        monitor_interval: interval.get().to_std(),
    }
}
