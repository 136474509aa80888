//! Pods from manifests in a folder, and their mirrors in the API.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use crate::harness::{
    FOREVER, PATIENCE, Scene, Test, container, number, poll_until, shell, tests, text,
};
use crate::lifecycle::container_id;

pub const TESTS: &[Test] = tests!(Shared:
    a_static_pod_runs_and_has_a_mirror,
    an_edited_manifest_replaces_the_pod,
    a_deleted_mirror_comes_back_and_the_pod_stays,
    a_removed_manifest_takes_pod_and_mirror_along,
    bad_manifests_leave_the_good_ones_alone,
    bad_manifests_are_reported_by_file_and_reason,
);

/// A manifest in the node's folder; removed when dropped.
pub struct Manifest {
    path: PathBuf,
}

impl Manifest {
    /// Writes it under a name that no other test uses, all at once.
    pub fn write(t: &Scene, file: &str, content: &str) -> anyhow::Result<Self> {
        let path = t
            .cluster
            .path("MANIFEST_DIR")
            .join(format!("{}-{file}", t.namespace));
        let manifest = Self { path };
        manifest.rewrite(content)?;
        Ok(manifest)
    }

    pub fn rewrite(&self, content: &str) -> anyhow::Result<()> {
        let name = self
            .path
            .file_name()
            .context("a file name")?
            .to_string_lossy();
        let hidden = self.path.with_file_name(format!(".{name}"));
        std::fs::write(&hidden, content)?;
        Ok(std::fs::rename(&hidden, &self.path)?)
    }

    fn name(&self) -> String {
        self.path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    }
}

impl Drop for Manifest {
    fn drop(&mut self) {
        // It may have been removed by the test.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A manifest of one container that runs this script.
pub fn manifest(t: &Scene, name: &str, script: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "namespace": t.namespace },
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [shell("main", script)],
        },
    })
}

pub fn mirror_name(t: &Scene, name: &str) -> String {
    format!("{name}-{}", t.cluster.node_name())
}

/// The UID that the node knows a static pod by; its mirror has another.
pub fn static_uid(mirror: &Value) -> &str {
    mirror["metadata"]["annotations"]["kubernetes.io/config.hash"]
        .as_str()
        .unwrap_or_default()
}

fn runs(pod: &Value) -> bool {
    container(pod, "main")["ready"] == true
}

async fn a_static_pod_runs_and_has_a_mirror(t: Scene) -> anyhow::Result<()> {
    let yaml = format!(
        "# A comment, and defaults left out.\n\
         apiVersion: v1\n\
         kind: Pod\n\
         metadata:\n\
        \x20 name: web\n\
        \x20 namespace: {}\n\
        \x20 labels: {{ app: web }}\n\
         spec:\n\
        \x20 terminationGracePeriodSeconds: 1\n\
        \x20 containers:\n\
        \x20 - name: main\n\
        \x20   image: {}\n\
        \x20   command: [sh, -c, '{FOREVER}']\n",
        t.namespace,
        crate::harness::BUSYBOX,
    );
    let _manifest = Manifest::write(&t, "web.yaml", &yaml)?;
    let mirror = t.pod_until(&mirror_name(&t, "web"), "runs", runs).await?;
    let annotations = &mirror["metadata"]["annotations"];
    let hash = static_uid(&mirror);
    ensure!(
        !hash.is_empty() && annotations["kubernetes.io/config.mirror"] == hash,
        "{annotations}"
    );
    ensure!(
        annotations["kubernetes.io/config.source"] == "file",
        "{annotations}"
    );
    ensure!(
        !text(annotations, "/kubernetes.io~1config.seen").is_empty(),
        "{annotations}"
    );
    ensure!(
        mirror["metadata"]["labels"] == json!({ "app": "web" }),
        "{}",
        mirror["metadata"]
    );
    let node = t.get::<Node>(t.cluster.node_name()).await?;
    let owner = json!([{
        "apiVersion": "v1",
        "kind": "Node",
        "name": t.cluster.node_name(),
        "uid": node["metadata"]["uid"],
        "controller": true,
    }]);
    ensure!(
        mirror["metadata"]["ownerReferences"] == owner,
        "{}",
        mirror["metadata"]
    );
    ensure!(
        mirror["spec"]["nodeName"] == t.cluster.node_name(),
        "{}",
        mirror["spec"]
    );
    let toleration = json!([{ "operator": "Exists", "effect": "NoExecute" }]);
    ensure!(
        mirror["spec"]["tolerations"] == toleration,
        "{}",
        mirror["spec"]
    );
    ensure!(
        text(&mirror, "/status/phase") == "Running",
        "{}",
        mirror["status"]
    );
    ensure!(
        !text(&mirror, "/status/podIP").is_empty(),
        "{}",
        mirror["status"]
    );
    let running = t.cluster.running_containers(hash).await?;
    ensure!(running.len() == 1, "{running:?}");
    ensure!(
        text(&running[0], "/id") == container_id(&mirror, "main")?,
        "{running:?}"
    );
    Ok(())
}

