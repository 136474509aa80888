//! The node's API as callers meet it who may, who may not, and who mean ill.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::future::try_join_all;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::harness::{FOREVER, PATIENCE, Scene, Test, poll_until, shell, tests, text};

pub const TESTS: &[Test] = tests!(Shared:
    callers_without_credentials_or_with_bad_ones_get_nothing,
    a_caller_gets_what_its_role_grants_and_no_more,
    no_path_leads_around_a_role,
    the_nodes_own_pages_are_there,
);

/// What changes the node's files or counts all of its connections.
pub const OWN_TESTS: &[Test] = tests!(Own:
    silent_slow_and_oversize_callers_cost_nothing_that_lasts,
    a_client_ca_that_is_added_counts_soon,
    the_serving_certificate_comes_from_the_clusters_signer,
);

const PORT: u16 = 10250;
/// Connections that an ill-meaning caller opens.
const SWARM: usize = 300;

/// One call with curl: options, then the path. The status, and the body.
async fn call(t: &Scene, options: &[&str], path: &str) -> anyhow::Result<(u16, String)> {
    let url = format!("https://{}:{PORT}{path}", t.cluster.fact("NODE_IP"));
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--insecure", "--path-as-is"])
        .args(["--max-time", "30", "--write-out", "\n%{http_code}"])
        .args(options)
        .arg(&url)
        .stdin(Stdio::null())
        .output()
        .await
        .context("curl")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    let (body, status) = said.rsplit_once('\n').context(complaint)?;
    Ok((status.parse()?, body.to_owned()))
}

/// A service account's token, and the header that shows it.
async fn bearer(t: &Scene) -> anyhow::Result<String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(t.cluster.client.clone(), &t.namespace);
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            expiration_seconds: Some(600),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    };
    let answer = accounts
        .create_token_request("default", &PostParams::default(), &request)
        .await?;
    let token = answer.status.and_then(|status| status.token);
    let token = token.context("no token")?;
    Ok(format!("Authorization: Bearer {token}"))
}

/// Lets the namespace's default account do this with these subresources of nodes.
async fn grant(t: &Scene, verbs: &[&str], resources: &[&str]) -> anyhow::Result<()> {
    let name = format!("callers-{}", t.namespace);
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": { "name": name },
        "rules": [{ "apiGroups": [""], "resources": resources, "verbs": verbs }],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": { "name": name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name },
        "subjects": [{ "kind": "ServiceAccount", "name": "default", "namespace": t.namespace }],
    });
    let manner = PatchParams::apply("kubelet-rs-tests").force();
    let roles = t.cluster.api::<ClusterRole>(None);
    roles.patch(&name, &manner, &Patch::Apply(&role)).await?;
    let bindings = t.cluster.api::<ClusterRoleBinding>(None);
    bindings
        .patch(&name, &manner, &Patch::Apply(&binding))
        .await?;
    Ok(())
}

/// Certificate and key of the cluster's administrator, as files.
async fn admin(t: &Scene, directory: &Path) -> anyhow::Result<[String; 2]> {
    let text = tokio::fs::read_to_string(t.cluster.fact("KUBECONFIG")).await?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(name));
        STANDARD
            .decode(line.context(name.to_owned())?.trim())
            .context(name.to_owned())
    };
    let files = ["client.crt", "client.key"].map(|name| directory.join(name));
    tokio::fs::write(&files[0], field("client-certificate-data:")?).await?;
    tokio::fs::write(&files[1], field("client-key-data:")?).await?;
    Ok(files.map(|path| path.display().to_string()))
}

/// A client's certificate that signed itself, as files.
async fn stranger(directory: &Path) -> anyhow::Result<[String; 2]> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::new())?;
    params
        .distinguished_name
        .push(DnType::CommonName, "system:admin");
    params
        .distinguished_name
        .push(DnType::OrganizationName, "system:masters");
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.self_signed(&key)?;
    let files = ["stranger.crt", "stranger.key"].map(|name| directory.join(name));
    tokio::fs::write(&files[0], certificate.pem()).await?;
    tokio::fs::write(&files[1], key.serialize_pem()).await?;
    Ok(files.map(|path| path.display().to_string()))
}

