//! File-level tests: a directory plays the kernel. Real cgroups are in
//! `tests/cgroup.rs`.

use std::collections::BTreeMap;

use tempfile::TempDir;

use super::*;
use crate::cgroup::V1Mount;

/// Files that the kernel would make in each new cgroup.
const V1_FILES: [(&str, &str, &str); 9] = [
    ("cpu", "cpu.shares", "1024\n"),
    ("cpu", "cpu.cfs_period_us", "100000\n"),
    ("cpu", "cpu.cfs_quota_us", "-1\n"),
    ("memory", "memory.limit_in_bytes", "9223372036854771712\n"),
    ("memory", "memory.memsw.limit_in_bytes", "4096\n"),
    ("pids", "pids.max", "max\n"),
    ("cpuset", "cpuset.cpus", "\n"),
    ("cpuset", "cpuset.mems", "\n"),
    ("name=systemd", "tasks", ""),
];

const V2_FILES: [(&str, &str); 7] = [
    ("cgroup.subtree_control", "\n"),
    ("cpu.weight", "100\n"),
    ("cpu.max", "max 100000\n"),
    ("memory.max", "max\n"),
    ("pids.max", "max\n"),
    ("hugetlb.2MB.max", "max\n"),
    ("hugetlb.2MB.rsvd.max", "max\n"),
];

const CGROUPS: [&str; 5] = [
    "",
    "kubepods",
    "kubepods/burstable",
    "kubepods/besteffort",
    "kubepods/burstable/pod1",
];

fn put(directory: &Path, file: &str, content: &str) {
    std::fs::create_dir_all(directory).unwrap();
    std::fs::write(directory.join(file), content).unwrap();
}

fn fake_v1(root: &TempDir) -> CgroupFs {
    let mut mounts: BTreeMap<&str, V1Mount> = BTreeMap::new();
    for (controller, file, content) in V1_FILES {
        let path = root.path().join(controller);
        for cgroup in CGROUPS {
            put(&path.join(cgroup), file, content);
        }
        mounts.entry(controller).or_insert_with(|| V1Mount {
            controllers: BTreeSet::from([controller.to_owned()]),
            path,
        });
    }
    std::fs::write(root.path().join("cpuset/cpuset.cpus"), "0-3\n").unwrap();
    std::fs::write(root.path().join("cpuset/cpuset.mems"), "0\n").unwrap();
    cgroup_fs(Hierarchy::V1(mounts.into_values().collect()))
}

fn fake_v2(root: &TempDir) -> CgroupFs {
    for cgroup in CGROUPS {
        for (file, content) in V2_FILES {
            put(&root.path().join(cgroup), file, content);
        }
    }
    cgroup_fs(Hierarchy::V2 {
        mount: root.path().to_owned(),
        controllers: DELEGATED.map(str::to_owned).into(),
    })
}

fn cgroup_fs(hierarchy: Hierarchy) -> CgroupFs {
    let settings = CgroupSettings {
        root: String::new(),
        hierarchy,
    };
    CgroupFs::new("cgroupfs", settings).unwrap()
}

fn pod() -> PodCgroup {
    PodCgroup {
        uid: PodUid::from("1"),
        path: "/kubepods/burstable/pod1".to_owned(),
        cpu_shares: 512,
        cpu_quota: Some(50_000),
        cpu_period: 100_000,
        memory_limit: Some(128 << 20),
        pids_limit: Some(64),
        hugepage_limits: vec![("2MB".to_owned(), 0)],
    }
}

fn content(root: &TempDir, file: &str) -> String {
    std::fs::read_to_string(root.path().join(file)).unwrap()
}

#[tokio::test]
async fn v1_values_go_to_the_controllers_mounts() {
    let root = TempDir::new().unwrap();
    let cgroups = fake_v1(&root);
    let limits = RootLimits {
        cpu_shares: Some(2048),
        memory_limit: Some(1 << 30),
        pids_limit: None,
    };
    cgroups.ensure_classes().await.unwrap();
    cgroups.set_root_limits(&limits).await.unwrap();
    cgroups.ensure(&pod()).await.unwrap();
    for (file, expected) in [
        ("cpu/kubepods/cpu.shares", "2048"),
        ("cpu/kubepods/besteffort/cpu.shares", "2"),
        ("cpu/kubepods/burstable/cpu.shares", "1024\n"),
        ("memory/kubepods/memory.limit_in_bytes", "1073741824"),
        ("pids/kubepods/pids.max", "max\n"),
        ("cpu/kubepods/burstable/pod1/cpu.shares", "512"),
        ("cpu/kubepods/burstable/pod1/cpu.cfs_quota_us", "50000"),
        (
            "memory/kubepods/burstable/pod1/memory.limit_in_bytes",
            "134217728",
        ),
        (
            "memory/kubepods/burstable/pod1/memory.memsw.limit_in_bytes",
            "-1",
        ),
        ("pids/kubepods/burstable/pod1/pids.max", "64"),
        ("cpuset/kubepods/burstable/pod1/cpuset.cpus", "0-3"),
        ("cpuset/kubepods/burstable/pod1/cpuset.mems", "0"),
    ] {
        assert_eq!(content(&root, file), expected, "{file}");
    }
}

