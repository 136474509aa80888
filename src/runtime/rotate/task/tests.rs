//! The loop over real files, with a runtime that writes as fast as it can.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::pod::observed::ContainerStamp;
use crate::pod::{ObservedContainer, PodName, SandboxId};
use crate::runtime::fake::FakeRuntime;

const PATIENCE: Duration = Duration::from_secs(30);

/// A runtime's logger of one container.
struct Logger {
    path: PathBuf,
    file: Mutex<File>,
    reopened: AtomicUsize,
    refuses: AtomicBool,
}

impl Logger {
    fn write(&self, bytes: &[u8]) {
        let mut file = self.file.lock().expect("not poisoned");
        file.write_all(bytes).expect("written");
    }
}

fn open(path: &PathBuf) -> File {
    let mut options = File::options();
    let opened = options.append(true).create(true).open(path);
    opened.expect("opened")
}

#[async_trait]
impl ReopenLog for Logger {
    async fn reopen_log(&self, _id: &ContainerId) -> Result<(), RuntimeError> {
        self.reopened.fetch_add(1, Ordering::SeqCst);
        if self.refuses.load(Ordering::SeqCst) {
            return Err(RuntimeError::Refused {
                call: "ReopenContainerLog",
                message: "not now".to_owned(),
            });
        }
        *self.file.lock().expect("not poisoned") = open(&self.path);
        Ok(())
    }
}

struct Node {
    dir: tempfile::TempDir,
    runtime: FakeRuntime,
    logger: Arc<Logger>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Node {
    fn new(max_bytes: u64, max_files: u32) -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let logs = dir.path().join("ns_p_uid/main");
        std::fs::create_dir_all(&logs).expect("directory");
        // What a process left behind that died while it compressed.
        std::fs::write(logs.join("0.log.20260101-000000.tmp"), "half").expect("file");
        let path = logs.join("0.log");
        let logger = Arc::new(Logger {
            file: Mutex::new(open(&path)),
            path,
            reopened: AtomicUsize::new(0),
            refuses: AtomicBool::new(false),
        });
        let runtime = FakeRuntime::new();
        runtime.install(pod());
        let settings = LogRotationSettings {
            directory: dir.path().to_owned(),
            max_bytes,
            max_files,
            workers: std::num::NonZeroU32::MIN,
            interval: Duration::from_millis(200),
        };
        let observer = Arc::new(runtime.clone());
        let task = LogRotationTask::new(settings, observer, Arc::clone(&logger) as _);
        let stop = CancellationToken::new();
        Self {
            dir,
            runtime,
            logger,
            task: tokio::spawn(task.run(stop.clone())),
            stop,
        }
    }

    fn files(&self) -> Vec<(String, u64)> {
        let entries = std::fs::read_dir(self.dir.path().join("ns_p_uid/main"));
        let mut files: Vec<_> = entries
            .expect("readable")
            .flatten()
            // It may go at any moment.
            .filter_map(|entry| Some((entry.file_name(), entry.metadata().ok()?.len())))
            .map(|(name, size)| (name.into_string().expect("text"), size))
            .collect();
        files.sort();
        files
    }

    fn names(&self) -> Vec<String> {
        self.files().into_iter().map(|(name, _)| name).collect()
    }

    fn rotations(&self) -> usize {
        self.logger.reopened.load(Ordering::SeqCst)
    }

