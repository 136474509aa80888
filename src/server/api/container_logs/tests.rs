//! The route as a whole, over log files in a temporary directory and a runtime
//! in memory.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use axum::http::{Method, Request};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::*;
use crate::pod::observed::ContainerStamp;
use crate::pod::{
    ContainerId, ContainerState, DesiredPod, DesiredPods, Intent, ObservedContainer, ObservedPod,
    Origin, PodName, PodUid, SandboxId,
};
use crate::runtime::fake::FakeRuntime;
use crate::status::{StandaloneStatus, StatusHandle};

/// How long a test waits for what takes milliseconds.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// A node with one pod, `default/web`, whose container `main` runs its second
/// life (attempt 1).
pub(super) struct Node {
    dir: tempfile::TempDir,
    pub(super) runtime: FakeRuntime,
    router: Router,
    _desired: watch::Sender<DesiredPods>,
    stop: CancellationToken,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Node {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let runtime = FakeRuntime::new();
        runtime.install(observed());
        let (desired_out, desired) = watch::channel(desired());
        let (_task, statuses) = StandaloneStatus::new(StatusHandle::default(), desired.clone());
        let (changes, task) = LogChanges::new();
        let stop = CancellationToken::new();
        tokio::spawn(task.run(stop.clone()));
        let observer: Arc<dyn Observer> = Arc::new(runtime.clone());
        let router = routes(ContainerLogDeps {
            pods: PodDirectory::new(desired, statuses, Arc::clone(&observer)),
            observer,
            directory: dir.path().to_owned(),
            changes,
            streams: StreamChoice::Refused,
        });
        let node = Self {
            dir,
            runtime,
            router,
            _desired: desired_out,
            stop,
        };
        std::fs::create_dir_all(node.log("")).expect("directory");
        node
    }

    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.dir.path().join("default_web_uid-1/main").join(name)
    }

    pub(super) fn router(&self) -> Router {
        self.router.clone()
    }

    /// Appends entries, one a line of `text`.
    pub(super) fn write(&self, name: &str, text: &str) {
        let mut options = std::fs::OpenOptions::new();
        let file = options.append(true).create(true).open(self.log(name));
        write_entries(&mut file.expect("file"), text);
    }

    pub(super) async fn get(&self, path: &str) -> Response {
        self.call(Method::GET, path).await
    }

    async fn call(&self, method: Method, path: &str) -> Response {
        let request = Request::builder().method(method).uri(path);
        let request = request.body(Body::empty()).expect("a request");
        let answer = self.router.clone().oneshot(request).await;
        answer.expect("infallible")
    }

    async fn answer(&self, path: &str) -> (u16, String) {
        let response = self.get(path).await;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.expect("a body");
        (
            status,
            String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        )
    }

    pub(super) fn end_container(&self) {
        self.runtime
            .exit_container(&PodUid::from("uid-1"), "main", 0);
    }
}

pub(super) fn write_entries(file: &mut std::fs::File, text: &str) {
    for line in text.lines() {
        writeln!(file, "2026-01-01T00:00:00Z stdout F {line}").expect("written");
    }
}

/// Reads a body until it has `wanted` at its end, or to its end if that is
/// `None`.
pub(super) async fn read_until(body: &mut Body, text: &mut String, wanted: Option<&str>) {
    let read = async {
        while wanted.is_none_or(|wanted| !text.ends_with(wanted)) {
            let Some(frame) = body.frame().await else {
                assert_eq!(wanted, None, "the body ended: {text}");
                return;
            };
            let data = frame.expect("a frame").into_data().expect("data");
            text.push_str(&String::from_utf8_lossy(&data));
        }
    };
    let read = tokio::time::timeout(PATIENCE, read).await;
    assert!(read.is_ok(), "still not {wanted:?}: {text}");
}

fn desired() -> DesiredPods {
    let status = |name: &str, state: Value| {
        json!({
            "name": name, "image": "", "imageID": "", "ready": true, "restartCount": 1,
            "containerID": format!("containerd://{name}-1"), "state": state,
            "lastState": { "terminated": { "exitCode": 1, "containerID": format!("containerd://{name}-0") } },
        })
    };
    let waiting = json!({ "waiting": { "reason": "ContainerCreating" } });
    let mut late = status("late", waiting);
    late["lastState"] = json!({});
    let pod = serde_json::from_value(json!({
        "metadata": { "name": "web", "namespace": "default", "uid": "uid-1" },
        "spec": { "containers": [{ "name": "main" }, { "name": "late" }] },
        "status": { "containerStatuses": [status("main", json!({ "running": {} })), late] },
    }))
    .expect("a pod");
    let pod = DesiredPod {
        uid: PodUid::from("uid-1"),
        name: PodName::new("default", "web"),
        pod: Arc::new(pod),
        origin: Origin::Api,
        intent: Intent::Run,
    };
    DesiredPods {
        pods: Arc::new(BTreeMap::from([(pod.uid.clone(), Arc::new(pod))])),
        ..DesiredPods::default()
    }
}

