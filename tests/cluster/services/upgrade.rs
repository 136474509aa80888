//! From our proxy to upstream's kube-proxy and back, on one node and under traffic: no
//! connection is lost, whoever is in charge follows changes, and nobody fights. Each on
//! a cluster of its own.

use anyhow::ensure;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Service};
use serde_json::{Value, json};

use super::client::{From, until_only};
use super::traffic::Traffic;
use super::{serve, service, slice};
use crate::harness::{BUSYBOX, PATIENCE, Scene, Test, condition, number, poll_until, tests, text};

pub const TESTS: &[Test] = tests!(Own:
    a_kube_proxy_pod_and_the_agent_take_turns,
    a_kube_proxy_process_and_the_agent_take_turns,
);

/// Reasons of the Node's events, and its condition.
const STANDS_ASIDE: &str = "ServiceProxyStandsAside";
const TAKES_OVER: &str = "ServiceProxyTakesOver";
const CONFLICT: &str = "ServiceProxyConflict";
/// What the agent says when it undoes what somebody else did to its rules.
const PUT_RIGHT: &str = "somebody else changed the rules of Services";

/// A node port service whose endpoints are chosen by the test, with clients.
struct Served {
    t: Scene,
    addresses: Vec<(&'static str, String)>,
    ways: [String; 2],
}

impl Served {
    const ALL: [&'static str; 3] = ["a", "b", "c"];

    async fn new(t: &Scene) -> anyhow::Result<Self> {
        let mut addresses = Vec::new();
        for name in Self::ALL {
            let pod = serve(t, name, "web").await?;
            addresses.push((name, text(&pod, "/status/podIP").to_owned()));
        }
        let ip = service(t, "web", json!({ "type": "NodePort" })).await?;
        let found = t.get::<Service>("web").await?;
        let port = number(&found, "/spec/ports/0/nodePort");
        let served = Self {
            t: t.clone(),
            addresses,
            ways: [
                format!("{ip}:80"),
                format!("{}:{port}", t.cluster.fact("NODE_IP")),
            ],
        };
        served.endpoints(&Self::ALL).await?;
        Ok(served)
    }

    /// Makes these the endpoints, and waits until new connections go to all of them and
    /// to nobody else, by all ways.
    async fn endpoints(&self, names: &[&str]) -> anyhow::Result<()> {
        self.write(names).await?;
        for way in &self.ways {
            until_only(
                &self.t,
                From::Host,
                &format!("http://{way}/hostname"),
                names,
            )
            .await?;
        }
        Ok(())
    }

    async fn write(&self, names: &[&str]) -> anyhow::Result<()> {
        let chosen = self
            .addresses
            .iter()
            .filter(|(name, _)| names.contains(name));
        let node = self.t.cluster.node_name();
        let endpoints: Vec<Value> = chosen
            .map(|(_, address)| json!({ "addresses": [address], "nodeName": node }))
            .collect();
        slice(&self.t, "web-1", "web", endpoints.into())
            .await
            .map(drop)
    }

    async fn traffic(&self) -> anyhow::Result<Traffic> {
        Traffic::start(self.ways.clone()).await
    }
}

async fn a_kube_proxy_pod_and_the_agent_take_turns(t: Scene) -> anyhow::Result<()> {
    let served = Served::new(&t).await?;
    let ours = rules(&t).await?;
    let traffic = served.traffic().await?;

    t.apply::<DaemonSet>("kube-proxy", kube_proxy(&t)).await?;
    node_event(&t, STANDS_ASIDE).await?;
    until_condition(&t, "False", "KubeProxyPod").await?;
    served.endpoints(&["b", "c"]).await?;
    traffic.unharmed("kube-proxy has taken over")?;

    t.delete::<DaemonSet>("kube-proxy").await?;
    node_event(&t, TAKES_OVER).await?;
    until_condition(&t, "", "").await?;
    served.endpoints(&["a", "c"]).await?;
    traffic.unharmed("the agent has taken over")?;

    served.endpoints(&Served::ALL).await?;
    until_rules(&t, &ours).await?;
    ensure!(put_right(&t).await? == 0, "the agent fought");
    traffic.unharmed("the end")?;
    println!("{traffic}");
    Ok(())
}

async fn a_kube_proxy_process_and_the_agent_take_turns(t: Scene) -> anyhow::Result<()> {
    let served = Served::new(&t).await?;
    let ours = rules(&t).await?;
    let traffic = served.traffic().await?;

    // One after the other.
    t.cluster.ctl("stop", "kubelet").await?;
    t.cluster.ctl("start", "kube-proxy").await?;
    served.endpoints(&["b", "c"]).await?;
    traffic.unharmed("kube-proxy has taken over")?;
    t.cluster.ctl("stop", "kube-proxy").await?;
    t.cluster.ctl("start", "kubelet").await?;
    served.endpoints(&["a", "c"]).await?;
    until_node_is_ready(&t).await?;
    ensure!(put_right(&t).await? == 0, "the agent fought nobody");
    traffic.unharmed("the agent has taken over")?;

    // Both at once, as if somebody had forgotten one: ours gives way.
    t.cluster.ctl("start", "kube-proxy").await?;
    until_says(&served, "True", "RewrittenByAnother").await?;
    node_event(&t, CONFLICT).await?;
    let fought = put_right(&t).await?;
    for names in [["a", "b"], ["b", "c"], ["a", "b"]] {
        served.endpoints(&names).await?;
    }
    ensure!(put_right(&t).await? == fought, "the agent fights on");
    traffic.unharmed("the agent has given way")?;

    // When nobody follows changes any more, it is ours to do so again.
    t.cluster.ctl("stop", "kube-proxy").await?;
    until_says(&served, "", "").await?;
    node_event(&t, TAKES_OVER).await?;
    served.endpoints(&["a", "c"]).await?;
    served.endpoints(&Served::ALL).await?;
    until_rules(&t, &ours).await?;
    traffic.unharmed("the end")?;
    println!("{traffic}");
    Ok(())
}

/// Upstream's kube-proxy as a cluster runs it, but with the node's files as its image.
fn kube_proxy(t: &Scene) -> Value {
    let (program, directory) = (t.cluster.fact("TOOLS"), t.cluster.fact("DIR"));
    let labels = json!({ "app": "kube-proxy" });
    json!({ "spec": {
        "selector": { "matchLabels": labels },
        "template": {
            "metadata": { "labels": labels },
            "spec": {
                "hostNetwork": true,
                "terminationGracePeriodSeconds": 1,
                "tolerations": [{ "operator": "Exists" }],
                "volumes": [{ "name": "node", "hostPath": { "path": "/" } }],
                "containers": [{
                    "name": "main",
                    "image": BUSYBOX,
                    "imagePullPolicy": "IfNotPresent",
                    "command": [
                        "chroot", "/node", format!("{program}/kube-proxy"),
                        format!("--config={directory}/kube-proxy.yaml"),
                    ],
                    "env": [{ "name": "PATH", "value": "/usr/sbin:/usr/bin:/sbin:/bin" }],
                    "securityContext": { "privileged": true },
                    "volumeMounts": [{ "name": "node", "mountPath": "/node" }],
                }],
            },
        },
    }})
}

/// Changes endpoints, which makes whoever is in charge write, until the agent says this
/// of whose work they are; both empty: it says nothing.
async fn until_says(served: &Served, status: &str, reason: &str) -> anyhow::Result<()> {
    let mut rounds = [["a", "b"], ["b", "c"]].iter().cycle();
    let what = format!("the agent says {CONFLICT}={status} {reason}");
    poll_until(&what, PATIENCE, || {
        let names = rounds.next().copied().unwrap_or_default();
        async move {
            served.write(&names).await?;
            let node = served.t.get::<Node>(served.t.cluster.node_name()).await?;
            Ok(if is_condition(&node, status, reason) {
                Ok(())
            } else {
                Err(condition(&node, CONFLICT).to_string())
            })
        }
    })
    .await
}

/// Both empty: there is no such condition.
fn is_condition(node: &Value, status: &str, reason: &str) -> bool {
    let said = condition(node, CONFLICT);
    text(said, "/status") == status && text(said, "/reason") == reason
}

async fn until_condition(t: &Scene, status: &str, reason: &str) -> anyhow::Result<()> {
    let what = format!("says {CONFLICT}={status} {reason}");
    let name = t.cluster.node_name();
    t.until::<Node>(name, &what, |node| is_condition(node, status, reason))
        .await
        .map(drop)
}

async fn until_node_is_ready(t: &Scene) -> anyhow::Result<()> {
    let is_ready = |node: &Value| condition(node, "Ready")["status"] == "True";
    let name = t.cluster.node_name();
    t.until::<Node>(name, "is ready", is_ready).await.map(drop)
}

async fn node_event(t: &Scene, reason: &str) -> anyhow::Result<()> {
    let default = Scene {
        namespace: "default".to_owned(),
        ..t.clone()
    };
    let about = t.cluster.node_name();
    default.event(about, reason, |_| true).await.map(drop)
}

/// How often the agent has put its rules right.
async fn put_right(t: &Scene) -> anyhow::Result<usize> {
    Ok(t.cluster.agent_log().await?.matches(PUT_RIGHT).count())
}

/// All chains and rules of Services on the node, in an order of their own: one that is
/// there twice is there twice.
async fn rules(t: &Scene) -> anyhow::Result<Vec<String>> {
    let mut rules = Vec::new();
    for program in ["iptables-save", "ip6tables-save"] {
        let mut table = String::new();
        for line in t.cluster.exec([program]).await?.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = name.to_owned();
            } else if line.contains("KUBE-") {
                // Without the packets that went through it.
                let line = line.split(" [").next().unwrap_or(line);
                rules.push(format!("{program} {table} {line}"));
            }
        }
    }
    rules.sort_unstable();
    Ok(rules)
}

async fn until_rules(t: &Scene, wanted: &[String]) -> anyhow::Result<()> {
    poll_until("the rules are as before", PATIENCE, || async {
        let found = rules(t).await?;
        let without = |from: &[String], others: &[String]| -> Vec<String> {
            let mut left = from.to_vec();
            for one in others {
                if let Some(at) = left.iter().position(|line| line == one) {
                    left.remove(at);
                }
            }
            left
        };
        let (more, less) = (without(&found, wanted), without(wanted, &found));
        Ok(if more.is_empty() && less.is_empty() {
            Ok(())
        } else {
            Err(format!("too much: {more:#?}, too little: {less:#?}"))
        })
    })
    .await
}