#[tokio::test]
async fn v2_controllers_are_handed_down_and_weights_written() {
    let root = TempDir::new().unwrap();
    let cgroups = fake_v2(&root);
    cgroups.ensure_classes().await.unwrap();
    cgroups
        .set_root_limits(&RootLimits::default())
        .await
        .unwrap();
    cgroups.ensure(&pod()).await.unwrap();
    let shares = QosShares { burstable: 262_144 };
    cgroups.set_qos_shares(shares).await.unwrap();
    let delegated = "+cpu +cpuset +memory +pids +hugetlb";
    for (file, expected) in [
        ("cgroup.subtree_control", delegated),
        ("kubepods/cgroup.subtree_control", delegated),
        ("kubepods/burstable/cgroup.subtree_control", delegated),
        // The runtime does that when it makes the first container.
        ("kubepods/burstable/pod1/cgroup.subtree_control", "\n"),
        ("kubepods/besteffort/cpu.weight", "1"),
        ("kubepods/burstable/cpu.weight", "10000"),
        ("kubepods/burstable/pod1/cpu.weight", "20"),
        ("kubepods/burstable/pod1/cpu.max", "50000 100000"),
        ("kubepods/burstable/pod1/memory.max", "134217728"),
        ("kubepods/burstable/pod1/hugetlb.2MB.max", "0"),
        ("kubepods/burstable/pod1/hugetlb.2MB.rsvd.max", "0"),
    ] {
        assert_eq!(content(&root, file), expected, "{file}");
    }
}

#[tokio::test]
async fn what_is_there_already_is_not_written_again() {
    let root = TempDir::new().unwrap();
    let cgroups = fake_v1(&root);
    cgroups.ensure(&pod()).await.unwrap();
    // A kernel's answer ends in a newline; our writes do not.
    let file = "cpu/kubepods/burstable/pod1/cpu.shares";
    std::fs::write(root.path().join(file), "512\n").unwrap();
    cgroups.ensure(&pod()).await.unwrap();
    assert_eq!(content(&root, file), "512\n");
}

#[tokio::test]
async fn a_limit_that_cannot_be_set_fails_and_no_limit_does_not() {
    let root = TempDir::new().unwrap();
    let cgroups = fake_v1(&root);
    let quota = root
        .path()
        .join("cpu/kubepods/burstable/pod1/cpu.cfs_quota_us");
    std::fs::remove_file(&quota).unwrap();
    match cgroups.ensure(&pod()).await {
        Err(CgroupError::File { path, .. }) => assert_eq!(path, quota),
        other => panic!("{other:?}"),
    }
    let unlimited = PodCgroup {
        cpu_quota: None,
        ..pod()
    };
    cgroups.ensure(&unlimited).await.unwrap();
}

#[tokio::test]
async fn pods_are_found_in_any_class_and_hierarchy() {
    let root = TempDir::new().unwrap();
    let cgroups = fake_v1(&root);
    for directory in ["cpu/kubepods/podg", "memory/kubepods/besteffort/podb"] {
        std::fs::create_dir(root.path().join(directory)).unwrap();
    }
    put(&root.path().join("cpu/kubepods"), "podfile", "");
    let pods = cgroups.pods_on_disk().await.unwrap();
    assert_eq!(pods, ["1", "b", "g"].map(PodUid::from));
}

#[tokio::test]
async fn removal_takes_empty_directories_of_all_hierarchies() {
    let root = TempDir::new().unwrap();
    let cgroups = fake_v1(&root);
    for mount in ["cpu", "memory"] {
        let container = format!("{mount}/kubepods/besteffort/podx/container");
        std::fs::create_dir_all(root.path().join(container)).unwrap();
    }
    let uid = PodUid::from("x");
    cgroups.remove(&uid).await.unwrap();
    assert!(!cgroups.pods_on_disk().await.unwrap().contains(&uid));
    cgroups.remove(&uid).await.unwrap();
}

#[test]
fn other_drivers_are_refused() {
    let settings = CgroupSettings {
        root: "/".to_owned(),
        hierarchy: Hierarchy::V1(Vec::new()),
    };
    assert!(matches!(
        CgroupFs::new("systemd", settings),
        Err(CgroupError::UnsupportedDriver(driver)) if driver == "systemd"
    ));
}

#[tokio::test]
async fn daemons_are_limited_where_they_are() {
    let root = TempDir::new().unwrap();
    let cgroups = fake_v1(&root);
    let limits = RootLimits {
        cpu_shares: Some(512),
        memory_limit: None,
        pids_limit: None,
    };
    let error = cgroups
        .set_daemon_limits("/daemons", &limits)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("cpu/daemons/cpu.shares"),
        "{error}"
    );
    std::fs::create_dir(root.path().join("cpu/daemons")).unwrap();
    std::fs::write(root.path().join("cpu/daemons/cpu.shares"), "1024\n").unwrap();
    cgroups
        .set_daemon_limits("/daemons", &limits)
        .await
        .unwrap();
    assert_eq!(content(&root, "cpu/daemons/cpu.shares"), "512");
}
