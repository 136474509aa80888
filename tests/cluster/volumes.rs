//! Volumes: emptyDir, hostPath, and the projected one of every service account.

use std::os::unix::fs::MetadataExt;

use anyhow::{Context, ensure};
use k8s_openapi::api::authentication::v1::TokenReview;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};

use crate::harness::{FOREVER, PATIENCE, Scene, Test, poll_until, shell, tests, text, truth};

pub const TESTS: &[Test] = tests!(Shared:
    an_empty_dir_is_shared_between_containers,
    an_empty_dir_in_memory_is_a_tmpfs,
    a_host_path_shows_the_hosts_directory,
    a_host_path_is_made_when_its_type_says_so,
    a_host_path_of_the_wrong_type_is_not_mounted,
    a_read_only_mount_refuses_writes,
    the_service_accounts_token_is_good,
    the_service_accounts_volume_is_written_atomically,
);

/// A container that runs a script with volume `v` at `/v`.
fn with_volume(name: &str, script: &str) -> Value {
    let mut container = shell(name, script);
    container["volumeMounts"] = json!([{ "name": "v", "mountPath": "/v" }]);
    container
}

fn host_path(path: &std::path::Path, kind: &str) -> Value {
    json!([{ "name": "v", "hostPath": { "path": path, "type": kind } }])
}

async fn an_empty_dir_is_shared_between_containers(t: Scene) -> anyhow::Result<()> {
    let spec = json!({
        "volumes": [{ "name": "v", "emptyDir": {} }],
        "containers": [
            with_volume("reader", "until test -e /v/f; do sleep 0.1; done; cat /v/f; stat -c %a /v"),
            with_volume("writer", "echo shared > /v/.f; mv /v/.f /v/f"),
        ],
    });
    let (_, log) = t.run_to_end("two", spec).await?;
    ensure!(log == "shared\n777\n", "{log}");
    Ok(())
}

async fn an_empty_dir_in_memory_is_a_tmpfs(t: Scene) -> anyhow::Result<()> {
    let spec = json!({
        "volumes": [{ "name": "v", "emptyDir": { "medium": "Memory", "sizeLimit": "8Mi" } }],
        "containers": [with_volume("main", "stat -f -c %T /v; df -k /v | tail -n 1")],
    });
    let (_, log) = t.run_to_end("memory", spec).await?;
    ensure!(
        log.starts_with("tmpfs\n") && log.contains(" 8192 "),
        "{log}"
    );
    Ok(())
}

async fn a_host_path_shows_the_hosts_directory(t: Scene) -> anyhow::Result<()> {
    let directory = t.host_directory().await?;
    tokio::fs::write(directory.join("greeting"), "hello\n").await?;
    let spec = json!({
        "volumes": host_path(&directory, "Directory"),
        "containers": [with_volume("main", "cat /v/greeting; echo back > /v/answer")],
    });
    let (_, log) = t.run_to_end("host", spec).await?;
    ensure!(log == "hello\n", "{log}");
    let answer = tokio::fs::read_to_string(directory.join("answer")).await?;
    ensure!(answer == "back\n", "{answer}");
    Ok(())
}

async fn a_host_path_is_made_when_its_type_says_so(t: Scene) -> anyhow::Result<()> {
    let directory = t.host_directory().await?;
    for (name, kind, script) in [
        ("new-dir", "DirectoryOrCreate", "test -d /v"),
        ("new-file", "FileOrCreate", "test -f /v"),
    ] {
        let spec = json!({
            "volumes": host_path(&directory.join(name), kind),
            "containers": [with_volume("main", script)],
        });
        let (pod, _) = t.run_to_end(name, spec).await?;
        ensure!(
            text(&pod, "/status/phase") == "Succeeded",
            "{}",
            pod["status"]
        );
    }
    let modes = |name: &str| anyhow::Ok(std::fs::metadata(directory.join(name))?.mode() & 0o777);
    ensure!(modes("new-dir")? == 0o755, "{:o}", modes("new-dir")?);
    ensure!(modes("new-file")? == 0o644, "{:o}", modes("new-file")?);
    Ok(())
}

