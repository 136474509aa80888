//! The table of the kernel, over netlink.
//!
//! Every request has a socket of its own: nothing of an earlier answer can be taken for
//! this one's, and one that is given up half-way leaves nothing behind. A socket
//! belongs to the network namespace of the thread that makes the call.

use std::io;
use std::time::Duration;

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};

use super::super::model::{Family, Protocol};
use super::super::stale::Flow;
use super::wire::{self, Heard, Said};
use super::{Conntrack, ConntrackError, Deletion, Keep, NetlinkError};

/// The kernel fills at most this many bytes at once.
const BUFFER: usize = 32 * 1024;

/// For the whole answer. Reading a million entries takes a second or two.
const ANSWER: Duration = Duration::from_secs(30);

/// How often a dump is tried that was interrupted or met a busy kernel, and the pause
/// after the first try, which grows with each.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(20);

/// The connection tracking table of the network namespace in which it is used.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostConntrack;

#[async_trait::async_trait]
impl Conntrack for HostConntrack {
    async fn flows(
        &self,
        family: Family,
        protocols: &[Protocol],
        keep: &Keep<'_>,
    ) -> Result<Vec<Flow>, ConntrackError> {
        let mut flows = Vec::new();
        for protocol in protocols {
            // Kernels without filters send all protocols.
            let wanted = |flow: &Flow| flow.protocol == *protocol && keep(flow);
            let kept = read(&wire::dump(family, *protocol), &wanted).await;
            flows.extend(kept.map_err(|source| ConntrackError::Read { family, source })?);
        }
        Ok(flows)
    }

    async fn delete(&self, flow: &Flow) -> Result<Deletion, ConntrackError> {
        match ask(&wire::delete(flow), |_| {}).await {
            Ok(()) => Ok(Deletion::Deleted),
            Err(NetlinkError::Refused(error)) if error.raw_os_error() == Some(libc::ENOENT) => {
                Ok(Deletion::WasGone)
            }
            Err(source) => Err(ConntrackError::Delete {
                flow: Box::new(flow.clone()),
                source,
            }),
        }
    }
}

/// Reads a dump, again if it is worth another try.
async fn read(request: &[u8], keep: &Keep<'_>) -> Result<Vec<Flow>, NetlinkError> {
    let mut tries = 0;
    loop {
        let mut kept = Vec::new();
        let answer = ask(request, |flow| {
            if keep(&flow) {
                kept.push(*flow);
            }
        });
        tries += 1;
        match answer.await {
            Err(error) if tries < TRIES && passes(&error) => {
                tokio::time::sleep(PAUSE * tries).await;
            }
            answer => return answer.map(|()| kept),
        }
    }
}

/// Whether the same request may well succeed a little later.
fn passes(error: &NetlinkError) -> bool {
    match error {
        NetlinkError::Interrupted => true,
        NetlinkError::Transfer(error) | NetlinkError::Refused(error) => matches!(
            error.raw_os_error(),
            Some(libc::EBUSY | libc::EAGAIN | libc::EINTR | libc::ENOBUFS)
        ),
        NetlinkError::Open(_) | NetlinkError::Malformed(_) | NetlinkError::TimedOut(_) => false,
    }
}

/// Sends a request and hands out the entries of the answer until it is over.
async fn ask(request: &[u8], entry: impl FnMut(Box<Flow>)) -> Result<(), NetlinkError> {
    tokio::time::timeout(ANSWER, converse(request, entry))
        .await
        .unwrap_or(Err(NetlinkError::TimedOut(ANSWER)))
}

async fn converse(request: &[u8], mut entry: impl FnMut(Box<Flow>)) -> Result<(), NetlinkError> {
    let socket = TokioSocket::new(NETLINK_NETFILTER).map_err(NetlinkError::Open)?;
    let kernel = SocketAddr::new(0, 0);
    // Nobody but the kernel can send to a connected socket.
    let connected = socket.socket_ref().connect(&kernel);
    connected.map_err(NetlinkError::Open)?;
    socket.send(request).await.map_err(NetlinkError::Transfer)?;
    let mut interrupted = false;
    let mut datagram = Vec::with_capacity(BUFFER);
    loop {
        datagram.clear();
        let received = socket.recv(&mut datagram).await;
        received.map_err(NetlinkError::Transfer)?;
        for heard in wire::messages(&datagram) {
            let Heard {
                said,
                interrupted: now,
            } = heard.map_err(NetlinkError::Malformed)?;
            interrupted |= now;
            match said {
                Said::Entry(flow) => flow.into_iter().for_each(&mut entry),
                Said::End(None) if interrupted => return Err(NetlinkError::Interrupted),
                Said::End(None) => return Ok(()),
                Said::End(Some(number)) => {
                    return Err(NetlinkError::Refused(io::Error::from_raw_os_error(number)));
                }
                Said::Overrun => return Err(NetlinkError::Interrupted),
                Said::Nothing => {}
            }
        }
    }
}
