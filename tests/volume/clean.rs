//! Tear-down: nothing of the pod stays, and nothing else goes.

use std::fs;
use std::path::Path;

use kubelet::pod::PodUid;
use kubelet::volume::{ContainerFilesRequest, TerminationLog, VolumeError, Volumes as _};
use nix::mount::{MsFlags, mount};
use serde_json::json;

use crate::fakes::{Host, chain, pod, service_account_volume};
use crate::isolate::isolated;

fn uid() -> PodUid {
    PodUid::from("u1")
}

fn bind(source: &Path, target: &Path) {
    let none: Option<&str> = None;
    mount(Some(source), target, none, MsFlags::MS_BIND, none).unwrap();
}

/// A directory outside of any pod with something in it that must stay.
fn precious() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("precious"), "x").unwrap();
    directory
}

#[test]
fn everything_of_a_pod_goes_and_only_that() {
    isolated("clean::everything_of_a_pod_goes_and_only_that", async {
        let (host, outside) = (Host::new(), precious());
        host.api
            .put_config_map("kube-root-ca.crt", &[("ca.crt", "CA")]);
        let pod = pod(
            json!([
                {"name": "disk", "emptyDir": {}},
                {"name": "ram", "emptyDir": {"medium": "Memory"}},
                {"name": "host", "hostPath": {"path": outside.path()}},
                {"name": "settings", "configMap": {"name": "kube-root-ca.crt"}},
                service_account_volume(),
            ]),
            json!({}),
        );
        let mounted = host.volumes.ensure(&pod).await.unwrap();
        let request = ContainerFilesRequest {
            uid: uid(),
            container: "c".into(),
            etc_hosts: Some("127.0.0.1 localhost\n".into()),
            termination_log: TerminationLog::Wanted,
            sub_paths: Vec::new(),
        };
        host.volumes.container_files(&request).await.unwrap();
        // A hostile container's doings.
        let disk = &mounted.volumes["disk"].host_path;
        fs::create_dir_all(disk.join("a/b/mounted")).unwrap();
        fs::write(disk.join("a/b/file"), "x").unwrap();
        std::os::unix::fs::symlink(outside.path(), disk.join("a/link")).unwrap();
        // Mounts that came back from a container, one on the other.
        bind(outside.path(), &disk.join("a/b/mounted"));
        bind(&disk.join("a"), &disk.join("a/b/mounted"));

        assert_eq!(host.volumes.pods_on_disk().await.unwrap(), [uid()]);
        host.volumes.tear_down(&uid()).await.unwrap();
        assert!(host.mounts_with("").is_empty());
        let mut left: Vec<_> = fs::read_dir(host.pod_dir())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["containers", "etc-hosts"]);
        host.volumes.remove_pod_directory(&uid()).await.unwrap();
        assert!(host.volumes.pods_on_disk().await.unwrap().is_empty());
        assert!(outside.path().join("precious").exists());

        // All of it may be repeated, and the pod may come back.
        host.volumes.tear_down(&uid()).await.unwrap();
        host.volumes.remove_pod_directory(&uid()).await.unwrap();
        host.volumes.ensure(&pod).await.unwrap();
        assert_eq!(fs::read_dir(disk).unwrap().count(), 0);
        assert_eq!(
            host.api.token_requests(),
            2,
            "tokens are not kept beyond the pod"
        );
        host.volumes.tear_down(&uid()).await.unwrap();
    });
}

#[test]
fn a_directory_is_not_removed_under_mounts_or_volumes() {
    isolated(
        "clean::a_directory_is_not_removed_under_mounts_or_volumes",
        async {
            let (host, outside) = (Host::new(), precious());
            let pod = pod(json!([{"name": "disk", "emptyDir": {}}]), json!({}));
            host.volumes.ensure(&pod).await.unwrap();
            let error = host.volumes.remove_pod_directory(&uid()).await.unwrap_err();
            assert!(
                chain(&error).contains("Directory not empty"),
                "{}",
                chain(&error)
            );
            host.volumes.tear_down(&uid()).await.unwrap();
            let somewhere = host.pod_dir().join("somewhere");
            fs::create_dir(&somewhere).unwrap();
            bind(outside.path(), &somewhere);
            let error = host.volumes.remove_pod_directory(&uid()).await.unwrap_err();
            assert!(matches!(&error, VolumeError::TearDown { path, .. } if *path == somewhere));
            host.volumes.tear_down(&uid()).await.unwrap();
            host.volumes.remove_pod_directory(&uid()).await.unwrap();
            assert!(outside.path().join("precious").exists());
        },
    );
}

#[test]
fn data_of_an_unknown_volume_type_is_left() {
    isolated("clean::data_of_an_unknown_volume_type_is_left", async {
        let host = Host::new();
        let volumes = host.pod_dir().join("volumes");
        fs::create_dir_all(volumes.join("kubernetes.io~nfs/full")).unwrap();
        fs::create_dir_all(volumes.join("kubernetes.io~nfs/empty")).unwrap();
        fs::create_dir_all(volumes.join("kubernetes.io~secret/v")).unwrap();
        fs::write(volumes.join("kubernetes.io~nfs/full/data"), "x").unwrap();
        let error = host.volumes.tear_down(&uid()).await.unwrap_err();
        let full = volumes.join("kubernetes.io~nfs/full");
        let path = match &error {
            VolumeError::TearDown { path, .. } => path.canonicalize().unwrap(),
            other => panic!("{other:?}"),
        };
        assert_eq!(path, full);
        assert!(full.join("data").exists());
        assert!(!volumes.join("kubernetes.io~nfs/empty").exists());
        assert!(!volumes.join("kubernetes.io~secret/v").exists());
        fs::remove_file(full.join("data")).unwrap();
        host.volumes.tear_down(&uid()).await.unwrap();
        assert!(!volumes.exists());
    });
}

#[test]
fn a_busy_volume_is_detached_in_the_end() {
    isolated("clean::a_busy_volume_is_detached_in_the_end", async {
        let host = Host::new();
        let volume = json!([{"name": "ram", "emptyDir": {"medium": "Memory"}}]);
        let mounted = host.volumes.ensure(&pod(volume, json!({}))).await.unwrap();
        let open = fs::File::create(mounted.volumes["ram"].host_path.join("open")).unwrap();
        host.volumes.tear_down(&uid()).await.unwrap();
        assert!(host.mounts_with("").is_empty());
        host.volumes.remove_pod_directory(&uid()).await.unwrap();
        drop(open);
    });
}

#[test]
fn only_directories_with_a_name_count_as_pods() {
    isolated("clean::only_directories_with_a_name_count_as_pods", async {
        let host = Host::new();
        assert!(host.volumes.pods_on_disk().await.unwrap().is_empty());
        let pods = host.root.path().join("pods");
        fs::create_dir_all(pods.join("b")).unwrap();
        fs::create_dir_all(pods.join("a")).unwrap();
        fs::write(pods.join("file"), "").unwrap();
        std::os::unix::fs::symlink("a", pods.join("link")).unwrap();
        let found = host.volumes.pods_on_disk().await.unwrap();
        assert_eq!(found, [PodUid::from("a"), PodUid::from("b")]);
    });
}
