use std::net::SocketAddr;
use std::sync::Arc;

use super::super::model::{Destination, PortName, Selected, ServiceName, ServicePort};
use super::super::stale::{DEFAULT_ZONE, Served, Tuple};
use super::fake::FakeConntrack;
use super::wire::{self, Heard, Said};
use super::*;

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn flow(client: &str, to: &str, server: &str) -> Flow {
    Flow {
        protocol: Protocol::Udp,
        original: Tuple {
            source: address(client),
            destination: address(to),
        },
        reply: Tuple {
            source: address(server),
            destination: address(client),
        },
        zone: DEFAULT_ZONE,
        id: 0x0102_0304,
    }
}

/// The truth that 10.1.0.2 serves 10.96.0.10.
fn truth() -> Truth {
    let service = Arc::new(ServiceName::new("default", "dns"));
    let port = ServicePort {
        name: PortName {
            service: Arc::clone(&service),
            port: "".into(),
            protocol: Protocol::Udp,
        },
        cluster_ip: "10.96.0.10".parse().ok(),
        port: 53,
        node_port: None,
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        source_ranges: Vec::new(),
        affinity: None,
        internal_local: false,
        external_local: false,
    };
    let selected = Selected {
        cluster: vec![address("10.1.0.2:5353")],
        ..Selected::default()
    };
    let mut truth = Truth::new(Family::V4);
    truth.set(&service, &[Served::new(&port, &selected)]);
    truth
}

#[tokio::test]
async fn only_stale_entries_go() {
    let healthy = flow("10.1.0.7:40000", "10.96.0.10:53", "10.1.0.2:5353");
    let stale = flow("10.1.0.7:40001", "10.96.0.10:53", "10.1.0.9:5353");
    let others = flow("10.1.0.7:40002", "8.8.8.8:53", "8.8.8.8:53");
    let kernel = FakeConntrack::new([healthy.clone(), stale, others.clone()]);
    let mut truth = truth();
    let cleaned = clean(&kernel, &mut truth, &BTreeSet::new()).await.unwrap();
    assert_eq!((cleaned.deleted, cleaned.failed), (1, 0));
    assert_eq!(kernel.table(), [healthy, others]);
    assert!(!truth.is_pass_due());
}

#[tokio::test]
async fn a_table_that_cannot_be_read_leaves_the_pass_due() {
    let kernel = FakeConntrack::new([]);
    kernel.fail_dumps(1);
    let mut truth = truth();
    let error = clean(&kernel, &mut truth, &BTreeSet::new())
        .await
        .unwrap_err();
    assert_eq!(
        crate::error::chain(&error).to_string(),
        "cannot read the connection tracking table of IPv4: the kernel refused: \
         Device or resource busy (os error 16)"
    );
    assert!(truth.is_pass_due());
    clean(&kernel, &mut truth, &BTreeSet::new()).await.unwrap();
    assert!(!truth.is_pass_due());
    assert_eq!(kernel.dumps(), 2);
}

#[tokio::test]
async fn an_entry_that_stays_holds_up_no_other() {
    let first = flow("10.1.0.7:40000", "10.96.0.10:53", "10.1.0.8:5353");
    let second = flow("10.1.0.7:40001", "10.96.0.10:53", "10.1.0.9:5353");
    let kernel = FakeConntrack::new([first.clone(), second]);
    kernel.refuse_deletion(first.clone());
    let mut truth = truth();
    truth.inherit(&[Destination::Address {
        protocol: Protocol::Udp,
        address: address("10.96.0.99:53"),
    }]);
    let cleaned = clean(&kernel, &mut truth, &BTreeSet::new()).await.unwrap();
    assert_eq!((cleaned.deleted, cleaned.failed), (1, 1));
    assert_eq!(
        cleaned.first_failure.unwrap().to_string(),
        "cannot remove the connection tracking entry of \
         udp 10.1.0.7:40000 to 10.96.0.10:53 at 10.1.0.8:5353"
    );
    assert_eq!(kernel.table(), [first]);
    assert!(truth.is_pass_due());
}

// Messages, byte for byte: numbers of the machine have its byte order, and these are
// written down as machines with the little end first have them.

#[cfg(target_endian = "little")]
#[test]
fn a_dump_asks_for_one_family_and_protocol() {
    assert_eq!(
        hex::encode(wire::dump(Family::V4, Protocol::Udp)),
        concat!(
            "30000000", "0101", "0103", "00000000", "00000000", // header: get, dump
            "02", "00", "0000", // IPv4
            "1000", "0180", // CTA_TUPLE_ORIG
            "0c00", "0280", // CTA_TUPLE_PROTO
            "0500", "0100", "11000000", // CTA_PROTO_NUM 17
            "0c00", "1980", // CTA_FILTER
            "0800", "0100", "08000000", // CTA_FILTER_ORIG_FLAGS: CTA_PROTO_NUM
        )
    );
}

#[cfg(target_endian = "little")]
#[test]
fn a_deletion_names_the_tuple_the_entry_and_the_zone() {
    let flow = Flow {
        zone: 5,
        ..flow("10.1.0.7:40000", "10.96.0.10:53", "10.1.0.2:5353")
    };
    assert_eq!(
        hex::encode(wire::delete(&flow)),
        concat!(
            "58000000", "0201", "0500", "00000000", "00000000", // header: delete, ack
            "02", "00", "0000", // IPv4
            "3400", "0180", // CTA_TUPLE_ORIG
            "1400", "0180", // CTA_TUPLE_IP
            "0800", "0100", "0a010007", // CTA_IP_V4_SRC
            "0800", "0200", "0a60000a", // CTA_IP_V4_DST
            "1c00", "0280", // CTA_TUPLE_PROTO
            "0500", "0100", "11000000", // CTA_PROTO_NUM
            "0600", "0200", "9c400000", // CTA_PROTO_SRC_PORT
            "0600", "0300", "00350000", // CTA_PROTO_DST_PORT
            "0800", "0c00", "01020304", // CTA_ID
            "0600", "1200", "00050000", // CTA_ZONE
        )
    );
}

