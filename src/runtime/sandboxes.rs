//! [`Sandboxes`] over CRI: the calls, and the log files that go with them.

use std::time::Duration;

use async_trait::async_trait;

use super::client::CriClient;
use super::leftover::Leftovers;
use super::logs::{LogFile, Logs};
use super::{RuntimeError, Sandboxes, decode, encode};
use crate::pod::spec::{ContainerSpec, LinuxResources, SandboxSpec};
use crate::pod::{ContainerId, PodName, PodUid, SandboxId};

/// Upstream never gives a container less time than this.
const MIN_GRACE: Duration = Duration::from_secs(2);

pub(super) struct CriSandboxes {
    client: CriClient,
    logs: Logs,
    leftovers: Leftovers,
}

impl CriSandboxes {
    pub(super) fn new(client: CriClient, logs: Logs, leftovers: Leftovers) -> Self {
        Self {
            client,
            logs,
            leftovers,
        }
    }

    /// Where the runtime writes the container's log; `None` if the container
    /// is gone, or not ours.
    async fn log_file(&self, id: &ContainerId) -> Result<Option<LogFile>, RuntimeError> {
        let status = match self.client.container_status(&id.0).await {
            Ok(status) => status,
            Err(RuntimeError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some((_, pod)) = decode::owner(&status.labels) else {
            return Ok(None);
        };
        let container = status.metadata.as_ref().map_or("", |m| m.name.as_str());
        Ok(self.logs.log_file(&status.log_path, &pod, container, &id.0))
    }
}

#[async_trait]
impl Sandboxes for CriSandboxes {
    async fn run_sandbox(&self, spec: &SandboxSpec) -> Result<SandboxId, RuntimeError> {
        self.logs.make_directory(&spec.log_directory).await?;
        self.client
            .run_pod_sandbox(encode::sandbox_config(spec), spec.runtime_handler.clone())
            .await
            .map(SandboxId)
    }

    async fn stop_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        self.client.stop_pod_sandbox(&id.0).await
    }

    async fn remove_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        // CRI has no name for what it has lost sight of, so nobody would find it
        // again if this process died between the two removals.
        if self.leftovers.end_task(&id.0).await {
            self.leftovers.clear(&id.0).await?;
        }
        self.client.remove_pod_sandbox(&id.0).await?;
        self.leftovers.clear(&id.0).await
    }

    async fn create_container(
        &self,
        sandbox: &SandboxId,
        spec: &ContainerSpec,
        sandbox_spec: &SandboxSpec,
    ) -> Result<ContainerId, RuntimeError> {
        let log = sandbox_spec.log_directory.join(&spec.log_path);
        if let Some(directory) = log.parent() {
            self.logs.make_directory(directory).await?;
        }
        self.client
            .create_container(
                &sandbox.0,
                encode::container_config(spec),
                encode::sandbox_config(sandbox_spec),
            )
            .await
            .map(ContainerId)
    }

    async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        // The link points to where the log will be; looking that up takes no time
        // of its own beside the start.
        let link = async {
            match self.log_file(id).await {
                Ok(Some(log)) => self.logs.link(&log).await,
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            }
        };
        let (started, linked) = tokio::join!(self.client.start_container(&id.0), link);
        started?;
        // It runs; a missing link for log shippers does not change that.
        if let Err(error) = linked {
            tracing::warn!(
                container = %id,
                error = %crate::error::chain(&error),
                "container runs without a link to its log"
            );
        }
        Ok(())
    }

    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), RuntimeError> {
        self.client
            .stop_container(&id.0, grace.max(MIN_GRACE))
            .await
    }

    async fn update_container(
        &self,
        id: &ContainerId,
        resources: &LinuxResources,
    ) -> Result<(), RuntimeError> {
        let resources = encode::resources(resources);
        self.client
            .update_container_resources(&id.0, resources)
            .await
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        // Only its status tells where the log is, so the log goes first. A
        // container that the runtime cannot describe must go all the same; its
        // logs go with the pod's.
        match self.log_file(id).await {
            Ok(Some(log)) => self.logs.remove(&log).await?,
            Ok(None) | Err(RuntimeError::Refused { .. } | RuntimeError::Invalid { .. }) => {}
            Err(error) => return Err(error),
        }
        match self.client.remove_container(&id.0).await {
            Err(RuntimeError::Refused { .. }) if self.leftovers.end_task(&id.0).await => {
                self.client.remove_container(&id.0).await
            }
            removed => removed,
        }
    }

    async fn remove_pod_logs(&self, uid: &PodUid, name: &PodName) -> Result<(), RuntimeError> {
        self.logs.remove_pod(uid, name).await
    }

    async fn last_logged_attempt(
        &self,
        uid: &PodUid,
        name: &PodName,
        container: &str,
    ) -> Option<u32> {
        self.logs.last_attempt(uid, name, container).await
    }
}
