//! Real connections over the loopback.

use std::net::IpAddr;

use axum::routing::get;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;

use super::*;

struct Running {
    address: SocketAddr,
    shutdown: CancellationToken,
    task: JoinHandle<io::Result<()>>,
}

impl Running {
    fn start(ip: &str, limits: Limits) -> Self {
        let router = Router::new().route("/", get(|| async { "hello" }));
        let address = SocketAddr::new(ip.parse().unwrap(), 0);
        let server = HttpServer::bind(address, router, limits).unwrap();
        let shutdown = CancellationToken::new();
        Self {
            address: server.address().unwrap(),
            task: tokio::spawn(server.run(shutdown.clone())),
            shutdown,
        }
    }

    async fn connect(&self, ip: impl Into<IpAddr>) -> TcpStream {
        let address = SocketAddr::new(ip.into(), self.address.port());
        TcpStream::connect(address).await.unwrap()
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }
}

/// What the server answers until it closes.
async fn ask(stream: &mut TcpStream) -> String {
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: n\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    rest(stream).await
}

async fn rest(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    // A reset ends an answer as well.
    let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_string(&mut text))
        .await
        .expect("the server closes in time");
    text
}

const TIGHT: Limits = Limits {
    connections: 3,
    ..Limits::CHECKS
};

#[tokio::test]
async fn the_wildcard_address_is_of_both_families() {
    let server = Running::start("0.0.0.0", Limits::READERS);
    let mut stream = server.connect(Ipv4Addr::LOCALHOST).await;
    assert!(ask(&mut stream).await.ends_with("hello"));
    if server.address.is_ipv6() {
        let mut stream = server.connect(Ipv6Addr::LOCALHOST).await;
        assert!(ask(&mut stream).await.ends_with("hello"));
    }
    server.stop().await;
}

#[tokio::test]
async fn callers_that_say_nothing_make_room_for_others() {
    let server = Running::start("127.0.0.1", TIGHT);
    let mut silent = Vec::new();
    for _ in 0..10 {
        silent.push(server.connect(Ipv4Addr::LOCALHOST).await);
    }
    let mut stream = server.connect(Ipv4Addr::LOCALHOST).await;
    assert!(ask(&mut stream).await.ends_with("hello"));
    assert_eq!(rest(&mut silent[0]).await, "", "the oldest is cut off");
    server.stop().await;
}

#[tokio::test]
async fn a_head_that_never_ends_is_cut_off() {
    let limits = Limits {
        head: Duration::from_millis(50),
        ..TIGHT
    };
    let server = Running::start("127.0.0.1", limits);
    let mut stream = server.connect(Ipv4Addr::LOCALHOST).await;
    stream.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(!answer.contains("200"), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn single_requests_end_their_connection() {
    let server = Running::start("127.0.0.1", TIGHT);
    let mut stream = server.connect(Ipv4Addr::LOCALHOST).await;
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: n\r\n\r\n")
        .await
        .unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.contains("connection: close"), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn an_address_in_use_is_served_once_it_is_free() {
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let router = Router::new().route("/", get(|| async { "hello" }));
    assert!(HttpServer::bind(address, router.clone(), Limits::READERS).is_err());
    tokio::time::pause();
    let server = serve_when_free("test", address, router, Limits::READERS, shutdown.clone());
    let server = tokio::spawn(server);
    tokio::time::sleep(RETRY * 2).await;
    drop(other);
    tokio::time::sleep(RETRY).await;
    tokio::time::resume();
    let mut stream = TcpStream::connect(address).await.unwrap();
    assert!(ask(&mut stream).await.ends_with("hello"));
    shutdown.cancel();
    server.await.unwrap();
}
