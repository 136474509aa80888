//! Probes: what restarts a container, what makes a pod ready, and what people are told.

use anyhow::ensure;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::harness::{
    AGNHOST, FOREVER, Scene, Test, condition, container, is_ready, number, shell, tests, text,
    truth,
};

pub const TESTS: &[Test] = tests!(Shared:
    a_command_that_fails_restarts_the_container,
    a_command_that_succeeds_restarts_nothing,
    a_command_that_takes_too_long_is_killed_and_fails,
    a_command_knows_the_containers_literal_variables,
    a_web_server_that_turns_bad_is_restarted,
    a_web_server_is_asked_by_port_name_path_and_query,
    a_port_that_nobody_listens_on_restarts_the_container,
    a_port_that_somebody_listens_on_is_alive,
    a_grpc_service_is_asked_for_its_health,
    readiness_comes_and_goes_without_restarts,
    nothing_is_probed_before_the_start_is_over,
    a_start_that_fails_restarts_the_container,
    the_initial_delay_is_waited_for,
    a_redirect_on_the_same_host_is_followed,
    a_redirect_to_another_host_passes_with_a_warning,
    a_probe_has_a_grace_period_of_its_own,
    a_pod_that_ends_is_not_killed_by_its_probe,
);

/// A shell with a probe of its own.
fn probed(kind: &str, script: &str, probe: Value) -> Value {
    let mut container = shell("main", script);
    container[kind] = probe;
    container
}

/// Often, so that the test is short, and with time enough on a busy machine.
fn every_second(mut handler: Value) -> Value {
    handler["periodSeconds"] = 1.into();
    handler["timeoutSeconds"] = 10.into();
    handler
}

fn run(script: &str) -> Value {
    every_second(json!({ "exec": { "command": ["sh", "-c", script] }, "failureThreshold": 1 }))
}

fn agnhost(args: &[&str]) -> Value {
    json!({
        "name": "main", "image": AGNHOST, "imagePullPolicy": "IfNotPresent", "args": args,
        "ports": [{ "name": "web", "containerPort": 8080 }],
    })
}

fn lives(pod: &Value) -> i64 {
    number(container(pod, "main"), "/restartCount")
}

async fn restarted(t: &Scene, name: &str) -> anyhow::Result<Value> {
    t.pod_until(name, "is restarted", |pod| lives(pod) > 0)
        .await
}

/// Waits until the container has run for so long, and tells that it never ended.
async fn outlives(t: &Scene, name: &str, seconds: i64) -> anyhow::Result<()> {
    let begun = Timestamp::now();
    crate::harness::poll_until("a few periods", crate::harness::PATIENCE, async || {
        Ok(
            (Timestamp::now().duration_since(begun).as_secs() >= seconds)
                .then_some(())
                .ok_or_else(|| "not yet".to_owned()),
        )
    })
    .await?;
    let pod = t.get::<Pod>(name).await?;
    ensure!(lives(&pod) == 0, "{}", pod["status"]);
    Ok(())
}

async fn a_command_that_fails_restarts_the_container(t: Scene) -> anyhow::Result<()> {
    let script = format!("touch /tmp/well; (sleep 3; rm /tmp/well) & {FOREVER}");
    let container = probed(
        "livenessProbe",
        &script,
        run("ls /tmp/well; test -e /tmp/well"),
    );
    t.pod("sick", json!({ "containers": [container] })).await?;
    restarted(&t, "sick").await?;
    let event = t
        .event("sick", "Unhealthy", |message| {
            message.starts_with("Liveness probe failed: ls: /tmp/well")
        })
        .await?;
    ensure!(event["type"] == "Warning", "{event}");
    let field = text(&event, "/involvedObject/fieldPath");
    ensure!(field == "spec.containers{main}", "{event}");
    let message = "Container main failed liveness probe, will be restarted";
    t.event("sick", "Killing", |told| told == message).await?;
    Ok(())
}

