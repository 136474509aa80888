//! The source as a task, on real directories. The rescan is set to an hour
//! where inotify alone has to do.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;

const DEADLINE: Duration = Duration::from_secs(20);
const HOUR: Duration = Duration::from_secs(3600);

fn manifest(name: &str, image: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  containers:\n  - {{name: c, image: {image}}}\n"
    )
}

struct Running {
    root: TempDir,
    path: PathBuf,
    snapshots: watch::Receiver<ManifestSnapshot>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    /// Starts a source on `below` (relative) of a fresh directory.
    fn start(below: &str, rescan_every: Duration) -> Self {
        let root = TempDir::new().expect("a directory");
        let path = root.path().join(below);
        let (source, snapshots) = ManifestSource::new(ManifestConfig {
            path: Some(path.clone()),
            node_name: "node".into(),
            kinds: Kinds::PodsAndData,
            rescan_every,
        });
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(source.run(shutdown.clone()));
        Self {
            root,
            path,
            snapshots,
            shutdown,
            task,
        }
    }

    async fn wait(&mut self, what: &str, is: impl FnMut(&ManifestSnapshot) -> bool) {
        let waited = tokio::time::timeout(DEADLINE, self.snapshots.wait_for(is)).await;
        if waited
            .map(|seen| drop(seen.expect("the source runs")))
            .is_err()
        {
            panic!("no snapshot with {what}: {:?}", self.snapshots.borrow());
        }
    }

    async fn wait_for_names(&mut self, names: &[&str]) {
        let expected: Vec<_> = names.iter().map(|name| format!("{name}-node")).collect();
        self.wait(&format!("pods {names:?}"), |snapshot| {
            let mut names: Vec<_> = snapshot
                .pods
                .values()
                .map(|pod| pod.name.name.to_string())
                .collect();
            names.sort();
            snapshot.synced && names == expected
        })
        .await;
    }

    async fn wait_for_image(&mut self, image: &str) {
        self.wait(&format!("image {image}"), |snapshot| {
            snapshot.pods.values().any(|pod| {
                let spec = pod.pod.spec.as_ref().expect("a spec");
                spec.containers[0].image.as_deref() == Some(image)
            })
        })
        .await;
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path.join(name), text).expect("written");
    }

    fn make(&self) {
        fs::create_dir_all(&self.path).expect("a directory");
    }

    async fn stop(self) {
        self.shutdown.cancel();
        let ended = tokio::time::timeout(DEADLINE, self.task).await;
        ended.expect("in time").expect("without panic");
    }
}

#[tokio::test]
async fn files_are_followed_as_they_come_change_and_go() {
    let mut run = Running::start("", HOUR);
    run.wait_for_names(&[]).await;
    run.write("a.yaml", &manifest("a", "one"));
    run.wait_for_names(&["a"]).await;
    run.write("b.yaml", &manifest("b", "one"));
    run.wait_for_names(&["a", "b"]).await;
    run.write("a.yaml", &manifest("a", "two"));
    run.wait_for_image("two").await;

    // How editors save.
    run.write(".a.yaml.tmp", &manifest("a", "three"));
    fs::rename(run.path.join(".a.yaml.tmp"), run.path.join("a.yaml")).expect("renamed");
    run.wait_for_image("three").await;

    fs::rename(run.path.join("b.yaml"), run.path.join(".b.yaml")).expect("renamed");
    run.wait_for_names(&["a"]).await;
    fs::remove_file(run.path.join("a.yaml")).expect("removed");
    run.wait_for_names(&[]).await;
    run.stop().await;
}

#[tokio::test]
async fn data_lies_beside_pods_and_is_followed() {
    let map = |name: &str, value: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{k: {value}}}\n"
        )
    };
    let value = |snapshot: &ManifestSnapshot| match snapshot.data.values().next() {
        Some(data::Data::ConfigMap(_, map)) => Some(map.data.as_ref()?["k"].clone()),
        _ => None,
    };
    let mut run = Running::start("", HOUR);
    run.write("pod.yaml", &manifest("a", "one"));
    run.write("map.yaml", &map("m", "one"));
    run.wait_for_names(&["a"]).await;
    run.wait("the map", |all| value(all).as_deref() == Some("one"))
        .await;
    run.write("map.yaml", &map("m", "two"));
    run.wait("the edit", |all| value(all).as_deref() == Some("two"))
        .await;
    run.write("z.yaml", &map("m", "three"));
    run.wait("a clash", |all| all.problems.len() == 1).await;
    run.write("map.yaml", &map("../m", "{"));
    run.wait("a bad edit", |all| all.problems.len() == 2).await;
    run.wait("what was good stays", |all| {
        value(all).as_deref() == Some("two")
    })
    .await;
    fs::remove_file(run.path.join("map.yaml")).expect("removed");
    run.wait("the other", |all| value(all).as_deref() == Some("three"))
        .await;
    run.wait_for_names(&["a"]).await;
    run.stop().await;
}

