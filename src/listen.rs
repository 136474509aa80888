//! Plain HTTP listeners, for health, metrics and the read-only API.
//!
//! In: an address, a router, [`Limits`]. Out: answers, until shutdown. Anybody may
//! come to such an address, so no caller can hold anything: heads of requests have a
//! time limit, and when all connections are taken, the oldest makes room for the
//! newest.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::error::chain;

/// The largest head of a request.
const HEAD_BYTES: usize = 64 * 1024;
/// Connections that the kernel may keep for us, as std's listeners ask for.
const BACKLOG: u32 = 128;
/// Time for answers under way to end at shutdown.
const GOODBYE: Duration = Duration::from_secs(1);
/// Pause after a failed accept: mostly no file descriptors are left, and the
/// listener would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Between two tries to get an address that somebody else has; upstream's.
const RETRY: Duration = Duration::from_secs(5);

/// What callers may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time. One more cuts off the oldest.
    pub connections: usize,
    /// Time for the head of a request to arrive, and for a connection to sit idle
    /// between two requests.
    pub head: Duration,
    /// `Some`: a connection is for one request and its answer, and lasts so long at
    /// most. `None`: it stays for as long as requests come.
    pub single: Option<Duration>,
}

impl Limits {
    /// For readers of metrics and of the read-only API.
    pub const READERS: Self = Self {
        connections: 1024,
        head: Duration::from_secs(90),
        single: None,
    };

    /// For health checks from anywhere: small answers, made in no time.
    pub const CHECKS: Self = Self {
        connections: 64,
        head: Duration::from_secs(5),
        single: Some(Duration::from_secs(10)),
    };
}

/// The bound listener; answers once it is run.
#[derive(Debug)]
pub struct HttpServer {
    listener: TcpListener,
    router: Router,
    limits: Limits,
}

impl HttpServer {
    /// Binds the address, so that a port in use is known before anything runs.
    /// `0.0.0.0` is every address of the machine, of both families, as upstream.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub fn bind(address: SocketAddr, router: Router, limits: Limits) -> io::Result<Self> {
        Ok(Self {
            listener: bind(address)?,
            router,
            limits,
        })
    }

    /// Where it listens; tells the port if 0 was asked for.
    ///
    /// # Errors
    /// The socket's address cannot be read.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until shutdown, which gives answers under way a second to end. Dropped,
    /// it closes everything at once.
    ///
    /// # Errors
    /// None: a listener that cannot accept goes on trying.
    pub async fn run(self, shutdown: CancellationToken) -> io::Result<()> {
        let mut connections = Connections::default();
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let served = serve(stream, self.router.clone(), self.limits, shutdown.clone());
                    connections.add(served, self.limits.connections);
                }
                Err(error) => {
                    warn!(error = %chain(&error), "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(self.listener);
        connections.say_goodbye().await;
        Ok(())
    }
}

/// Serves the address until shutdown, from when it can be had: while somebody else
/// has it, it is tried again every 5 s. `what` names it in the log.
pub async fn serve_when_free(
    what: &'static str,
    address: SocketAddr,
    router: Router,
    limits: Limits,
    shutdown: CancellationToken,
) {
    let bound = async {
        let mut is_told = false;
        loop {
            match HttpServer::bind(address, router.clone(), limits) {
                Ok(server) => return server,
                Err(error) if is_told => {
                    debug!(what, %address, error = %chain(&error), "still cannot listen");
                }
                Err(error) => {
                    warn!(what, %address, error = %chain(&error), "cannot listen; trying on");
                    is_told = true;
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    };
    let Some(server) = shutdown.run_until_cancelled(bound).await else {
        return;
    };
    info!(what, %address, "listening");
    if let Err(error) = server.run(shutdown).await {
        warn!(what, %address, error = %chain(&error), "the listener ended");
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    if address.ip() != Ipv4Addr::UNSPECIFIED {
        return listen(address);
    }
    match listen(SocketAddr::from((Ipv6Addr::UNSPECIFIED, address.port()))) {
        // No IPv6 here, or it is switched off.
        Err(error) if is_without_ipv6(&error) => listen(address),
        result => result,
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        SockRef::from(&socket).set_only_v6(false)?;
    }
    // Connections of an earlier process may still be winding down.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn is_without_ipv6(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

/// The connections of one listener.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    oldest_first: VecDeque<AbortHandle>,
}

impl Connections {
    fn add(&mut self, connection: impl Future<Output = ()> + Send + 'static, limit: usize) {
        while self.tasks.try_join_next().is_some() {}
        self.oldest_first.retain(|task| !task.is_finished());
        if self.oldest_first.len() >= limit
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            oldest.abort();
        }
        self.oldest_first.push_back(self.tasks.spawn(connection));
    }

    /// What is left after a second is cut off with the set.
    async fn say_goodbye(mut self) {
        let all = async { while self.tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(GOODBYE, all).await;
    }
}

/// Serves one connection. Whatever goes wrong is the caller's doing, or its network's.
async fn serve(stream: TcpStream, router: Router, limits: Limits, shutdown: CancellationToken) {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(HEAD_BYTES)
        .keep_alive(limits.single.is_none());
    let connection =
        builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let served = async {
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    let ended = match limits.single {
        Some(time) => tokio::time::timeout(time, served).await,
        None => Ok(served.await),
    };
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(error = %chain(&error), "connection ended early"),
        Err(_) => debug!("connection took too long"),
    }
}

#[cfg(test)]
mod tests;
