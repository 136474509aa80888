//! Lifecycle hooks: what a container's author has done after its start and before its
//! stop, and what becomes of the pod when that fails.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::harness::{
    AGNHOST, FOREVER, PATIENCE, Scene, Test, container, has_ended, is_ready, number, poll_until,
    shell, tests, text,
};

pub const TESTS: &[Test] = tests!(Shared:
    a_container_is_ready_when_its_post_start_command_is_done,
    a_post_start_command_that_fails_ends_the_container,
    a_post_start_hook_that_hangs_does_not_keep_a_pod_from_being_deleted,
    requests_are_hooks_and_any_answer_will_do,
    an_https_hook_makes_do_with_plain_http,
    a_pre_stop_command_is_done_before_the_stop_signal,
    a_pre_stop_hook_takes_its_time_from_the_grace,
    a_pre_stop_hook_that_hangs_ends_with_the_grace,
    a_pre_stop_hook_that_fails_does_not_keep_the_container,
    a_pre_stop_sleep_holds_the_stop_signal_back,
);

/// A container with the scene's directory at `/v`.
fn with_directory(name: &str, script: &str, lifecycle: Value) -> Value {
    let mut container = shell(name, script);
    container["lifecycle"] = lifecycle;
    container["volumeMounts"] = json!([{ "name": "v", "mountPath": "/v" }]);
    container
}

fn spec(directory: &Path, grace: u32, container: Value) -> Value {
    json!({
        "terminationGracePeriodSeconds": grace,
        "volumes": [{ "name": "v", "hostPath": { "path": directory } }],
        "containers": [container],
    })
}

fn command(script: &str) -> Value {
    json!({ "exec": { "command": ["sh", "-c", script] } })
}

/// Tells on `/v` that it listens for SIGTERM, and when it hears it.
const TELLS: &str = "trap 'date +%s >> /v/term; exit 0' TERM; touch /v/listens; \
                     sleep 1000000 & wait";

async fn file_exists(path: &Path) -> anyhow::Result<()> {
    poll_until(&path.display().to_string(), PATIENCE, || async {
        let there = tokio::fs::try_exists(path).await?;
        Ok(there.then_some(()).ok_or_else(|| "not there".to_owned()))
    })
    .await
}

/// Seconds since the epoch, from a file that holds nothing else.
async fn time_in(path: &Path) -> anyhow::Result<i64> {
    let text = tokio::fs::read_to_string(path).await;
    let text = text.with_context(|| path.display().to_string())?;
    Ok(text.trim().parse()?)
}

async fn a_container_is_ready_when_its_post_start_command_is_done(t: Scene) -> anyhow::Result<()> {
    let directory = t.host_directory().await?;
    let hook = json!({ "postStart": command("sleep 2; echo done > /v/hook") });
    let main = with_directory("main", FOREVER, hook);
    t.pod("hooked", spec(&directory, 1, main)).await?;
    let mut ran_too_early = false;
    t.pod_until("hooked", "is ready", |pod| {
        let runs = container(pod, "main")["state"]["running"].is_object();
        ran_too_early |= runs && !directory.join("hook").exists();
        is_ready(pod)
    })
    .await?;
    ensure!(
        !ran_too_early,
        "it was told to run before its hook was done"
    );
    let words = tokio::fs::read_to_string(directory.join("hook")).await?;
    ensure!(words == "done\n", "{words}");
    Ok(())
}

async fn a_post_start_command_that_fails_ends_the_container(t: Scene) -> anyhow::Result<()> {
    let mut main = shell("main", FOREVER);
    main["lifecycle"] = json!({ "postStart": command("echo no; exit 7") });
    t.pod("failing", json!({ "containers": [main] })).await?;
    let failed = t.event("failing", "FailedPostStartHook", |_| true).await?;
    ensure!(text(&failed, "/type") == "Warning", "{failed}");
    ensure!(
        text(&failed, "/message") == "PostStartHook failed",
        "{failed}"
    );
    let about = text(&failed, "/involvedObject/fieldPath");
    ensure!(about == "spec.containers{main}", "{failed}");
    t.event("failing", "Killing", |message| {
        message == "FailedPostStartHook"
    })
    .await?;
    let reasons = ["PostStartHookError", "CrashLoopBackOff"];
    let waits = |pod: &Value| {
        let main = container(pod, "main");
        let reason = text(main, "/state/waiting/reason");
        number(main, "/restartCount") >= 1 && reasons.contains(&reason)
    };
    t.pod_until("failing", "waits to be started again", waits)
        .await?;
    Ok(())
}