async fn a_command_that_succeeds_restarts_nothing(t: Scene) -> anyhow::Result<()> {
    let container = probed("livenessProbe", FOREVER, run("true"));
    t.ready_pod("well", json!([container])).await?;
    outlives(&t, "well", 4).await
}

async fn a_command_that_takes_too_long_is_killed_and_fails(t: Scene) -> anyhow::Result<()> {
    let mut container = probed("livenessProbe", FOREVER, run("sleep 600"));
    container["livenessProbe"]["timeoutSeconds"] = 1.into();
    t.pod("slow", json!({ "containers": [container] })).await?;
    t.event("slow", "Unhealthy", |message| {
        message.starts_with("Liveness probe failed: command timed out")
    })
    .await?;
    restarted(&t, "slow").await?;
    Ok(())
}

async fn a_command_knows_the_containers_literal_variables(t: Scene) -> anyhow::Result<()> {
    let mut container = probed(
        "readinessProbe",
        FOREVER,
        every_second(json!({ "exec": { "command": ["test", "$(GREETING)", "=", "hello"] } })),
    );
    container["env"] = json!([{ "name": "GREETING", "value": "hello" }]);
    t.ready_pod("told", json!([container])).await?;
    Ok(())
}

/// `agnhost liveness` answers 200 for ten seconds, and 500 from then on.
async fn a_web_server_that_turns_bad_is_restarted(t: Scene) -> anyhow::Result<()> {
    let mut main = agnhost(&["liveness"]);
    main["livenessProbe"] = every_second(json!({
        "httpGet": { "path": "/healthz", "port": "web" }, "failureThreshold": 2,
    }));
    // The container has this long to come up.
    main["livenessProbe"]["initialDelaySeconds"] = 5.into();
    t.pod("bad", json!({ "containers": [main] })).await?;
    let pod = restarted(&t, "bad").await?;
    let last = container(&pod, "main");
    ensure!(
        !text(last, "/lastState/terminated/reason").is_empty(),
        "{last}"
    );
    let message = "Liveness probe failed: HTTP probe failed with statuscode: 500";
    t.event("bad", "Unhealthy", |told| told == message).await?;
    Ok(())
}

async fn a_web_server_is_asked_by_port_name_path_and_query(t: Scene) -> anyhow::Result<()> {
    let mut main = agnhost(&["netexec", "--http-port=8080"]);
    main["readinessProbe"] = every_second(json!({ "httpGet": {
        "path": "/echo?msg=unwell&code=503", "port": "web",
    }}));
    t.pod("asked", json!({ "containers": [main.clone()] }))
        .await?;
    let message = "Readiness probe failed: HTTP probe failed with statuscode: 503";
    t.event("asked", "Unhealthy", |told| told == message)
        .await?;
    main["readinessProbe"]["httpGet"]["path"] = "/echo?msg=well&code=202".into();
    t.ready_pod("answered", json!([main])).await?;
    Ok(())
}

async fn a_port_that_nobody_listens_on_restarts_the_container(t: Scene) -> anyhow::Result<()> {
    let probe = json!({ "tcpSocket": { "port": 9 }, "failureThreshold": 2 });
    let container = probed("livenessProbe", FOREVER, every_second(probe));
    t.pod("deaf", json!({ "containers": [container] })).await?;
    t.event("deaf", "Unhealthy", |message| {
        message.starts_with("Liveness probe failed: dial tcp ") && message.contains("refused")
    })
    .await?;
    restarted(&t, "deaf").await?;
    Ok(())
}

async fn a_port_that_somebody_listens_on_is_alive(t: Scene) -> anyhow::Result<()> {
    let mut main = agnhost(&["netexec", "--http-port=8080"]);
    main["readinessProbe"] = every_second(json!({ "tcpSocket": { "port": "web" } }));
    main["livenessProbe"] = every_second(json!({
        "tcpSocket": { "port": 8080 }, "initialDelaySeconds": 2, "failureThreshold": 5,
    }));
    t.ready_pod("open", json!([main])).await?;
    outlives(&t, "open", 9).await
}

