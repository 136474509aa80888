//! Services as their clients meet them: from pods, from the node, and from outside of it.
//!
//! Nothing here looks at rules, but where the claim is that none are left: what counts is
//! who answers. The host of the tests is a client outside of the node, with a route to it.

mod client;
mod faults;
mod ingress;
mod iptables;
mod names;
mod outside;
mod policies;
mod traffic;
mod upgrade;

use anyhow::{Context, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use serde_json::{Value, json};

use crate::harness::{
    AGNHOST, FOREVER, PATIENCE, Scene, Test, condition, is_ready, number, poll_until, shell, tests,
    text,
};
use client::{Answer, From, UdpClient, until_only};

pub use faults::TESTS as FAULTS;
pub use ingress::TESTS as INGRESS;
pub use iptables::TESTS as IPTABLES;
pub use names::TESTS as NAMES;
pub use outside::TESTS as OUTSIDE;
pub use policies::TESTS as POLICIES;
pub use upgrade::TESTS as UPGRADE;

pub const TESTS: &[Test] = tests!(Shared:
    a_deployment_answers_behind_its_cluster_ip,
    endpoints_come_and_go_with_readiness,
    a_service_without_endpoints_refuses_at_once,
    a_pod_reaches_itself_through_its_service,
    a_udp_client_follows_when_its_endpoint_is_replaced,
    a_named_target_port_is_each_pods_own,
    odd_slices_harm_nobody_else,
    a_deleted_service_leaves_no_rules,
);

/// Where [`server`] listens, for TCP and UDP.
const HTTP: u16 = 8080;
const UDP: u16 = 8081;

/// A container that says over HTTP and UDP what its pod is called, and who asks.
fn server() -> Value {
    json!({
        "name": "main",
        "image": AGNHOST,
        "imagePullPolicy": "IfNotPresent",
        "args": ["netexec", format!("--http-port={HTTP}"), format!("--udp-port={UDP}")],
        "readinessProbe": {
            "httpGet": { "path": "/hostname", "port": HTTP },
            "periodSeconds": 1,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
    })
}

/// Makes a pod that serves, with the label `app`, and waits until it is ready.
async fn serve(t: &Scene, name: &str, app: &str) -> anyhow::Result<Value> {
    serve_with(t, name, app, server()).await
}

async fn serve_with(t: &Scene, name: &str, app: &str, container: Value) -> anyhow::Result<Value> {
    let pod = json!({
        "metadata": { "labels": { "app": app } },
        "spec": { "terminationGracePeriodSeconds": 1, "containers": [container] },
    });
    t.apply::<Pod>(name, pod).await?;
    t.pod_until(name, "is ready", is_ready).await
}

/// A pod to ask from.
async fn client_pod(t: &Scene) -> anyhow::Result<From> {
    let pod = t
        .ready_pod("client", json!([shell("main", FOREVER)]))
        .await?;
    From::pod(t, &pod).await
}

/// Makes a service of this spec; gives its cluster IP. Unless the spec has ports, it is
/// port 80 in front of [`server`]'s HTTP.
async fn service(t: &Scene, name: &str, mut spec: Value) -> anyhow::Result<String> {
    if spec.get("ports").is_none() {
        spec["ports"] = json!([{ "port": 80, "targetPort": HTTP }]);
    }
    let made = t.apply::<Service>(name, json!({ "spec": spec })).await?;
    Ok(text(&made, "/spec/clusterIP").to_owned())
}

/// Makes a slice of a service that has no selector. `endpoints` as in the API.
async fn slice(t: &Scene, name: &str, of: &str, endpoints: Value) -> anyhow::Result<Value> {
    let slice = json!({
        "metadata": { "labels": { "kubernetes.io/service-name": of } },
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{ "port": HTTP, "protocol": "TCP" }],
    });
    t.apply::<EndpointSlice>(name, slice).await
}

fn selecting(app: &str) -> Value {
    json!({ "selector": { "app": app } })
}

/// Makes a service account that may do this in the whole cluster: `rules` as in the API.
async fn account(t: &Scene, name: &str, rules: Value) -> anyhow::Result<()> {
    t.apply::<ClusterRole>(name, json!({ "rules": rules }))
        .await?;
    let account = json!({
        "kind": "ServiceAccount", "name": name, "namespace": t.namespace,
    });
    let binding = json!({
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name,
        },
        "subjects": [account],
    });
    t.apply::<ClusterRoleBinding>(name, binding).await?;
    t.apply::<ServiceAccount>(name, json!({})).await?;
    Ok(())
}

