//! The ways in from outside of the cluster: node ports, external addresses, load balancers.

use anyhow::ensure;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::client::{Answer, From, until_only};
use super::{client_pod, selecting, serve, service};
use crate::harness::{PATIENCE, Scene, Test, number, poll_until, tests};

pub const TESTS: &[Test] = tests!(Shared:
    a_node_port_answers_on_the_nodes_addresses,
    external_addresses_lead_to_the_service,
    a_load_balancers_address_is_for_its_source_ranges,
    a_health_check_port_counts_local_endpoints,
);

async fn a_node_port_answers_on_the_nodes_addresses(t: Scene) -> anyhow::Result<()> {
    let client = client_pod(&t).await?;
    serve(&t, "a", "web").await?;
    let mut spec = selecting("web");
    spec["type"] = "NodePort".into();
    service(&t, "web", spec).await?;
    let found = t.get::<Service>("web").await?;
    let port = number(&found, "/spec/ports/0/nodePort");
    let url = |address: &str| format!("http://{address}:{port}/hostname");
    let node = url(t.cluster.fact("NODE_IP"));
    for from in [From::Host, client, From::Node] {
        until_only(&t, from, &node, &["a"]).await?;
    }
    until_only(&t, From::Node, &url("127.0.0.1"), &["a"]).await
}

async fn external_addresses_lead_to_the_service(t: Scene) -> anyhow::Result<()> {
    const ADDRESS: &str = "192.0.2.71";
    let client = client_pod(&t).await?;
    serve(&t, "a", "web").await?;
    let mut spec = selecting("web");
    spec["externalIPs"] = json!([ADDRESS]);
    service(&t, "web", spec).await?;
    let url = format!("http://{ADDRESS}/hostname");
    for from in [From::Node, client] {
        until_only(&t, from, &url, &["a"]).await?;
    }
    t.delete::<Pod>("a").await?;
    // What the node itself sends there goes out, as to any address without a service.
    client.until(&t, &url, Answer::Refused).await
}

/// Does a cloud's part.
async fn give_address(t: &Scene, name: &str, address: &str) -> anyhow::Result<()> {
    let status = json!({ "status": { "loadBalancer": { "ingress": [{ "ip": address }] } } });
    let api = t.api::<Service>();
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(status))
        .await?;
    Ok(())
}

async fn a_load_balancers_address_is_for_its_source_ranges(t: Scene) -> anyhow::Result<()> {
    const ADDRESS: &str = "192.0.2.72";
    let client = client_pod(&t).await?;
    serve(&t, "a", "web").await?;
    let spec = |ranges: Value| {
        let mut spec = selecting("web");
        spec["type"] = "LoadBalancer".into();
        spec["loadBalancerSourceRanges"] = ranges;
        spec
    };
    let ip = service(&t, "web", spec(json!([t.cluster.fact("POD_CIDR")]))).await?;
    give_address(&t, "web", ADDRESS).await?;
    let url = format!("http://{ADDRESS}/hostname");
    until_only(&t, client, &url, &["a"]).await?;
    service(&t, "web", spec(json!(["203.0.113.0/24"]))).await?;
    client.until(&t, &url, Answer::Silence).await?;
    // The cluster's own way in knows no ranges.
    let inner = format!("http://{ip}/hostname");
    until_only(&t, client, &inner, &["a"]).await
}

async fn a_health_check_port_counts_local_endpoints(t: Scene) -> anyhow::Result<()> {
    const ADDRESS: &str = "192.0.2.73";
    for name in ["a", "b"] {
        serve(&t, name, "web").await?;
    }
    let mut spec = selecting("web");
    spec["type"] = "LoadBalancer".into();
    spec["externalTrafficPolicy"] = "Local".into();
    service(&t, "web", spec).await?;
    give_address(&t, "web", ADDRESS).await?;
    let url = format!("http://{ADDRESS}/hostname");
    until_only(&t, From::Node, &url, &["a", "b"]).await?;
    let found = t.get::<Service>("web").await?;
    let port = number(&found, "/spec/healthCheckNodePort");
    ensure!(port > 0, "{found}");
    let url = format!("http://{}:{port}/healthz", t.cluster.fact("NODE_IP"));
    for (count, gone) in [(2, None), (1, Some("a")), (0, Some("b"))] {
        if let Some(name) = gone {
            t.delete::<Pod>(name).await?;
        }
        let what = format!("{count} local endpoints");
        let answer = poll_until(&what, PATIENCE, || async {
            let answer = From::Host.get(&t, &url).await?;
            let Answer::Body(text) = answer else {
                return Ok(Err(format!("{answer:?}")));
            };
            let health: Value = serde_json::from_str(&text)?;
            Ok(if health["localEndpoints"] == count {
                Ok(health)
            } else {
                Err(text)
            })
        })
        .await?;
        let whose = json!({ "namespace": t.namespace, "name": "web" });
        ensure!(answer["service"] == whose, "{answer}");
    }
    // Load balancers go by the code.
    let code = t.cluster.exec([
        "curl",
        "--silent",
        "--output",
        "/dev/null",
        "--write-out",
        "%{http_code}",
        &url,
    ]);
    let code = code.await?;
    ensure!(code == "503", "{code}");
    Ok(())
}