#[tokio::test]
async fn a_bad_file_is_told_and_forgotten_when_mended() {
    let mut run = Running::start("", HOUR);
    run.wait_for_names(&[]).await;
    run.write("good.yaml", &manifest("good", "one"));
    run.write("bad.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {");
    let is_bad = |snapshot: &ManifestSnapshot| {
        let problem = snapshot.problems.first();
        problem.is_some_and(|problem| problem.position.is_some_and(|place| place.line == 3))
    };
    run.wait("a problem", is_bad).await;
    run.wait_for_names(&["good"]).await;
    run.write("bad.yaml", &manifest("mended", "one"));
    run.wait_for_names(&["good", "mended"]).await;
    run.wait("no problem", |snapshot| snapshot.problems.is_empty())
        .await;
    run.stop().await;
}

#[tokio::test]
async fn the_directory_may_appear_vanish_and_be_replaced() {
    let mut run = Running::start("etc/kubernetes/manifests", HOUR);
    run.wait_for_names(&[]).await;
    run.make();
    run.write("a.yaml", &manifest("a", "one"));
    run.wait_for_names(&["a"]).await;

    fs::remove_dir_all(run.root.path().join("etc/kubernetes")).expect("removed");
    run.wait_for_names(&[]).await;
    run.make();
    run.write("b.yaml", &manifest("b", "one"));
    run.wait_for_names(&["b"]).await;

    // Replaced by another directory of the same name.
    let staged = run.root.path().join("staged");
    fs::create_dir(&staged).expect("a directory");
    fs::write(staged.join("c.yaml"), manifest("c", "one")).expect("written");
    fs::rename(&run.path, run.root.path().join("old")).expect("renamed");
    fs::rename(&staged, &run.path).expect("renamed");
    run.wait_for_names(&["c"]).await;
    run.write("d.yaml", &manifest("d", "one"));
    run.wait_for_names(&["c", "d"]).await;
    run.stop().await;
}

#[tokio::test]
async fn a_single_file_is_followed() {
    let mut run = Running::start("pod.yaml", HOUR);
    run.wait_for_names(&[]).await;
    fs::write(&run.path, manifest("a", "one")).expect("written");
    run.wait_for_names(&["a"]).await;
    fs::write(run.root.path().join("other.yaml"), manifest("b", "one")).expect("written");
    fs::write(&run.path, manifest("a", "two")).expect("written");
    run.wait_for_image("two").await;
    run.wait_for_names(&["a"]).await;
    fs::remove_file(&run.path).expect("removed");
    run.wait_for_names(&[]).await;
    run.stop().await;
}

#[tokio::test]
async fn a_volume_s_atomic_writer_is_followed() {
    use std::os::unix::fs::symlink;
    let mut run = Running::start("", HOUR);
    run.wait_for_names(&[]).await;
    for version in ["one", "two"] {
        let data = run.path.join(format!("..{version}"));
        fs::create_dir(&data).expect("a directory");
        fs::write(data.join("a.yaml"), manifest("a", version)).expect("written");
        symlink(format!("..{version}"), run.path.join("..data_tmp")).expect("a link");
        fs::rename(run.path.join("..data_tmp"), run.path.join("..data")).expect("renamed");
        if version == "one" {
            symlink("..data/a.yaml", run.path.join("a.yaml")).expect("a link");
        }
        run.wait_for_image(version).await;
    }
    run.stop().await;
}

#[tokio::test]
async fn two_hundred_files_at_once() {
    let mut run = Running::start("", HOUR);
    run.wait_for_names(&[]).await;
    for id in 0..200 {
        run.write(&format!("{id}.yaml"), &manifest(&format!("p{id}"), "one"));
    }
    run.wait("200 pods", |snapshot| snapshot.pods.len() == 200)
        .await;
    assert_eq!(run.snapshots.borrow().problems.len(), 0);
    for id in 0..200 {
        fs::remove_file(run.path.join(format!("{id}.yaml"))).expect("removed");
    }
    run.wait_for_names(&[]).await;
    run.stop().await;
}

#[tokio::test]
async fn the_rescan_finds_what_inotify_cannot() {
    use std::os::unix::fs::symlink;
    let mut run = Running::start("manifests", Duration::from_millis(100));
    run.wait_for_names(&[]).await;
    let outside = TempDir::new().expect("a directory");
    let target = outside.path().join("pod.yaml");
    fs::write(&target, manifest("a", "one")).expect("written");
    run.make();
    symlink(&target, run.path.join("a.yaml")).expect("a link");
    run.wait_for_image("one").await;
    fs::write(&target, manifest("a", "two")).expect("written");
    run.wait_for_image("two").await;
    run.stop().await;
}

#[tokio::test]
async fn without_a_path_the_source_is_ready_and_empty() {
    let (source, snapshots) = ManifestSource::new(ManifestConfig {
        path: None,
        node_name: "node".into(),
        kinds: Kinds::Pods,
        rescan_every: HOUR,
    });
    assert!(snapshots.borrow().synced);
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    source.run(shutdown).await;
}
