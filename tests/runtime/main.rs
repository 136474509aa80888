//! The runtime module against a real containerd (1.6 or 2.x), as root.
//!
//! Relisting is off for all practical purposes, so what these tests see of a
//! change they see by containerd's events.

mod containerd;
mod image;
mod node;
mod streams;

use std::sync::Arc;
use std::time::{Duration, Instant};

use kubelet::pod::spec::{ImageRequest, PullPolicy};
use kubelet::pod::{ContainerState, Exit, ObservedPod, SandboxId, WaitingReason};
use kubelet::runtime::RuntimeError;
use nix::sys::signal::Signal;
use node::{LIMIT, Node};
use tokio::sync::watch;

type Watch = watch::Receiver<Arc<ObservedPod>>;

/// Waits until the watch shows what the test wants to see.
async fn see<T>(watch: &mut Watch, what: &str, want: impl Fn(&ObservedPod) -> Option<T>) -> T {
    let wanted = watch.wait_for(|pod| want(pod).is_some());
    let seen = tokio::time::timeout(LIMIT, wanted).await;
    if let Ok(pod) = seen {
        return want(&pod.expect("the observer lives")).expect("just seen");
    }
    drop(seen);
    panic!("not in time: {what}; seen: {:#?}", watch.borrow());
}

fn exit_of(pod: &ObservedPod, container: &str) -> Option<Exit> {
    match &pod.newest(container)?.state {
        ContainerState::Exited(exit) => Some(exit.clone()),
        _ => None,
    }
}

