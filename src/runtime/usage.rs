//! The [`Usage`] port over CRI: sizes of writable layers and of the image store.

use std::path::PathBuf;

use async_trait::async_trait;
use jiff::Timestamp;

use super::client::CriClient;
use super::{DiskUsage, ImageDisk, RuntimeError, Usage, cri};
use crate::pod::ContainerId;

pub(super) struct CriUsage {
    pub(super) client: CriClient,
}

#[async_trait]
impl Usage for CriUsage {
    async fn writable_layers(&self) -> Result<Vec<(ContainerId, DiskUsage)>, RuntimeError> {
        let stats = self.client.list_container_stats().await?;
        Ok(stats.into_iter().filter_map(writable_layer).collect())
    }

    async fn image_disk(&self) -> Result<ImageDisk, RuntimeError> {
        self.client.image_fs_info().await.map(image_disk)
    }
}

/// `None`: the runtime has not measured it yet.
fn writable_layer(stats: cri::ContainerStats) -> Option<(ContainerId, DiskUsage)> {
    let id = stats.attributes?.id;
    Some((ContainerId(id), disk_usage(stats.writable_layer?)?))
}

/// A node has one of each; upstream reads the first too.
fn image_disk(answer: cri::ImageFsInfoResponse) -> ImageDisk {
    let first = |usages: Vec<cri::FilesystemUsage>| usages.into_iter().next().and_then(disk_usage);
    let images = first(answer.image_filesystems);
    ImageDisk {
        containers: first(answer.container_filesystems).or_else(|| images.clone()),
        images,
    }
}

fn disk_usage(usage: cri::FilesystemUsage) -> Option<DiskUsage> {
    let directory = usage.fs_id.map(|id| id.mountpoint).unwrap_or_default();
    Some(DiskUsage {
        directory: Some(PathBuf::from(directory)).filter(|path| path.is_absolute())?,
        at: Timestamp::from_nanosecond(usage.timestamp.into()).ok()?,
        used_bytes: usage.used_bytes.map(|bytes| bytes.value),
        inodes_used: usage.inodes_used.map(|inodes| inodes.value),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(mountpoint: &str, used: Option<u64>) -> cri::FilesystemUsage {
        cri::FilesystemUsage {
            timestamp: 1_000_000_000,
            fs_id: Some(cri::FilesystemIdentifier {
                mountpoint: mountpoint.to_owned(),
            }),
            used_bytes: used.map(|value| cri::UInt64Value { value }),
            inodes_used: None,
        }
    }

    #[test]
    fn layers_without_a_measurement_are_left_out() {
        let stats = |layer| cri::ContainerStats {
            attributes: Some(cri::ContainerAttributes { id: "c".to_owned() }),
            writable_layer: layer,
        };
        assert_eq!(writable_layer(stats(None)), None);
        assert_eq!(writable_layer(stats(Some(usage("", Some(1))))), None);
        let (id, layer) = writable_layer(stats(Some(usage("/store", Some(7))))).unwrap();
        assert_eq!(id, ContainerId("c".to_owned()));
        assert_eq!((layer.used_bytes, layer.inodes_used), (Some(7), None));
        assert_eq!(layer.at.as_second(), 1);
    }

    #[test]
    fn containers_are_where_images_are_unless_told_otherwise() {
        let together = image_disk(cri::ImageFsInfoResponse {
            image_filesystems: vec![usage("/images", Some(7))],
            container_filesystems: Vec::new(),
        });
        assert_eq!(together.containers, together.images);
        let apart = image_disk(cri::ImageFsInfoResponse {
            image_filesystems: vec![usage("/images", None)],
            container_filesystems: vec![usage("/layers", None)],
        });
        let directory = apart.containers.map(|disk| disk.directory);
        assert_eq!(directory, Some("/layers".into()));
        assert_eq!(
            image_disk(cri::ImageFsInfoResponse::default()),
            ImageDisk::default()
        );
    }
}
