//! Who is where: a node, two pods on it, one on another, a client outside, and everything
//! beyond.
//!
//! ```text
//!  pod A ── pod-a ┐        ┌ eth0 ── beyond: the default route, which leads to whoever has
//!                 │        │                 no other place here
//!                 ├─ node ─┼ eth1 ── client, and a stranger beside it
//!                 │        │
//!  pod B ── pod-b ┘        └ eth2 ── far pod, of another node
//! ```
//!
//! Everything has an address of each family. All that goes from one host to another goes
//! through the node.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use crate::proxy::model::{Family, Protocol};

/// The node's name in EndpointSlices.
pub const NODE: &str = "here";
/// The zone that the node is in.
pub const ZONE: &str = "near";
/// How the names of the node's interfaces begin that lead to pods.
pub const POD_INTERFACES: &str = "pod-";

/// A network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Host {
    /// Has the rules.
    Node,
    PodA,
    PodB,
    FarPod,
    Client,
    /// Where the node's default route leads. It has all addresses that nobody else has.
    Beyond,
}

impl Host {
    pub const ALL: [Self; 6] = [
        Self::Node,
        Self::PodA,
        Self::PodB,
        Self::FarPod,
        Self::Client,
        Self::Beyond,
    ];

    /// The node's interface that leads there; none to itself.
    #[must_use]
    pub const fn interface(self) -> Option<&'static str> {
        match self {
            Self::Node => None,
            Self::PodA => Some("pod-a"),
            Self::PodB => Some("pod-b"),
            Self::Client => Some("eth1"),
            Self::FarPod => Some("eth2"),
            Self::Beyond => Some("eth0"),
        }
    }

    /// What the node has for an address on that interface: what it is masqueraded as who
    /// is sent there.
    #[must_use]
    pub fn gateway(self, family: Family) -> IpAddr {
        match self {
            Self::Node | Self::Beyond => pick(family, [192, 168, 0, 2], 0xfd00_0007, 2),
            Self::PodA | Self::PodB => pick(family, [10, 244, 1, 1], 0xfd00_0244, 1),
            Self::FarPod => pick(family, [192, 168, 2, 2], 0xfd00_0008, 2),
            Self::Client => pick(family, [203, 0, 113, 1], 0x2001_0db8, 1),
        }
    }
}

/// Somebody who connects, or serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Party {
    Node,
    PodA,
    PodB,
    /// A pod of another node.
    FarPod,
    /// Outside the cluster.
    Client,
    /// The same, but not in any range of sources that may come in.
    Stranger,
    /// Where the node's default route leads.
    Router,
}

impl Party {
    pub const ALL: [Self; 7] = [
        Self::Node,
        Self::PodA,
        Self::PodB,
        Self::FarPod,
        Self::Client,
        Self::Stranger,
        Self::Router,
    ];

    #[must_use]
    pub const fn host(self) -> Host {
        match self {
            Self::Node => Host::Node,
            Self::PodA => Host::PodA,
            Self::PodB => Host::PodB,
            Self::FarPod => Host::FarPod,
            Self::Client | Self::Stranger => Host::Client,
            Self::Router => Host::Beyond,
        }
    }

    #[must_use]
    pub fn address(self, family: Family) -> IpAddr {
        match self {
            Self::Node => Host::Beyond.gateway(family),
            Self::PodA => pick(family, [10, 244, 1, 10], 0xfd00_0244, 0x10),
            Self::PodB => pick(family, [10, 244, 1, 11], 0xfd00_0244, 0x11),
            Self::FarPod => pick(family, [10, 244, 2, 10], 0xfd00_0245, 0x10),
            Self::Client => pick(family, [203, 0, 113, 5], 0x2001_0db8, 5),
            Self::Stranger => pick(family, [203, 0, 113, 200], 0x2001_0db8, 0x200),
            Self::Router => pick(family, [192, 168, 0, 1], 0xfd00_0007, 1),
        }
    }
}

