//! What kubectl and the API server's proxy read of logs through the node's API.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, ensure};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::harness::{
    FOREVER, PATIENCE, Scene, Test, container, number, poll_until, shell, tests, text,
};

pub const TESTS: &[Test] = tests!(Shared:
    a_container_that_writes_as_fast_as_it_can_does_not_fill_the_disk,
    a_follower_loses_and_doubles_nothing_across_rotations,
    rotation_keeps_as_many_files_as_configured,
    every_option_shapes_the_log,
    the_previous_life_has_a_log,
    following_ends_with_the_container,
    the_whole_log_of_a_container_that_ended_at_once_is_followed,
    containers_are_told_apart,
    what_has_no_log_says_why,
    the_node_refuses_in_upstreams_words,
    the_nodes_own_logs_are_served,
);

/// Options of `kubectl logs`, then what it prints.
async fn logs(t: &Scene, arguments: &[&str]) -> anyhow::Result<String> {
    let all: Vec<&str> = ["logs"].iter().chain(arguments).copied().collect();
    t.kubectl(&all).await?.text()
}

/// `kubectl logs`'s complaint; an error if it succeeds.
async fn complaint(t: &Scene, arguments: &[&str]) -> anyhow::Result<String> {
    let all: Vec<&str> = ["logs"].iter().chain(arguments).copied().collect();
    let ran = t.kubectl(&all).await?;
    ensure!(!ran.status.success(), "{ran:?}");
    Ok(ran.stderr)
}

