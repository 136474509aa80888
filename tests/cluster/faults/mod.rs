//! Components that stop, die, hang or are away, and a full disk: everything converges
//! afterwards, and what could run on has run on. Each on a cluster of its own.

pub mod agent;
pub mod apiserver;
pub mod containerd;
pub mod control_plane;
pub mod disk;

use std::collections::BTreeMap;

use anyhow::ensure;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use crate::harness::{FOREVER, Scene, condition, is_ready, shell};

/// Pods that no fault may touch, with the identity of their containers.
struct Standing {
    /// Per pod its container statuses, as they were at the start.
    pods: BTreeMap<String, Value>,
}

impl Standing {
    /// Starts these pods, of two containers each, and remembers what runs.
    async fn start(t: &Scene, names: &[&str]) -> anyhow::Result<Self> {
        for name in names {
            let containers = json!([shell("main", FOREVER), shell("side", FOREVER)]);
            t.pod(name, json!({ "containers": containers })).await?;
        }
        let mut pods = BTreeMap::new();
        for name in names {
            let pod = t.pod_until(name, "is ready", is_ready).await?;
            pods.insert((*name).to_owned(), identity(&pod));
        }
        Ok(Self { pods })
    }

    /// This one is to be deleted or broken by the test.
    fn forget(&mut self, name: &str) {
        self.pods.remove(name);
    }

    /// Waits until all are ready (again); their containers must be the same ones.
    async fn ensure_untouched(&self, t: &Scene) -> anyhow::Result<()> {
        for (name, before) in &self.pods {
            let pod = t.pod_until(name, "is ready", is_ready).await?;
            let after = identity(&pod);
            ensure!(after == *before, "pod {name} was {before}, is {after}");
            let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
            let sandboxes = t.cluster.ready_sandboxes(uid).await?;
            ensure!(
                sandboxes.len() == 1,
                "pod {name} has sandboxes {sandboxes:?}"
            );
        }
        Ok(())
    }
}

/// What must stay the same of a pod that runs on: containers, restarts, start times.
fn identity(pod: &Value) -> Value {
    let statuses = pod["status"]["containerStatuses"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let of = |status: &Value| {
        json!({
            "name": status["name"],
            "id": status["containerID"],
            "restarts": status["restartCount"],
            "state": status["state"],
            "lastState": status["lastState"],
        })
    };
    statuses.iter().map(of).collect()
}

/// Starts a pod of the plain kind, and does not wait for it.
async fn start_pod(t: &Scene, name: &str) -> anyhow::Result<()> {
    t.pod(name, json!({ "containers": [shell("main", FOREVER)] }))
        .await
        .map(drop)
}

async fn pod_is_ready(t: &Scene, name: &str) -> anyhow::Result<()> {
    t.pod_until(name, "is ready", is_ready).await.map(drop)
}

async fn pod_is_gone(t: &Scene, name: &str) -> anyhow::Result<()> {
    t.gone::<Pod>(name).await.map(drop)
}

async fn node_becomes(t: &Scene, ready: &str) -> anyhow::Result<Value> {
    let is_so = |node: &Value| condition(node, "Ready")["status"] == ready;
    t.until::<Node>(t.cluster.node_name(), &format!("has Ready={ready}"), is_so)
        .await
}
