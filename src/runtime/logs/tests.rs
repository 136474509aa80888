use super::*;

struct Node {
    dir: tempfile::TempDir,
    logs: Logs,
    pod: PodName,
    uid: PodUid,
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let logs = Logs::new(dir.path().join("pods"), dir.path().join("links"));
        Self {
            dir,
            logs,
            pod: PodName::new("default", "web"),
            uid: PodUid::from("uid-1"),
        }
    }

    fn container_directory(&self) -> PathBuf {
        self.dir.path().join("pods/default_web_uid-1/main")
    }

    async fn write(&self, names: &[&str]) {
        let directory = self.container_directory();
        self.logs.make_directory(&directory).await.expect("make");
        for name in names {
            std::fs::write(directory.join(name), "x").expect("write");
        }
    }

    fn log(&self, name: &str) -> LogFile {
        let path = self.container_directory().join(name);
        self.logs
            .log_file(path.to_str().expect("UTF-8"), &self.pod, "main", "abc")
            .expect("a log of ours")
    }

    fn remaining(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.container_directory()).expect("directory");
        let names = entries.map(|entry| entry.expect("entry").file_name());
        let mut names: Vec<_> = names
            .map(|name| name.into_string().expect("UTF-8"))
            .collect();
        names.sort();
        names
    }
}

#[tokio::test]
async fn a_log_goes_with_its_rotated_parts_and_its_link() {
    let node = Node::new();
    node.write(&[
        "1.log",
        "1.log.20260102-030405",
        "1.log.20260101-030405.gz",
        "11.log",
        "2.log",
    ])
    .await;
    let log = node.log("1.log");
    node.logs.link(&log).await.expect("link");
    node.logs.link(&log).await.expect("link again");
    assert_eq!(
        log.link.file_name(),
        Some(OsStr::new("web_default_main-abc.log"))
    );
    assert_eq!(std::fs::read_link(&log.link).expect("link"), log.path);
    node.logs.remove(&log).await.expect("remove");
    node.logs.remove(&log).await.expect("remove again");
    assert_eq!(node.remaining(), ["11.log", "2.log"]);
    assert!(!log.link.is_symlink());
}

#[tokio::test]
async fn the_last_attempt_is_read_from_the_names() {
    let node = Node::new();
    let last = async || {
        let (uid, pod) = (&node.uid, &node.pod);
        node.logs.last_attempt(uid, pod, "main").await
    };
    assert_eq!(last().await, None);
    node.write(&[
        "0.log",
        "9.log",
        "10.log.20260102-030405.gz",
        "x.log",
        "12.logs",
        "99",
    ])
    .await;
    assert_eq!(last().await, Some(10));
}

#[tokio::test]
async fn a_pods_logs_go_with_links_to_them_and_nothing_else() {
    let node = Node::new();
    node.write(&["0.log"]).await;
    let log = node.log("0.log");
    node.logs.link(&log).await.expect("link");
    let other = node.dir.path().join("links/other.log");
    std::os::unix::fs::symlink("/elsewhere", &other).expect("link");
    node.logs
        .remove_pod(&node.uid, &node.pod)
        .await
        .expect("remove");
    node.logs
        .remove_pod(&node.uid, &node.pod)
        .await
        .expect("remove again");
    assert!(!log.link.is_symlink() && other.is_symlink());
    assert!(!node.dir.path().join("pods/default_web_uid-1").exists());
    assert!(node.dir.path().join("pods").exists());
}

#[tokio::test]
async fn nothing_outside_is_touched() {
    let node = Node::new();
    let outside = node.dir.path().join("outside");
    std::fs::create_dir_all(node.dir.path().join("pods")).expect("directory");
    std::fs::create_dir(&outside).expect("directory");
    for (namespace, name, uid) in [("..", "..", "/../../outside"), ("a/..", "..", "../outside")] {
        let (uid, pod) = (PodUid::from(uid), PodName::new(namespace, name));
        let refused = node.logs.remove_pod(&uid, &pod).await;
        assert!(refused.is_err(), "{pod} {uid}");
    }
    let logs = &node.logs;
    for path in [
        "/etc/passwd",
        "",
        "pods/x",
        "{}/pods/../outside/x",
        "{}/pods",
    ] {
        let path = path.replace("{}", node.dir.path().to_str().expect("UTF-8"));
        assert_eq!(
            logs.log_file(&path, &node.pod, "main", "abc"),
            None,
            "{path}"
        );
    }
    // A link in the place of the pod's directory is not followed.
    let link = node.dir.path().join("pods/default_web_uid-1");
    std::os::unix::fs::symlink(&outside, &link).expect("link");
    logs.remove_pod(&node.uid, &node.pod).await.expect("remove");
    assert!(outside.exists() && !link.is_symlink());
}

#[test]
fn a_long_link_name_is_cut_before_its_suffix() {
    let pod = PodName::new("n".repeat(63), "p".repeat(200));
    let name = link_name(&pod, "main", "abc");
    assert_eq!(name.len(), 255);
    assert!(name.ends_with("n.log"), "{name}");
}
