//! A cluster made by `hack/cluster`: its facts, its API server, its components.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use kube::api::{Api, ApiResource, DynamicObject};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, Resource};
use serde_json::Value;
use tokio::process::Command;

use super::settings::{NodeKind, Settings};

/// What the kubelet gets as a drop-in on every cluster: reservations, so that capacity
/// and allocatable differ in a known way; logs that are rotated within seconds; and the
/// node log query, which is off by default.
const DROP_IN: &str = "\
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
kubeReserved: { cpu: 50m, memory: 64Mi }
systemReserved: { cpu: 30m, memory: 32Mi }
containerLogMaxSize: 1Mi
containerLogMaxFiles: 4
containerLogMonitorInterval: 3s
enableSystemLogQuery: true
";

pub struct Cluster {
    facts: BTreeMap<String, String>,
    pub client: Client,
    node: NodeKind,
    /// How long the API server is away in tests of that.
    pub outage: Duration,
    containerd_was_ended: AtomicBool,
    config_dir: tempfile::TempDir,
}

impl Cluster {
    /// Brings up a new cluster, which belongs to this process.
    pub async fn up(name: &str, settings: &Settings) -> anyhow::Result<Self> {
        let config_dir = tempfile::tempdir()?;
        tokio::fs::write(config_dir.path().join("10-reserved.conf"), DROP_IN).await?;
        let owner = std::process::id().to_string();
        let mut up = script("up");
        up.arg(name)
            .args(["--node", settings.node.name(), "--owner", &owner]);
        up.args(["--containerd", &settings.containerd]);
        up.arg("--config-dir").arg(config_dir.path());
        if settings.node == NodeKind::Ours {
            up.arg("--kubelet").arg(&settings.kubelet);
        }
        output(&mut up).await?;
        let facts = read_facts(name).await?;
        let kubeconfig = Kubeconfig::read_from(&facts["KUBECONFIG"])?;
        let config =
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        Ok(Self {
            facts,
            client: Client::try_from(config)?,
            node: settings.node,
            outage: settings.outage,
            containerd_was_ended: AtomicBool::new(false),
            config_dir,
        })
    }

    /// Removes a cluster; an error if a trace of it is left on the host.
    pub async fn down(name: &str) -> anyhow::Result<()> {
        output(script("down").arg(name)).await.map(drop)
    }

    pub fn name(&self) -> &str {
        self.fact("NAME")
    }

    /// A value of the cluster's `env` file; panics on a name that is not there.
    pub fn fact(&self, name: &str) -> &str {
        &self.facts[name]
    }

    /// A value of the cluster's `env` file, as a path.
    pub fn path(&self, name: &str) -> &Path {
        Path::new(self.fact(name))
    }

    pub fn node_name(&self) -> &str {
        self.fact("NODE_NAME")
    }

    /// Stops, starts, kills, pauses or resumes a component.
    pub async fn ctl(&self, action: &str, component: &str) -> anyhow::Result<String> {
        if component == "containerd" && ["stop", "kill"].contains(&action) {
            self.containerd_was_ended.store(true, Ordering::Relaxed);
        }
        output(script("ctl").args([self.name(), action, component])).await
    }

    /// The same to whatever does the node agent's work; upstream's are two.
    pub async fn ctl_agent(&self, action: &str) -> anyhow::Result<()> {
        self.ctl(action, "kubelet").await?;
        if self.node == NodeKind::Upstream {
            self.ctl(action, "kube-proxy").await?;
        }
        Ok(())
    }

    /// Brings one more of `hack/cluster/images` to the node.
    pub async fn import_image(&self, image: &str) -> anyhow::Result<()> {
        let mut images = script("images");
        images.args(["import", "--ctr", self.fact("CTR")]);
        images.args(["--socket", self.fact("CONTAINERD_SOCKET"), image]);
        output(&mut images).await.map(drop)
    }