/// An attribute.
fn nla(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap();
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// One direction of an entry of IPv6.
fn tuple(kind: u16, source: &str, destination: &str, protocol: u8, more: &[u8]) -> Vec<u8> {
    let ip = |text: &str| match address(text).ip() {
        IpAddr::V6(ip) => ip.octets(),
        IpAddr::V4(_) => panic!("{text} is not of IPv6"),
    };
    let port = |text: &str| address(text).port().to_be_bytes();
    let ips = [nla(3, &ip(source)), nla(4, &ip(destination))].concat();
    let ports = [
        nla(1, &[protocol]),
        nla(2, &port(source)),
        nla(3, &port(destination)),
    ];
    let parts = [
        nla(0x8001, &ips),
        nla(0x8002, &ports.concat()),
        more.to_vec(),
    ];
    nla(kind | 0x8000, &parts.concat())
}

/// A message of the kernel.
fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(16 + body.len()).unwrap();
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend([kind.to_ne_bytes(), flags.to_ne_bytes()].concat());
    bytes.extend([0; 8]);
    bytes.extend(body);
    bytes
}

fn entry(protocol: u8, flags: u16, tuple_zone: &[u8], zone: &[u8]) -> Vec<u8> {
    let (client, to, server) = ("[fd01::7]:40000", "[fd00::10]:53", "[fd01::2]:5353");
    let attributes = [
        vec![10, 0, 0, 0],
        tuple(1, client, to, protocol, tuple_zone),
        tuple(2, server, client, protocol, &[]),
        nla(3, &[0, 0, 1, 0x88]),
        nla(7, &[0, 0, 0, 30]),
        nla(8, &[0, 0, 0, 0]),
        nla(12, &[1, 2, 3, 4]),
        zone.to_vec(),
        nla(99, b"of a kernel to come"),
    ];
    message(0x0100, flags, &attributes.concat())
}

fn heard(datagram: &[u8]) -> Vec<Heard> {
    wire::messages(datagram).map(Result::unwrap).collect()
}

#[test]
fn entries_are_understood() {
    let udp = flow("[fd01::7]:40000", "[fd00::10]:53", "[fd01::2]:5353");
    let in_zone = Flow {
        zone: 5,
        ..udp.clone()
    };
    let sctp = Flow {
        protocol: Protocol::Sctp,
        ..udp.clone()
    };
    let five = [0, 5];
    for (datagram, flow) in [
        (entry(17, 2, &[], &[]), Some(udp)),
        (entry(132, 2, &[], &[]), Some(sctp)),
        (entry(17, 2, &[], &nla(18, &five)), Some(in_zone.clone())),
        (entry(17, 2, &nla(3, &five), &[]), Some(in_zone)),
        // DCCP has ports as well, but no Services.
        (entry(33, 2, &[], &[]), None),
    ] {
        let [Heard { said, interrupted }] = &heard(&datagram)[..] else {
            panic!("not one message");
        };
        assert_eq!(*said, Said::Entry(flow.map(Box::new)));
        assert!(!interrupted);
    }
}

#[test]
fn a_datagram_has_many_messages() {
    let done = |code: i32| message(3, 2, &code.to_ne_bytes());
    let error = |code: i32| message(2, 0, &[&code.to_ne_bytes()[..], &[0; 16]].concat());
    let said = |datagram: &[u8]| -> Vec<Said> {
        heard(datagram)
            .into_iter()
            .map(|heard| heard.said)
            .collect()
    };
    let entries = [entry(33, 2, &[], &[]), entry(33, 2, &[], &[]), done(0)].concat();
    assert_eq!(
        said(&entries),
        [Said::Entry(None), Said::Entry(None), Said::End(None)]
    );
    assert_eq!(said(&error(0)), [Said::End(None)]);
    assert_eq!(said(&error(-16)), [Said::End(Some(16))]);
    assert_eq!(said(&done(-105)), [Said::End(Some(105))]);
    assert_eq!(said(&message(4, 0, &[])), [Said::Overrun]);
    assert_eq!(said(&message(1, 0, &[])), [Said::Nothing]);
    assert_eq!(said(&[]), []);
}

#[test]
fn an_interrupted_dump_says_so() {
    let interrupted = |datagram: &[u8]| heard(datagram).iter().any(|heard| heard.interrupted);
    assert!(interrupted(&entry(17, 2 | 16, &[], &[])));
    assert!(interrupted(&message(3, 2 | 16, &[0; 4])));
    assert!(!interrupted(&message(3, 2, &[0; 4])));
}

#[test]
fn malformed_messages_end_the_datagram() {
    let good = entry(17, 2, &[], &[]);
    let cut = &good[..good.len() - 1];
    let mut empty = good.clone();
    empty[..4].fill(0);
    for datagram in [&good[..7], cut, &empty] {
        let all = [&good[..], datagram].concat();
        let heard: Vec<_> = wire::messages(&all).collect();
        assert_eq!(heard.len(), 2);
        assert!(heard[0].is_ok() && heard[1].is_err());
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_are_too_strange(bytes: Vec<u8>) {
        for _ in wire::messages(&bytes) {}
        let framed = message(0x0100, 2, &bytes);
        for _ in wire::messages(&framed) {}
    }
}