/// An address, whatever the family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Address {
    Of(Party),
    /// The node's at this interface of its.
    Gateway(Host),
    Localhost,
    /// Of Services.
    ClusterIp(u16),
    ExternalIp,
    Balancer,
}

impl Address {
    #[must_use]
    pub fn ip(self, family: Family) -> IpAddr {
        match self {
            Self::Of(party) => party.address(family),
            Self::Gateway(host) => host.gateway(family),
            Self::Localhost => match family {
                Family::V4 => Ipv4Addr::LOCALHOST.into(),
                Family::V6 => Ipv6Addr::LOCALHOST.into(),
            },
            Self::ClusterIp(number) => {
                let [high, low] = number.to_be_bytes();
                pick(family, [10, 96, high, low], 0xfd00_0096, number)
            }
            Self::ExternalIp => pick(family, [198, 51, 100, 1], 0x2001_0db9, 1),
            Self::Balancer => pick(family, [198, 51, 100, 2], 0x2001_0db9, 2),
        }
    }

    /// Who gets packets to this address if no rule says otherwise.
    #[must_use]
    pub const fn host(self) -> Host {
        match self {
            Self::Of(party) => party.host(),
            Self::Gateway(_) | Self::Localhost => Host::Node,
            Self::ClusterIp(_) | Self::ExternalIp | Self::Balancer => Host::Beyond,
        }
    }

    #[must_use]
    pub const fn tcp(self, port: u16) -> To {
        self.by(Protocol::Tcp, port)
    }

    #[must_use]
    pub const fn udp(self, port: u16) -> To {
        self.by(Protocol::Udp, port)
    }

    #[must_use]
    pub const fn by(self, protocol: Protocol, port: u16) -> To {
        To {
            address: self,
            protocol,
            port,
        }
    }
}

/// Where somebody connects to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct To {
    pub address: Address,
    pub protocol: Protocol,
    pub port: u16,
}

impl To {
    #[must_use]
    pub fn socket(self, family: Family) -> SocketAddr {
        SocketAddr::new(self.address.ip(family), self.port)
    }
}

impl fmt::Display for To {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (protocol, port) = (self.protocol.as_str(), self.port);
        write!(f, "{:?} {protocol} {port}", self.address)
    }
}

/// All addresses of the node but loopback's.
#[must_use]
pub fn node_addresses() -> Vec<IpAddr> {
    let all = Family::ALL
        .into_iter()
        .flat_map(|family| Host::ALL.map(|host| host.gateway(family)));
    all.collect()
}

/// The addresses of all pods.
#[must_use]
pub fn cluster_cidr(family: Family) -> IpNet {
    net(pick(family, [10, 244, 0, 0], 0xfd00_0244, 0), 16, 31)
}

/// The addresses of this node's pods.
#[must_use]
pub fn node_cidr(family: Family) -> IpNet {
    net(pick(family, [10, 244, 1, 0], 0xfd00_0244, 0), 24, 32)
}

/// Where the client is, and the stranger is not.
#[must_use]
pub fn client_range(family: Family) -> IpNet {
    net(pick(family, [203, 0, 113, 0], 0x2001_0db8, 0), 25, 120)
}

/// The node, as seen from beyond, and few others.
#[must_use]
pub fn node_range(family: Family) -> IpNet {
    net(pick(family, [192, 168, 0, 0], 0xfd00_0007, 0), 30, 120)
}

/// The IPv6 address is made of its first and last parts.
fn pick(family: Family, v4: [u8; 4], v6_first: u32, v6_last: u16) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from(v4).into(),
        Family::V6 => Ipv6Addr::from(u128::from(v6_first) << 96 | u128::from(v6_last)).into(),
    }
}

fn net(base: IpAddr, v4: u8, v6: u8) -> IpNet {
    let length = match base {
        IpAddr::V4(_) => v4,
        IpAddr::V6(_) => v6,
    };
    IpNet::new_assert(base, length).trunc()
}
