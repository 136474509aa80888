//! Tasks that the runtime has lost sight of, by containerd's own task service.
//!
//! When the caller of `StartContainer` dies at the wrong moment, containerd's
//! CRI calls the container exited while its shim still holds the task that was
//! being made. Such a container cannot be removed ("cannot delete running
//! task"), however often one asks: the record, its mounts and the waiting
//! process would stay for ever. A removal that was refused therefore looks for
//! the task behind CRI's back and ends it.

use std::time::Duration;

use containerd_client::services::v1::tasks_client::TasksClient;
use containerd_client::services::v1::{DeleteTaskRequest, GetRequest, KillRequest, WaitRequest};
use nix::sys::signal::Signal;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::observe::NAMESPACE;

/// To kill a task and to see it end; nothing in it can put that off.
const LIMIT: Duration = Duration::from_secs(10);

pub(super) struct Leftovers {
    tasks: TasksClient<Channel>,
}

impl Leftovers {
    pub(super) fn new(channel: Channel) -> Self {
        Self {
            tasks: TasksClient::new(channel),
        }
    }

    /// Kills and deletes the task of a container or sandbox that is to be
    /// removed anyway. Tells whether there was one and it is gone now.
    pub(super) async fn end(&self, id: &str) -> bool {
        let ended = tokio::time::timeout(LIMIT, self.kill_and_delete(id))
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("the task does not end")));
        match ended {
            Ok(()) => {
                tracing::info!(id, "ended a task that the runtime had lost sight of");
                true
            }
            // No task, or a runtime other than containerd.
            Err(status) if matches!(status.code(), Code::NotFound | Code::Unimplemented) => false,
            Err(status) => {
                tracing::warn!(
                    id,
                    error = %crate::error::chain(&status),
                    "cannot end a task that the runtime has lost sight of"
                );
                false
            }
        }
    }

    async fn kill_and_delete(&self, id: &str) -> Result<(), Status> {
        let container_id = || id.to_owned();
        let mut tasks = self.tasks.clone();
        let task = GetRequest {
            container_id: container_id(),
            ..Default::default()
        };
        tasks.get(of_cri(task)).await?;
        let kill = KillRequest {
            container_id: container_id(),
            signal: Signal::SIGKILL as u32,
            all: true,
            ..Default::default()
        };
        match tasks.kill(of_cri(kill)).await {
            // Its process had ended before.
            Err(status) if status.code() == Code::NotFound => {}
            killed => drop(killed?),
        }
        let wait = WaitRequest {
            container_id: container_id(),
            ..Default::default()
        };
        tasks.wait(of_cri(wait)).await?;
        let delete = DeleteTaskRequest {
            container_id: container_id(),
        };
        tasks.delete(of_cri(delete)).await.map(drop)
    }
}

/// The request in the containerd namespace that CRI uses.
fn of_cri<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let namespace = MetadataValue::from_static(NAMESPACE);
    request
        .metadata_mut()
        .insert("containerd-namespace", namespace);
    request
}
