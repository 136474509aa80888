//! One function a path: find what is meant, ask the runtime, hand over.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use axum::extract::{Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on, post};
use axum::{Json, Router};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::super::FoundPod;
use super::StreamDeps;
use super::refusal::Refusal;
use super::relay::{Session, relay};
use super::request::{self, Pairs, Upgrade};
use super::target;
use crate::error::chain;
use crate::runtime::{ExecError, RuntimeError, StreamUrl};

/// What all handlers share.
struct Streams {
    deps: StreamDeps,
    sessions: Arc<Semaphore>,
    commands: Arc<Semaphore>,
}

type Shared = State<Arc<Streams>>;
type RawPairs = Query<Vec<(String, String)>>;

/// `/{namespace}/{pod}[/{uid}]/{container}`.
#[derive(Deserialize)]
struct ContainerPath {
    namespace: String,
    pod: String,
    uid: Option<String>,
    container: String,
}

/// `/{namespace}/{pod}[/{uid}]`.
#[derive(Deserialize)]
struct PodPath {
    namespace: String,
    pod: String,
    uid: Option<String>,
}

pub(super) fn routes(deps: StreamDeps) -> Router {
    let streams = Streams {
        sessions: Arc::new(Semaphore::new(deps.limits.sessions)),
        commands: Arc::new(Semaphore::new(deps.limits.commands)),
        deps,
    };
    // SPDY clients POST, WebSockets can only GET.
    let either = MethodFilter::GET.or(MethodFilter::POST);
    let container = "{namespace}/{pod}/{container}";
    let exact_container = "{namespace}/{pod}/{uid}/{container}";
    let pod = "{namespace}/{pod}";
    let exact_pod = "{namespace}/{pod}/{uid}";
    Router::new()
        .route(&format!("/exec/{container}"), on(either, exec))
        .route(&format!("/exec/{exact_container}"), on(either, exec))
        .route(&format!("/attach/{container}"), on(either, attach))
        .route(&format!("/attach/{exact_container}"), on(either, attach))
        .route(&format!("/portForward/{pod}"), on(either, port_forward))
        .route(
            &format!("/portForward/{exact_pod}"),
            on(either, port_forward),
        )
        .route(&format!("/run/{container}"), post(run))
        .route(&format!("/run/{exact_container}"), post(run))
        .route(&format!("/checkpoint/{container}"), post(checkpoint))
        .with_state(Arc::new(streams))
}

async fn exec(
    State(streams): Shared,
    Path(path): Path<ContainerPath>,
    Query(query): RawPairs,
    request: Request,
) -> Result<Response, Refusal> {
    let query = Pairs(query);
    let wanted = request::streams(&query)?;
    let pod = streams.find(&path.namespace, &path.pod, path.uid.as_deref())?;
    let id = target::running(&pod, &path.container)?;
    let command = request::exec_command(&query);
    let url = streams.deps.runtime.exec(&id, &command, wanted);
    streams.open("exec", request, url).await
}

async fn attach(
    State(streams): Shared,
    Path(path): Path<ContainerPath>,
    Query(query): RawPairs,
    request: Request,
) -> Result<Response, Refusal> {
    let wanted = request::streams(&Pairs(query))?;
    let pod = streams.find(&path.namespace, &path.pod, path.uid.as_deref())?;
    let (id, wanted) = target::attached(&pod, &path.container, wanted)?;
    let url = streams.deps.runtime.attach(&id, wanted);
    streams.open("attach", request, url).await
}

async fn port_forward(
    State(streams): Shared,
    Path(path): Path<PodPath>,
    Query(query): RawPairs,
    request: Request,
) -> Result<Response, Refusal> {
    let ports = request::ports(&Pairs(query), request::upgrade(request.headers()))?;
    let pod = streams.find(&path.namespace, &path.pod, path.uid.as_deref())?;
    let id = target::sandbox(&pod)?;
    let url = streams.deps.runtime.port_forward(&id, &ports);
    streams.open("portforward", request, url).await
}

