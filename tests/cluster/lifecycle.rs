//! A pod's life: init steps, restarts by policy, back-off, and how it ends.

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::harness::{
    FOREVER, Scene, Test, condition, container, number, shell, tests, text, truth,
};

pub const TESTS: &[Test] = tests!(Shared:
    init_containers_run_in_order_before_the_others,
    a_failed_init_container_ends_the_pod,
    a_pod_that_succeeds_is_succeeded,
    a_pod_that_fails_is_failed,
    on_failure_restarts_until_success,
    a_crashing_container_is_restarted_with_back_off,
    a_container_that_exits_at_once_is_restarted,
    one_crashing_container_leaves_the_other_alone,
    a_killed_container_is_started_again,
    a_pod_that_is_dead_on_its_deadline_fails,
);

async fn init_containers_run_in_order_before_the_others(t: Scene) -> anyhow::Result<()> {
    let step = |name: &str, script: &str| {
        let mut container = shell(name, script);
        container["volumeMounts"] = json!([{ "name": "shared", "mountPath": "/shared" }]);
        container
    };
    let spec = json!({
        "volumes": [{ "name": "shared", "emptyDir": {} }],
        "initContainers": [
            step("first", "echo first >> /shared/steps; sleep 1; echo first done >> /shared/steps"),
            step("second", "echo second >> /shared/steps"),
        ],
        "containers": [step("main", "cat /shared/steps")],
    });
    let (pod, log) = t.run_to_end("steps", spec).await?;
    ensure!(log == "first\nfirst done\nsecond\n", "{log}");
    for name in ["first", "second"] {
        let status = container(&pod, name);
        ensure!(
            text(status, "/state/terminated/reason") == "Completed",
            "{status}"
        );
        ensure!(truth(status, "/ready"), "{status}");
    }
    ensure!(
        text(&pod, "/status/phase") == "Succeeded",
        "{}",
        pod["status"]
    );
    ensure!(
        condition(&pod, "Initialized")["status"] == "True",
        "{}",
        pod["status"]
    );
    Ok(())
}

async fn a_failed_init_container_ends_the_pod(t: Scene) -> anyhow::Result<()> {
    t.pod(
        "stuck",
        json!({
            "restartPolicy": "Never",
            "initContainers": [shell("init", "exit 5"), shell("later", "true")],
            "containers": [shell("main", "true")],
        }),
    )
    .await?;
    let pod = t
        .pod_until("stuck", "has failed", |pod| is_phase(pod, "Failed"))
        .await?;
    ensure!(
        number(container(&pod, "init"), "/state/terminated/exitCode") == 5,
        "{}",
        pod["status"]
    );
    for name in ["later", "main"] {
        let status = container(&pod, name);
        ensure!(
            text(status, "/state/waiting/reason") == "PodInitializing",
            "{status}"
        );
        ensure!(text(status, "/containerID").is_empty(), "{status}");
    }
    ensure!(
        condition(&pod, "Initialized")["status"] == "False",
        "{}",
        pod["status"]
    );
    Ok(())
}

async fn a_pod_that_succeeds_is_succeeded(t: Scene) -> anyhow::Result<()> {
    let spec = json!({ "containers": [shell("main", "echo all well")] });
    let (pod, log) = t.run_to_end("once", spec).await?;
    ensure!(log == "all well\n", "{log}");
    ensure!(is_phase(&pod, "Succeeded"), "{}", pod["status"]);
    let end = &container(&pod, "main")["state"]["terminated"];
    ensure!(
        end["exitCode"] == 0 && end["reason"] == "Completed",
        "{end}"
    );
    ensure!(
        !text(end, "/startedAt").is_empty() && !text(end, "/finishedAt").is_empty(),
        "{end}"
    );
    for kind in ["Ready", "ContainersReady"] {
        let status = condition(&pod, kind);
        ensure!(
            status["status"] == "False" && status["reason"] == "PodCompleted",
            "{status}"
        );
    }
    Ok(())
}

async fn a_pod_that_fails_is_failed(t: Scene) -> anyhow::Result<()> {
    let containers = json!([shell("good", "true"), shell("bad", "exit 3")]);
    let (pod, _) = t
        .run_to_end("once", json!({ "containers": containers }))
        .await?;
    ensure!(is_phase(&pod, "Failed"), "{}", pod["status"]);
    let end = &container(&pod, "bad")["state"]["terminated"];
    ensure!(end["exitCode"] == 3 && end["reason"] == "Error", "{end}");
    ensure!(
        number(container(&pod, "bad"), "/restartCount") == 0,
        "{}",
        pod["status"]
    );
    Ok(())
}

async fn on_failure_restarts_until_success(t: Scene) -> anyhow::Result<()> {
    let mut main = shell(
        "main",
        "test -e /memory/once || { touch /memory/once; exit 1; }",
    );
    main["volumeMounts"] = json!([{ "name": "memory", "mountPath": "/memory" }]);
    let spec = json!({
        "restartPolicy": "OnFailure",
        "volumes": [{ "name": "memory", "emptyDir": {} }],
        "containers": [main],
    });
    let (pod, _) = t.run_to_end("retry", spec).await?;
    ensure!(is_phase(&pod, "Succeeded"), "{}", pod["status"]);
    let status = container(&pod, "main");
    ensure!(number(status, "/restartCount") == 1, "{status}");
    ensure!(
        number(status, "/lastState/terminated/exitCode") == 1,
        "{status}"
    );
    Ok(())
}