    /// Gives the kubelet one more drop-in, and starts it anew with it.
    pub async fn configure(&self, file: &str, text: &str) -> anyhow::Result<()> {
        tokio::fs::write(self.config_dir.path().join(file), text).await?;
        self.ctl("restart", "kubelet").await.map(drop)
    }

    /// Whether containerd ended before the cluster did. In the middle of making a sandbox
    /// it then leaves a network namespace that nobody knows of.
    pub fn containerd_was_ended(&self) -> bool {
        self.containerd_was_ended.load(Ordering::Relaxed)
    }

    /// Runs a command as on the node, and gives what it printed.
    pub async fn exec<A: AsRef<OsStr>>(
        &self,
        command: impl IntoIterator<Item = A>,
    ) -> anyhow::Result<String> {
        output(script("exec").arg(self.name()).args(command)).await
    }

    /// `crictl pods` or `crictl ps` with these arguments, as a list of JSON objects.
    pub async fn crictl(&self, arguments: &[&str]) -> anyhow::Result<Vec<Value>> {
        let text = self
            .exec(["crictl"].iter().chain(arguments).chain(&["-o", "json"]))
            .await?;
        let answer: Value = serde_json::from_str(&text).context("crictl printed no JSON")?;
        let items = if arguments[0] == "ps" {
            "containers"
        } else {
            "items"
        };
        Ok(answer[items].as_array().cloned().unwrap_or_default())
    }

    /// The containers that run now for a pod, known by its UID.
    pub async fn running_containers(&self, pod_uid: &str) -> anyhow::Result<Vec<Value>> {
        let label = format!("io.kubernetes.pod.uid={pod_uid}");
        self.crictl(&["ps", "--state", "running", "--label", &label])
            .await
    }

    /// The sandboxes of a pod that are ready now.
    pub async fn ready_sandboxes(&self, pod_uid: &str) -> anyhow::Result<Vec<Value>> {
        let label = format!("io.kubernetes.pod.uid={pod_uid}");
        self.crictl(&["pods", "--state", "ready", "--label", &label])
            .await
    }

    /// The objects of one kind; in a namespace, or all of them.
    pub fn api<K>(&self, namespace: Option<&str>) -> Api<DynamicObject>
    where
        K: Resource<DynamicType = ()>,
    {
        let resource = ApiResource::erase::<K>(&());
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        }
    }

    /// The node agent's log so far.
    pub async fn agent_log(&self) -> anyhow::Result<String> {
        let bytes = tokio::fs::read(self.path("LOG_DIR").join("kubelet.log")).await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Copies the components' logs to where they outlive the cluster.
    pub async fn save_logs(&self) -> anyhow::Result<PathBuf> {
        let to = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join("cluster-logs")
            .join(self.name());
        tokio::fs::create_dir_all(&to).await?;
        let mut entries = tokio::fs::read_dir(self.path("LOG_DIR")).await?;
        while let Some(entry) = entries.next_entry().await? {
            tokio::fs::copy(entry.path(), to.join(entry.file_name())).await?;
        }
        Ok(to)
    }
}

fn script(name: &str) -> Command {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("hack/cluster");
    let mut command = Command::new(directory.join(name));
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// What the command printed; an error with its complaints if it failed.
async fn output(command: &mut Command) -> anyhow::Result<String> {
    let shown = format!("{:?}", command.as_std());
    let output = command
        .output()
        .await
        .with_context(|| format!("cannot run {shown}"))?;
    let complaints = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{shown}: {}: {complaints}",
        output.status
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

async fn read_facts(name: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let state = std::env::var("KUBELET_RS_STATE").unwrap_or("/var/lib/kubelet-rs".to_owned());
    let file = Path::new(&state).join("clusters").join(name).join("env");
    let text = tokio::fs::read_to_string(&file)
        .await
        .context(file.display().to_string())?;
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    Ok(pairs
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect())
}
