//! The families of `/metrics/cadvisor`, each with the samples of one row.

use std::time::Duration;

use super::super::exposition::{Family, Kind, Value};
use super::super::model::{
    DeviceIo, DiskCounters, FsUsage, Interface, Limit, Pressure, Stall, Throttling,
};
use super::{Row, or_zero, since_epoch};

type Samples = fn(&Row<'_>, &mut Family<'_>);

pub(super) struct FamilySpec {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) help: &'static str,
    pub(super) samples: Samples,
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
        |row, family| {
            let labels = row.labels.and(&[("cpu", "total")]);
            family.at(&labels, Value::Time(row.reading.cpu.total), row.reading.at);
        },
    ),
    counter(
        "container_cpu_user_seconds_total",
        "CPU time used outside of the kernel",
        |row, family| {
            put(
                row,
                family,
                row.more().and_then(|more| more.user).map(Value::Time),
            );
        },
    ),
    counter(
        "container_cpu_system_seconds_total",
        "CPU time used in the kernel",
        |row, family| {
            put(
                row,
                family,
                row.more().and_then(|more| more.system).map(Value::Time),
            );
        },
    ),
    counter(
        "container_cpu_cfs_periods_total",
        "Periods in which it ran",
        |row, family| {
            put(row, family, throttling(row, |t| Value::Count(t.periods)));
        },
    ),
    counter(
        "container_cpu_cfs_throttled_periods_total",
        "Periods in which it was held up",
        |row, family| {
            put(
                row,
                family,
                throttling(row, |t| Value::Count(t.throttled_periods)),
            );
        },
    ),
    counter(
        "container_cpu_cfs_throttled_seconds_total",
        "Time that it was held up",
        |row, family| {
            put(row, family, throttling(row, |t| Value::Time(t.throttled)));
        },
    ),
    counter(
        "container_cpu_cfs_burst_periods_total",
        "Periods in which it used saved-up time",
        |row, family| {
            put(
                row,
                family,
                throttling(row, |t| Value::Count(t.burst_periods)),
            );
        },
    ),
    counter(
        "container_cpu_cfs_burst_seconds_total",
        "Saved-up time that it used",
        |row, family| {
            put(row, family, throttling(row, |t| Value::Time(t.burst)));
        },
    ),
    // --- memory ---
    gauge(
        "container_memory_usage_bytes",
        "Memory in use, with caches",
        |row, family| {
            put(
                row,
                family,
                row.memory().map(|memory| Value::Count(memory.usage)),
            );
        },
    ),
    gauge(
        "container_memory_working_set_bytes",
        "Memory that cannot be had back without effort",
        |row, family| {
            put(
                row,
                family,
                row.memory().map(|memory| Value::Count(memory.working_set)),
            );
        },
    ),
    gauge("container_memory_rss", "Anonymous memory", |row, family| {
        put(
            row,
            family,
            row.memory().map(|memory| Value::Count(memory.rss)),
        );
    }),
    gauge("container_memory_cache", "Page cache", |row, family| {
        put(
            row,
            family,
            row.memory().map(|memory| Value::Count(memory.cache)),
        );
    }),
    gauge(
        "container_memory_mapped_file",
        "Files mapped into memory",
        |row, family| {
            put(
                row,
                family,
                row.memory().map(|memory| Value::Count(memory.mapped_file)),
            );
        },
    ),
    gauge(
        "container_memory_swap",
        "Swap space in use",
        |row, family| {
            put(
                row,
                family,
                row.reading.swap.map(|swap| Value::Count(swap.usage)),
            );
        },
    ),
    gauge(
        "container_memory_total_active_file_bytes",
        "Page cache used lately",
        |row, family| {
            put(
                row,
                family,
                row.memory().map(|memory| Value::Count(memory.active_file)),
            );
        },
    ),
    gauge(
        "container_memory_total_inactive_file_bytes",
        "Page cache not used lately",
        |row, family| {
            put(
                row,
                family,
                row.memory()
                    .map(|memory| Value::Count(memory.inactive_file)),
            );
        },
    ),
    gauge(
        "container_memory_kernel_usage",
        "The kernel's memory on its behalf",
        |row, family| {
            put(
                row,
                family,
                row.more()
                    .and_then(|more| more.memory.kernel)
                    .map(Value::Count),
            );
        },
    ),
    gauge(
        "container_memory_max_usage_bytes",
        "The most memory that was in use",
        |row, family| {
            put(
                row,
                family,
                row.more()
                    .and_then(|more| more.memory.peak)
                    .map(Value::Count),
            );
        },
    ),
    counter(
        "container_memory_failcnt",
        "How often memory ran into its limit",
        |row, family| {
            put(
                row,
                family,
                row.more()
                    .and_then(|more| more.memory.limit_hits)
                    .map(Value::Count),
            );
        },
    ),
    counter(
        "container_memory_failures_total",
        "Page faults",
        |row, family| {
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
        },
    ),
    counter(
        "container_oom_events_total",
        "Processes killed for want of memory",
        |row, family| {
            put(
                row,
                family,
                row.more()
                    .and_then(|more| more.memory.oom_kills)
                    .map(Value::Count),
            );
        },
    ),
    // --- network ---
    counter(
        "container_network_receive_bytes_total",
        "Bytes received",
        |row, family| {
            put_interfaces(row, family, |interface| interface.received.bytes);
        },
    ),
    counter(
        "container_network_receive_packets_total",
        "Packets received",
        |row, family| {
            put_interfaces(row, family, |interface| interface.received.packets);
        },
    ),
    counter(
        "container_network_receive_packets_dropped_total",
        "Packets dropped on the way in",
        |row, family| {
            put_interfaces(row, family, |interface| interface.received.dropped);
        },
    ),
    counter(
        "container_network_receive_errors_total",
        "Errors of receiving",
        |row, family| {
            put_interfaces(row, family, |interface| interface.received.errors);
        },
    ),
    counter(
        "container_network_transmit_bytes_total",
        "Bytes sent",
        |row, family| {
            put_interfaces(row, family, |interface| interface.sent.bytes);
        },
    ),
    counter(
        "container_network_transmit_packets_total",
        "Packets sent",
        |row, family| {
            put_interfaces(row, family, |interface| interface.sent.packets);
        },
    ),
    counter(
        "container_network_transmit_packets_dropped_total",
        "Packets dropped on the way out",
        |row, family| {
            put_interfaces(row, family, |interface| interface.sent.dropped);
        },
    ),
    counter(
        "container_network_transmit_errors_total",
        "Errors of sending",
        |row, family| {
            put_interfaces(row, family, |interface| interface.sent.errors);
        },
    ),
    // --- file systems ---
    gauge(
        "container_fs_usage_bytes",
        "Bytes used of the file system",
        |row, family| {
            put_filesystems(row, family, |fs| fs.used);
        },
    ),
    gauge(
        "container_fs_limit_bytes",
        "Size of the file system",
        |row, family| {
            put_filesystems(row, family, |fs| fs.capacity);
        },
    ),
    gauge(
        "container_fs_inodes_free",
        "Inodes left on the file system",
        |row, family| {
            put_filesystems(row, family, |fs| fs.inodes_free);
        },
    ),
    gauge(
        "container_fs_inodes_total",
        "Inodes of the file system",
        |row, family| {
            put_filesystems(row, family, |fs| fs.inodes);
        },
    ),
    // --- block I/O of a cgroup ---
    counter(
        "container_fs_reads_bytes_total",
        "Bytes read from the device",
        |row, family| {
            put_devices(row, family, |io| io.bytes.reads);
        },
    ),
    counter(
        "container_fs_reads_total",
        "Reads from the device",
        |row, family| {
            put_devices(row, family, |io| io.operations.reads);
        },
    ),
    counter(
        "container_fs_writes_bytes_total",
        "Bytes written to the device",
        |row, family| {
            put_devices(row, family, |io| io.bytes.writes);
        },
    ),
    counter(
        "container_fs_writes_total",
        "Writes to the device",
        |row, family| {
            put_devices(row, family, |io| io.operations.writes);
        },
    ),
    counter(
        "container_blkio_device_usage_total",
        "Bytes by device and operation",
        |row, family| {
            for io in row.more().into_iter().flat_map(|more| &more.devices) {
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
        },
    ),
    // --- what the kernel counts for whole disks alone ---
    counter(
        "container_fs_sector_reads_total",
        "Sectors read",
        |row, family| {
            put_disks(row, family, |disk| Value::Count(disk.sectors.reads));
        },
    ),
    counter(
        "container_fs_sector_writes_total",
        "Sectors written",
        |row, family| {
            put_disks(row, family, |disk| Value::Count(disk.sectors.writes));
        },
    ),
    counter(
        "container_fs_reads_merged_total",
        "Reads that were done with others",
        |row, family| {
            put_disks(row, family, |disk| Value::Count(disk.merged.reads));
        },
    ),
    counter(
        "container_fs_writes_merged_total",
        "Writes that were done with others",
        |row, family| {
            put_disks(row, family, |disk| Value::Count(disk.merged.writes));
        },
    ),
    counter(
        "container_fs_read_seconds_total",
        "Time that reads took",
        |row, family| {
            put_disks(row, family, |disk| Value::Time(disk.read_time));
        },
    ),
    counter(
        "container_fs_write_seconds_total",
        "Time that writes took",
        |row, family| {
            put_disks(row, family, |disk| Value::Time(disk.write_time));
        },
    ),
    gauge(
        "container_fs_io_current",
        "Reads and writes under way",
        |row, family| {
            put_disks(row, family, |disk| Value::Count(disk.in_progress));
        },
    ),
    counter(
        "container_fs_io_time_seconds_total",
        "Time that the disk was busy",
        |row, family| {
            put_disks(row, family, |disk| Value::Time(disk.busy));
        },
    ),
    counter(
        "container_fs_io_time_weighted_seconds_total",
        "Time that the disk was busy, times what it was busy with",
        |row, family| {
            put_disks(row, family, |disk| Value::Time(disk.weighted));
        },
    ),
    // --- processes ---
    gauge("container_processes", "Processes", |row, family| {
        put(
            row,
            family,
            row.reading
                .processes
                .map(|processes| Value::Count(processes.count)),
        );
    }),
    gauge(
        "container_threads",
        "Threads, with those of the cgroups below",
        |row, family| {
            put(
                row,
                family,
                row.more().and_then(|more| more.threads).map(Value::Count),
            );
        },
    ),
    gauge(
        "container_threads_max",
        "Threads that there can be; 0 is no limit",
        |row, family| {
            let most = row.more().and_then(|more| more.threads_max);
            put(row, family, most.map(|most| Value::Count(or_zero(most))));
        },
    ),
    gauge(
        "container_ulimits_soft",
        "Soft limits of the first process",
        |row, family| {
            let most = row
                .more()
                .and_then(|more| more.max_open_files)
                .and_then(Limit::bound);
            if let Some(most) = most {
                let labels = row.labels.and(&[("ulimit", "max_open_files")]);
                family.at(&labels, Value::Count(most), row.reading.at);
            }
        },
    ),
    // --- pressure ---
    counter(
        "container_pressure_cpu_waiting_seconds_total",
        "Time in which some task waited for a CPU",
        |row, family| {
            put_pressure(row, family, row.reading.pressure.cpu, |pressure| {
                pressure.some
            });
        },
    ),
    counter(
        "container_pressure_cpu_stalled_seconds_total",
        "Time in which all tasks waited for a CPU",
        |row, family| {
            put_pressure(row, family, row.reading.pressure.cpu, |pressure| {
                pressure.full
            });
        },
    ),
    counter(
        "container_pressure_memory_waiting_seconds_total",
        "Time in which some task waited for memory",
        |row, family| {
            put_pressure(row, family, row.reading.pressure.memory, |pressure| {
                pressure.some
            });
        },
    ),
    counter(
        "container_pressure_memory_stalled_seconds_total",
        "Time in which all tasks waited for memory",
        |row, family| {
            put_pressure(row, family, row.reading.pressure.memory, |pressure| {
                pressure.full
            });
        },
    ),
    counter(
        "container_pressure_io_waiting_seconds_total",
        "Time in which some task waited for a device",
        |row, family| {
            put_pressure(row, family, row.reading.pressure.io, |pressure| {
                pressure.some
            });
        },
    ),
    counter(
        "container_pressure_io_stalled_seconds_total",
        "Time in which all tasks waited for a device",
        |row, family| {
            put_pressure(row, family, row.reading.pressure.io, |pressure| {
                pressure.full
            });
        },
    ),
    // --- settings ---
    gauge(
        "container_spec_cpu_period",
        "Length of a CPU period, in microseconds",
        |row, family| {
            now(
                row,
                family,
                row.more().and_then(|more| more.cpu_limit.period),
            );
        },
    ),
    gauge(
        "container_spec_cpu_quota",
        "CPU time in a period, in microseconds",
        |row, family| {
            let quota = row.more().and_then(|more| more.cpu_limit.quota);
            now(row, family, quota.and_then(Limit::bound));
        },
    ),
    gauge(
        "container_spec_cpu_shares",
        "Weight among others; 1024 is a CPU's",
        |row, family| {
            now(
                row,
                family,
                row.more().and_then(|more| more.cpu_limit.shares),
            );
        },
    ),
    gauge(
        "container_spec_memory_limit_bytes",
        "Memory that can be used; 0 is no limit",
        |row, family| {
            now(
                row,
                family,
                row.memory().and_then(|memory| memory.limit).map(or_zero),
            );
        },
    ),
    gauge(
        "container_spec_memory_swap_limit_bytes",
        "Swap space that can be used; 0 is none, or no limit",
        |row, family| {
            let limit = row.reading.swap.and_then(|swap| swap.limit);
            now(row, family, limit.map(or_zero));
        },
    ),
    gauge(
        "container_spec_memory_reservation_limit_bytes",
        "Memory that reclaim leaves alone",
        |row, family| {
            let reserved = row.more().and_then(|more| more.memory.reservation);
            now(row, family, reserved.map(or_zero));
        },
    ),
    gauge(
        "container_start_time_seconds",
        "When it was made, in seconds since the epoch",
        |row, family| {
            if let Some(at) = row.started_at {
                family.now(&row.labels, since_epoch(at));
            }
        },
    ),
    gauge(
        "container_last_seen",
        "When it was looked at, in seconds since the epoch",
        |row, family| {
            let seconds = u64::try_from(row.reading.at.as_second()).unwrap_or(0);
            family.at(&row.labels, Value::Count(seconds), row.reading.at);
        },
    ),
];

