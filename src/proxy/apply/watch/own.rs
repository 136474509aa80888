//! Telling our own changes from others', in the kernel.
//!
//! In: the processes that this one has started. Out: a socket with nf_tables' events that
//! has none of theirs. Every event carries the port of the netlink socket whose request
//! caused it, and the kernel gives the first socket of a process that process's ID as
//! its port. A socket filter with these IDs drops our own events before they are queued:
//! a restore of 300,000 rules wakes nobody and fills no buffer.
//!
//! There is no race: a process is begun before it gets its script, and events are queued
//! while the kernel commits, so none can come after the process has ended. A process
//! that got another port, since its ID was taken in this network namespace, looks like
//! somebody else: what it did is then sent once more.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use netlink_sys::constants::NETLINK_NETFILTER;
use netlink_sys::{AsyncSocket, SocketAddr, TokioSocket};
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};
use socket2::{SockFilter, SockRef};

/// The multicast group of nf_tables' events, as a bit.
const GROUP: u32 = 1 << (libc::NFNLGRP_NFTABLES - 1);
/// What others may change at once and still be told by name, in bytes of kernel memory:
/// a flush of a thousand services' chains.
const QUEUE: usize = 8 << 20;
/// More than the kernel puts into one datagram.
const DATAGRAM: usize = 64 << 10;
/// Where a message's header has the port of who caused it.
const PORT_OFFSET: u32 = 12;

/// nf_tables' events of this network namespace.
pub(super) struct EventSocket(TokioSocket);

impl fmt::Debug for EventSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventSocket").finish_non_exhaustive()
    }
}

impl EventSocket {
    pub(super) fn open() -> io::Result<Arc<Self>> {
        let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
        // Without the right to it, the usual size has to do: an overrun says no less
        // than that there were changes.
        let _ = setsockopt(socket.socket_ref(), RcvBufForce, &QUEUE);
        socket.socket_mut().bind(&SocketAddr::new(0, GROUP))?;
        Ok(Arc::new(Self(socket)))
    }

    /// The next datagram, in place of what `datagram` held. An overrun is ENOBUFS.
    pub(super) async fn receive(&self, datagram: &mut Vec<u8>) -> io::Result<()> {
        datagram.clear();
        datagram.reserve(DATAGRAM);
        poll_fn(|context| self.0.poll_recv(context, datagram)).await
    }

    /// Drops what comes from these ports from now on.
    fn leave_out(&self, ports: &[u32]) -> io::Result<()> {
        SockRef::from(self.0.socket_ref()).attach_filter(&filter(ports)?)
    }
}

/// A classic BPF program that drops messages from these ports and takes all others
/// whole. A datagram holds messages of one request only, so its first one decides.
fn filter(ports: &[u32]) -> io::Result<Vec<SockFilter>> {
    let code = |bits: u32| u16::try_from(bits).map_err(io::Error::other);
    let load = code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS)?;
    let jump_if_equal = code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K)?;
    let answer = code(libc::BPF_RET | libc::BPF_K)?;
    let mut program = vec![SockFilter::new(load, 0, 0, PORT_OFFSET)];
    for (index, port) in ports.iter().enumerate() {
        // BPF loads words as the network has them, and headers have them as the machine.
        let loaded = u32::from_be_bytes(port.to_ne_bytes());
        // Over the jumps that are left, and over the first answer.
        let to_drop = u8::try_from(ports.len() - index).map_err(io::Error::other)?;
        program.push(SockFilter::new(jump_if_equal, to_drop, 0, loaded));
    }
    program.push(SockFilter::new(answer, 0, 0, u32::MAX));
    program.push(SockFilter::new(answer, 0, 0, 0));
    Ok(program)
}

/// The processes of ours that may be changing tables right now: one per family.
#[derive(Debug, Default)]
pub(in crate::proxy::apply) struct OwnRuns(Mutex<Runs>);

#[derive(Debug, Default)]
struct Runs {
    ids: Vec<u32>,
    socket: Weak<EventSocket>,
}

impl Runs {
    fn tell(&self) -> io::Result<()> {
        match self.socket.upgrade() {
            Some(socket) => socket.leave_out(&self.ids),
            None => Ok(()),
        }
    }

    /// Like [`Self::tell`], where a failure only costs work done twice.
    fn try_tell(&self) {
        if let Err(error) = self.tell() {
            tracing::debug!(
                error = %crate::error::chain(&error),
                "our own changes to iptables will look like somebody else's"
            );
        }
    }
}

impl OwnRuns {
    /// Leaves what our processes do out of this socket, in place of an earlier one.
    pub(super) fn leave_out(&self, socket: &Arc<EventSocket>) -> io::Result<()> {
        let mut runs = self.runs();
        runs.socket = Arc::downgrade(socket);
        runs.tell()
    }

    /// A process has started; it is over when what is returned is dropped.
    pub(in crate::proxy::apply) fn begin(&self, id: u32) -> OwnRun<'_> {
        let mut runs = self.runs();
        runs.ids.push(id);
        runs.try_tell();
        OwnRun { runs: self, id }
    }

    fn runs(&self) -> MutexGuard<'_, Runs> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One process of ours, as long as it runs.
#[derive(Debug)]
pub(in crate::proxy::apply) struct OwnRun<'a> {
    runs: &'a OwnRuns,
    id: u32,
}

impl Drop for OwnRun<'_> {
    fn drop(&mut self) {
        let mut runs = self.runs.runs();
        runs.ids.retain(|id| *id != self.id);
        runs.try_tell();
    }
}