async fn an_edited_manifest_replaces_the_pod(t: Scene) -> anyhow::Result<()> {
    let file = Manifest::write(
        &t,
        "edited.json",
        &manifest(&t, "edited", FOREVER).to_string(),
    )?;
    let name = mirror_name(&t, "edited");
    let first = t.pod_until(&name, "runs", runs).await?;
    let script = format!("echo second; {FOREVER}");
    file.rewrite(&manifest(&t, "edited", &script).to_string())?;
    let second = |pod: &Value| static_uid(pod) != static_uid(&first) && runs(pod);
    let second = t.pod_until(&name, "runs anew", second).await?;
    ensure!(
        text(&second, "/spec/containers/0/command/2") == script,
        "{}",
        second["spec"]
    );
    let file = t.cluster.path("POD_LOGS_DIR").join(format!(
        "{}_{name}_{}/main/0.log",
        t.namespace,
        static_uid(&second)
    ));
    poll_until("the second one speaks", PATIENCE, || async {
        let log = tokio::fs::read_to_string(&file).await.unwrap_or_default();
        Ok(if log.ends_with("F second\n") {
            Ok(())
        } else {
            Err(log)
        })
    })
    .await?;
    let old = t.cluster.running_containers(static_uid(&first)).await?;
    ensure!(old.is_empty(), "{old:?}");
    Ok(())
}

async fn a_deleted_mirror_comes_back_and_the_pod_stays(t: Scene) -> anyhow::Result<()> {
    let content = manifest(&t, "stays", FOREVER).to_string();
    let _manifest = Manifest::write(&t, "stays.json", &content)?;
    let name = mirror_name(&t, "stays");
    let first = t.pod_until(&name, "runs", runs).await?;
    t.delete::<Pod>(&name).await?;
    let back = |pod: &Value| pod["metadata"]["uid"] != first["metadata"]["uid"] && runs(pod);
    let second = t.pod_until(&name, "is back", back).await?;
    ensure!(
        static_uid(&second) == static_uid(&first),
        "{}",
        second["metadata"]
    );
    let (before, after) = (
        container_id(&first, "main")?,
        container_id(&second, "main")?,
    );
    ensure!(before == after, "the container was replaced");
    ensure!(
        number(container(&second, "main"), "/restartCount") == 0,
        "{}",
        second["status"]
    );
    Ok(())
}

async fn a_removed_manifest_takes_pod_and_mirror_along(t: Scene) -> anyhow::Result<()> {
    let content = manifest(&t, "leaves", FOREVER).to_string();
    let file = Manifest::write(&t, "leaves.json", &content)?;
    let name = mirror_name(&t, "leaves");
    let pod = t.pod_until(&name, "runs", runs).await?;
    drop(file);
    t.gone::<Pod>(&name).await?;
    let uid = static_uid(&pod);
    poll_until("its containers have stopped", PATIENCE, || async {
        let left = t.cluster.running_containers(uid).await?;
        Ok(if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        })
    })
    .await
}

/// Manifests that cannot all run: broken YAML, a field that does not exist, and one name
/// in two files. Among them a good one.
fn bad_lot(t: &Scene) -> anyhow::Result<Vec<Manifest>> {
    let mut unknown = manifest(t, "unknown", FOREVER);
    unknown["spec"]["containers"][0]["imagee"] = "busybox".into();
    let twin = manifest(t, "twin", FOREVER).to_string();
    let hidden = manifest(t, "hidden", FOREVER).to_string();
    Ok(vec![
        Manifest::write(t, "broken.yaml", "apiVersion: v1\nkind: Pod\nmetadata: [\n")?,
        Manifest::write(t, "unknown.json", &unknown.to_string())?,
        Manifest::write(t, "twin-a.json", &twin)?,
        Manifest::write(t, "twin-b.json", &twin)?,
        Manifest::write(t, "good.json", &manifest(t, "good", FOREVER).to_string())?,
        Manifest::write_hidden(t, &hidden)?,
    ])
}

impl Manifest {
    /// Files whose names begin with a dot are none of the node's business.
    fn write_hidden(t: &Scene, content: &str) -> anyhow::Result<Self> {
        let path = t
            .cluster
            .path("MANIFEST_DIR")
            .join(format!(".{}.json", t.namespace));
        std::fs::write(&path, content)?;
        Ok(Self { path })
    }
}

async fn bad_manifests_leave_the_good_ones_alone(t: Scene) -> anyhow::Result<()> {
    let files = bad_lot(&t)?;
    for name in ["good", "twin"] {
        t.pod_until(&mirror_name(&t, name), "runs", runs).await?;
    }
    files[0].rewrite(&manifest(&t, "mended", FOREVER).to_string())?;
    t.pod_until(&mirror_name(&t, "mended"), "runs", runs)
        .await?;
    let namespace = format!("io.kubernetes.pod.namespace={}", t.namespace);
    let sandboxes = t
        .cluster
        .crictl(&["pods", "--state", "ready", "--label", &namespace])
        .await?;
    let named = |name: &str| {
        let name = mirror_name(&t, name);
        sandboxes
            .iter()
            .filter(|sandbox| text(sandbox, "/metadata/name") == name)
            .count()
    };
    ensure!(named("twin") == 1, "{sandboxes:?}");
    ensure!(named("hidden") == 0, "{sandboxes:?}");
    Ok(())
}

async fn bad_manifests_are_reported_by_file_and_reason(t: Scene) -> anyhow::Result<()> {
    let files = bad_lot(&t)?;
    poll_until(
        "the log names every bad file and its fault",
        PATIENCE,
        || async {
            let log = t.cluster.agent_log().await?;
            let told = |file: &Manifest, place: &str, fault: &str| {
                let place = format!("{}{place}", file.name());
                log.lines()
                    .any(|line| line.contains(&place) && line.contains(fault))
            };
            let told = [
                told(&files[0], ":3:", "unclosed bracket"),
                told(&files[1], ":1:", "unknown field spec.containers[0].imagee"),
                // The second of the twins, by name.
                told(&files[3], ":", "twin-a.json"),
            ];
            Ok(if told == [true; 3] {
                Ok(())
            } else {
                Err(format!("{told:?}"))
            })
        },
    )
    .await
}