fn is_running(pod: &ObservedPod, container: &str) -> Option<()> {
    let newest = pod.newest(container)?;
    matches!(newest.state, ContainerState::Running { .. }).then_some(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_runs_and_its_exit_is_told_at_once() {
    let node = Node::start().await;
    let pod = node.sandbox("web").await;
    let mut watch = node.watch(&pod.0);
    let script = "echo $GREETING; echo farewell > /last-words; read < /dev/null; sleep 1; exit 3";
    let id = node.run(&pod, "main", script).await;
    let observer = &node.handles.observer;
    let seen = observer
        .refresh(&pod.0.uid, &pod.0.name)
        .await
        .expect("refresh");
    assert_eq!(is_running(&seen, "main"), Some(()), "{seen:#?}");
    assert!(
        seen.ready_sandbox()
            .is_some_and(|sandbox| sandbox.host_network)
    );

    let exit = see(&mut watch, "exit", |pod| exit_of(pod, "main")).await;
    let late = jiff::Timestamp::now().duration_since(exit.finished_at);
    assert!(late.as_secs_f64() < 2.0, "seen {late:?} after the exit");
    println!("exit seen after {late:?}");
    assert_eq!((exit.code, exit.reason.as_str()), (3, "Error"));
    assert_eq!(exit.message, "farewell\n");

    let log = pod.0.log_directory.join("main/0.log");
    let link = node
        .containerd
        .path("links")
        .join(format!("web_default_main-{id}.log"));
    assert_eq!(std::fs::read_link(&link).expect("link"), log);
    let text = std::fs::read_to_string(&link).expect("log");
    assert!(text.ends_with("stdout F hello\n"), "{text}");

    let sandboxes = &node.handles.sandboxes;
    sandboxes.remove_container(&id).await.expect("remove");
    assert!(!log.exists() && !link.is_symlink());
    sandboxes.remove_container(&id).await.expect("remove again");
    sandboxes.stop_sandbox(&pod.1).await.expect("stop");
    sandboxes.stop_sandbox(&pod.1).await.expect("stop again");
    sandboxes.remove_sandbox(&pod.1).await.expect("remove");
    sandboxes
        .remove_sandbox(&pod.1)
        .await
        .expect("remove again");
    sandboxes
        .remove_pod_logs(&pod.0.uid, &pod.0.name)
        .await
        .expect("logs");
    assert!(!pod.0.log_directory.exists());
    see(&mut watch, "the pod's end", |pod| {
        pod.is_absent().then_some(())
    })
    .await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_log_says_last_is_the_message_of_a_failure() {
    let node = Node::start().await;
    let pod = node.sandbox("web").await;
    let mut watch = node.watch(&pod.0);
    node.run(&pod, "main", "echo first; echo second; exit 1")
        .await;
    let exit = see(&mut watch, "exit", |pod| exit_of(pod, "main")).await;
    assert_eq!(exit.message, "first\nsecond\n");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_is_asked_for_and_then_enforced() {
    let node = Node::start().await;
    let pod = node.sandbox("web").await;
    let mut watch = node.watch(&pod.0);
    let stubborn = node
        .run(&pod, "stubborn", "trap : TERM; while :; do sleep 0.1; done")
        .await;
    let polite = node
        .run(
            &pod,
            "polite",
            "trap 'exit 7' TERM; while :; do sleep 0.1; done",
        )
        .await;
    let sandboxes = &node.handles.sandboxes;
    let begun = Instant::now();
    let grace = Duration::from_secs(30);
    sandboxes
        .stop_container(&polite, grace)
        .await
        .expect("stop");
    assert!(begun.elapsed() < Duration::from_secs(10));
    let exit = see(&mut watch, "polite exit", |pod| exit_of(pod, "polite")).await;
    assert_eq!(exit.code, 7);
    // A shorter grace takes over from a longer one.
    let patient = sandboxes.stop_container(&stubborn, grace);
    let hasty = sandboxes.stop_container(&stubborn, Duration::from_secs(1));
    let begun = Instant::now();
    let (patient, hasty) = tokio::join!(patient, hasty);
    patient.expect("stop");
    hasty.expect("stop");
    assert!(begun.elapsed() < Duration::from_secs(15));
    let exit = see(&mut watch, "stubborn exit", |pod| exit_of(pod, "stubborn")).await;
    assert_eq!(exit.code, 137);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_goes_though_it_has_a_task_that_cri_does_not_know() {
    let node = Node::start().await;
    let pod = node.sandbox("web").await;
    let id = node.container(&pod, "main", "sleep 3600").await;
    // As when CRI gives up a start whose task comes to be all the same.
    node.ctr(&["tasks", "start", "--detach", "--null-io", &id.0]);
    node.handles
        .sandboxes
        .remove_container(&id)
        .await
        .expect("remove");
    for kind in ["tasks", "containers"] {
        let left = node.ctr(&[kind, "ls", "-q"]);
        assert!(!left.contains(&id.0), "{kind}: {left}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_goes_though_cri_does_not_know_its_container() {
    const ID: &str = "lost-sandbox";
    let node = Node::start().await;
    let cgroup = format!("{}/{ID}", node.containerd.cgroup());
    node.ctr(&[
        "run",
        "--detach",
        "--null-io",
        "--cgroup",
        &cgroup,
        image::BUSYBOX,
        ID,
        "/bin/sleep",
        "3600",
    ]);
    let lists = [
        vec!["tasks", "ls", "-q"],
        vec!["containers", "ls", "-q"],
        vec!["snapshots", "ls"],
    ];
    for list in &lists {
        let shown = node.ctr(list);
        assert!(shown.contains(ID), "{list:?}: {shown}");
    }
    let id = SandboxId(ID.to_owned());
    let sandboxes = &node.handles.sandboxes;
    sandboxes.remove_sandbox(&id).await.expect("remove");
    for list in &lists {
        let left = node.ctr(list);
        assert!(!left.contains(ID), "{list:?}: {left}");
    }
    sandboxes.remove_sandbox(&id).await.expect("remove again");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_containerd_comes_back_and_so_do_its_events() {
    let mut node = Node::start().await;
    let pod = node.sandbox("web").await;
    let mut watch = node.watch(&pod.0);
    node.run(&pod, "long", "sleep 3600").await;
    node.run(&pod, "short", "sleep 2; echo over > /last-words; exit 4")
        .await;
    see(&mut watch, "both run", |pod| {
        is_running(pod, "long").and(is_running(pod, "short"))
    })
    .await;
    node.containerd.kill();
    let lost = node.handles.observer.refresh(&pod.0.uid, &pod.0.name).await;
    assert!(
        matches!(lost, Err(RuntimeError::Unreachable { .. })),
        "{lost:?}"
    );
    // It ends while nobody is there to tell.
    let mut containerd = node.containerd;
    node.containerd = tokio::task::spawn_blocking(move || {
        let last_words = containerd.path("uid-web-short");
        containerd.wait_until("the short one ends", || {
            std::fs::read(&last_words).is_ok_and(|words| !words.is_empty())
        });
        containerd.spawn();
        containerd
    })
    .await
    .expect("restart");

    let exit = see(&mut watch, "exit in absence", |pod| exit_of(pod, "short")).await;
    // containerd 2 does not ask the shim how it ended.
    let told = (exit.code, exit.reason.as_str());
    assert!([(4, "Error"), (255, "Unknown")].contains(&told), "{exit:?}");
    assert_eq!(is_running(&watch.borrow(), "long"), Some(()));
    node.run(&pod, "after", "sleep 1; exit 5").await;
    let exit = see(&mut watch, "exit afterwards", |pod| exit_of(pod, "after")).await;
    assert_eq!(exit.code, 5);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_to_a_hung_containerd_end_at_their_deadline() {
    let limit = Duration::from_secs(2);
    let node = Node::with_request_timeout(limit).await;
    let pod = node.sandbox("web").await;
    let observer = &node.handles.observer;
    node.containerd.signal(Signal::SIGSTOP);
    let begun = Instant::now();
    let hung = observer.refresh(&pod.0.uid, &pod.0.name).await;
    let took = begun.elapsed();
    node.containerd.signal(Signal::SIGCONT);
    assert!(
        matches!(hung, Err(RuntimeError::Timeout { .. })),
        "{hung:?}"
    );
    assert!(took >= limit && took < limit * 2, "{took:?}");
    let deadline = Instant::now() + LIMIT;
    while let Err(error) = observer.refresh(&pod.0.uid, &pod.0.name).await {
        assert!(Instant::now() < deadline, "{error}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_cannot_work_says_why() {
    let node = Node::start().await;
    let pod = node.sandbox("web").await;
    let request = |image: &str, policy| ImageRequest {
        image: image.to_owned(),
        policy,
        pod: pod.0.name.clone(),
        runtime_handler: String::new(),
        credentials: Vec::new(),
    };
    let cases = [
        (
            request("127.0.0.1:1/nobody:1", PullPolicy::IfNotPresent),
            WaitingReason::ErrImagePull,
            "connection refused",
        ),
        (
            request("127.0.0.1:1/nobody:1", PullPolicy::Never),
            WaitingReason::ErrImageNeverPull,
            "Container image \"127.0.0.1:1/nobody:1\" is not present with pull policy of Never",
        ),
        (
            request("No Image", PullPolicy::Always),
            WaitingReason::InvalidImageName,
            "couldn't parse image name \"No Image\"",
        ),
    ];
    for (request, reason, text) in cases {
        let images = &node.handles.images;
        let refused = images
            .ensure_image(&request, &|_| {})
            .await
            .expect_err(text);
        assert_eq!(refused.reason, reason, "{}", refused.message);
        assert!(refused.message.contains(text), "{}", refused.message);
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_observer_finds_what_runs() {
    let node = Node::start().await;
    let mut pods = node.handles.observer.pods();
    let empty = tokio::time::timeout(LIMIT, pods.wait_for(Option::is_some)).await;
    assert_eq!(
        empty
            .expect("in time")
            .expect("lives")
            .as_ref()
            .map(|p| p.len()),
        Some(0)
    );
    let pod = node.sandbox("web").await;
    node.run(&pod, "main", "sleep 3600").await;
    // Nobody here asked for this pod: it is found by its events.
    let found = pods.wait_for(|pods| pods.as_ref().is_some_and(|pods| pods.len() == 1));
    tokio::time::timeout(LIMIT, found)
        .await
        .expect("in time")
        .expect("lives");
    let mut health = node.handles.observer.health();
    let good = health.wait_for(|health| health.checked && health.runtime.is_none());
    let good = tokio::time::timeout(LIMIT, good).await.expect("in time");
    assert_eq!(good.expect("lives").name, "containerd");
    node.stop().await;
}
