//! Which files get which values, on v1 and v2. Pure.

use crate::pod::cgroup::PodCgroup;
use crate::pod::facts::CgroupVersion;

use super::RootLimits;

/// CPU shares of a cgroup that nobody configured (cgroup v1).
const DEFAULT_SHARES: u64 = 1024;

/// One value in one file of a cgroup's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    /// Whose mount the file is in, on v1.
    pub(super) controller: &'static str,
    pub(super) file: String,
    pub(super) value: Value,
    /// A limit file that must be lifted (to -1) before this one can be changed.
    pub(super) lift_first: Option<&'static str>,
    pub(super) if_missing: IfMissing,
}

/// What a missing file means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IfMissing {
    /// A limit that was asked for cannot be had.
    Fail,
    /// Nothing is lost.
    Skip,
}

/// A value, with what the kernel makes of it when it is read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// Read back as written.
    Exact(String),
    /// Bytes; read back rounded down to whole pages.
    Memory {
        limit: Option<u64>,
        unlimited: &'static str,
    },
}

impl Value {
    pub(super) fn text(&self) -> String {
        match self {
            Self::Exact(text) => text.clone(),
            Self::Memory {
                limit: Some(bytes), ..
            } => bytes.to_string(),
            Self::Memory {
                limit: None,
                unlimited,
            } => (*unlimited).to_owned(),
        }
    }

    /// Whether a file that holds `current` already says this.
    pub(super) fn is_told_by(&self, current: &str) -> bool {
        /// The largest page size of any architecture.
        const PAGE: u64 = 64 * 1024;
        let current = current.trim();
        match self {
            Self::Exact(text) => current == text,
            Self::Memory { limit, .. } => match (limit, current.parse::<u64>()) {
                (Some(limit), Ok(bytes)) => bytes <= *limit && limit - bytes < PAGE,
                // v1 shows "unlimited" as the largest whole number of pages.
                (None, Ok(bytes)) => bytes >= i64::MAX.unsigned_abs() - PAGE,
                (limit, Err(_)) => limit.is_none() && current == "max",
            },
        }
    }
}

/// The v2 weight of v1 shares (2..=262144 onto 1..=10000, as upstream does for
/// the cgroups it writes itself).
#[must_use]
pub fn shares_to_weight(shares: u64) -> u64 {
    let shares = shares.clamp(2, 262_144);
    1 + (shares - 2) * 9999 / 262_142
}

/// The values of a pod's cgroup, in the order in which they can be written.
pub(super) fn of_pod(version: CgroupVersion, pod: &PodCgroup) -> Vec<Setting> {
    let mut settings = vec![shares(version, pod.cpu_shares)];
    settings.extend(bandwidth(version, pod.cpu_quota, pod.cpu_period));
    settings.push(memory(version, pod.memory_limit));
    settings.push(pids(pod.pids_limit));
    for (size, bytes) in &pod.hugepage_limits {
        settings.extend(hugepages(version, size, *bytes));
    }
    settings
}

/// The values of `kubepods`.
pub(super) fn of_root(version: CgroupVersion, limits: &RootLimits) -> Vec<Setting> {
    vec![
        shares(version, limits.cpu_shares.unwrap_or(DEFAULT_SHARES)),
        memory(version, limits.memory_limit),
        pids(limits.pids_limit),
    ]
}

/// The values of a cgroup of daemons: only those that are given.
pub(super) fn of_daemons(version: CgroupVersion, limits: &RootLimits) -> Vec<Setting> {
    let cpu = limits.cpu_shares.map(|cpu| shares(version, cpu));
    let memory = limits
        .memory_limit
        .map(|bytes| memory(version, Some(bytes)));
    let pids = limits.pids_limit.map(|limit| pids(Some(limit)));
    [cpu, memory, pids].into_iter().flatten().collect()
}

/// CPU shares (v1) or weight (v2).
pub(super) fn shares(version: CgroupVersion, shares: u64) -> Setting {
    let (file, number) = match version {
        CgroupVersion::V1 => ("cpu.shares", shares),
        CgroupVersion::V2 => ("cpu.weight", shares_to_weight(shares)),
    };
    Setting {
        controller: "cpu",
        file: file.to_owned(),
        value: Value::Exact(number.to_string()),
        lift_first: None,
        if_missing: IfMissing::Fail,
    }
}

fn bandwidth(version: CgroupVersion, quota: Option<u64>, period: u64) -> Vec<Setting> {
    // Kernels without CFS bandwidth control have no such files.
    let setting = |file: &str, text: String| Setting {
        controller: "cpu",
        file: file.to_owned(),
        value: Value::Exact(text),
        lift_first: None,
        if_missing: limit_missing(quota.is_some()),
    };
    let quota_text = |unlimited: &str| quota.map_or(unlimited.to_owned(), |q| q.to_string());
    match version {
        CgroupVersion::V1 => vec![
            Setting {
                // A new period with the old quota could undercut what the
                // containers below already have, which the kernel refuses.
                lift_first: Some("cpu.cfs_quota_us"),
                ..setting("cpu.cfs_period_us", period.to_string())
            },
            setting("cpu.cfs_quota_us", quota_text("-1")),
        ],
        CgroupVersion::V2 => vec![setting(
            "cpu.max",
            format!("{} {period}", quota_text("max")),
        )],
    }
}

