//! What the runtime has lost sight of, by containerd's own services.
//!
//! Two things go wrong in containerd when the caller of a call that starts
//! something dies at the wrong moment:
//!
//! - `StartContainer`: CRI calls the container exited while its shim still
//!   holds the task that was being made. Its removal is refused ("cannot delete
//!   running task"), however often one asks.
//! - `RunPodSandbox`, from 2.0 on: CRI forgets which container the sandbox has.
//!   The sandbox's removal succeeds and leaves container, snapshot and task.
//!
//! Either way a process, its mounts and a record would stay until containerd is
//! restarted. So a removal that was refused looks for a task behind CRI's back,
//! and the removal of a sandbox for what is still there of it.

use std::time::Duration;

use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::snapshots::RemoveSnapshotRequest;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::tasks_client::TasksClient;
use containerd_client::services::v1::{
    Container, DeleteContainerRequest, DeleteTaskRequest, GetContainerRequest, GetRequest,
    KillRequest, WaitRequest,
};
use nix::sys::signal::Signal;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::RuntimeError;
use super::observe::NAMESPACE;

/// To kill a task and to see it end; nothing in it can put that off.
const LIMIT: Duration = Duration::from_secs(10);

pub(super) struct Leftovers {
    channel: Channel,
}

impl Leftovers {
    pub(super) fn new(channel: Channel) -> Self {
        Self { channel }
    }

    /// Ends the task of a container that is to be removed anyway. Tells whether
    /// there was one and it is gone now.
    pub(super) async fn end_task(&self, id: &str) -> bool {
        match within_limit(self.kill_and_delete(id)).await {
            Ok(had_task) => {
                if had_task {
                    tracing::info!(id, "ended a task that the runtime had lost sight of");
                }
                had_task
            }
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

    /// Takes away what is left of a sandbox that CRI has removed.
    pub(super) async fn clear(&self, id: &str) -> Result<(), RuntimeError> {
        let cleared = within_limit(async {
            if let Some(container) = self.record(id).await? {
                self.kill_and_delete(id).await?;
                self.delete(container).await?;
                tracing::info!(id, "removed a sandbox that the runtime had lost sight of");
            }
            Ok(())
        });
        cleared.await.map_err(|status| RuntimeError::Refused {
            call: "RemovePodSandbox",
            message: format!("what is left of it: {}", status.message()),
        })
    }

    /// Tells whether there was a task.
    async fn kill_and_delete(&self, id: &str) -> Result<bool, Status> {
        let container_id = || id.to_owned();
        let mut tasks = TasksClient::new(self.channel.clone());
        let task = GetRequest {
            container_id: container_id(),
            ..Default::default()
        };
        if if_there(tasks.get(of_cri(task)).await)?.is_none() {
            return Ok(false);
        }
        let kill = KillRequest {
            container_id: container_id(),
            signal: Signal::SIGKILL as u32,
            all: true,
            ..Default::default()
        };
        // Not found: its process had ended before.
        if_there(tasks.kill(of_cri(kill)).await)?;
        let wait = WaitRequest {
            container_id: container_id(),
            ..Default::default()
        };
        if_there(tasks.wait(of_cri(wait)).await)?;
        let delete = DeleteTaskRequest {
            container_id: container_id(),
        };
        if_there(tasks.delete(of_cri(delete)).await)?;
        Ok(true)
    }

    /// containerd's own record of a container, which a sandbox is as well.
    async fn record(&self, id: &str) -> Result<Option<Container>, Status> {
        let get = GetContainerRequest { id: id.to_owned() };
        let answer = ContainersClient::new(self.channel.clone())
            .get(of_cri(get))
            .await;
        Ok(if_there(answer)?.and_then(|answer| answer.into_inner().container))
    }

    async fn delete(&self, container: Container) -> Result<(), Status> {
        let delete = DeleteContainerRequest { id: container.id };
        if_there(
            ContainersClient::new(self.channel.clone())
                .delete(of_cri(delete))
                .await,
        )?;
        let remove = RemoveSnapshotRequest {
            snapshotter: container.snapshotter,
            key: container.snapshot_key,
        };
        if_there(
            SnapshotsClient::new(self.channel.clone())
                .remove(of_cri(remove))
                .await,
        )
        .map(drop)
    }
}

async fn within_limit<T>(work: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    tokio::time::timeout(LIMIT, work)
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded("the task does not end")))
}

/// The answer, if the object is there. A runtime other than containerd has
/// neither the services nor the faults.
fn if_there<T>(answer: Result<T, Status>) -> Result<Option<T>, Status> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(status) if matches!(status.code(), Code::NotFound | Code::Unimplemented) => Ok(None),
        Err(status) => Err(status),
    }
}

/// The request in the containerd namespace that CRI uses.
pub(super) fn of_cri<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let namespace = MetadataValue::from_static(NAMESPACE);
    request
        .metadata_mut()
        .insert("containerd-namespace", namespace);
    request
}