/// Runs a command to its end, for as long as the caller waits, and answers with
/// what it printed: first on stdout, then on stderr.
async fn run(
    State(streams): Shared,
    Path(path): Path<ContainerPath>,
    Query(query): RawPairs,
) -> Result<Response, Refusal> {
    let command = request::run_command(&Pairs(query));
    let pod = streams.find(&path.namespace, &path.pod, path.uid.as_deref())?;
    let id = target::running(&pod, &path.container)?;
    let _permit = streams.command_permit()?;
    let result = streams.deps.runtime.exec_sync(&id, &command, None).await;
    let mut output = result.map_err(|error| match error {
        ExecError::Runtime(error) => Refusal::from(error),
        ExecError::TimedOut { .. } => Refusal::failed(chain(&error).to_string()),
    })?;
    if output.exit_code != 0 {
        return Err(Refusal::failed(format!(
            "command '{}' exited with {}: {}",
            command.join(" "),
            output.exit_code,
            String::from_utf8_lossy(&output.stderr)
        )));
    }
    output.stdout.append(&mut output.stderr);
    Ok(output.stdout.into_response())
}

/// Writes an archive of the container's memory and files, and answers with its
/// path.
async fn checkpoint(
    State(streams): Shared,
    Path(path): Path<ContainerPath>,
    Query(query): RawPairs,
) -> Result<Response, Refusal> {
    let pod = streams.find(&path.namespace, &path.pod, None)?;
    target::declared(&pod, &path.container)?;
    let limit = request::checkpoint_limit(&Pairs(query))?;
    let failed = |why: String| {
        let (namespace, pod, container) = (&path.namespace, &path.pod, &path.container);
        Refusal::failed(format!(
            "checkpointing of {namespace}/{pod}/{container} failed ({why})"
        ))
    };
    let id = target::running(&pod, &path.container).map_err(|refusal| failed(refusal.message))?;
    let _permit = streams.command_permit()?;
    let archive = streams.archive(&pod, &path.container).await;
    let archive = archive.map_err(|error| failed(chain(&error).to_string()))?;
    let done = streams.deps.runtime.checkpoint(&id, &archive, limit).await;
    done.map_err(|error| failed(chain(&error).to_string()))?;
    Ok(Json(serde_json::json!({ "items": [archive] })).into_response())
}

impl Streams {
    fn find(&self, namespace: &str, name: &str, uid: Option<&str>) -> Result<FoundPod, Refusal> {
        let pods = &self.deps.pods;
        pods.find(namespace, name, uid).ok_or_else(|| {
            let other_life = uid.is_some() && pods.find(namespace, name, None).is_some();
            Refusal::not_found(if other_life {
                "pod not found"
            } else {
                "pod does not exist"
            })
        })
    }

    /// Opens a session. The runtime is asked for `url` only if there will be one.
    async fn open(
        &self,
        kind: &'static str,
        request: Request,
        url: impl Future<Output = Result<StreamUrl, RuntimeError>>,
    ) -> Result<Response, Refusal> {
        let upgrade = request::upgrade(request.headers())
            .ok_or_else(|| Refusal::bad_request("Upgrade request required"))?;
        let session = Session {
            permit: permit(&self.sessions, "sessions", self.deps.limits.sessions)?,
            limits: self.deps.limits,
            shutdown: self.deps.shutdown.clone(),
            kind,
        };
        let url = url.await?;
        if upgrade == Upgrade::WebSocket {
            self.deps.metrics.websocket(kind);
        }
        relay(request, &url, session).await
    }

    fn command_permit(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        permit(&self.commands, "commands", self.deps.limits.commands)
    }

    /// Where to write a checkpoint; makes the directory, for root alone.
    async fn archive(&self, pod: &FoundPod, container: &str) -> std::io::Result<PathBuf> {
        let directory = self.deps.checkpoints.clone();
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
        let name = format!(
            "checkpoint-{}-{container}-{now}.tar",
            target::full_name(pod)
        );
        let archive = directory.join(name);
        tokio::task::spawn_blocking(move || make_private(&directory)).await??;
        Ok(archive)
    }
}

fn make_private(directory: &FilePath) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(directory)
}

fn permit(of: &Arc<Semaphore>, what: &str, limit: usize) -> Result<OwnedSemaphorePermit, Refusal> {
    let permit = Arc::clone(of).try_acquire_owned();
    permit.map_err(|_| Refusal::too_many(what, limit))
}
