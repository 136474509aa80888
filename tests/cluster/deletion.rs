//! Deleting pods: grace, force, and when the object goes.

use std::time::{Duration, Instant};

use anyhow::ensure;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::harness::{
    Cgroup, FOREVER, PATIENCE, Scene, Test, container, poll_until, shell, tests, text,
};

pub const TESTS: &[Test] = tests!(Shared:
    a_pod_that_handles_sigterm_ends_within_its_grace,
    a_pod_that_ignores_sigterm_is_killed_after_its_grace,
    a_shorter_grace_cuts_a_long_one,
    a_forced_deletion_still_stops_the_containers,
    a_deleted_pod_leaves_nothing_on_the_node,
    a_pod_that_never_started_can_be_deleted,
    a_crash_looping_pod_can_be_deleted,
    a_finished_pod_can_be_deleted,
    a_pod_of_the_same_name_follows_a_deleted_one,
);

/// Ignores SIGTERM, for longer than any test waits.
const STUBBORN: &str = "trap '' TERM; while :; do sleep 1; done";

async fn a_pod_that_handles_sigterm_ends_within_its_grace(t: Scene) -> anyhow::Result<()> {
    let directory = t.host_directory().await?;
    // The shell hears of the signal while it waits, and works for two seconds.
    let script = "trap 'echo asked > /v/end; sleep 2; echo done >> /v/end; exit 0' TERM; \
                  touch /v/listens; sleep 1000000 & wait";
    let mut main = shell("main", script);
    main["volumeMounts"] = json!([{ "name": "v", "mountPath": "/v" }]);
    let spec = json!({
        "terminationGracePeriodSeconds": 60,
        "volumes": [{ "name": "v", "hostPath": { "path": directory } }],
        "containers": [main],
    });
    t.pod("polite", spec).await?;
    // A process 1 without a handler does not hear of the signal at all.
    poll_until("the shell has its trap", PATIENCE, || async {
        let listens = tokio::fs::try_exists(directory.join("listens")).await?;
        Ok(listens.then_some(()).ok_or_else(|| "not yet".to_owned()))
    })
    .await?;
    t.delete::<Pod>("polite").await?;
    let deleted = t
        .pod_until("polite", "is being deleted", is_being_deleted)
        .await?;
    ensure!(
        deleted["metadata"]["deletionGracePeriodSeconds"] == 60,
        "{}",
        deleted["metadata"]
    );
    let last = t.gone::<Pod>("polite").await?;
    let end = &container(&last, "main")["state"]["terminated"];
    ensure!(
        end["exitCode"] == 0 && end["reason"] == "Completed",
        "{}",
        last["status"]
    );
    ensure!(
        text(&last, "/status/phase") == "Succeeded",
        "{}",
        last["status"]
    );
    let words = tokio::fs::read_to_string(directory.join("end")).await?;
    ensure!(words == "asked\ndone\n", "{words}");
    Ok(())
}

async fn a_pod_that_ignores_sigterm_is_killed_after_its_grace(t: Scene) -> anyhow::Result<()> {
    let pod = ready_with_grace(&t, "stubborn", STUBBORN, 4).await?;
    let asked = Instant::now();
    t.delete::<Pod>("stubborn").await?;
    let last = t.gone::<Pod>("stubborn").await?;
    ensure!(
        asked.elapsed() >= Duration::from_secs(4),
        "gone after {:?}",
        asked.elapsed()
    );
    let end = &container(&last, "main")["state"]["terminated"];
    ensure!(end["exitCode"] == 137, "{}", last["status"]);
    ensure!(
        text(&last, "/status/phase") == "Failed",
        "{}",
        last["status"]
    );
    ensure_stopped(&t, &pod).await
}

async fn a_shorter_grace_cuts_a_long_one(t: Scene) -> anyhow::Result<()> {
    let pod = ready_with_grace(&t, "slow", STUBBORN, 600).await?;
    t.delete::<Pod>("slow").await?;
    t.pod_until("slow", "is being deleted", is_being_deleted)
        .await?;
    t.delete_pod_within("slow", 2).await?;
    t.gone::<Pod>("slow").await?;
    ensure_stopped(&t, &pod).await
}

async fn a_forced_deletion_still_stops_the_containers(t: Scene) -> anyhow::Result<()> {
    let pod = ready_with_grace(&t, "forced", STUBBORN, 30).await?;
    t.delete_pod_within("forced", 0).await?;
    t.gone::<Pod>("forced").await?;
    let uid = text(&pod, "/metadata/uid").to_owned();
    poll_until("its containers have stopped", PATIENCE, || async {
        let containers = t.cluster.running_containers(&uid).await?;
        let sandboxes = t.cluster.ready_sandboxes(&uid).await?;
        let none = containers.is_empty() && sandboxes.is_empty();
        Ok(if none {
            Ok(())
        } else {
            Err(format!("{containers:?} {sandboxes:?}"))
        })
    })
    .await
}

