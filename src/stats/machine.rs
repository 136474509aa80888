//! What the machine has, for `machine_*` metrics; and what its disks did.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use procfs::{Current as _, DiskStats};

use super::files::Files;
use super::model::{DiskCounters, NodeProcesses, ReadsWrites};
use super::parse;

const CPUS: &str = "/sys/devices/system/cpu";

/// What does not change while the machine is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineInfo {
    pub cpus: u32,
    /// Cores and sockets that the CPUs are on; `None` where the kernel does
    /// not tell.
    pub topology: Option<Topology>,
    /// Bytes.
    pub memory: u64,
    /// Bytes; 0 without swap.
    pub swap: u64,
    pub machine_id: String,
    pub system_uuid: String,
    pub boot_id: String,
    pub kernel_version: String,
    pub os_image: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topology {
    pub cores: usize,
    pub sockets: usize,
}

/// Reads how the CPUs are arranged.
#[must_use]
pub fn topology() -> Option<Topology> {
    topology_at(Path::new(CPUS))
}

fn topology_at(directory: &Path) -> Option<Topology> {
    let mut files = Files::new();
    let mut cores = BTreeSet::new();
    let mut sockets = BTreeSet::new();
    for entry in std::fs::read_dir(directory).ok()?.flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("cpu"));
        if number.is_none_or(|number| number.parse::<u32>().is_err()) {
            continue;
        }
        let cpu = entry.path().join("topology");
        // A CPU that is off has none.
        let socket = files
            .value(&cpu, "physical_package_id")
            .and_then(parse::number);
        let core = files.value(&cpu, "core_id").and_then(parse::number);
        if let (Some(socket), Some(core)) = (socket, core) {
            sockets.insert(socket);
            cores.insert((socket, core));
        }
    }
    (!cores.is_empty()).then_some(Topology {
        cores: cores.len(),
        sockets: sockets.len(),
    })
}

/// How many processes and threads there are, and can be.
pub(super) fn processes(files: &mut Files, at: jiff::Timestamp) -> Option<NodeProcesses> {
    let load = files.value(Path::new("/proc"), "loadavg")?;
    let current = current_processes(load)?;
    let max = files
        .value(Path::new("/proc/sys/kernel"), "pid_max")
        .and_then(parse::number)?;
    Some(NodeProcesses { at, max, current })
}

/// The fourth field of `/proc/loadavg`: `running/all`.
fn current_processes(load: &str) -> Option<u64> {
    let (_, all) = load.split_whitespace().nth(3)?.split_once('/')?;
    parse::number(all)
}

/// Counters of all disks that have ever been used.
pub(super) fn disks() -> Vec<DiskCounters> {
    let disks = DiskStats::current()
        .map(|disks| disks.0)
        .unwrap_or_default();
    let used = disks
        .into_iter()
        .filter(|disk| disk.reads + disk.writes > 0);
    used.map(|disk| DiskCounters {
        device: format!("/dev/{}", disk.name),
        completed: ReadsWrites {
            reads: disk.reads,
            writes: disk.writes,
        },
        merged: ReadsWrites {
            reads: disk.merged,
            writes: disk.writes_merged,
        },
        sectors: ReadsWrites {
            reads: disk.sectors_read,
            writes: disk.sectors_written,
        },
        read_time: Duration::from_millis(disk.time_reading),
        write_time: Duration::from_millis(disk.time_writing),
        in_progress: disk.in_progress,
        busy: Duration::from_millis(disk.time_in_progress),
        weighted: Duration::from_millis(disk.weighted_time_in_progress),
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_and_sockets_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let cpus = [
            ("cpu0", 0, 0),
            ("cpu1", 0, 0),
            ("cpu2", 0, 1),
            ("cpu3", 1, 0),
        ];
        for (cpu, socket, core) in cpus {
            let topology = dir.path().join(cpu).join("topology");
            std::fs::create_dir_all(&topology).unwrap();
            std::fs::write(topology.join("physical_package_id"), format!("{socket}\n")).unwrap();
            std::fs::write(topology.join("core_id"), format!("{core}\n")).unwrap();
        }
        for other in ["cpufreq", "cpu4", "power"] {
            std::fs::create_dir(dir.path().join(other)).unwrap();
        }
        let expected = Topology {
            cores: 3,
            sockets: 2,
        };
        assert_eq!(topology_at(dir.path()), Some(expected));
        assert_eq!(topology_at(&dir.path().join("absent")), None);
    }

    #[test]
    fn load_average_tells_of_processes() {
        assert_eq!(current_processes("0.20 0.18 0.12 1/175 11206\n"), Some(175));
        for text in ["", "1 2 3", "1 2 3 4", "1 2 3 1/x 5"] {
            assert_eq!(current_processes(text), None, "{text}");
        }
    }
}
