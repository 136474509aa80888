//! Images that are not there, and commands that are not in them.

use anyhow::ensure;
use serde_json::{Value, json};

use crate::harness::{BUSYBOX, Scene, Test, container, shell, tests, text};

pub const TESTS: &[Test] = tests!(Shared:
    an_image_that_does_not_exist_is_tried_again_with_back_off,
    an_absent_image_that_must_not_be_pulled_is_said_to_be_so,
    an_image_name_that_is_none_is_said_to_be_so,
    a_bad_image_leaves_the_other_container_alone,
    a_command_that_does_not_exist_fails_the_pod,
    a_command_that_does_not_exist_is_tried_again,
);

/// On this registry nobody answers, at once.
const NOWHERE: &str = "localhost:1/nothing/here:v1";

fn with_image(name: &str, image: &str) -> Value {
    json!({ "name": name, "image": image, "imagePullPolicy": "IfNotPresent" })
}

fn waiting_reason<'a>(pod: &'a Value, name: &str) -> &'a str {
    text(container(pod, name), "/state/waiting/reason")
}

async fn an_image_that_does_not_exist_is_tried_again_with_back_off(t: Scene) -> anyhow::Result<()> {
    t.pod(
        "nothing",
        json!({ "containers": [with_image("main", NOWHERE)] }),
    )
    .await?;
    let failed = |pod: &Value| waiting_reason(pod, "main") == "ErrImagePull";
    let pod = t.pod_until("nothing", "has ErrImagePull", failed).await?;
    ensure!(
        text(&pod, "/status/phase") == "Pending",
        "{}",
        pod["status"]
    );
    let message = text(container(&pod, "main"), "/state/waiting/message");
    ensure!(message.contains("connection refused"), "{message}");

    let backs_off = |pod: &Value| waiting_reason(pod, "main") == "ImagePullBackOff";
    let pod = t
        .pod_until("nothing", "has ImagePullBackOff", backs_off)
        .await?;
    let message = text(container(&pod, "main"), "/state/waiting/message");
    ensure!(
        message.starts_with(&format!(r#"Back-off pulling image "{NOWHERE}""#)),
        "{message}"
    );

    let events = [
        ("Pulling", "Normal", format!(r#"Pulling image "{NOWHERE}""#)),
        (
            "Failed",
            "Warning",
            format!(r#"Failed to pull image "{NOWHERE}": "#),
        ),
        ("Failed", "Warning", "Error: ErrImagePull".to_owned()),
        (
            "BackOff",
            "Normal",
            format!(r#"Back-off pulling image "{NOWHERE}""#),
        ),
        ("Failed", "Warning", "Error: ImagePullBackOff".to_owned()),
    ];
    for (reason, kind, start) in events {
        let event = t
            .event("nothing", reason, |message| message.starts_with(&start))
            .await?;
        ensure!(event["type"] == kind, "{event}");
        ensure!(
            event["involvedObject"]["fieldPath"] == "spec.containers{main}",
            "{event}"
        );
    }
    Ok(())
}

async fn an_absent_image_that_must_not_be_pulled_is_said_to_be_so(t: Scene) -> anyhow::Result<()> {
    let mut main = with_image("main", NOWHERE);
    main["imagePullPolicy"] = "Never".into();
    t.pod("never", json!({ "containers": [main] })).await?;
    let never = |pod: &Value| waiting_reason(pod, "main") == "ErrImageNeverPull";
    let pod = t.pod_until("never", "has ErrImageNeverPull", never).await?;
    let message =
        format!(r#"Container image "{NOWHERE}" is not present with pull policy of Never"#);
    let shown = text(container(&pod, "main"), "/state/waiting/message");
    ensure!(shown == message, "{shown}");
    t.event("never", "ErrImageNeverPull", |shown| shown == message)
        .await?;
    t.event("never", "Failed", |shown| {
        shown == "Error: ErrImageNeverPull"
    })
    .await?;
    Ok(())
}

async fn an_image_name_that_is_none_is_said_to_be_so(t: Scene) -> anyhow::Result<()> {
    let name = "Not//An:Image";
    t.pod("odd", json!({ "containers": [with_image("main", name)] }))
        .await?;
    let invalid = |pod: &Value| waiting_reason(pod, "main") == "InvalidImageName";
    let pod = t.pod_until("odd", "has InvalidImageName", invalid).await?;
    let shown = text(container(&pod, "main"), "/state/waiting/message");
    let start = format!(r#"Failed to apply default image tag "{name}": "#);
    ensure!(shown.starts_with(&start), "{shown}");
    t.event("odd", "InspectFailed", |shown| shown.starts_with(&start))
        .await?;
    t.event("odd", "Failed", |shown| shown == "Error: InvalidImageName")
        .await?;
    Ok(())
}

async fn a_bad_image_leaves_the_other_container_alone(t: Scene) -> anyhow::Result<()> {
    let good = shell("good", crate::harness::FOREVER);
    t.pod(
        "half",
        json!({ "containers": [with_image("bad", NOWHERE), good] }),
    )
    .await?;
    let half = |pod: &Value| {
        container(pod, "good")["ready"] == true && waiting_reason(pod, "bad") == "ImagePullBackOff"
    };
    let pod = t.pod_until("half", "runs the good one", half).await?;
    // The bad one never ran: the pod is not running yet.
    ensure!(
        text(&pod, "/status/phase") == "Pending",
        "{}",
        pod["status"]
    );
    Ok(())
}

fn no_such_command() -> Value {
    let mut main = with_image("main", BUSYBOX);
    main["command"] = json!(["/no/such/command"]);
    main
}

async fn a_command_that_does_not_exist_fails_the_pod(t: Scene) -> anyhow::Result<()> {
    let spec = json!({ "restartPolicy": "Never", "containers": [no_such_command()] });
    t.pod("wrong", spec).await?;
    let failed = |pod: &Value| text(pod, "/status/phase") == "Failed";
    let pod = t.pod_until("wrong", "has failed", failed).await?;
    let end = &container(&pod, "main")["state"]["terminated"];
    ensure!(
        end["reason"] == "StartError" && end["exitCode"] == 128,
        "{end}"
    );
    ensure!(
        text(end, "/message").contains("no such file or directory"),
        "{end}"
    );
    let error = |message: &str| {
        message.starts_with("Error: ") && message.contains("no such file or directory")
    };
    t.event("wrong", "Failed", error).await?;
    Ok(())
}

async fn a_command_that_does_not_exist_is_tried_again(t: Scene) -> anyhow::Result<()> {
    t.pod("wrong", json!({ "containers": [no_such_command()] }))
        .await?;
    let backs_off = |pod: &Value| {
        let status = container(pod, "main");
        waiting_reason(pod, "main") == "CrashLoopBackOff"
            && status["restartCount"].as_i64() >= Some(1)
    };
    let pod = t.pod_until("wrong", "is in back-off", backs_off).await?;
    let end = &container(&pod, "main")["lastState"]["terminated"];
    ensure!(
        end["reason"] == "StartError" && end["exitCode"] == 128,
        "{end}"
    );
    Ok(())
}