const PATHS: [&str; 7] = [
    "/pods",
    "/metrics",
    "/configz",
    "/stats/summary",
    "/runningpods/",
    "/logs/",
    "/containerLogs/default/a/b",
];

async fn callers_without_credentials_or_with_bad_ones_get_nothing(t: Scene) -> anyhow::Result<()> {
    let directory = t.host_directory().await?;
    let [certificate, key] = stranger(&directory).await?;
    let credentials: [&[&str]; 4] = [
        &[],
        &["--header", "Authorization: Bearer of-bad-news"],
        &["--header", "Authorization: Basic YTpi"],
        &["--cert", &certificate, "--key", &key],
    ];
    for options in credentials {
        for path in PATHS {
            let answer = call(&t, options, path).await?;
            ensure!(
                answer.0 == 401 && answer.1.trim_end() == "Unauthorized",
                "{options:?} {path}: {answer:?}"
            );
        }
    }
    let [certificate, key] = admin(&t, &directory).await?;
    let options = ["--cert", &certificate, "--key", &key];
    let (status, body) = call(&t, &options, "/pods").await?;
    ensure!(status == 200 && body.contains("PodList"), "{status} {body}");
    Ok(())
}

async fn a_caller_gets_what_its_role_grants_and_no_more(t: Scene) -> anyhow::Result<()> {
    let header = bearer(&t).await?;
    let options = ["--header", header.as_str()];
    let user = format!("system:serviceaccount:{}:default", t.namespace);
    let (status, body) = call(&t, &options, "/stats/summary").await?;
    let wanted =
        format!("Forbidden (user={user}, verb=get, resource=nodes, subresource(s)=[stats])");
    ensure!(
        status == 403 && body.trim_end() == wanted,
        "{status} {body}"
    );
    grant(
        &t,
        &["get"],
        &["nodes/metrics", "nodes/pods", "nodes/healthz"],
    )
    .await?;
    let granted = async || {
        let (status, body) = call(&t, &options, "/metrics").await?;
        Ok(if status == 200 { Ok(()) } else { Err(body) })
    };
    poll_until("the role counts", PATIENCE, granted).await?;
    for (path, wanted) in [
        ("/metrics", 200),
        ("/healthz", 200),
        ("/pods", 200),
        ("/runningpods/", 200),
        ("/configz", 403),
        ("/logs/", 403),
    ] {
        let (status, body) = call(&t, &options, path).await?;
        ensure!(status == wanted, "{path}: {status} {body:.200}");
    }
    let post = ["--header", header.as_str(), "--request", "POST"];
    let (status, _) = call(&t, &post, "/run/default/a/b?cmd=id").await?;
    ensure!(status == 403, "run: {status}");
    Ok(())
}

/// Whoever may read metrics must not reach logs by way of odd paths.
async fn no_path_leads_around_a_role(t: Scene) -> anyhow::Result<()> {
    let secret = "a-secret-of-the-pod";
    let script = format!("echo {secret}; {FOREVER}");
    let pod = t
        .ready_pod("keeps", json!([shell("main", &script)]))
        .await?;
    t.log_until(&pod, "main", secret).await?;
    grant(&t, &["get"], &["nodes/metrics"]).await?;
    let header = bearer(&t).await?;
    let options = ["--header", header.as_str()];
    let granted = async || {
        let (status, body) = call(&t, &options, "/metrics").await?;
        Ok(if status == 200 { Ok(()) } else { Err(body) })
    };
    poll_until("the role counts", PATIENCE, granted).await?;
    let log = format!("containerLogs/{}/keeps/main", t.namespace);
    for path in [
        format!("/{log}"),
        format!("/metrics/../{log}"),
        format!("/metrics/%2e%2e/{log}"),
        format!("/metrics/..%2f{log}"),
        format!("/metrics//../{log}"),
        format!("//{log}"),
        format!("/./{log}"),
        format!("/%63ontainerLogs/{}/keeps/main", t.namespace),
        format!("/metrics/..;/{log}"),
        format!("/METRICS/../{log}"),
    ] {
        let (status, body) = call(&t, &options, &path).await?;
        ensure!(
            status != 200 && !body.contains(secret),
            "{path}: {status} {body}"
        );
    }
    Ok(())
}