    async fn until(&self, what: &str, mut is: impl FnMut(&Self) -> bool) {
        let wait = async {
            while !is(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, wait).await;
        assert!(waited.is_ok(), "still not {what}: {:?}", self.files());
    }

    async fn end(self) {
        self.stop.cancel();
        let ended = tokio::time::timeout(PATIENCE, self.task).await;
        ended.expect("in time").expect("no panic");
    }
}

fn pod() -> ObservedPod {
    let now = Timestamp::now();
    let main = ObservedContainer {
        id: ContainerId("main-0".to_owned()),
        sandbox: SandboxId("s".to_owned()),
        name: "main".to_owned(),
        attempt: 0,
        state: ContainerState::Running { started_at: now },
        created_at: now,
        image: String::new(),
        image_ref: String::new(),
        stamp: ContainerStamp::default(),
        user: None,
    };
    ObservedPod {
        containers: vec![main],
        ..ObservedPod::absent(PodUid::from("uid"), PodName::new("ns", "p"), now)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_fast_it_grows_the_disk_is_bounded() {
    const LIMIT: u64 = 32 << 10;
    let node = Node::new(LIMIT, 3);
    let logger = Arc::clone(&node.logger);
    let stop = node.stop.clone();
    let writer = tokio::task::spawn_blocking(move || {
        let line = [b'x'; 4096];
        while !stop.is_cancelled() {
            logger.write(&line);
            // Some MB/s: the limit is reached long before the shortest pause is over.
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let mut most_files = 0;
    node.until("rotated ten times", |node| {
        most_files = most_files.max(node.names().len());
        node.rotations() >= 10
    })
    .await;
    // One more for the moment between a rotation and the removal after it.
    assert!(most_files <= 4, "{most_files}");
    let largest = node.files().into_iter().map(|(_, size)| size).max();
    // What is written in twice the shortest pause, and slack for a busy machine.
    assert!(largest < Some(100 * LIMIT), "{:?}", node.files());
    assert!(
        node.names().iter().all(|name| !name.ends_with(".tmp")),
        "{:?}",
        node.names()
    );
    node.end().await;
    writer.await.expect("no panic");
}

#[tokio::test]
async fn all_but_the_newest_part_are_compressed_in_calm() {
    let node = Node::new(10, 4);
    // The first two rotations are too close for a second compression.
    node.until("tidied up", |node| node.names() == ["0.log"])
        .await;
    for rotation in 1..=2 {
        node.logger.write(b"long enough to rotate\n");
        node.until("rotated", |node| node.rotations() == rotation)
            .await;
    }
    node.until("three files", |node| node.names().len() == 3)
        .await;
    assert!(!node.names().iter().any(|name| name.ends_with(".gz")));
    tokio::time::sleep(Duration::from_secs(5)).await;
    node.logger.write(b"third, and long enough\n");
    node.until("compressed", |node| {
        let compressed = node
            .names()
            .iter()
            .filter(|name| name.ends_with(".gz"))
            .count();
        node.names().len() == 4 && compressed == 2
    })
    .await;
    node.logger.write(b"fourth, and long enough\n");
    node.until("pruned", |node| {
        let names = node.names();
        names.len() == 4 && names.iter().filter(|name| name.ends_with(".gz")).count() == 1
    })
    .await;
    node.end().await;
}

#[tokio::test]
async fn a_log_that_cannot_be_reopened_keeps_its_name() {
    let node = Node::new(10, 3);
    node.logger.refuses.store(true, Ordering::SeqCst);
    node.logger.write(b"long enough to rotate\n");
    node.until("refused", |node| node.rotations() >= 2).await;
    node.until("back", |node| node.names() == ["0.log"]).await;
    node.logger.refuses.store(false, Ordering::SeqCst);
    node.until("rotated", |node| node.names().len() == 2).await;
    node.end().await;
}

#[tokio::test]
async fn a_log_that_is_missing_is_opened_again() {
    let node = Node::new(10, 3);
    std::fs::remove_file(&node.logger.path).expect("removed");
    node.until("there", |node| node.names() == ["0.log"]).await;
    // Only a running container's log is looked after.
    node.runtime.exit_container(&PodUid::from("uid"), "main", 0);
    let look = Duration::from_millis(500);
    tokio::time::sleep(look).await;
    node.logger.write(b"long enough to rotate\n");
    tokio::time::sleep(look).await;
    assert_eq!(node.names(), ["0.log"]);
    node.end().await;
}
