//! The asking side of `kubelet explain`.

use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::Output;
use crate::pod::PodName;

/// The answer is in the agent's memory; one that takes longer does not come.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    #[error("cannot reach a running agent at {socket} (is kubelet running, and are you root?)")]
    Connect {
        socket: std::path::PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the agent's answer broke off")]
    Exchange(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the agent at {socket} did not answer within {PATIENCE:?}")]
    TimedOut { socket: std::path::PathBuf },
    /// The agent has no such pod; the text is its own.
    #[error("{0}")]
    Unknown(String),
}

/// Asks the agent behind `socket` about a pod.
///
/// # Errors
/// No agent listens there, it hangs, or it does not know the pod.
pub async fn ask(socket: &Path, pod: &PodName, output: Output) -> Result<String, ExplainError> {
    tokio::time::timeout(PATIENCE, exchange(socket, pod, output))
        .await
        .unwrap_or_else(|_| {
            Err(ExplainError::TimedOut {
                socket: socket.to_owned(),
            })
        })
}

async fn exchange(socket: &Path, pod: &PodName, output: Output) -> Result<String, ExplainError> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|source| ExplainError::Connect {
            socket: socket.to_owned(),
            source,
        })?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
            .await
            .map_err(|error| ExplainError::Exchange(error.into()))?;
    let request = http::Request::get(format!(
        "/explain/{}/{}?output={}",
        pod.namespace,
        pod.name,
        output.as_str()
    ))
    .header("host", "kubelet")
    .body(Empty::new())
    .map_err(|error| ExplainError::Exchange(error.into()))?;
    // Owning the sender, the exchange closes the connection when it is done.
    let exchange = async move {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        Ok::<_, hyper::Error>((status, body))
    };
    let (answer, _) = tokio::join!(exchange, connection);
    let (status, body) = answer.map_err(|error| ExplainError::Exchange(error.into()))?;
    let text = String::from_utf8_lossy(&body).into_owned();
    if status.is_success() {
        Ok(text)
    } else {
        Err(ExplainError::Unknown(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_hangs_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("explain.sock");
        let _listens = tokio::net::UnixListener::bind(&socket).unwrap();
        let pod = PodName::new("default", "web");
        let error = ask(&socket, &pod, Output::Text).await.unwrap_err();
        assert!(matches!(error, ExplainError::TimedOut { .. }), "{error}");
    }
}
