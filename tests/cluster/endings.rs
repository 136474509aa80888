//! Ends of pods beyond plain deletion (see `deletion`): who is stopped first, last words,
//! and containers that do all they can not to end.

use anyhow::ensure;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::harness::{
    FOREVER, PATIENCE, Scene, Test, container, is_ready, number, poll_until, shell, tests, text,
};

pub const TESTS: &[Test] = tests!(Shared:
    sidecars_end_after_the_others_and_in_reverse,
    a_deadline_gives_the_pods_own_grace,
    of_long_last_words_the_end_is_told,
    of_a_long_log_the_last_lines_are_the_last_words,
    a_container_that_forks_and_floods_and_will_not_end_harms_only_itself,
);

async fn sidecars_end_after_the_others_and_in_reverse(t: Scene) -> anyhow::Result<()> {
    let directory = t.host_directory().await?;
    // Each takes a second to end, which is long enough for another to be first.
    let container = |name: &str| {
        let script = format!(
            "trap 'sleep 1; echo {name} >> /v/order; exit 0' TERM; touch /v/{name}; \
             sleep 1000000 & wait"
        );
        let mut container = shell(name, &script);
        container["volumeMounts"] = json!([{ "name": "v", "mountPath": "/v" }]);
        container
    };
    let sidecar = |name: &str| {
        let mut sidecar = container(name);
        sidecar["restartPolicy"] = "Always".into();
        sidecar
    };
    let spec = json!({
        "terminationGracePeriodSeconds": 60,
        "volumes": [{ "name": "v", "hostPath": { "path": directory } }],
        "initContainers": [sidecar("first"), sidecar("second")],
        "containers": [container("main")],
    });
    t.pod("ordered", spec).await?;
    t.pod_until("ordered", "is ready", is_ready).await?;
    poll_until("all listen", PATIENCE, || async {
        let names = ["first", "second", "main"];
        let all = names.iter().all(|name| directory.join(name).exists());
        Ok(all.then_some(()).ok_or_else(|| "not all".to_owned()))
    })
    .await?;
    t.delete::<Pod>("ordered").await?;
    let last = t.gone::<Pod>("ordered").await?;
    let order = tokio::fs::read_to_string(directory.join("order")).await?;
    ensure!(order == "main\nsecond\nfirst\n", "{order}");
    ensure!(
        text(&last, "/status/phase") == "Succeeded",
        "{}",
        last["status"]
    );
    Ok(())
}

async fn a_deadline_gives_the_pods_own_grace(t: Scene) -> anyhow::Result<()> {
    let script = "trap 'sleep 1; exit 5' TERM; sleep 1000000 & wait";
    let spec = json!({
        "terminationGracePeriodSeconds": 60,
        "activeDeadlineSeconds": 8,
        "containers": [shell("main", script)],
    });
    t.pod("late", spec).await?;
    let failed = |pod: &Value| text(pod, "/status/phase") == "Failed";
    let pod = t.pod_until("late", "has failed", failed).await?;
    let end = &container(&pod, "main")["state"]["terminated"];
    ensure!(end["exitCode"] == 5, "{}", pod["status"]);
    ensure!(
        text(&pod, "/status/reason") == "DeadlineExceeded",
        "{}",
        pod["status"]
    );
    let told = "Pod was active on the node longer than the specified deadline";
    t.event("late", "DeadlineExceeded", |message| message == told)
        .await?;
    Ok(())
}

/// The message of the pod's only container, which has ended.
fn last_words(pod: &Value) -> &str {
    text(container(pod, "main"), "/state/terminated/message")
}

async fn of_long_last_words_the_end_is_told(t: Scene) -> anyhow::Result<()> {
    let script = "seq 1 5000 > /dev/termination-log";
    let spec = json!({ "containers": [shell("main", script)] });
    let (pod, _) = t.run_to_end("long", spec).await?;
    let words = last_words(&pod);
    ensure!(words.len() == 4096, "{} bytes", words.len());
    ensure!(words.ends_with("\n4999\n5000\n"), "{words}");
    Ok(())
}

async fn of_a_long_log_the_last_lines_are_the_last_words(t: Scene) -> anyhow::Result<()> {
    let mut lines = shell("main", "seq 1 200; exit 3");
    lines["terminationMessagePolicy"] = "FallbackToLogsOnError".into();
    let (pod, _) = t
        .run_to_end("lines", json!({ "containers": [lines] }))
        .await?;
    let told: Vec<_> = last_words(&pod).lines().collect();
    ensure!(told.len() == 80, "{told:?}");
    ensure!(
        told.first() == Some(&"121") && told.last() == Some(&"200"),
        "{told:?}"
    );

    let script = "for i in 1 2 3 4 5 6 7 8; do printf '%0500d\\n' $i; done; exit 3";
    let mut bytes = shell("main", script);
    bytes["terminationMessagePolicy"] = "FallbackToLogsOnError".into();
    let (pod, _) = t
        .run_to_end("bytes", json!({ "containers": [bytes] }))
        .await?;
    let words = last_words(&pod);
    ensure!(words.len() == 2048, "{} bytes", words.len());
    ensure!(words.ends_with("08\n"), "{words}");
    Ok(())
}

async fn a_container_that_forks_and_floods_and_will_not_end_harms_only_itself(
    t: Scene,
) -> anyhow::Result<()> {
    t.ready_pod("calm", json!([shell("main", FOREVER)])).await?;
    // Five megabytes in long lines, so that reading them costs the node little. Logs
    // are rotated in these clusters, so what is waited for is said again and again.
    let script = "trap '' TERM; for i in $(seq 20); do (while :; do sleep 1; done) & done; \
                  yes \"$(printf '%02000d' 0)\" | head -c 5000000; \
                  while :; do echo flooded; sleep 1; done";
    let spec = json!({
        "terminationGracePeriodSeconds": 3,
        "containers": [shell("main", script)],
    });
    let wild = t.pod("wild", spec).await?;
    t.log_until(&wild, "main", "flooded").await?;
    t.delete::<Pod>("wild").await?;
    let last = t.gone::<Pod>("wild").await?;
    let end = &container(&last, "main")["state"]["terminated"];
    ensure!(end["exitCode"] == 137, "{}", last["status"]);
    let left = t
        .cluster
        .running_containers(text(&last, "/metadata/uid"))
        .await?;
    ensure!(left.is_empty(), "{left:?}");
    let calm = t.get::<Pod>("calm").await?;
    let main = container(&calm, "main");
    ensure!(
        is_ready(&calm) && number(main, "/restartCount") == 0,
        "{}",
        calm["status"]
    );
    Ok(())
}
