//! File systems in the words of the summary, and what counts as a pod's
//! ephemeral storage.

use super::super::model::{FsUsage, PodUsage, VolumeKind};
use super::{FsStats, Time, VolumeStats};

pub(super) fn stats(fs: &FsUsage) -> FsStats {
    FsStats {
        time: Time(fs.at),
        available_bytes: fs.available,
        capacity_bytes: fs.capacity,
        used_bytes: fs.used,
        inodes_free: fs.inodes_free,
        inodes: fs.inodes,
        inodes_used: fs.inodes_used,
    }
}

pub(super) fn volumes(pod: &PodUsage) -> Vec<VolumeStats> {
    let volumes = pod.volumes.iter();
    volumes
        .map(|volume| VolumeStats {
            fs: stats(&volume.fs),
            name: volume.name.clone(),
        })
        .collect()
}

/// Writable layers, logs, volumes on the node's disk and the pod's own files.
pub(super) fn ephemeral_storage(pod: &PodUsage, root: &FsUsage) -> FsStats {
    let of_containers = pod
        .containers
        .iter()
        .flat_map(|container| container.rootfs.iter().chain(&container.logs));
    let of_volumes = pod
        .volumes
        .iter()
        .filter(|volume| volume.kind == VolumeKind::LocalEphemeral)
        .map(|volume| &volume.fs);
    let parts: Vec<&FsUsage> = of_containers.chain(of_volumes).collect();
    let own = pod.files.unwrap_or_default();
    let sum = |of: fn(&FsUsage) -> Option<u64>, own: u64| {
        parts.iter().filter_map(|part| of(part)).sum::<u64>() + own
    };
    FsStats {
        time: parts
            .iter()
            .map(|part| Time(part.at))
            .fold(Time(root.at), Time::max),
        used_bytes: Some(sum(|part| part.used, own.bytes)),
        inodes_used: Some(sum(|part| part.inodes_used, own.inodes)),
        ..stats(root)
    }
}
