//! The node agent stopped and killed: containers run on, and the next agent takes them up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use super::{Standing, identity, node_becomes, pod_is_gone, pod_is_ready, start_pod};
use crate::harness::{FOREVER, Scene, Test, container, has_ended, number, shell, tests, text};

pub const TESTS: &[Test] = tests!(Own:
    kills_at_random_moments_break_nothing,
    a_restart_leaves_pods_untouched,
    crash_back_off_survives_a_restart,
);

async fn a_restart_leaves_pods_untouched(t: Scene) -> anyhow::Result<()> {
    let standing = Standing::start(&t, &["stays", "stays-too"]).await?;
    let spec =
        json!({ "containers": [shell("main", "echo last words > /dev/termination-log; exit 3")] });
    let (ended, _) = t.run_to_end("ended", spec).await?;
    let mut restarted = shell(
        "main",
        &format!("test -e /v/f || {{ touch /v/f; exit 9; }}; {FOREVER}"),
    );
    restarted["volumeMounts"] = json!([{ "name": "v", "mountPath": "/v" }]);
    let volumes = json!([{ "name": "v", "emptyDir": {} }]);
    t.pod(
        "restarted",
        json!({ "volumes": volumes, "containers": [restarted] }),
    )
    .await?;
    let once = |pod: &Value| {
        number(container(pod, "main"), "/restartCount") == 1 && crate::harness::is_ready(pod)
    };
    let restarted = t.pod_until("restarted", "was restarted once", once).await?;

    for action in ["stop", "kill"] {
        t.cluster.ctl(action, "kubelet").await?;
        let uid = text(&restarted, "/metadata/uid");
        let running = t.cluster.running_containers(uid).await?;
        ensure!(running.len() == 1, "without the agent: {running:?}");
        t.cluster.ctl("start", "kubelet").await?;
        // Once a new pod runs, the agent has had a look at the old ones.
        let fresh = format!("after-{action}");
        start_pod(&t, &fresh).await?;
        pod_is_ready(&t, &fresh).await?;
        standing.ensure_untouched(&t).await?;
        for before in [&ended, &restarted] {
            let after = t.get::<Pod>(text(before, "/metadata/name")).await?;
            ensure!(
                identity(&after) == identity(before),
                "{} was {}",
                after["status"],
                before["status"]
            );
            ensure!(
                after["status"]["phase"] == before["status"]["phase"],
                "{}",
                after["status"]
            );
        }
    }
    Ok(())
}

async fn crash_back_off_survives_a_restart(t: Scene) -> anyhow::Result<()> {
    t.pod("crash", json!({ "containers": [shell("main", "exit 1")] }))
        .await?;
    let waits = |restarts: i64| {
        move |pod: &Value| {
            let status = container(pod, "main");
            number(status, "/restartCount") == restarts
                && text(status, "/state/waiting/reason") == "CrashLoopBackOff"
        }
    };
    let before = t
        .pod_until("crash", "has crashed three times", waits(2))
        .await?;
    t.cluster.ctl("kill", "kubelet").await?;
    t.cluster.ctl("start", "kubelet").await?;
    let after = t
        .pod_until("crash", "has crashed four times", waits(3))
        .await?;
    let time = |pod: &Value, field: &str| -> anyhow::Result<jiff::Timestamp> {
        let path = format!("/lastState/terminated/{field}");
        let text = text(container(pod, "main"), &path);
        text.parse().with_context(|| format!("{path} is '{text}'"))
    };
    let pause = time(&after, "startedAt")?.duration_since(time(&before, "finishedAt")?);
    // 20 s, less the second that the times in a status are cut to.
    ensure!(pause.as_secs() >= 19, "started again after {pause}");
    Ok(())
}

/// How often the agent is killed.
const KILLS: u32 = 50;
/// Where pods come and go at once meanwhile.
const SLOTS: u32 = 2;

