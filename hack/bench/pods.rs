//! Pods as a client of the API server makes and sees them.
//!
//! Creates and deletes pods that are bound to the node from the start, so that
//! the scheduler's time is not in the figures, and notes when its watch shows
//! each Ready and each gone.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use futures::future::{join_all, try_join_all};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, ServiceAccount};
use kube::api::{DeleteParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::Value;
use tokio::sync::watch;

use crate::cluster::Cluster;
use crate::stats::Samples;

/// All pods live here.
pub(crate) const NAMESPACE: &str = "bench";
/// Imported by `hack/cluster/up`.
pub(crate) const IMAGE: &str = "registry.k8s.io/e2e-test-images/busybox:1.37.0-1";
/// Ends at once when it is asked to, so that a deletion shows what the agent and
/// the runtime take, not the grace period.
pub(crate) const COMMAND: [&str; 3] = ["sh", "-c", "trap exit TERM; sleep 1000000 & wait"];
/// Writes a line to its log every second, and ends as quickly.
pub(crate) const CHATTY: [&str; 3] = [
    "sh",
    "-c",
    "trap exit TERM; while true; do echo still here; sleep 1 & wait; done",
];
/// Seconds between SIGTERM and SIGKILL.
pub(crate) const GRACE: i64 = 1;
/// What takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(180);

/// What the watch has shown of one pod.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    ready: Option<Instant>,
    gone: Option<Instant>,
}

/// A pod that was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    name: String,
    uid: String,
    /// Before its creation was sent.
    asked: Instant,
}

