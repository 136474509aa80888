//! Connection tracking's netlink messages, to and from our words. Pure.
//!
//! The crate knows tuples, but not all attributes that are needed here: the dump
//! filter, the zone and the ID go through its [`DefaultNla`] with the numbers of
//! `linux/netfilter/nfnetlink_conntrack.h`.

use std::net::{IpAddr, SocketAddr};

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, NLA_F_NESTED, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR,
    NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload, Nla,
};
use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, ConntrackMessage, ConntrackMessageType, IPTuple, ProtoTuple,
    Protocol as WireProtocol, Tuple as WireTuple,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};

use super::super::model::{Family, Protocol};
use super::super::stale::{DEFAULT_ZONE, Flow, Tuple};

/// `CTA_TUPLE_ZONE`, inside a tuple: a zone for one direction.
const TUPLE_ZONE: u16 = 3;
/// `CTA_ID`.
const ID: u16 = 12;
/// `CTA_ZONE`.
const ZONE: u16 = 18;
/// `CTA_FILTER`, since Linux 5.8. Older kernels do not see it and send everything.
const FILTER: u16 = 25;
/// `CTA_FILTER_ORIG_FLAGS`, inside of it.
const FILTER_ORIGINAL_FLAGS: u16 = 1;
/// Bit of `CTA_PROTO_NUM` in those flags: the original tuple's protocol counts.
const FILTER_BY_PROTOCOL: u32 = 1 << 3;

/// A message that is not what the kernel's documentation promises.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    #[error("cannot decode a message")]
    Message(#[source] DecodeError),
    #[error("a message claims {length} bytes where {left} are left")]
    Length { length: usize, left: usize },
}

/// What a message from the kernel says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// An entry, if it is one that we have words for.
    Entry(Option<Box<Flow>>),
    /// That was all. An error number (positive), if it went wrong.
    End(Option<i32>),
    /// Messages were lost.
    Overrun,
    Nothing,
}

/// One message with what its header says about the answer as a whole.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Heard {
    pub said: Said,
    /// The table changed during the dump (`NLM_F_DUMP_INTR`).
    pub interrupted: bool,
}

/// The request for all entries of one protocol.
pub(super) fn dump(family: Family, protocol: Protocol) -> Vec<u8> {
    let tuple = WireTuple::Proto(vec![ProtoTuple::Protocol(wire_protocol(protocol))]);
    let tuple = ConntrackAttribute::CtaTupleOrig(vec![tuple]);
    let flags = DefaultNla::new(
        FILTER_ORIGINAL_FLAGS,
        FILTER_BY_PROTOCOL.to_ne_bytes().to_vec(),
    );
    let mut filter = vec![0; flags.buffer_len()];
    flags.emit(&mut filter);
    // The kernel insists on the filter being marked as nested. The crate's attributes
    // of conntrack lose that mark where they do not know the attribute, its plain ones
    // keep it.
    let attributes = vec![
        DefaultNla::new(tuple.kind() | NLA_F_NESTED, value_of(&tuple)),
        DefaultNla::new(FILTER | NLA_F_NESTED, filter),
    ];
    let message = ConntrackMessage::Other {
        message_type: ConntrackMessageType::Get.into(),
        attributes,
    };
    request(family, NLM_F_REQUEST | NLM_F_DUMP, message)
}

/// The request to remove one entry.
///
/// The kernel takes a request without a tuple for one to empty the table, so there is
/// no way to build such a one.
pub(super) fn delete(flow: &Flow) -> Vec<u8> {
    let Tuple {
        source,
        destination,
    } = flow.original;
    let original = vec![
        WireTuple::Ip(vec![
            IPTuple::SourceAddress(source.ip()),
            IPTuple::DestinationAddress(destination.ip()),
        ]),
        WireTuple::Proto(vec![
            ProtoTuple::Protocol(wire_protocol(flow.protocol)),
            ProtoTuple::SourcePort(source.port()),
            ProtoTuple::DestinationPort(destination.port()),
        ]),
    ];
    let mut attributes = vec![
        ConntrackAttribute::CtaTupleOrig(original),
        ConntrackAttribute::Other(DefaultNla::new(ID, flow.id.to_be_bytes().to_vec())),
    ];
    if flow.zone != DEFAULT_ZONE {
        let zone = flow.zone.to_be_bytes().to_vec();
        attributes.push(ConntrackAttribute::Other(DefaultNla::new(ZONE, zone)));
    }
    let flags = NLM_F_REQUEST | NLM_F_ACK;
    request(flow.family(), flags, ConntrackMessage::Delete(attributes))
}

fn request(family: Family, flags: u16, message: ConntrackMessage) -> Vec<u8> {
    let family = match family {
        Family::V4 => NetfilterProtoFamily::IPv4,
        Family::V6 => NetfilterProtoFamily::IPv6,
    };
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    let message = NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), message);
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// The messages of one datagram. After a malformed one there are no more.
pub(super) fn messages(datagram: &[u8]) -> impl Iterator<Item = Result<Heard, Malformed>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (message, others) = match split(rest) {
            Ok(parts) => parts,
            Err(error) => {
                rest = &[];
                return Some(Err(error));
            }
        };
        rest = others;
        let decoded = NetlinkMessage::<NetfilterMessage>::deserialize(message);
        Some(decoded.map(heard).map_err(Malformed::Message))
    })
}

