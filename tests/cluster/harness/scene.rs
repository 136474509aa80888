//! A test's scene: a cluster and a namespace that is the test's own, with what a test
//! does in it. A scene is cheap to clone.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace, Pod, ServiceAccount};
use kube::Resource;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PropagationPolicy};
use kube::runtime::watcher;
use serde_json::{Value, json};

use super::cluster::Cluster;
use super::host::poll_until;
use super::json::{container, number, text};
use super::{PATIENCE, wait};

/// The label that the namespaces of tests carry.
pub const TEST_NAMESPACES: &str = "kubelet-rs-test";

#[derive(Clone)]
pub struct Scene {
    pub cluster: Arc<Cluster>,
    pub namespace: String,
}

impl Scene {
    /// Makes the namespace, complete with what every pod in it needs.
    pub async fn open(cluster: Arc<Cluster>, test: &str, number: usize) -> anyhow::Result<Self> {
        let function = test.rsplit("::").next().unwrap_or(test).replace('_', "-");
        let slug: String = function.chars().take(40).collect();
        let namespace = format!("{}-{number}", slug.trim_end_matches('-'));
        let scene = Self { cluster, namespace };
        let labels = json!({ "metadata": { "labels": { TEST_NAMESPACES: "" } } });
        scene.apply::<Namespace>(&scene.namespace, labels).await?;
        scene
            .until::<ServiceAccount>("default", "exists", Value::is_object)
            .await?;
        scene
            .until::<ConfigMap>("kube-root-ca.crt", "exists", Value::is_object)
            .await?;
        Ok(scene)
    }

    /// Asks for the namespace's end; the leak check waits for it.
    pub async fn close(&self) -> anyhow::Result<()> {
        let api = self.cluster.api::<Namespace>(None);
        api.delete(&self.namespace, &DeleteParams::default())
            .await
            .map(drop)?;
        Ok(())
    }

    pub fn api<K>(&self) -> Api<DynamicObject>
    where
        K: Resource<DynamicType = ()>,
    {
        const CLUSTER_WIDE: [&str; 6] = [
            "Namespace",
            "Node",
            "APIService",
            "RuntimeClass",
            "ClusterRole",
            "ClusterRoleBinding",
        ];
        let cluster_wide = CLUSTER_WIDE.contains(&&*K::kind(&()));
        self.cluster
            .api::<K>((!cluster_wide).then_some(self.namespace.as_str()))
    }

    /// Makes or changes an object; kind and name are filled in, unknown fields refused.
    pub async fn apply<K>(&self, name: &str, mut object: Value) -> anyhow::Result<Value>
    where
        K: Resource<DynamicType = ()>,
    {
        object["apiVersion"] = K::api_version(&()).into();
        object["kind"] = K::kind(&()).into();
        object["metadata"]["name"] = name.into();
        let manner = PatchParams::apply("kubelet-rs-tests")
            .force()
            .validation_strict();
        let applied = self
            .api::<K>()
            .patch(name, &manner, &Patch::Apply(&object))
            .await;
        Ok(serde_json::to_value(
            applied.with_context(|| format!("cannot apply {name}"))?,
        )?)
    }

    /// Makes a pod of this spec. Unless the spec says otherwise, it has a second to end.
    pub async fn pod(&self, name: &str, mut spec: Value) -> anyhow::Result<Value> {
        if spec.get("terminationGracePeriodSeconds").is_none() {
            spec["terminationGracePeriodSeconds"] = 1.into();
        }
        self.apply::<Pod>(name, json!({ "spec": spec })).await
    }

    /// Makes a pod of these containers and waits until it is ready.
    pub async fn ready_pod(&self, name: &str, containers: Value) -> anyhow::Result<Value> {
        self.pod(name, json!({ "containers": containers })).await?;
        self.pod_until(name, "is ready", is_ready).await
    }

    /// Makes a pod, waits until it has ended, and gives it with the last log of its first
    /// container.
    pub async fn run_to_end(&self, name: &str, mut spec: Value) -> anyhow::Result<(Value, String)> {
        if spec.get("restartPolicy").is_none() {
            spec["restartPolicy"] = "Never".into();
        }
        self.pod(name, spec).await?;
        let pod = self.pod_until(name, "has ended", has_ended).await?;
        let first = text(&pod, "/spec/containers/0/name").to_owned();
        let lives = number(container(&pod, &first), "/restartCount");
        let log = self.log(&pod, &first, u32::try_from(lives)?).await?;
        Ok((pod, log))
    }

    /// Waits for an object of this name; while it is absent, the predicate sees null.
    pub async fn until<K>(
        &self,
        name: &str,
        what: &str,
        done: impl FnMut(&Value) -> bool,
    ) -> anyhow::Result<Value>
    where
        K: Resource<DynamicType = ()>,
    {
        self.until_within::<K>(name, what, PATIENCE, done).await
    }

    pub async fn until_within<K>(
        &self,
        name: &str,
        what: &str,
        within: Duration,
        mut done: impl FnMut(&Value) -> bool,
    ) -> anyhow::Result<Value>
    where
        K: Resource<DynamicType = ()>,
    {
        let what = format!("{} {name} {what}", K::kind(&()));
        let one = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let absent = Value::Null;
        let check = |objects: &BTreeMap<_, _>| done(objects.get(name).unwrap_or(&absent));
        let mut objects = wait::until(self.api::<K>(), one, &what, within, check).await?;
        Ok(objects.remove(name).unwrap_or_default())
    }

