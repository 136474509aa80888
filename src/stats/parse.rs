//! The kernel's texts as numbers. Pure; a text that is not understood gives
//! `None` or is left out, whatever is in it.

use std::time::Duration;

use super::model::{
    CpuLimit, DeviceNumber, Limit, Memory, Pressure, Processes, ReadsWrites, Stall, Throttling,
};

#[cfg(test)]
mod tests;

/// A file with one number.
pub(super) fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// A file with one number, or `max`, or v1's number that means the same.
pub(super) fn limit(text: &str) -> Option<Limit> {
    match text.trim() {
        // v1 calls an absent CPU quota -1.
        "max" | "-1" => Some(Limit::Unlimited),
        text => text.parse().ok().map(Limit::of_bytes),
    }
}

/// `key value` lines.
fn pairs(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (key, value) = line.split_once(' ')?;
        Some((key, number(value)?))
    })
}

// === CPU ===

/// v2's `cpu.stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct CpuStat {
    pub(super) usage: Option<Duration>,
    pub(super) user: Option<Duration>,
    pub(super) system: Option<Duration>,
    pub(super) throttling: Option<Throttling>,
}

pub(super) fn cpu_stat_v2(text: &str) -> CpuStat {
    let mut stat = CpuStat::default();
    for (key, value) in pairs(text) {
        let time = Duration::from_micros(value);
        match key {
            "usage_usec" => stat.usage = Some(time),
            "user_usec" => stat.user = Some(time),
            "system_usec" => stat.system = Some(time),
            _ => {}
        }
    }
    stat.throttling = throttling(
        text,
        Duration::from_micros,
        ["throttled_usec", "burst_usec"],
    );
    stat
}

/// v1's `cpu.stat`.
pub(super) fn throttling_v1(text: &str) -> Option<Throttling> {
    throttling(text, Duration::from_nanos, ["throttled_time", "burst_time"])
}

/// `None` for a cgroup that cannot be throttled, as the root.
fn throttling(
    text: &str,
    unit: fn(u64) -> Duration,
    [throttled_key, burst_key]: [&str; 2],
) -> Option<Throttling> {
    let mut throttling = Throttling::default();
    let mut found = false;
    for (key, value) in pairs(text) {
        match key {
            "nr_periods" => {
                throttling.periods = value;
                found = true;
            }
            "nr_throttled" => throttling.throttled_periods = value,
            "nr_bursts" => throttling.burst_periods = value,
            key if key == throttled_key => throttling.throttled = unit(value),
            key if key == burst_key => throttling.burst = unit(value),
            _ => {}
        }
    }
    found.then_some(throttling)
}

/// v1's `cpuacct.stat`, in ticks of a hundredth of a second: user and system.
pub(super) fn cpuacct_stat(text: &str) -> (Option<Duration>, Option<Duration>) {
    let of = |wanted: &str| {
        let ticks = pairs(text).find(|(key, _)| *key == wanted)?.1;
        Some(Duration::from_millis(ticks.checked_mul(10)?))
    };
    (of("user"), of("system"))
}

/// v2's `cpu.max` and `cpu.weight`.
pub(super) fn cpu_limit_v2(max: Option<&str>, weight: Option<u64>) -> CpuLimit {
    let words = max.map(|text| text.split_whitespace());
    let [quota, period] = words.map_or([None, None], |mut words| [words.next(), words.next()]);
    CpuLimit {
        shares: weight.and_then(weight_to_shares),
        quota: quota.and_then(limit),
        period: period.and_then(number),
    }
}

/// The inverse of how pods' shares become weights: 2..=262144 from 1..=10000.
fn weight_to_shares(weight: u64) -> Option<u64> {
    let above_least = weight.checked_sub(1).filter(|above| *above < 10_000)?;
    Some(2 + above_least * 262_142 / 9_999)
}

// === memory ===

/// `memory.stat` of v1, with what is below the cgroup, and `usage`.
pub(super) fn memory_v1(text: &str, usage: u64) -> (Memory, Option<u64>) {
    let mut swap = None;
    let mut memory = Memory {
        usage,
        ..Memory::default()
    };
    for (key, value) in pairs(text) {
        match key {
            "total_rss" => memory.rss = value,
            "total_cache" => memory.cache = value,
            "total_mapped_file" => memory.mapped_file = value,
            "total_active_file" => memory.active_file = value,
            "total_inactive_file" => memory.inactive_file = value,
            "total_swap" => swap = Some(value),
            "total_pgfault" => memory.faults.all = value,
            "total_pgmajfault" => memory.faults.major = value,
            "pgfault" => memory.own_faults.all = value,
            "pgmajfault" => memory.own_faults.major = value,
            _ => {}
        }
    }
    memory.working_set = usage.saturating_sub(memory.inactive_file);
    (memory, swap)
}

