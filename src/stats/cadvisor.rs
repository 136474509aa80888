//! `/metrics/cadvisor`, which Prometheus' dashboards and alerts read. Pure;
//! names, labels and types are upstream's. What is not known has no sample:
//! `docs/metrics.md` lists what is left out.

use jiff::Timestamp;

use super::MachineInfo;
use super::exposition::{Exposition, Kind, Labels, Value};
use super::model::{
    ContainerUsage, DeviceIo, DiskCounters, FsUsage, Interface, Limit, Memory, More, Network,
    PodUsage, Reading, Snapshot,
};
use super::resource::since_epoch;
use families::FAMILIES;

mod families;

/// One cgroup with what belongs to it.
struct Row<'a> {
    labels: Labels,
    started_at: Option<Timestamp>,
    reading: &'a Reading,
    network: Option<&'a Network>,
    filesystems: Vec<&'a FsUsage>,
    disks: &'a [DiskCounters],
}

/// The text for Prometheus; without a snapshot the machine's metrics alone.
#[must_use]
pub fn cadvisor(snapshot: Option<&Snapshot>, machine: &MachineInfo) -> String {
    let mut text = Exposition::default();
    if let Some(snapshot) = snapshot {
        let rows = rows(snapshot);
        for family in FAMILIES {
            let mut writer = text.family(family.name, family.kind, family.help);
            for row in &rows {
                family.write(row, &mut writer);
            }
        }
    }
    let failed = Value::Count(u64::from(snapshot.is_none()));
    text.family(
        "container_scrape_error",
        Kind::Gauge,
        "1 if usage could not be read, 0 if it could",
    )
    .now(&Labels::default(), failed);
    write_machine(&mut text, machine);
    text.finish()
}

// === rows ===

fn rows(snapshot: &Snapshot) -> Vec<Row<'_>> {
    let mut rows = vec![node_row(snapshot)];
    rows.extend(snapshot.groups.iter().map(|group| Row {
        started_at: group.started_at,
        ..plain_row(&group.cgroup, Owner::default())
    }));
    for pod in &snapshot.pods {
        rows.extend(pod_rows(pod));
    }
    rows
}

fn node_row(snapshot: &Snapshot) -> Row<'_> {
    let node = &snapshot.node;
    Row {
        started_at: Some(node.started_at),
        network: node.network.as_ref().map(|node| &node.network),
        filesystems: node.disk.root.iter().collect(),
        disks: &node.disk.devices,
        ..plain_row(&node.cgroup, Owner::default())
    }
}

fn pod_rows(pod: &PodUsage) -> Vec<Row<'_>> {
    let owner = Owner {
        namespace: &pod.name.namespace,
        pod: &pod.name.name,
        ..Owner::default()
    };
    let own = pod.cgroup.as_ref().map(|cgroup| Row {
        started_at: Some(pod.started_at),
        ..plain_row(cgroup, owner)
    });
    let sandbox = pod.sandbox.as_ref().map(|sandbox| Row {
        network: pod.network.as_ref(),
        ..container_row(sandbox, owner)
    });
    let containers = pod.containers.iter();
    let containers = containers.map(|container| container_row(container, owner));
    own.into_iter().chain(sandbox).chain(containers).collect()
}

fn container_row<'a>(container: &'a ContainerUsage, owner: Owner<'a>) -> Row<'a> {
    let owner = Owner {
        container: &container.name,
        name: &container.id,
        image: &container.image,
        ..owner
    };
    Row {
        started_at: Some(container.created_at),
        filesystems: container.rootfs.iter().collect(),
        ..plain_row(&container.cgroup, owner)
    }
}

/// Values of the labels that all rows have.
#[derive(Debug, Clone, Copy, Default)]
struct Owner<'a> {
    container: &'a str,
    image: &'a str,
    name: &'a str,
    namespace: &'a str,
    pod: &'a str,
}

fn plain_row<'a>(cgroup: &'a super::model::CgroupUsage, owner: Owner<'_>) -> Row<'a> {
    Row {
        labels: Labels::new(&[
            ("container", owner.container),
            ("id", &cgroup.path),
            ("image", owner.image),
            ("name", owner.name),
            ("namespace", owner.namespace),
            ("pod", owner.pod),
        ]),
        started_at: None,
        reading: &cgroup.reading,
        network: None,
        filesystems: Vec::new(),
        disks: &[],
    }
}

impl Row<'_> {
    fn memory(&self) -> Option<&Memory> {
        self.reading.memory.as_ref()
    }

    fn more(&self) -> Option<&More> {
        self.reading.more.as_deref()
    }

    fn devices(&self) -> impl Iterator<Item = &DeviceIo> {
        self.more().into_iter().flat_map(|more| &more.devices)
    }

    fn interfaces(&self) -> impl Iterator<Item = (&Network, &Interface)> {
        let network = self.network.into_iter();
        network.flat_map(|network| network.interfaces.iter().map(move |one| (network, one)))
    }
}

/// A limit as these metrics tell it: 0 is none.
fn or_zero(limit: Limit) -> Value {
    Value::Count(limit.bound().unwrap_or(0))
}

// === the machine ===

fn write_machine(text: &mut Exposition, machine: &MachineInfo) {
    let version = Labels::new(&[
        ("cadvisorRevision", ""),
        ("cadvisorVersion", ""),
        ("dockerVersion", ""),
        ("kernelVersion", &machine.kernel_version),
        ("osVersion", &machine.os_image),
    ]);
    text.family(
        "cadvisor_version_info",
        Kind::Gauge,
        "Always 1: versions of the kernel and of the system",
    )
    .now(&version, Value::Count(1));
    let labels = Labels::new(&[
        ("boot_id", &machine.boot_id),
        ("machine_id", &machine.machine_id),
        ("system_uuid", &machine.system_uuid),
    ]);
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let topology = machine.topology;
    for (name, help, value) in [
        (
            "machine_cpu_cores",
            "CPUs that are on",
            Some(u64::from(machine.cpus)),
        ),
        (
            "machine_cpu_physical_cores",
            "Cores that the CPUs are on",
            topology.map(|topology| count(topology.cores)),
        ),
        (
            "machine_cpu_sockets",
            "Sockets that the CPUs are on",
            topology.map(|topology| count(topology.sockets)),
        ),
        ("machine_memory_bytes", "Memory", Some(machine.memory)),
        ("machine_swap_bytes", "Swap space", Some(machine.swap)),
    ] {
        if let Some(value) = value {
            text.family(name, Kind::Gauge, help)
                .now(&labels, Value::Count(value));
        }
    }
    text.family(
        "machine_scrape_error",
        Kind::Gauge,
        "Always 0: the machine was read at the start",
    )
    .now(&Labels::default(), Value::Count(0));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::samples;

    #[test]
    fn what_dashboards_read() {
        let text = cadvisor(Some(&samples::snapshot()), &samples::machine());
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_failure_is_told_in_its_own_metric() {
        let text = cadvisor(None, &samples::machine());
        assert!(text.contains("\ncontainer_scrape_error 1\n"), "{text}");
        assert!(text.contains("\nmachine_cpu_cores{"), "{text}");
    }
}