async fn kills_at_random_moments_break_nothing(t: Scene) -> anyhow::Result<()> {
    let seed = rand::random::<u64>();
    let standing = Standing::start(&t, &["a", "b", "c", "d"]).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let churn = try_join_all((0..SLOTS).map(|slot| come_and_go(&t, slot, seed, stop.clone())));
    let kill = async {
        let outcome = kill_at_random(&t, seed).await;
        stop.store(true, Ordering::Relaxed);
        outcome
    };
    let (churned, killed) = tokio::join!(churn, kill);
    killed.with_context(|| format!("seed {seed}"))?;
    let ran: Vec<String> = churned.with_context(|| format!("seed {seed}"))?.concat();
    converged(&t, &standing, &ran)
        .await
        .with_context(|| format!("seed {seed}"))
}

async fn kill_at_random(t: &Scene, seed: u64) -> anyhow::Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..KILLS {
        t.cluster.ctl("kill", "kubelet").await?;
        let life = Duration::from_millis(random.random_range(100..2500));
        let (_, killed) = tokio::join!(
            // It complains, as the agent ends while it waits for it to become ready.
            t.cluster.ctl("start", "kubelet"),
            async {
                tokio::time::sleep(life).await;
                t.cluster.ctl("kill", "kubelet").await
            }
        );
        killed?;
    }
    t.cluster.ctl("start", "kubelet").await.map(drop)
}

/// Makes pods and deletes them until told to stop; gives the names of those that run once.
async fn come_and_go(
    t: &Scene,
    slot: u32,
    seed: u64,
    stop: Arc<AtomicBool>,
) -> anyhow::Result<Vec<String>> {
    let mut random = StdRng::seed_from_u64(seed.wrapping_add(u64::from(slot)));
    let mut ran = Vec::new();
    let directory = t.host_directory().await?;
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let pause = Duration::from_millis(random.random_range(0..4000));
        if random.random_bool(0.5) {
            let name = format!("once-{slot}-{number}");
            let mut main = shell("main", &format!("echo ran >> /v/{name}"));
            main["volumeMounts"] = json!([{ "name": "v", "mountPath": "/v" }]);
            let volumes = json!([{ "name": "v", "hostPath": { "path": directory } }]);
            let spec = json!({
                "restartPolicy": "Never",
                "volumes": volumes,
                "containers": [main],
            });
            t.pod(&name, spec).await?;
            ran.push(name);
            tokio::time::sleep(pause).await;
        } else {
            let name = format!("brief-{slot}-{number}");
            start_pod(t, &name).await?;
            tokio::time::sleep(pause).await;
            t.delete::<Pod>(&name).await?;
        }
    }
    Ok(ran)
}

/// Whether the container's start was cut short: containerd gives up a start whose caller
/// has died, and with restart policy Never that is the pod's end.
fn cut_short(pod: &Value) -> bool {
    let end = &container(pod, "main")["state"]["terminated"];
    end["reason"] == "StartError" && end["exitCode"] == 128
}

/// Everything is as it should be after the last start of the agent. A pod that runs once
/// has appended a line to its file each time it really ran.
async fn converged(t: &Scene, standing: &Standing, ran: &[String]) -> anyhow::Result<()> {
    node_becomes(t, "True").await?;
    start_pod(t, "last").await?;
    pod_is_ready(t, "last").await?;
    let no_brief_ones = |pods: &[&Value]| {
        !pods
            .iter()
            .any(|pod| text(pod, "/metadata/name").starts_with("brief-"))
    };
    t.all_until::<Pod>("", "no deleted pod is left", no_brief_ones)
        .await?;
    let directory = t.host_directory().await?;
    for name in ran {
        let pod = t.pod_until(name, "has ended", has_ended).await?;
        // There is no file if it never ran.
        let lines = tokio::fs::read_to_string(directory.join(name))
            .await
            .unwrap_or_default();
        let times = lines.lines().count();
        let succeeded = text(&pod, "/status/phase") == "Succeeded" && times == 1;
        ensure!(
            succeeded || (cut_short(&pod) && times <= 1),
            "{name} ran {times} times: {}",
            pod["status"]
        );
    }
    standing.ensure_untouched(t).await?;
    for name in ran {
        t.delete::<Pod>(name).await?;
    }
    for name in ran {
        pod_is_gone(t, name).await?;
    }
    let ready = t.cluster.crictl(&["pods", "--state", "ready"]).await?;
    // The standing pods and the last one.
    ensure!(
        ready.len() == standing.pods.len() + 1,
        "sandboxes: {ready:?}"
    );
    Ok(())
}
