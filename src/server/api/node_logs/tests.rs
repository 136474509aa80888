//! The routes as a whole, over a temporary directory and a script in the place
//! of journalctl.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::time::Duration;

use axum::http::{Method, Request};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use super::*;

/// Shows its arguments; knows the units kubelet and slow.
const JOURNALCTL: &str = r#"#!/bin/sh
case "$*" in
*--field*) printf 'kubelet.service\nslow.service\n' ;;
*--unit=slow*) echo $$ > "$(dirname "$0")/slow.pid"; echo begins; exec sleep 1000 ;;
*) echo "journal $*"; echo complaint >&2 ;;
esac
"#;

struct Node {
    dir: tempfile::TempDir,
    router: Router,
}

impl Node {
    fn new(serve: NodeLogs) -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let log = dir.path().join("log");
        std::fs::create_dir_all(log.join("sub dir")).expect("directory");
        std::fs::create_dir_all(log.join("svc")).expect("directory");
        std::fs::write(log.join("a.log"), "text of a").expect("file");
        std::fs::write(log.join("sub dir/b<.log"), vec![0; 200_000]).expect("file");
        std::fs::write(log.join("svc/svc.log"), "text of svc").expect("file");
        std::fs::write(dir.path().join("secret"), "secret").expect("file");
        symlink("../secret", log.join("leaves")).expect("link");
        let journalctl = dir.path().join("journalctl");
        std::fs::write(&journalctl, JOURNALCTL).expect("script");
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&journalctl, executable).expect("mode");
        let router = routes(NodeLogSettings {
            serve,
            directory: log,
            journalctl,
        });
        Self { dir, router }
    }

    async fn call(&self, method: Method, path: &str) -> Response {
        let request = Request::builder().method(method).uri(path);
        let request = request.body(Body::empty()).expect("a request");
        let answer = self.router.clone().oneshot(request).await;
        answer.expect("infallible")
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let answer = self.call(Method::GET, path).await;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.expect("a body");
        let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
        (status, text)
    }
}

#[tokio::test]
async fn files_and_directories_are_served() {
    let node = Node::new(NodeLogs::Files);
    assert_eq!(node.get("/logs/a.log").await, (200, "text of a".into()));
    assert_eq!(
        node.get("/logs/").await,
        (
            200,
            "<!doctype html>\n<pre>\n<a href=\"a.log\">a.log</a>\n\
             <a href=\"leaves\">leaves</a>\n<a href=\"sub%20dir/\">sub dir/</a>\n\
             <a href=\"svc/\">svc/</a>\n</pre>\n"
                .into()
        )
    );
    let (status, listing) = node.get("/logs/sub%20dir/").await;
    assert_eq!(status, 200);
    assert!(
        listing.contains("<a href=\"b%3C.log\">b&lt;.log</a>"),
        "{listing}"
    );

    let large = node.call(Method::GET, "/logs/sub%20dir/b%3C.log").await;
    assert_eq!(large.headers()[header::CONTENT_LENGTH], "200000");
    assert_eq!(
        large.headers()[header::CONTENT_TYPE],
        "application/octet-stream"
    );
    let body = large.into_body().collect().await.expect("a body");
    assert_eq!(body.to_bytes().len(), 200_000);
    for (path, place) in [
        ("/logs", "/logs/"),
        ("/logs/sub%20dir", "sub%20dir/"),
        ("/logs/a.log/", "../a.log"),
    ] {
        let answer = node.call(Method::GET, path).await;
        assert!(answer.status().is_redirection(), "{path}");
        assert_eq!(answer.headers()[header::LOCATION], place, "{path}");
    }
    // Without the setting a query is nothing but a part of the URL.
    let answer = node.get("/logs/a.log?query=kubelet").await;
    assert_eq!(answer, (200, "text of a".into()));
}

