//! A snapshot for tests of its forms: a node with one pod that has everything,
//! and one on the host's network that has little.

use std::time::Duration;

use jiff::Timestamp;

use super::model::*;
use super::{MachineInfo, Topology};
use crate::pod::{PodName, PodUid};

pub(super) fn at(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(1_800_000_000_000 + milliseconds).unwrap()
}

pub(super) fn machine() -> MachineInfo {
    MachineInfo {
        cpus: 8,
        topology: Some(Topology {
            cores: 4,
            sockets: 1,
        }),
        memory: 16 << 30,
        swap: 0,
        machine_id: "m1".to_owned(),
        system_uuid: "s1".to_owned(),
        boot_id: "b1".to_owned(),
        kernel_version: "6.18.0".to_owned(),
        os_image: "Debian GNU/Linux 12 (bookworm)".to_owned(),
    }
}

pub(super) fn snapshot() -> Snapshot {
    let uid = "0fde4e07";
    let pods = "/kubepods/burstable";
    Snapshot {
        detail: Detail::Metrics,
        node: NodeUsage {
            started_at: at(-3_600_000),
            cgroup: cgroup("/", 1000),
            network: Some(NodeNetwork {
                primary: Some("ens3".to_owned()),
                network: network(&["cni0", "ens3"]),
            }),
            disk: NodeDisk {
                root: Some(fs(40 << 30)),
                images: Some(fs(3 << 30)),
                containers: Some(fs(3 << 30)),
                devices: vec![DiskCounters {
                    device: "/dev/vda".to_owned(),
                    sectors: ReadsWrites {
                        reads: 16,
                        writes: 8,
                    },
                    busy: Duration::from_millis(1500),
                    ..DiskCounters::default()
                }],
            },
            processes: Some(NodeProcesses {
                at: at(0),
                max: 32768,
                current: 175,
            }),
        },
        groups: vec![
            group(GroupRole::Pods, "/kubepods"),
            group(GroupRole::Agent, "/system.slice/kubelet.service"),
            group(GroupRole::Class, pods),
        ],
        pods: vec![
            rich_pod(uid, &format!("{pods}/pod{uid}")),
            PodUsage {
                uid: PodUid::from("1"),
                name: PodName::new("kube-system", "proxy"),
                started_at: at(-60_000),
                cgroup: None,
                sandbox: None,
                containers: Vec::new(),
                network: None,
                volumes: Vec::new(),
                files: None,
            },
        ],
    }
}

fn rich_pod(uid: &str, path: &str) -> PodUsage {
    let mut container = container("c1", "main", &format!("{path}/c1"));
    "docker.io/library/busybox:1.37".clone_into(&mut container.image);
    container.rootfs = Some(fs(28_672));
    container.logs = Some(fs(4096));
    let volume = |name: &str, kind, used| VolumeUsage {
        name: name.to_owned(),
        kind,
        fs: fs(used),
    };
    PodUsage {
        uid: PodUid::from(uid),
        name: PodName::new("shop", "web"),
        started_at: at(-20_000),
        cgroup: Some(cgroup(path, 20)),
        sandbox: Some(self::container("s1", "", &format!("{path}/s1"))),
        containers: vec![container],
        network: Some(network(&["eth0"])),
        volumes: vec![
            volume("cache", VolumeKind::LocalEphemeral, 1 << 20),
            volume("memory", VolumeKind::Other, 2 << 20),
        ],
        files: Some(DirectorySize {
            bytes: 4096,
            inodes: 1,
        }),
    }
}

fn group(role: GroupRole, path: &str) -> GroupUsage {
    GroupUsage {
        role,
        started_at: Some(at(-3_000_000)),
        cgroup: cgroup(path, 100),
    }
}

fn container(id: &str, name: &str, path: &str) -> ContainerUsage {
    let mut cgroup = cgroup(path, 10);
    cgroup.reading.processes = Some(Processes {
        count: 2,
        first: Some(4711),
    });
    ContainerUsage {
        id: id.to_owned(),
        name: name.to_owned(),
        image: String::new(),
        created_at: at(-19_500),
        cgroup,
        rootfs: None,
        logs: None,
    }
}

fn cgroup(path: &str, seconds: u64) -> CgroupUsage {
    let stall = |total| Stall {
        avg10: 0.12,
        avg60: 0.0,
        avg300: 1.5,
        total,
    };
    let pressure = Some(Pressure {
        some: stall(2_500_000),
        full: stall(1_000_000),
    });
    CgroupUsage {
        path: path.into(),
        reading: Reading {
            at: at(123),
            cpu: Cpu {
                total: Duration::from_secs(seconds) + Duration::from_nanos(500),
                nano_cores: Some(200_000_000),
            },
            memory: Some(memory(seconds << 20)),
            swap: Some(Swap {
                usage: 0,
                limit: Some(Limit::At(0)),
            }),
            pressure: Pressures {
                cpu: pressure,
                memory: pressure,
                io: pressure,
            },
            processes: None,
            more: Some(Box::new(more())),
        },
    }
}

fn memory(usage: u64) -> Memory {
    Memory {
        usage,
        working_set: usage - 4096,
        rss: 61_440,
        cache: 12_288,
        mapped_file: 8192,
        active_file: 4096,
        inactive_file: 4096,
        faults: Faults { all: 870, major: 3 },
        own_faults: Faults { all: 800, major: 2 },
        limit: Some(Limit::At(2 * usage)),
    }
}

fn more() -> More {
    More {
        user: Some(Duration::from_millis(8030)),
        system: Some(Duration::from_millis(1970)),
        cpu_limit: CpuLimit {
            shares: Some(204),
            quota: Some(Limit::At(20_000)),
            period: Some(100_000),
        },
        throttling: Some(Throttling {
            periods: 144,
            throttled_periods: 140,
            throttled: Duration::from_millis(10_097),
            burst_periods: 0,
            burst: Duration::ZERO,
        }),
        memory: MoreMemory {
            kernel: Some(184_320),
            peak: Some(2_772_992),
            limit_hits: Some(1),
            oom_kills: Some(0),
            reservation: Some(Limit::Unlimited),
        },
        threads: Some(3),
        threads_max: Some(Limit::Unlimited),
        max_open_files: Some(Limit::At(1024)),
        devices: vec![DeviceIo {
            number: DeviceNumber {
                major: 254,
                minor: 0,
            },
            device: "/dev/vda".to_owned(),
            bytes: ReadsWrites {
                reads: 8192,
                writes: 4096,
            },
            operations: ReadsWrites {
                reads: 2,
                writes: 1,
            },
        }],
    }
}

fn network(names: &[&str]) -> Network {
    let traffic = |bytes| Traffic {
        bytes,
        packets: 7,
        errors: 1,
        dropped: 2,
    };
    let names = names.iter();
    Network {
        at: at(200),
        interfaces: names
            .map(|name| Interface {
                name: (*name).to_owned(),
                received: traffic(446),
                sent: traffic(586),
            })
            .collect(),
    }
}

fn fs(used: u64) -> FsUsage {
    FsUsage {
        at: at(-1000),
        device: Some("/dev/vda".into()),
        available: Some(60 << 30),
        capacity: Some(100 << 30),
        used: Some(used),
        inodes_free: Some(900),
        inodes: Some(1000),
        inodes_used: Some(11),
    }
}
