//! Servers that say who they are and whom they see, and clients that listen.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use kubelet::proxy::model::Protocol;
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, UdpSocket};
use tokio::time::timeout;

use super::net::Namespace;

/// What a client hears.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Heard {
    Answer {
        /// The server, by its own account.
        server: SocketAddr,
        /// The client, as the server sees it.
        client: IpAddr,
    },
    Refusal,
    Silence,
}

/// Whether this machine has sockets of a protocol.
pub fn exists(protocol: Protocol) -> bool {
    socket([0, 0, 0, 0].into(), protocol).is_ok()
}

/// Answers at this address of a host, until it is dropped.
pub fn serve(
    host: &Namespace,
    protocol: Protocol,
    address: SocketAddr,
) -> impl Future<Output = ()> + use<> {
    let socket = host.within(|| {
        let socket = socket(address.ip(), protocol)?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        if protocol != Protocol::Udp {
            socket.listen(128)?;
        }
        Ok::<_, io::Error>(socket)
    });
    let socket = socket.unwrap_or_else(|error| panic!("{address}: {error}"));
    async move {
        match protocol {
            Protocol::Tcp | Protocol::Sctp => {
                let listener = TcpListener::from_std(socket.into()).unwrap();
                loop {
                    let (mut stream, client) = listener.accept().await.unwrap();
                    let answer = format!("{} {}", stream.local_addr().unwrap(), client.ip());
                    // It may have gone.
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
            }
            Protocol::Udp => {
                let socket = UdpSocket::from_std(socket.into()).unwrap();
                let mut buffer = [0; 16];
                loop {
                    let (_, client) = socket.recv_from(&mut buffer).await.unwrap();
                    let answer = format!("{address} {}", client.ip());
                    let _ = socket.send_to(answer.as_bytes(), client).await;
                }
            }
        }
    }
}

/// Connects from an address of a host, and listens for as long as `patience`.
pub async fn ask(
    host: &Namespace,
    source: IpAddr,
    protocol: Protocol,
    to: SocketAddr,
    patience: Duration,
) -> io::Result<Heard> {
    let socket = host.within(|| {
        let socket = socket(source, protocol)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
        if protocol != Protocol::Udp {
            // It ends at once, so that its ports can be used again.
            socket.set_linger(Some(Duration::ZERO))?;
        }
        Ok::<_, io::Error>(socket)
    })?;
    let answer = async {
        let mut answer = String::new();
        match protocol {
            Protocol::Tcp | Protocol::Sctp => {
                let socket = TcpSocket::from_std_stream(socket.into());
                let mut stream = socket.connect(to).await?;
                stream.read_to_string(&mut answer).await?;
            }
            Protocol::Udp => answer = ask_udp(UdpSocket::from_std(socket.into())?, to).await?,
        }
        Ok::<_, io::Error>(answer)
    };
    match timeout(patience, answer).await {
        Err(_) => Ok(Heard::Silence),
        Ok(Ok(answer)) => Ok(read(&answer)),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(Heard::Refusal),
        Ok(Err(error)) => Err(error),
    }
}

async fn ask_udp(socket: UdpSocket, to: SocketAddr) -> io::Result<String> {
    socket.connect(to).await?;
    match socket.send(b"?").await {
        // Our own rules have taken it. Whether they have said why is to be heard.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
        sent => {
            sent?;
        }
    }
    let mut buffer = [0; 128];
    let length = socket.recv(&mut buffer).await?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

fn read(answer: &str) -> Heard {
    let (server, client) = answer.split_once(' ').unwrap();
    Heard::Answer {
        server: server.parse().unwrap(),
        client: client.parse().unwrap(),
    }
}

fn socket(address: IpAddr, protocol: Protocol) -> io::Result<Socket> {
    let domain = Domain::for_address(SocketAddr::new(address, 0));
    let (kind, protocol) = match protocol {
        Protocol::Tcp => (Type::STREAM, socket2::Protocol::TCP),
        Protocol::Udp => (Type::DGRAM, socket2::Protocol::UDP),
        Protocol::Sctp => (Type::STREAM, socket2::Protocol::SCTP),
    };
    let socket = Socket::new(domain, kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