async fn the_nodes_own_pages_are_there(t: Scene) -> anyhow::Result<()> {
    t.ready_pod("shown", json!([shell("main", FOREVER)]))
        .await?;
    let page = async |path: &str| -> anyhow::Result<String> {
        let node = t.cluster.node_name();
        let request = http::Request::get(format!("/api/v1/nodes/{node}/proxy/{path}"));
        let text = t
            .cluster
            .client
            .request_text(request.body(Vec::new())?)
            .await;
        text.with_context(|| path.to_owned())
    };
    ensure!(page("healthz").await? == "ok", "healthz");
    let verbose = page("healthz?verbose").await?;
    ensure!(verbose.contains("[+]syncloop ok"), "{verbose}");
    let pods: Value = serde_json::from_str(&page("pods").await?)?;
    let mine = pods["items"].as_array().into_iter().flatten().find(|pod| {
        text(pod, "/metadata/namespace") == t.namespace && text(pod, "/metadata/name") == "shown"
    });
    let mine = mine.with_context(|| pods.to_string())?;
    ensure!(text(mine, "/status/phase") == "Running", "{mine}");
    let running: Value = serde_json::from_str(&page("runningpods/").await?)?;
    let is_mine = |pod: &Value| text(pod, "/metadata/namespace") == t.namespace;
    let items = running["items"].as_array().context("no items")?;
    ensure!(items.iter().any(is_mine), "{running}");
    let configz: Value = serde_json::from_str(&page("configz").await?)?;
    let reserved = text(&configz, "/kubeletconfig/kubeReserved/cpu");
    ensure!(reserved == "50m", "{configz}");
    let metrics = page("metrics").await?;
    for name in ["kubelet_node_name", "kubelet_running_pods"] {
        ensure!(metrics.contains(&format!("# TYPE {name} gauge")), "{name}");
    }
    let name = "kubelet_runtime_operations_total";
    ensure!(
        metrics.contains(&format!("# TYPE {name} counter")),
        "{name}"
    );
    Ok(())
}

// === hostile connections ===

fn address(t: &Scene) -> anyhow::Result<SocketAddr> {
    Ok(SocketAddr::new(t.cluster.fact("NODE_IP").parse()?, PORT))
}

async fn open_files(t: &Scene) -> anyhow::Result<usize> {
    let pid = t.cluster.ctl("pid", "kubelet").await?;
    Ok(std::fs::read_dir(format!("/proc/{}/fd", pid.trim()))?.count())
}

async fn silent_slow_and_oversize_callers_cost_nothing_that_lasts(t: Scene) -> anyhow::Result<()> {
    let (address, header) = (address(&t)?, bearer(&t).await?);
    let options = ["--header", header.as_str()];
    grant(&t, &["get"], &["nodes/healthz"]).await?;
    let healthy = async || {
        let (status, body) = call(&t, &options, "/healthz").await?;
        Ok(if status == 200 { Ok(()) } else { Err(body) })
    };
    poll_until("the node answers", PATIENCE, healthy).await?;
    let before = open_files(&t).await?;
    // Connections that say nothing, and ones that break off in the midst of the handshake.
    let swarm = (0..SWARM).map(|number| async move {
        let mut stream = TcpStream::connect(address).await?;
        if number % 2 == 0 {
            stream.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00]).await?;
        }
        Ok::<_, io::Error>(stream)
    });
    let swarm = try_join_all(swarm).await?;
    poll_until("the node answers beside them", PATIENCE, healthy).await?;
    // The node ends them by itself.
    let closed = swarm.into_iter().map(|mut stream| async move {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await
    });
    let all = tokio::time::timeout(PATIENCE, futures::future::join_all(closed)).await;
    ensure!(all.is_ok(), "silent connections are still open");
    let large = format!("X-Large: {}", "x".repeat(1_100_000));
    let file = t.host_directory().await?.join("header");
    tokio::fs::write(&file, large).await?;
    let large = format!("@{}", file.display());
    let oversize = ["--http1.1", "--header", &large, "--header", &header];
    // A server that will not read on may end the connection before curl has read why.
    match call(&t, &oversize, "/healthz").await {
        Ok((status, _)) => ensure!([431, 0].contains(&status), "oversize header: {status}"),
        Err(error) => ensure!(format!("{error:#}").contains("curl"), "{error:#}"),
    }
    let back = async || {
        let now = open_files(&t).await?;
        // Connections to the API server come and go.
        Ok(if now <= before + 8 {
            Ok(())
        } else {
            Err(format!("{now} after {before}"))
        })
    };
    poll_until("the agent's open files are as before", PATIENCE, back).await?;
    poll_until("the node still answers", PATIENCE, healthy).await
}

