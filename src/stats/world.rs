//! A machine made of ordinary files, for tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;

use super::{CgroupNames, Collector, CollectorDeps, DiskSettings, StatsSettings, samples};
use crate::cgroup::Hierarchy;
use crate::pod::samples::{instance, pod, running, up};
use crate::pod::{DesiredPod, DesiredPods, ObservedPod};
use crate::runtime::CgroupDriver;
use crate::runtime::fake::FakeRuntime;

/// A cgroup v2 tree made of ordinary files, with one pod of one container.
pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) fake: FakeRuntime,
    pub(crate) desired: DesiredPod,
    pub(crate) observed: ObservedPod,
}

impl World {
    pub(crate) fn new() -> Self {
        let desired = pod("Always", &[], &["main"]);
        let observed = up(vec![instance(&desired, "main", 0, running())]);
        let fake = FakeRuntime::new();
        fake.install(observed.clone());
        let world = Self {
            dir: tempfile::tempdir().unwrap(),
            fake,
            desired,
            observed,
        };
        for path in ["", "kubepods", &world.pod_path(), &world.container_path()] {
            world.cgroup(path, 1_000_000);
        }
        world
    }

    pub(crate) fn pod_path(&self) -> String {
        format!("kubepods/besteffort/pod{}", self.observed.uid)
    }

    pub(crate) fn container_path(&self) -> String {
        format!("{}/{}", self.pod_path(), self.observed.containers[0].id)
    }

    pub(crate) fn directory(&self, path: &str) -> PathBuf {
        self.dir.path().join("cgroup").join(path)
    }

    /// Makes or changes a cgroup that has used so many microseconds.
    pub(crate) fn cgroup(&self, path: &str, used: u64) {
        let directory = self.directory(path);
        fs::create_dir_all(&directory).unwrap();
        for (file, text) in [
            ("cpu.stat", format!("usage_usec {used}\n")),
            ("memory.current", "10000\n".to_owned()),
            ("memory.stat", "anon 5000\ninactive_file 1000\n".to_owned()),
            ("memory.max", "20000\n".to_owned()),
            ("cgroup.procs", format!("{}\n", std::process::id())),
        ] {
            fs::write(directory.join(file), text).unwrap();
        }
    }

    pub(crate) fn collector(&self) -> Collector {
        let hierarchy = Hierarchy::V2 {
            mount: self.directory(""),
            controllers: BTreeSet::from(["cpu".to_owned(), "memory".to_owned()]),
        };
        self.collector_on(hierarchy)
    }

    pub(crate) fn collector_on(&self, hierarchy: Hierarchy) -> Collector {
        let uid = self.desired.uid.clone();
        let pods = Arc::new([(uid, Arc::new(self.desired.clone()))].into());
        let desired = DesiredPods {
            pods,
            ..DesiredPods::default()
        };
        Collector::new(CollectorDeps {
            settings: StatsSettings {
                node_name: "n".to_owned(),
                hierarchy,
                names: CgroupNames {
                    driver: CgroupDriver::Cgroupfs,
                    root: "/".to_owned(),
                },
                disk: DiskSettings {
                    root_dir: self.dir.path().to_owned(),
                    pod_logs_dir: self.dir.path().join("logs"),
                    volume_period: None,
                },
                machine: samples::machine(),
                runtime_cgroup: None,
            },
            desired: watch::channel(desired).1,
            observer: Arc::new(self.fake.clone()),
            usage: Arc::new(self.fake.clone()),
        })
        .unwrap()
    }
}