/// `memory.stat` of v2, whose numbers include what is below, and `usage`. Also
/// the kernel's own memory, where it is told.
pub(super) fn memory_v2(text: &str, usage: u64) -> (Memory, Option<u64>) {
    let mut kernel = None;
    let mut memory = Memory {
        usage,
        ..Memory::default()
    };
    for (key, value) in pairs(text) {
        match key {
            "anon" => memory.rss = value,
            "file" => memory.cache = value,
            "kernel" => kernel = Some(value),
            "file_mapped" => memory.mapped_file = value,
            "active_file" => memory.active_file = value,
            "inactive_file" => memory.inactive_file = value,
            "pgfault" => memory.faults.all = value,
            "pgmajfault" => memory.faults.major = value,
            _ => {}
        }
    }
    memory.own_faults = memory.faults;
    memory.working_set = usage.saturating_sub(memory.inactive_file);
    (memory, kernel)
}

/// One amount of `/proc/meminfo`, in bytes.
pub(super) fn meminfo(text: &str, wanted: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let rest = line.strip_prefix(wanted)?.strip_prefix(':')?;
        number(rest.trim().strip_suffix("kB")?)?.checked_mul(1024)
    })
}

/// One count of v2's `memory.events` or v1's `memory.oom_control`.
pub(super) fn count(text: &str, wanted: &str) -> Option<u64> {
    pairs(text).find(|(key, _)| *key == wanted).map(|(_, n)| n)
}

// === pressure ===

pub(super) fn pressure(text: &str) -> Option<Pressure> {
    let line = |kind: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(kind))?;
        stall(rest)
    };
    Some(Pressure {
        some: line("some ")?,
        // The root's cpu.pressure had none before Linux 5.13.
        full: line("full ").unwrap_or_default(),
    })
}

fn stall(fields: &str) -> Option<Stall> {
    let mut stall = Stall::default();
    for field in fields.split_whitespace() {
        let (key, value) = field.split_once('=')?;
        let average = || value.parse().ok().filter(|value: &f64| value.is_finite());
        match key {
            "avg10" => stall.avg10 = average()?,
            "avg60" => stall.avg60 = average()?,
            "avg300" => stall.avg300 = average()?,
            "total" => stall.total = number(value)?,
            _ => {}
        }
    }
    Some(stall)
}

// === block I/O ===

/// One of v1's `blkio.throttle.*` files.
pub(super) fn blkio(text: &str) -> Vec<(DeviceNumber, ReadsWrites)> {
    let mut devices: Vec<(DeviceNumber, ReadsWrites)> = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (Some(device), Some(operation), Some(value)) = (
            words.next().and_then(device_number),
            words.next(),
            words.next().and_then(number),
        ) else {
            continue;
        };
        if devices.last().is_none_or(|(last, _)| *last != device) {
            devices.push((device, ReadsWrites::default()));
        }
        let Some((_, counts)) = devices.last_mut() else {
            continue;
        };
        match operation {
            "Read" => counts.reads = value,
            "Write" => counts.writes = value,
            _ => {}
        }
    }
    devices
}

/// v2's `io.stat`: bytes and operations.
pub(super) fn io_stat(text: &str) -> Vec<(DeviceNumber, ReadsWrites, ReadsWrites)> {
    let device = |line: &str| {
        let (device, fields) = line.split_once(' ')?;
        let (mut bytes, mut operations) = (ReadsWrites::default(), ReadsWrites::default());
        for field in fields.split_whitespace() {
            let Some((key, value)) = field.split_once('=') else {
                continue;
            };
            let Some(value) = number(value) else {
                continue;
            };
            match key {
                "rbytes" => bytes.reads = value,
                "wbytes" => bytes.writes = value,
                "rios" => operations.reads = value,
                "wios" => operations.writes = value,
                _ => {}
            }
        }
        Some((device_number(device)?, bytes, operations))
    };
    text.lines().filter_map(device).collect()
}

fn device_number(text: &str) -> Option<DeviceNumber> {
    let (major, minor) = text.split_once(':')?;
    Some(DeviceNumber {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
    })
}

// === processes ===

/// `cgroup.procs`.
pub(super) fn processes(text: &str) -> Processes {
    Processes {
        count: text.lines().count() as u64,
        first: text
            .lines()
            .next()
            .and_then(|line| line.trim().parse().ok()),
    }
}

/// The soft limit of open files, from a process's `limits`.
pub(super) fn max_open_files(text: &str) -> Option<Limit> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(Limit::Unlimited),
        soft => soft.parse().ok().map(Limit::At),
    }
}

/// The cgroup of a process for a controller, from its `cgroup` file; an empty
/// controller stands for v2.
pub(super) fn cgroup_of<'a>(text: &'a str, controller: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let controllers = fields.nth(1)?;
        let is_it = controllers.split(',').any(|name| name == controller);
        fields.next().filter(|_| is_it)
    })
}
