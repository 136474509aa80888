//! The node's own certificate: got with a bootstrap token as `kubeadm join` leaves it,
//! renewed while pods run, and got once more when it has expired.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};
use tokio::fs;
use tokio::process::Command;

use crate::harness::{
    FOREVER, PATIENCE, Scene, Test, condition, container, poll_until, shell, tests, text,
};

pub const TESTS: &[Test] = tests!(Own:
    certificates_are_renewed_while_pods_run,
    an_expired_certificate_is_replaced_with_the_token,
    a_request_outlives_the_agent_that_filed_it,
);

/// Seconds that certificates live in these tests.
const LIFE: u64 = 60;
const SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";

/// Stops the agent, and makes the node one that has never been in the cluster: with a
/// token that kubeadm made, and no certificate.
async fn forget(t: &Scene) -> anyhow::Result<()> {
    kubeadm(
        t,
        &["init", "phase", "bootstrap-token", "--skip-token-print"],
    )
    .await?;
    let token = kubeadm(t, &["token", "create"]).await?;
    let authority = fs::read(path(t, "pki/ca.crt")).await?;
    let bootstrap = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "tls-bootstrap-token-user@kubernetes",
        "clusters": [{ "name": "kubernetes", "cluster": {
            "server": t.cluster.fact("APISERVER"),
            "certificate-authority-data": STANDARD.encode(authority),
        }}],
        "contexts": [{ "name": "tls-bootstrap-token-user@kubernetes", "context": {
            "cluster": "kubernetes", "user": "tls-bootstrap-token-user",
        }}],
        "users": [{ "name": "tls-bootstrap-token-user", "user": { "token": token.trim() } }],
    });
    fs::write(path(t, "bootstrap.kubeconfig"), bootstrap.to_string()).await?;
    t.cluster.ctl("stop", "kubelet").await?;
    let flags = format!(
        "--kubeconfig={} --bootstrap-kubeconfig={} --rotate-certificates=true",
        path(t, "joined.kubeconfig").display(),
        path(t, "bootstrap.kubeconfig").display(),
    );
    change_flag(t, "kubelet", "--kubeconfig=", &flags).await?;
    let short = format!("--leader-elect=false --cluster-signing-duration={LIFE}s");
    change_flag(t, "controller-manager", "--leader-elect=", &short).await?;
    t.cluster.ctl("restart", "controller-manager").await?;
    t.delete::<Node>(t.cluster.node_name()).await?;
    t.gone::<Node>(t.cluster.node_name()).await?;
    Ok(())
}

