//! A streaming server that does what the test wants, with one connection after
//! the other or all at once.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{PATIENCE, read_head};

/// What is done with a connection.
#[derive(Debug, Clone, Copy)]
pub(super) enum Manner {
    /// Switches protocols and sends back what comes; at its end, sends `Tail`.
    Echo,
    /// Switches, sends a few words and closes its way, then counts what comes.
    SpeakAndListen,
    /// Switches, waits for one byte, says its last words and closes at once.
    HangUp,
    /// Switches, sends without end.
    Flood,
    /// Switches and neither reads nor writes nor closes.
    Freeze,
    /// Accepts, and does not answer.
    Silent,
    /// Answers with this.
    Say(&'static str),
}

pub(super) const TAIL_BYTES: usize = 1 << 20;
pub(super) const LAST_WORDS: &str = "exit code 0";

/// What the stub tells of its connections.
#[derive(Debug, PartialEq)]
pub(super) enum Told {
    /// The head of a request.
    Head(String),
    /// So many bytes came before the other side's end.
    Received(usize),
    /// So many bytes could be written before the other side took no more.
    Stuck(usize),
    /// The other side is gone.
    Closed,
}

pub(super) struct Stub {
    pub(super) address: SocketAddr,
    told: mpsc::Receiver<Told>,
    _server: JoinSet<()>,
}

impl Stub {
    pub(super) async fn new(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listener");
        let address = listener.local_addr().expect("address");
        // More than any test's connections have to tell.
        let (tell, told) = mpsc::channel(4096);
        let mut server = JoinSet::new();
        server.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(act(stream, manner, tell.clone()));
            }
        });
        Self {
            address,
            told,
            _server: server,
        }
    }

    pub(super) async fn told(&mut self) -> Told {
        super::within(self.told.recv())
            .await
            .expect("the stub lives")
    }

    /// The next of its kind, past all others.
    pub(super) async fn until(&mut self, wanted: impl Fn(&Told) -> bool) -> Told {
        loop {
            let told = self.told().await;
            if wanted(&told) {
                return told;
            }
        }
    }
}

const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
    Upgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n";

async fn act(mut stream: TcpStream, manner: Manner, tell: mpsc::Sender<Told>) {
    let head = read_head(&mut stream).await;
    tell.send(Told::Head(head)).await.expect("test lives");
    let answer = match manner {
        Manner::Silent => "",
        Manner::Say(answer) => answer,
        _ => SWITCH,
    };
    // The first words may come in one segment with the answer's head.
    let first = match manner {
        Manner::SpeakAndListen => LAST_WORDS,
        _ => "",
    };
    let answer = format!("{answer}{first}");
    if stream.write_all(answer.as_bytes()).await.is_err() {
        return;
    }
    let told = match manner {
        Manner::Echo => echo(&mut stream).await,
        Manner::SpeakAndListen => {
            stream.shutdown().await.expect("close one way");
            Told::Received(drain(&mut stream).await)
        }
        Manner::HangUp => {
            stream.read_u8().await.expect("a byte");
            stream
                .write_all(LAST_WORDS.as_bytes())
                .await
                .expect("write");
            return;
        }
        Manner::Flood => {
            let stuck = flood(&mut stream).await;
            tell.send(stuck).await.expect("test lives");
            drain(&mut stream).await;
            Told::Closed
        }
        Manner::Freeze => {
            // Woken by an error only: when there is nobody any more.
            let gone = stream.ready(tokio::io::Interest::ERROR);
            let _ = tokio::time::timeout(PATIENCE, gone).await;
            return;
        }
        Manner::Silent | Manner::Say(_) => {
            drain(&mut stream).await;
            Told::Closed
        }
    };
    // Nobody may be interested any more.
    let _ = tell.send(told).await;
}

async fn echo(stream: &mut TcpStream) -> Told {
    let mut buffer = vec![0; 16 << 10];
    let mut total = 0;
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(read) => {
                total += read;
                if stream.write_all(&buffer[..read]).await.is_err() {
                    return Told::Received(total);
                }
            }
        }
    }
    let _ = stream.write_all(&vec![b't'; TAIL_BYTES]).await;
    let _ = stream.shutdown().await;
    Told::Received(total)
}

async fn drain(stream: &mut TcpStream) -> usize {
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all).await;
    all.len()
}

/// Writes until nothing is taken for a while.
async fn flood(stream: &mut TcpStream) -> Told {
    const STILL: std::time::Duration = std::time::Duration::from_millis(500);
    let block = vec![b'f'; 64 << 10];
    let mut total = 0;
    loop {
        match tokio::time::timeout(STILL, stream.write(&block)).await {
            Ok(Ok(written)) => total += written,
            Ok(Err(_)) => return Told::Closed,
            Err(_) => return Told::Stuck(total),
        }
    }
}
