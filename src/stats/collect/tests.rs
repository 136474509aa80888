use std::collections::BTreeSet;
use std::fs;

use super::*;
use crate::cgroup::V1Mount;
use crate::pod::ContainerId;
use crate::runtime::fake::Call;
use crate::runtime::{DiskUsage, ImageDisk};
use crate::stats::world::World;

#[tokio::test(start_paused = true)]
async fn pods_containers_and_the_node_are_read() {
    let world = World::new();
    let snapshot = world.collector().snapshot(Detail::Summary).await.unwrap();
    let pod = &snapshot.pods[0];
    let container = &pod.containers[0];
    assert_eq!(container.name, "main");
    assert_eq!(container.cgroup.reading.cpu.total, Duration::from_secs(1));
    let memory = container.cgroup.reading.memory.unwrap();
    assert_eq!((memory.usage, memory.working_set), (10_000, 9000));
    assert_eq!(container.cgroup.reading.processes.unwrap().count, 1);
    assert!(pod.cgroup.is_some());
    assert!(pod.sandbox.is_none(), "its cgroup is not there");
    let limit = snapshot.node.cgroup.reading.memory.unwrap().limit;
    assert_eq!(limit, Some(crate::stats::model::Limit::At(16 << 30)));
    assert_eq!(snapshot.groups.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn all_who_ask_at_a_time_share_a_collection() {
    let world = World::new();
    let collector = world.collector();
    let all = futures::future::join_all((0..50).map(|_| collector.snapshot(Detail::Summary))).await;
    let first = all[0].as_ref().unwrap();
    for other in &all {
        assert!(Arc::ptr_eq(first, other.as_ref().unwrap()));
    }
    // What is richer serves who wants less, not the other way round.
    let less = collector.snapshot(Detail::CpuAndMemory).await.unwrap();
    assert!(Arc::ptr_eq(first, &less));
    let more = collector.snapshot(Detail::Metrics).await.unwrap();
    assert!(!Arc::ptr_eq(first, &more));
    tokio::time::advance(MIN_INTERVAL).await;
    let later = collector.snapshot(Detail::Metrics).await.unwrap();
    assert!(!Arc::ptr_eq(&more, &later));
}

#[tokio::test(start_paused = true)]
async fn a_second_reading_gives_a_rate() {
    let world = World::new();
    let collector = world.collector();
    let rate = |snapshot: &Snapshot| snapshot.pods[0].containers[0].cgroup.reading.cpu.nano_cores;
    let snapshot = collector.snapshot(Detail::CpuAndMemory).await.unwrap();
    assert_eq!(rate(&snapshot), None);
    world.cgroup(&world.container_path(), 2_000_000);
    tokio::time::advance(Duration::from_secs(2)).await;
    let snapshot = collector.snapshot(Detail::CpuAndMemory).await.unwrap();
    assert_eq!(rate(&snapshot), Some(500_000_000));
}

#[tokio::test(start_paused = true)]
async fn a_container_that_ends_meanwhile_is_left_out() {
    let world = World::new();
    fs::remove_dir_all(world.directory(&world.container_path())).unwrap();
    let snapshot = world.collector().snapshot(Detail::Metrics).await.unwrap();
    assert!(snapshot.pods[0].containers.is_empty());
    assert!(snapshot.pods[0].cgroup.is_some());
}

#[tokio::test(start_paused = true)]
async fn without_a_root_there_is_no_answer() {
    let world = World::new();
    fs::remove_dir_all(world.directory("")).unwrap();
    let error = world.collector().snapshot(Detail::CpuAndMemory).await;
    assert!(matches!(error, Err(StatsError::Root)));
}

#[tokio::test(start_paused = true)]
async fn a_silent_runtime_costs_some_seconds_and_new_disk_numbers() {
    let world = World::new();
    let id = ContainerId(world.observed.containers[0].id.0.clone());
    let usage = DiskUsage {
        directory: world.dir.path().to_owned(),
        at: Timestamp::UNIX_EPOCH,
        used_bytes: Some(7),
        inodes_used: None,
    };
    world.fake.set_layer(&id, usage.clone());
    world.fake.set_image_disk(ImageDisk {
        images: Some(usage),
        containers: None,
    });
    let collector = world.collector();
    world.fake.delay(Call::Usage, Duration::from_secs(100));
    let begun = Instant::now();
    let snapshot = collector.snapshot(Detail::Summary).await.unwrap();
    assert_eq!(begun.elapsed(), RUNTIME_PATIENCE);
    assert_eq!(snapshot.pods[0].containers[0].rootfs, None);
    assert!(snapshot.node.disk.root.is_some());
    world.fake.heal(Call::Usage);
    tokio::time::advance(RUNTIME_DISK_PERIOD).await;
    let snapshot = collector.snapshot(Detail::Summary).await.unwrap();
    let rootfs = snapshot.pods[0].containers[0].rootfs.as_ref().unwrap();
    assert_eq!(rootfs.used, Some(7));
    assert!(rootfs.capacity.is_some());
    assert_eq!(snapshot.node.disk.images.as_ref().unwrap().used, Some(7));
    // What it told last still stands.
    world.fake.delay(Call::Usage, Duration::from_secs(100));
    tokio::time::advance(RUNTIME_DISK_PERIOD).await;
    let asked = tokio::spawn({
        let collector = collector.clone();
        async move { collector.snapshot(Detail::Summary).await }
    });
    tokio::task::yield_now().await;
    // Who does not need the runtime does not wait for it.
    let begun = Instant::now();
    collector.snapshot(Detail::CpuAndMemory).await.unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO);
    let snapshot = asked.await.unwrap().unwrap();
    let rootfs = snapshot.pods[0].containers[0].rootfs.as_ref().unwrap();
    assert_eq!(rootfs.used, Some(7));
}

#[tokio::test(start_paused = true)]
async fn v1_files_are_read_from_their_hierarchies() {
    let world = World::new();
    let mount = |name: &str| V1Mount {
        controllers: BTreeSet::from([name.to_owned()]),
        path: world.dir.path().join(name),
    };
    let files = [
        ("cpuacct", "cpuacct.usage", "1000000000\n"),
        ("cpuacct", "cgroup.procs", "1\n2\n"),
        ("memory", "memory.usage_in_bytes", "10000\n"),
        ("memory", "memory.stat", "total_inactive_file 1000\n"),
        ("memory", "memory.failcnt", "3\n"),
        ("cpu", "cpu.shares", "204\n"),
        ("cpu", "cpu.cfs_quota_us", "-1\n"),
        ("pids", "pids.current", "5\n"),
        ("pids", "pids.max", "max\n"),
    ];
    for path in [String::new(), world.container_path()] {
        for (controller, file, text) in files {
            let directory = world.dir.path().join(controller).join(&path);
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join(file), text).unwrap();
        }
    }
    let mounts = ["cpu", "cpuacct", "memory", "pids"].map(mount).to_vec();
    let collector = world.collector_on(Hierarchy::V1(mounts));
    let snapshot = collector.snapshot(Detail::Metrics).await.unwrap();
    let reading = &snapshot.pods[0].containers[0].cgroup.reading;
    assert_eq!(reading.cpu.total, Duration::from_secs(1));
    assert_eq!(reading.memory.unwrap().working_set, 9000);
    assert_eq!(reading.processes.unwrap().count, 2);
    let more = reading.more.as_ref().unwrap();
    assert_eq!((more.threads, more.memory.limit_hits), (Some(5), Some(3)));
    assert_eq!(more.cpu_limit.shares, Some(204));
    assert_eq!(more.user, None);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_nobody_wants_any_more_is_found_in_its_class() {
    let mut world = World::new();
    world.desired.uid = crate::pod::PodUid::from("another");
    let snapshot = world
        .collector()
        .snapshot(Detail::CpuAndMemory)
        .await
        .unwrap();
    assert_eq!(snapshot.pods[0].containers.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pods_network_is_that_of_its_sandbox() {
    let mut world = World::new();
    let sandbox = format!("{}/{}", world.pod_path(), world.observed.sandboxes[0].id);
    world.cgroup(&sandbox, 1);
    let collector = world.collector();
    let snapshot = collector.snapshot(Detail::CpuAndMemory).await.unwrap();
    assert_eq!(snapshot.pods[0].network, None);
    let snapshot = collector.snapshot(Detail::Summary).await.unwrap();
    assert!(snapshot.pods[0].network.is_some());
    assert!(
        snapshot.pods[0].sandbox.is_none(),
        "nobody asked for its usage"
    );
    let snapshot = collector.snapshot(Detail::Metrics).await.unwrap();
    assert!(snapshot.pods[0].sandbox.is_some());

    world.observed.sandboxes[0].host_network = true;
    world.fake.install(world.observed.clone());
    let collector = world.collector();
    let snapshot = collector.snapshot(Detail::Metrics).await.unwrap();
    assert_eq!(snapshot.pods[0].network, None);
}