async fn a_host_path_of_the_wrong_type_is_not_mounted(t: Scene) -> anyhow::Result<()> {
    let missing = t.host_directory().await?.join("missing");
    let spec = json!({
        "volumes": host_path(&missing, "File"),
        "containers": [with_volume("main", "cat /v; exec sleep 1000000")],
    });
    let pod = t.pod("wrong", spec).await?;
    let cause = format!(
        "hostPath type check failed: {} is not a file",
        missing.display()
    );
    let message = format!(r#"MountVolume.SetUp failed for volume "v" : {cause}"#);
    let event = t
        .event("wrong", "FailedMount", |shown| shown == message)
        .await?;
    ensure!(event["type"] == "Warning", "{event}");
    let uid = text(&pod, "/metadata/uid");
    ensure!(
        t.cluster.running_containers(uid).await?.is_empty(),
        "it runs all the same"
    );
    t.pod_until("wrong", "waits", |pod| {
        text(pod, "/status/containerStatuses/0/state/waiting/reason") == "ContainerCreating"
    })
    .await?;
    // Once what is missing is there, the pod runs.
    tokio::fs::write(&missing, "here\n").await?;
    t.pod_until("wrong", "runs", |pod| {
        truth(pod, "/status/containerStatuses/0/ready")
    })
    .await?;
    Ok(())
}

async fn a_read_only_mount_refuses_writes(t: Scene) -> anyhow::Result<()> {
    let mut main = with_volume("main", "touch /v/f 2>&1 || true");
    main["volumeMounts"][0]["readOnly"] = true.into();
    let spec = json!({ "volumes": [{ "name": "v", "emptyDir": {} }], "containers": [main] });
    let (_, log) = t.run_to_end("reader", spec).await?;
    ensure!(log.contains("Read-only file system"), "{log}");
    Ok(())
}

const SECRETS: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

async fn the_service_accounts_token_is_good(t: Scene) -> anyhow::Result<()> {
    let script = format!("cd {SECRETS}; cat namespace; echo; cat token; echo; cat ca.crt");
    let (pod, log) = t
        .run_to_end("bearer", json!({ "containers": [shell("main", &script)] }))
        .await?;
    let mut parts = log.splitn(3, '\n');
    ensure!(parts.next() == Some(&t.namespace), "{log}");
    let token = parts.next().context("a token")?;
    let authority = tokio::fs::read_to_string(t.cluster.path("DIR").join("pki/ca.crt")).await?;
    ensure!(
        parts.next().is_some_and(|ca| ca.trim() == authority.trim()),
        "another ca.crt"
    );

    let reviews: Api<TokenReview> = Api::all(t.cluster.client.clone());
    let review = serde_json::from_value(json!({ "metadata": {}, "spec": { "token": token } }))?;
    let review = reviews.create(&PostParams::default(), &review).await?;
    let status = serde_json::to_value(review.status)?;
    ensure!(status["authenticated"] == true, "{status}");
    let user = format!("system:serviceaccount:{}:default", t.namespace);
    ensure!(text(&status, "/user/username") == user, "{status}");
    let bound_to = &status["user"]["extra"];
    ensure!(
        bound_to["authentication.kubernetes.io/pod-name"] == json!(["bearer"]),
        "{status}"
    );
    let uid = json!([text(&pod, "/metadata/uid")]);
    ensure!(
        bound_to["authentication.kubernetes.io/pod-uid"] == uid,
        "{status}"
    );
    Ok(())
}

async fn the_service_accounts_volume_is_written_atomically(t: Scene) -> anyhow::Result<()> {
    let pod = t
        .ready_pod("bearer", json!([shell("main", FOREVER)]))
        .await?;
    let volume = text(&pod, "/spec/volumes/0/name");
    let directory = t
        .pod_directory(&pod)
        .join("volumes/kubernetes.io~projected")
        .join(volume);
    let data = tokio::fs::read_link(directory.join("..data")).await?;
    ensure!(
        data.to_string_lossy().starts_with(".."),
        "{}",
        data.display()
    );
    for file in ["token", "ca.crt", "namespace"] {
        let link = tokio::fs::read_link(directory.join(file)).await?;
        ensure!(
            link == std::path::Path::new("..data").join(file),
            "{}",
            link.display()
        );
        let mode = std::fs::metadata(directory.join(file))?.mode() & 0o777;
        ensure!(mode == 0o644, "{file} has mode {mode:o}");
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    let point = directory.to_string_lossy().into_owned();
    let mounted = mounts
        .lines()
        .find(|line| line.split(' ').nth(4) == Some(&point));
    ensure!(
        mounted.is_some_and(|line| line.contains(" - tmpfs ")),
        "{mounted:?}"
    );

    t.delete::<Pod>("bearer").await?;
    t.gone::<Pod>("bearer").await?;
    poll_until("its mount is gone", PATIENCE, || async {
        let mounts = tokio::fs::read_to_string("/proc/self/mountinfo").await?;
        let gone = !mounts.contains(&point);
        Ok(if gone {
            Ok(())
        } else {
            Err("still mounted".to_owned())
        })
    })
    .await
}