// === certificates ===

async fn a_client_ca_that_is_added_counts_soon(t: Scene) -> anyhow::Result<()> {
    let directory = t.host_directory().await?;
    let [certificate, key] = stranger(&directory).await?;
    let options = ["--cert", certificate.as_str(), "--key", key.as_str()];
    let (status, _) = call(&t, &options, "/healthz").await?;
    ensure!(status == 401, "before: {status}");
    let file = t.cluster.path("DIR").join("pki/ca.crt");
    let own = tokio::fs::read_to_string(&file).await?;
    // A certificate that signed itself is its own CA.
    let both = own.clone() + &tokio::fs::read_to_string(&certificate).await?;
    tokio::fs::write(&file, both).await?;
    let counts = async || {
        let (status, body) = call(&t, &options, "/healthz").await?;
        Ok(if status == 401 { Err(body) } else { Ok(()) })
    };
    poll_until("the added CA counts", PATIENCE, counts).await?;
    tokio::fs::write(&file, own).await?;
    let counts_no_more = async || {
        let (status, body) = call(&t, &options, "/healthz").await?;
        Ok(if status == 401 { Ok(()) } else { Err(body) })
    };
    poll_until("the removed CA counts no more", PATIENCE, counts_no_more).await
}

async fn the_serving_certificate_comes_from_the_clusters_signer(t: Scene) -> anyhow::Result<()> {
    let drop_in = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n\
                   serverTLSBootstrap: true\n";
    t.cluster.configure("20-serving.conf", drop_in).await?;
    let requests: Api<CertificateSigningRequest> = Api::all(t.cluster.client.clone());
    let name = poll_until("the node asks for a certificate", PATIENCE, || async {
        let list = requests.list(&ListParams::default()).await?;
        let asked = list
            .items
            .into_iter()
            .find(|request| request.spec.signer_name == "kubernetes.io/kubelet-serving");
        Ok(asked
            .and_then(|request| request.metadata.name)
            .ok_or_else(|| "no request".to_owned()))
    })
    .await?;
    let refused = call(&t, &[], "/healthz").await;
    ensure!(
        refused.is_err() || matches!(refused, Ok((0, _))),
        "{refused:?}"
    );
    let approval = json!({ "status": { "conditions": [{
        "type": "Approved", "status": "True", "reason": "Test", "message": "for the test",
    }]}});
    requests
        .patch_approval(&name, &PatchParams::default(), &Patch::Strategic(&approval))
        .await?;
    verified(&t).await?;
    let count = requests.list(&ListParams::default()).await?.items.len();
    t.cluster.ctl("restart", "kubelet").await?;
    verified(&t).await?;
    let after = requests.list(&ListParams::default()).await?.items.len();
    ensure!(
        after == count,
        "{after} requests after a restart, {count} before"
    );
    let node = t.get::<Node>(t.cluster.node_name()).await?;
    ensure!(node.is_object());
    Ok(())
}

/// Waits until a caller that trusts the cluster's CA alone is answered.
async fn verified(t: &Scene) -> anyhow::Result<()> {
    let ca = t.cluster.path("DIR").join("pki/ca.crt");
    let url = format!("https://{}:{PORT}/healthz", t.cluster.fact("NODE_IP"));
    let trusted = async || {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--max-time", "10", "--cacert"])
            .arg(&ca)
            .arg(&url)
            .output()
            .await?;
        let answer = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok(if answer.trim_end() == "Unauthorized" {
            Ok(())
        } else {
            Err(answer + &complaint)
        })
    };
    poll_until(
        "the certificate is the cluster's",
        Duration::from_secs(120),
        trusted,
    )
    .await
}