async fn a_post_start_hook_that_hangs_does_not_keep_a_pod_from_being_deleted(
    t: Scene,
) -> anyhow::Result<()> {
    let directory = t.host_directory().await?;
    let hook = json!({ "postStart": command("touch /v/hook; sleep 1000000") });
    let main = with_directory("main", FOREVER, hook);
    t.pod("stuck", spec(&directory, 2, main)).await?;
    file_exists(&directory.join("hook")).await?;
    let asked = Instant::now();
    t.delete::<Pod>("stuck").await?;
    t.gone::<Pod>("stuck").await?;
    ensure!(asked.elapsed() < Duration::from_secs(60), "{asked:?}");
    Ok(())
}

/// A server's address; its log has the requests that it is sent.
async fn server(t: &Scene) -> anyhow::Result<(Value, String)> {
    let main = json!({
        "name": "main",
        "image": AGNHOST,
        "imagePullPolicy": "IfNotPresent",
        "args": ["netexec", "--http-port=8080"],
    });
    let pod = t.ready_pod("server", json!([main])).await?;
    let ip = text(&pod, "/status/podIP").to_owned();
    let url = format!("http://{ip}:8080/");
    poll_until("the server answers", PATIENCE, || async {
        let curl = ["curl", "--silent", "--max-time", "5", &url];
        let answer = t.cluster.exec(curl).await;
        Ok(answer.map_err(|error| format!("{error:#}")))
    })
    .await?;
    Ok((pod, ip))
}

fn request(ip: &str, scheme: &str, path: &str) -> Value {
    json!({ "httpGet": { "host": ip, "port": 8080, "scheme": scheme, "path": path } })
}

async fn requests_are_hooks_and_any_answer_will_do(t: Scene) -> anyhow::Result<()> {
    let (server, ip) = server(&t).await?;
    let mut main = shell("main", FOREVER);
    main["lifecycle"] = json!({
        "postStart": request(&ip, "HTTP", "/echo?msg=hello&code=503"),
        "preStop": request(&ip, "HTTP", "/echo?msg=goodbye"),
    });
    t.pod(
        "asks",
        json!({ "terminationGracePeriodSeconds": 30, "containers": [main] }),
    )
    .await?;
    t.pod_until("asks", "is ready", is_ready).await?;
    t.log_until(&server, "main", "msg=hello").await?;
    t.delete::<Pod>("asks").await?;
    t.gone::<Pod>("asks").await?;
    t.log_until(&server, "main", "msg=goodbye").await?;
    Ok(())
}

async fn an_https_hook_makes_do_with_plain_http(t: Scene) -> anyhow::Result<()> {
    let (server, ip) = server(&t).await?;
    let mut main = shell("main", FOREVER);
    main["lifecycle"] = json!({ "postStart": request(&ip, "HTTPS", "/echo?msg=plainly") });
    t.ready_pod("asks", json!([main])).await?;
    t.log_until(&server, "main", "msg=plainly").await?;
    let event = t.event("asks", "LifecycleHTTPFallback", |_| true).await?;
    ensure!(text(&event, "/type") == "Warning", "{event}");
    Ok(())
}

async fn a_pre_stop_command_is_done_before_the_stop_signal(t: Scene) -> anyhow::Result<()> {
    let directory = t.host_directory().await?;
    let script = "trap 'echo signal >> /v/order; exit 0' TERM; touch /v/listens; \
                  sleep 1000000 & wait";
    let hook =
        json!({ "preStop": command("echo hook >> /v/order; sleep 2; echo done >> /v/order") });
    let main = with_directory("main", script, hook);
    t.pod("ordered", spec(&directory, 60, main)).await?;
    file_exists(&directory.join("listens")).await?;
    t.pod_until("ordered", "is ready", is_ready).await?;
    t.delete::<Pod>("ordered").await?;
    let last = t.gone::<Pod>("ordered").await?;
    let order = tokio::fs::read_to_string(directory.join("order")).await?;
    ensure!(order == "hook\ndone\nsignal\n", "{order}");
    let end = &container(&last, "main")["state"]["terminated"];
    ensure!(end["exitCode"] == 0, "{}", last["status"]);
    Ok(())
}