async fn a_deployment_answers_behind_its_cluster_ip(t: Scene) -> anyhow::Result<()> {
    let ip = service(&t, "web", selecting("web")).await?;
    let deployment = json!({ "spec": {
        "replicas": 2,
        "selector": { "matchLabels": { "app": "web" } },
        "template": {
            "metadata": { "labels": { "app": "web" } },
            "spec": { "terminationGracePeriodSeconds": 1, "containers": [server()] },
        },
    }});
    t.apply::<Deployment>("web", deployment).await?;
    let available = |found: &Value| condition(found, "Available")["status"] == "True";
    t.until::<Deployment>("web", "is available", available)
        .await?;
    let ready = |pods: &[&Value]| pods.len() == 2 && pods.iter().all(|pod| is_ready(pod));
    let pods = t.all_until::<Pod>("app=web", "are ready", ready).await?;
    let names: Vec<&str> = pods.iter().map(|pod| text(pod, "/metadata/name")).collect();

    let client = client_pod(&t).await?;
    let url = format!("http://{ip}/hostname");
    for from in [client, From::Node, From::Host] {
        until_only(&t, from, &url, &names).await?;
    }
    // Both get their share: of 60, fewer than ten to one of them is one case in ten million.
    let mut shares = vec![0; names.len()];
    for _ in 0..60 {
        let answer = From::Host.get(&t, &url).await?.body()?;
        let whose = names.iter().position(|name| *name == answer);
        shares[whose.with_context(|| answer.clone())?] += 1;
    }
    ensure!(shares.iter().all(|share| *share >= 10), "{shares:?}");
    // No name needs to be known to find it.
    let script = "printf %s $WEB_SERVICE_HOST:$WEB_SERVICE_PORT";
    let command = ["exec", "client", "--", "sh", "-c", script];
    let found = t.kubectl(&command).await?.text()?;
    let url = format!("http://{found}/hostname");
    let answer = client.get(&t, &url).await?.body()?;
    ensure!(names.contains(&answer.as_str()), "{found}: {answer}");
    Ok(())
}

async fn endpoints_come_and_go_with_readiness(t: Scene) -> anyhow::Result<()> {
    let ip = service(&t, "web", selecting("web")).await?;
    let url = format!("http://{ip}/hostname");
    let mut moody = server();
    moody["readinessProbe"] = json!({
        "exec": { "command": ["test", "!", "-e", "/tmp/unready"] },
        "periodSeconds": 1,
        "timeoutSeconds": 5,
        "failureThreshold": 1,
    });
    serve_with(&t, "moody", "web", moody).await?;
    serve(&t, "steady", "web").await?;
    until_only(&t, From::Node, &url, &["moody", "steady"]).await?;
    t.kubectl(&["exec", "moody", "--", "touch", "/tmp/unready"])
        .await?
        .text()?;
    until_only(&t, From::Node, &url, &["steady"]).await?;
    t.kubectl(&["exec", "moody", "--", "rm", "/tmp/unready"])
        .await?
        .text()?;
    until_only(&t, From::Node, &url, &["moody", "steady"]).await
}

async fn a_service_without_endpoints_refuses_at_once(t: Scene) -> anyhow::Result<()> {
    let client = client_pod(&t).await?;
    let mut spec = selecting("nobody");
    spec["type"] = "NodePort".into();
    let ip = service(&t, "web", spec).await?;
    let found = t.get::<Service>("web").await?;
    let node = t.cluster.fact("NODE_IP");
    let node_port = number(&found, "/spec/ports/0/nodePort");
    let urls = [
        format!("http://{ip}/"),
        format!("http://{node}:{node_port}/"),
    ];
    for url in &urls {
        for from in [client, From::Node, From::Host] {
            from.until(&t, url, Answer::Refused).await?;
        }
    }
    // With an endpoint it serves, without it refuses again.
    serve(&t, "a", "nobody").await?;
    until_only(&t, From::Node, &format!("http://{ip}/hostname"), &["a"]).await?;
    t.delete::<Pod>("a").await?;
    for url in &urls {
        From::Node.until(&t, url, Answer::Refused).await?;
    }
    Ok(())
}

async fn a_pod_reaches_itself_through_its_service(t: Scene) -> anyhow::Result<()> {
    let ip = service(&t, "self", selecting("self")).await?;
    let pod = serve(&t, "self", "self").await?;
    let client = From::pod(&t, &pod).await?;
    let url = format!("http://{ip}/clientip");
    let answer = poll_until("the pod answers itself", PATIENCE, || async {
        let answer = client.get(&t, &url).await?;
        Ok(answer.body().map_err(|error| format!("{error:#}")))
    })
    .await?;
    // A packet that comes back with its own source address would be taken for a fake.
    let own = text(&pod, "/status/podIP");
    ensure!(!answer.starts_with(&format!("{own}:")), "{answer}");
    Ok(())
}

async fn a_udp_client_follows_when_its_endpoint_is_replaced(t: Scene) -> anyhow::Result<()> {
    let mut spec = selecting("udp");
    spec["ports"] = json!([{ "port": 53, "targetPort": UDP, "protocol": "UDP" }]);
    let ip = service(&t, "udp", spec).await?;
    // It never falls silent, so that no flow of its ever expires.
    let client = UdpClient::start(&format!("{ip}:53"), "hostname").await?;
    for (name, former) in [("a", None), ("b", Some("a")), ("c", Some("b"))] {
        if let Some(former) = former {
            t.delete::<Pod>(former).await?;
        }
        serve(&t, name, "udp").await?;
        client.until_hears(name, PATIENCE).await?;
    }
    Ok(())
}