#[tokio::test]
async fn nothing_outside_is_served() {
    let node = Node::new(NodeLogs::FilesAndQueries);
    for path in [
        "/logs/../secret",
        "/logs/..%2fsecret",
        "/logs/%2e%2e/secret",
        "/logs/%2e%2e%2fsecret",
        "/logs/sub%20dir/..%2f..%2fsecret",
        "/logs/leaves",
        "/logs/%2fetc/passwd",
        "/logs//etc/passwd",
        "/logs/a.log%00",
        "/logs/missing",
    ] {
        let (status, text) = node.get(path).await;
        assert_eq!(status, 404, "{path}: {text}");
        assert!(!text.contains("secret"), "{path}: {text}");
    }
    for query in ["../secret/", "..%2fsecret", "/leaves", "sub/../../secret"] {
        let (status, text) = node.get(&format!("/logs/?query={query}")).await;
        assert_eq!(status, 406, "{query}: {text}");
    }
}

#[tokio::test]
async fn a_disabled_handler_says_so() {
    let node = Node::new(NodeLogs::Disabled);
    for path in ["/logs/", "/logs/a.log", "/logs/?query=kubelet"] {
        let answer = node.get(path).await;
        assert_eq!(answer, (405, "logs endpoint is disabled.\n".into()));
    }
}

#[tokio::test]
async fn services_are_looked_for_in_the_journal_and_in_files() {
    let node = Node::new(NodeLogs::FilesAndQueries);
    let arguments = "--utc --no-pager --output=short-precise";
    for (query, wanted) in [
        (
            "query=kubelet&tailLines=3",
            format!("journal {arguments} --lines=3 --unit=kubelet\ncomplaint\n"),
        ),
        ("query=a", "text of a".into()),
        ("query=svc", "text of svc".into()),
        (
            "query=a&query=kubelet",
            format!("journal {arguments} --unit=kubelet\ncomplaint\ntext of a"),
        ),
        ("query=none", "\nlog not found for none\n".into()),
        ("query=..", "\nlog not found for ..\n".into()),
        (
            "query=a&boot=0",
            "\noptions present and query resolved to log files for [a]\ntry without specifying \
             options\n"
                .into(),
        ),
        ("query=/a.log", "text of a".into()),
    ] {
        let answer = node.get(&format!("/logs/?{query}")).await;
        assert_eq!(answer, (200, wanted), "{query}");
    }
}

#[tokio::test]
async fn bad_queries_are_refused() {
    let node = Node::new(NodeLogs::FilesAndQueries);
    for (path, status) in [
        ("/logs/?query=", 400),
        ("/logs/?query=kubelet&boot=x", 400),
        ("/logs/?query=kubelet&boot=1", 406),
        ("/logs/?query=%24(reboot)", 406),
        ("/logs/?boot=0", 406),
        ("/logs/a.log?query=kubelet", 406),
        ("/logs/?query=/missing", 406),
    ] {
        let answer = node.get(path).await;
        assert_eq!(answer.0, status, "{path}: {}", answer.1);
    }
}

#[tokio::test]
async fn without_journalctl_only_files_are_found() {
    let node = Node::new(NodeLogs::FilesAndQueries);
    std::fs::remove_file(node.dir.path().join("journalctl")).expect("removed");
    let answer = node.get("/logs/?query=a").await;
    assert_eq!(answer, (200, "text of a".into()));
    let answer = node.get("/logs/?query=kubelet").await;
    assert_eq!(answer, (200, "\nlog not found for kubelet\n".into()));
}

#[tokio::test]
async fn journalctl_ends_when_the_caller_leaves() {
    let node = Node::new(NodeLogs::FilesAndQueries);
    let answer = node.call(Method::GET, "/logs/?query=slow").await;
    let mut body = answer.into_body();
    let first = body.frame().await.expect("a frame").expect("no error");
    assert_eq!(first.into_data().expect("data"), "begins\n");
    let pid = std::fs::read_to_string(node.dir.path().join("slow.pid")).expect("a pid");
    let process = PathBuf::from("/proc").join(pid.trim());
    assert!(process.exists());
    drop(body);
    let gone = async {
        while process.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let gone = tokio::time::timeout(Duration::from_secs(10), gone).await;
    assert!(gone.is_ok());
}