async fn a_pre_stop_hook_takes_its_time_from_the_grace(t: Scene) -> anyhow::Result<()> {
    let directory = t.host_directory().await?;
    // Hears of the signal and goes on.
    let script =
        "trap 'date +%s > /v/term' TERM; touch /v/listens; while :; do usleep 100000; done";
    let hook = json!({ "preStop": command("sleep 6") });
    let main = with_directory("main", script, hook);
    t.pod("stubborn", spec(&directory, 9, main)).await?;
    file_exists(&directory.join("listens")).await?;
    t.pod_until("stubborn", "is ready", is_ready).await?;
    t.delete::<Pod>("stubborn").await?;
    let last = t.gone::<Pod>("stubborn").await?;
    let end = &container(&last, "main")["state"]["terminated"];
    ensure!(end["exitCode"] == 137, "{}", last["status"]);
    let finished: jiff::Timestamp = text(end, "/finishedAt").parse()?;
    let left = finished.as_second() - time_in(&directory.join("term")).await?;
    // Three of nine seconds, and what whole seconds hide.
    ensure!((2..=6).contains(&left), "{left} s between signal and end");
    Ok(())
}

async fn a_pre_stop_hook_that_hangs_ends_with_the_grace(t: Scene) -> anyhow::Result<()> {
    let directory = t.host_directory().await?;
    let hook = json!({ "preStop": command("sleep 1000000") });
    let main = with_directory("main", TELLS, hook);
    t.pod("hangs", spec(&directory, 3, main)).await?;
    file_exists(&directory.join("listens")).await?;
    t.pod_until("hangs", "is ready", is_ready).await?;
    let asked = Instant::now();
    t.delete::<Pod>("hangs").await?;
    let last = t.gone::<Pod>("hangs").await?;
    let took = asked.elapsed();
    ensure!(took >= Duration::from_secs(3), "gone after {took:?}");
    // It hears of its end all the same.
    ensure!(directory.join("term").exists(), "{}", last["status"]);
    Ok(())
}

async fn a_pre_stop_hook_that_fails_does_not_keep_the_container(t: Scene) -> anyhow::Result<()> {
    let mut main = shell("main", FOREVER);
    main["lifecycle"] = json!({ "preStop": command("exit 1") });
    let containers = json!([main]);
    let spec = json!({ "terminationGracePeriodSeconds": 30, "containers": containers });
    t.pod("failing", spec).await?;
    t.pod_until("failing", "is ready", is_ready).await?;
    t.delete::<Pod>("failing").await?;
    t.gone::<Pod>("failing").await?;
    let failed = t.event("failing", "FailedPreStopHook", |_| true).await?;
    ensure!(
        text(&failed, "/message") == "PreStopHook failed",
        "{failed}"
    );
    t.event("failing", "Killing", |message| {
        message == "Stopping container main"
    })
    .await?;
    Ok(())
}

async fn a_pre_stop_sleep_holds_the_stop_signal_back(t: Scene) -> anyhow::Result<()> {
    let directory = t.host_directory().await?;
    let hook = json!({
        "postStart": { "sleep": { "seconds": 1 } },
        "preStop": { "sleep": { "seconds": 3 } },
    });
    let main = with_directory("main", TELLS, hook);
    t.pod("sleeps", spec(&directory, 60, main)).await?;
    file_exists(&directory.join("listens")).await?;
    t.pod_until("sleeps", "is ready", is_ready).await?;
    let asked = jiff::Timestamp::now().as_second();
    t.delete::<Pod>("sleeps").await?;
    let last = t.gone::<Pod>("sleeps").await?;
    let held = time_in(&directory.join("term")).await? - asked;
    ensure!(held >= 3, "the signal came after {held} s");
    ensure!(has_ended(&last), "{}", last["status"]);
    Ok(())
}
