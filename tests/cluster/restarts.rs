//! Containers' own restart policies and rules, readiness gates, and ephemeral containers:
//! what a pod's containers do that the pod's own policy does not say.

use anyhow::ensure;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use crate::harness::{
    BUSYBOX, FOREVER, Scene, Test, condition, container, is_ready, number, shell, tests, text,
};

pub const TESTS: &[Test] = tests!(Shared:
    a_containers_own_policy_comes_before_the_pods,
    a_rule_restarts_after_the_exit_codes_it_names,
    a_rule_restarts_all_containers,
    a_readiness_gate_holds_back_readiness,
    an_ephemeral_container_joins_a_running_pod,
    an_ephemeral_container_runs_once,
);

/// The pod's scratch volume, mounted at `/shared`.
fn sharing(mut container: Value) -> Value {
    container["volumeMounts"] = json!([{ "name": "shared", "mountPath": "/shared" }]);
    container
}

fn rule(action: &str, code: i32) -> Value {
    json!({ "action": action, "exitCodes": { "operator": "In", "values": [code] } })
}

async fn a_containers_own_policy_comes_before_the_pods(t: Scene) -> anyhow::Result<()> {
    let mut once = shell("once", "exit 6");
    once["restartPolicy"] = "Never".into();
    let spec = json!({ "containers": [once, shell("main", FOREVER)] });
    t.pod("own", spec).await?;
    let ended = |pod: &Value| container(pod, "once")["state"]["terminated"].is_object();
    let pod = t.pod_until("own", "has one container ended", ended).await?;
    ensure!(
        number(container(&pod, "once"), "/state/terminated/exitCode") == 6,
        "{}",
        pod["status"]
    );
    ensure!(
        number(container(&pod, "once"), "/restartCount") == 0,
        "{}",
        pod["status"]
    );
    Ok(())
}

async fn a_rule_restarts_after_the_exit_codes_it_names(t: Scene) -> anyhow::Result<()> {
    let script = "test -e /shared/once && exit 5; touch /shared/once; exit 42";
    let mut main = sharing(shell("main", script));
    main["restartPolicy"] = "Never".into();
    main["restartPolicyRules"] = json!([rule("Restart", 42)]);
    let spec = json!({
        "restartPolicy": "Never",
        "volumes": [{ "name": "shared", "emptyDir": {} }],
        "containers": [main],
    });
    let (pod, _) = t.run_to_end("ruled", spec).await?;
    let main = container(&pod, "main");
    ensure!(number(main, "/restartCount") == 1, "{main}");
    ensure!(
        number(main, "/lastState/terminated/exitCode") == 42,
        "{main}"
    );
    ensure!(number(main, "/state/terminated/exitCode") == 5, "{main}");
    ensure!(text(&pod, "/status/phase") == "Failed", "{}", pod["status"]);
    Ok(())
}

async fn a_rule_restarts_all_containers(t: Scene) -> anyhow::Result<()> {
    let script = format!("test -e /shared/once && {{ {FOREVER}; }}; touch /shared/once; exit 42");
    let mut main = sharing(shell("main", &script));
    main["restartPolicy"] = "Never".into();
    main["restartPolicyRules"] = json!([rule("RestartAllContainers", 42)]);
    let spec = json!({
        "restartPolicy": "Never",
        "volumes": [{ "name": "shared", "emptyDir": {} }],
        "initContainers": [sharing(shell("setup", "echo again >> /shared/setups"))],
        "containers": [main, sharing(shell("other", FOREVER))],
    });
    t.pod("together", spec).await?;
    let restarted = |pod: &Value| {
        let counts = ["setup", "main", "other"].map(|c| number(container(pod, c), "/restartCount"));
        counts == [1, 1, 1] && is_ready(pod)
    };
    let pod = t
        .pod_until("together", "has restarted all its containers", restarted)
        .await?;
    ensure!(
        condition(&pod, "AllContainersRestarting")["status"] == "False",
        "{}",
        pod["status"]
    );
    let setups = t
        .kubectl(&[
            "exec",
            "together",
            "-c",
            "other",
            "--",
            "cat",
            "/shared/setups",
        ])
        .await?
        .text()?;
    ensure!(setups == "again\nagain\n", "{setups}");
    Ok(())
}