async fn a_grpc_service_is_asked_for_its_health(t: Scene) -> anyhow::Result<()> {
    let mut good = agnhost(&["grpc-health-checking", "--port=5000", "--http-port=8080"]);
    good["readinessProbe"] = every_second(json!({ "grpc": { "port": 5000 } }));
    t.ready_pod("good", json!([good.clone()])).await?;
    good["livenessProbe"] = every_second(json!({
        "grpc": { "port": 5001 }, "failureThreshold": 2, "initialDelaySeconds": 1,
    }));
    t.pod("bad", json!({ "containers": [good] })).await?;
    restarted(&t, "bad").await?;
    t.event("bad", "Unhealthy", |message| {
        message.starts_with("Liveness probe failed: ") && message.contains("connect service")
    })
    .await?;
    Ok(())
}

async fn readiness_comes_and_goes_without_restarts(t: Scene) -> anyhow::Result<()> {
    // It is ready from its third second to its eighth.
    let script = format!("(sleep 3; touch /tmp/ready; sleep 5; rm /tmp/ready) & {FOREVER}");
    let container = probed("readinessProbe", &script, run("test -e /tmp/ready"));
    t.pod("flips", json!({ "containers": [container] })).await?;
    let unready = |pod: &Value| {
        let main = crate::harness::container(pod, "main");
        !main["state"]["running"].is_null() && !truth(main, "/ready")
    };
    let pod = t
        .pod_until("flips", "runs and is not ready", unready)
        .await?;
    let reason = text(condition(&pod, "Ready"), "/reason");
    ensure!(reason == "ContainersNotReady", "{}", pod["status"]);
    t.pod_until("flips", "is ready", is_ready).await?;
    let pod = t.pod_until("flips", "is unready again", unready).await?;
    ensure!(lives(&pod) == 0, "{}", pod["status"]);
    Ok(())
}

async fn nothing_is_probed_before_the_start_is_over(t: Scene) -> anyhow::Result<()> {
    let script = format!("(sleep 4; touch /tmp/started) & {FOREVER}");
    let mut main = probed("startupProbe", &script, run("test -e /tmp/started"));
    main["startupProbe"]["failureThreshold"] = 60.into();
    // Both would say no before.
    main["livenessProbe"] = run("test -e /tmp/started");
    main["readinessProbe"] = run("test -e /tmp/started");
    t.pod("starts", json!({ "containers": [main] })).await?;
    let pod = t
        .pod_until("starts", "runs and has not started", |pod| {
            !container(pod, "main")["state"]["running"].is_null()
        })
        .await?;
    ensure!(
        !truth(container(&pod, "main"), "/started"),
        "{}",
        pod["status"]
    );
    let pod = t.pod_until("starts", "is ready", is_ready).await?;
    ensure!(
        truth(container(&pod, "main"), "/started"),
        "{}",
        pod["status"]
    );
    ensure!(lives(&pod) == 0, "{}", pod["status"]);
    Ok(())
}

async fn a_start_that_fails_restarts_the_container(t: Scene) -> anyhow::Result<()> {
    let container = probed("startupProbe", FOREVER, run("false"));
    t.pod("never", json!({ "containers": [container] })).await?;
    restarted(&t, "never").await?;
    let message = "Container main failed startup probe, will be restarted";
    t.event("never", "Killing", |told| told == message).await?;
    Ok(())
}

async fn the_initial_delay_is_waited_for(t: Scene) -> anyhow::Result<()> {
    let mut probe = run("true");
    probe["initialDelaySeconds"] = 5.into();
    let main = probed("readinessProbe", FOREVER, probe);
    let pod = t.ready_pod("later", json!([main])).await?;
    let time = |at: &str| at.parse::<Timestamp>();
    let running = container(&pod, "main");
    let started = time(text(running, "/state/running/startedAt"))?;
    let ready = time(text(condition(&pod, "Ready"), "/lastTransitionTime"))?;
    let waited = ready.duration_since(started).as_secs();
    // Both are whole seconds, so a second may be lost between them.
    ensure!(waited >= 4, "ready after {waited} s");
    ensure!(lives(&pod) == 0, "{}", pod["status"]);
    Ok(())
}

