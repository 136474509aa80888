//! The listener of the node's API: TLS, HTTP/1.1 and HTTP/2, and what one
//! caller may cost.
//!
//! In: a bound socket, TLS, a router. Out: one task for each connection, bounded
//! in number, each with the caller's certificates attached to its requests.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::{debug, warn};

use super::auth::PeerCertificates;
use crate::error::chain;

/// Connections at a time. A log follower holds one, and so does every session
/// of exec until it is handed over; callers beyond wait to be accepted.
const MAX_CONNECTIONS: usize = 4096;
/// Time for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Time for the head of a request to arrive, and for a connection to sit idle
/// between two requests; upstream's idle limit.
const HEAD: Duration = Duration::from_secs(90);
/// The largest head of a request. Upstream takes 1 MiB; the largest token is
/// far below this, and each connection can cost that much.
const HEAD_BYTES: usize = 128 * 1024;
/// HTTP/2: requests at a time on one connection (Go's default).
const STREAMS: u32 = 250;
/// Callers that vanished with their network are noticed after about
/// `KEEPALIVE_IDLE + 3 × KEEPALIVE_INTERVAL`.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// Time for answers under way to end at shutdown.
const GOODBYE: Duration = Duration::from_secs(1);
/// Pause after a failed accept: mostly no file descriptors are left, and the
/// listener would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The bound listener; answers once it is run.
pub struct HttpsServer {
    listener: TcpListener,
    tls: TlsAcceptor,
    router: Router,
}

impl HttpsServer {
    /// Binds the address, so that a port in use is known before anything runs.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn bind(address: SocketAddr, tls: ServerConfig, router: Router) -> io::Result<Self> {
        Ok(Self {
            listener: TcpListener::bind(address).await?,
            tls: TlsAcceptor::from(Arc::new(tls)),
            router,
        })
    }

    /// Where it listens; tells the port if 0 was asked for.
    ///
    /// # Errors
    /// The socket's address cannot be read.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until shutdown, which gives answers under way a second to end.
    ///
    /// # Errors
    /// None: a listener that cannot accept goes on trying.
    pub async fn run(self, shutdown: CancellationToken) -> io::Result<()> {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                Some(_) = connections.join_next() => continue,
                accepted = accept(&self.listener, &slots) => accepted,
            };
            match accepted {
                Ok((stream, slot)) => {
                    let connection = Connection {
                        tls: self.tls.clone(),
                        router: self.router.clone(),
                        shutdown: shutdown.clone(),
                        _slot: slot,
                    };
                    connections.spawn(connection.serve(stream));
                }
                Err(error) => {
                    warn!(error = %chain(&error), "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(self.listener);
        let all = async { while connections.join_next().await.is_some() {} };
        // What is left then is cut off with the set.
        let _ = tokio::time::timeout(GOODBYE, all).await;
        Ok(())
    }
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    // The semaphore is never closed.
    let slot = Arc::clone(slots)
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, slot))
}

/// One caller's connection.
struct Connection {
    tls: TlsAcceptor,
    router: Router,
    shutdown: CancellationToken,
    _slot: OwnedSemaphorePermit,
}

impl Connection {
    /// Whatever goes wrong is the caller's doing, or its network's.
    async fn serve(self, stream: TcpStream) {
        if let Err(error) = prepare(&stream) {
            debug!(error = %chain(&error), "cannot set a connection's options");
        }
        let stream = match tokio::time::timeout(HANDSHAKE, self.tls.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                debug!(error = %chain(&error), "TLS handshake failed");
                return;
            }
            Err(_) => {
                debug!("TLS handshake took too long");
                return;
            }
        };
        let certificates = stream.get_ref().1.peer_certificates().map(|chain| {
            PeerCertificates(chain.iter().map(|one| one.clone().into_owned()).collect())
        });
        let router = self.router;
        let service = tower::service_fn(move |request: hyper::Request<Incoming>| {
            let mut request: Request = request.map(axum::body::Body::new);
            if let Some(certificates) = &certificates {
                request.extensions_mut().insert(certificates.clone());
            }
            let answer = router.clone().oneshot(request);
            async move { Ok::<_, Infallible>(answer.await.unwrap_or_else(|never| match never {})) }
        });
        let builder = builder();
        let connection = builder.serve_connection_with_upgrades(
            TokioIo::new(stream),
            TowerToHyperService::new(service),
        );
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            debug!(error = %chain(&*error), "connection ended early");
        }
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(HEAD_BYTES).unwrap_or(u32::MAX))
        .keep_alive_interval(KEEPALIVE_IDLE)
        .keep_alive_timeout(KEEPALIVE_INTERVAL);
    builder
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    // Sessions are dialogues of small messages.
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(3);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}
