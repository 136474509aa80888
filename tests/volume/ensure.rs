//! Setting up: directories, tmpfs, ownership; again after restart and reboot.

use std::fs;

use kubelet::pod::PodUid;
use kubelet::volume::{VolumeError, Volumes as _};
use serde_json::json;

use crate::fakes::{Host, access, chain, pod};
use crate::isolate::isolated;

#[test]
fn directories_have_upstreams_modes() {
    isolated("ensure::directories_have_upstreams_modes", async {
        let host = Host::new();
        let pod = pod(
            json!([
                {"name": "disk", "emptyDir": {}},
                {"name": "ram", "emptyDir": {"medium": "Memory", "sizeLimit": "3Mi"}},
                {"name": "host", "hostPath": {"path": "/usr", "type": "Directory"}},
            ]),
            json!({}),
        );
        let mounted = host.volumes.ensure(&pod).await.unwrap();
        assert_eq!(mounted.refresh_at, None);
        for directory in ["", "volumes", "plugins", "volumes/kubernetes.io~empty-dir"] {
            assert_eq!(
                access(&host.pod_dir().join(directory)),
                (0o750, 0, 0),
                "{directory}"
            );
        }
        let disk = &mounted.volumes["disk"];
        let ram = &mounted.volumes["ram"];
        assert!(
            disk.host_path
                .ends_with("pods/u1/volumes/kubernetes.io~empty-dir/disk")
        );
        assert_eq!(access(&disk.host_path), (0o777, 0, 0));
        assert_eq!(access(&ram.host_path), (0o1777, 0, 0));
        assert!(!disk.read_only && !ram.read_only);
        assert_eq!(mounted.volumes["host"].host_path.to_str(), Some("/usr"));
        let table = host.mounts_with("/ram ");
        assert_eq!(table.len(), 1);
        assert!(table[0].contains("size=3072k"), "{table:?}");
        let marker = host
            .pod_dir()
            .join("plugins/kubernetes.io~empty-dir/ram/ready");
        assert!(marker.is_file());
    });
}

#[test]
fn an_empty_dir_is_set_up_once_and_survives_the_agent() {
    isolated(
        "ensure::an_empty_dir_is_set_up_once_and_survives_the_agent",
        async {
            let host = Host::new();
            let volumes = json!([
                {"name": "disk", "emptyDir": {}},
                {"name": "ram", "emptyDir": {"medium": "Memory"}},
            ]);
            let pod = pod(volumes, json!({"securityContext": {"fsGroup": 4321}}));
            let first = host.volumes.ensure(&pod).await.unwrap();
            let (disk, ram) = (
                &first.volumes["disk"].host_path,
                &first.volumes["ram"].host_path,
            );
            // A tmpfs comes with a sticky bit.
            for (directory, mode) in [(disk, 0o2777), (ram, 0o3777)] {
                assert_eq!(access(directory), (mode, 0, 4321));
                // What the pod makes of its volume is its own business.
                fs::write(directory.join("data"), "precious").unwrap();
                std::os::unix::fs::chown(directory.join("data"), Some(7), Some(7)).unwrap();
            }
            let host = host.restarted();
            assert_eq!(host.volumes.ensure(&pod).await.unwrap(), first);
            for directory in [disk, ram] {
                assert_eq!(access(&directory.join("data")).1, 7);
            }
            assert_eq!(host.mounts_with("/ram ").len(), 1);
            // A reboot: the tmpfs is gone, the disk is not.
            nix::mount::umount(ram).unwrap();
            let host = host.restarted();
            host.volumes.ensure(&pod).await.unwrap();
            assert_eq!(host.mounts_with("/ram ").len(), 1);
            assert_eq!(access(ram), (0o3777, 0, 4321));
            assert!(disk.join("data").exists() && !ram.join("data").exists());
        },
    );
}

#[test]
fn what_cannot_be_set_up_is_said_in_upstreams_words() {
    isolated(
        "ensure::what_cannot_be_set_up_is_said_in_upstreams_words",
        async {
            let host = Host::new();
            let absent = host.root.path().join("absent");
            let volume = json!([{"name": "v", "hostPath": {"path": absent, "type": "Directory"}}]);
            let error = host
                .volumes
                .ensure(&pod(volume, json!({})))
                .await
                .unwrap_err();
            assert_eq!(
                chain(&error),
                format!(
                    "MountVolume.SetUp failed for volume \"v\": hostPath type check failed: {} is not \
                 a directory",
                    absent.display()
                )
            );
            let mut bad = pod(json!([]), json!({}));
            bad.uid = PodUid::from("../evil");
            let error = host.volumes.ensure(&bad).await.unwrap_err();
            assert!(matches!(error, VolumeError::Name(_)));
            for uid in ["", ".", "..", "a/b"] {
                assert!(
                    host.volumes.tear_down(&PodUid::from(uid)).await.is_err(),
                    "{uid:?}"
                );
                assert!(
                    host.volumes
                        .remove_pod_directory(&PodUid::from(uid))
                        .await
                        .is_err()
                );
            }
        },
    );
}
