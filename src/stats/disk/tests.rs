use super::*;

const MIB: usize = 1 << 20;

struct World {
    dir: tempfile::TempDir,
    disk: Disk,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for path in ["root/pods/u", "logs/ns_web_u/main"] {
            fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        let disk = Disk::new(DiskSettings {
            root_dir: dir.path().join("root"),
            pod_logs_dir: dir.path().join("logs"),
            volume_period: Some(Duration::from_secs(60)),
        });
        Self { dir, disk }
    }

    fn write(&self, path: &str, bytes: usize) -> PathBuf {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, vec![1; bytes]).unwrap();
        path
    }

    fn look(&mut self, at_second: u64) -> PodDisk {
        let mut round = Round::new(Timestamp::UNIX_EPOCH, Duration::from_secs(at_second));
        let name = PodName::new("ns", "web");
        let found = self.disk.pod(&PodUid::from("u"), &name, &mut round);
        self.disk.forget_unseen();
        found
    }
}

fn about(bytes: Option<u64>, expected: usize) -> bool {
    let (bytes, expected) = (bytes.unwrap(), expected as u64);
    (expected..expected + (256 << 10)).contains(&bytes)
}

#[test]
fn volumes_are_walked_once_a_period() {
    let mut world = World::new();
    let volume = "root/pods/u/volumes/kubernetes.io~empty-dir/cache";
    world.write(&format!("{volume}/a/b"), MIB);
    let used = |found: &PodDisk| found.volumes[0].fs.used;
    let found = world.look(0);
    assert_eq!(found.volumes[0].name, "cache");
    assert_eq!(found.volumes[0].kind, VolumeKind::LocalEphemeral);
    assert!(about(used(&found), MIB), "{found:?}");
    // The volume, its directory and its file.
    assert_eq!(found.volumes[0].fs.inodes_used, Some(3));
    world.write(&format!("{volume}/c"), MIB);
    assert!(about(used(&world.look(59)), MIB));
    assert!(about(used(&world.look(60)), 2 * MIB));
}

#[test]
fn hard_links_count_once() {
    let mut world = World::new();
    let volume = "root/pods/u/volumes/kubernetes.io~empty-dir/cache";
    let file = world.write(&format!("{volume}/a"), MIB);
    fs::hard_link(&file, file.with_file_name("b")).unwrap();
    assert!(about(world.look(0).volumes[0].fs.used, MIB));
}

#[test]
fn a_volume_too_large_to_walk_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c"] {
        fs::write(dir.path().join(name), "x").unwrap();
    }
    assert!(directory_size(dir.path(), &mut 4).is_some());
    assert_eq!(directory_size(dir.path(), &mut 3), None);
}

#[test]
fn logs_are_told_by_container() {
    let mut world = World::new();
    world.write("logs/ns_web_u/main/0.log", MIB);
    world.write("logs/ns_web_u/main/0.log.1.gz", MIB);
    world.write("root/pods/u/etc-hosts", 100);
    let found = world.look(0);
    assert!(about(found.logs["main"].used, 2 * MIB));
    assert_eq!(found.logs["main"].inodes_used, Some(2));
    assert!(found.logs["main"].capacity > found.logs["main"].used);
    assert_eq!(found.files.unwrap().inodes, 1);
}

#[test]
fn a_pod_without_directories_has_nothing() {
    let mut world = World::new();
    fs::remove_dir_all(world.dir.path().join("root/pods/u")).unwrap();
    let found = world.look(0);
    assert!(found.volumes.is_empty() && found.files.is_none());
    assert!(!world.disk.pods.is_empty());
    world.disk.forget_unseen();
    assert!(world.disk.pods.is_empty());
}
