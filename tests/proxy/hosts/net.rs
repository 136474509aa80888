//! Hosts: network namespaces, and the cables between them.
//!
//! The namespaces have no names. A file holds each, and they end with the process,
//! however it ends.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use kubelet::proxy::model::Family;
use kubelet::proxy::scenarios::world::{Address, Host, Party};
use nix::sched::{CloneFlags, setns, unshare};

/// All hosts. The node is the namespace that the test runs in.
pub struct Net(BTreeMap<Host, Namespace>);

/// A network namespace.
pub struct Namespace(File);

impl Namespace {
    fn current() -> Self {
        Self(File::open("/proc/thread-self/ns/net").unwrap())
    }

    fn new() -> Self {
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            Self::current()
        });
        made.join().unwrap()
    }

    /// Does something there: what it opens and starts stays there.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let there = || {
            setns(&self.0, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        };
        thread::scope(|scope| scope.spawn(there).join().unwrap())
    }

    /// For `ip`, which is another process.
    fn path(&self) -> String {
        let id = std::process::id();
        format!("/proc/{id}/fd/{}", self.0.as_raw_fd())
    }

    /// Commands of `ip`, one a line.
    fn ip(&self, commands: &str) {
        self.within(|| {
            let mut ip = Command::new("ip")
                .args(["-batch", "-"])
                .stdin(Stdio::piped())
                .spawn()
                .unwrap();
            let mut input = ip.stdin.take().unwrap();
            input.write_all(commands.as_bytes()).unwrap();
            drop(input);
            assert!(ip.wait().unwrap().success(), "{commands}");
        });
    }

    fn set(&self, values: &[(&str, &str)]) {
        self.within(|| {
            for (name, value) in values {
                fs::write(format!("/proc/sys/net/{name}"), value).unwrap();
            }
        });
    }

    /// How many interfaces can talk to their neighbours in IPv6.
    fn ready_interfaces(&self) -> usize {
        const TENTATIVE: u8 = 0x40;
        let table = self.within(|| fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap());
        let is_ready = |line: &&str| {
            let flags = line.split_whitespace().nth(4).unwrap();
            let flags = u8::from_str_radix(flags, 16).unwrap();
            line.starts_with("fe80") && flags & TENTATIVE == 0
        };
        table.lines().filter(is_ready).count()
    }
}

impl Net {
    /// Hosts with cables, addresses and routes.
    pub fn set_up() -> Self {
        let namespace = |host| match host {
            Host::Node => Namespace::current(),
            _ => Namespace::new(),
        };
        let net = Self(Host::ALL.map(|host| (host, namespace(host))).into());
        for host in net.0.values() {
            host.set(&[
                // Nobody else could have an address; without looking it is there at once.
                ("ipv6/conf/default/accept_dad", "0"),
                // Every refusal is told.
                ("ipv4/icmp_ratelimit", "0"),
                ("ipv6/icmp/ratelimit", "0"),
            ]);
            host.ip("link set lo up");
        }
        let node = net.host(Host::Node);
        node.set(&[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")]);
        // Servers there have addresses that only a route says are its own.
        net.host(Host::Beyond)
            .set(&[("ipv6/ip_nonlocal_bind", "1")]);
        for (host, namespace) in &net.0 {
            if let Some(interface) = host.interface() {
                node.ip(&format!(
                    "link add {interface} type veth peer name eth0 netns {}\n\
                     link set {interface} up",
                    namespace.path(),
                ));
                namespace.ip("link set eth0 up");
                for family in Family::ALL {
                    node.ip(&node_side(*host, interface, family));
                    namespace.ip(&far_side(*host, family));
                }
            }
        }
        net.wait();
        net
    }

    pub fn host(&self, host: Host) -> &Namespace {
        &self.0[&host]
    }

    /// Until all can talk to each other.
    fn wait(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        for (host, namespace) in &self.0 {
            let cables = match host {
                Host::Node => self.0.len() - 1,
                _ => 1,
            };
            while namespace.ready_interfaces() < cables {
                assert!(Instant::now() < deadline, "{host:?} is not ready");
                thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

/// The addresses of a host besides the node.
fn addresses(host: Host, family: Family) -> Vec<IpAddr> {
    let here = Party::ALL.into_iter().filter(|party| party.host() == host);
    here.map(|party| party.address(family)).collect()
}

fn node_side(host: Host, interface: &str, family: Family) -> String {
    let gateway = single(host.gateway(family));
    let mut commands = format!("address add {gateway} dev {interface}\n");
    for address in addresses(host, family) {
        let address = single(address);
        commands += &format!("route add {address} dev {interface}\n");
    }
    if host == Host::Beyond {
        let next = Party::Router.address(family);
        commands += &format!("route add default via {next} dev {interface}\n");
    }
    commands
}

fn far_side(host: Host, family: Family) -> String {
    let gateway = host.gateway(family);
    let mut commands = String::new();
    for address in addresses(host, family) {
        commands += &format!("address add {} dev eth0\n", single(address));
    }
    commands += &format!("route add {} dev eth0\n", single(gateway));
    commands += &format!("route add default via {gateway} dev eth0\n");
    if host == Host::Beyond {
        for address in [Address::ClusterIp(0), Address::ExternalIp] {
            let range = range_around(address.ip(family));
            commands += &format!("route add local {range} dev lo\n");
        }
    }
    commands
}

fn single(address: IpAddr) -> IpNet {
    address.into()
}

fn range_around(address: IpAddr) -> IpNet {
    let length = if address.is_ipv4() { 16 } else { 32 };
    IpNet::new_assert(address, length).trunc()
}