fn memory(version: CgroupVersion, limit: Option<u64>) -> Setting {
    let (file, unlimited, lift_first) = match version {
        // Memory may not be limited above memory+swap, which we never limit;
        // a leftover of somebody else's must not stand in the way.
        CgroupVersion::V1 => (
            "memory.limit_in_bytes",
            "-1",
            Some("memory.memsw.limit_in_bytes"),
        ),
        CgroupVersion::V2 => ("memory.max", "max", None),
    };
    Setting {
        controller: "memory",
        file: file.to_owned(),
        value: Value::Memory { limit, unlimited },
        lift_first,
        if_missing: limit_missing(limit.is_some()),
    }
}

fn pids(limit: Option<i64>) -> Setting {
    Setting {
        controller: "pids",
        file: "pids.max".to_owned(),
        value: Value::Exact(limit.map_or("max".to_owned(), |limit| limit.to_string())),
        lift_first: None,
        if_missing: limit_missing(limit.is_some()),
    }
}

/// Limits on use and, where the kernel has it, on reservation. Kernels that
/// cannot limit huge pages get none, as with upstream.
fn hugepages(version: CgroupVersion, size: &str, bytes: u64) -> [Setting; 2] {
    let name = match version {
        CgroupVersion::V1 => "limit_in_bytes",
        CgroupVersion::V2 => "max",
    };
    [
        format!("hugetlb.{size}.{name}"),
        format!("hugetlb.{size}.rsvd.{name}"),
    ]
    .map(|file| Setting {
        controller: "hugetlb",
        file,
        value: Value::Exact(bytes.to_string()),
        lift_first: None,
        if_missing: IfMissing::Skip,
    })
}

fn limit_missing(limited: bool) -> IfMissing {
    if limited {
        IfMissing::Fail
    } else {
        IfMissing::Skip
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::PodUid;

    fn pod() -> PodCgroup {
        PodCgroup {
            uid: PodUid::from("1"),
            path: "/kubepods/burstable/pod1".to_owned(),
            cpu_shares: 512,
            cpu_quota: Some(50_000),
            cpu_period: 100_000,
            memory_limit: Some(128 << 20),
            pids_limit: Some(1024),
            hugepage_limits: vec![("2MB".to_owned(), 0)],
        }
    }

    fn lines(settings: &[Setting]) -> Vec<String> {
        settings
            .iter()
            .map(|s| format!("{} {} = {}", s.controller, s.file, s.value.text()))
            .collect()
    }

    #[test]
    fn pod_values_on_v1() {
        assert_eq!(
            lines(&of_pod(CgroupVersion::V1, &pod())),
            [
                "cpu cpu.shares = 512",
                "cpu cpu.cfs_period_us = 100000",
                "cpu cpu.cfs_quota_us = 50000",
                "memory memory.limit_in_bytes = 134217728",
                "pids pids.max = 1024",
                "hugetlb hugetlb.2MB.limit_in_bytes = 0",
                "hugetlb hugetlb.2MB.rsvd.limit_in_bytes = 0",
            ]
        );
    }

    #[test]
    fn pod_values_on_v2() {
        let unlimited = PodCgroup {
            cpu_quota: None,
            memory_limit: None,
            pids_limit: None,
            ..pod()
        };
        assert_eq!(
            lines(&of_pod(CgroupVersion::V2, &unlimited)),
            [
                "cpu cpu.weight = 20",
                "cpu cpu.max = max 100000",
                "memory memory.max = max",
                "pids pids.max = max",
                "hugetlb hugetlb.2MB.max = 0",
                "hugetlb hugetlb.2MB.rsvd.max = 0",
            ]
        );
    }

    #[test]
    fn root_values_fall_back_to_the_kernels_own() {
        assert_eq!(
            lines(&of_root(CgroupVersion::V1, &RootLimits::default())),
            [
                "cpu cpu.shares = 1024",
                "memory memory.limit_in_bytes = -1",
                "pids pids.max = max",
            ]
        );
    }

    #[test]
    fn daemons_keep_what_is_not_limited() {
        let none = RootLimits::default();
        assert_eq!(lines(&of_daemons(CgroupVersion::V2, &none)), [""; 0]);
        let some = RootLimits {
            cpu_shares: Some(512),
            memory_limit: Some(1 << 20),
            pids_limit: Some(100),
        };
        assert_eq!(
            lines(&of_daemons(CgroupVersion::V2, &some)),
            [
                "cpu cpu.weight = 20",
                "memory memory.max = 1048576",
                "pids pids.max = 100",
            ]
        );
    }

    #[test]
    fn weights_of_shares() {
        for (shares, weight) in [
            (0, 1),
            (2, 1),
            (102, 4),
            (1024, 39),
            (2048, 79),
            (262_144, 10_000),
            (u64::MAX, 10_000),
        ] {
            assert_eq!(shares_to_weight(shares), weight, "{shares}");
        }
    }

    #[test]
    fn memory_is_compared_in_pages() {
        let value = |limit| Value::Memory {
            limit,
            unlimited: "-1",
        };
        for (limit, current, same) in [
            (Some(1_000_001), "999424\n", true),
            (Some(1_000_001), "1003520", false),
            (Some(1 << 30), "9223372036854771712", false),
            (Some(1 << 30), "max", false),
            (None, "9223372036854771712", true),
            (None, "max", true),
            (None, "1073741824", false),
        ] {
            assert_eq!(
                value(limit).is_told_by(current),
                same,
                "{limit:?} {current}"
            );
        }
    }
}
