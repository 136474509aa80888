//! Containers' logs on the node's disk, as kubectl and log shippers expect them, and
//! termination messages.

use anyhow::ensure;
use serde_json::{Value, json};

use crate::harness::{Scene, Test, container, number, shell, tests, text};
use crate::lifecycle::container_id;

pub const TESTS: &[Test] = tests!(Shared:
    a_log_is_where_log_shippers_look,
    every_life_of_a_container_has_its_log,
    a_termination_message_is_in_the_status,
    the_end_of_the_log_can_be_the_termination_message,
);

async fn a_log_is_where_log_shippers_look(t: Scene) -> anyhow::Result<()> {
    let script = "echo to stdout; echo to stderr >&2; printf unfinished";
    let (pod, _) = t
        .run_to_end("writer", json!({ "containers": [shell("main", script)] }))
        .await?;
    let file = t.log_directory(&pod).join("main/0.log");
    let log = tokio::fs::read_to_string(&file).await?;
    for line in log.lines() {
        let time = line.split(' ').next().unwrap_or_default();
        ensure!(time.parse::<jiff::Timestamp>().is_ok(), "{line}");
    }
    for wanted in [
        " stdout F to stdout",
        " stderr F to stderr",
        " stdout P unfinished",
    ] {
        ensure!(
            log.lines().any(|line| line.ends_with(wanted)),
            "no '{wanted}' in {log}"
        );
    }
    let id = container_id(&pod, "main")?;
    let link = format!("/var/log/containers/writer_{}_main-{id}.log", t.namespace);
    ensure!(
        tokio::fs::canonicalize(&link).await? == tokio::fs::canonicalize(&file).await?,
        "{link}"
    );
    Ok(())
}

async fn every_life_of_a_container_has_its_log(t: Scene) -> anyhow::Result<()> {
    let mut main = shell(
        "main",
        "echo life >> /memory/lives; wc -l < /memory/lives; exit 1",
    );
    main["volumeMounts"] = json!([{ "name": "memory", "mountPath": "/memory" }]);
    let spec = json!({ "volumes": [{ "name": "memory", "emptyDir": {} }], "containers": [main] });
    t.pod("lives", spec).await?;
    let second = |pod: &Value| {
        let status = container(pod, "main");
        number(status, "/restartCount") >= 1
            && !text(status, "/lastState/terminated/containerID").is_empty()
            && text(status, "/state/waiting/reason") == "CrashLoopBackOff"
    };
    let pod = t.pod_until("lives", "has lived twice", second).await?;
    let restarts = u32::try_from(number(container(&pod, "main"), "/restartCount"))?;
    let log = t.log(&pod, "main", restarts).await?;
    ensure!(log == format!("{}\n", restarts + 1), "{log}");
    Ok(())
}

async fn a_termination_message_is_in_the_status(t: Scene) -> anyhow::Result<()> {
    let mut elsewhere = shell("elsewhere", "printf 'other file' > /tmp/last-words; exit 2");
    elsewhere["terminationMessagePath"] = "/tmp/last-words".into();
    let containers = json!([
        shell("main", "printf 'so long' > /dev/termination-log"),
        elsewhere
    ]);
    let (pod, _) = t
        .run_to_end("speaks", json!({ "containers": containers }))
        .await?;
    for (name, words) in [("main", "so long"), ("elsewhere", "other file")] {
        let message = text(container(&pod, name), "/state/terminated/message");
        ensure!(message == words, "{}", container(&pod, name));
    }
    Ok(())
}

async fn the_end_of_the_log_can_be_the_termination_message(t: Scene) -> anyhow::Result<()> {
    let mut main = shell("main", "echo one; echo two; exit 1");
    main["terminationMessagePolicy"] = "FallbackToLogsOnError".into();
    let mut well = shell("well", "echo three");
    well["terminationMessagePolicy"] = "FallbackToLogsOnError".into();
    let (pod, _) = t
        .run_to_end("speaks", json!({ "containers": [main, well] }))
        .await?;
    let message = text(container(&pod, "main"), "/state/terminated/message");
    ensure!(message == "one\ntwo\n", "{}", container(&pod, "main"));
    let message = text(container(&pod, "well"), "/state/terminated/message");
    ensure!(message.is_empty(), "{}", container(&pod, "well"));
    Ok(())
}