/// What the node answers to a GET through the API server's proxy.
async fn node_answer(t: &Scene, path: &str) -> anyhow::Result<(u16, String)> {
    let node = t.cluster.node_name();
    let uri = format!("/api/v1/nodes/{node}/proxy/{path}");
    let request = http::Request::get(uri).body(Body::empty())?;
    let answer = t.cluster.client.send(request).await?;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

fn numbers(range: std::ops::RangeInclusive<u32>) -> String {
    range.map(|number| format!("{number}\n")).collect()
}

/// Writes `line 1`, `line 2`, … for some seconds, half a megabyte in each: it is rotated
/// every few seconds.
fn numbered_lines(seconds: u32) -> String {
    format!(
        "end=$(($(date +%s) + {seconds})); i=0; pad=$(printf '%0100d' 0); \
         while [ $(date +%s) -lt $end ]; do \
           n=0; while [ $n -lt 500 ]; do i=$((i + 1)); n=$((n + 1)); echo \"line $i $pad\"; done; \
           sleep 0.1; \
         done; echo last $i"
    )
}

/// The log's rotated parts and the live one, by name, with their sizes.
async fn log_files(t: &Scene, pod: &Value) -> anyhow::Result<BTreeMap<String, u64>> {
    let mut entries = tokio::fs::read_dir(t.log_directory(pod).join("main")).await?;
    let mut files = BTreeMap::new();
    while let Some(entry) = entries.next_entry().await? {
        let name = entry.file_name().to_string_lossy().into_owned();
        // It may have gone meanwhile.
        if let Ok(found) = entry.metadata().await {
            files.insert(name, found.len());
        }
    }
    Ok(files)
}

async fn a_container_that_writes_as_fast_as_it_can_does_not_fill_the_disk(
    t: Scene,
) -> anyhow::Result<()> {
    // Four files of 1 MiB are configured; the machine may be too busy to keep to that.
    const BOUND: u64 = 100 << 20;
    const WANTED: u64 = 300 << 20;
    let script = format!(
        "yes \"$(printf '%01000d' 0)\" | head -c {WANTED}; while sleep 1; do echo last; done"
    );
    let pod = t.ready_pod("fast", json!([shell("main", &script)])).await?;
    let most = AtomicU64::new(0);
    let begun = Instant::now();
    poll_until("all is written", PATIENCE, || async {
        let files = log_files(&t, &pod).await?;
        let size = files.values().sum();
        most.fetch_max(size, Ordering::Relaxed);
        ensure!(size <= BOUND, "{size} bytes in {files:?}");
        let end = logs(&t, &["fast", "--tail=1"]).await?;
        Ok(if end == "last\n" {
            Ok(())
        } else {
            Err(format!("{files:?}"))
        })
    })
    .await?;
    println!(
        "300 MiB of log in {:?}; at most {} bytes on disk",
        begun.elapsed(),
        most.load(Ordering::Relaxed)
    );
    Ok(())
}

async fn a_follower_loses_and_doubles_nothing_across_rotations(t: Scene) -> anyhow::Result<()> {
    let script = format!("sleep 3; {}; {FOREVER}", numbered_lines(12));
    let pod = t
        .ready_pod("writer", json!([shell("main", &script)]))
        .await?;
    let mut kubectl = t
        .kubectl_command(&["logs", "--follow", "writer"])
        .stderr(Stdio::null())
        .spawn()?;
    let stdout = kubectl.stdout.take().context("stdout is piped")?;
    let mut lines = BufReader::new(stdout).lines();
    let follow = async {
        let mut expected = 1;
        while let Some(line) = lines.next_line().await? {
            let mut words = line.split(' ');
            if line.starts_with("last ") {
                ensure!(line == format!("last {}", expected - 1), "{line}");
                return Ok(expected - 1);
            }
            let number = words.nth(1).context("a number")?;
            ensure!(number == expected.to_string(), "{line:.40}, not {expected}");
            expected += 1;
        }
        anyhow::bail!("it ended after line {}", expected - 1);
    };
    let count: u32 = tokio::time::timeout(PATIENCE, follow)
        .await
        .context("follow")??;
    let files = log_files(&t, &pod).await?;
    ensure!(files.len() > 1, "{count} lines, never rotated: {files:?}");
    Ok(())
}

async fn rotation_keeps_as_many_files_as_configured(t: Scene) -> anyhow::Result<()> {
    let script = format!("{}; {FOREVER}", numbered_lines(100));
    let pod = t
        .ready_pod("writer", json!([shell("main", &script)]))
        .await?;
    let look = || async {
        let files = log_files(&t, &pod).await?;
        // Rotation holds one more while it renames and compresses.
        ensure!(files.len() <= 5, "{files:?}");
        let rotated = files.keys().filter(|name| *name != "0.log");
        Ok(if rotated.count() >= 2 {
            Ok(())
        } else {
            Err(format!("{files:?}"))
        })
    };
    poll_until("two rotated files", PATIENCE, look).await?;
    t.delete_pod_within("writer", 0).await?;
    t.gone::<k8s_openapi::api::core::v1::Pod>("writer").await?;
    let directory = t.log_directory(&pod);
    poll_until("the pod's logs are gone", PATIENCE, || async {
        Ok(if directory.try_exists()? {
            Err(directory.display().to_string())
        } else {
            Ok(())
        })
    })
    .await
}

async fn every_option_shapes_the_log(t: Scene) -> anyhow::Result<()> {
    let script = "for i in one two three four; do echo $i; sleep 1.1; done; printf five";
    t.run_to_end("p", json!({ "containers": [shell("main", script)] }))
        .await?;
    let all = "one\ntwo\nthree\nfour\nfive";
    ensure!(logs(&t, &["p"]).await? == all);
    ensure!(logs(&t, &["p", "--tail=2"]).await? == "four\nfive");
    ensure!(logs(&t, &["p", "--tail=0"]).await?.is_empty());
    ensure!(logs(&t, &["p", "--tail=100"]).await? == all);
    ensure!(logs(&t, &["p", "--limit-bytes=5"]).await? == "one\nt");
    ensure!(logs(&t, &["p", "--since=1h"]).await? == all);
    ensure!(logs(&t, &["p", "--follow", "--tail=3"]).await? == "three\nfour\nfive");

    let stamped = logs(&t, &["p", "--timestamps"]).await?;
    let lines: Vec<(&str, &str)> = stamped
        .lines()
        .map(|line| line.split_once(' ').unwrap_or_default())
        .collect();
    let texts: Vec<_> = lines.iter().map(|(_, text)| *text).collect();
    ensure!(
        texts == ["one", "two", "three", "four", "five"],
        "{stamped}"
    );
    for (time, _) in &lines {
        ensure!(time.parse::<jiff::Timestamp>().is_ok(), "{time}");
        let fraction = time.split_once('.').map_or("", |(_, fraction)| fraction);
        let digits = fraction.chars().take_while(char::is_ascii_digit).count();
        ensure!(digits == 9, "{time}");
    }
    // The API's times have no fractions, so the lines are more than a second apart.
    let since = format!("--since-time={}", lines[2].0);
    ensure!(logs(&t, &["p", &since]).await? == "three\nfour\nfive");
    let since = format!("--since-time={}", lines[3].0);
    let both = logs(&t, &["p", &since, "--tail=3", "--timestamps"]).await?;
    ensure!(
        both == format!("{} four\n{} five", lines[3].0, lines[4].0),
        "{both}"
    );
    Ok(())
}

async fn the_previous_life_has_a_log(t: Scene) -> anyhow::Result<()> {
    let mut main = shell(
        "main",
        &format!(
            "echo life >> /memory/lives; wc -l < /memory/lives; \
             [ $(wc -l < /memory/lives) -gt 1 ] || exit 1; {FOREVER}"
        ),
    );
    main["volumeMounts"] = json!([{ "name": "memory", "mountPath": "/memory" }]);
    let spec = json!({ "volumes": [{ "name": "memory", "emptyDir": {} }], "containers": [main] });
    t.pod("lives", spec).await?;
    t.pod_until("lives", "runs again", |pod| {
        let status = container(pod, "main");
        number(status, "/restartCount") == 1 && status["state"]["running"].is_object()
    })
    .await?;
    ensure!(logs(&t, &["lives", "--previous"]).await? == "1\n");
    poll_until("the second life writes", PATIENCE, || async {
        let log = logs(&t, &["lives"]).await?;
        Ok(if log == "2\n" { Ok(()) } else { Err(log) })
    })
    .await
}

async fn following_ends_with_the_container(t: Scene) -> anyhow::Result<()> {
    let script = "i=0; while [ $i -lt 50 ]; do i=$((i + 1)); echo $i; sleep 0.1; done; exit 3";
    let spec = json!({ "restartPolicy": "Never", "containers": [shell("main", script)] });
    t.pod("counts", spec).await?;
    t.pod_until("counts", "has begun", |pod| {
        !text(container(pod, "main"), "/containerID").is_empty()
    })
    .await?;
    let log = logs(&t, &["counts", "--follow"]).await?;
    ensure!(log == numbers(1..=50), "{log}");
    Ok(())
}

async fn the_whole_log_of_a_container_that_ended_at_once_is_followed(
    t: Scene,
) -> anyhow::Result<()> {
    let spec = json!({ "containers": [shell("main", "seq 1 3000")] });
    t.run_to_end("brief", spec).await?;
    let log = logs(&t, &["brief", "--follow"]).await?;
    ensure!(log == numbers(1..=3000), "{} bytes", log.len());
    Ok(())
}

async fn containers_are_told_apart(t: Scene) -> anyhow::Result<()> {
    let containers = json!([
        shell("first", "echo of the first"),
        shell("second", "echo of the second >&2")
    ]);
    let spec = json!({
        "initContainers": [shell("before", "echo of the one before")],
        "containers": containers,
    });
    t.run_to_end("several", spec).await?;
    for (name, text) in [
        ("before", "of the one before\n"),
        ("first", "of the first\n"),
        ("second", "of the second\n"),
    ] {
        ensure!(logs(&t, &["several", "-c", name]).await? == text, "{name}");
    }
    let all = logs(&t, &["several", "--all-containers", "--prefix"]).await?;
    let mut lines: Vec<&str> = all.lines().collect();
    lines.sort_unstable();
    ensure!(
        lines
            == [
                "[pod/several/before] of the one before",
                "[pod/several/first] of the first",
                "[pod/several/second] of the second",
            ],
        "{all}"
    );
    Ok(())
}

async fn what_has_no_log_says_why(t: Scene) -> anyhow::Result<()> {
    let mut main = shell("main", FOREVER);
    main["image"] = "registry.invalid/none:1".into();
    main["imagePullPolicy"] = "Never".into();
    t.pod("waits", json!({ "containers": [main] })).await?;
    t.pod_until("waits", "waits for its image", |pod| {
        text(container(pod, "main"), "/state/waiting/reason") == "ErrImageNeverPull"
    })
    .await?;
    let why = complaint(&t, &["waits"]).await?;
    ensure!(
        why.contains(
            "(BadRequest): container \"main\" in pod \"waits\" is waiting to start: \
             ErrImageNeverPull"
        ),
        "{why}"
    );
    let why = complaint(&t, &["waits", "--previous"]).await?;
    ensure!(
        why.contains("previous terminated container \"main\" in pod \"waits\" not found"),
        "{why}"
    );
    let why = complaint(&t, &["waits", "-c", "none"]).await?;
    ensure!(why.contains("none"), "{why}");
    Ok(())
}

async fn the_node_refuses_in_upstreams_words(t: Scene) -> anyhow::Result<()> {
    t.run_to_end("p", json!({ "containers": [shell("main", "echo text")] }))
        .await?;
    let base = format!("containerLogs/{}", t.namespace);
    for (path, status, text) in [
        ("p/main", 200, "text\n"),
        ("p/main?tail=all", 200, "text\n"),
        ("p/main?stream=All", 200, "text\n"),
        ("other/main", 404, r#"pod "other" does not exist"#),
        ("p/none", 404, r#"container "none" not found in pod "p""#),
        (
            "p/main?tailLines=x",
            400,
            r#"{"message": "Unable to decode query."}"#,
        ),
        (
            "p/main?limitBytes=0",
            422,
            r#"{"message": "Invalid request."}"#,
        ),
        (
            "p/main?sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z",
            422,
            r#"{"message": "Invalid request."}"#,
        ),
        (
            "p/main?stream=Stdout",
            400,
            "unable to return the given log stream: \"Stdout\". Please enable \
             PodLogsQuerySplitStreams feature gate in kubelet",
        ),
    ] {
        let answer = node_answer(&t, &format!("{base}/{path}")).await?;
        ensure!(answer == (status, text.to_owned()), "{path}: {answer:?}");
    }
    Ok(())
}

/// A file in the host's log directory, for as long as a test runs.
struct HostLog(PathBuf);

impl HostLog {
    fn new(name: &str, text: &str) -> anyhow::Result<Self> {
        let path = PathBuf::from("/var/log").join(name);
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }
}

impl Drop for HostLog {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn the_nodes_own_logs_are_served(t: Scene) -> anyhow::Result<()> {
    let service = format!("kubelet-rs-test-{}", t.namespace);
    let name = format!("{service}.log");
    let _log = HostLog::new(&name, "of a service\n")?;
    let (status, listing) = node_answer(&t, "logs/").await?;
    ensure!(status == 200, "{listing}");
    ensure!(
        listing.contains(&format!("<a href=\"{name}\">{name}</a>")),
        "{listing}"
    );
    for (path, status) in [
        (format!("logs/{name}"), 200),
        (format!("logs/?query={service}"), 200),
        (format!("logs/?query=./{name}"), 200),
        ("logs/kubelet-rs-test-none".to_owned(), 404),
        (format!("logs/?query={service}&boot=x"), 400),
        (format!("logs/?query={service}&boot=1"), 406),
        (format!("logs/{name}?query={service}"), 406),
        ("logs/?query=%24(reboot)".to_owned(), 406),
        ("logs/?query=/../etc/passwd".to_owned(), 406),
    ] {
        let answer = node_answer(&t, &path).await?;
        ensure!(answer.0 == status, "{path}: {answer:?}");
        ensure!(
            status != 200 || answer.1 == "of a service\n",
            "{path}: {answer:?}"
        );
    }
    let answer = node_answer(&t, "logs/?query=kubelet-rs-test-none").await?;
    ensure!(
        answer == (200, "\nlog not found for kubelet-rs-test-none\n".to_owned()),
        "{answer:?}"
    );
    Ok(())
}
