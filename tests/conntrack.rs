//! The kernel's connection tracking table with real flows through real rules: needs
//! root and iptables.
//!
//! Each test runs on a thread with a network namespace of its own, which has no name
//! and ends with the thread and its sockets, however the test ends. Client, node and
//! endpoints are addresses of its loopback device.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kubelet::proxy::conntrack::{Cleaned, Conntrack, Deletion, HostConntrack, clean};
use kubelet::proxy::limits::{self, LimitSettings, Tunable};
use kubelet::proxy::model::{
    Destination, Family, PortName, Protocol, Selected, ServiceName, ServicePort,
};
use kubelet::proxy::stale::{Flow, Served, Truth};
use nix::sched::{CloneFlags, unshare};
use socket2::{Domain, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// For packets that never leave the machine.
const PATIENCE: Duration = Duration::from_secs(10);

const NODE_PORT: u16 = 30_053;

/// The addresses of one family in the namespace.
struct Net {
    family: Family,
    service: SocketAddr,
    node: IpAddr,
    client: IpAddr,
    endpoints: [SocketAddr; 2],
}

impl Net {
    fn new(family: Family) -> Self {
        let address = |v4: &str, v6: &str| -> SocketAddr {
            match family {
                Family::V4 => v4.parse().unwrap(),
                Family::V6 => v6.parse().unwrap(),
            }
        };
        Self {
            family,
            service: address("10.96.0.10:53", "[fd00:96::10]:53"),
            node: address("10.1.0.1:0", "[fd00:1::1]:0").ip(),
            client: address("10.1.0.7:0", "[fd00:1::7]:0").ip(),
            endpoints: [
                address("10.1.0.2:5353", "[fd00:1::2]:5353"),
                address("10.1.0.3:5353", "[fd00:1::3]:5353"),
            ],
        }
    }

    /// Addresses, a route to cluster IPs as a default route would be one, and a rule
    /// that asks for connection tracking, which starts with the first one.
    fn set_up(&self) {
        run("ip", &["link", "set", "lo", "up"]);
        let (family, length, cluster_ips) = match self.family {
            Family::V4 => ("-4", 32, "10.96.0.0/16"),
            Family::V6 => ("-6", 128, "fd00:96::/64"),
        };
        let [one, two] = self.endpoints.map(|endpoint| endpoint.ip());
        for ip in [self.node, self.client, one, two] {
            let address = format!("{ip}/{length}");
            // Nobody else could have it; without looking for them it is there at once.
            let duplicates = match self.family {
                Family::V4 => None,
                Family::V6 => Some("nodad"),
            };
            let add = [family, "address", "add", &address, "dev", "lo"];
            let add: Vec<&str> = add.into_iter().chain(duplicates).collect();
            run("ip", &add);
        }
        run("ip", &[family, "route", "add", cluster_ips, "dev", "lo"]);
        let invalid = ["-A", "INPUT", "-m", "conntrack", "--ctstate", "INVALID"];
        self.iptables(&[&invalid[..], &["-j", "DROP"]].concat());
    }

    /// The rules now send new flows to the Service, and to its node port, to this
    /// endpoint.
    fn serve(&self, protocol: Protocol, endpoint: SocketAddr) {
        self.serve_nobody();
        let (service, port) = (self.service.ip().to_string(), self.service.port());
        let (port, node_port) = (port.to_string(), NODE_PORT.to_string());
        for matches in [
            &["-d", &service, "--dport", &port][..],
            &[
                "-m",
                "addrtype",
                "--dst-type",
                "LOCAL",
                "--dport",
                &node_port,
            ],
        ] {
            let rule = [
                &["-t", "nat", "-A", "OUTPUT", "-p", protocol.as_str()],
                matches,
            ];
            let target = ["-j", "DNAT", "--to-destination", &endpoint.to_string()];
            self.iptables(&[&rule.concat()[..], &target].concat());
        }
    }

    fn serve_nobody(&self) {
        self.iptables(&["-t", "nat", "-F", "OUTPUT"]);
    }

    fn iptables(&self, arguments: &[&str]) {
        let program = match self.family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        run(program, &[&["-w", "5"], arguments].concat());
    }

    /// What the proxy knows if these endpoints serve the Service.
    fn truth(&self, protocol: Protocol, endpoints: &[SocketAddr]) -> Truth {
        let service = Arc::new(ServiceName::new("default", "echo"));
        let port = ServicePort {
            name: PortName {
                service: Arc::clone(&service),
                port: "".into(),
                protocol,
            },
            cluster_ip: Some(self.service.ip()),
            port: self.service.port(),
            node_port: NODE_PORT.try_into().ok(),
            external_ips: Vec::new(),
            load_balancer_ips: Vec::new(),
            source_ranges: Vec::new(),
            affinity: None,
            internal_local: false,
            external_local: false,
        };
        let selected = Selected {
            cluster: endpoints.to_vec(),
            ..Selected::default()
        };
        let mut truth = Truth::new(self.family);
        truth.set(&service, &[Served::new(&port, &selected)]);
        truth
    }

    /// Cleans the table; nothing may fail.
    async fn clean(&self, mut truth: Truth) -> usize {
        let node = BTreeSet::from([self.node]);
        let cleaned = clean(&HostConntrack, &mut truth, &node).await.unwrap();
        let Cleaned {
            deleted,
            failed,
            first_failure,
        } = cleaned;
        assert_eq!(failed, 0, "{first_failure:?}");
        assert!(!truth.is_pass_due());
        deleted
    }

    /// A client with a port of its own.
    async fn client(&self) -> UdpSocket {
        UdpSocket::bind((self.client, 0)).await.unwrap()
    }

    /// Starts both endpoints. Each answers with its address, until the test is over.
    async fn start_endpoints(&self) {
        for endpoint in self.endpoints {
            let socket = UdpSocket::bind(endpoint).await.unwrap();
            tokio::spawn(async move {
                let mut buffer = [0; 16];
                loop {
                    let (_, client) = socket.recv_from(&mut buffer).await.unwrap();
                    let answer = endpoint.to_string();
                    socket.send_to(answer.as_bytes(), client).await.unwrap();
                }
            });
        }
    }
}

/// Runs a test in a network namespace of its own.
fn isolated<F: Future<Output = ()>>(family: Family, test: impl FnOnce(Net) -> F + Send) {
    let run = || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let net = Net::new(family);
        net.set_up();
        // On this thread, which is the one in the namespace.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(test(net));
    };
    let ended = std::thread::scope(|scope| scope.spawn(run).join());
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Who answers the client at this address.
async fn ask(client: &UdpSocket, to: SocketAddr) -> SocketAddr {
    client.send_to(b"who", to).await.unwrap();
    let mut buffer = [0; 64];
    let received = timeout(PATIENCE, client.recv_from(&mut buffer)).await;
    let (length, from) = received.expect("an answer in time").unwrap();
    assert_eq!(from, to, "the answer was not translated back");
    let text = std::str::from_utf8(&buffer[..length]).unwrap();
    text.parse().unwrap()
}

/// Everything of these protocols in the table, but for flows from other addresses than
/// the client's.
async fn table(net: &Net, protocols: &[Protocol]) -> Vec<Flow> {
    let client = net.client;
    let of_client = move |flow: &Flow| flow.original.source.ip() == client;
    let flows = HostConntrack.flows(net.family, protocols, &of_client);
    let mut flows = flows.await.unwrap();
    flows.sort();
    flows
}

async fn udp(net: &Net) -> Vec<Flow> {
    table(net, &[Protocol::Udp]).await
}

/// The entry of this client.
async fn entry_of(net: &Net, client: &UdpSocket) -> Option<Flow> {
    let source = client.local_addr().unwrap();
    let flows = udp(net).await;
    flows
        .into_iter()
        .find(|flow| flow.original.source == source)
}

async fn a_lost_endpoints_flows_move(net: Net) {
    net.start_endpoints().await;
    let [first, second] = net.endpoints;
    let (stays, moves) = (net.client().await, net.client().await);
    net.serve(Protocol::Udp, second);
    assert_eq!(ask(&stays, net.service).await, second);
    net.serve(Protocol::Udp, first);
    assert_eq!(ask(&moves, net.service).await, first);

    net.serve(Protocol::Udp, second);
    // The disease: rules are not asked again.
    assert_eq!(ask(&moves, net.service).await, first);
    let healthy = entry_of(&net, &stays).await.unwrap();
    assert_eq!(healthy.original.destination, net.service);
    assert_eq!(healthy.reply.source, second);
    assert_ne!(healthy.id, 0);
    let truth = net.truth(Protocol::Udp, &[second]);
    assert_eq!(net.clean(truth).await, 1);
    // Before another packet could make a new one.
    assert_eq!(udp(&net).await, [healthy]);

    assert_eq!(ask(&moves, net.service).await, second);
    assert_eq!(ask(&stays, net.service).await, second);
    let truth = net.truth(Protocol::Udp, &[second]);
    assert_eq!(net.clean(truth).await, 0);
}

#[test]
fn a_lost_endpoints_flows_move_ipv4() {
    isolated(Family::V4, a_lost_endpoints_flows_move);
}

#[test]
fn a_lost_endpoints_flows_move_ipv6() {
    isolated(Family::V6, a_lost_endpoints_flows_move);
}

#[test]
fn a_node_ports_flows_move() {
    isolated(Family::V4, async |net| {
        net.start_endpoints().await;
        let [first, second] = net.endpoints;
        let (client, to) = (net.client().await, SocketAddr::new(net.node, NODE_PORT));
        net.serve(Protocol::Udp, first);
        assert_eq!(ask(&client, to).await, first);
        net.serve(Protocol::Udp, second);
        assert_eq!(ask(&client, to).await, first);
        let truth = net.truth(Protocol::Udp, &[second]);
        assert_eq!(net.clean(truth).await, 1);
        assert_eq!(ask(&client, to).await, second);
    });
}

#[test]
fn a_flow_from_before_there_was_a_rule_reaches_an_endpoint() {
    isolated(Family::V4, async |net| {
        net.start_endpoints().await;
        let [first, _] = net.endpoints;
        let client = net.client().await;
        client.send_to(b"who", net.service).await.unwrap();
        let lost = entry_of(&net, &client).await.unwrap();
        assert!(!lost.is_translated());
        net.serve(Protocol::Udp, first);
        // Nobody serves yet as far as the proxy knows: nothing better for it.
        let truth = net.truth(Protocol::Udp, &[]);
        assert_eq!(net.clean(truth).await, 0);
        let truth = net.truth(Protocol::Udp, &[first]);
        assert_eq!(net.clean(truth).await, 1);
        assert_eq!(ask(&client, net.service).await, first);
    });
}

#[test]
fn flows_end_with_the_last_endpoint_and_with_their_service() {
    isolated(Family::V4, async |net| {
        net.start_endpoints().await;
        let [first, _] = net.endpoints;
        let protocol = Protocol::Udp;
        let without_endpoints = net.truth(protocol, &[]);
        let mut deleted = net.truth(protocol, &[first]);
        deleted.set(&Arc::new(ServiceName::new("default", "echo")), &[]);
        let mut deleted_while_away = Truth::new(Family::V4);
        deleted_while_away.inherit(&[Destination::Address {
            protocol,
            address: net.service,
        }]);
        for truth in [without_endpoints, deleted, deleted_while_away] {
            let client = net.client().await;
            net.serve(protocol, first);
            assert_eq!(ask(&client, net.service).await, first);
            net.serve_nobody();
            assert_eq!(net.clean(truth).await, 1);
            assert_eq!(udp(&net).await, []);
        }
    });
}

#[test]
fn flows_in_a_zone_are_found_and_removed_there() {
    isolated(Family::V4, async |net| {
        net.start_endpoints().await;
        let [first, second] = net.endpoints;
        net.serve(Protocol::Udp, first);
        for zone in ["5", "6"] {
            // Replies take the same way through loopback, so both directions are in it.
            for chain in ["OUTPUT", "PREROUTING"] {
                net.iptables(&["-t", "raw", "-F", chain]);
                let rule = ["-t", "raw", "-A", chain, "-p", "udp"];
                net.iptables(&[&rule[..], &["-j", "CT", "--zone", zone]].concat());
            }
            let client = net.client().await;
            assert_eq!(ask(&client, net.service).await, first);
            let flow = entry_of(&net, &client).await.unwrap();
            assert_eq!(flow.zone.to_string(), zone);
            let elsewhere = Flow { zone: 7, ..flow };
            let deletion = HostConntrack.delete(&elsewhere).await.unwrap();
            assert_eq!(deletion, Deletion::WasGone);
        }
        let truth = net.truth(Protocol::Udp, &[second]);
        assert_eq!(net.clean(truth).await, 2);
        assert_eq!(udp(&net).await, []);
    });
}

#[test]
fn another_entry_with_the_same_tuple_is_spared() {
    isolated(Family::V4, async |net| {
        net.start_endpoints().await;
        let [first, _] = net.endpoints;
        net.serve(Protocol::Udp, first);
        let client = net.client().await;
        ask(&client, net.service).await;
        let flow = entry_of(&net, &client).await.unwrap();
        let earlier = Flow {
            id: flow.id.wrapping_add(1),
            ..flow.clone()
        };
        let delete = async |flow: &Flow| HostConntrack.delete(flow).await.unwrap();
        assert_eq!(delete(&earlier).await, Deletion::WasGone);
        assert_eq!(udp(&net).await, std::slice::from_ref(&flow));
        assert_eq!(delete(&flow).await, Deletion::Deleted);
        assert_eq!(delete(&flow).await, Deletion::WasGone);
        assert_eq!(udp(&net).await, []);
    });
}

/// The packet that opens an association (RFC 9260, 3.3.2). Its checksum is not right,
/// which only matters to those who receive it.
fn sctp_init(source: u16, destination: u16) -> Vec<u8> {
    let ports = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    let rest = [
        0u32,        // verification tag: none yet
        0,           // checksum
        0x0100_0014, // INIT of 20 bytes
        0x1234_5678, // initiate tag
        65_536,      // window
        0x0001_0001, // one stream each way
        1,           // first TSN
    ];
    [ports, rest.map(u32::to_be_bytes).concat()].concat()
}

/// Without SCTP sockets, which not every kernel has; tracking it takes none.
#[test]
fn sctp_flows_move() {
    isolated(Family::V4, async |net| {
        let [first, second] = net.endpoints;
        let protocol = libc::IPPROTO_SCTP.into();
        let client = Socket::new(Domain::IPV4, Type::from(libc::SOCK_RAW), Some(protocol));
        let client = client.unwrap();
        client.bind(&SocketAddr::new(net.client, 0).into()).unwrap();
        let to = SocketAddr::new(net.service.ip(), 0).into();
        let open = |port: u16| {
            let packet = sctp_init(port, net.service.port());
            client.send_to(&packet, &to).unwrap();
        };
        net.serve(Protocol::Sctp, second);
        open(40_000);
        net.serve(Protocol::Sctp, first);
        open(40_001);
        net.serve(Protocol::Sctp, second);
        let servers = async || -> Vec<(u16, SocketAddr)> {
            let flows = table(&net, &[Protocol::Sctp]).await;
            let pair = |flow: &Flow| (flow.original.source.port(), flow.reply.source);
            flows.iter().map(pair).collect()
        };
        assert_eq!(servers().await, [(40_000, second), (40_001, first)]);
        // Of another protocol at the same address and port.
        let truth = net.truth(Protocol::Udp, &[second]);
        assert_eq!(net.clean(truth).await, 0);
        let truth = net.truth(Protocol::Sctp, &[second]);
        assert_eq!(net.clean(truth).await, 1);
        assert_eq!(servers().await, [(40_000, second)]);
        open(40_001);
        assert_eq!(servers().await, [(40_000, second), (40_001, second)]);
    });
}

/// Only the machine's own namespace can change how many entries there may be.
#[test]
fn limits_in_a_namespace_are_set_but_for_one() {
    isolated(Family::V4, async |_| {
        let root = Path::new("/");
        assert!(!limits::tcp_be_liberal(root));
        let settings = LimitSettings {
            udp_timeout: Duration::from_secs(11),
            udp_stream_timeout: Duration::from_secs(12),
            tcp_be_liberal: true,
            // Surely not what the machine has.
            max_per_core: 12_345,
            min: 0,
            ..LimitSettings::default()
        };
        let plan = limits::plan(&settings, 1, &limits::current(root));
        let errors = limits::apply(root, &plan);
        let resisted: Vec<Tunable> = errors.iter().map(|error| error.write.tunable).collect();
        assert_eq!(resisted, [Tunable::ConntrackMax]);
        let now = limits::current(root);
        assert_eq!(now[&Tunable::UdpTimeout], 11);
        assert_eq!(now[&Tunable::UdpStreamTimeout], 12);
        assert_eq!(now[&Tunable::TcpEstablishedTimeout], 86_400);
        assert_eq!(now[&Tunable::TcpCloseWaitTimeout], 3_600);
        assert_eq!(now[&Tunable::RouteLocalnet], 1);
        assert!(limits::tcp_be_liberal(root));
    });
}

/// What a look through a large table costs: `cargo test --release --features
/// node-tests --test conntrack -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn cost_of_a_large_table() {
    isolated(Family::V4, async |net| {
        net.serve(Protocol::Udp, net.endpoints[0]);
        let client = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        client.bind(&SocketAddr::new(net.client, 0).into()).unwrap();
        let entries = 100_000_u32;
        for number in 0..entries {
            let [_, _, high, low] = (1_000 + number / 50).to_be_bytes();
            let port = 10_000 + u16::try_from(number % 50).unwrap();
            let to = SocketAddr::from(([10, 96, high, low], port));
            client.send_to(b"who", &to.into()).unwrap();
        }
        for (what, protocols) in [
            ("other protocols", &[Protocol::Sctp][..]),
            ("one protocol", &[Protocol::Udp][..]),
        ] {
            let seen = std::sync::atomic::AtomicUsize::new(0);
            let count = |_: &Flow| {
                seen.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                false
            };
            let (memory, start) = (resident_kib(), Instant::now());
            let flows = HostConntrack.flows(net.family, protocols, &count).await;
            let (took, grew) = (start.elapsed(), resident_kib() - memory);
            assert_eq!(flows.unwrap(), []);
            let seen = seen.into_inner();
            println!("{what}: {seen} of {entries} entries seen in {took:?}, +{grew} KiB");
        }
        let some = |flow: &Flow| flow.original.destination.port() < 10_005;
        let flows = HostConntrack.flows(net.family, &[Protocol::Udp], &some);
        let flows = flows.await.unwrap();
        let start = Instant::now();
        for flow in &flows {
            let deletion = HostConntrack.delete(flow).await.unwrap();
            assert_eq!(deletion, Deletion::Deleted);
        }
        println!("{} entries removed in {:?}", flows.len(), start.elapsed());
    });
}

fn resident_kib() -> i64 {
    let process = procfs::process::Process::myself().unwrap();
    let pages = process.statm().unwrap().resident;
    i64::try_from(pages * procfs::page_size() / 1024).unwrap()
}