async fn a_readiness_gate_holds_back_readiness(t: Scene) -> anyhow::Result<()> {
    let spec = json!({
        "readinessGates": [{ "conditionType": "example.com/open" }],
        "containers": [shell("main", FOREVER)],
    });
    t.pod("guarded", spec).await?;
    let is_up = |pod: &Value| condition(pod, "ContainersReady")["status"] == "True";
    let pod = t
        .pod_until("guarded", "has its containers ready", is_up)
        .await?;
    let ready = condition(&pod, "Ready");
    ensure!(
        ready["status"] == "False"
            && ready["reason"] == "ReadinessGatesNotReady"
            && text(ready, "/message")
                == "corresponding condition of pod readiness gate \"example.com/open\" does not exist.",
        "{ready}"
    );
    let gate = json!({ "status": { "conditions": [
        { "type": "example.com/open", "status": "True" },
    ] } });
    let api: Api<Pod> = Api::namespaced(t.cluster.client.clone(), &t.namespace);
    api.patch_status("guarded", &PatchParams::default(), &Patch::Strategic(gate))
        .await?;
    t.pod_until("guarded", "is ready", is_ready).await?;
    Ok(())
}

/// Adds an ephemeral container to a pod, as kubectl debug does.
async fn debug(t: &Scene, pod: &str, container: Value) -> anyhow::Result<()> {
    let api: Api<Pod> = Api::namespaced(t.cluster.client.clone(), &t.namespace);
    let patch = json!({ "spec": { "ephemeralContainers": [container] } });
    api.patch_ephemeral_containers(pod, &PatchParams::default(), &Patch::Strategic(patch))
        .await?;
    Ok(())
}

fn ephemeral<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let statuses = pod["status"]["ephemeralContainerStatuses"].as_array();
    let mut named = statuses.into_iter().flatten().filter(|s| s["name"] == name);
    named.next().unwrap_or(&Value::Null)
}

async fn an_ephemeral_container_joins_a_running_pod(t: Scene) -> anyhow::Result<()> {
    let script = format!("echo $$ is main; {FOREVER}");
    t.ready_pod("p", json!([shell("main", &script)])).await?;
    let mut tools = shell("tools", &format!("echo looking; {FOREVER}"));
    tools["targetContainerName"] = "main".into();
    debug(&t, "p", tools).await?;
    let runs = |pod: &Value| ephemeral(pod, "tools")["state"]["running"].is_object();
    let pod = t
        .pod_until("p", "runs its ephemeral container", runs)
        .await?;
    ensure!(
        text(ephemeral(&pod, "tools"), "/image").contains("busybox"),
        "{}",
        pod["status"]
    );
    ensure!(is_ready(&pod), "{}", pod["status"]);
    // The target's first process is the first one here, too.
    let ran = t
        .kubectl(&["exec", "p", "-c", "tools", "--", "cat", "/proc/1/cmdline"])
        .await?
        .text()?;
    ensure!(ran.contains("is main"), "{ran:?}");
    let log = t.log_until(&pod, "tools", "looking").await?;
    ensure!(log == "looking\n", "{log}");
    let told = t.kubectl(&["logs", "p", "-c", "tools"]).await?.text()?;
    ensure!(told == "looking\n", "{told}");
    Ok(())
}

async fn an_ephemeral_container_runs_once(t: Scene) -> anyhow::Result<()> {
    t.ready_pod("p", json!([shell("main", FOREVER)])).await?;
    let failing = json!({
        "name": "brief", "image": BUSYBOX, "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", "exit 9"],
    });
    debug(&t, "p", failing).await?;
    let ended = |pod: &Value| ephemeral(pod, "brief")["state"]["terminated"].is_object();
    let pod = t
        .pod_until("p", "has ended its ephemeral container", ended)
        .await?;
    let brief = ephemeral(&pod, "brief");
    ensure!(number(brief, "/state/terminated/exitCode") == 9, "{brief}");
    // A second one comes and goes; the first one stays as it is.
    debug(&t, "p", shell("later", "true")).await?;
    let ended = |pod: &Value| ephemeral(pod, "later")["state"]["terminated"].is_object();
    let pod = t.pod_until("p", "has ended the second one", ended).await?;
    let brief = ephemeral(&pod, "brief");
    ensure!(
        number(brief, "/restartCount") == 0 && number(brief, "/state/terminated/exitCode") == 9,
        "{brief}"
    );
    ensure!(is_ready(&pod), "{}", pod["status"]);
    Ok(())
}
