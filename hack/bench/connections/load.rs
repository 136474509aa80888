//! Clients and servers: connections that last and echo, and ones that come and go.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde::Serialize;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
use tokio_util::sync::CancellationToken;

use crate::netns::{inside, result};
use crate::proxying::prober::{ADDRESSES, PORT, add_addresses};

/// What takes longer is lost. A first packet that went astray is sent again after one
/// second, and after two more.
pub(crate) const LIMIT: Duration = Duration::from_secs(5);
/// Between two words on a connection that lasts.
const PACE: Duration = Duration::from_millis(200);

/// How a connection ended that should not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Loss {
    Refused,
    Reset,
    Silence,
    Other,
}

impl Loss {
    fn of(error: &std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::ConnectionRefused => Self::Refused,
            ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe => {
                Self::Reset
            }
            ErrorKind::TimedOut => Self::Silence,
            _ => Self::Other,
        }
    }
}

/// Counts since the start, or of a while.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Tally {
    /// Connections that were made, used and closed in good order.
    pub(crate) served: u64,
    /// The slowest of them, in seconds.
    pub(crate) slowest: f64,
    /// New connections that were not.
    pub(crate) lost: BTreeMap<Loss, u64>,
    /// Long-lived connections that ended.
    pub(crate) broken: BTreeMap<Loss, u64>,
    established: usize,
}

impl Tally {
    /// What came since `before`, in counts. The slowest is of this while too, as it is
    /// set back by [`Load::tally`].
    pub(crate) fn since(mut self, before: &Self) -> Self {
        self.served -= before.served;
        for (now, then) in [
            (&mut self.lost, &before.lost),
            (&mut self.broken, &before.broken),
        ] {
            for (loss, count) in then {
                if let Some(now) = now.get_mut(loss) {
                    *now -= count;
                }
            }
        }
        self
    }
}

type Book = Arc<Mutex<Tally>>;

fn note(book: &Book, what: impl FnOnce(&mut Tally)) {
    what(&mut book.lock().unwrap_or_else(PoisonError::into_inner));
}

/// Starts a server on every endpoint's address; they last as long as the process.
pub(crate) async fn serve(netns: &str) -> Result<()> {
    let (ready, listening) = tokio::sync::oneshot::channel();
    // It ends with the process.
    drop(inside(netns, move || {
        let bind = async {
            add_addresses()?;
            let mut listeners = Vec::new();
            for address in ADDRESSES {
                listeners.push(TcpListener::bind((address, PORT)).await?);
            }
            anyhow::Ok(listeners)
        };
        single_thread()?.block_on(async {
            let accepting = match bind.await {
                Ok(listeners) => listeners.into_iter().map(accept),
                Err(error) => {
                    let _ = ready.send(Err(error));
                    return Ok(());
                }
            };
            let _ = ready.send(Ok(()));
            futures::future::join_all(accepting).await;
            Ok(())
        })
    }));
    listening.await?
}

async fn accept(listener: TcpListener) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            tokio::time::sleep(PACE).await;
            continue;
        };
        tokio::spawn(async move {
            let (mut from, mut to) = stream.split();
            // The client tells how it went.
            let _ = tokio::io::copy(&mut from, &mut to).await;
        });
    }
}

fn single_thread() -> std::io::Result<runtime::Runtime> {
    runtime::Builder::new_current_thread().enable_all().build()
}

/// Waits until the service leads to a server.
pub(crate) async fn await_service(netns: &str, service: SocketAddr) -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(60);
    result(inside(netns, move || {
        single_thread()?.block_on(async {
            let deadline = Instant::now() + PATIENCE;
            while !matches!(tokio::time::timeout(PACE, once(service)).await, Ok(Ok(()))) {
                if Instant::now() > deadline {
                    bail!("{service} does not answer after {PATIENCE:?}");
                }
                tokio::time::sleep(PACE).await;
            }
            Ok(())
        })
    }))
    .await
}

/// All clients. They end with it.
#[derive(Debug)]
pub(crate) struct Load {
    book: Book,
    stop: CancellationToken,
}

impl Load {
    pub(crate) fn start(netns: &str, service: SocketAddr, long_lived: usize, rate: u32) -> Self {
        let book = Book::default();
        let stop = CancellationToken::new();
        let (clients, stopped) = (book.clone(), stop.clone());
        let thread = inside(netns, move || {
            single_thread()?.block_on(async {
                for _ in 0..long_lived {
                    tokio::spawn(last(service, clients.clone()));
                }
                tokio::select! {
                    () = come_and_go(service, rate, clients) => {}
                    () = stopped.cancelled() => {}
                }
            });
            Ok(())
        });
        tokio::spawn(async move {
            if let Err(error) = result(thread).await {
                eprintln!("bench: clients: {error:#}");
            }
        });
        Self { book, stop }
    }

    /// Waits until this many long-lived connections are there.
    pub(crate) async fn established(&self, count: usize) -> Result<()> {
        let deadline = Instant::now() + LIMIT * 2;
        loop {
            let established = self.peek().established;
            if established >= count {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("only {established} of {count} connections could be made");
            }
            tokio::time::sleep(PACE).await;
        }
    }

    /// The counts so far; the slowest begins anew.
    pub(crate) fn tally(&self) -> Tally {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let tally = book.clone();
        book.slowest = 0.0;
        tally
    }

    fn peek(&self) -> Tally {
        let book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        book.clone()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// One connection that is kept, and made anew whenever it breaks.
async fn last(service: SocketAddr, book: Book) {
    loop {
        if let Ok(mut stream) = within(TcpStream::connect(service)).await {
            note(&book, |tally| tally.established += 1);
            let error = loop {
                if let Err(error) = within(echo(&mut stream)).await {
                    break error;
                }
                tokio::time::sleep(PACE).await;
            };
            note(&book, |tally| {
                tally.established -= 1;
                *tally.broken.entry(Loss::of(&error)).or_default() += 1;
            });
        }
        tokio::time::sleep(PACE).await;
    }
}

/// Begins connections at this rate, however long each takes.
async fn come_and_go(service: SocketAddr, rate: u32, book: Book) {
    let mut pace = tokio::time::interval(Duration::from_secs(1) / rate);
    loop {
        pace.tick().await;
        let book = book.clone();
        tokio::spawn(async move {
            let begun = Instant::now();
            let outcome = within(once(service)).await;
            note(&book, |tally| match outcome {
                Ok(()) => {
                    tally.served += 1;
                    tally.slowest = tally.slowest.max(begun.elapsed().as_secs_f64());
                }
                Err(error) => *tally.lost.entry(Loss::of(&error)).or_default() += 1,
            });
        });
    }
}

async fn once(service: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(service).await?;
    // Nothing of it is to stay behind, for there are thousands.
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    echo(&mut stream).await
}

async fn echo(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"hello").await?;
    stream.read_exact(&mut [0; 5]).await.map(drop)
}

async fn within<T>(work: impl Future<Output = std::io::Result<T>>) -> std::io::Result<T> {
    let outcome = tokio::time::timeout(LIMIT, work).await;
    outcome.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
}
