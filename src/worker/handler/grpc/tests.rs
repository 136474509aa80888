//! Against a health server of the tests' own.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::{NamedService, UnaryService};
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use super::*;

/// Far beyond what the loopback takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Answers by the service's name; knows who asks.
#[derive(Clone)]
struct Health;

impl NamedService for Health {
    const NAME: &'static str = "grpc.health.v1.Health";
}

impl Service<http::Request<Body>> for Health {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let codec: ProstCodec<HealthCheckResponse, HealthCheckRequest> = ProstCodec::default();
            Ok(tonic::server::Grpc::new(codec).unary(Answer, request).await)
        })
    }
}

struct Answer;

impl UnaryService<HealthCheckRequest> for Answer {
    type Response = HealthCheckResponse;
    type Future = Ready<Result<Response<HealthCheckResponse>, Status>>;

    fn call(&mut self, request: Request<HealthCheckRequest>) -> Self::Future {
        let agent = request.metadata().get("user-agent").cloned();
        let agent = agent.and_then(|agent| Some(agent.to_str().ok()?.to_owned()));
        ready(match request.into_inner().service.as_str() {
            "" => status(ServingStatus::Serving),
            "down" => status(ServingStatus::NotServing),
            "who" => Err(Status::internal(agent.unwrap_or_default())),
            _ => status(ServingStatus::ServiceUnknown),
        })
    }
}

fn status(status: ServingStatus) -> Result<Response<HealthCheckResponse>, Status> {
    let mut answer = HealthCheckResponse::default();
    answer.set_status(status);
    Ok(Response::new(answer))
}

async fn serve(server: tonic::transport::server::Router) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    let incoming = TcpListenerStream::new(listener);
    let task = tokio::spawn(async move { server.serve_with_incoming(incoming).await.unwrap() });
    (authority, task)
}

async fn ask(authority: &str, service: &str) -> Result<(), String> {
    let asked = async {
        let channel = connect(authority, "kube-probe/1.36").await?;
        check(channel, service).await
    };
    let answer = tokio::time::timeout(PATIENCE, asked)
        .await
        .expect("in time");
    answer.map_err(|error| error.to_string())
}

#[tokio::test]
async fn only_serving_is_healthy() {
    let (authority, task) = serve(Server::builder().add_service(Health)).await;
    assert_eq!(ask(&authority, "").await, Ok(()));
    for (service, status) in [("down", "NOT_SERVING"), ("other", "SERVICE_UNKNOWN")] {
        let wanted = format!("service unhealthy (responded with \"{status}\")");
        assert_eq!(ask(&authority, service).await, Err(wanted));
    }
    let who = ask(&authority, "who").await.unwrap_err();
    assert!(who.contains("kube-probe/1.36"), "{who}");
    task.abort();
}

#[tokio::test]
async fn a_server_without_health_says_so() {
    let other = Server::builder().add_service(Elsewhere);
    let (authority, task) = serve(other).await;
    let error = ask(&authority, "").await.unwrap_err();
    assert!(
        error.contains("does not implement the grpc health protocol"),
        "{error}"
    );
    task.abort();
}

#[tokio::test]
async fn a_port_that_nobody_listens_on_is_no_server() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    drop(listener);
    let error = ask(&authority, "").await.unwrap_err();
    assert_eq!(
        error,
        format!("error: failed to connect service {authority:?}")
    );
}

/// Some other service.
#[derive(Clone)]
struct Elsewhere;

impl NamedService for Elsewhere {
    const NAME: &'static str = "else.Where";
}

impl Service<http::Request<Body>> for Elsewhere {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        ready(Ok(Status::unimplemented("no").into_http()))
    }
}