impl Made {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

/// By UID, because names come back.
type Sights = HashMap<String, Seen>;

#[derive(Debug)]
pub(crate) struct Pods {
    api: Api<Pod>,
    node: String,
    command: [&'static str; 3],
    probe: Option<Value>,
    seen: watch::Receiver<Sights>,
}

impl Pods {
    /// Makes the namespace, waits for what its pods need, and starts to watch.
    pub(crate) async fn connect(cluster: &Cluster, command: [&'static str; 3]) -> Result<Self> {
        let client = client(cluster).await?;
        make_namespace(&client).await?;
        let api = Api::namespaced(client, NAMESPACE);
        let (out, seen) = watch::channel(HashMap::new());
        tokio::spawn(follow(api.clone(), out));
        Ok(Self {
            api,
            node: cluster.fact("NODE_NAME").to_owned(),
            command,
            probe: None,
            seen,
        })
    }

    /// Pods made from now on run `command` every `period` seconds to tell that
    /// they live.
    pub(crate) fn probed_by(mut self, command: &[&str], period: u32) -> Self {
        self.probe = Some(serde_json::json!({
            "exec": { "command": command },
            "periodSeconds": period,
            // A machine that is busy with the measurement is no reason to restart.
            "timeoutSeconds": 10,
        }));
        self
    }

    pub(crate) async fn create(&self, name: &str) -> Result<Made> {
        let pod = manifest(name, &self.node, self.command, self.probe.as_ref())?;
        let asked = Instant::now();
        let made = self.api.create(&PostParams::default(), &pod).await?;
        Ok(Made {
            name: name.to_owned(),
            uid: made.uid().context("a pod without UID")?,
            asked,
        })
    }

    /// Creates `count` pods at once.
    pub(crate) async fn create_all(&self, prefix: &str, count: usize) -> Result<Vec<Made>> {
        let names: Vec<_> = (0..count).map(|i| format!("{prefix}-{i}")).collect();
        try_join_all(names.iter().map(|name| self.create(name))).await
    }

    /// From each pod's creation until the watch showed it Ready.
    pub(crate) async fn await_ready(&self, made: &[Made]) -> Result<Samples> {
        let asked = made.iter().map(|pod| (pod.uid.as_str(), pod.asked));
        let what = |seen: &Seen| seen.ready;
        self.await_all(asked.collect(), what, "Ready").await
    }

    /// When the watch showed this pod Ready.
    pub(crate) async fn ready_at(&self, made: &Made) -> Result<Instant> {
        let wait = self.await_ready(std::slice::from_ref(made)).await?;
        let wait = wait.max().context("no sample")?;
        Ok(made.asked + Duration::from_secs_f64(wait))
    }

    /// Deletes all at once; from each request until the watch showed it gone.
    pub(crate) async fn delete_all(&self, made: &[Made]) -> Result<Samples> {
        let params = DeleteParams::default().grace_period(u32::try_from(GRACE)?);
        let deletions = made.iter().map(async |pod| {
            let asked = Instant::now();
            let deleted = self.api.delete(&pod.name, &params).await;
            deleted.map(|_| (pod.uid.as_str(), asked))
        });
        let asked = join_all(deletions).await;
        let asked = asked.into_iter().collect::<Result<Vec<_>, _>>()?;
        self.await_all(asked, |seen| seen.gone, "gone").await
    }

    async fn await_all(
        &self,
        asked: Vec<(&str, Instant)>,
        what: impl Fn(&Seen) -> Option<Instant>,
        word: &str,
    ) -> Result<Samples> {
        let mut seen = self.seen.clone();
        let count = |seen: &Sights| {
            let done = |(uid, _): &&(&str, Instant)| seen.get(*uid).and_then(&what).is_some();
            asked.iter().filter(done).count()
        };
        let all = seen.wait_for(|seen| count(seen) == asked.len());
        let Ok(shown) = tokio::time::timeout(PATIENCE, all).await else {
            let reached = count(&self.seen.borrow());
            bail!(
                "{reached} of {} pods were {word} in {PATIENCE:?}",
                asked.len()
            );
        };
        let shown = shown.context("the watch ended")?;
        let wait = |(uid, asked): &(&str, Instant)| {
            let at = shown.get(*uid).and_then(&what)?;
            Some(at.duration_since(*asked))
        };
        Ok(asked.iter().filter_map(wait).collect())
    }
}

/// A client with the rights of the cluster's administrator.
pub(crate) async fn client(cluster: &Cluster) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(cluster.fact("KUBECONFIG"))?;
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
    Ok(Client::try_from(config)?)
}

/// Makes the namespace, complete with what every pod in it needs.
pub(crate) async fn make_namespace(client: &Client) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(NAMESPACE.to_owned());
    match namespaces.create(&PostParams::default(), &namespace).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        made => drop(made?),
    }
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), NAMESPACE);
    let config_maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let deadline = Instant::now() + PATIENCE;
    while accounts.get_opt("default").await?.is_none()
        || config_maps.get_opt("kube-root-ca.crt").await?.is_none()
    {
        if Instant::now() > deadline {
            bail!("namespace {NAMESPACE} has no service account after {PATIENCE:?}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// One container, no requests, the default service account and its volume.
fn manifest(name: &str, node: &str, command: [&str; 3], liveness: Option<&Value>) -> Result<Pod> {
    let pod = serde_json::json!({
        "metadata": { "name": name, "labels": { "app": NAMESPACE } },
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": GRACE,
            "containers": [{
                "name": "main",
                "image": IMAGE,
                "imagePullPolicy": "IfNotPresent",
                "command": command,
                "livenessProbe": liveness,
            }],
        },
    });
    Ok(serde_json::from_value(pod)?)
}

/// Notes the time of every first sight until nobody listens.
async fn follow(api: Api<Pod>, out: watch::Sender<Sights>) {
    let mut events = std::pin::pin!(watcher(api, watcher::Config::default()));
    while let Some(event) = events.next().await {
        let now = Instant::now();
        match event {
            Ok(Event::Apply(pod) | Event::InitApply(pod)) if is_ready(&pod) => {
                note(&out, &pod, |seen| seen.ready = seen.ready.or(Some(now)));
            }
            Ok(Event::Delete(pod)) => note(&out, &pod, |seen| seen.gone = Some(now)),
            Ok(_) => {}
            Err(error) => eprintln!("bench: watch of pods: {error}"),
        }
        if out.is_closed() {
            return;
        }
    }
}

fn note(out: &watch::Sender<Sights>, pod: &Pod, what: impl FnOnce(&mut Seen)) {
    let uid = pod.uid().unwrap_or_default();
    out.send_modify(|seen| what(seen.entry(uid).or_default()));
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}
