//! The CRI client: one method a call, each with its deadline, its metrics and
//! our errors.
//!
//! All calls share one connection a socket. It is made by the first call and
//! made again by the first call after it broke; nothing reconnects by itself,
//! so a dead runtime costs nothing while nobody asks.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

use super::cri::image_service_client::ImageServiceClient;
use super::cri::runtime_service_client::RuntimeServiceClient;
use super::cri::{self, ContainerFilter, PodSandboxFilter};
use super::rotate::ReopenLog;
use super::{Metrics, RuntimeError};
use crate::pod::ContainerId;

mod streaming;
#[cfg(test)]
mod tests;

/// The largest answer that is read; as upstream.
const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// How long the socket may take to accept.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The version of the kubelet runtime API, fixed since its beginning.
pub(super) const RUNTIME_API_VERSION: &str = "0.1.0";

/// Opens a channel that connects when it is first used.
pub(super) fn channel(socket: &Path) -> Channel {
    let socket = socket.to_owned();
    // The URI is not resolved; it makes the authority `localhost`.
    Endpoint::from_static("http://localhost")
        .connect_timeout(CONNECT_TIMEOUT)
        .connect_with_connector_lazy(tower::service_fn(move |_| dial(socket.clone())))
}

async fn dial(socket: PathBuf) -> std::io::Result<TokioIo<UnixStream>> {
    UnixStream::connect(socket).await.map(TokioIo::new)
}

/// Names of one CRI call.
#[derive(Debug, Clone, Copy)]
struct Operation {
    /// CRI's, for errors.
    cri: &'static str,
    /// Upstream's, for metrics.
    label: &'static str,
}

const fn operation(cri: &'static str, label: &'static str) -> Operation {
    Operation { cri, label }
}

/// Clonable; clones share the connections.
#[derive(Clone)]
pub(super) struct CriClient {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
    request_timeout: Duration,
    metrics: Metrics,
}

impl CriClient {
    pub(super) fn new(
        runtime: Channel,
        images: Channel,
        request_timeout: Duration,
        metrics: Metrics,
    ) -> Self {
        Self {
            runtime: RuntimeServiceClient::new(runtime)
                .max_decoding_message_size(MAX_MESSAGE_BYTES),
            images: ImageServiceClient::new(images).max_decoding_message_size(MAX_MESSAGE_BYTES),
            request_timeout,
            metrics,
        }
    }

    // === the runtime itself ===

    /// Both with a deadline of the caller's, because a health check cannot
    /// wait as long as work can.
    pub(super) async fn version(
        &self,
        limit: Duration,
    ) -> Result<cri::VersionResponse, RuntimeError> {
        let request = cri::VersionRequest {
            version: RUNTIME_API_VERSION.to_owned(),
        };
        let mut runtime = self.runtime.clone();
        let answer = runtime.version(request);
        self.call(operation("Version", "version"), Some(limit), answer)
            .await
    }

    pub(super) async fn status(
        &self,
        limit: Duration,
    ) -> Result<cri::StatusResponse, RuntimeError> {
        let mut runtime = self.runtime.clone();
        let answer = runtime.status(cri::StatusRequest { verbose: false });
        self.call(operation("Status", "status"), Some(limit), answer)
            .await
    }

    /// `None`: the runtime does not know the question (containerd 1.x).
    pub(super) async fn cgroup_driver(&self) -> Result<Option<cri::CgroupDriver>, RuntimeError> {
        let mut runtime = self.runtime.clone();
        let answer = async move {
            match runtime.runtime_config(cri::RuntimeConfigRequest {}).await {
                Ok(answer) => Ok(Response::new(Some(answer.into_inner()))),
                Err(status) if status.code() == Code::Unimplemented => Ok(Response::new(None)),
                Err(status) => Err(status),
            }
        };
        let answer = self
            .request(operation("RuntimeConfig", "runtime_config"), answer)
            .await?;
        Ok(answer
            .and_then(|config| config.linux)
            .map(|linux| linux.cgroup_driver()))
    }

    // === sandboxes ===

    pub(super) async fn run_pod_sandbox(
        &self,
        config: cri::PodSandboxConfig,
        runtime_handler: String,
    ) -> Result<String, RuntimeError> {
        let mut runtime = self.runtime.clone();
        let answer = runtime.run_pod_sandbox(cri::RunPodSandboxRequest {
            config: Some(config),
            runtime_handler,
        });
        // It may set up a network and pull the pause image.
        let limit = self.request_timeout * 2;
        self.call(
            operation("RunPodSandbox", "run_podsandbox"),
            Some(limit),
            answer,
        )
        .await
        .map(|answer| answer.pod_sandbox_id)
    }

