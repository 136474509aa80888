//! `/logs/`: the node's own logs, as `kubectl get --raw` and `kubectl alpha
//! node-logs` read them.
//!
//! In: files below the log directory, and journald. Out: a file server, and the
//! node log query (`?query=`).
//!
//! | file | what |
//! |---|---|
//! | `query` | the query, read and checked; pure |
//! | `files` | the file server |
//! | `journal` | journalctl, and log files by service; starts processes |

mod files;
mod journal;
mod query;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{any, get};
use tokio::sync::Semaphore;

use super::rooted::Root;
use journal::Journal;
use query::{BadQuery, NodeLogQuery};

/// journalctl processes at a time.
const QUERIES: usize = 4;

/// How much of `/logs/` there is (`enableSystemLogHandler`,
/// `enableSystemLogQuery`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeLogs {
    Disabled,
    Files,
    FilesAndQueries,
}

/// What the handler is told.
#[derive(Debug, Clone)]
pub struct NodeLogSettings {
    pub serve: NodeLogs,
    /// `/var/log`.
    pub directory: PathBuf,
    /// `journalctl`, looked for in `PATH` unless it is a path.
    pub journalctl: PathBuf,
}

struct Handler {
    serve: NodeLogs,
    root: Root,
    journal: Journal,
}

/// The routes, with their handler.
pub fn routes(settings: NodeLogSettings) -> Router {
    let root = Root::new(settings.directory);
    let handler = Arc::new(Handler {
        serve: settings.serve,
        journal: Journal {
            journalctl: settings.journalctl,
            root: root.clone(),
            turns: Arc::new(Semaphore::new(QUERIES)),
        },
        root,
    });
    let logs = || match settings.serve {
        NodeLogs::Disabled => any(disabled),
        NodeLogs::Files | NodeLogs::FilesAndQueries => get(node_log),
    };
    Router::new()
        .route("/logs", get(|| async { Redirect::permanent("/logs/") }))
        .route("/logs/", logs())
        .route("/logs/{*path}", logs())
        .with_state(handler)
}

async fn disabled() -> (StatusCode, &'static str) {
    (
        StatusCode::METHOD_NOT_ALLOWED,
        "logs endpoint is disabled.\n",
    )
}

/// A query that is not answered.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Query(#[from] BadQuery),
    #[error("the query cannot be decoded")]
    Undecodable,
    #[error("path not allowed in query mode")]
    WithPath,
    #[error("query: Invalid value: {0:?}: no such file")]
    NoFile(String),
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::Query(BadQuery::Undecodable(_)) | Self::Undecodable => StatusCode::BAD_REQUEST,
            Self::Query(BadQuery::NotAcceptable(_)) | Self::WithPath | Self::NoFile(_) => {
                StatusCode::NOT_ACCEPTABLE
            }
        };
        (status, format!("{self}\n")).into_response()
    }
}

async fn node_log(
    State(handler): State<Arc<Handler>>,
    path: Option<Path<String>>,
    uri: Uri,
) -> Result<Response, Refusal> {
    let path = path.map(|Path(path)| path).unwrap_or_default();
    let query = match handler.serve {
        NodeLogs::FilesAndQueries => {
            let pairs = Query::<Vec<(String, String)>>::try_from_uri(&uri)
                .map_err(|_| Refusal::Undecodable)?;
            query::parse(&pairs)?
        }
        NodeLogs::Disabled | NodeLogs::Files => None,
    };
    match query {
        None => Ok(handler.file(path).await),
        Some(_) if !path.is_empty() => Err(Refusal::WithPath),
        Some(NodeLogQuery::File(file)) => {
            let answer = handler.file(file.clone()).await;
            if answer.status() == StatusCode::NOT_FOUND {
                return Err(Refusal::NoFile(file));
            }
            Ok(answer)
        }
        Some(NodeLogQuery::Services(services, options)) => {
            let text = handler.journal.query(services, options).await;
            let headers = [(header::CONTENT_TYPE, "text/plain;charset=UTF-8")];
            Ok((headers, Body::from_stream(text)).into_response())
        }
    }
}

impl Handler {
    async fn file(&self, path: String) -> Response {
        let root = self.root.clone();
        let found = tokio::task::spawn_blocking(move || files::find(&root, &path)).await;
        files::answer(found.map_err(std::io::Error::other).flatten())
    }
}