async fn a_deleted_pod_leaves_nothing_on_the_node(t: Scene) -> anyhow::Result<()> {
    let spec = json!({
        "volumes": [
            { "name": "disk", "emptyDir": {} },
            { "name": "memory", "emptyDir": { "medium": "Memory" } },
        ],
        "containers": [shell("main", FOREVER), shell("side", FOREVER)],
    });
    t.pod("tidy", spec).await?;
    let pod = t
        .pod_until("tidy", "runs", |pod| {
            container(pod, "side")["ready"] == true
        })
        .await?;
    let directory = t.pod_directory(&pod);
    let cgroup = format!("kubepods/besteffort/pod{}", text(&pod, "/metadata/uid"));
    let cgroup = Cgroup::new(&t.cluster, &cgroup);
    ensure!(
        directory.exists() && cgroup.exists() && t.log_directory(&pod).exists(),
        "not there"
    );
    t.delete::<Pod>("tidy").await?;
    t.gone::<Pod>("tidy").await?;
    // These are gone when the object is.
    ensure_stopped(&t, &pod).await?;
    ensure!(!cgroup.exists(), "its cgroup is left");
    let mounts = tokio::fs::read_to_string("/proc/self/mountinfo").await?;
    let below = directory.to_string_lossy();
    ensure!(!mounts.contains(&*below), "mounts are left below {below}");
    // These may take another minute.
    poll_until("its directories are gone", PATIENCE, || async {
        let left = [&directory, &t.log_directory(&pod)].map(|path| path.exists());
        Ok(if left == [false, false] {
            Ok(())
        } else {
            Err(format!("left: {left:?}"))
        })
    })
    .await
}

async fn a_pod_that_never_started_can_be_deleted(t: Scene) -> anyhow::Result<()> {
    let volumes =
        json!([{ "name": "v", "hostPath": { "path": "/does/not/exist", "type": "File" } }]);
    let mut main = shell("main", FOREVER);
    main["volumeMounts"] = json!([{ "name": "v", "mountPath": "/v" }]);
    t.pod("stuck", json!({ "volumes": volumes, "containers": [main] }))
        .await?;
    t.event("stuck", "FailedMount", |_| true).await?;
    t.delete::<Pod>("stuck").await?;
    t.gone::<Pod>("stuck").await?;
    Ok(())
}

async fn a_crash_looping_pod_can_be_deleted(t: Scene) -> anyhow::Result<()> {
    t.pod("crash", json!({ "containers": [shell("main", "exit 1")] }))
        .await?;
    let waits =
        |pod: &Value| text(container(pod, "main"), "/state/waiting/reason") == "CrashLoopBackOff";
    let pod = t.pod_until("crash", "is in back-off", waits).await?;
    t.delete::<Pod>("crash").await?;
    t.gone::<Pod>("crash").await?;
    ensure_stopped(&t, &pod).await
}

async fn a_finished_pod_can_be_deleted(t: Scene) -> anyhow::Result<()> {
    let (pod, _) = t
        .run_to_end("once", json!({ "containers": [shell("main", "true")] }))
        .await?;
    t.delete::<Pod>("once").await?;
    t.gone::<Pod>("once").await?;
    ensure_stopped(&t, &pod).await
}

async fn a_pod_of_the_same_name_follows_a_deleted_one(t: Scene) -> anyhow::Result<()> {
    let mut uids = Vec::new();
    for _ in 0..3 {
        let pod = t
            .ready_pod("again", json!([shell("main", FOREVER)]))
            .await?;
        uids.push(text(&pod, "/metadata/uid").to_owned());
        t.delete::<Pod>("again").await?;
        t.gone::<Pod>("again").await?;
    }
    uids.dedup();
    ensure!(uids.len() == 3, "{uids:?}");
    Ok(())
}

async fn ready_with_grace(
    t: &Scene,
    name: &str,
    script: &str,
    grace: u32,
) -> anyhow::Result<Value> {
    let spec = json!({
        "terminationGracePeriodSeconds": grace,
        "containers": [shell("main", script)],
    });
    t.pod(name, spec).await?;
    t.pod_until(name, "runs", |pod| container(pod, "main")["ready"] == true)
        .await
}

fn is_being_deleted(pod: &Value) -> bool {
    !text(pod, "/metadata/deletionTimestamp").is_empty()
}

/// At this moment no container of the pod runs, and no sandbox of it is ready.
async fn ensure_stopped(t: &Scene, pod: &Value) -> anyhow::Result<()> {
    let uid = text(pod, "/metadata/uid");
    let containers = t.cluster.running_containers(uid).await?;
    ensure!(
        containers.is_empty(),
        "the object is gone and these run: {containers:?}"
    );
    let sandboxes = t.cluster.ready_sandboxes(uid).await?;
    ensure!(
        sandboxes.is_empty(),
        "the object is gone and these are ready: {sandboxes:?}"
    );
    Ok(())
}
