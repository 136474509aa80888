//! `subPath` and `subPathExpr`: parts of volumes, and what must not be one.

use std::time::Duration;

use anyhow::ensure;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::harness::{
    FOREVER, Scene, Test, container, has_ended, is_ready, poll_until, shell, tests, text,
};

pub const TESTS: &[Test] = tests!(Shared:
    a_sub_path_is_made_in_the_volume,
    a_key_is_mounted_over_an_existing_file_and_stays,
    a_restarted_container_has_its_sub_paths_again,
    sub_paths_are_made_from_variables,
    what_leaves_the_volume_holds_the_container,
    a_link_out_of_the_volume_is_not_followed,
    variables_come_from_files,
);

/// A container with these mounts of volume `v`.
fn with_mounts(name: &str, script: &str, mounts: &[(&str, Value)]) -> Value {
    let mut container = shell(name, script);
    let mounts = mounts.iter().map(|(path, more)| {
        let mut mount = more.clone();
        mount["name"] = "v".into();
        mount["mountPath"] = (*path).into();
        mount
    });
    container["volumeMounts"] = mounts.collect();
    container
}

fn part(path: &str) -> Value {
    json!({ "subPath": path })
}

fn empty_dir() -> Value {
    json!([{ "name": "v", "emptyDir": {} }])
}

async fn a_sub_path_is_made_in_the_volume(t: Scene) -> anyhow::Result<()> {
    let script = "stat -c %a /part; echo hello > /part/f; cat /whole/a/b/f; \
                  ls /part /other; readlink -f /other";
    let mounts = [
        ("/whole", json!({})),
        ("/part", part("a/b")),
        ("/other", part("./a")),
    ];
    let spec = json!({
        "volumes": empty_dir(), "containers": [with_mounts("main", script, &mounts)],
    });
    let (_, log) = t.run_to_end("p", spec).await?;
    ensure!(
        log == "777\nhello\n/other:\nb\n\n/part:\nf\n/other\n",
        "{log}"
    );
    Ok(())
}

async fn a_key_is_mounted_over_an_existing_file_and_stays(t: Scene) -> anyhow::Result<()> {
    let map = |value: &str| json!({ "data": { "motd": value } });
    t.apply::<ConfigMap>("m", map("one")).await?;
    let mounts = [("/etc/group", part("motd")), ("/whole", json!({}))];
    let spec = json!({
        "volumes": [{ "name": "v", "configMap": { "name": "m" } }],
        "containers": [with_mounts("main", FOREVER, &mounts)],
    });
    t.pod("p", spec).await?;
    t.pod_until("p", "is ready", is_ready).await?;
    t.apply::<ConfigMap>("m", map("two")).await?;
    let what = "the volume is brought up to date, and its part is not";
    let script = "cat /whole/motd /etc/group";
    poll_until(what, Duration::from_secs(180), || async {
        let ran = t.kubectl(&["exec", "p", "--", "sh", "-c", script]).await?;
        let printed = ran.text()?;
        Ok(if printed == "twoone" {
            Ok(())
        } else {
            Err(printed)
        })
    })
    .await
}

async fn a_restarted_container_has_its_sub_paths_again(t: Scene) -> anyhow::Result<()> {
    // The first life leaves, in the place of what it had mounted, something else.
    let script = "if test -e /part/gone; then exit 3; fi; touch /part/gone; \
                  if test -e /whole/seen; then echo again; exit 0; fi; \
                  touch /whole/seen; mv /whole/a /whole/old; exit 1";
    let mounts = [("/whole", json!({})), ("/part", part("a"))];
    let spec = json!({
        "restartPolicy": "OnFailure",
        "volumes": empty_dir(), "containers": [with_mounts("main", script, &mounts)],
    });
    let (pod, log) = t.run_to_end("p", spec).await?;
    ensure!(text(&pod, "/status/phase") == "Succeeded", "{pod}");
    ensure!(log == "again\n", "{log}");
    Ok(())
}

