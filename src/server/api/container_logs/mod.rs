//! `GET /containerLogs/{namespace}/{pod}/{container}`: what `kubectl logs` reads.
//!
//! In: the pods of this node, and the log files that the runtime writes. Out: a
//! chunked body with what the options ask for, or upstream's words on why not.
//!
//! | file | what |
//! |---|---|
//! | `options`, `choose` | what is asked for, and of which file; pure |
//! | `entry`, `decode` | from the file's bytes to the output; pure |
//! | `files`, `reader` | the file and those that rotation made of it; blocking |
//! | `changes` | one inotify instance for all followers |
//! | `follow` | the body |

mod changes;
mod choose;
mod decode;
mod entry;
mod files;
mod follow;
mod options;
mod reader;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use jiff::Timestamp;
use tokio::sync::Semaphore;

pub use changes::{LogChanges, LogChangesTask};
pub use options::StreamChoice;

use super::pods::{FoundPod, PodDirectory};
use super::rooted::Root;
use crate::runtime::Observer;
use choose::{Life, NoLog};
use files::LogFiles;
use follow::{Liveness, LogStream, Turns};
use options::{BadOptions, LogOptions};
use reader::LogReader;

/// Logs on their way to callers at a time, most of them followed.
const CALLERS: usize = 4096;
/// Logs read at a time. Reading is short: what takes long is the caller's taking.
const READERS: usize = 8;

/// What the handler needs.
#[derive(Clone)]
pub struct ContainerLogDeps {
    pub pods: PodDirectory,
    /// Tells when a container that is followed has ended.
    pub observer: Arc<dyn Observer>,
    /// `podLogsDir`.
    pub directory: PathBuf,
    pub changes: LogChanges,
    pub streams: StreamChoice,
}

struct Handler {
    deps: ContainerLogDeps,
    root: Root,
    callers: Arc<Semaphore>,
    turns: Arc<Semaphore>,
}

/// The route, with its handler.
pub fn routes(deps: ContainerLogDeps) -> Router {
    let handler = Handler {
        root: Root::new(deps.directory.clone()),
        deps,
        callers: Arc::new(Semaphore::new(CALLERS)),
        turns: Arc::new(Semaphore::new(READERS)),
    };
    Router::new()
        .route(
            "/containerLogs/{namespace}/{pod}/{container}",
            get(container_log),
        )
        .with_state(Arc::new(handler))
}

/// Why a log is not served.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Options(#[from] BadOptions),
    #[error("pod \"{0}\" does not exist")]
    NoPod(String),
    #[error(transparent)]
    NoLog(#[from] NoLog),
    #[error("too many logs are being read")]
    Busy,
    #[error("failed to open the log of container \"{container}\": {source}")]
    Open {
        container: String,
        source: std::io::Error,
    },
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::Options(BadOptions::Invalid) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Busy => StatusCode::TOO_MANY_REQUESTS,
            Self::NoPod(_) | Self::NoLog(NoLog::UnknownContainer { .. }) => StatusCode::NOT_FOUND,
            Self::Options(BadOptions::Undecodable | BadOptions::StreamRefused(_))
            | Self::NoLog(
                NoLog::NotYet { .. } | NoLog::NoPrevious { .. } | NoLog::Forgotten { .. },
            )
            | Self::Open { .. } => StatusCode::BAD_REQUEST,
        };
        (status, self.to_string()).into_response()
    }
}

async fn container_log(
    State(handler): State<Arc<Handler>>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    uri: Uri,
) -> Result<Response, Refusal> {
    let pairs =
        Query::<Vec<(String, String)>>::try_from_uri(&uri).map_err(|_| BadOptions::Undecodable)?;
    let options = options::parse(&pairs, handler.deps.streams, Timestamp::now())?;
    let found = handler
        .deps
        .pods
        .find(&namespace, &pod, None)
        .ok_or(Refusal::NoPod(pod))?;
    let life = choose::choose(
        &found.object(),
        &found.observed,
        &container,
        options.instance,
    )?;
    let stream = handler.open(&found, container, life, options).await?;
    let body = Body::from_stream(stream.pieces());
    Ok(([("content-type", "text/plain")], body).into_response())
}

impl Handler {
    async fn open(
        &self,
        pod: &FoundPod,
        container: String,
        life: Life,
        options: LogOptions,
    ) -> Result<LogStream, Refusal> {
        // The semaphore is never closed.
        let place = Arc::clone(&self.callers)
            .try_acquire_owned()
            .map_err(|_| Refusal::Busy)?;
        let desired = &pod.desired;
        let directory = format!(
            "{}_{}_{}",
            desired.name.namespace, desired.name.name, desired.uid
        );
        let files = LogFiles::new(
            self.root.clone(),
            PathBuf::from(directory).join(&container),
            format!("{}.log", life.attempt),
        );
        let until = options.until;
        let opened = tokio::task::spawn_blocking(move || LogReader::open(files, &options)).await;
        let reader = opened
            .map_err(std::io::Error::other)
            .flatten()
            .map_err(|source| Refusal::Open { container, source })?;
        let liveness = Liveness {
            pod: self.deps.observer.watch(&desired.uid, &desired.name),
            id: life.id,
        };
        Ok(LogStream::new(
            reader,
            until,
            liveness,
            self.deps.changes.clone(),
            Turns {
                place,
                readers: Arc::clone(&self.turns),
            },
        ))
    }
}
