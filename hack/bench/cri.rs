//! The floor: what the runtime alone takes for the same pods, asked by nobody's
//! agent.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::future::try_join_all;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

use crate::cluster::Cluster;
use crate::pods::{COMMAND, GRACE, IMAGE, NAMESPACE};
use crate::report::Turn;
use crate::{CROWDS, progress};
use v1::runtime_service_client::RuntimeServiceClient;

#[allow(
    clippy::all,
    clippy::pedantic,
    dead_code,
    reason = "generated code is not ours to tidy"
)]
mod v1 {
    tonic::include_proto!("runtime.v1");

    impl std::fmt::Debug for AuthConfig {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("AuthConfig(redacted)")
        }
    }
}

/// What every agent hides of /proc, and what it write-protects: mounts that
/// cost time as well.
const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// A client of the runtime, and where it may put things.
#[derive(Debug, Clone)]
pub(crate) struct Runtime {
    client: RuntimeServiceClient<Channel>,
    cgroup_root: String,
    logs: PathBuf,
    /// Stands for the volume and the files that an agent would bind into the
    /// container.
    files: PathBuf,
}

/// A pod that runs.
#[derive(Debug)]
struct Running {
    sandbox: String,
    container: String,
    took: Duration,
}

/// Starts and removes pods one after another, then in crowds.
pub(crate) async fn measure(runtime: &Runtime, sequence: usize) -> Result<Turn> {
    runtime.make_files()?;
    let mut turn = Turn::default();
    let mut pods = Vec::new();
    for i in 0..sequence {
        pods.push(runtime.start(&format!("raw-{i}")).await?);
    }
    turn.start = pods.iter().map(|pod| pod.took).collect();
    for pod in &pods {
        turn.delete.push(runtime.remove(pod).await?);
    }
    for crowd in CROWDS {
        progress(&format!("  {crowd} at once"));
        let names: Vec<_> = (0..crowd).map(|i| format!("raw{crowd}-{i}")).collect();
        let pods = try_join_all(names.iter().map(|name| runtime.start(name))).await?;
        let deleted = try_join_all(pods.iter().map(|pod| runtime.remove(pod))).await?;
        let measured = turn.crowds.entry(crowd).or_default();
        measured.start = pods.iter().map(|pod| pod.took).collect();
        measured.delete = deleted.into_iter().collect();
    }
    Ok(turn)
}

impl Runtime {
    pub(crate) fn connect(cluster: &Cluster) -> Self {
        let socket = PathBuf::from(cluster.fact("CONTAINERD_SOCKET"));
        let dial = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(dial);
        Self {
            client: RuntimeServiceClient::new(channel),
            cgroup_root: cluster.fact("CGROUP_ROOT").to_owned(),
            logs: cluster.fact("POD_LOGS_DIR").into(),
            files: Path::new(cluster.fact("DIR")).join("bench"),
        }
    }

    fn make_files(&self) -> Result<()> {
        std::fs::create_dir_all(self.files.join("volume"))?;
        for file in ["hosts", "termination-log"] {
            std::fs::write(self.files.join(file), "")?;
        }
        Ok(())
    }

