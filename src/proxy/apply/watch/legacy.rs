//! The sizes of legacy tables: how it shows that somebody has changed them.
//!
//! In: a family. Out: a [`Disturbance`] if a table has other counts than our own last
//! run left behind. ip_tables tells of no changes, but answers within a microsecond how
//! many rules a table has, how long they are and where its built-in chains begin.

use std::io;
use std::mem::size_of;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Weak};

use socket2::{Domain, Protocol, Socket, Type};

use super::{Chains, Disturbance, Mailbox};
use crate::proxy::model::{Family, Table};

/// `IPT_SO_GET_INFO` and `IP6T_SO_GET_INFO`.
const GET_INFO: libc::c_int = 64;
const TABLES: [Table; 3] = [Table::Filter, Table::Nat, Table::Mangle];

/// `struct ipt_getinfo` and `struct ip6t_getinfo`, which are alike.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Info {
    table: [u8; 32],
    /// Hooks, their entries and their ends; the number of rules and their size.
    counts: [u32; 13],
}

/// What one family's tables were when last looked at. Nothing as long as nobody watches.
#[derive(Debug, Default)]
pub(in crate::proxy::apply) struct LegacyCounts(Option<Watched>);

#[derive(Debug)]
struct Watched {
    socket: Socket,
    mailbox: Weak<Mailbox>,
    last: [Option<Info>; 3],
}

impl LegacyCounts {
    /// From now on the counts are those of the tables as they are.
    pub(super) fn begin(&mut self, family: Family, mailbox: &Arc<Mailbox>) -> io::Result<()> {
        let domain = match family {
            Family::V4 => Domain::IPV4,
            Family::V6 => Domain::IPV6,
        };
        let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?;
        self.0 = Some(Watched {
            last: read(&socket, family),
            mailbox: Arc::downgrade(mailbox),
            socket,
        });
        Ok(())
    }

    /// Tells if somebody has changed the tables since they were last looked at.
    pub(super) fn check(&mut self, family: Family) {
        let Some(watched) = &mut self.0 else {
            return;
        };
        let now = read(&watched.socket, family);
        if now != watched.last
            && let Some(mailbox) = watched.mailbox.upgrade()
        {
            mailbox.put(Disturbance {
                family,
                chains: Chains::All,
                by: None,
                pid: None,
                writer: None,
            });
        }
        watched.last = now;
    }

    /// A process of ours will change the tables: others' changes so far are told.
    pub(in crate::proxy::apply) fn before_own(&mut self, family: Family) {
        self.check(family);
    }

    /// That process has ended.
    pub(in crate::proxy::apply) fn after_own(&mut self, family: Family) {
        if let Some(watched) = &mut self.0 {
            watched.last = read(&watched.socket, family);
        }
    }
}

/// What the tables are like; nothing of one that is not there.
fn read(socket: &Socket, family: Family) -> [Option<Info>; 3] {
    TABLES.map(|table| info(socket, family, table).ok())
}

#[allow(
    unsafe_code,
    reason = "no crate knows this option, whose answer is plain numbers"
)]
fn info(socket: &Socket, family: Family, table: Table) -> io::Result<Info> {
    let mut info = Info {
        table: [0; 32],
        counts: [0; 13],
    };
    let name = table.as_str().as_bytes();
    info.table[..name.len()].copy_from_slice(name);
    let level = match family {
        Family::V4 => libc::IPPROTO_IP,
        Family::V6 => libc::IPPROTO_IPV6,
    };
    let mut length = libc::socklen_t::try_from(size_of::<Info>()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open as long as `socket` is borrowed; `info` is valid for
    // reads and writes of `length` bytes, has no padding, and every pattern of bits is a
    // value of it; the kernel keeps neither pointer.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            GET_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    match result {
        0 => Ok(info),
        _ => Err(io::Error::last_os_error()),
    }
}
