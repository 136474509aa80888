//! The cgroupfs driver against the kernel: needs root and mounted cgroups.
//! Everything happens below a cgroup of the test's own, which goes away with
//! it.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use kubelet::cgroup::{CgroupFs, CgroupSettings, Hierarchy, PodCgroups, RootLimits};
use kubelet::pod::PodUid;
use kubelet::pod::cgroup::{PodCgroup, QosShares};
use kubelet::pod::facts::CgroupVersion;

/// A cgroup root of one test.
struct Playground {
    root: String,
    hierarchy: Hierarchy,
}

impl Playground {
    fn new(test: &str) -> Self {
        Self {
            root: format!("/kubelet-rs-test-{}-{test}", std::process::id()),
            hierarchy: Hierarchy::detect().unwrap(),
        }
    }

    fn cgroups(&self) -> CgroupFs {
        let settings = CgroupSettings {
            root: self.root.clone(),
            hierarchy: self.hierarchy.clone(),
        };
        CgroupFs::new("cgroupfs", settings).unwrap()
    }

    fn pod(&self, uid: &str, class: &str) -> PodCgroup {
        PodCgroup {
            uid: PodUid::from(uid),
            path: format!("{}/kubepods{class}/pod{uid}", self.root),
            cpu_shares: 512,
            cpu_quota: Some(50_000),
            cpu_period: 100_000,
            memory_limit: Some(64 << 20),
            pids_limit: Some(100),
            hugepage_limits: vec![("2MB".to_owned(), 0)],
        }
    }

    /// The cgroup's directory in every hierarchy.
    fn directories(&self, cgroup: &str) -> Vec<PathBuf> {
        let below = cgroup.trim_start_matches('/');
        self.hierarchy
            .mounts()
            .map(|mount| mount.join(below))
            .collect()
    }

    fn read(&self, controller: &str, cgroup: &str, file: &str) -> String {
        let mount = self.hierarchy.mount_of(controller).unwrap();
        let path = mount.join(cgroup.trim_start_matches('/')).join(file);
        std::fs::read_to_string(path).unwrap().trim().to_owned()
    }
}

impl Drop for Playground {
    fn drop(&mut self) {
        for root in self.directories(&self.root) {
            remove_below(&root);
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

/// A sleeping process in a container's cgroup, in every hierarchy.
fn sleeper(directories: &[PathBuf]) -> Child {
    let child = Command::new("sleep").arg("600").spawn().unwrap();
    for directory in directories {
        std::fs::create_dir_all(directory).unwrap();
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let inherited = directory.parent().unwrap().join(file);
            if let Ok(value) = std::fs::read_to_string(inherited) {
                let _ = std::fs::write(directory.join(file), value);
            }
        }
        std::fs::write(directory.join("cgroup.procs"), child.id().to_string()).unwrap();
    }
    child
}

fn expected(version: CgroupVersion) -> Vec<(&'static str, &'static str, &'static str)> {
    match version {
        CgroupVersion::V1 => vec![
            ("cpu", "cpu.shares", "512"),
            ("cpu", "cpu.cfs_quota_us", "50000"),
            ("memory", "memory.limit_in_bytes", "67108864"),
            ("pids", "pids.max", "100"),
        ],
        CgroupVersion::V2 => vec![
            ("cpu", "cpu.weight", "20"),
            ("cpu", "cpu.max", "50000 100000"),
            ("memory", "memory.max", "67108864"),
            ("pids", "pids.max", "100"),
        ],
    }
}

#[tokio::test]
async fn values_reach_the_kernel_and_can_be_changed() {
    let playground = Playground::new("values");
    let cgroups = playground.cgroups();
    cgroups.ensure_classes().await.unwrap();
    cgroups
        .set_root_limits(&RootLimits::default())
        .await
        .unwrap();
    let pod = playground.pod("a", "/burstable");
    // Twice: the second finds everything in place.
    for _ in 0..2 {
        cgroups.ensure(&pod).await.unwrap();
        for (controller, file, value) in expected(playground.hierarchy.version()) {
            assert_eq!(
                playground.read(controller, &pod.path, file),
                value,
                "{file}"
            );
        }
    }
    let wider = PodCgroup {
        memory_limit: None,
        cpu_quota: None,
        cpu_period: 50_000,
        ..pod.clone()
    };
    cgroups.ensure(&wider).await.unwrap();
    cgroups.ensure(&pod).await.unwrap();
    let shares = QosShares { burstable: 4096 };
    cgroups.set_qos_shares(shares).await.unwrap();
    assert_eq!(cgroups.pods_on_disk().await.unwrap(), [PodUid::from("a")]);
    cgroups.remove(&pod.uid).await.unwrap();
}

#[tokio::test]
async fn root_limits_are_set_and_lifted() {
    let playground = Playground::new("root");
    let cgroups = playground.cgroups();
    let limits = RootLimits {
        cpu_shares: Some(2048),
        memory_limit: Some(1 << 30),
        pids_limit: Some(1000),
    };
    let kubepods = format!("{}/kubepods", playground.root);
    cgroups.ensure_classes().await.unwrap();
    cgroups.set_root_limits(&limits).await.unwrap();
    assert_eq!(playground.read("pids", &kubepods, "pids.max"), "1000");
    cgroups.ensure_classes().await.unwrap();
    cgroups
        .set_root_limits(&RootLimits::default())
        .await
        .unwrap();
    assert_eq!(playground.read("pids", &kubepods, "pids.max"), "max");
}

#[tokio::test]
async fn removal_kills_what_runs_in_any_class() {
    let playground = Playground::new("kill");
    let cgroups = playground.cgroups();
    cgroups.ensure_classes().await.unwrap();
    cgroups
        .set_root_limits(&RootLimits::default())
        .await
        .unwrap();
    for (uid, class) in [("g", ""), ("b", "/burstable"), ("e", "/besteffort")] {
        let pod = playground.pod(uid, class);
        cgroups.ensure(&pod).await.unwrap();
        let container = playground.directories(&format!("{}/container", pod.path));
        let mut child = sleeper(&container);
        cgroups.remove(&pod.uid).await.unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        for directory in playground.directories(&pod.path) {
            assert!(!directory.exists(), "{}", directory.display());
        }
        cgroups.remove(&pod.uid).await.unwrap();
    }
    assert!(cgroups.pods_on_disk().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_frozen_container_dies_too() {
    let playground = Playground::new("frozen");
    let cgroups = playground.cgroups();
    cgroups.ensure_classes().await.unwrap();
    cgroups
        .set_root_limits(&RootLimits::default())
        .await
        .unwrap();
    let pod = playground.pod("f", "");
    cgroups.ensure(&pod).await.unwrap();
    let container = playground.directories(&format!("{}/container", pod.path));
    let mut child = sleeper(&container);
    for directory in &container {
        for (file, value) in [("freezer.state", "FROZEN"), ("cgroup.freeze", "1")] {
            if directory.join(file).exists() {
                std::fs::write(directory.join(file), value).unwrap();
            }
        }
    }
    cgroups.remove(&pod.uid).await.unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
}