fn put(row: &Row<'_>, family: &mut Family<'_>, value: Option<Value>) {
    if let Some(value) = value {
        family.at(&row.labels, value, row.reading.at);
    }
}

fn now(row: &Row<'_>, family: &mut Family<'_>, value: Option<u64>) {
    if let Some(value) = value {
        family.now(&row.labels, Value::Count(value));
    }
}

/// Only what has a quota can be held up.
fn throttling(row: &Row<'_>, value: fn(&Throttling) -> Value) -> Option<Value> {
    let more = row.more()?;
    more.cpu_limit.quota.and_then(Limit::bound)?;
    more.throttling.as_ref().map(value)
}

fn put_interfaces(row: &Row<'_>, family: &mut Family<'_>, value: fn(&Interface) -> u64) {
    let Some(network) = row.network else {
        return;
    };
    for interface in &network.interfaces {
        let labels = row.labels.and(&[("interface", &interface.name)]);
        family.at(&labels, Value::Count(value(interface)), network.at);
    }
}

fn put_filesystems(row: &Row<'_>, family: &mut Family<'_>, value: fn(&FsUsage) -> Option<u64>) {
    for fs in &row.filesystems {
        if let Some(value) = value(fs) {
            let device = fs.device.as_deref().unwrap_or_default();
            let labels = row.labels.and(&[("device", device)]);
            family.at(&labels, Value::Count(value), fs.at);
        }
    }
}

fn put_devices(row: &Row<'_>, family: &mut Family<'_>, value: fn(&DeviceIo) -> u64) {
    for io in row.more().into_iter().flat_map(|more| &more.devices) {
        let labels = row.labels.and(&[("device", &io.device)]);
        family.at(&labels, Value::Count(value(io)), row.reading.at);
    }
}

fn put_disks(row: &Row<'_>, family: &mut Family<'_>, value: fn(&DiskCounters) -> Value) {
    for disk in row.disks {
        let labels = row.labels.and(&[("device", &disk.device)]);
        family.at(&labels, value(disk), row.reading.at);
    }
}

fn put_pressure(
    row: &Row<'_>,
    family: &mut Family<'_>,
    pressure: Option<Pressure>,
    stall: fn(&Pressure) -> Stall,
) {
    let total = pressure.as_ref().map(|pressure| stall(pressure).total);
    put(
        row,
        family,
        total.map(|us| Value::Time(Duration::from_micros(us))),
    );
}