async fn sub_paths_are_made_from_variables(t: Scene) -> anyhow::Result<()> {
    let script = "touch /part/f; find /whole -type f";
    let mounts = [
        ("/whole", json!({})),
        ("/part", json!({ "subPathExpr": "logs/$(POD)/$(WHAT)" })),
    ];
    let mut main = with_mounts("main", script, &mounts);
    let name = json!({ "fieldRef": { "fieldPath": "metadata.name" } });
    main["env"] = json!([{ "name": "POD", "valueFrom": name }, { "name": "WHAT", "value": "x" }]);
    let spec = json!({ "volumes": empty_dir(), "containers": [main] });
    let (_, log) = t.run_to_end("named", spec).await?;
    ensure!(log == "/whole/logs/named/x/f\n", "{log}");
    Ok(())
}

async fn what_leaves_the_volume_holds_the_container(t: Scene) -> anyhow::Result<()> {
    let mounts = [("/part", json!({ "subPathExpr": "$(PART)" }))];
    let mut main = with_mounts("main", FOREVER, &mounts);
    let part = json!({ "fieldRef": { "fieldPath": "metadata.annotations['part']" } });
    main["env"] = json!([{ "name": "PART", "valueFrom": part }]);
    t.pod("p", json!({ "volumes": empty_dir(), "containers": [main] }))
        .await?;
    let cases = [
        (None, "missing value for PART"),
        (
            Some("/tmp"),
            "error SubPath `/tmp` must not be an absolute path",
        ),
        (
            Some("a/../../b"),
            "unable to provision SubPath `a/../../b`: must not contain '..'",
        ),
    ];
    for (value, message) in cases {
        annotate(&t, value).await?;
        t.pod_until("p", message, |pod| {
            let waiting = &container(pod, "main")["state"]["waiting"];
            text(waiting, "/reason") == "CreateContainerConfigError"
                && text(waiting, "/message") == message
        })
        .await?;
    }
    annotate(&t, Some("good")).await?;
    t.pod_until("p", "is ready", is_ready).await.map(drop)
}

async fn annotate(t: &Scene, value: Option<&str>) -> anyhow::Result<()> {
    let change = json!({ "metadata": { "annotations": { "part": value } } });
    let manner = PatchParams::default();
    t.api::<Pod>()
        .patch("p", &manner, &Patch::Merge(&change))
        .await?;
    Ok(())
}

async fn a_link_out_of_the_volume_is_not_followed(t: Scene) -> anyhow::Result<()> {
    let script = "ln -s / /v/root; ln -s ../../../../../../../../../../../../../../../.. /v/up";
    let init = with_mounts("init", script, &[("/v", json!({}))]);
    for (name, path) in [("absolute", "root/etc"), ("relative", "up/etc")] {
        let main = with_mounts("main", "ls /part", &[("/part", part(path))]);
        let spec = json!({
            "volumes": empty_dir(), "initContainers": [init], "containers": [main],
        });
        t.pod(name, spec).await?;
        let message = r#"failed to prepare subPath for volumeMount "v" of container "main""#;
        let pod = t
            .pod_until(name, "is held", |pod| {
                has_ended(pod)
                    || text(container(pod, "main"), "/state/waiting/reason")
                        == "CreateContainerConfigError"
            })
            .await?;
        let shown = text(container(&pod, "main"), "/state/waiting/message");
        ensure!(shown == message, "{shown}");
    }
    Ok(())
}

async fn variables_come_from_files(t: Scene) -> anyhow::Result<()> {
    let script = r##"printf "# made here\nCOLOUR='red\nand blue'\n" > /v/env"##;
    let init = with_mounts("init", script, &[("/v", json!({}))]);
    let mut main = shell("main", r#"echo "<$COLOUR><${NONE-unset}>""#);
    let from = |key: &str, optional: bool| {
        json!({ "fileKeyRef": {
            "volumeName": "v", "path": "env", "key": key, "optional": optional,
        } })
    };
    main["env"] = json!([
        { "name": "COLOUR", "valueFrom": from("COLOUR", false) },
        { "name": "NONE", "valueFrom": from("NONE", true) },
    ]);
    let spec = json!({
        "volumes": empty_dir(), "initContainers": [init], "containers": [main],
    });
    let (_, log) = t.run_to_end("p", spec).await?;
    ensure!(log == "<red\nand blue><unset>\n", "{log}");
    Ok(())
}