async fn a_crashing_container_is_restarted_with_back_off(t: Scene) -> anyhow::Result<()> {
    t.pod(
        "crash",
        json!({ "containers": [shell("main", "echo again; exit 4")] }),
    )
    .await?;
    let waits = |pod: &Value| {
        let status = container(pod, "main");
        number(status, "/restartCount") >= 2
            && text(status, "/state/waiting/reason") == "CrashLoopBackOff"
    };
    let pod = t
        .pod_until("crash", "waits in CrashLoopBackOff", waits)
        .await?;
    let status = container(&pod, "main");
    let name = format!("crash_{}({})", t.namespace, text(&pod, "/metadata/uid"));
    let message = format!("restarting failed container=main pod={name}");
    let shown = text(status, "/state/waiting/message");
    ensure!(
        shown.starts_with("back-off ") && shown.ends_with(&message),
        "{shown}"
    );
    let end = &status["lastState"]["terminated"];
    ensure!(end["exitCode"] == 4 && end["reason"] == "Error", "{status}");
    ensure!(
        !truth(status, "/ready") && !truth(status, "/started"),
        "{status}"
    );
    ensure!(is_phase(&pod, "Running"), "{}", pod["status"]);
    let message = format!("Back-off restarting failed container main in pod {name}");
    let event = t
        .event("crash", "BackOff", |shown| shown == message)
        .await?;
    ensure!(event["type"] == "Warning", "{event}");
    Ok(())
}

async fn a_container_that_exits_at_once_is_restarted(t: Scene) -> anyhow::Result<()> {
    t.pod("brief", json!({ "containers": [shell("main", "true")] }))
        .await?;
    let restarted = |pod: &Value| number(container(pod, "main"), "/restartCount") >= 1;
    let pod = t.pod_until("brief", "was restarted", restarted).await?;
    let end = &container(&pod, "main")["lastState"]["terminated"];
    ensure!(
        end["exitCode"] == 0 && end["reason"] == "Completed",
        "{end}"
    );
    Ok(())
}

async fn one_crashing_container_leaves_the_other_alone(t: Scene) -> anyhow::Result<()> {
    let containers = json!([shell("good", FOREVER), shell("bad", "sleep 1; exit 1")]);
    t.pod("mixed", json!({ "containers": containers })).await?;
    let crashed = |pod: &Value| number(container(pod, "bad"), "/restartCount") >= 2;
    let pod = t
        .pod_until("mixed", "has restarted the bad one", crashed)
        .await?;
    let good = container(&pod, "good");
    ensure!(
        number(good, "/restartCount") == 0 && truth(good, "/ready"),
        "{good}"
    );
    ensure!(
        condition(&pod, "Ready")["status"] == "False" || truth(container(&pod, "bad"), "/ready"),
        "{}",
        pod["status"]
    );
    Ok(())
}

async fn a_killed_container_is_started_again(t: Scene) -> anyhow::Result<()> {
    let pod = t
        .ready_pod("victim", json!([shell("main", FOREVER)]))
        .await?;
    let id = container_id(&pod, "main")?;
    let ctr = t.cluster.fact("CTR").to_owned();
    t.cluster
        .exec([&ctr, "task", "kill", "--signal", "SIGKILL", id])
        .await?;
    let again = |pod: &Value| {
        let status = container(pod, "main");
        number(status, "/restartCount") == 1 && truth(status, "/ready")
    };
    let after = t.pod_until("victim", "runs again", again).await?;
    let end = &container(&after, "main")["lastState"]["terminated"];
    ensure!(end["exitCode"] == 137 && end["reason"] == "Error", "{end}");
    ensure!(text(end, "/containerID").ends_with(id), "{end}");
    ensure!(
        text(&after, "/status/podIP") == text(&pod, "/status/podIP"),
        "another sandbox"
    );
    Ok(())
}

async fn a_pod_that_is_dead_on_its_deadline_fails(t: Scene) -> anyhow::Result<()> {
    let spec = json!({ "activeDeadlineSeconds": 3, "containers": [shell("main", FOREVER)] });
    t.pod("late", spec).await?;
    let pod = t
        .pod_until("late", "has failed", |pod| is_phase(pod, "Failed"))
        .await?;
    ensure!(
        text(&pod, "/status/reason") == "DeadlineExceeded",
        "{}",
        pod["status"]
    );
    let uid = text(&pod, "/metadata/uid");
    ensure!(
        t.cluster.running_containers(uid).await?.is_empty(),
        "a container still runs"
    );
    Ok(())
}

fn is_phase(pod: &Value, phase: &str) -> bool {
    text(pod, "/status/phase") == phase
}

/// The containerd ID of a pod's container.
pub fn container_id<'a>(pod: &'a Value, name: &str) -> anyhow::Result<&'a str> {
    let id = text(container(pod, name), "/containerID");
    id.strip_prefix("containerd://")
        .with_context(|| format!("{name} has no ID: {}", pod["status"]))
}
