//! Statistics of real cgroups: needs root and mounted cgroups. The runtime is the
//! fake; its containers' cgroups are made here, below one of the test's own, which
//! goes away with it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kubelet::cgroup::Hierarchy;
use kubelet::pod::observed::{
    ContainerId, ContainerStamp, ContainerState, ObservedContainer, ObservedSandbox, SandboxId,
    SandboxState,
};
use kubelet::pod::{DesiredPod, DesiredPods, Intent, ObservedPod, Origin, PodName, PodUid};
use kubelet::runtime::CgroupDriver;
use kubelet::runtime::fake::FakeRuntime;
use kubelet::stats::{
    CgroupNames, Collector, CollectorDeps, Detail, DiskSettings, Extent, MachineInfo, StatsSettings,
};
use nix::sys::resource::{UsageWho, getrusage};
use tokio::sync::watch;

/// Pods of one container each, with the cgroups that they would have.
struct World {
    root: String,
    hierarchy: Hierarchy,
    dir: tempfile::TempDir,
    pods: Vec<ObservedPod>,
}

impl World {
    fn new(test: &str, pods: usize) -> Self {
        let world = Self {
            root: format!("/kubelet-rs-test-{}-{test}", std::process::id()),
            hierarchy: Hierarchy::detect().unwrap(),
            dir: tempfile::tempdir().unwrap(),
            pods: (0..pods).map(pod).collect(),
        };
        for pod in &world.pods {
            for id in [&pod.sandboxes[0].id.0, &pod.containers[0].id.0] {
                for directory in world.directories(pod, id) {
                    std::fs::create_dir_all(directory).unwrap();
                }
            }
        }
        world
    }

    /// A container's cgroup in every hierarchy.
    fn directories(&self, pod: &ObservedPod, id: &str) -> Vec<PathBuf> {
        let below = format!("{}/kubepods/besteffort/pod{}/{id}", self.root, pod.uid);
        let mounts = self.hierarchy.mounts();
        mounts
            .map(|mount| mount.join(below.trim_start_matches('/')))
            .collect()
    }

    fn collector(&self) -> Collector {
        let fake = FakeRuntime::new();
        let mut desired = BTreeMap::new();
        for pod in &self.pods {
            fake.install(pod.clone());
            desired.insert(pod.uid.clone(), Arc::new(wanted(pod)));
        }
        let desired = DesiredPods {
            pods: Arc::new(desired),
            ..DesiredPods::default()
        };
        Collector::new(CollectorDeps {
            settings: StatsSettings {
                node_name: "node".to_owned(),
                hierarchy: self.hierarchy.clone(),
                names: CgroupNames {
                    driver: CgroupDriver::Cgroupfs,
                    root: self.root.clone(),
                },
                disk: DiskSettings {
                    root_dir: self.dir.path().to_owned(),
                    pod_logs_dir: self.dir.path().to_owned(),
                    volume_period: Some(Duration::from_secs(60)),
                },
                machine: machine(),
                runtime_cgroup: None,
            },
            desired: watch::channel(desired).1,
            observer: Arc::new(fake.clone()),
            usage: Arc::new(fake),
        })
        .unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for mount in self.hierarchy.mounts() {
            remove_below(&mount.join(self.root.trim_start_matches('/')));
        }
    }
}

fn remove_below(directory: &Path) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_below(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(directory);
}

fn pod(number: usize) -> ObservedPod {
    let id = |kind: &str| format!("{kind}{number:063x}");
    let sandbox = SandboxId(id("a"));
    let at = Timestamp::from_second(1_800_000_000).unwrap();
    ObservedPod {
        uid: PodUid::from(format!("0fde4e07-ed0d-4c33-9d6b-{number:012x}").as_str()),
        name: PodName::new("default", format!("pod-{number}")),
        sandboxes: vec![ObservedSandbox {
            id: sandbox.clone(),
            attempt: 0,
            state: SandboxState::Ready,
            created_at: at,
            ips: Vec::new(),
            host_network: false,
            runtime_handler: String::new(),
        }],
        containers: vec![ObservedContainer {
            id: ContainerId(id("c")),
            sandbox,
            name: "main".to_owned(),
            attempt: 0,
            state: ContainerState::Running { started_at: at },
            created_at: at,
            image: "registry.k8s.io/e2e-test-images/busybox:1.37.0-1".to_owned(),
            image_ref: String::new(),
            stamp: ContainerStamp::default(),
            user: None,
        }],
        observed_at: at,
    }
}