async fn a_named_target_port_is_each_pods_own(t: Scene) -> anyhow::Result<()> {
    let mut spec = selecting("named");
    spec["ports"] = json!([{ "port": 80, "targetPort": "web" }]);
    let ip = service(&t, "named", spec).await?;
    for (name, port) in [("old", 8080), ("new", 9090)] {
        let mut container = server();
        container["args"] = json!(["netexec", format!("--http-port={port}")]);
        container["ports"] = json!([{ "name": "web", "containerPort": port }]);
        container["readinessProbe"]["httpGet"]["port"] = "web".into();
        serve_with(&t, name, "named", container).await?;
    }
    let url = format!("http://{ip}/hostname");
    until_only(&t, From::Node, &url, &["old", "new"]).await
}

async fn odd_slices_harm_nobody_else(t: Scene) -> anyhow::Result<()> {
    let odd = service(&t, "odd", json!({})).await?;
    // The API knows these itself.
    for address in ["127.0.0.1", "169.254.169.254", "224.0.0.1", "0.0.0.0"] {
        let refused = slice(&t, "refused", "odd", json!([{ "addresses": [address] }])).await;
        ensure!(refused.is_err(), "{address} was taken");
    }
    // These get through.
    slice(&t, "odd-empty", "odd", json!([])).await?;
    slice(
        &t,
        "odd-nowhere",
        "nothing",
        json!([{ "addresses": ["192.0.2.1"] }]),
    )
    .await?;
    slice(
        &t,
        "odd-multicast",
        "odd",
        json!([{ "addresses": ["239.1.2.3"] }]),
    )
    .await?;
    let twins = json!([{ "addresses": ["255.255.255.255"] }]);
    slice(&t, "odd-twin-1", "odd", twins.clone()).await?;
    slice(&t, "odd-twin-2", "odd", twins).await?;
    let any_port = json!({
        "metadata": { "labels": { "kubernetes.io/service-name": "odd" } },
        "addressType": "IPv4",
        "endpoints": [{ "addresses": ["192.0.2.2"] }],
        "ports": [],
    });
    t.apply::<EndpointSlice>("odd-ports", any_port).await?;
    let named = json!({
        "metadata": { "labels": { "kubernetes.io/service-name": "odd" } },
        "addressType": "FQDN",
        "endpoints": [{ "addresses": ["example.org"] }],
        "ports": [{ "port": 80 }],
    });
    t.apply::<EndpointSlice>("odd-fqdn", named).await?;
    // What is made after all these works as ever, and what is mended works too.
    let good = service(&t, "good", selecting("good")).await?;
    let pod = serve(&t, "good", "good").await?;
    until_only(
        &t,
        From::Node,
        &format!("http://{good}/hostname"),
        &["good"],
    )
    .await?;
    for name in ["odd-multicast", "odd-twin-1", "odd-twin-2"] {
        t.delete::<EndpointSlice>(name).await?;
    }
    let address = text(&pod, "/status/podIP");
    slice(&t, "odd-mended", "odd", json!([{ "addresses": [address] }])).await?;
    until_only(&t, From::Node, &format!("http://{odd}/hostname"), &["good"]).await
}

async fn a_deleted_service_leaves_no_rules(t: Scene) -> anyhow::Result<()> {
    let mut spec = selecting("web");
    spec["type"] = "LoadBalancer".into();
    spec["externalTrafficPolicy"] = "Local".into();
    spec["externalIPs"] = json!(["192.0.2.77"]);
    let ip = service(&t, "short-lived", spec).await?;
    serve(&t, "a", "web").await?;
    until_only(&t, From::Node, &format!("http://{ip}/hostname"), &["a"]).await?;
    let service = format!("\"{}/short-lived", t.namespace);
    let rules = t.cluster.exec(["iptables-save"]).await?;
    let of_it = rules.lines().filter(|line| line.contains(&service));
    let mut chains: Vec<&str> = of_it
        .filter_map(|line| line.strip_prefix("-A ")?.split(' ').next())
        .filter(|chain| {
            [
                "KUBE-SVC-",
                "KUBE-EXT-",
                "KUBE-SVL-",
                "KUBE-SEP-",
                "KUBE-FW-",
            ]
            .iter()
            .any(|prefix| chain.starts_with(prefix))
        })
        .collect();
    chains.sort_unstable();
    chains.dedup();
    ensure!(chains.len() >= 3, "{chains:?} of\n{rules}");
    t.delete::<Service>("short-lived").await?;
    poll_until("the service's rules are gone", PATIENCE, || async {
        let rules = t.cluster.exec(["iptables-save"]).await?;
        let left = rules.lines().filter(|line| {
            line.contains(&service)
                || line.contains(&ip)
                || chains.iter().any(|chain| line.contains(chain))
        });
        let left: Vec<&str> = left.collect();
        Ok(if left.is_empty() {
            Ok(())
        } else {
            Err(left.join("\n"))
        })
    })
    .await
}
