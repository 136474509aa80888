//! [`Streaming`] over a [`FakeRuntime`]'s memory.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;

use super::{Call, FakeRuntime, Fault};
use crate::pod::{ContainerId, ContainerState, SandboxId};
use crate::runtime::{ExecError, ExecOutput, RuntimeError, StdStreams, StreamUrl, Streaming};

impl FakeRuntime {
    /// The name of a container that runs; otherwise the error that says so.
    fn running(&self, call: Call, id: &ContainerId) -> Result<String, RuntimeError> {
        let owner = self.container_owner(id);
        let pod = owner.map(|(uid, _)| self.pod(&uid));
        let containers = pod.map(|pod| pod.containers).unwrap_or_default();
        let Some(container) = containers.into_iter().find(|c| c.id == *id) else {
            return Err(Fault::NotFound.into_error(call));
        };
        if matches!(container.state, ContainerState::Running { .. }) {
            return Ok(container.name);
        }
        let fault = Fault::Refused("container is not running".to_owned());
        Err(fault.into_error(call))
    }

    fn stream_url(&self, call: Call) -> Result<StreamUrl, RuntimeError> {
        let refused = || Fault::Refused("no streaming server".to_owned()).into_error(call);
        self.state().streams_at.clone().ok_or_else(refused)
    }
}

#[async_trait]
impl Streaming for FakeRuntime {
    async fn exec(
        &self,
        id: &ContainerId,
        command: &[String],
        _streams: StdStreams,
    ) -> Result<StreamUrl, RuntimeError> {
        let subject = format!("{}: {}", self.container_subject(id), command.join(" "));
        let aftermath = self.begin(Call::Exec, subject).await?;
        self.running(Call::Exec, id)?;
        aftermath.finish(self.stream_url(Call::Exec)?)
    }

    async fn attach(
        &self,
        id: &ContainerId,
        _streams: StdStreams,
    ) -> Result<StreamUrl, RuntimeError> {
        let aftermath = self.begin(Call::Attach, self.container_subject(id)).await?;
        self.running(Call::Attach, id)?;
        aftermath.finish(self.stream_url(Call::Attach)?)
    }

    async fn port_forward(
        &self,
        id: &SandboxId,
        _ports: &[u16],
    ) -> Result<StreamUrl, RuntimeError> {
        let aftermath = self
            .begin(Call::PortForward, self.sandbox_subject(id))
            .await?;
        if self.sandbox_owner(id).is_none() {
            return Err(Fault::NotFound.into_error(Call::PortForward));
        }
        aftermath.finish(self.stream_url(Call::PortForward)?)
    }

    /// [`Fault::Timeout`] is a command that took too long, if it has a limit.
    async fn exec_sync(
        &self,
        id: &ContainerId,
        command: &[String],
        limit: Option<Duration>,
    ) -> Result<ExecOutput, ExecError> {
        let subject = format!("{}: {}", self.container_subject(id), command.join(" "));
        let in_time = |error| match (error, limit) {
            (RuntimeError::Timeout { .. }, Some(limit)) => ExecError::TimedOut { limit },
            (error, _) => ExecError::Runtime(error),
        };
        let aftermath = self.begin(Call::ExecSync, subject).await.map_err(in_time)?;
        let container = self
            .running(Call::ExecSync, id)
            .map_err(ExecError::Runtime)?;
        let output = self.state().behaviour(&container).commands_end.clone();
        aftermath.finish(output).map_err(in_time)
    }

    async fn checkpoint(
        &self,
        id: &ContainerId,
        _archive: &Path,
        _limit: Option<Duration>,
    ) -> Result<(), RuntimeError> {
        let aftermath = self
            .begin(Call::Checkpoint, self.container_subject(id))
            .await?;
        self.running(Call::Checkpoint, id)?;
        aftermath.finish(())
    }
}