fn wanted(pod: &ObservedPod) -> DesiredPod {
    DesiredPod {
        uid: pod.uid.clone(),
        name: pod.name.clone(),
        pod: Arc::default(),
        origin: Origin::Api,
        intent: Intent::Run,
    }
}

fn machine() -> MachineInfo {
    MachineInfo {
        cpus: 2,
        topology: kubelet::stats::topology(),
        memory: 24 << 30,
        swap: 0,
        machine_id: String::new(),
        system_uuid: String::new(),
        boot_id: String::new(),
        kernel_version: String::new(),
        os_image: String::new(),
    }
}

/// A process that ends with the test.
struct Busy(Child);

impl Busy {
    fn in_cgroup(directories: &[PathBuf]) -> Self {
        let child = Command::new("sh")
            .args(["-c", "while :; do :; done"])
            .spawn();
        let busy = Self(child.unwrap());
        for directory in directories {
            for file in ["cpuset.cpus", "cpuset.mems"] {
                for level in [4, 3, 2, 1, 0] {
                    let Some(group) = directory.ancestors().nth(level) else {
                        continue;
                    };
                    let above = group.parent().unwrap().join(file);
                    if let Ok(value) = std::fs::read_to_string(above) {
                        let _ = std::fs::write(group.join(file), value);
                    }
                }
            }
            let pid = busy.0.id().to_string();
            std::fs::write(directory.join("cgroup.procs"), pid).unwrap();
        }
        busy
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_busy_process_is_seen_in_its_container() {
    let world = World::new("busy", 1);
    let pod = &world.pods[0];
    let _busy = Busy::in_cgroup(&world.directories(pod, &pod.containers[0].id.0));
    let collector = world.collector();
    let usage = async |detail| {
        let snapshot = collector.snapshot(detail).await.unwrap();
        serde_json::to_value(kubelet::stats::summary(
            &snapshot,
            "node",
            Extent::Everything,
        ))
        .unwrap()
    };
    let first = usage(Detail::Summary).await;
    assert!(
        first
            .pointer("/pods/0/containers/0/cpu/usageNanoCores")
            .is_none(),
        "{first}"
    );
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let now = usage(Detail::Metrics).await;
        let number = |pointer: &str| now.pointer(pointer).and_then(serde_json::Value::as_u64);
        let rate = number("/pods/0/containers/0/cpu/usageNanoCores");
        // The machine may be busy with other things.
        if rate.is_some_and(|rate| (100_000_000..=1_100_000_000).contains(&rate)) {
            assert!(
                number("/pods/0/cpu/usageNanoCores") >= Some(100_000_000),
                "{now}"
            );
            assert!(number("/node/memory/workingSetBytes") > Some(0), "{now}");
            assert_eq!(
                number("/pods/0/process_stats/process_count"),
                Some(1),
                "{now}"
            );
            assert!(number("/node/cpu/usageCoreNanoSeconds") > Some(0), "{now}");
            break;
        }
        assert!(Instant::now() < deadline, "{now}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// CPU time of this process.
fn cpu_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    [usage.user_time(), usage.system_time()]
        .map(|time| {
            Duration::from_micros(
                u64::try_from(time.tv_sec() * 1_000_000 + time.tv_usec()).unwrap(),
            )
        })
        .iter()
        .sum()
}

#[tokio::test(start_paused = true)]
async fn a_collection_of_ninety_pods_is_cheap() {
    const ROUNDS: u32 = 20;
    let world = World::new("cost", 90);
    let collector = world.collector();
    for (detail, at_most) in [
        (Detail::CpuAndMemory, Duration::from_millis(60)),
        (Detail::Summary, Duration::from_millis(120)),
        (Detail::Metrics, Duration::from_millis(400)),
    ] {
        let mut bytes = 0;
        let begun = cpu_time();
        for _ in 0..ROUNDS {
            tokio::time::advance(Duration::from_secs(1)).await;
            let snapshot = collector.snapshot(detail).await.unwrap();
            bytes = match detail {
                Detail::CpuAndMemory => kubelet::stats::resource(Some(&snapshot)),
                Detail::Summary => {
                    let all = kubelet::stats::summary(&snapshot, "node", Extent::Everything);
                    serde_json::to_string(&all).unwrap()
                }
                Detail::Metrics => kubelet::stats::cadvisor(Some(&snapshot), collector.machine()),
            }
            .len();
        }
        let each = (cpu_time() - begun) / ROUNDS;
        println!("{detail:?} of 90 pods: {each:?} of CPU time, {bytes} bytes");
        assert!(each < at_most, "{detail:?}: {each:?}");
    }
}
