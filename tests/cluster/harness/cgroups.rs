//! A pod's or container's cgroup as the kernel has it, whichever cgroup version.

use std::path::{Path, PathBuf};

use super::cluster::Cluster;

const MOUNT: &str = "/sys/fs/cgroup";

/// One cgroup below the cluster's `kubepods`.
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// `path` is relative to the cluster's cgroup root, as `kubepods/burstable/pod…`.
    pub fn new(cluster: &Cluster, path: &str) -> Self {
        Self {
            path: Path::new(cluster.fact("CGROUP_ROOT").trim_start_matches('/')).join(path),
        }
    }

    pub fn unified() -> bool {
        Path::new(MOUNT).join("cgroup.controllers").exists()
    }

    pub fn exists(&self) -> bool {
        self.directory("memory").exists()
    }

    /// Its share of CPU time in `cpu.shares` units; cgroup v1 only, as v2's weight is a
    /// conversion that differs between versions of runc.
    pub fn cpu_shares(&self) -> Option<i64> {
        if Self::unified() {
            None
        } else {
            self.read("cpu", "cpu.shares")
        }
    }

    /// Microseconds of CPU time in 100 ms; none if there is no limit.
    pub fn cpu_quota(&self) -> Option<i64> {
        if Self::unified() {
            let text = std::fs::read_to_string(self.directory("cpu").join("cpu.max")).ok()?;
            text.split(' ').next()?.parse().ok()
        } else {
            self.read("cpu", "cpu.cfs_quota_us")
                .filter(|quota| *quota > 0)
        }
    }

    /// In bytes; none if there is no limit.
    pub fn memory_limit(&self) -> Option<i64> {
        let file = if Self::unified() {
            "memory.max"
        } else {
            "memory.limit_in_bytes"
        };
        // On v1 "no limit" is the largest page-aligned number.
        self.read("memory", file)
            .filter(|limit| *limit < i64::MAX - 4096)
    }

    /// What a controller's file says; none if there is no such file.
    pub fn text(&self, controller: &str, file: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.directory(controller).join(file)).ok()?;
        Some(text.trim().to_owned())
    }

    fn directory(&self, controller: &str) -> PathBuf {
        let mount = Path::new(MOUNT);
        let root = if Self::unified() {
            mount.to_owned()
        } else {
            mount.join(controller)
        };
        root.join(&self.path)
    }

    fn read(&self, controller: &str, file: &str) -> Option<i64> {
        self.text(controller, file)?.parse().ok()
    }
}
