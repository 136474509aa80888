//! Controllers' workloads as people use them: Deployments, Jobs, CronJobs, DaemonSets.

use anyhow::ensure;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::harness::{
    AGNHOST, BUSYBOX, FOREVER, Scene, Test, condition, number, shell, tests, text,
};

pub const TESTS: &[Test] = tests!(Shared:
    a_cron_job_runs_its_job,
    a_deployment_reaches_ten_replicas_and_scales,
    a_deployment_rolls_out_another_image_and_back,
    a_job_completes,
    a_failing_job_gives_up,
    a_daemon_set_runs_on_the_node,
    a_stateful_set_starts_its_pods_in_order,
);

/// A pod template, labelled for the selector of [`selector`].
fn template(containers: &Value) -> Value {
    json!({
        "metadata": { "labels": { "app": "web" } },
        "spec": { "terminationGracePeriodSeconds": 1, "containers": containers },
    })
}

fn selector() -> Value {
    json!({ "matchLabels": { "app": "web" } })
}

async fn a_deployment_reaches_ten_replicas_and_scales(t: Scene) -> anyhow::Result<()> {
    for replicas in [10, 3, 6] {
        let spec = json!({
            "replicas": replicas,
            "selector": selector(),
            "template": template(&json!([shell("main", FOREVER)])),
        });
        t.apply::<Deployment>("web", json!({ "spec": spec }))
            .await?;
        let what = format!("has {replicas} replicas");
        t.until::<Deployment>("web", &what, |deployment| reached(deployment, replicas))
            .await?;
        let count = usize::try_from(replicas)?;
        t.all_until::<Pod>("app=web", &what, |pods| pods.len() == count)
            .await?;
    }
    Ok(())
}

async fn a_deployment_rolls_out_another_image_and_back(t: Scene) -> anyhow::Result<()> {
    let busybox = json!([shell("main", FOREVER)]);
    let agnhost = json!([{ "name": "main", "image": AGNHOST, "args": ["pause"] }]);
    for (containers, image) in [
        (&busybox, BUSYBOX),
        (&agnhost, AGNHOST),
        (&busybox, BUSYBOX),
    ] {
        let template = template(containers);
        let spec = json!({ "replicas": 3, "selector": selector(), "template": template });
        // Applied anew each time: `command` must go when `args` come.
        t.apply::<Deployment>("web", json!({ "spec": spec }))
            .await?;
        t.until::<Deployment>("web", &format!("runs {image}"), |web| reached(web, 3))
            .await?;
        let all_of_it = |pods: &[&Value]| {
            pods.len() == 3
                && pods
                    .iter()
                    .all(|pod| text(pod, "/spec/containers/0/image") == image)
        };
        t.all_until::<Pod>("app=web", "only pods of the new template", all_of_it)
            .await?;
    }
    let two_revisions = |sets: &[&Value]| sets.len() == 2;
    t.all_until::<ReplicaSet>("", "the first revision is used again", two_revisions)
        .await?;
    Ok(())
}

/// Whether the deployment's controller has seen its spec and all replicas are up to date,
/// available and the only ones.
fn reached(deployment: &Value, replicas: i64) -> bool {
    number(deployment, "/status/observedGeneration") == number(deployment, "/metadata/generation")
        && ["replicas", "updatedReplicas", "availableReplicas"]
            .iter()
            .all(|field| number(deployment, &format!("/status/{field}")) == replicas)
}

async fn a_job_completes(t: Scene) -> anyhow::Result<()> {
    let spec = job_spec("echo done");
    t.apply::<Job>("work", json!({ "spec": spec })).await?;
    let complete = |job: &Value| condition(job, "Complete")["status"] == "True";
    let job = t.until::<Job>("work", "is complete", complete).await?;
    ensure!(number(&job, "/status/succeeded") == 3, "{}", job["status"]);
    Ok(())
}

async fn a_failing_job_gives_up(t: Scene) -> anyhow::Result<()> {
    let mut spec = job_spec("exit 7");
    spec["backoffLimit"] = 0.into();
    t.apply::<Job>("work", json!({ "spec": spec })).await?;
    let failed = |job: &Value| condition(job, "Failed")["status"] == "True";
    let job = t.until::<Job>("work", "has failed", failed).await?;
    let reason = text(condition(&job, "Failed"), "/reason");
    ensure!(reason == "BackoffLimitExceeded", "{}", job["status"]);
    Ok(())
}

fn job_spec(script: &str) -> Value {
    let mut template = template(&json!([shell("main", script)]));
    template["spec"]["restartPolicy"] = "Never".into();
    json!({ "completions": 3, "parallelism": 2, "template": template })
}

async fn a_cron_job_runs_its_job(t: Scene) -> anyhow::Result<()> {
    let spec = json!({
        "schedule": "* * * * *",
        "jobTemplate": { "spec": job_spec("echo tick") },
    });
    t.apply::<CronJob>("tick", json!({ "spec": spec })).await?;
    let succeeded = |cron: &Value| !text(cron, "/status/lastSuccessfulTime").is_empty();
    t.until::<CronJob>("tick", "has succeeded once", succeeded)
        .await?;
    Ok(())
}

async fn a_daemon_set_runs_on_the_node(t: Scene) -> anyhow::Result<()> {
    for script in [FOREVER, "trap 'exit 0' TERM; sleep 2000000 & wait"] {
        let template = template(&json!([shell("main", script)]));
        let spec = json!({ "selector": selector(), "template": template });
        t.apply::<DaemonSet>("agent", json!({ "spec": spec }))
            .await?;
        let runs = |set: &Value| {
            number(set, "/status/observedGeneration") == number(set, "/metadata/generation")
                && number(set, "/status/updatedNumberScheduled") == 1
                && number(set, "/status/numberAvailable") == 1
        };
        t.until::<DaemonSet>("agent", "runs on the node", runs)
            .await?;
        let current = |pods: &[&Value]| {
            pods.len() == 1 && text(pods[0], "/spec/containers/0/command/2") == script
        };
        t.all_until::<Pod>("app=web", "the pod of the current template", current)
            .await?;
    }
    Ok(())
}

async fn a_stateful_set_starts_its_pods_in_order(t: Scene) -> anyhow::Result<()> {
    let template = template(&json!([shell("main", FOREVER)]));
    let spec = json!({
        "replicas": 2,
        "serviceName": "db",
        "selector": selector(),
        "template": template,
    });
    t.apply::<StatefulSet>("db", json!({ "spec": spec }))
        .await?;
    let ready = |set: &Value| number(set, "/status/readyReplicas") == 2;
    t.until::<StatefulSet>("db", "has both pods", ready).await?;
    let first = t.get::<Pod>("db-0").await?;
    let second = t.get::<Pod>("db-1").await?;
    let ready_since = text(condition(&first, "Ready"), "/lastTransitionTime");
    ensure!(
        ready_since <= text(&second, "/metadata/creationTimestamp"),
        "the second came too early"
    );
    Ok(())
}
