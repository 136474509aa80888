use std::path::PathBuf;
use std::time::Duration;

use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::server::api::container_logs::tests::{Node, PATIENCE, read_until, write_entries};

const FOLLOW: &str = "/containerLogs/default/web/main?follow=true";

#[tokio::test]
async fn what_is_written_is_sent_until_the_container_ends() {
    let node = Node::new();
    node.write("1.log", "one");
    let mut body = node.get(FOLLOW).await.into_body();
    let mut text = String::new();
    read_until(&mut body, &mut text, Some("one\n")).await;
    for line in ["two", "three"] {
        node.write("1.log", line);
        read_until(&mut body, &mut text, Some(&format!("{line}\n"))).await;
    }
    node.write("1.log", "last words");
    node.end_container();
    read_until(&mut body, &mut text, None).await;
    assert_eq!(text, "one\ntwo\nthree\nlast words\n");
}

#[tokio::test]
async fn of_a_container_that_has_ended_all_is_sent() {
    let node = Node::new();
    node.write("1.log", &"line\n".repeat(100_000));
    node.end_container();
    let mut body = node.get(FOLLOW).await.into_body();
    let mut text = String::new();
    read_until(&mut body, &mut text, None).await;
    assert_eq!(text.len(), 500_000);
}

#[tokio::test]
async fn a_tail_is_followed() {
    let node = Node::new();
    node.write("1.log", "one\ntwo");
    let mut body = node.get(&format!("{FOLLOW}&tailLines=1")).await.into_body();
    let mut text = String::new();
    read_until(&mut body, &mut text, Some("two\n")).await;
    node.write("1.log", "three");
    read_until(&mut body, &mut text, Some("three\n")).await;
    assert_eq!(text, "two\nthree\n");
    drop(body);

    let mut body = node
        .get(&format!("{FOLLOW}&tailLines=0&limitBytes=7"))
        .await
        .into_body();
    node.write("1.log", "four\nfive");
    let mut text = String::new();
    // The limit ends it although the container runs.
    read_until(&mut body, &mut text, None).await;
    assert_eq!(text, "four\nfi");
}

/// What the runtime and rotation do together: rename, write on, open anew.
struct Writer<'a> {
    node: &'a Node,
    file: std::fs::File,
    rotations: u32,
}

impl<'a> Writer<'a> {
    fn new(node: &'a Node) -> Self {
        Self {
            node,
            file: Self::open(node),
            rotations: 0,
        }
    }

    fn open(node: &Node) -> std::fs::File {
        let mut options = std::fs::OpenOptions::new();
        let file = options.append(true).create(true).open(node.log("1.log"));
        file.expect("file")
    }

    fn rotated(&self, number: u32) -> std::path::PathBuf {
        self.node.log(&format!("1.log.20260101-{number:06}"))
    }

    fn write(&mut self, text: &str) {
        write_entries(&mut self.file, text);
    }

    /// `late` goes to the old file after its renaming, `later` after the new
    /// file is there.
    fn rotate(&mut self, late: &str, later: &str) {
        self.rotations += 1;
        std::fs::rename(self.node.log("1.log"), self.rotated(self.rotations)).expect("renamed");
        self.write(late);
        let new = Self::open(self.node);
        self.write(later);
        self.file = new;
    }

    fn compress(&mut self, number: u32) {
        let plain = self.rotated(number);
        let compressed = plain.with_extension(format!(
            "{}.gz",
            plain.extension().expect("a stamp").display()
        ));
        let target = std::fs::File::create(&compressed).expect("file");
        let mut encoder = flate2::write::GzEncoder::new(target, flate2::Compression::fast());
        let mut source = std::fs::File::open(&plain).expect("file");
        std::io::copy(&mut source, &mut encoder).expect("copied");
        let changed = source
            .metadata()
            .expect("metadata")
            .modified()
            .expect("a time");
        let target = encoder.finish().expect("written");
        target.set_modified(changed).expect("time set");
        std::fs::remove_file(plain).expect("removed");
    }
}

fn numbers(range: std::ops::Range<u32>) -> String {
    range.map(|number| format!("{number}\n")).collect()
}

#[tokio::test]
async fn rotation_loses_and_doubles_nothing() {
    let node = Node::new();
    let mut writer = Writer::new(&node);
    writer.write(&numbers(0..10));
    let mut body = node.get(FOLLOW).await.into_body();
    let mut text = String::new();
    read_until(&mut body, &mut text, Some("9\n")).await;
    writer.rotate("10", "11");
    writer.write("12");
    read_until(&mut body, &mut text, Some("12\n")).await;
    for round in 1..20 {
        let first = 10 + round * 10;
        writer.write(&numbers(first + 3 - 10..first));
        writer.rotate(&first.to_string(), &(first + 1).to_string());
        writer.write(&(first + 2).to_string());
        if round % 3 == 0 {
            let last = format!("{}\n", first + 2);
            read_until(&mut body, &mut text, Some(&last)).await;
        }
    }
    node.end_container();
    read_until(&mut body, &mut text, None).await;
    assert_eq!(text, numbers(0..203));
}

