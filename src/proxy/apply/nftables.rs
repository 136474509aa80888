//! What kube-proxy's nftables mode has left: a table of its own in each family, which
//! nobody keeps up to date any more and whose rules go on taking traffic.
//!
//! In: a family. Out: the table is gone, or there was none. By netlink, since a machine
//! with iptables need not have the program `nft`.
//!
//! Upstream's iptables mode removes these tables too, and leaves IPVS alone.

use std::io;
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_netfilter::nftables::{NfTablesMessage, TableAttribute, TableMessage};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    NetfilterSubsystem,
};
use netlink_sys::constants::NETLINK_NETFILTER;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};

use crate::proxy::model::Family;

/// The name that kube-proxy gives its tables.
const TABLE: &str = "kube-proxy";

/// For the kernel's answer; a table of many thousand rules takes a second to remove.
const LIMIT: Duration = Duration::from_secs(10);
/// More than the answers to three messages.
const DATAGRAM: usize = 8 << 10;

/// How a removal ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    Removed,
    WasAbsent,
}

/// The table of kube-proxy's nftables mode may still be there.
#[derive(Debug, thiserror::Error)]
pub enum NftablesError {
    #[error("cannot talk to nf_tables")]
    Talk(#[source] io::Error),
    #[error("the kernel refuses to remove table {TABLE} of {}", family.as_str())]
    Refused {
        family: Family,
        #[source]
        source: io::Error,
    },
    #[error("the kernel did not answer in {0:?}")]
    TimedOut(Duration),
}

/// Removes kube-proxy's table of a family, with all that is in it.
pub(super) async fn remove(family: Family) -> Result<Removal, NftablesError> {
    let answered = tokio::time::timeout(LIMIT, ask(&request(family))).await;
    let code = answered
        .map_err(|_| NftablesError::TimedOut(LIMIT))?
        .map_err(NftablesError::Talk)?;
    match code {
        0 => Ok(Removal::Removed),
        // No such table; or a kernel without nf_tables, or without it for this family.
        libc::ENOENT | libc::EOPNOTSUPP | libc::EAFNOSUPPORT => Ok(Removal::WasAbsent),
        code => Err(NftablesError::Refused {
            family,
            source: io::Error::from_raw_os_error(code),
        }),
    }
}

/// Sends a batch; the first error number that is told, or 0.
async fn ask(request: &[u8]) -> io::Result<i32> {
    let socket = TokioSocket::new(NETLINK_NETFILTER)?;
    // Nobody but the kernel can send to a connected socket.
    socket.socket_ref().connect(&SocketAddr::new(0, 0))?;
    socket.send(request).await?;
    let mut datagram = Vec::with_capacity(DATAGRAM);
    loop {
        datagram.clear();
        socket.recv(&mut datagram).await?;
        if let Some(code) = answer(&datagram) {
            return Ok(code);
        }
    }
}

/// The error number of a datagram that is an answer.
fn answer(datagram: &[u8]) -> Option<i32> {
    let message = NetlinkMessage::<NetfilterMessage>::deserialize(datagram).ok()?;
    match message.payload {
        NetlinkPayload::Error(said) => Some(said.raw_code().saturating_neg()),
        _ => None,
    }
}

/// The batch that removes the table. Only the removal itself is answered.
fn request(family: Family) -> Vec<u8> {
    let of_family = match family {
        Family::V4 => NetfilterProtoFamily::IPv4,
        Family::V6 => NetfilterProtoFamily::IPv6,
    };
    // A batch names the subsystem that it is for.
    let subsystem = u8::from(NetfilterSubsystem::NfTables).into();
    let frame = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, subsystem);
    let name = TableAttribute::Name(TABLE.to_owned());
    let delete = NfTablesMessage::DeleteTable(TableMessage {
        attributes: vec![name],
    });
    [
        message(0, frame.clone(), ControlMessage::BatchBegin.into()),
        message(
            NLM_F_ACK,
            NetfilterHeader::new(of_family, 0, 0),
            delete.into(),
        ),
        message(0, frame, ControlMessage::BatchEnd.into()),
    ]
    .concat()
}

fn message(flags: u16, about: NetfilterHeader, inner: NetfilterMessageInner) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let message = NetfilterMessage::new(about, inner);
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}