    pub async fn pod_until(
        &self,
        name: &str,
        what: &str,
        done: impl FnMut(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        self.until::<Pod>(name, what, done).await
    }

    /// Waits until the objects that a label selector finds (all, if empty) satisfy `done`.
    pub async fn all_until<K>(
        &self,
        labels: &str,
        what: &str,
        mut done: impl FnMut(&[&Value]) -> bool,
    ) -> anyhow::Result<Vec<Value>>
    where
        K: Resource<DynamicType = ()>,
    {
        let selected = watcher::Config::default().labels(labels);
        let check = |objects: &BTreeMap<_, _>| done(&objects.values().collect::<Vec<_>>());
        let objects = wait::until(self.api::<K>(), selected, what, PATIENCE, check).await?;
        Ok(objects.into_values().collect())
    }

    /// Waits for an event about the object of this name, and gives it.
    pub async fn event(
        &self,
        about: &str,
        reason: &str,
        message: impl Fn(&str) -> bool,
    ) -> anyhow::Result<Value> {
        let selected = watcher::Config::default().fields(&format!("involvedObject.name={about}"));
        let matches =
            |event: &Value| text(event, "/reason") == reason && message(text(event, "/message"));
        let what = format!("event {reason} of {about}");
        let check = |events: &BTreeMap<_, _>| events.values().any(matches);
        let events = wait::until(self.api::<Event>(), selected, &what, PATIENCE, check).await?;
        let found = events.into_values().find(matches);
        found.context("the event was there a moment ago")
    }

    pub async fn get<K>(&self, name: &str) -> anyhow::Result<Value>
    where
        K: Resource<DynamicType = ()>,
    {
        let object = self.api::<K>().get(name).await?;
        Ok(serde_json::to_value(object)?)
    }

    /// Asks for deletion with the object's own grace period, its dependents after it.
    pub async fn delete<K>(&self, name: &str) -> anyhow::Result<()>
    where
        K: Resource<DynamicType = ()>,
    {
        let manner = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Background),
            ..DeleteParams::default()
        };
        self.api::<K>().delete(name, &manner).await?;
        Ok(())
    }

    /// Asks for deletion with this grace period.
    pub async fn delete_pod_within(&self, name: &str, seconds: u32) -> anyhow::Result<()> {
        let manner = DeleteParams::default().grace_period(seconds);
        self.api::<Pod>().delete(name, &manner).await?;
        Ok(())
    }

    /// Waits until there is no object of this name; gives the last that was seen of it.
    pub async fn gone<K>(&self, name: &str) -> anyhow::Result<Value>
    where
        K: Resource<DynamicType = ()>,
    {
        let mut last = Value::Null;
        let look = |object: &Value| {
            if object.is_null() {
                return true;
            }
            last = object.clone();
            false
        };
        self.until::<K>(name, "is gone", look).await?;
        Ok(last)
    }

    /// What a container wrote in its n-th life (from 0), as the file on the node has it,
    /// without the time stamps.
    pub async fn log(&self, pod: &Value, container: &str, life: u32) -> anyhow::Result<String> {
        let file = self
            .log_directory(pod)
            .join(container)
            .join(format!("{life}.log"));
        let text = tokio::fs::read_to_string(&file)
            .await
            .context(file.display().to_string())?;
        Ok(text
            .lines()
            .map(|line| line.splitn(4, ' ').nth(3).unwrap_or("").to_owned() + "\n")
            .collect())
    }

    /// Waits until a container has written a line that contains `wanted`; gives its log.
    pub async fn log_until(
        &self,
        pod: &Value,
        container: &str,
        wanted: &str,
    ) -> anyhow::Result<String> {
        poll_until(
            &format!("log of {container} has '{wanted}'"),
            PATIENCE,
            || async {
                let log = self.log(pod, container, 0).await.unwrap_or_default();
                Ok(if log.contains(wanted) {
                    Ok(log)
                } else {
                    Err(log)
                })
            },
        )
        .await
    }

    pub fn log_directory(&self, pod: &Value) -> PathBuf {
        let (name, uid) = (text(pod, "/metadata/name"), text(pod, "/metadata/uid"));
        self.cluster
            .path("POD_LOGS_DIR")
            .join(format!("{}_{name}_{uid}", self.namespace))
    }

    /// The agent's directory for a pod.
    pub fn pod_directory(&self, pod: &Value) -> PathBuf {
        self.cluster
            .path("KUBELET_ROOT")
            .join("pods")
            .join(text(pod, "/metadata/uid"))
    }

    /// What the API server answers to a plain GET.
    pub async fn raw(&self, path: &str) -> anyhow::Result<String> {
        let request = http::Request::get(path).body(Vec::new())?;
        let answer = self.cluster.client.request_text(request).await;
        answer.with_context(|| path.to_owned())
    }

    /// The same of the node agent, through the API server.
    pub async fn node_raw(&self, path: &str) -> anyhow::Result<String> {
        let node = self.cluster.node_name();
        self.raw(&format!("/api/v1/nodes/{node}/proxy/{path}"))
            .await
    }

    /// A directory of the host for this test alone; it goes with the cluster.
    pub async fn host_directory(&self) -> anyhow::Result<PathBuf> {
        let path = self
            .cluster
            .path("DIR")
            .join("scratch")
            .join(&self.namespace);
        tokio::fs::create_dir_all(&path).await?;
        Ok(path)
    }
}

/// Whether a pod's condition Ready is true.
pub fn is_ready(pod: &Value) -> bool {
    super::condition(pod, "Ready")["status"] == "True"
}

/// Whether a pod has reached a phase that it never leaves.
pub fn has_ended(pod: &Value) -> bool {
    ["Succeeded", "Failed"].contains(&text(pod, "/status/phase"))
}