/// The first message, and what follows its padding.
fn split(datagram: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let header = NetlinkBuffer::new_checked(datagram).map_err(Malformed::Message)?;
    let length = usize::try_from(header.length()).unwrap_or(usize::MAX);
    let (message, _) = datagram
        .split_at_checked(length)
        .filter(|_| length > 0)
        .ok_or(Malformed::Length {
            length,
            left: datagram.len(),
        })?;
    let padded = length.next_multiple_of(4).min(datagram.len());
    Ok((message, &datagram[padded..]))
}

fn heard(message: NetlinkMessage<NetfilterMessage>) -> Heard {
    let interrupted = message.header.flags & NLM_F_DUMP_INTR != 0;
    let said = match message.payload {
        NetlinkPayload::InnerMessage(message) => Said::Entry(flow(&message).map(Box::new)),
        NetlinkPayload::Done(done) => {
            Said::End((done.code != 0).then(|| done.code.saturating_abs()))
        }
        NetlinkPayload::Error(error) => {
            Said::End(error.code.map(|code| code.get().saturating_abs()))
        }
        NetlinkPayload::Overrun(_) => Said::Overrun,
        // `non_exhaustive`, and Noop.
        _ => Said::Nothing,
    };
    Heard { said, interrupted }
}

/// An entry in our words; none for protocols that Services do not have.
fn flow(message: &NetfilterMessage) -> Option<Flow> {
    let NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) = &message.inner else {
        return None;
    };
    let (mut original, mut reply, mut zone, mut id) = (None, None, DEFAULT_ZONE, 0);
    for attribute in attributes {
        match attribute {
            ConntrackAttribute::CtaTupleOrig(tuple) => {
                original = Some(direction(tuple)?);
                zone = tuple.iter().find_map(tuple_zone).unwrap_or(zone);
            }
            ConntrackAttribute::CtaTupleReply(tuple) => reply = Some(direction(tuple)?),
            ConntrackAttribute::Other(other) if other.kind() == ID => {
                id = u32::from_be_bytes(value(other)?);
            }
            ConntrackAttribute::Other(other) if other.kind() == ZONE => {
                zone = u16::from_be_bytes(value(other)?);
            }
            _ => {}
        }
    }
    let ((protocol, original), (_, reply)) = (original?, reply?);
    Some(Flow {
        protocol,
        original,
        reply,
        zone,
        id,
    })
}

fn direction(parts: &[WireTuple]) -> Option<(Protocol, Tuple)> {
    let (mut source, mut destination): (Option<IpAddr>, Option<IpAddr>) = (None, None);
    let (mut protocol, mut source_port, mut destination_port) = (None, None, None);
    for part in parts {
        match part {
            WireTuple::Ip(addresses) => {
                for address in addresses {
                    match address {
                        IPTuple::SourceAddress(ip) => source = Some(*ip),
                        IPTuple::DestinationAddress(ip) => destination = Some(*ip),
                        _ => {}
                    }
                }
            }
            WireTuple::Proto(fields) => {
                for field in fields {
                    match field {
                        ProtoTuple::Protocol(number) => protocol = our_protocol(*number),
                        ProtoTuple::SourcePort(port) => source_port = Some(*port),
                        ProtoTuple::DestinationPort(port) => destination_port = Some(*port),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let tuple = Tuple {
        source: SocketAddr::new(source?, source_port?),
        destination: SocketAddr::new(destination?, destination_port?),
    };
    Some((protocol?, tuple))
}

fn tuple_zone(part: &WireTuple) -> Option<u16> {
    match part {
        WireTuple::Other(other) if other.kind() == TUPLE_ZONE => {
            value(other).map(u16::from_be_bytes)
        }
        _ => None,
    }
}

/// The value of an attribute that has `N` bytes.
fn value<const N: usize>(attribute: &DefaultNla) -> Option<[u8; N]> {
    value_of(attribute).try_into().ok()
}

fn value_of(attribute: &impl Nla) -> Vec<u8> {
    let mut bytes = vec![0; attribute.value_len()];
    attribute.emit_value(&mut bytes);
    bytes
}

const fn wire_protocol(protocol: Protocol) -> WireProtocol {
    match protocol {
        Protocol::Tcp => WireProtocol::Tcp,
        Protocol::Udp => WireProtocol::Udp,
        Protocol::Sctp => WireProtocol::Sctp,
    }
}

const fn our_protocol(protocol: WireProtocol) -> Option<Protocol> {
    match protocol {
        WireProtocol::Tcp => Some(Protocol::Tcp),
        WireProtocol::Udp => Some(Protocol::Udp),
        WireProtocol::Sctp => Some(Protocol::Sctp),
        _ => None,
    }
}
