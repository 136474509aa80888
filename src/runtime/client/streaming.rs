//! [`Streaming`] over CRI.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use tonic::Code;

use super::super::{ExecError, ExecOutput, RuntimeError, StdStreams, StreamUrl, Streaming};
use super::{CriClient, MAX_MESSAGE_BYTES, Operation, cri, operation};
use crate::pod::{ContainerId, SandboxId};

#[cfg(test)]
mod tests;

/// The runtime caps each of the two outputs at 16 MiB, and both come in one
/// message.
const MAX_EXEC_BYTES: usize = 2 * MAX_MESSAGE_BYTES + 4096;

#[async_trait]
impl Streaming for CriClient {
    async fn exec(
        &self,
        id: &ContainerId,
        command: &[String],
        streams: StdStreams,
    ) -> Result<StreamUrl, RuntimeError> {
        const OPERATION: Operation = operation("Exec", "exec");
        let mut runtime = self.runtime.clone();
        let answer = runtime.exec(cri::ExecRequest {
            container_id: id.0.clone(),
            cmd: command.to_vec(),
            tty: streams.tty,
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr,
        });
        let answer = self.request(OPERATION, answer).await?;
        stream_url(OPERATION, &answer.url)
    }

    async fn attach(
        &self,
        id: &ContainerId,
        streams: StdStreams,
    ) -> Result<StreamUrl, RuntimeError> {
        const OPERATION: Operation = operation("Attach", "attach");
        let mut runtime = self.runtime.clone();
        let answer = runtime.attach(cri::AttachRequest {
            container_id: id.0.clone(),
            tty: streams.tty,
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr,
        });
        let answer = self.request(OPERATION, answer).await?;
        stream_url(OPERATION, &answer.url)
    }

    async fn port_forward(&self, id: &SandboxId, ports: &[u16]) -> Result<StreamUrl, RuntimeError> {
        const OPERATION: Operation = operation("PortForward", "port_forward");
        let mut runtime = self.runtime.clone();
        let answer = runtime.port_forward(cri::PortForwardRequest {
            pod_sandbox_id: id.0.clone(),
            port: ports.iter().copied().map(i32::from).collect(),
        });
        let answer = self.request(OPERATION, answer).await?;
        stream_url(OPERATION, &answer.url)
    }

    async fn exec_sync(
        &self,
        id: &ContainerId,
        command: &[String],
        limit: Option<Duration>,
    ) -> Result<ExecOutput, ExecError> {
        let mut runtime = self
            .runtime
            .clone()
            .max_decoding_message_size(MAX_EXEC_BYTES);
        let request = cri::ExecSyncRequest {
            container_id: id.0.clone(),
            cmd: command.to_vec(),
            timeout: limit.map_or(0, whole_seconds),
        };
        let mut timed_out = false;
        let answer = async {
            let answer = runtime.exec_sync(request).await;
            timed_out = matches!(&answer, Err(status) if status.code() == Code::DeadlineExceeded);
            answer
        };
        // The command's own time, and the usual for the runtime to clean up.
        let deadline = limit.and_then(|limit| limit.checked_add(self.request_timeout));
        let result = self
            .call(operation("ExecSync", "exec_sync"), deadline, answer)
            .await;
        match (result, limit) {
            (Ok(answer), _) => Ok(ExecOutput {
                exit_code: answer.exit_code,
                stdout: answer.stdout,
                stderr: answer.stderr,
            }),
            (Err(_), Some(limit)) if timed_out => Err(ExecError::TimedOut { limit }),
            (Err(error), _) => Err(ExecError::Runtime(error)),
        }
    }

    async fn checkpoint(
        &self,
        id: &ContainerId,
        archive: &Path,
        limit: Option<Duration>,
    ) -> Result<(), RuntimeError> {
        const OPERATION: Operation = operation("CheckpointContainer", "checkpoint_container");
        let location = archive.to_str().ok_or_else(|| RuntimeError::Invalid {
            call: OPERATION.cri,
            message: format!("{} is not valid UTF-8", archive.display()),
        })?;
        let mut runtime = self.runtime.clone();
        let answer = runtime.checkpoint_container(cri::CheckpointContainerRequest {
            container_id: id.0.clone(),
            location: location.to_owned(),
            timeout: limit.map_or(0, whole_seconds),
        });
        let deadline = limit.unwrap_or_default().max(self.request_timeout);
        self.call(OPERATION, Some(deadline), answer).await.map(drop)
    }
}

/// At least one, because CRI reads 0 as no limit.
fn whole_seconds(limit: Duration) -> i64 {
    let seconds = limit.as_secs() + u64::from(limit.subsec_nanos() > 0);
    i64::try_from(seconds.max(1)).unwrap_or(i64::MAX)
}

fn stream_url(operation: Operation, url: &str) -> Result<StreamUrl, RuntimeError> {
    StreamUrl::parse(url).map_err(|message| RuntimeError::Invalid {
        call: operation.cri,
        message,
    })
}
