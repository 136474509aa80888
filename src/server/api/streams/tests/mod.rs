//! The routes over real connections, between a caller and a streaming server
//! that are this test's own.

mod refusals;
mod sessions;
mod stub;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Metrics, StreamDeps, StreamLimits, routes};
use crate::pod::{DesiredPods, SourcesReady, samples};
use crate::runtime::StreamUrl;
use crate::runtime::fake::FakeRuntime;
use crate::server::api::PodDirectory;
use crate::status::{StandaloneStatus, StatusHandle};

/// Nothing takes as long unless it is broken.
const PATIENCE: Duration = Duration::from_secs(20);

/// Deadlines that no test meets, however busy the machine.
const LIMITS: StreamLimits = StreamLimits {
    sessions: 400,
    commands: 1,
    connect: PATIENCE,
    upgrade: PATIENCE,
    linger: PATIENCE,
};

/// A server with the routes, over a runtime in memory that has pod `ns/p` with
/// UID `u` and container `web`.
struct World {
    address: SocketAddr,
    router: axum::Router,
    runtime: FakeRuntime,
    metrics: Metrics,
    checkpoints: tempfile::TempDir,
    shutdown: CancellationToken,
    /// Ends with the test.
    _server: JoinSet<()>,
}

impl World {
    async fn new(limits: StreamLimits) -> Self {
        let pod = samples::pod("Always", &[], &["web"]);
        let runtime = FakeRuntime::new();
        let web = samples::instance(&pod, "web", 0, samples::running());
        runtime.install(samples::up(vec![web]));
        let pods = BTreeMap::from([(pod.uid.clone(), Arc::new(pod))]);
        let (_, desired) = watch::channel(DesiredPods {
            pods: Arc::new(pods),
            mirrors: Arc::default(),
            ready: SourcesReady::default(),
        });
        let (_, statuses) = StandaloneStatus::new(StatusHandle::default(), desired.clone());
        let observer = Arc::new(runtime.clone());
        let metrics = Metrics::new(&mut Registry::default());
        let checkpoints = tempfile::tempdir().expect("directory");
        let shutdown = CancellationToken::new();
        let router = routes(StreamDeps {
            pods: PodDirectory::new(desired, statuses, observer),
            runtime: Arc::new(runtime.clone()),
            checkpoints: checkpoints.path().join("checkpoints"),
            limits,
            metrics: metrics.clone(),
            shutdown: shutdown.clone(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listener");
        let address = listener.local_addr().expect("address");
        let mut server = JoinSet::new();
        server.spawn(serve(listener, router.clone()));
        Self {
            address,
            router,
            runtime,
            metrics,
            checkpoints,
            shutdown,
            _server: server,
        }
    }

    /// With the runtime's streams at this address.
    async fn streaming_at(limits: StreamLimits, address: SocketAddr) -> Self {
        let world = Self::new(limits).await;
        let url = format!("http://{address}/exec/token");
        world
            .runtime
            .streams_at(StreamUrl::parse(&url).expect("URL"));
        world
    }

    /// Sends a request, and reads the head of the response.
    async fn ask(&self, line: &str, headers: &str) -> Caller {
        let mut stream = TcpStream::connect(self.address).await.expect("connect");
        let request = format!("{line} HTTP/1.1\r\nhost: node\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.expect("write");
        let head = read_head(&mut stream).await;
        Caller { stream, head }
    }

    /// Asks for an exec session over SPDY.
    async fn exec(&self) -> Caller {
        self.ask(EXEC, SPDY).await
    }
}

const EXEC: &str = "POST /exec/ns/p/web?command=cat&input=1&output=1";
const SPDY: &str = "connection: Upgrade\r\nupgrade: SPDY/3.1\r\n\
    x-stream-protocol-version: v5.channel.k8s.io\r\n\
    x-stream-protocol-version: v4.channel.k8s.io\r\nauthorization: Bearer secret\r\n";

async fn serve(listener: TcpListener, router: axum::Router) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let service = TowerToHyperService::new(router.clone());
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        connections.spawn(async move {
            // A caller that leaves is no failure of the test.
            let _ = connection.with_upgrades().await;
        });
    }
}

/// A caller's connection, past the head of the response.
struct Caller {
    stream: TcpStream,
    head: String,
}

impl Caller {
    fn status(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    fn has_header(&self, line: &str) -> bool {
        self.head.lines().any(|header| header == line)
    }

    /// The body, if its length is told; otherwise up to the connection's end.
    async fn body(&mut self) -> String {
        let length = self
            .head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let mut body = Vec::new();
        match length {
            Some(length) => {
                body.resize(length.parse().expect("length"), 0);
                within(self.stream.read_exact(&mut body))
                    .await
                    .expect("body");
            }
            None => {
                within(self.stream.read_to_end(&mut body))
                    .await
                    .expect("body");
            }
        }
        String::from_utf8(body).expect("text")
    }
}

/// Reads up to the empty line, and not a byte more.
async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match within(stream.read_u8()).await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).expect("text")
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("in time")
}
