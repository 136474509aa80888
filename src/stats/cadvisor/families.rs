//! The families of `/metrics/cadvisor`, each with the samples of one row.

use std::time::Duration;

use super::super::exposition::{Family, Kind, Value};
use super::super::model::{
    DeviceIo, DiskCounters, FsUsage, Interface, Limit, Memory, More, Pressure, Stall, Throttling,
};
use super::{Row, or_zero, since_epoch};
use Samples::{
    Devices, Disks, Each, Filesystems, Interfaces, Now, OfMemory, OfMore, One, Throttled,
};

pub(super) struct FamilySpec {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) help: &'static str,
    samples: Samples,
}

/// What a row has of a family.
enum Samples {
    /// A sample with the time of the reading.
    One(fn(&Row<'_>) -> Option<Value>),
    OfMemory(fn(&Memory) -> u64),
    OfMore(fn(&More) -> Option<Value>),
    /// Only what has a quota can be held up.
    Throttled(fn(&Throttling) -> Value),
    /// A sample that holds until further notice.
    Now(fn(&Row<'_>) -> Option<Value>),
    Interfaces(fn(&Interface) -> u64),
    Filesystems(fn(&FsUsage) -> Option<u64>),
    Devices(fn(&DeviceIo) -> u64),
    Disks(fn(&DiskCounters) -> Value),
    /// Whatever else.
    Each(fn(&Row<'_>, &mut Family<'_>)),
}

impl FamilySpec {
    /// Writes what the row has of this family.
    pub(super) fn write(&self, row: &Row<'_>, family: &mut Family<'_>) {
        let at = row.reading.at;
        let mut one = |value: Option<Value>| {
            if let Some(value) = value {
                family.at(&row.labels, value, at);
            }
        };
        match self.samples {
            One(value) => one(value(row)),
            OfMemory(value) => one(row.memory().map(value).map(Value::Count)),
            OfMore(value) => one(row.more().and_then(value)),
            Throttled(value) => one(throttling(row).map(value)),
            Now(value) => {
                if let Some(value) = value(row) {
                    family.now(&row.labels, value);
                }
            }
            Interfaces(value) => {
                for (network, interface) in row.interfaces() {
                    let labels = row.labels.and(&[("interface", &interface.name)]);
                    family.at(&labels, Value::Count(value(interface)), network.at);
                }
            }
            Filesystems(value) => {
                for fs in &row.filesystems {
                    let device = fs.device.as_deref().unwrap_or_default();
                    let labels = row.labels.and(&[("device", device)]);
                    if let Some(value) = value(fs) {
                        family.at(&labels, Value::Count(value), fs.at);
                    }
                }
            }
            Devices(value) => {
                for io in row.devices() {
                    let labels = row.labels.and(&[("device", &io.device)]);
                    family.at(&labels, Value::Count(value(io)), at);
                }
            }
            Disks(value) => {
                for disk in row.disks {
                    let labels = row.labels.and(&[("device", &disk.device)]);
                    family.at(&labels, value(disk), at);
                }
            }
            Each(write) => write(row, family),
        }
    }
}

fn throttling<'a>(row: &'a Row<'_>) -> Option<&'a Throttling> {
    let more = row.more()?;
    more.cpu_limit.quota.and_then(Limit::bound)?;
    more.throttling.as_ref()
}

fn stalled(pressure: Option<Pressure>, stall: fn(&Pressure) -> Stall) -> Option<Value> {
    let total = stall(&pressure?).total;
    Some(Value::Time(Duration::from_micros(total)))
}

const fn counter(name: &'static str, help: &'static str, samples: Samples) -> FamilySpec {
    FamilySpec {
        name,
        kind: Kind::Counter,
        help,
        samples,
    }
}

const fn gauge(name: &'static str, help: &'static str, samples: Samples) -> FamilySpec {
    FamilySpec {
        name,
        kind: Kind::Gauge,
        help,
        samples,
    }
}

pub(super) const FAMILIES: &[FamilySpec] = &[
    // --- CPU ---
    counter(
        "container_cpu_usage_seconds_total",
        "CPU time used",
        Each(|row, family| {
            let labels = row.labels.and(&[("cpu", "total")]);
            family.at(&labels, Value::Time(row.reading.cpu.total), row.reading.at);
        }),
    ),
    counter(
        "container_cpu_user_seconds_total",
        "CPU time used outside of the kernel",
        OfMore(|more| more.user.map(Value::Time)),
    ),
    counter(
        "container_cpu_system_seconds_total",
        "CPU time used in the kernel",
        OfMore(|more| more.system.map(Value::Time)),
    ),
    counter(
        "container_cpu_cfs_periods_total",
        "Periods in which it ran",
        Throttled(|t| Value::Count(t.periods)),
    ),
    counter(
        "container_cpu_cfs_throttled_periods_total",
        "Periods in which it was held up",
        Throttled(|t| Value::Count(t.throttled_periods)),
    ),
    counter(
        "container_cpu_cfs_throttled_seconds_total",
        "Time that it was held up",
        Throttled(|t| Value::Time(t.throttled)),
    ),
    counter(
        "container_cpu_cfs_burst_periods_total",
        "Periods in which it used saved-up time",
        Throttled(|t| Value::Count(t.burst_periods)),
    ),
    counter(
        "container_cpu_cfs_burst_seconds_total",
        "Saved-up time that it used",
        Throttled(|t| Value::Time(t.burst)),
    ),
    // --- memory ---
    gauge(
        "container_memory_usage_bytes",
        "Memory in use, with caches",
        OfMemory(|memory| memory.usage),
    ),
    gauge(
        "container_memory_working_set_bytes",
        "Memory that cannot be had back without effort",
        OfMemory(|memory| memory.working_set),
    ),
    gauge(
        "container_memory_rss",
        "Anonymous memory",
        OfMemory(|memory| memory.rss),
    ),
    gauge(
        "container_memory_cache",
        "Page cache",
        OfMemory(|memory| memory.cache),
    ),
    gauge(
        "container_memory_mapped_file",
        "Files mapped into memory",
        OfMemory(|memory| memory.mapped_file),
    ),
    gauge(
        "container_memory_swap",
        "Swap space in use",
        One(|row| row.reading.swap.map(|swap| Value::Count(swap.usage))),
    ),
    gauge(
        "container_memory_total_active_file_bytes",
        "Page cache used lately",
        OfMemory(|memory| memory.active_file),
    ),
    gauge(
        "container_memory_total_inactive_file_bytes",
        "Page cache not used lately",
        OfMemory(|memory| memory.inactive_file),
    ),
    gauge(
        "container_memory_kernel_usage",
        "The kernel's memory on its behalf",
        OfMore(|more| more.memory.kernel.map(Value::Count)),
    ),
    gauge(
        "container_memory_max_usage_bytes",
        "The most memory that was in use",
        OfMore(|more| more.memory.peak.map(Value::Count)),
    ),
    counter(
        "container_memory_failcnt",
        "How often memory ran into its limit",
        OfMore(|more| more.memory.limit_hits.map(Value::Count)),
    ),
    counter(
        "container_memory_failures_total",
        "Page faults",
        Each(|row, family| {
            let Some(memory) = row.memory() else {
                return;
            };
            for (scope, faults) in [
                ("container", memory.own_faults),
                ("hierarchy", memory.faults),
            ] {
                for (kind, count) in [("pgfault", faults.all), ("pgmajfault", faults.major)] {
                    let labels = row.labels.and(&[("failure_type", kind), ("scope", scope)]);
                    family.at(&labels, Value::Count(count), row.reading.at);
                }
            }
        }),
    ),
    counter(
        "container_oom_events_total",
        "Processes killed for want of memory",
        OfMore(|more| more.memory.oom_kills.map(Value::Count)),
    ),
    // --- network ---
    counter(
        "container_network_receive_bytes_total",
        "Bytes received",
        Interfaces(|interface| interface.received.bytes),
    ),
    counter(
        "container_network_receive_packets_total",
        "Packets received",
        Interfaces(|interface| interface.received.packets),
    ),
    counter(
        "container_network_receive_packets_dropped_total",
        "Packets dropped on the way in",
        Interfaces(|interface| interface.received.dropped),
    ),
    counter(
        "container_network_receive_errors_total",
        "Errors of receiving",
        Interfaces(|interface| interface.received.errors),
    ),
    counter(
        "container_network_transmit_bytes_total",
        "Bytes sent",
        Interfaces(|interface| interface.sent.bytes),
    ),
    counter(
        "container_network_transmit_packets_total",
        "Packets sent",
        Interfaces(|interface| interface.sent.packets),
    ),
    counter(
        "container_network_transmit_packets_dropped_total",
        "Packets dropped on the way out",
        Interfaces(|interface| interface.sent.dropped),
    ),
    counter(
        "container_network_transmit_errors_total",
        "Errors of sending",
        Interfaces(|interface| interface.sent.errors),
    ),
    // --- file systems ---
    gauge(
        "container_fs_usage_bytes",
        "Bytes used of the file system",
        Filesystems(|fs| fs.used),
    ),
    gauge(
        "container_fs_limit_bytes",
        "Size of the file system",
        Filesystems(|fs| fs.capacity),
    ),
    gauge(
        "container_fs_inodes_free",
        "Inodes left on the file system",
        Filesystems(|fs| fs.inodes_free),
    ),
    gauge(
        "container_fs_inodes_total",
        "Inodes of the file system",
        Filesystems(|fs| fs.inodes),
    ),
    // --- block I/O of a cgroup ---
    counter(
        "container_fs_reads_bytes_total",
        "Bytes read from the device",
        Devices(|io| io.bytes.reads),
    ),
    counter(
        "container_fs_reads_total",
        "Reads from the device",
        Devices(|io| io.operations.reads),
    ),
    counter(
        "container_fs_writes_bytes_total",
        "Bytes written to the device",
        Devices(|io| io.bytes.writes),
    ),
    counter(
        "container_fs_writes_total",
        "Writes to the device",
        Devices(|io| io.operations.writes),
    ),
    counter(
        "container_blkio_device_usage_total",
        "Bytes by device and operation",
        Each(|row, family| {
            for io in row.devices() {
                let (major, minor) = (io.number.major.to_string(), io.number.minor.to_string());
                for (operation, bytes) in [("Read", io.bytes.reads), ("Write", io.bytes.writes)] {
                    let labels = row.labels.and(&[
                        ("device", &io.device),
                        ("major", &major),
                        ("minor", &minor),
                        ("operation", operation),
                    ]);
                    family.at(&labels, Value::Count(bytes), row.reading.at);
                }
            }
        }),
    ),
    // --- what the kernel counts for whole disks alone ---
    counter(
        "container_fs_sector_reads_total",
        "Sectors read",
        Disks(|disk| Value::Count(disk.sectors.reads)),
    ),
    counter(
        "container_fs_sector_writes_total",
        "Sectors written",
        Disks(|disk| Value::Count(disk.sectors.writes)),
    ),
    counter(
        "container_fs_reads_merged_total",
        "Reads that were done with others",
        Disks(|disk| Value::Count(disk.merged.reads)),
    ),
    counter(
        "container_fs_writes_merged_total",
        "Writes that were done with others",
        Disks(|disk| Value::Count(disk.merged.writes)),
    ),
    counter(
        "container_fs_read_seconds_total",
        "Time that reads took",
        Disks(|disk| Value::Time(disk.read_time)),
    ),
    counter(
        "container_fs_write_seconds_total",
        "Time that writes took",
        Disks(|disk| Value::Time(disk.write_time)),
    ),
    gauge(
        "container_fs_io_current",
        "Reads and writes under way",
        Disks(|disk| Value::Count(disk.in_progress)),
    ),
    counter(
        "container_fs_io_time_seconds_total",
        "Time that the disk was busy",
        Disks(|disk| Value::Time(disk.busy)),
    ),
    counter(
        "container_fs_io_time_weighted_seconds_total",
        "Time that the disk was busy, times what it was busy with",
        Disks(|disk| Value::Time(disk.weighted)),
    ),
    // --- processes ---
    gauge(
        "container_processes",
        "Processes",
        One(|row| {
            row.reading
                .processes
                .map(|processes| Value::Count(processes.count))
        }),
    ),
    gauge(
        "container_threads",
        "Threads, with those of the cgroups below",
        OfMore(|more| more.threads.map(Value::Count)),
    ),
    gauge(
        "container_threads_max",
        "Threads that there can be; 0 is no limit",
        OfMore(|more| more.threads_max.map(or_zero)),
    ),
    gauge(
        "container_ulimits_soft",
        "Soft limits of the first process",
        Each(|row, family| {
            let most = row
                .more()
                .and_then(|more| more.max_open_files)
                .and_then(Limit::bound);
            if let Some(most) = most {
                let labels = row.labels.and(&[("ulimit", "max_open_files")]);
                family.at(&labels, Value::Count(most), row.reading.at);
            }
        }),
    ),
    // --- pressure ---
    counter(
        "container_pressure_cpu_waiting_seconds_total",
        "Time in which some task waited for a CPU",
        One(|row| stalled(row.reading.pressure.cpu, |pressure| pressure.some)),
    ),
    counter(
        "container_pressure_cpu_stalled_seconds_total",
        "Time in which all tasks waited for a CPU",
        One(|row| stalled(row.reading.pressure.cpu, |pressure| pressure.full)),
    ),
    counter(
        "container_pressure_memory_waiting_seconds_total",
        "Time in which some task waited for memory",
        One(|row| stalled(row.reading.pressure.memory, |pressure| pressure.some)),
    ),
    counter(
        "container_pressure_memory_stalled_seconds_total",
        "Time in which all tasks waited for memory",
        One(|row| stalled(row.reading.pressure.memory, |pressure| pressure.full)),
    ),
    counter(
        "container_pressure_io_waiting_seconds_total",
        "Time in which some task waited for a device",
        One(|row| stalled(row.reading.pressure.io, |pressure| pressure.some)),
    ),
    counter(
        "container_pressure_io_stalled_seconds_total",
        "Time in which all tasks waited for a device",
        One(|row| stalled(row.reading.pressure.io, |pressure| pressure.full)),
    ),
    // --- settings ---
    gauge(
        "container_spec_cpu_period",
        "Length of a CPU period, in microseconds",
        Now(|row| row.more()?.cpu_limit.period.map(Value::Count)),
    ),
    gauge(
        "container_spec_cpu_quota",
        "CPU time in a period, in microseconds",
        Now(|row| {
            let quota = row.more()?.cpu_limit.quota?.bound();
            quota.map(Value::Count)
        }),
    ),
    gauge(
        "container_spec_cpu_shares",
        "Weight among others; 1024 is a CPU's",
        Now(|row| row.more()?.cpu_limit.shares.map(Value::Count)),
    ),
    gauge(
        "container_spec_memory_limit_bytes",
        "Memory that can be used; 0 is no limit",
        Now(|row| row.memory()?.limit.map(or_zero)),
    ),
    gauge(
        "container_spec_memory_swap_limit_bytes",
        "Swap space that can be used; 0 is none, or no limit",
        Now(|row| row.reading.swap?.limit.map(or_zero)),
    ),
    gauge(
        "container_spec_memory_reservation_limit_bytes",
        "Memory that reclaim leaves alone",
        Now(|row| row.more()?.memory.reservation.map(or_zero)),
    ),
    gauge(
        "container_start_time_seconds",
        "When it was made, in seconds since the epoch",
        Now(|row| row.started_at.map(since_epoch)),
    ),
    gauge(
        "container_last_seen",
        "When it was looked at, in seconds since the epoch",
        One(|row| {
            let seconds = u64::try_from(row.reading.at.as_second()).ok();
            seconds.map(Value::Count)
        }),
    ),
];