async fn a_redirect_on_the_same_host_is_followed(t: Scene) -> anyhow::Result<()> {
    let mut main = agnhost(&["netexec", "--http-port=8080"]);
    main["readinessProbe"] = every_second(json!({ "httpGet": {
        "path": "/redirect?location=/echo?msg=here", "port": 8080,
    }}));
    // What it leads to is what counts.
    main["livenessProbe"] = every_second(json!({
        "httpGet": { "path": "/redirect?location=/echo%3Fmsg=gone%26code=404", "port": 8080 },
        "failureThreshold": 2, "initialDelaySeconds": 5,
    }));
    t.ready_pod("local", json!([main])).await?;
    let message = "Liveness probe failed: HTTP probe failed with statuscode: 404";
    t.event("local", "Unhealthy", |told| told == message)
        .await?;
    restarted(&t, "local").await?;
    Ok(())
}

async fn a_redirect_to_another_host_passes_with_a_warning(t: Scene) -> anyhow::Result<()> {
    let mut main = agnhost(&["netexec", "--http-port=8080"]);
    main["readinessProbe"] = every_second(json!({ "httpGet": {
        "path": "/redirect?location=http%3A%2F%2F0.0.0.0%2F", "port": 8080,
    }}));
    t.ready_pod("away", json!([main])).await?;
    let words = "Readiness probe warning: Probe terminated redirects, Response body: ";
    let event = t
        .event("away", "ProbeWarning", |told| told.starts_with(words))
        .await?;
    ensure!(text(&event, "/message").contains("0.0.0.0"), "{event}");
    Ok(())
}

async fn a_probe_has_a_grace_period_of_its_own(t: Scene) -> anyhow::Result<()> {
    // It does not listen to SIGTERM, and the pod's grace would outlast the test.
    let mut main = probed(
        "livenessProbe",
        "trap '' TERM; while :; do sleep 1; done",
        run("false"),
    );
    main["livenessProbe"]["terminationGracePeriodSeconds"] = 1.into();
    let spec = json!({ "terminationGracePeriodSeconds": 300, "containers": [main] });
    t.pod("stubborn", spec).await?;
    let pod = restarted(&t, "stubborn").await?;
    let last = container(&pod, "main");
    ensure!(
        number(last, "/lastState/terminated/exitCode") == 137,
        "{last}"
    );
    t.delete_pod_within("stubborn", 1).await
}

async fn a_pod_that_ends_is_not_killed_by_its_probe(t: Scene) -> anyhow::Result<()> {
    // Well until it is told to end; then it takes three seconds.
    let script = "touch /tmp/well; trap 'rm /tmp/well; sleep 3; exit' TERM; \
                  while :; do sleep 1 & wait $!; done";
    let mut main = probed("livenessProbe", script, run("test -e /tmp/well"));
    main["livenessProbe"]["initialDelaySeconds"] = 2.into();
    main["readinessProbe"] = run("test -e /tmp/well");
    let spec = json!({ "terminationGracePeriodSeconds": 30, "containers": [main] });
    t.pod("ends", spec).await?;
    t.pod_until("ends", "is ready", is_ready).await?;
    t.delete::<Pod>("ends").await?;
    // Readiness goes on, so that nobody sends it anything any more.
    t.pod_until("ends", "is unready while it ends", |pod| {
        pod.is_null() || !is_ready(pod)
    })
    .await?;
    let last = t.gone::<Pod>("ends").await?;
    ensure!(last.is_null() || lives(&last) == 0, "{}", last["status"]);
    let about = kube::api::ListParams::default().fields("involvedObject.name=ends,reason=Killing");
    let events = t
        .api::<k8s_openapi::api::core::v1::Event>()
        .list(&about)
        .await?;
    for event in events.items {
        let event = serde_json::to_value(event)?;
        ensure!(
            !text(&event, "/message").contains("failed liveness"),
            "{event}"
        );
    }
    Ok(())
}
