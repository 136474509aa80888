//! Volumes of ConfigMaps, Secrets and the pod's own metadata, whose files follow what
//! they show while the pod runs.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::harness::{FOREVER, Scene, Test, container, is_ready, poll_until, shell, tests, text};

pub const TESTS: &[Test] = tests!(Shared:
    edits_reach_every_kind_of_volume,
    optional_sources_come_and_go,
    what_is_required_and_goes_stays_readable,
    an_immutable_object_is_shown,
    a_pod_waits_for_its_config_map_and_then_runs,
    new_labels_and_annotations_reach_their_files,
);

/// Upstream's node looks at a pod's volumes every minute or so.
const UPDATE: Duration = Duration::from_secs(180);

/// Makes a ready pod whose one container has these volumes, each at `/<name>`.
async fn showing(t: &Scene, volumes: Value) -> anyhow::Result<()> {
    t.pod("p", spec(volumes)).await?;
    t.pod_until("p", "is ready", is_ready).await.map(drop)
}

fn spec(volumes: Value) -> Value {
    let names = volumes.as_array().into_iter().flatten();
    let mounts: Vec<Value> = names
        .map(|volume| {
            let name = text(volume, "/name");
            json!({ "name": name, "mountPath": format!("/{name}") })
        })
        .collect();
    let mut main = shell("main", FOREVER);
    main["volumeMounts"] = mounts.into();
    json!({ "volumes": volumes, "containers": [main] })
}

/// Waits until a script in the container prints just this.
async fn shows(t: &Scene, script: &str, wanted: &str) -> anyhow::Result<()> {
    let what = format!("{script} prints {wanted:?}");
    poll_until(&what, UPDATE, || async {
        let ran = t.kubectl(&["exec", "p", "--", "sh", "-c", script]).await?;
        let (_, printed, _) = ran.parts();
        Ok(if printed == wanted {
            Ok(())
        } else {
            Err(printed)
        })
    })
    .await
}

async fn config_map(t: &Scene, name: &str, value: &str) -> anyhow::Result<()> {
    let object = json!({ "data": { "k": value } });
    t.apply::<ConfigMap>(name, object).await.map(drop)
}

async fn secret(t: &Scene, name: &str, value: &str) -> anyhow::Result<()> {
    let object = json!({ "stringData": { "k": value } });
    t.apply::<Secret>(name, object).await.map(drop)
}

fn item(path: &str) -> Value {
    json!([{ "key": "k", "path": path }])
}

async fn edits_reach_every_kind_of_volume(t: Scene) -> anyhow::Result<()> {
    config_map(&t, "m", "one ").await?;
    secret(&t, "s", "two ").await?;
    let sources = json!([
        { "configMap": { "name": "m", "items": item("m") } },
        { "secret": { "name": "s", "items": item("deep/s") } },
    ]);
    showing(
        &t,
        json!([
            { "name": "map", "configMap": { "name": "m" } },
            { "name": "secret", "secret": { "secretName": "s" } },
            { "name": "all", "projected": { "sources": sources } },
        ]),
    )
    .await?;
    let script = "cat /map/k /secret/k /all/m /all/deep/s";
    shows(&t, script, "one two one two ").await?;
    config_map(&t, "m", "ONE ").await?;
    secret(&t, "s", "TWO ").await?;
    shows(&t, script, "ONE TWO ONE TWO ").await?;
    // A key more is a file more, and one less is one less.
    t.apply::<ConfigMap>("m", json!({ "data": { "other": "x" } }))
        .await?;
    shows(&t, "ls /map", "other\n").await
}

async fn optional_sources_come_and_go(t: Scene) -> anyhow::Result<()> {
    let sources = json!([
        { "configMap": { "name": "later", "optional": true, "items": item("m") } },
        { "secret": { "name": "later", "optional": true, "items": item("s") } },
    ]);
    showing(
        &t,
        json!([
            { "name": "map", "configMap": { "name": "later", "optional": true } },
            { "name": "all", "projected": { "sources": sources } },
        ]),
    )
    .await?;
    let script = "ls /map /all";
    shows(&t, script, "/all:\n\n/map:\n").await?;
    config_map(&t, "later", "x").await?;
    secret(&t, "later", "y").await?;
    shows(&t, script, "/all:\nm\ns\n\n/map:\nk\n").await?;
    t.delete::<ConfigMap>("later").await?;
    t.delete::<Secret>("later").await?;
    shows(&t, script, "/all:\n\n/map:\n").await
}

async fn what_is_required_and_goes_stays_readable(t: Scene) -> anyhow::Result<()> {
    config_map(&t, "m", "old").await?;
    showing(&t, json!([{ "name": "map", "configMap": { "name": "m" } }])).await?;
    t.delete::<ConfigMap>("m").await?;
    let message = r#"MountVolume.SetUp failed for volume "map" : configmap "m" not found"#;
    t.event("p", "FailedMount", |shown| shown == message)
        .await?;
    shows(&t, "cat /map/k", "old").await?;
    config_map(&t, "m", "new").await?;
    shows(&t, "cat /map/k", "new").await
}

async fn an_immutable_object_is_shown(t: Scene) -> anyhow::Result<()> {
    let object = json!({ "data": { "k": "fixed" }, "immutable": true });
    t.apply::<ConfigMap>("m", object).await?;
    showing(&t, json!([{ "name": "map", "configMap": { "name": "m" } }])).await?;
    shows(&t, "cat /map/k", "fixed").await?;
    // Another one of the same name is shown to a pod that comes after it.
    t.delete_pod_within("p", 0).await?;
    t.gone::<Pod>("p").await?;
    t.delete::<ConfigMap>("m").await?;
    let object = json!({ "data": { "k": "other" }, "immutable": true });
    t.apply::<ConfigMap>("m", object).await?;
    showing(&t, json!([{ "name": "map", "configMap": { "name": "m" } }])).await?;
    shows(&t, "cat /map/k", "other").await
}

async fn a_pod_waits_for_its_config_map_and_then_runs(t: Scene) -> anyhow::Result<()> {
    t.pod(
        "p",
        spec(json!([{ "name": "map", "configMap": { "name": "late" } }])),
    )
    .await?;
    t.event("p", "FailedMount", |shown| {
        shown.contains(r#"configmap "late" not found"#)
    })
    .await?;
    t.pod_until("p", "waits", |pod| {
        text(container(pod, "main"), "/state/waiting/reason") == "ContainerCreating"
    })
    .await?;
    config_map(&t, "late", "here").await?;
    let ready = t.until_within::<Pod>("p", "is ready", UPDATE, is_ready);
    ready.await?;
    shows(&t, "cat /map/k", "here").await
}

async fn new_labels_and_annotations_reach_their_files(t: Scene) -> anyhow::Result<()> {
    let items = json!([
        { "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } },
        { "path": "one", "fieldRef": { "fieldPath": "metadata.annotations['one']" } },
    ]);
    showing(
        &t,
        json!([
            { "name": "own", "downwardAPI": { "items": items } },
            { "name": "all", "projected": { "sources": [{ "downwardAPI": { "items": items } }] } },
        ]),
    )
    .await?;
    let script = "cd /own; cat labels one; cd /all; cat labels one";
    shows(&t, script, "").await?;
    let change = json!({ "metadata": {
        "labels": { "colour": "red" }, "annotations": { "one": "!" },
    } });
    let manner = PatchParams::default();
    t.api::<Pod>()
        .patch("p", &manner, &Patch::Merge(&change))
        .await?;
    shows(&t, script, r#"colour="red"!colour="red"!"#).await
}
