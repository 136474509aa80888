//! The real metrics-server, as a process beside the node, registered with the API server.

use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;

use anyhow::Context;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::harness::{PATIENCE, Scene, poll_until};

const API: &str = "v1beta1.metrics.k8s.io";

/// Ends with its value.
pub struct MetricsServer {
    _process: Child,
    _certificates: tempfile::TempDir,
}

impl MetricsServer {
    /// Starts it and waits until the API server knows metrics of nodes.
    pub async fn start(t: &Scene) -> anyhow::Result<Self> {
        let tools = run("build-tools", &["metrics-server"]).await?;
        let port = free_port()?;
        let certificates = tempfile::tempdir()?;
        let kubeconfig = t.cluster.fact("KUBECONFIG");
        let log = t.cluster.path("LOG_DIR").join("metrics-server.log");
        let log = std::fs::File::create(log)?;
        let process = script("exec")
            .arg(t.cluster.name())
            .arg(Path::new(tools.trim()).join("metrics-server"))
            .arg(format!("--secure-port={port}"))
            .arg(format!("--cert-dir={}", certificates.path().display()))
            .args(["--kubelet-insecure-tls", "--metric-resolution=10s"])
            .arg("--kubelet-request-timeout=5s")
            .arg("--kubelet-preferred-address-types=InternalIP")
            .args(
                [
                    "kubeconfig",
                    "authentication-kubeconfig",
                    "authorization-kubeconfig",
                ]
                .map(|flag| format!("--{flag}={kubeconfig}")),
            )
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log))
            .spawn()
            .context("metrics-server")?;
        let server = Self {
            _process: process,
            _certificates: certificates,
        };
        register(t, port).await?;
        let nodes = "/apis/metrics.k8s.io/v1beta1/nodes";
        let look = || async {
            let answer = t.raw(nodes).await.map_err(|error| format!("{error:#}"));
            Ok(answer.and_then(|text| {
                let list: Value = serde_json::from_str(&text).unwrap_or_default();
                let is_empty = list["items"].as_array().is_none_or(Vec::is_empty);
                if is_empty { Err(text) } else { Ok(()) }
            }))
        };
        poll_until("metrics-server knows the node", PATIENCE, look).await?;
        Ok(server)
    }

    /// Takes it out of the API again, which is not whole while nobody serves that group.
    pub async fn withdraw(self, t: &Scene) -> anyhow::Result<()> {
        t.delete::<APIService>(API).await
    }
}

/// A service whose "name" is the node's address: the API server needs neither a
/// service proxy nor DNS to find it.
async fn register(t: &Scene, port: u16) -> anyhow::Result<()> {
    let service = json!({ "spec": {
        "type": "ExternalName",
        "externalName": t.cluster.fact("NODE_IP"),
        "ports": [{ "port": port }],
    }});
    t.apply::<Service>("metrics-server", service).await?;
    let api = json!({ "spec": {
        "group": "metrics.k8s.io",
        "version": "v1beta1",
        "groupPriorityMinimum": 100,
        "versionPriority": 100,
        "insecureSkipTLSVerify": true,
        "service": { "namespace": t.namespace, "name": "metrics-server", "port": port },
    }});
    t.apply::<APIService>(API, api).await?;
    Ok(())
}

/// A port that nobody listens on now. The node's network is its own, so nobody is
/// likely to take it before metrics-server does.
fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// `kubectl top` with these arguments.
pub async fn top(t: &Scene, arguments: &[&str]) -> anyhow::Result<String> {
    let all: Vec<&str> = [t.cluster.name(), "top"]
        .iter()
        .chain(arguments)
        .copied()
        .collect();
    run("kubectl", &all).await
}

fn script(name: &str) -> Command {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("hack/cluster");
    let mut command = Command::new(directory.join(name));
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn run(name: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = script(name).args(arguments).output().await?;
    let complaints = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{name}: {complaints}");
    Ok(String::from_utf8(output.stdout)?)
}
