//! From a request for an upgrade to a session: the runtime is asked first, with
//! the caller's own words, and what it answers is what the caller hears.
//!
//! In: the caller's request and the address where the runtime's streaming server
//! waits. Out: the response, and, if both sides have switched protocols, a task
//! that relays until the session's end.

use std::pin::pin;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, uri};
use axum::response::Response;
use futures::future::{Either, select};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, info_span};

use super::StreamLimits;
use super::pump;
use super::refusal::Refusal;
use crate::error::chain;
use crate::runtime::StreamUrl;

/// What a refusing streaming server may say.
const MAX_REFUSAL_BYTES: usize = 64 << 10;

/// The caller's headers that the runtime is shown: those that are about the
/// upgrade. Who the caller is, and by what token, is none of its business.
const PASSED_ON: [HeaderName; 5] = [
    HeaderName::from_static("x-stream-protocol-version"),
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_VERSION,
    header::SEC_WEBSOCKET_EXTENSIONS,
    header::ORIGIN,
];

/// A WebSocket's sub-protocol that is a bearer token, for browsers, which cannot
/// set headers.
const TOKEN_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// Why the runtime's streaming server could not be asked. Upstream answers all
/// of these with 500.
#[derive(Debug, thiserror::Error)]
enum RelayError {
    #[error("the runtime's streaming server is at {scheme}://, and only http:// is supported")]
    Scheme { scheme: String },
    #[error("cannot reach the runtime's streaming server at {authority}")]
    Connect {
        authority: String,
        #[source]
        source: std::io::Error,
    },
    #[error("the runtime's streaming server did not answer within {limit:?}")]
    Timeout { limit: Duration },
    #[error("cannot talk to the runtime's streaming server")]
    Exchange(#[source] hyper::Error),
    #[error("cannot read the refusal of the runtime's streaming server")]
    Refusal(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("invalid upgrade response: status code {}", status.as_u16())]
    NoUpgrade { status: StatusCode },
}

impl From<RelayError> for Refusal {
    fn from(error: RelayError) -> Self {
        Self::failed(chain(&error).to_string())
    }
}

/// What a session holds and obeys.
pub(super) struct Session {
    pub(super) limits: StreamLimits,
    pub(super) shutdown: CancellationToken,
    /// Given back at its end.
    pub(super) permit: OwnedSemaphorePermit,
    /// For logs: `exec`, `attach`, `portforward`.
    pub(super) kind: &'static str,
}

/// The streaming server's answer.
enum Answer {
    Switched(HeaderMap, Upgraded),
    Refused(Response),
}

/// Relays the request, and then the session.
pub(super) async fn relay(
    mut request: Request,
    url: &StreamUrl,
    session: Session,
) -> Result<Response, Refusal> {
    let caller = hyper::upgrade::on(&mut request);
    let question = question(request.method(), request.headers(), url.uri())?;
    let stream = connect(url.uri(), session.limits.connect).await?;
    let limit = session.limits.upgrade;
    let answer = timeout(limit, ask(stream, question))
        .await
        .map_err(|_| RelayError::Timeout { limit })??;
    match answer {
        Answer::Refused(response) => Ok(response),
        Answer::Switched(headers, runtime) => {
            let span = info_span!("session", kind = session.kind);
            // It outlives this request, because the caller's connection is free
            // only after the response.
            tokio::spawn(session.run(caller, runtime).instrument(span));
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            *response.headers_mut() = headers;
            Ok(response)
        }
    }
}

impl Session {
    async fn run(self, caller: OnUpgrade, runtime: Upgraded) {
        let relayed = async {
            match timeout(self.limits.upgrade, caller).await {
                Ok(Ok(caller)) => {
                    debug!("session begins");
                    let (caller, runtime) = (TokioIo::new(caller), TokioIo::new(runtime));
                    pump::join(caller, runtime, self.limits.linger).await;
                    debug!("session has ended");
                }
                Ok(Err(error)) => debug!(error = %chain(&error), "the caller has left"),
                Err(_) => debug!("the caller did not switch protocols in time"),
            }
        };
        tokio::select! {
            () = relayed => {}
            () = self.shutdown.cancelled() => debug!("session cut by shutdown"),
        }
        drop(self.permit);
    }
}

/// The request for the runtime's streaming server.
fn question(
    method: &Method,
    caller: &HeaderMap,
    uri: &uri::Uri,
) -> Result<hyper::Request<Empty<Bytes>>, RelayError> {
    if uri.scheme() != Some(&uri::Scheme::HTTP) {
        return Err(RelayError::Scheme {
            scheme: uri.scheme_str().unwrap_or_default().to_owned(),
        });
    }
    let mut request = hyper::Request::new(Empty::new());
    request.method_mut().clone_from(method);
    let path = uri.path_and_query().cloned();
    *request.uri_mut() = path.map_or_else(uri::Uri::default, uri::Uri::from);
    let headers = request.headers_mut();
    let host = uri.authority().map_or("", uri::Authority::as_str);
    // An authority is made of characters that a header may have.
    if let Ok(host) = HeaderValue::from_str(host) {
        headers.insert(header::HOST, host);
    }
    let upgrade = HeaderValue::from_static("Upgrade");
    headers.insert(header::CONNECTION, upgrade);
    for name in PASSED_ON.iter().chain([&header::UPGRADE]) {
        for value in caller.get_all(name) {
            headers.append(name, value.clone());
        }
    }
    for value in caller.get_all(header::SEC_WEBSOCKET_PROTOCOL) {
        if let Some(value) = without_tokens(value) {
            headers.append(header::SEC_WEBSOCKET_PROTOCOL, value);
        }
    }
    Ok(request)
}

/// A list of sub-protocols without those that are tokens; `None` if nothing is
/// left.
fn without_tokens(protocols: &HeaderValue) -> Option<HeaderValue> {
    let protocols = protocols.to_str().ok()?;
    let kept: Vec<&str> = protocols
        .split(',')
        .map(str::trim)
        .filter(|protocol| !protocol.is_empty() && !protocol.starts_with(TOKEN_PROTOCOL))
        .collect();
    let kept = HeaderValue::from_str(&kept.join(", ")).ok()?;
    (!kept.is_empty()).then_some(kept)
}

async fn connect(uri: &uri::Uri, limit: Duration) -> Result<TcpStream, RelayError> {
    // IPv6 addresses stand in brackets.
    let host = uri.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(80);
    let connected = timeout(limit, TcpStream::connect((host, port)))
        .await
        .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
    connected
        // Keystrokes are small, and somebody waits for each.
        .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
        .map_err(|source| RelayError::Connect {
            authority: uri.authority().map(ToString::to_string).unwrap_or_default(),
            source,
        })
}

/// Asks for the upgrade and awaits the answer. The connection is driven here for
/// as long as it speaks HTTP, so that it needs no task of its own.
async fn ask(
    stream: TcpStream,
    question: hyper::Request<Empty<Bytes>>,
) -> Result<Answer, RelayError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(RelayError::Exchange)?;
    let exchange = pin!(async move {
        let answer = sender
            .send_request(question)
            .await
            .map_err(RelayError::Exchange)?;
        read(answer).await
    });
    match select(exchange, pin!(connection.with_upgrades())).await {
        Either::Left((answer, _)) => answer,
        // Switched, or broken: the exchange knows.
        Either::Right((_, exchange)) => exchange.await,
    }
}

