//! A real ingress controller in a pod, Zalando's skipper: it finds the API server by its
//! service, and leads requests to other services by the host that they name. On a cluster
//! of its own, as there is one DNS server in a cluster.

use futures::try_join;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::networking::v1::Ingress;
use serde_json::{Value, json};

use super::client::{Answer, From};
use super::names::start_dns;
use super::{HTTP, account, client_pod, selecting, serve, service};
use crate::harness::{PATIENCE, Scene, Test, is_ready, number, poll_until, tests};

pub const TESTS: &[Test] = tests!(Own: an_ingress_controller_leads_hosts_to_services);

const IMAGE: &str = "registry.opensource.zalan.do/teapot/skipper:v0.23.0";

/// Where skipper listens.
const PORT: u16 = 9090;

/// The controllers' names, and whether each goes on to services by name.
const CONTROLLERS: [(&str, bool); 2] = [("by-endpoint", false), ("by-name", true)];

async fn an_ingress_controller_leads_hosts_to_services(t: Scene) -> anyhow::Result<()> {
    try_join!(start_dns(&t), backend(&t, "a"), backend(&t, "b"))?;
    route(&t, &[("a.example", "a"), ("b.example", "b")]).await?;
    let ways = start_controllers(&t).await?;
    for (host, pod) in [("a.example", "a"), ("b.example", "b")] {
        until_all_hear(&t, &ways, host, Answer::Body(pod.into())).await?;
    }
    until_all_hear(&t, &ways, "c.example", Answer::Status(404)).await?;

    route(&t, &[("a.example", "a"), ("c.example", "a")]).await?;
    for host in ["c.example", "a.example"] {
        until_all_hear(&t, &ways, host, Answer::Body("a".into())).await?;
    }
    until_all_hear(&t, &ways, "b.example", Answer::Status(404)).await?;

    t.delete::<Pod>("a").await?;
    serve(&t, "successor", "a").await?;
    for host in ["a.example", "c.example"] {
        until_all_hear(&t, &ways, host, Answer::Body("successor".into())).await?;
    }
    Ok(())
}

/// A pod behind a service of the same name.
async fn backend(t: &Scene, name: &str) -> anyhow::Result<()> {
    let mut spec = selecting(name);
    // Where skipper goes by a service's name, it takes the target's port.
    spec["ports"] = json!([{ "port": HTTP }]);
    service(t, name, spec).await?;
    serve(t, name, name).await.map(drop)
}

/// Makes rules of these: hosts, each with the service that it leads to.
async fn route(t: &Scene, hosts: &[(&str, &str)]) -> anyhow::Result<()> {
    let rule = |&(host, service): &(&str, &str)| {
        let backend = json!({ "service": { "name": service, "port": { "number": HTTP } } });
        let path = json!({ "path": "/", "pathType": "Prefix", "backend": backend });
        json!({ "host": host, "http": { "paths": [path] } })
    };
    let rules: Vec<Value> = hosts.iter().map(rule).collect();
    t.apply::<Ingress>("web", json!({ "spec": { "rules": rules } }))
        .await?;
    Ok(())
}

/// Who asks a controller, and at which of its addresses.
struct Way {
    from: From,
    address: String,
}

/// Starts two, and gives the ways to them: from outside by a node port, from a pod by a
/// cluster IP. One goes on to services' endpoints, as most controllers do; the other to
/// services by name, so that its requests take two more rules: to the DNS server, and to
/// the service.
async fn start_controllers(t: &Scene) -> anyhow::Result<Vec<Way>> {
    t.cluster.import_image("skipper").await?;
    let rules = json!([
        { "apiGroups": ["networking.k8s.io"], "resources": ["ingresses"], "verbs": ["list"] },
        { "apiGroups": [""], "resources": ["services"], "verbs": ["list"] },
        { "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list"] },
    ]);
    account(t, "skipper", rules).await?;
    let client = client_pod(t).await?;
    let mut ways = Vec::new();
    for (name, by_name) in CONTROLLERS {
        t.apply::<Pod>(name, controller(name, by_name)).await?;
        let mut spec = selecting(name);
        spec["type"] = "NodePort".into();
        spec["ports"] = json!([{ "port": 80, "targetPort": PORT }]);
        let cluster_ip = service(t, name, spec).await?;
        let found = t.get::<Service>(name).await?;
        let node_port = number(&found, "/spec/ports/0/nodePort");
        ways.push(Way {
            from: From::Host,
            address: format!("{}:{node_port}", t.cluster.fact("NODE_IP")),
        });
        ways.push(Way {
            from: client,
            address: format!("{cluster_ip}:80"),
        });
    }
    // Which says that they have read the API.
    for (name, _) in CONTROLLERS {
        t.pod_until(name, "is ready", is_ready).await?;
    }
    Ok(ways)
}

fn controller(name: &str, by_name: bool) -> Value {
    json!({
        "metadata": { "labels": { "app": name } },
        "spec": {
            "serviceAccountName": "skipper",
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "skipper",
                "image": IMAGE,
                "imagePullPolicy": "IfNotPresent",
                "args": [
                    "skipper",
                    format!("-address=:{PORT}"),
                    "-kubernetes",
                    "-kubernetes-in-cluster",
                    "-enable-kubernetes-endpointslices",
                    format!("-kubernetes-force-service={by_name}"),
                    "-source-poll-timeout=500",
                ],
                "readinessProbe": {
                    "httpGet": { "path": "/kube-system/healthz", "port": PORT },
                    "periodSeconds": 1,
                },
            }],
        },
    })
}

/// Asks on every way until it hears this answer, and this alone several times in a row.
async fn until_all_hear(t: &Scene, ways: &[Way], host: &str, wanted: Answer) -> anyhow::Result<()> {
    const IN_A_ROW: usize = 4;
    let url = format!("http://{host}/hostname");
    for Way { from, address } in ways {
        let what = format!("{from:?} asks {address} for {host} and hears {wanted:?}");
        poll_until(&what, PATIENCE, || async {
            for _ in 0..IN_A_ROW {
                let answer = from.get_at(t, address, &url).await?;
                if answer != wanted {
                    return Ok(Err(format!("{answer:?}")));
                }
            }
            Ok(Ok(()))
        })
        .await?;
    }
    Ok(())
}