    pub(super) async fn stop_pod_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let mut runtime = self.runtime.clone();
        let answer = runtime.stop_pod_sandbox(cri::StopPodSandboxRequest {
            pod_sandbox_id: id.to_owned(),
        });
        let operation = operation("StopPodSandbox", "stop_podsandbox");
        gone_is_done(self.request(operation, answer).await)
    }

    pub(super) async fn remove_pod_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let mut runtime = self.runtime.clone();
        let answer = runtime.remove_pod_sandbox(cri::RemovePodSandboxRequest {
            pod_sandbox_id: id.to_owned(),
        });
        let operation = operation("RemovePodSandbox", "remove_podsandbox");
        gone_is_done(self.request(operation, answer).await)
    }

    pub(super) async fn pod_sandbox_status(
        &self,
        id: &str,
    ) -> Result<cri::PodSandboxStatus, RuntimeError> {
        const OPERATION: Operation = operation("PodSandboxStatus", "podsandbox_status");
        let mut runtime = self.runtime.clone();
        let answer = runtime.pod_sandbox_status(cri::PodSandboxStatusRequest {
            pod_sandbox_id: id.to_owned(),
            verbose: false,
        });
        self.request(OPERATION, answer)
            .await?
            .status
            .ok_or_else(|| without_status(OPERATION))
    }

    pub(super) async fn list_pod_sandboxes(
        &self,
        filter: PodSandboxFilter,
    ) -> Result<Vec<cri::PodSandbox>, RuntimeError> {
        let mut runtime = self.runtime.clone();
        let answer = runtime.list_pod_sandbox(cri::ListPodSandboxRequest {
            filter: Some(filter),
        });
        self.request(operation("ListPodSandbox", "list_podsandbox"), answer)
            .await
            .map(|answer| answer.items)
    }

    // === containers ===

    pub(super) async fn create_container(
        &self,
        sandbox: &str,
        config: cri::ContainerConfig,
        sandbox_config: cri::PodSandboxConfig,
    ) -> Result<String, RuntimeError> {
        let mut runtime = self.runtime.clone();
        let answer = runtime.create_container(cri::CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        });
        self.request(operation("CreateContainer", "create_container"), answer)
            .await
            .map(|answer| answer.container_id)
    }

    pub(super) async fn start_container(&self, id: &str) -> Result<(), RuntimeError> {
        let mut runtime = self.runtime.clone();
        let answer = runtime.start_container(cri::StartContainerRequest {
            container_id: id.to_owned(),
        });
        self.request(operation("StartContainer", "start_container"), answer)
            .await
            .map(drop)
    }

    pub(super) async fn stop_container(
        &self,
        id: &str,
        grace: Duration,
    ) -> Result<(), RuntimeError> {
        let mut runtime = self.runtime.clone();
        let answer = runtime.stop_container(cri::StopContainerRequest {
            container_id: id.to_owned(),
            timeout: i64::try_from(grace.as_secs()).unwrap_or(i64::MAX),
        });
        // Seconds of grace may be as many as an API object can hold.
        let limit = grace.checked_add(self.request_timeout);
        let operation = operation("StopContainer", "stop_container");
        gone_is_done(self.call(operation, limit, answer).await)
    }

    pub(super) async fn update_container_resources(
        &self,
        id: &str,
        resources: cri::LinuxContainerResources,
    ) -> Result<(), RuntimeError> {
        let mut runtime = self.runtime.clone();
        let answer = runtime.update_container_resources(cri::UpdateContainerResourcesRequest {
            container_id: id.to_owned(),
            linux: Some(resources),
        });
        let operation = operation("UpdateContainerResources", "update_container");
        self.request(operation, answer).await.map(drop)
    }

    pub(super) async fn remove_container(&self, id: &str) -> Result<(), RuntimeError> {
        let mut runtime = self.runtime.clone();
        let answer = runtime.remove_container(cri::RemoveContainerRequest {
            container_id: id.to_owned(),
        });
        let operation = operation("RemoveContainer", "remove_container");
        gone_is_done(self.request(operation, answer).await)
    }

    pub(super) async fn container_status(
        &self,
        id: &str,
    ) -> Result<cri::ContainerStatus, RuntimeError> {
        const OPERATION: Operation = operation("ContainerStatus", "container_status");
        let mut runtime = self.runtime.clone();
        let answer = runtime.container_status(cri::ContainerStatusRequest {
            container_id: id.to_owned(),
            verbose: false,
        });
        self.request(OPERATION, answer)
            .await?
            .status
            .ok_or_else(|| without_status(OPERATION))
    }

    pub(super) async fn list_containers(
        &self,
        filter: ContainerFilter,
    ) -> Result<Vec<cri::Container>, RuntimeError> {
        let mut runtime = self.runtime.clone();
        let answer = runtime.list_containers(cri::ListContainersRequest {
            filter: Some(filter),
        });
        self.request(operation("ListContainers", "list_containers"), answer)
            .await
            .map(|answer| answer.containers)
    }

    /// Makes the runtime open the container's log by its name again.
    pub(super) async fn reopen_container_log(&self, id: &str) -> Result<(), RuntimeError> {
        let mut runtime = self.runtime.clone();
        let answer = runtime.reopen_container_log(cri::ReopenContainerLogRequest {
            container_id: id.to_owned(),
        });
        self.request(
            operation("ReopenContainerLog", "reopen_container_log"),
            answer,
        )
        .await
        .map(drop)
    }

    pub(super) async fn list_container_stats(
        &self,
    ) -> Result<Vec<cri::ContainerStats>, RuntimeError> {
        let mut runtime = self.runtime.clone();
        let answer = runtime.list_container_stats(cri::ListContainerStatsRequest {});
        let operation = operation("ListContainerStats", "list_container_stats");
        self.request(operation, answer)
            .await
            .map(|answer| answer.stats)
    }

    // === images ===

    pub(super) async fn image_fs_info(&self) -> Result<cri::ImageFsInfoResponse, RuntimeError> {
        let mut images = self.images.clone();
        let answer = images.image_fs_info(cri::ImageFsInfoRequest {});
        self.request(operation("ImageFsInfo", "image_fs_info"), answer)
            .await
    }

    /// `None`: the image is not on this node.
    pub(super) async fn image_status(
        &self,
        image: cri::ImageSpec,
    ) -> Result<Option<cri::Image>, RuntimeError> {
        let mut images = self.images.clone();
        let answer = images.image_status(cri::ImageStatusRequest {
            image: Some(image),
            verbose: false,
        });
        self.request(operation("ImageStatus", "image_status"), answer)
            .await
            .map(|answer| answer.image)
    }

    pub(super) async fn list_images(&self) -> Result<Vec<cri::Image>, RuntimeError> {
        let mut images = self.images.clone();
        let answer = images.list_images(cri::ListImagesRequest {});
        self.request(operation("ListImages", "list_images"), answer)
            .await
            .map(|answer| answer.images)
    }

    /// Has no deadline: a large image on a slow line takes as long as it takes.
    pub(super) async fn pull_image(
        &self,
        image: cri::ImageSpec,
        auth: Option<cri::AuthConfig>,
    ) -> Result<String, RuntimeError> {
        let mut images = self.images.clone();
        let answer = images.pull_image(cri::PullImageRequest {
            image: Some(image),
            auth,
            sandbox_config: None,
        });
        self.call(operation("PullImage", "pull_image"), None, answer)
            .await
            .map(|answer| answer.image_ref)
    }

    // === shared ===

    /// A call with the ordinary deadline.
    async fn request<T>(
        &self,
        operation: Operation,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, RuntimeError> {
        self.call(operation, Some(self.request_timeout), answer)
            .await
    }

    /// Awaits an answer until the deadline. Past it the call is dropped, which
    /// tells the runtime to give up as well.
    async fn call<T>(
        &self,
        operation: Operation,
        limit: Option<Duration>,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, RuntimeError> {
        let begun = Instant::now();
        let outcome = match limit {
            None => Ok(answer.await),
            Some(limit) => tokio::time::timeout(limit, answer).await.map_err(|_| limit),
        };
        let result = match outcome {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(classify(operation, &status)),
            Err(limit) => Err(RuntimeError::Timeout {
                call: operation.cri,
                limit,
            }),
        };
        self.metrics
            .operation(operation.label, begun.elapsed(), &result);
        result
    }
}

#[async_trait]
impl ReopenLog for CriClient {
    async fn reopen_log(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.reopen_container_log(&id.0).await
    }
}

/// Which of our errors a gRPC status is.
fn classify(operation: Operation, status: &Status) -> RuntimeError {
    let call = operation.cri;
    let cause = std::error::Error::source(status);
    match (status.code(), cause) {
        (Code::NotFound, _) => RuntimeError::NotFound {
            call,
            message: status.message().to_owned(),
        },
        // A status with a cause was made on this side of the socket.
        (_, Some(cause)) => RuntimeError::Unreachable {
            call,
            message: crate::error::chain(cause).to_string(),
        },
        (Code::Unavailable, None) => RuntimeError::Unreachable {
            call,
            message: status.message().to_owned(),
        },
        _ => RuntimeError::Refused {
            call,
            message: status.message().to_owned(),
        },
    }
}

fn gone_is_done<T>(result: Result<T, RuntimeError>) -> Result<(), RuntimeError> {
    match result {
        Ok(_) | Err(RuntimeError::NotFound { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

fn without_status(operation: Operation) -> RuntimeError {
    RuntimeError::Invalid {
        call: operation.cri,
        message: "the answer has no status".to_owned(),
    }
}
