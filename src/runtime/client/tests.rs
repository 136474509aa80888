use tonic::Request;

use super::*;
use crate::runtime::cri::runtime_service_server::RuntimeService;
use crate::runtime::stub::{Nothing, Stub};

const LIMIT: Duration = Duration::from_millis(200);

/// Hangs in some calls, refuses others.
struct Awkward;

#[tonic::async_trait]
impl RuntimeService for Awkward {
    async fn stop_pod_sandbox(
        &self,
        _: Request<cri::StopPodSandboxRequest>,
    ) -> Result<Response<cri::StopPodSandboxResponse>, Status> {
        std::future::pending().await
    }

    async fn remove_container(
        &self,
        _: Request<cri::RemoveContainerRequest>,
    ) -> Result<Response<cri::RemoveContainerResponse>, Status> {
        Err(Status::not_found("no such container"))
    }

    async fn start_container(
        &self,
        _: Request<cri::StartContainerRequest>,
    ) -> Result<Response<cri::StartContainerResponse>, Status> {
        Err(Status::unknown("exec format error"))
    }

    async fn container_status(
        &self,
        _: Request<cri::ContainerStatusRequest>,
    ) -> Result<Response<cri::ContainerStatusResponse>, Status> {
        Ok(Response::new(cri::ContainerStatusResponse::default()))
    }

    async fn version(
        &self,
        _: Request<cri::VersionRequest>,
    ) -> Result<Response<cri::VersionResponse>, Status> {
        Ok(Response::new(cri::VersionResponse::default()))
    }
}

#[tokio::test]
async fn answers_become_our_errors() {
    let stub = Stub::serve(Awkward, Nothing);
    let client = stub.client(LIMIT);
    let refused = client.start_container("c").await.expect_err("refused");
    assert_eq!(refused.to_string(), "StartContainer: exec format error");
    let invalid = client.container_status("c").await.expect_err("invalid");
    assert!(
        matches!(invalid, RuntimeError::Invalid { .. }),
        "{invalid:?}"
    );
    client.remove_container("c").await.expect("gone is done");
    assert_eq!(client.cgroup_driver().await.expect("asked"), None);
}

/// A limit that a call which is answered meets on any machine.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_hung_call_concerns_its_caller_only() {
    let stub = Stub::serve(Awkward, Nothing);
    let client = stub.client(LIMIT);
    let hung = async {
        let hung = (0..150).map(|_| client.stop_pod_sandbox("s"));
        futures::future::join_all(hung).await
    };
    let others = async {
        for _ in 0..10 {
            client.version(ANSWERED_WITHIN).await.expect("answered");
        }
    };
    let (hung, ()) = tokio::join!(hung, others);
    for result in hung {
        let error = result.expect_err("hung");
        assert!(matches!(error, RuntimeError::Timeout { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_socket_without_a_server_is_unreachable() {
    let stub = Stub::serve(Awkward, Nothing);
    let client = stub.client(LIMIT);
    drop(stub);
    let error = client.version(LIMIT).await.expect_err("nobody is there");
    assert!(
        matches!(error, RuntimeError::Unreachable { .. }),
        "{error:?}"
    );
}
