//! Who may answer whom: affinity, traffic policies.

use anyhow::ensure;
use k8s_openapi::api::core::v1::{Pod, Service};
use serde_json::json;

use super::client::{Answer, From, until_only};
use super::{client_pod, selecting, serve, service, slice};
use crate::harness::{PATIENCE, Scene, Test, number, poll_until, tests, text};

pub const TESTS: &[Test] = tests!(Shared:
    a_client_sticks_to_its_endpoint,
    an_inner_policy_local_drops_without_local_endpoints,
    an_outer_policy_local_keeps_the_clients_address,
);

async fn a_client_sticks_to_its_endpoint(t: Scene) -> anyhow::Result<()> {
    let mut spec = selecting("web");
    spec["sessionAffinity"] = "ClientIP".into();
    spec["sessionAffinityConfig"] = json!({ "clientIP": { "timeoutSeconds": 600 } });
    let names = ["a", "b", "c"];
    for name in names {
        serve(&t, name, "web").await?;
    }
    let ip = service(&t, "sticky", spec).await?;
    let free = service(&t, "free", selecting("web")).await?;
    let url = format!("http://{ip}/hostname");
    // All three are endpoints, as the other service shows: it was made later.
    until_only(&t, From::Host, &format!("http://{free}/hostname"), &names).await?;
    From::Host.get(&t, &url).await?.body()?;
    for from in [From::Host, From::Node] {
        let first = from.get(&t, &url).await?.body()?;
        ensure!(names.contains(&first.as_str()), "{first}");
        for _ in 0..20 {
            let answer = from.get(&t, &url).await?.body()?;
            ensure!(answer == first, "{from:?}: {answer} after {first}");
        }
    }
    // Without its endpoint it has to go elsewhere, and stays there.
    let left = From::Host.get(&t, &url).await?.body()?;
    t.delete_pod_within(&left, 1).await?;
    t.gone::<Pod>(&left).await?;
    let next = poll_until("another endpoint", PATIENCE, || async {
        let answer = From::Host.get(&t, &url).await?;
        Ok(match answer {
            Answer::Body(name) if name != left => Ok(name),
            other => Err(format!("{other:?}")),
        })
    })
    .await?;
    for _ in 0..10 {
        let answer = From::Host.get(&t, &url).await?.body()?;
        ensure!(answer == next, "{answer} after {next}");
    }
    Ok(())
}

async fn an_inner_policy_local_drops_without_local_endpoints(t: Scene) -> anyhow::Result<()> {
    let client = client_pod(&t).await?;
    let pod = serve(&t, "a", "a").await?;
    let ip = service(&t, "web", json!({})).await?;
    let endpoint =
        |node: &str| json!([{ "addresses": [text(&pod, "/status/podIP")], "nodeName": node }]);
    slice(&t, "web-1", "web", endpoint("elsewhere")).await?;
    let url = format!("http://{ip}/hostname");
    until_only(&t, From::Node, &url, &["a"]).await?;
    service(&t, "web", json!({ "internalTrafficPolicy": "Local" })).await?;
    for from in [From::Node, client] {
        from.until(&t, &url, Answer::Silence).await?;
    }
    slice(&t, "web-1", "web", endpoint(t.cluster.node_name())).await?;
    for from in [From::Node, client] {
        until_only(&t, from, &url, &["a"]).await?;
    }
    Ok(())
}

async fn an_outer_policy_local_keeps_the_clients_address(t: Scene) -> anyhow::Result<()> {
    serve(&t, "a", "web").await?;
    let policy = |policy: &str| {
        let mut spec = selecting("web");
        spec["type"] = "NodePort".into();
        spec["externalTrafficPolicy"] = policy.into();
        spec
    };
    service(&t, "web", policy("Local")).await?;
    let found = t.get::<Service>("web").await?;
    let (node, host) = (t.cluster.fact("NODE_IP"), t.cluster.fact("HOST_IP"));
    let port = number(&found, "/spec/ports/0/nodePort");
    let url = format!("http://{node}:{port}/clientip");
    let asker = |wanted: &str| until_asker(&t, url.clone(), wanted.to_owned());
    asker(host).await?;
    // Any node may then be asked, and the answer has to come back by way of it. The
    // container sees the node's address on the pods' side.
    service(&t, "web", policy("Cluster")).await?;
    let stranger = |address: &str| address != host;
    poll_until("the node asks", PATIENCE, || async {
        let answer = From::Host.get(&t, &url).await?;
        Ok(match answer {
            Answer::Body(asker) if asker.rsplit_once(':').is_some_and(|(ip, _)| stranger(ip)) => {
                Ok(())
            }
            other => Err(format!("{other:?}")),
        })
    })
    .await
}

/// Asks from outside until the server sees this address as the client's.
async fn until_asker(t: &Scene, url: String, wanted: String) -> anyhow::Result<()> {
    let what = format!("{wanted} is seen as the client");
    poll_until(&what, PATIENCE, || async {
        let answer = From::Host.get(t, &url).await?;
        Ok(match answer {
            Answer::Body(asker) if asker.starts_with(&format!("{wanted}:")) => Ok(()),
            other => Err(format!("{other:?}")),
        })
    })
    .await
}
