//! Clients that never stop, and what befell them: connections that last and speak
//! several times a second, and new ones at a steady rate. From outside of the node.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::ensure;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::MissedTickBehavior;

use crate::harness::{PATIENCE, poll_until};

/// Of each way in.
const SESSIONS: usize = 10;
const NEW_PER_SECOND: u32 = 50;
/// Between two words of a connection that lasts.
const WORDS: Duration = Duration::from_millis(200);
/// Without an answer for so long, a connection is lost. A packet that was lost is sent
/// again after a second, then after two more.
const SILENCE: Duration = Duration::from_secs(3);
/// How many misfortunes are told one by one.
const TOLD: usize = 8;

/// The clients of some addresses. They end with its value.
pub struct Traffic {
    ways: Vec<(String, Arc<Mutex<Tally>>)>,
    clients: Vec<AbortHandle>,
}

/// What befell the clients of one address.
#[derive(Debug, Default)]
struct Tally {
    sessions: usize,
    words: usize,
    connections: usize,
    /// Of a whole connection: its beginning, one question, its end.
    slowest: Duration,
    lost: usize,
    misfortunes: Vec<String>,
}

impl Tally {
    fn note(&mut self, at: Instant, what: &str, error: &anyhow::Error) {
        self.lost += 1;
        if self.misfortunes.len() < TOLD {
            let at = at.elapsed();
            self.misfortunes
                .push(format!("{what} after {at:.1?}: {error:#}"));
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            sessions,
            words,
            connections,
            slowest,
            lost,
            misfortunes,
        } = self;
        write!(
            f,
            "{sessions} lasting connections with {words} words, {connections} new ones \
             (slowest {slowest:.0?}), {lost} lost{}",
            misfortunes
                .iter()
                .fold(String::new(), |all, one| all + "\n    " + one)
        )
    }
}

impl Traffic {
    /// Begins, and waits until all is under way. Each address is of a server that tells
    /// its name at `/hostname`.
    pub async fn start(addresses: impl IntoIterator<Item = String>) -> anyhow::Result<Self> {
        let mut traffic = Self {
            ways: Vec::new(),
            clients: Vec::new(),
        };
        let began = Instant::now();
        for address in addresses {
            let tally = Arc::<Mutex<Tally>>::default();
            for _ in 0..SESSIONS {
                let lasting = last(address.clone(), began, Arc::clone(&tally));
                traffic.clients.push(tokio::spawn(lasting).abort_handle());
            }
            let coming = come_and_go(address.clone(), began, Arc::clone(&tally));
            traffic.clients.push(tokio::spawn(coming).abort_handle());
            traffic.ways.push((address, tally));
        }
        let under_way = |tally: &Tally| tally.sessions == SESSIONS && tally.connections > 0;
        poll_until("clients are under way", PATIENCE, || async {
            traffic.unharmed("begin")?;
            let all = traffic
                .ways
                .iter()
                .all(|(_, tally)| under_way(&held(tally)));
            Ok(if all {
                Ok(())
            } else {
                Err(traffic.to_string())
            })
        })
        .await?;
        Ok(traffic)
    }

    /// An error if any client lost anything so far. `when` says what has just happened.
    pub fn unharmed(&self, when: &str) -> anyhow::Result<()> {
        let lost: usize = self.ways.iter().map(|(_, tally)| held(tally).lost).sum();
        ensure!(lost == 0, "{when}: {self}");
        Ok(())
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (address, tally) in &self.ways {
            write!(f, "\n  {address}: {}", held(tally))?;
        }
        Ok(())
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.clients.iter().for_each(AbortHandle::abort);
    }
}

fn held(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks again and again on one connection, which must stay with its server.
async fn last(address: String, began: Instant, tally: Arc<Mutex<Tally>>) {
    let session = async {
        let mut connection = Connection::open(&address).await?;
        let server = connection.ask().await?;
        held(&tally).sessions += 1;
        let mut pace = tokio::time::interval(WORDS);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            pace.tick().await;
            let answer = connection.ask().await?;
            ensure!(answer == server, "{answer} answers for {server}");
            held(&tally).words += 1;
        }
    };
    let ended: anyhow::Result<()> = session.await;
    if let Err(error) = ended {
        held(&tally).note(began, "a lasting connection", &error);
    }
}

/// Makes one connection after the other without waiting for any.
async fn come_and_go(address: String, began: Instant, tally: Arc<Mutex<Tally>>) {
    let address: Arc<str> = address.into();
    let mut pace = tokio::time::interval(Duration::from_secs(1) / NEW_PER_SECOND);
    pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
    // As many as can be under way before the first of them is given up.
    let mut clients = tokio::task::JoinSet::new();
    loop {
        pace.tick().await;
        while clients.try_join_next().is_some() {}
        let (address, tally) = (Arc::clone(&address), Arc::clone(&tally));
        clients.spawn(async move {
            let start = Instant::now();
            let asked = async { Connection::open(&address).await?.ask().await };
            let answer = asked.await;
            let mut tally = held(&tally);
            tally.connections += 1;
            tally.slowest = tally.slowest.max(start.elapsed());
            if let Err(error) = answer {
                tally.note(began, "a new connection", &error);
            }
        });
    }
}

/// One connection; closed with its value.
struct Connection {
    requests: SendRequest<Empty<Bytes>>,
    address: String,
    driver: AbortHandle,
}

impl Connection {
    async fn open(address: &str) -> anyhow::Result<Self> {
        let stream = in_time("no connection", TcpStream::connect(address)).await?;
        let (requests, driver) = handshake(TokioIo::new(stream)).await?;
        Ok(Self {
            requests,
            address: address.to_owned(),
            driver: tokio::spawn(driver).abort_handle(),
        })
    }

    /// The server's name.
    async fn ask(&mut self) -> anyhow::Result<String> {
        let request = Request::get("/hostname")
            .header("host", &self.address)
            .body(Empty::new())?;
        let exchange = async {
            let answer = self.requests.send_request(request).await?;
            answer.into_body().collect().await
        };
        let body = in_time("no answer", exchange).await?;
        Ok(String::from_utf8(body.to_bytes().to_vec())?)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

async fn in_time<T, E: std::error::Error + Send + Sync + 'static>(
    what: &str,
    act: impl Future<Output = Result<T, E>>,
) -> anyhow::Result<T> {
    match tokio::time::timeout(SILENCE, act).await {
        Ok(done) => Ok(done?),
        Err(_) => anyhow::bail!("{what} within {SILENCE:?}"),
    }
}
