//! CoreDNS itself in a pod: it finds the API server by its service, and pods find it by
//! its own. On a cluster of its own, as there is one DNS server in a cluster.

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use serde_json::json;

use super::client::{Answer, From};
use super::{HTTP, account, selecting, serve, service};
use crate::harness::{PATIENCE, Scene, Test, is_ready, poll_until, tests, text};
use crate::network::cluster_dns;

pub const TESTS: &[Test] = tests!(Own: pods_find_services_by_name);

const IMAGE: &str = "registry.k8s.io/coredns/coredns:v1.14.7";

/// As kubeadm's, but for a forwarder, which would ask outside of the cluster.
const CONFIGURATION: &str = "\
.:53 {
    errors
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa
}
";

async fn pods_find_services_by_name(t: Scene) -> anyhow::Result<()> {
    start_dns(&t).await?;
    let asker = serve(&t, "asker", "asker").await?;
    serve(&t, "a", "web").await?;
    service(&t, "web", selecting("web")).await?;
    // In its own namespace, and by the whole name.
    for name in ["web", &format!("web.{}.svc.cluster.local", t.namespace)] {
        let url = format!(
            "http://{}:{HTTP}/dial?protocol=http&request=hostname&host={name}&port=80",
            text(&asker, "/status/podIP")
        );
        let what = format!("{name} leads to a");
        poll_until(&what, PATIENCE, || async {
            let answer = From::Host.get(&t, &url).await?;
            Ok(match answer {
                Answer::Body(said) if said.trim() == r#"{"responses":["a"]}"# => Ok(()),
                other => Err(format!("{other:?}")),
            })
        })
        .await?;
    }
    Ok(())
}

/// CoreDNS behind the address that the node tells pods.
pub async fn start_dns(t: &Scene) -> anyhow::Result<()> {
    t.cluster.import_image("coredns").await?;
    let rules = json!([
        {
            "apiGroups": [""],
            "resources": ["services", "pods", "namespaces"],
            "verbs": ["list", "watch"],
        },
        {
            "apiGroups": ["discovery.k8s.io"],
            "resources": ["endpointslices"],
            "verbs": ["list", "watch"],
        },
    ]);
    account(t, "coredns", rules).await?;
    t.apply::<ConfigMap>("coredns", json!({ "data": { "Corefile": CONFIGURATION } }))
        .await?;
    let pod = json!({
        "metadata": { "labels": { "app": "dns" } },
        "spec": {
            "serviceAccountName": "coredns",
            "dnsPolicy": "Default",
            "terminationGracePeriodSeconds": 1,
            "volumes": [{ "name": "configuration", "configMap": { "name": "coredns" } }],
            "containers": [{
                "name": "coredns",
                "image": IMAGE,
                "imagePullPolicy": "IfNotPresent",
                "args": ["-conf", "/etc/coredns/Corefile"],
                "volumeMounts": [{ "name": "configuration", "mountPath": "/etc/coredns" }],
                "readinessProbe": {
                    "httpGet": { "path": "/ready", "port": 8181 },
                    "periodSeconds": 1,
                },
            }],
        },
    });
    t.apply::<Pod>("dns", pod).await?;
    t.pod_until("dns", "is ready", is_ready).await?;
    let spec = json!({ "spec": {
        "clusterIP": cluster_dns(t)?,
        "selector": { "app": "dns" },
        "ports": [
            { "name": "dns", "port": 53, "protocol": "UDP" },
            { "name": "dns-tcp", "port": 53, "protocol": "TCP" },
        ],
    }});
    t.apply::<Service>("dns", spec).await?;
    Ok(())
}
