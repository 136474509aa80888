//! Restartable init containers: when they start, that they stay, and that they keep no
//! pod alive.

use anyhow::ensure;
use serde_json::{Value, json};

use crate::harness::{
    FOREVER, Scene, Test, condition, container, is_ready, number, shell, tests, text, truth,
};

pub const TESTS: &[Test] = tests!(Shared:
    a_sidecar_runs_before_what_follows_it,
    what_follows_a_sidecar_waits_for_its_startup_probe,
    a_sidecar_does_not_keep_a_finished_pod_alive,
    a_sidecar_that_exits_is_restarted_whatever_the_policy,
    a_sidecar_counts_for_readiness,
);

fn sidecar(name: &str, script: &str) -> Value {
    let mut container = shell(name, script);
    container["restartPolicy"] = "Always".into();
    container["volumeMounts"] = json!([{ "name": "shared", "mountPath": "/shared" }]);
    container
}

fn step(name: &str, script: &str) -> Value {
    let mut container = shell(name, script);
    container["volumeMounts"] = json!([{ "name": "shared", "mountPath": "/shared" }]);
    container
}

fn shared() -> Value {
    json!([{ "name": "shared", "emptyDir": {} }])
}

async fn a_sidecar_runs_before_what_follows_it(t: Scene) -> anyhow::Result<()> {
    let helper = format!("echo up > /shared/helper; {FOREVER}");
    let wait = "until test -e /shared/helper; do usleep 50000; done; echo done >> /shared/steps";
    let spec = json!({
        "volumes": shared(),
        "initContainers": [sidecar("helper", &helper), step("setup", wait)],
        "containers": [step("main", "cat /shared/helper /shared/steps")],
    });
    let (pod, log) = t.run_to_end("ordered", spec).await?;
    ensure!(log == "up\ndone\n", "{log}");
    ensure!(
        text(&pod, "/status/phase") == "Succeeded",
        "{}",
        pod["status"]
    );
    Ok(())
}

async fn what_follows_a_sidecar_waits_for_its_startup_probe(t: Scene) -> anyhow::Result<()> {
    let mut helper = sidecar("helper", FOREVER);
    helper["startupProbe"] = json!({
        "exec": { "command": ["test", "-e", "/shared/go"] },
        "periodSeconds": 1, "failureThreshold": 600,
    });
    let spec = json!({
        "volumes": shared(),
        "initContainers": [helper],
        "containers": [step("main", FOREVER)],
    });
    t.pod("gated", spec).await?;
    let helper_runs = |pod: &Value| container(pod, "helper")["state"]["running"].is_object();
    let pod = t
        .pod_until("gated", "runs its sidecar", helper_runs)
        .await?;
    let helper = container(&pod, "helper");
    ensure!(!truth(helper, "/started"), "{helper}");
    ensure!(
        text(container(&pod, "main"), "/state/waiting/reason") == "PodInitializing",
        "{}",
        pod["status"]
    );
    ensure!(
        text(&pod, "/status/phase") == "Pending",
        "{}",
        pod["status"]
    );
    let initialized = condition(&pod, "Initialized");
    ensure!(
        initialized["status"] == "False"
            && text(initialized, "/message") == "containers with incomplete status: [helper]",
        "{initialized}"
    );
    t.kubectl(&["exec", "gated", "-c", "helper", "--", "touch", "/shared/go"])
        .await?
        .text()?;
    let pod = t.pod_until("gated", "is ready", is_ready).await?;
    ensure!(truth(container(&pod, "helper"), "/started"), "{pod}");
    Ok(())
}

async fn a_sidecar_does_not_keep_a_finished_pod_alive(t: Scene) -> anyhow::Result<()> {
    let spec = json!({
        "volumes": shared(),
        "initContainers": [sidecar("helper", FOREVER)],
        "containers": [shell("main", "echo worked")],
    });
    let (pod, log) = t.run_to_end("job", spec).await?;
    ensure!(log == "worked\n", "{log}");
    ensure!(
        text(&pod, "/status/phase") == "Succeeded",
        "{}",
        pod["status"]
    );
    let helper = container(&pod, "helper");
    ensure!(helper["state"]["terminated"].is_object(), "{helper}");
    Ok(())
}

async fn a_sidecar_that_exits_is_restarted_whatever_the_policy(t: Scene) -> anyhow::Result<()> {
    let brief = format!("test -e /shared/once && {{ {FOREVER}; }}; touch /shared/once; exit 3");
    let spec = json!({
        "restartPolicy": "Never",
        "volumes": shared(),
        "initContainers": [sidecar("helper", &brief)],
        "containers": [shell("main", FOREVER)],
    });
    t.pod("steady", spec).await?;
    let restarted = |pod: &Value| {
        let helper = container(pod, "helper");
        number(helper, "/restartCount") == 1 && truth(helper, "/ready") && is_ready(pod)
    };
    let pod = t
        .pod_until("steady", "has its sidecar back", restarted)
        .await?;
    let helper = container(&pod, "helper");
    ensure!(
        number(helper, "/lastState/terminated/exitCode") == 3,
        "{helper}"
    );
    ensure!(
        number(container(&pod, "main"), "/restartCount") == 0,
        "{}",
        pod["status"]
    );
    Ok(())
}

async fn a_sidecar_counts_for_readiness(t: Scene) -> anyhow::Result<()> {
    let mut helper = sidecar("helper", FOREVER);
    helper["readinessProbe"] = json!({
        "exec": { "command": ["test", "-e", "/shared/ready"] }, "periodSeconds": 1,
    });
    let spec = json!({
        "volumes": shared(),
        "initContainers": [helper],
        "containers": [shell("main", FOREVER)],
    });
    t.pod("counted", spec).await?;
    let main_is_ready = |pod: &Value| truth(container(pod, "main"), "/ready");
    let pod = t.pod_until("counted", "runs main", main_is_ready).await?;
    let ready = condition(&pod, "ContainersReady");
    ensure!(
        text(ready, "/message") == "containers with unready status: [helper]",
        "{ready}"
    );
    t.kubectl(&[
        "exec",
        "counted",
        "-c",
        "helper",
        "--",
        "touch",
        "/shared/ready",
    ])
    .await?
    .text()?;
    t.pod_until("counted", "is ready", is_ready).await?;
    Ok(())
}
