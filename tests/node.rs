//! What the node does to this machine's mounts: needs root.

use std::path::{Path, PathBuf};

use kubelet::node::root_dir;
use procfs::process::{MountInfo, MountOptFields, Process};

/// A directory whose mounts go away with it.
struct Directory {
    parent: tempfile::TempDir,
}

impl Directory {
    fn new() -> Self {
        Self {
            parent: tempfile::TempDir::new().unwrap(),
        }
    }

    fn path(&self) -> PathBuf {
        self.parent.path().join("kubelet")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        for _ in mounts_at(&self.path()) {
            let _ = nix::mount::umount(&self.path());
        }
    }
}

fn mounts_at(path: &Path) -> Vec<MountInfo> {
    let mounts = Process::myself().unwrap().mountinfo().unwrap();
    let here = |mount: &MountInfo| mount.mount_point == path;
    mounts.0.into_iter().filter(here).collect()
}

#[test]
fn the_root_directory_is_shared_once() {
    let directory = Directory::new();
    let path = directory.path();
    root_dir::create(&path).unwrap();
    // A second process finds it done.
    for _ in 0..2 {
        root_dir::ensure_shared(&path);
        let mounts = mounts_at(&path);
        // None: the temporary directory is on a shared mount by itself.
        assert!(mounts.len() <= 1);
        for mount in mounts {
            let shared = |field: &MountOptFields| matches!(field, MountOptFields::Shared(_));
            assert!(mount.opt_fields.iter().any(shared));
        }
    }
}
