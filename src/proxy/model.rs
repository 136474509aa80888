//! The words of the service proxy: what all its parts say to each other.
//!
//! Plain data, kept small: a cluster has tens of thousands of these.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

/// An address family, each with its own tables, rules and health.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// As the API and upstream's metrics write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// The kind of object that makes rules change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    Services,
    /// EndpointSlices.
    Endpoints,
}

impl Source {
    pub const ALL: [Self; 2] = [Self::Services, Self::Endpoints];
}

/// A transport protocol that Services can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// As iptables writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// A Service's namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName {
    pub namespace: Box<str>,
    pub name: Box<str>,
}

impl ServiceName {
    #[must_use]
    pub fn new(namespace: impl Into<Box<str>>, name: impl Into<Box<str>>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One port of one Service: what has chains of its own. Shown as `ns/name:port`, or
/// `ns/name` if the port has no name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortName {
    pub service: Arc<ServiceName>,
    /// Empty if the Service has one port without a name.
    pub port: Arc<str>,
    pub protocol: Protocol,
}

impl fmt::Display for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.service)?;
        if !self.port.is_empty() {
            write!(f, ":{}", self.port)?;
        }
        Ok(())
    }
}

/// One port of a Service as one family sees it. All addresses are of that family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    pub name: PortName,
    /// None if another Service was there first: two cannot have the same address and port.
    pub cluster_ip: Option<IpAddr>,
    pub port: u16,
    pub node_port: Option<NonZeroU16>,
    pub external_ips: Vec<IpAddr>,
    /// Of the load balancer's addresses, those whose traffic ends on the node
    /// (`ipMode` unset or VIP).
    pub load_balancer_ips: Vec<IpAddr>,
    /// Who may use `load_balancer_ips`. Empty: everybody.
    pub source_ranges: Vec<IpNet>,
    /// `sessionAffinity: ClientIP`, and for how long.
    pub affinity: Option<Duration>,
    /// `internalTrafficPolicy: Local`.
    pub internal_local: bool,
    /// `externalTrafficPolicy: Local`, where there is external traffic at all.
    pub external_local: bool,
}

/// The endpoints that serve one [`ServicePort`] on this node. Addresses are sorted as
/// the text `ip:port`, without duplicates.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selected {
    /// For traffic policy Cluster.
    pub cluster: Vec<SocketAddr>,
    /// For traffic policy Local.
    pub local: Vec<SocketAddr>,
    /// Whether any usable endpoint exists anywhere. Without one, traffic is rejected;
    /// with one that just is not here, traffic of policy Local is dropped.
    pub anywhere: bool,
}

/// A table of iptables that Services need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    Filter,
    Nat,
    /// Only for the canary.
    Mangle,
}

impl Table {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
            Self::Mangle => "mangle",
        }
    }
}

/// A chain of iptables.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChainId {
    pub table: Table,
    /// At most 28 characters.
    pub name: Box<str>,
}

impl ChainId {
    #[must_use]
    pub fn new(table: Table, name: impl Into<Box<str>>) -> Self {
        Self {
            table,
            name: name.into(),
        }
    }
}

/// A jump from a chain that is not ours.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Jump {
    pub table: Table,
    /// `INPUT`, `PREROUTING` and the like.
    pub from: Box<str>,
    /// A chain of ours.
    pub to: Box<str>,
}

/// Where clients send packets that a Service takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Destination {
    /// A cluster IP, an external IP or one of a load balancer.
    Address {
        protocol: Protocol,
        address: SocketAddr,
    },
    /// Any address of this node.
    NodePort {
        protocol: Protocol,
        port: NonZeroU16,
    },
}

/// What a family's tables hold that concerns us, as `iptables-save` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// Our chains: those that only kube-proxy's names can be.
    pub chains: Vec<ChainId>,
    /// Jumps to chains of ours, each as often as it is there.
    pub jumps: Vec<Jump>,
    /// What the dispatching rules took, whoever wrote them.
    pub destinations: Vec<Destination>,
    /// How many rules our chains have, of each table that has any.
    pub rules: BTreeMap<Table, usize>,
}

/// The input of one `iptables-restore --noflush --counters`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreScript {
    pub text: String,
    /// Rules in it (`-A` and `-I`), by table; for metrics.
    pub filter_rules: usize,
    pub nat_rules: usize,
}
