use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;

struct Directory {
    dir: tempfile::TempDir,
    log: ContainerLog,
}

impl Directory {
    fn new(files: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let log = ContainerLog::new(dir.path().to_owned(), "1.log".to_owned());
        let this = Self { dir, log };
        for file in files {
            this.write(file, file);
        }
        this
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("written");
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path()).expect("readable");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        let mut names: Vec<_> = names
            .map(|name| name.into_string().expect("text"))
            .collect();
        names.sort();
        names
    }
}

fn now() -> Timestamp {
    "2026-01-02T03:04:05Z".parse().expect("time")
}

fn part(name: &str) -> RotatedLog {
    RotatedLog::parse("1.log", name).expect("a rotated log")
}

#[test]
fn a_log_is_put_aside_and_back() {
    let logs = Directory::new(&["1.log", "1.log.20260102-030405.gz", "11.log"]);
    let aside = logs.log.put_aside(now()).expect("renamed");
    assert_eq!(
        logs.names(),
        [
            "1.log.20260102-030405-001",
            "1.log.20260102-030405.gz",
            "11.log"
        ]
    );
    assert_eq!(logs.log.size().expect("no error"), None);
    logs.log.put_back(&aside).expect("renamed");
    assert_eq!(logs.log.size().expect("no error"), Some(5));

    let aside = logs.log.put_aside(now()).expect("renamed");
    logs.write("1.log", "new");
    logs.log.put_back(&aside).expect("left alone");
    assert_eq!(fs::read_to_string(logs.path("1.log")).expect("text"), "new");
    assert_eq!(logs.names().len(), 4);
}

#[test]
fn a_link_is_no_log() {
    let logs = Directory::new(&[]);
    symlink("/etc/passwd", logs.path("1.log")).expect("link");
    assert!(logs.log.size().is_err());
    symlink("/etc/passwd", logs.path("1.log.20260102-030405")).expect("link");
    let stop = CancellationToken::new();
    assert!(
        logs.log
            .compress(&part("1.log.20260102-030405"), &stop)
            .is_err()
    );
    assert_eq!(logs.names(), ["1.log", "1.log.20260102-030405"]);
}

#[test]
fn the_oldest_go_and_what_is_worth_nothing() {
    let files = [
        "0.log.20250101-000000",
        "1.log",
        "1.log.20260101-000000.gz",
        "1.log.20260102-000000.gz",
        // A compression was cut short before its last step, …
        "1.log.20260103-000000",
        "1.log.20260103-000000.gz",
        "1.log.20260104-000000",
        // … another one earlier.
        "1.log.20260104-000000.tmp",
        "1.log.note",
    ];
    let logs = Directory::new(&files);
    logs.log.prune(3, Leftovers::Keep).expect("pruned");
    let without = |gone: &[usize]| -> Vec<String> {
        let left = files
            .iter()
            .enumerate()
            .filter(|(at, _)| !gone.contains(at));
        left.map(|(_, name)| (*name).to_owned()).collect()
    };
    assert_eq!(logs.names(), without(&[2, 4]));
    logs.log.prune(3, Leftovers::Remove).expect("pruned");
    assert_eq!(logs.names(), without(&[2, 4, 7]));
    logs.log.prune(1, Leftovers::Remove).expect("pruned");
    assert_eq!(logs.names(), without(&[2, 3, 4, 5, 7]));
}

#[test]
fn compression_keeps_text_mode_and_time() {
    let logs = Directory::new(&["1.log", "1.log.20260101-000000", "1.log.20260102-000000"]);
    let text = "a line of text\n".repeat(100_000);
    logs.write("1.log.20260101-000000", &text);
    let plain = logs.path("1.log.20260101-000000");
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o640)).expect("mode");
    let before = fs::metadata(&plain).expect("metadata");

    let parts = logs.log.uncompressed().expect("listed");
    assert_eq!(parts, [part("1.log.20260101-000000")], "not the newest");
    let stop = CancellationToken::new();
    logs.log.compress(&parts[0], &stop).expect("compressed");
    assert_eq!(
        logs.names(),
        ["1.log", "1.log.20260101-000000.gz", "1.log.20260102-000000"]
    );
    let compressed = logs.path("1.log.20260101-000000.gz");
    let after = fs::metadata(&compressed).expect("metadata");
    assert_eq!(
        (after.mtime(), after.mtime_nsec(), after.mode()),
        (before.mtime(), before.mtime_nsec(), before.mode())
    );
    assert!(after.len() < before.len() / 20);
    let mut unpacked = String::new();
    flate2::read::GzDecoder::new(File::open(compressed).expect("file"))
        .read_to_string(&mut unpacked)
        .expect("gzip");
    assert_eq!(unpacked, text);
}

#[test]
fn a_compression_that_cannot_end_leaves_nothing() {
    let logs = Directory::new(&["1.log.20260101-000000"]);
    let plain = part("1.log.20260101-000000");
    let stopped = CancellationToken::new();
    stopped.cancel();
    logs.log.compress(&plain, &stopped).expect("given up");
    assert_eq!(logs.names(), ["1.log.20260101-000000"]);

    let gone = part("1.log.20250101-000000");
    logs.log
        .compress(&gone, &CancellationToken::new())
        .expect("nothing to do");
    assert_eq!(logs.names(), ["1.log.20260101-000000"]);
}