#[tokio::test]
async fn a_log_can_be_read_while_it_is_rotated() {
    let node = Node::new();
    let mut writer = Writer::new(&node);
    writer.write("0");
    writer.rotate("", "");
    writer.write("1");
    // Renamed, and not opened anew yet.
    std::fs::rename(node.log("1.log"), writer.rotated(2)).expect("renamed");
    let mut text = String::new();
    let plain = FOLLOW.replace("?follow=true", "");
    read_until(&mut node.get(&plain).await.into_body(), &mut text, None).await;
    assert_eq!(text, "1\n");

    let mut body = node.get(FOLLOW).await.into_body();
    text.clear();
    read_until(&mut body, &mut text, Some("1\n")).await;
    writer.write("2");
    writer.file = Writer::open(&node);
    writer.write("3");
    read_until(&mut body, &mut text, Some("3\n")).await;
    assert_eq!(text, numbers(1..4));
}

#[tokio::test]
async fn a_slow_caller_gets_what_was_compressed_meanwhile() {
    let node = Node::new();
    let mut writer = Writer::new(&node);
    writer.write("0");
    let mut body = node.get(FOLLOW).await.into_body();
    let mut text = String::new();
    read_until(&mut body, &mut text, Some("0\n")).await;
    for round in 1..6 {
        writer.write(&round.to_string());
        writer.rotate("", "");
        if round > 1 {
            writer.compress(round - 1);
        }
    }
    writer.write("6");
    read_until(&mut body, &mut text, Some("6\n")).await;
    assert_eq!(text, numbers(0..7));

    // What was removed before it was read is lost, and no more than that.
    for round in 7..10 {
        writer.write(&round.to_string());
        writer.rotate("", "");
    }
    writer.write("10");
    std::fs::remove_file(writer.rotated(6)).expect("removed");
    std::fs::remove_file(writer.rotated(7)).expect("removed");
    read_until(&mut body, &mut text, Some("10\n")).await;
    assert_eq!(text, numbers(0..8) + &numbers(9..11));
}

/// The descriptors of this process that have the node's log open.
fn open_logs(node: &Node) -> Vec<PathBuf> {
    let log = node.log("1.log");
    let links = std::fs::read_dir("/proc/self/fd").expect("descriptors");
    let paths = links.flatten().map(|link| link.path());
    paths
        .filter(|path| std::fs::read_link(path).is_ok_and(|target| target == log))
        .collect()
}

async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let wait = async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, wait).await;
    assert!(waited.is_ok(), "still not {what}");
}

#[tokio::test]
async fn many_callers_are_told_and_forgotten() {
    // More than the kernel grants inotify instances.
    const CALLERS: usize = 300;
    let node = Node::new();
    node.write("1.log", "one");
    let mut bodies = Vec::new();
    for _ in 0..CALLERS {
        let mut body = node.get(FOLLOW).await.into_body();
        read_until(&mut body, &mut String::new(), Some("one\n")).await;
        // It waits now, and the log is silent.
        let waits = tokio::time::timeout(Duration::from_millis(1), body.frame()).await;
        assert!(waits.is_err());
        bodies.push(body);
    }
    assert_eq!(open_logs(&node).len(), CALLERS);
    node.write("1.log", "two");
    for body in &mut bodies {
        read_until(body, &mut String::new(), Some("two\n")).await;
    }
    drop(bodies);
    until("forgotten", || open_logs(&node).is_empty()).await;
}

/// Asks over a real connection and reads the first line of the log.
async fn connect(node: &Node, first: &str) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let router = node.router();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let request = format!("GET {FOLLOW} HTTP/1.1\r\nHost: node\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).contains(first) {
        let count = stream.read_buf(&mut answer).await.expect("an answer");
        assert_ne!(count, 0, "{}", String::from_utf8_lossy(&answer));
    }
    stream
}

#[tokio::test]
async fn a_caller_who_hangs_up_on_a_silent_log_is_forgotten() {
    let node = Node::new();
    node.write("1.log", "one");
    let stream = connect(&node, "one").await;
    assert_eq!(open_logs(&node).len(), 1);
    drop(stream);
    until("forgotten", || open_logs(&node).is_empty()).await;
}

#[tokio::test]
async fn a_caller_who_does_not_read_is_not_read_for() {
    const SIZE: usize = 64 << 20;
    let node = Node::new();
    let line = "x".repeat(16_000);
    node.write("1.log", "one");
    node.write("1.log", &format!("{line}\n").repeat(SIZE / line.len()));
    let stream = connect(&node, "one").await;
    let read = || {
        let descriptor = open_logs(&node).pop().expect("an open log");
        let number = descriptor.file_name().expect("a number");
        let info = std::fs::read_to_string(PathBuf::from("/proc/self/fdinfo").join(number));
        let info = info.expect("readable");
        let position = info.lines().next().expect("a line");
        let position = position.trim_start_matches("pos:").trim();
        position.parse::<usize>().expect("a number")
    };
    // What the sockets hold is the kernel's affair; it ends some time.
    let mut before = read();
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = read();
        if now == before {
            break;
        }
        before = now;
    }
    assert!(before < SIZE / 2, "{before} bytes were read");
    drop(stream);
    until("forgotten", || open_logs(&node).is_empty()).await;
}