    /// The three calls that start a pod, timed together.
    async fn start(&self, name: &str) -> Result<Running> {
        let mut client = self.client.clone();
        let sandbox = self.sandbox(name);
        let begun = Instant::now();
        let request = v1::RunPodSandboxRequest {
            config: Some(sandbox.clone()),
            ..Default::default()
        };
        let answer = client.run_pod_sandbox(request).await;
        let id = answer.context("RunPodSandbox")?.into_inner().pod_sandbox_id;
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: id.clone(),
            config: Some(self.container()),
            sandbox_config: Some(sandbox),
        };
        let answer = client.create_container(request).await;
        let container = answer.context("CreateContainer")?.into_inner().container_id;
        let request = v1::StartContainerRequest {
            container_id: container.clone(),
        };
        client
            .start_container(request)
            .await
            .context("StartContainer")?;
        Ok(Running {
            sandbox: id,
            container,
            took: begun.elapsed(),
        })
    }

    /// Stops with the grace period and removes everything.
    async fn remove(&self, pod: &Running) -> Result<Duration> {
        let mut client = self.client.clone();
        let begun = Instant::now();
        let stop = v1::StopContainerRequest {
            container_id: pod.container.clone(),
            timeout: GRACE,
        };
        if client.stop_container(stop.clone()).await.is_err() {
            // The shim of containerd 1.6 may hang up while it is asked, as the
            // container ends; what is asked again is answered.
            client.stop_container(stop).await.context("StopContainer")?;
        }
        let stop = v1::StopPodSandboxRequest {
            pod_sandbox_id: pod.sandbox.clone(),
        };
        client
            .stop_pod_sandbox(stop)
            .await
            .context("StopPodSandbox")?;
        let remove = v1::RemovePodSandboxRequest {
            pod_sandbox_id: pod.sandbox.clone(),
        };
        client
            .remove_pod_sandbox(remove)
            .await
            .context("RemovePodSandbox")?;
        Ok(begun.elapsed())
    }

    fn sandbox(&self, name: &str) -> v1::PodSandboxConfig {
        let root = self.cgroup_root.trim_end_matches('/');
        v1::PodSandboxConfig {
            metadata: Some(v1::PodSandboxMetadata {
                name: name.to_owned(),
                uid: name.to_owned(),
                namespace: NAMESPACE.to_owned(),
                attempt: 0,
            }),
            hostname: name.to_owned(),
            log_directory: self.logs.join(name).display().to_string(),
            dns_config: Some(v1::DnsConfig {
                servers: vec!["127.0.0.1".to_owned()],
                ..Default::default()
            }),
            linux: Some(v1::LinuxPodSandboxConfig {
                cgroup_parent: format!("{root}/kubepods/besteffort/{NAMESPACE}-{name}"),
                security_context: Some(v1::LinuxSandboxSecurityContext {
                    namespace_options: Some(namespaces()),
                    seccomp: Some(runtime_default()),
                    ..Default::default()
                }),
                resources: Some(least_resources()),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn container(&self) -> v1::ContainerConfig {
        let mount = |file: &str, container_path: &str, readonly| v1::Mount {
            container_path: container_path.to_owned(),
            host_path: self.files.join(file).display().to_string(),
            readonly,
            ..Default::default()
        };
        let token = "/var/run/secrets/kubernetes.io/serviceaccount";
        v1::ContainerConfig {
            metadata: Some(v1::ContainerMetadata {
                name: "main".to_owned(),
                attempt: 0,
            }),
            image: Some(v1::ImageSpec {
                image: IMAGE.to_owned(),
                ..Default::default()
            }),
            command: COMMAND.map(str::to_owned).into(),
            mounts: vec![
                mount("volume", token, true),
                mount("hosts", "/etc/hosts", false),
                mount("termination-log", "/dev/termination-log", false),
            ],
            log_path: "main/0.log".to_owned(),
            linux: Some(v1::LinuxContainerConfig {
                resources: Some(least_resources()),
                security_context: Some(v1::LinuxContainerSecurityContext {
                    namespace_options: Some(namespaces()),
                    seccomp: Some(unconfined()),
                    masked_paths: MASKED.map(str::to_owned).into(),
                    readonly_paths: READ_ONLY.map(str::to_owned).into(),
                    ..Default::default()
                }),
            }),
            ..Default::default()
        }
    }
}

/// Those of a pod that asks for nothing.
fn namespaces() -> v1::NamespaceOption {
    v1::NamespaceOption {
        network: v1::NamespaceMode::Pod.into(),
        pid: v1::NamespaceMode::Container.into(),
        ipc: v1::NamespaceMode::Pod.into(),
        ..Default::default()
    }
}

/// As every agent asks for sandboxes.
fn runtime_default() -> v1::SecurityProfile {
    v1::SecurityProfile {
        profile_type: v1::security_profile::ProfileType::RuntimeDefault.into(),
        ..Default::default()
    }
}

fn unconfined() -> v1::SecurityProfile {
    v1::SecurityProfile {
        profile_type: v1::security_profile::ProfileType::Unconfined.into(),
        ..Default::default()
    }
}

/// A best-effort pod's.
fn least_resources() -> v1::LinuxContainerResources {
    v1::LinuxContainerResources {
        cpu_shares: 2,
        oom_score_adj: 1000,
        ..Default::default()
    }
}
