//! A scripted API server: a function from requests to answers, behind the real
//! client library.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt as _;
use http::{Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use kube::Client;
use serde_json::{Value, json};
use tower::BoxError;

use crate::apiserver::{ApiServer, ApiSettings, Credentials};

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A request as the script sees it.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) method: Method,
    /// Path and query.
    pub(super) path: String,
    pub(super) content_type: String,
    pub(super) body: Value,
}

impl Asked {
    pub(super) fn is_watch(&self) -> bool {
        self.path.contains("watch=true")
    }
}

/// What the script answers.
pub(super) enum Answer {
    Json(u16, Value),
    /// Watch events, after which the stream stays open.
    Events(Vec<Value>),
    /// No answer: the connection breaks.
    Broken,
}

/// A failure status as the API server words it.
pub(super) fn failure(code: u16, reason: &str, message: &str) -> Answer {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "code": code, "reason": reason, "message": message,
    });
    Answer::Json(code, body)
}

/// Everything that was asked, in order.
pub(super) type Log = Arc<Mutex<Vec<Asked>>>;

/// An [`ApiServer`] for node `n1` whose other end is the script.
pub(super) fn server(
    script: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
) -> (ApiServer, Log) {
    let log = Log::default();
    let seen = log.clone();
    let script = Arc::new(script);
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let (script, seen) = (script.clone(), seen.clone());
        async move {
            let asked = read(request).await?;
            seen.lock().unwrap().push(asked.clone());
            respond(script(&asked))
        }
    });
    let settings = ApiSettings {
        credentials: Credentials::Kubeconfig("/nonexistent".into()),
        node_name: "n1".into(),
        calls: None,
        events: None,
    };
    (
        ApiServer::over(Client::new(service, "default"), &settings),
        log,
    )
}

async fn read(request: Request<kube::client::Body>) -> Result<Asked, BoxError> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let content_type = head.headers.get(http::header::CONTENT_TYPE);
    Ok(Asked {
        method: head.method,
        path: head.uri.to_string(),
        content_type: content_type.map_or(String::new(), |value| value.to_str().unwrap().into()),
        body: serde_json::from_slice(&body).unwrap_or_default(),
    })
}

fn respond(answer: Answer) -> Result<Response<Body>, BoxError> {
    match answer {
        Answer::Json(code, value) => {
            let body = Full::from(value.to_string()).boxed_unsync();
            Ok(Response::builder().status(code).body(body)?)
        }
        Answer::Events(events) => {
            let lines = events
                .into_iter()
                .map(|event| Ok::<_, Infallible>(Frame::data(Bytes::from(format!("{event}\n")))));
            let stream = futures::stream::iter(lines).chain(futures::stream::pending());
            Ok(Response::new(StreamBody::new(stream).boxed_unsync()))
        }
        Answer::Broken => Err("connection refused".into()),
    }
}