fn observed() -> ObservedPod {
    let now = Timestamp::now();
    let life = |attempt: u32| ObservedContainer {
        id: ContainerId(format!("main-{attempt}")),
        sandbox: SandboxId("s".to_owned()),
        name: "main".to_owned(),
        attempt,
        state: ContainerState::Running { started_at: now },
        created_at: now,
        image: String::new(),
        image_ref: String::new(),
        stamp: ContainerStamp::default(),
        user: None,
    };
    ObservedPod {
        containers: vec![life(1), life(0)],
        ..ObservedPod::absent(PodUid::from("uid-1"), PodName::new("default", "web"), now)
    }
}

const MAIN: &str = "/containerLogs/default/web/main";

#[tokio::test]
async fn the_options_shape_the_answer() {
    let node = Node::new();
    node.write("0.log", "before");
    node.write("1.log", "one\ntwo\nthree");
    for (query, wanted) in [
        ("", "one\ntwo\nthree\n"),
        ("?previous=true", "before\n"),
        ("?tailLines=2", "two\nthree\n"),
        ("?tail=1", "three\n"),
        ("?tail=all", "one\ntwo\nthree\n"),
        ("?tailLines=0", ""),
        ("?tailLines=9223372036854775807", "one\ntwo\nthree\n"),
        ("?limitBytes=5", "one\nt"),
        ("?sinceSeconds=10", ""),
        ("?sinceTime=2026-01-01T00%3A00%3A00Z", "one\ntwo\nthree\n"),
        ("?stream=All&tailLines=1", "three\n"),
        (
            "?timestamps=true&limitBytes=33",
            "2026-01-01T00:00:00.000000000Z on",
        ),
    ] {
        let (status, body) = node.answer(&format!("{MAIN}{query}")).await;
        assert_eq!((status, body.as_str()), (200, wanted), "{query}");
    }
}

#[tokio::test]
async fn refusals_have_upstreams_status_and_words() {
    let node = Node::new();
    node.write("1.log", "one");
    for (path, status, text) in [
        (
            "/containerLogs/default/web/main?tailLines=x",
            400,
            r#"{"message": "Unable to decode query."}"#,
        ),
        (
            "/containerLogs/default/web/main?limitBytes=0",
            422,
            r#"{"message": "Invalid request."}"#,
        ),
        // The query is looked at first.
        (
            "/containerLogs/default/other/main?limitBytes=0",
            422,
            r#"{"message": "Invalid request."}"#,
        ),
        (
            "/containerLogs/default/other/main",
            404,
            r#"pod "other" does not exist"#,
        ),
        (
            "/containerLogs/elsewhere/web/main",
            404,
            r#"pod "web" does not exist"#,
        ),
        (
            "/containerLogs/default/web/none",
            404,
            r#"container "none" not found in pod "web""#,
        ),
        (
            "/containerLogs/default/web/..%2F..%2Fmain",
            404,
            r#"container "../../main" not found in pod "web""#,
        ),
        (
            "/containerLogs/default/web/late",
            400,
            r#"container "late" in pod "web" is waiting to start: ContainerCreating"#,
        ),
        (
            "/containerLogs/default/web/late?previous=true",
            400,
            r#"previous terminated container "late" in pod "web" not found"#,
        ),
        (
            "/containerLogs/default/web/main?stream=Stdout",
            400,
            "unable to return the given log stream: \"Stdout\". Please enable \
             PodLogsQuerySplitStreams feature gate in kubelet",
        ),
    ] {
        let answer = node.answer(path).await;
        assert_eq!(answer, (status, text.to_owned()), "{path}");
    }
    let posted = node.call(Method::POST, MAIN).await;
    assert_eq!(posted.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(node.answer("/containerLogs/default/web").await.0, 404);
}

#[tokio::test]
async fn a_log_that_is_no_file_is_not_opened() {
    let node = Node::new();
    let (status, text) = node.answer(MAIN).await;
    assert_eq!(status, 400, "{text}");
    std::os::unix::fs::symlink("/etc/passwd", node.log("1.log")).expect("link");
    let (status, text) = node.answer(MAIN).await;
    assert_eq!(status, 400, "{text}");
    assert!(!text.contains("root:"), "{text}");
}
