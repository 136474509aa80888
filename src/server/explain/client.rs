//! The asking side of `kubelet explain`.

use std::path::Path;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::Output;
use crate::pod::PodName;

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
    /// The agent has no such pod; the text is its own.
    #[error("{0}")]
    Unknown(String),
}

/// Asks the agent behind `socket` about a pod.
///
/// # Errors
/// No agent listens there, or it does not know the pod.
pub async fn ask(socket: &Path, pod: &PodName, output: Output) -> Result<String, ExplainError> {
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
