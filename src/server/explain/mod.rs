//! `kubelet explain NAMESPACE/POD`: the running agent answers, over a unix
//! socket that only root can open, what it makes of a pod.
//!
//! In: the workers' views, and how far image pulls have come. Out: JSON for scripts, text for people. The client
//! side prints what the server sends.

mod client;
mod text;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path as UrlPath, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use jiff::Timestamp;
use serde::Deserialize;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

pub use client::{ExplainError, ask};
pub use text::render;

use crate::runtime::Images;
use crate::worker::{PodView, PodsView};

/// Name of the socket below the root directory.
pub const SOCKET_NAME: &str = "explain.sock";

/// The answering side.
pub struct ExplainServer {
    listener: UnixListener,
    path: PathBuf,
    sources: Sources,
}

/// Where answers come from.
#[derive(Clone)]
struct Sources {
    pods: PodsView,
    images: Arc<dyn Images>,
}

impl ExplainServer {
    /// Binds the socket, taking the place of one that a dead agent left.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn bind(root_dir: &Path, pods: PodsView, images: Arc<dyn Images>) -> std::io::Result<Self> {
        let path = root_dir.join(SOCKET_NAME);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self {
            listener,
            path,
            sources: Sources { pods, images },
        })
    }

    /// Serves until shutdown, then removes the socket.
    ///
    /// # Errors
    /// The listener broke.
    pub async fn run(self, shutdown: CancellationToken) -> std::io::Result<()> {
        let router = Router::new()
            .route("/explain/{namespace}/{name}", get(explain))
            .with_state(self.sources);
        let result = axum::serve(self.listener, router)
            .with_graceful_shutdown(async move { shutdown.cancelled().await })
            .await;
        // Best effort: the next start replaces what is left.
        let _ = std::fs::remove_file(&self.path);
        result
    }
}

#[derive(Deserialize)]
struct Options {
    #[serde(default)]
    output: Output,
}

/// Form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Output {
    #[default]
    Text,
    Json,
}

impl Output {
    fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

async fn explain(
    State(Sources { pods, images }): State<Sources>,
    UrlPath((namespace, name)): UrlPath<(String, String)>,
    Query(options): Query<Options>,
) -> Response {
    let views: Vec<Arc<PodView>> = pods
        .borrow()
        .values()
        .filter(|entry| *entry.name.namespace == *namespace && *entry.name.name == *name)
        .map(|entry| entry.view.borrow().clone())
        .collect();
    if views.is_empty() {
        let known: Vec<String> = pods.borrow().values().map(|e| e.name.to_string()).collect();
        return (
            StatusCode::NOT_FOUND,
            text::unknown(&namespace, &name, &known),
        )
            .into_response();
    }
    match options.output {
        Output::Json => Json(views).into_response(),
        Output::Text => {
            let now = Timestamp::now();
            let pulls = images.pulls().await;
            let texts: Vec<String> = views
                .iter()
                .map(|view| render(view, now) + &text::pulls(view, &pulls, now))
                .collect();
            texts.join("\n").into_response()
        }
    }
}
