//! Real listeners and connections on the loopback.

use std::sync::Mutex;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::*;
use crate::proxy::model::Family;

const SOON: Duration = Duration::from_secs(10);

struct World {
    wanted: watch::Sender<Arc<WantedChecks>>,
    health: ProxyHealth,
    events: Arc<Mutex<Vec<ProxyEvent>>>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl World {
    fn start() -> Self {
        let (wanted, receiver) = watch::channel(Arc::default());
        let health = ProxyHealth::new(SOON);
        let events = Arc::new(Mutex::new(Vec::new()));
        let recorded = Arc::clone(&events);
        let checks = ServiceChecks::new(ServiceChecksDeps {
            node_name: "n1".into(),
            wanted: receiver,
            health: health.clone(),
            events: Arc::new(move |event| recorded.lock().unwrap().push(event)),
        });
        let shutdown = CancellationToken::new();
        Self {
            wanted,
            health,
            events,
            task: tokio::spawn(checks.run(shutdown.clone())),
            shutdown,
        }
    }

    /// (Service in namespace `shop`, port, local endpoints)
    fn want(&self, checks: &[(&str, NonZeroU16, usize)]) {
        let checks = checks.iter().map(|(name, port, local)| {
            let (port, local) = (*port, *local);
            (
                Arc::new(ServiceName::new("shop", *name)),
                Check { port, local },
            )
        });
        self.wanted.send_replace(Arc::new(WantedChecks {
            addresses: vec![Ipv4Addr::LOCALHOST.into()],
            checks: checks.collect(),
        }));
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

/// A port that nobody has at the moment.
fn free_port() -> NonZeroU16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    NonZeroU16::new(listener.local_addr().unwrap().port()).unwrap()
}

/// `None`: nobody listens.
async fn ask(port: NonZeroU16) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port.get())).await.ok()?;
    stream
        .write_all(b"POST /any/path HTTP/1.1\r\nhost: n\r\n\r\n")
        .await
        .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}

/// Asks until the answer is as expected; returns it.
async fn until(port: NonZeroU16, is_expected: impl Fn(Option<&str>) -> bool) -> Option<String> {
    let asked = async {
        loop {
            let answer = ask(port).await;
            if is_expected(answer.as_deref()) {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let deadline = tokio::time::timeout(SOON, asked);
    deadline.await.expect("the expected answer in time")
}

async fn until_code(port: NonZeroU16, code: &str) -> String {
    let head = format!("HTTP/1.1 {code} ");
    let answer = until(port, |answer| answer.is_some_and(|a| a.starts_with(&head))).await;
    answer.unwrap()
}

#[tokio::test]
async fn a_service_answers_for_its_local_endpoints() {
    let world = World::start();
    let port = free_port();
    world.want(&[("web", port, 2)]);
    let answer = until_code(port, "200").await;
    assert!(
        answer.contains("x-load-balancing-endpoint-weight: 2\r\n"),
        "{answer}"
    );
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    let expected = json!({
        "service": {"namespace": "shop", "name": "web"},
        "localEndpoints": 2,
        "serviceProxyHealthy": true,
    });
    assert_eq!(body, expected);

    world.want(&[("web", port, 0)]);
    until_code(port, "503").await;
    world.want(&[("web", port, 1)]);
    until_code(port, "200").await;
    // A proxy that is stuck does not know where endpoints are.
    world.health.queued(Family::V4, Instant::now() - SOON);
    let answer = until_code(port, "503").await;
    assert!(answer.contains("\"serviceProxyHealthy\":false"), "{answer}");

    world.want(&[]);
    until(port, |answer| answer.is_none()).await;
    world.stop().await;
}

#[tokio::test]
async fn a_port_can_go_from_one_service_to_another() {
    let world = World::start();
    let (one, two) = (free_port(), free_port());
    world.want(&[("a", one, 1), ("b", two, 1)]);
    until(one, |answer| answer.is_some_and(|a| a.contains("\"a\""))).await;
    until(two, |answer| answer.is_some_and(|a| a.contains("\"b\""))).await;
    world.want(&[("a", two, 1), ("b", one, 1)]);
    until(one, |answer| answer.is_some_and(|a| a.contains("\"b\""))).await;
    until(two, |answer| answer.is_some_and(|a| a.contains("\"a\""))).await;
    assert_eq!(*world.events.lock().unwrap(), []);
    world.stop().await;
    assert_eq!(ask(one).await, None, "closed at shutdown");
}

#[tokio::test]
async fn a_port_in_use_is_an_event_and_others_are_served() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = NonZeroU16::new(taken.local_addr().unwrap().port()).unwrap();
    let world = World::start();
    let other = free_port();
    world.want(&[("a", port, 1), ("b", other, 1)]);
    until_code(other, "200").await;
    let event = world.events.lock().unwrap().pop().unwrap();
    assert_eq!(event.reason, "FailedToStartServiceHealthcheck");
    let expected = format!("node n1 failed to start healthcheck \"shop/a\" on port {port}: ");
    assert!(event.message.starts_with(&expected), "{}", event.message);
    // Another change does not make it try sooner.
    world.want(&[("a", port, 1), ("b", other, 0)]);
    until_code(other, "503").await;
    assert_eq!(world.events.lock().unwrap().len(), 0);

    drop(taken);
    tokio::time::pause();
    tokio::time::sleep(RETRY).await;
    tokio::time::resume();
    until_code(port, "200").await;
    world.stop().await;
}
