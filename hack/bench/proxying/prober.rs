//! Whom packets reach: listeners behind endpoints, and connections that tell.
//!
//! All of it is inside the node's network. The listeners' addresses are on its loopback
//! interface, and go with it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use socket2::SockRef;
use tokio::sync::watch;

use crate::netns::inside;
use crate::process::since_boot;

/// Of services and endpoints alike.
pub(crate) const PORT: u16 = 8000;
/// Two for each group; of a network that is for documentation, RFC 5737.
pub(crate) const ADDRESSES: [Ipv4Addr; 4] = [
    Ipv4Addr::new(192, 0, 2, 1),
    Ipv4Addr::new(192, 0, 2, 2),
    Ipv4Addr::new(192, 0, 2, 3),
    Ipv4Addr::new(192, 0, 2, 4),
];
/// Between two connections.
const PACE: Duration = Duration::from_millis(1);
/// What has not answered by then does not lead anywhere yet.
const LIMIT: Duration = Duration::from_millis(20);

/// Endpoints that serve together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    A,
    B,
}

impl Group {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    pub(crate) fn addresses(self) -> [Ipv4Addr; 2] {
        let [a1, a2, b1, b2] = ADDRESSES;
        match self {
            Self::A => [a1, a2],
            Self::B => [b1, b2],
        }
    }

    /// What its listeners say.
    fn word(self) -> u8 {
        match self {
            Self::A => b'a',
            Self::B => b'b',
        }
    }

    fn of(word: u8) -> Option<Self> {
        [Self::A, Self::B]
            .into_iter()
            .find(|group| group.word() == word)
    }
}

/// Gives the loopback interface of the node's network the listeners' addresses.
pub(crate) fn add_addresses() -> Result<()> {
    for address in ADDRESSES {
        let ip = Command::new("ip")
            .args(["address", "replace", &format!("{address}/32"), "dev", "lo"])
            .status()?;
        ensure!(ip.success(), "ip address replace {address}: {ip}");
    }
    Ok(())
}

/// Starts the listeners; they last as long as the process.
pub(crate) fn listen(netns: &str) -> JoinHandle<Result<()>> {
    inside(netns, || {
        add_addresses()?;
        for group in [Group::A, Group::B] {
            for address in group.addresses() {
                let listener = TcpListener::bind((address, PORT))?;
                std::thread::spawn(move || {
                    for stream in listener.incoming().flatten() {
                        // Whoever asks hangs up first, and one that does not is left.
                        let _ = answer(stream, group);
                    }
                });
            }
        }
        Ok(())
    })
}

fn answer(mut stream: TcpStream, group: Group) -> std::io::Result<()> {
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(&[group.word()])?;
    stream.read(&mut [0]).map(drop)
}

/// One connection: who answers, if somebody does.
fn ask(service: SocketAddr) -> Option<Group> {
    let mut stream = TcpStream::connect_timeout(&service, LIMIT).ok()?;
    stream.set_read_timeout(Some(LIMIT)).ok()?;
    // Nothing of it is to stay behind, for there are thousands.
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .ok()?;
    let mut word = [0];
    stream.read_exact(&mut word).ok()?;
    Group::of(word[0])
}

/// Waits until all these services answer; gives the time since boot of that.
pub(crate) fn await_all(
    netns: &str,
    services: Vec<SocketAddr>,
    limit: Duration,
) -> JoinHandle<Result<Duration>> {
    inside(netns, move || {
        let deadline = Instant::now() + limit;
        for service in &services {
            while ask(*service).is_none() {
                if Instant::now() > deadline {
                    bail!("{service} does not answer after {limit:?}");
                }
                std::thread::sleep(PACE);
            }
        }
        since_boot()
    })
}

/// Who answered last, and since when it has been nobody else.
#[derive(Debug, Clone, Copy)]
struct Seen {
    group: Option<Group>,
    since: Instant,
}

/// Connects to one service all the time until it is dropped.
#[derive(Debug)]
pub(crate) struct Prober {
    seen: watch::Receiver<Seen>,
    stop: Arc<AtomicBool>,
}

impl Prober {
    pub(crate) fn start(netns: &str, service: SocketAddr) -> Self {
        let nobody = Seen {
            group: None,
            since: Instant::now(),
        };
        let (out, seen) = watch::channel(nobody);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        // It ends with the prober, and how does not matter to anyone.
        drop(inside(netns, move || {
            while !stopped.load(Ordering::Relaxed) {
                let group = ask(service);
                let since = Instant::now();
                out.send_if_modified(|seen| {
                    let is_news = seen.group != group;
                    if is_news {
                        *seen = Seen { group, since };
                    }
                    is_news
                });
                std::thread::sleep(PACE);
            }
            Ok(())
        }));
        Self { seen, stop }
    }

    /// When this group began to answer; waits until it does.
    pub(crate) async fn reached(&self, group: Group, limit: Duration) -> Result<Instant> {
        let mut seen = self.seen.clone();
        let wait = seen.wait_for(|seen| seen.group == Some(group));
        let Ok(seen) = tokio::time::timeout(limit, wait).await else {
            bail!("group {group:?} does not answer after {limit:?}");
        };
        Ok(seen.context("the prober has ended")?.since)
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