async fn kubeadm(t: &Scene, arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new(t.cluster.path("TOOLS").join("kubeadm"));
    command
        .args(arguments)
        .arg("--kubeconfig")
        .arg(t.cluster.fact("KUBECONFIG"));
    if arguments[0] == "init" {
        command.arg("--config").arg(path(t, "kubeadm.yaml"));
    }
    let output = command.output().await.context("kubeadm")?;
    let complaints = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "kubeadm {arguments:?}: {complaints}"
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// Replaces the flag that begins so in a component's command line.
async fn change_flag(t: &Scene, component: &str, begin: &str, flags: &str) -> anyhow::Result<()> {
    let file = path(t, "cmd").join(component);
    let script = fs::read_to_string(&file).await?;
    let start = script
        .find(begin)
        .with_context(|| format!("no {begin} in {script}"))?;
    let rest = script[start..].find(' ').unwrap_or(script.len() - start);
    let changed = format!("{}{flags}{}", &script[..start], &script[start + rest..]);
    fs::write(&file, changed).await.map_err(Into::into)
}

fn path(t: &Scene, name: &str) -> PathBuf {
    t.cluster.path("DIR").join(name)
}

fn current(t: &Scene) -> PathBuf {
    t.cluster
        .path("KUBELET_CERT_DIR")
        .join("kubelet-client-current.pem")
}

async fn node_is_ready(t: &Scene) -> anyhow::Result<Value> {
    let is_ready = |node: &Value| text(condition(node, "Ready"), "/status") == "True";
    t.until::<Node>(t.cluster.node_name(), "is Ready", is_ready)
        .await
}

/// Who has asked for a node's certificate, one name for each request.
async fn requestors(t: &Scene) -> anyhow::Result<Vec<String>> {
    let requests: Api<CertificateSigningRequest> = Api::all(t.cluster.client.clone());
    let all = requests.list(&ListParams::default()).await?.items;
    let ours = all
        .into_iter()
        .filter(|request| request.spec.signer_name == SIGNER);
    Ok(ours
        .map(|request| request.spec.username.unwrap_or_default())
        .collect())
}

async fn with_token(t: &Scene) -> anyhow::Result<usize> {
    let all = requestors(t).await?;
    Ok(all
        .iter()
        .filter(|name| name.starts_with("system:bootstrap:"))
        .count())
}

/// Waits until the certificate is another one than this.
async fn another(t: &Scene, before: &Path) -> anyhow::Result<PathBuf> {
    let patience = Duration::from_secs(2 * LIFE) + PATIENCE;
    poll_until("the certificate is renewed", patience, async || {
        let now = fs::read_link(current(t)).await?;
        Ok(if now == before {
            Err("it is the same".to_owned())
        } else {
            Ok(now)
        })
    })
    .await
}

fn identity(pod: &Value) -> (&str, &str) {
    let id = text(container(pod, "main"), "/containerID");
    (text(pod, "/metadata/uid"), id)
}

async fn certificates_are_renewed_while_pods_run(t: Scene) -> anyhow::Result<()> {
    forget(&t).await?;
    t.cluster.ctl("start", "kubelet").await?;
    node_is_ready(&t).await?;
    ensure!(with_token(&t).await? == 1, "{:?}", requestors(&t).await?);
    let kubeconfig = fs::read_to_string(path(&t, "joined.kubeconfig")).await?;
    ensure!(kubeconfig.contains("default-auth"), "{kubeconfig}");

    let before = t
        .ready_pod("before", json!([shell("main", FOREVER)]))
        .await?;
    let first = fs::read_link(current(&t)).await?;
    let second = another(&t, &first).await?;
    // By then the first one has expired.
    another(&t, &second).await?;
    t.ready_pod("after", json!([shell("main", FOREVER)]))
        .await?;
    let still = t
        .pod_until("before", "is ready", crate::harness::is_ready)
        .await?;
    ensure!(identity(&still) == identity(&before), "{still}");
    ensure!(with_token(&t).await? == 1, "{:?}", requestors(&t).await?);
    let log = t.cluster.agent_log().await?;
    let refused = log.lines().find(|line| line.contains("Unauthorized"));
    ensure!(refused.is_none(), "{refused:?}");
    t.delete_pod_within("before", 60).await
}

async fn an_expired_certificate_is_replaced_with_the_token(t: Scene) -> anyhow::Result<()> {
    forget(&t).await?;
    t.cluster.ctl("start", "kubelet").await?;
    node_is_ready(&t).await?;
    let before = t
        .ready_pod("before", json!([shell("main", FOREVER)]))
        .await?;
    t.cluster.ctl("stop", "kubelet").await?;
    let pem = current(&t);
    let expired = async || {
        let text = fs::read(&pem).await?;
        let (_, pem) = x509_parser::pem::parse_x509_pem(&text)?;
        let certificate = pem.parse_x509()?;
        Ok(if certificate.validity().is_valid() {
            Err("it is valid".to_owned())
        } else {
            Ok(())
        })
    };
    poll_until("the certificate has expired", PATIENCE, expired).await?;
    let last = fs::read_link(&pem).await?;
    t.cluster.ctl("start", "kubelet").await?;
    another(&t, &last).await?;
    ensure!(with_token(&t).await? == 2, "{:?}", requestors(&t).await?);
    let after = t
        .ready_pod("after", json!([shell("main", FOREVER)]))
        .await?;
    ensure!(text(&after, "/spec/nodeName") == t.cluster.node_name());
    let still = t
        .pod_until("before", "is ready", crate::harness::is_ready)
        .await?;
    ensure!(identity(&still) == identity(&before), "{still}");
    Ok(())
}

async fn a_request_outlives_the_agent_that_filed_it(t: Scene) -> anyhow::Result<()> {
    forget(&t).await?;
    t.cluster.ctl("stop", "controller-manager").await?;
    t.cluster.ctl("start", "kubelet").await?;
    let asked = async || {
        let count = with_token(&t).await?;
        Ok(if count == 1 {
            Ok(())
        } else {
            Err(format!("{count} requests"))
        })
    };
    poll_until("the node asks for its certificate", PATIENCE, asked).await?;
    ensure!(!fs::try_exists(path(&t, "joined.kubeconfig")).await?);
    t.cluster.ctl("kill", "kubelet").await?;
    t.cluster.ctl("start", "kubelet").await?;
    let again = async || {
        let log = t.cluster.agent_log().await?;
        let found = log.contains("has been asked for before");
        Ok(if found {
            Ok(())
        } else {
            Err("nothing in the log".to_owned())
        })
    };
    poll_until("it finds its request", PATIENCE, again).await?;
    t.cluster.ctl("start", "controller-manager").await?;
    node_is_ready(&t).await?;
    ensure!(with_token(&t).await? == 1, "{:?}", requestors(&t).await?);
    Ok(())
}
