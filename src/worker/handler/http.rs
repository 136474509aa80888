//! One HTTP GET, for probes and hooks: every request over a connection of its
//! own, certificates not verified, redirects followed on the same host only.
//!
//! In: an [`HttpGet`]. Out: the last answer's status and the beginning of its
//! body. The caller limits the time; dropping the future closes the connection.

use std::io;
use std::pin::pin;
use std::sync::Arc;

use futures::future::{Either, select};
use http::{HeaderName, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, InvalidMessage, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::pod::probe::http::{HttpGet, Scheme};

/// What is read of a body, in bytes; the rest is not asked for.
pub(in crate::worker) const BODY_LIMIT: usize = 10 << 10;
/// Redirects that are followed.
const MAX_REDIRECTS: usize = 10;

/// The answer at the end of all redirects that are followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::worker) struct Answer {
    pub(in crate::worker) status: u16,
    /// Its first [`BODY_LIMIT`] bytes, as text.
    pub(in crate::worker) body: String,
}

impl Answer {
    /// From 200 up to, but not including, 400.
    pub(in crate::worker) fn is_success(&self) -> bool {
        (200..400).contains(&self.status)
    }

    /// A redirect that is not followed, because it leads to another host or
    /// nowhere. Counts as success, with a warning.
    pub(in crate::worker) fn is_redirect(&self) -> bool {
        (300..400).contains(&self.status)
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(in crate::worker) enum HttpError {
    /// Nothing was sent: a header or the address cannot be.
    #[error("cannot build the request")]
    Request(#[source] http::Error),
    #[error("dial tcp {authority}")]
    Connect {
        authority: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot name the server {host} in a TLS handshake")]
    ServerName {
        host: String,
        #[source]
        source: InvalidDnsNameError,
    },
    #[error("cannot set up TLS")]
    Tls(#[source] rustls::Error),
    #[error("TLS handshake failed")]
    Handshake(#[source] io::Error),
    /// The other side does not speak TLS. In the words that tools know.
    #[error("http: server gave HTTP response to HTTPS client")]
    PlainAnswer,
    #[error("the exchange broke off")]
    Exchange(#[source] hyper::Error),
    #[error("failed to parse Location header {location:?}")]
    Location { location: String },
    #[error("stopped after {MAX_REDIRECTS} redirects")]
    TooManyRedirects,
    #[error("cannot read the answer's body")]
    Body(#[source] hyper::Error),
}

/// Sends `request` and follows where it leads.
///
/// # Errors
/// If no answer comes; an answer with a bad status is one.
pub(in crate::worker) async fn get(request: &HttpGet) -> Result<Answer, HttpError> {
    let mut request = request.clone();
    for _ in 0..=MAX_REDIRECTS {
        match once(&request).await? {
            Reply::Final(answer) => return Ok(answer),
            Reply::Redirect(next) => request = next,
        }
    }
    Err(HttpError::TooManyRedirects)
}

enum Reply {
    Final(Answer),
    /// To be followed.
    Redirect(HttpGet),
}

async fn once(request: &HttpGet) -> Result<Reply, HttpError> {
    let stream = TcpStream::connect((request.host.as_str(), request.port))
        .await
        .map_err(|source| HttpError::Connect {
            authority: request.authority(),
            source,
        })?;
    match request.scheme {
        Scheme::Http => exchange(request, stream).await,
        Scheme::Https => {
            let name = ServerName::try_from(request.host.clone()).map_err(|source| {
                HttpError::ServerName {
                    host: request.host.clone(),
                    source,
                }
            })?;
            let stream = TlsConnector::from(tls().map_err(HttpError::Tls)?)
                .connect(name, stream)
                .await
                .map_err(handshake_error)?;
            exchange(request, stream).await
        }
    }
}

async fn exchange<S>(request: &HttpGet, stream: S) -> Result<Reply, HttpError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let message = message(request).map_err(HttpError::Request)?;
    let (mut sender, connection) = http1::Builder::new()
        // Servers that compare names letter by letter exist.
        .title_case_headers(true)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(HttpError::Exchange)?;
    let exchange = async {
        let response = sender
            .send_request(message)
            .await
            .map_err(HttpError::Exchange)?;
        read(request, response).await
    };
    // Dropping the connection closes it, however much of the body is left.
    match select(pin!(exchange), pin!(connection)).await {
        Either::Left((reply, _)) => reply,
        // Whatever ended the connection, the exchange hears of it.
        Either::Right((_, exchange)) => exchange.await,
    }
}

fn message(request: &HttpGet) -> Result<http::Request<Empty<Bytes>>, http::Error> {
    let mut builder =
        http::Request::get(request.path_and_query.as_str()).header(header::CONNECTION, "close");
    for (name, value) in &request.headers {
        let name = HeaderName::try_from(name)?;
        builder = builder.header(name, HeaderValue::try_from(value.as_str())?);
    }
    builder.body(Empty::new())
}

async fn read(request: &HttpGet, response: http::Response<Incoming>) -> Result<Reply, HttpError> {
    let status = response.status();
    if let Some(location) = response.headers().get(header::LOCATION)
        && is_followed(status)
        && !location.is_empty()
    {
        let location = String::from_utf8_lossy(location.as_bytes());
        let next = request
            .redirected(&location)
            .ok_or_else(|| HttpError::Location {
                location: location.clone().into_owned(),
            })?;
        if next.host.eq_ignore_ascii_case(&request.host) {
            return Ok(Reply::Redirect(next));
        }
    }
    Ok(Reply::Final(Answer {
        status: status.as_u16(),
        body: beginning(response.into_body()).await?,
    }))
}

fn is_followed(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    )
}

async fn beginning(mut body: Incoming) -> Result<String, HttpError> {
    let mut bytes = Vec::new();
    while bytes.len() < BODY_LIMIT
        && let Some(frame) = body.frame().await
    {
        if let Ok(data) = frame.map_err(HttpError::Body)?.into_data() {
            bytes.extend_from_slice(&data);
        }
    }
    bytes.truncate(BODY_LIMIT);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

// === TLS ===

fn handshake_error(error: io::Error) -> HttpError {
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    // The `H` of `HTTP/1.1` is no type of TLS record.
    match tls {
        Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            HttpError::PlainAnswer
        }
        _ => HttpError::Handshake(error),
    }
}

fn tls() -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer { algorithms }))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Takes every certificate: what is asked is whether the server answers, and
/// pods' certificates are rarely made out to their addresses.
#[derive(Debug)]
struct AnyServer {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
