//! Parts of volumes as mounts: what they show, for how long, and their end.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use kubelet::pod::PodUid;
use kubelet::pod::inputs::SubPath;
use kubelet::volume::{ContainerFilesRequest, TerminationLog, Volumes as _};
use serde_json::json;

use crate::fakes::{Host, chain, pod};
use crate::isolate::isolated;

/// Prepares one part of a volume for container `c`.
async fn part(host: &Host, volume: &Path, path: &str) -> Result<PathBuf, String> {
    let request = ContainerFilesRequest {
        uid: PodUid::from("u1"),
        container: "c".into(),
        etc_hosts: None,
        termination_log: TerminationLog::NotWanted,
        sub_paths: vec![SubPath {
            index: 3,
            volume: "v".into(),
            volume_path: volume.to_owned(),
            path: path.into(),
        }],
    };
    let files = host.volumes.container_files(&request).await;
    let files = files.map_err(|error| chain(&error))?;
    assert_eq!(files.sub_paths.len(), 1);
    Ok(files.sub_paths[&3].clone())
}

#[test]
fn a_part_stays_what_it_was_and_is_made_anew_when_it_is_not() {
    isolated(
        "sub_paths::a_part_stays_what_it_was_and_is_made_anew_when_it_is_not",
        async {
            let host = Host::new();
            let pod = pod(json!([{"name": "v", "emptyDir": {}}]), json!({}));
            let mounted = host.volumes.ensure(&pod).await.unwrap();
            let volume = mounted.volumes["v"].host_path.clone();
            let place = part(&host, &volume, "a/b").await.unwrap();
            assert_eq!(place, host.pod_dir().join("volume-subpaths/v/c/3"));
            fs::write(place.join("f"), "x").unwrap();
            assert_eq!(fs::read(volume.join("a/b/f")).unwrap(), b"x");
            // What a container puts in its place later is not what is mounted.
            fs::rename(volume.join("a"), volume.join("old")).unwrap();
            std::os::unix::fs::symlink("/", volume.join("a")).unwrap();
            assert_eq!(fs::read(place.join("f")).unwrap(), b"x");
            let refused = part(&host, &volume, "a/b").await.unwrap_err();
            let wanted = r#"failed to prepare subPath for volumeMount "v" of container "c""#;
            assert!(
                refused == wanted
                    || refused == wanted.replace("prepare subPath", "create subPath directory"),
                "{refused}"
            );
            assert!(!PathBuf::from("/b").exists());
            // The next life, with a new directory, after a crash of the agent.
            fs::remove_file(volume.join("a")).unwrap();
            let host = host.restarted();
            assert_eq!(part(&host, &volume, "a/b").await.unwrap(), place);
            assert!(!place.join("f").exists());
            assert_eq!(part(&host, &volume, "a/b").await.unwrap(), place);
            assert_eq!(host.mounts_with("volume-subpaths").len(), 1);
            // A file where a directory was.
            fs::write(volume.join("file"), "y").unwrap();
            assert_eq!(part(&host, &volume, "file").await.unwrap(), place);
            assert_eq!(fs::read(&place).unwrap(), b"y");
            host.volumes.tear_down(&PodUid::from("u1")).await.unwrap();
            assert!(!host.pod_dir().join("volume-subpaths").exists());
        },
    );
}

#[test]
fn tear_down_takes_parts_of_other_places_down_and_leaves_these_alone() {
    isolated(
        "sub_paths::tear_down_takes_parts_of_other_places_down_and_leaves_these_alone",
        async {
            let host = Host::new();
            let outside = tempfile::tempdir().unwrap();
            fs::create_dir(outside.path().join("d")).unwrap();
            fs::write(outside.path().join("d/f"), "precious").unwrap();
            let volumes = json!([{"name": "v", "hostPath": {"path": outside.path()}}]);
            let mounted = host.volumes.ensure(&pod(volumes, json!({}))).await.unwrap();
            let volume = mounted.volumes["v"].host_path.clone();
            let place = part(&host, &volume, "d").await.unwrap();
            assert_eq!(fs::read(place.join("f")).unwrap(), b"precious");
            // A new process takes down what an old one left.
            let host = host.restarted();
            host.volumes.tear_down(&PodUid::from("u1")).await.unwrap();
            host.volumes
                .remove_pod_directory(&PodUid::from("u1"))
                .await
                .unwrap();
            assert!(!host.pod_dir().exists());
            assert_eq!(fs::read(outside.path().join("d/f")).unwrap(), b"precious");
        },
    );
}

#[test]
fn a_part_of_a_config_map_keeps_its_text_while_the_volume_moves_on() {
    isolated(
        "sub_paths::a_part_of_a_config_map_keeps_its_text_while_the_volume_moves_on",
        async {
            let host = Host::new();
            host.api.put_config_map("m", &[("key", "one")]);
            let pod = pod(
                json!([{"name": "v", "configMap": {"name": "m"}}]),
                json!({}),
            );
            let mounted = host.volumes.ensure(&pod).await.unwrap();
            let volume = mounted.volumes["v"].host_path.clone();
            let place = part(&host, &volume, "key").await.unwrap();
            let read = |path: PathBuf| fs::read_to_string(path).unwrap();
            assert_eq!(read(place.clone()), "one");
            host.api.put_config_map("m", &[("key", "two")]);
            host.volumes.ensure(&pod).await.unwrap();
            assert_eq!(
                (read(place.clone()), read(volume.join("key"))),
                ("one".into(), "two".into())
            );
            // A new instance gets the new text.
            assert_eq!(read(part(&host, &volume, "key").await.unwrap()), "two");
        },
    );
}

#[test]
fn what_volumes_show_is_followed_while_they_are_there() {
    isolated(
        "sub_paths::what_volumes_show_is_followed_while_they_are_there",
        async {
            let host = Host::new();
            host.api.put_config_map("m", &[("key", "one")]);
            let volumes = json!([
                {"name": "v", "configMap": {"name": "m"}},
                {"name": "w", "projected": {"sources": [
                    {"configMap": {"name": "m"}}, {"secret": {"name": "s", "optional": true}},
                ]}},
            ]);
            let mut heard = host.volumes.changes(&PodUid::from("u1"));
            let pod = pod(volumes, json!({}));
            let mounted = host.volumes.ensure(&pod).await.unwrap();
            host.volumes.ensure(&pod).await.unwrap();
            assert_eq!(mounted.changes, 0);
            let followed = |host: &Host| -> BTreeMap<String, usize> {
                let mut all = BTreeMap::new();
                for (object, _, held) in host.api.followed.lock().unwrap().iter() {
                    if held.strong_count() > 0 {
                        *all.entry(object.name.clone()).or_default() += 1;
                    }
                }
                all
            };
            assert_eq!(
                followed(&host),
                [("m".to_owned(), 1), ("s".to_owned(), 1)].into()
            );
            host.api.followed.lock().unwrap()[0].1.note();
            assert_eq!(*heard.borrow_and_update(), 1);
            assert_eq!(host.volumes.ensure(&pod).await.unwrap().changes, 1);
            host.volumes.tear_down(&PodUid::from("u1")).await.unwrap();
            assert!(followed(&host).is_empty());
        },
    );
}