async fn read(answer: hyper::Response<hyper::body::Incoming>) -> Result<Answer, RelayError> {
    let status = answer.status();
    if status == StatusCode::SWITCHING_PROTOCOLS {
        let headers = answer.headers().clone();
        let runtime = hyper::upgrade::on(answer)
            .await
            .map_err(RelayError::Exchange)?;
        return Ok(Answer::Switched(headers, runtime));
    }
    // A redirect, above all, is not for the caller to follow.
    if status.as_u16() < 400 {
        return Err(RelayError::NoUpgrade { status });
    }
    let (mut head, body) = answer.into_parts();
    let body = Limited::new(body, MAX_REFUSAL_BYTES).collect().await;
    let body = body.map_err(RelayError::Refusal)?.to_bytes();
    // What described the connection to the runtime is not true of the caller's.
    let framing = [
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ];
    for name in framing {
        head.headers.remove(name);
    }
    let response = Response::from_parts(head, Body::from(body));
    Ok(Answer::Refused(response))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtime_is_shown_the_upgrade_and_nothing_else() {
        let mut caller = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer secret"),
            ("cookie", "secret"),
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "SPDY/3.1"),
            ("x-stream-protocol-version", "v5.channel.k8s.io"),
            ("x-stream-protocol-version", "v4.channel.k8s.io"),
            ("x-remote-user", "admin"),
            ("host", "node:10250"),
            (
                "sec-websocket-protocol",
                "v4.channel.k8s.io, base64url.bearer.authorization.k8s.io.c2VjcmV0",
            ),
        ] {
            let name: HeaderName = name.parse().expect("name");
            caller.append(name, HeaderValue::from_static(value));
        }
        let url = "http://127.0.0.1:40000/exec/token".parse().expect("URL");
        let request = question(&Method::POST, &caller, &url).expect("request");
        assert_eq!(
            (request.method(), request.uri().to_string()),
            (&Method::POST, "/exec/token".to_owned())
        );
        let mut shown: Vec<_> = request
            .headers()
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().expect("text")))
            .collect();
        shown.sort();
        assert_eq!(
            shown,
            [
                "connection: Upgrade",
                "host: 127.0.0.1:40000",
                "sec-websocket-protocol: v4.channel.k8s.io",
                "upgrade: SPDY/3.1",
                "x-stream-protocol-version: v4.channel.k8s.io",
                "x-stream-protocol-version: v5.channel.k8s.io",
            ]
        );
    }

    #[test]
    fn a_streaming_server_with_tls_is_refused_by_name() {
        let url = "https://127.0.0.1:40000/exec/token".parse().expect("URL");
        let refused = question(&Method::POST, &HeaderMap::new(), &url).expect_err("TLS");
        assert_eq!(
            refused.to_string(),
            "the runtime's streaming server is at https://, and only http:// is supported"
        );
    }
}
