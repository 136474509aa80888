//! Names of our chains, as small values, and their text.
//!
//! The text is kube-proxy's: tools look for it, and the clean-up of either side
//! removes what the other one left.

use std::fmt;
use std::net::SocketAddr;

use data_encoding::BASE32;
use sha2::{Digest, Sha256};

use crate::proxy::model::{PortName, Protocol};

/// The 80 bits of a SHA-256 that make a chain's name unique, 16 characters in base32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash([u8; 10]);

impl Hash {
    /// What the chains of one port of a Service have in common.
    #[must_use]
    pub fn of_port(name: &PortName) -> Self {
        Self::digest(format_args!("{name}{}", name.protocol.as_str()))
    }

    /// One endpoint of that port.
    #[must_use]
    pub fn of_endpoint(name: &PortName, endpoint: SocketAddr) -> Self {
        Self::digest(format_args!("{name}{}{endpoint}", name.protocol.as_str()))
    }

    fn digest(text: fmt::Arguments<'_>) -> Self {
        let digest = Sha256::digest(text.to_string());
        let mut bytes = [0; 10];
        bytes.copy_from_slice(&digest[..10]);
        Self(bytes)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", BASE32.encode_display(&self.0))
    }
}

/// What a chain that belongs to one port of a Service is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Chooses among the endpoints of policy Cluster.
    Cluster,
    /// Chooses among the endpoints of policy Local.
    Local,
    /// Entry of traffic from outside the cluster.
    External,
    /// Entry of traffic to a load balancer's address with source ranges.
    Firewall,
    /// One endpoint.
    Endpoint,
}

impl Role {
    pub const ALL: [Self; 5] = [
        Self::Cluster,
        Self::Local,
        Self::External,
        Self::Firewall,
        Self::Endpoint,
    ];

    const fn prefix(self) -> &'static str {
        match self {
            Self::Cluster => "KUBE-SVC-",
            Self::Local => "KUBE-SVL-",
            Self::External => "KUBE-EXT-",
            Self::Firewall => "KUBE-FW-",
            Self::Endpoint => "KUBE-SEP-",
        }
    }
}

/// Chains that every node has, whatever its Services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fixed {
    Services,
    ExternalServices,
    NodePorts,
    Postrouting,
    MarkMasq,
    Forward,
    ProxyFirewall,
    /// Shared with the kubelet.
    Firewall,
}

impl Fixed {
    /// The table filter's, in the order of their names.
    pub const FILTER: [Self; 6] = [
        Self::ExternalServices,
        Self::Firewall,
        Self::Forward,
        Self::NodePorts,
        Self::ProxyFirewall,
        Self::Services,
    ];
    /// The table nat's, in the order of their names.
    pub const NAT: [Self; 4] = [
        Self::MarkMasq,
        Self::NodePorts,
        Self::Postrouting,
        Self::Services,
    ];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Services => "KUBE-SERVICES",
            Self::ExternalServices => "KUBE-EXTERNAL-SERVICES",
            Self::NodePorts => "KUBE-NODEPORTS",
            Self::Postrouting => "KUBE-POSTROUTING",
            Self::MarkMasq => "KUBE-MARK-MASQ",
            Self::Forward => "KUBE-FORWARD",
            Self::ProxyFirewall => "KUBE-PROXY-FIREWALL",
            Self::Firewall => "KUBE-FIREWALL",
        }
    }
}

/// Whose absence tells that somebody emptied the tables. It has no rules.
pub const CANARY: &str = "KUBE-PROXY-CANARY";

/// A part of nat KUBE-SERVICES: the destinations whose low bits are these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket {
    /// Which of the address's low bits count for the first level.
    pub low_mask: u32,
    pub low: u32,
    /// The same for the second level, if this is a chain of that: bits above those of
    /// the first, so that `mask & low_mask == 0`.
    pub high: Option<(u32, u32)>,
}

/// A chain of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChainName {
    Fixed(Fixed),
    /// Of one port of one Service.
    Of(Role, Hash),
    /// A part of nat KUBE-SERVICES.
    Dispatch(Bucket),
    /// A part of nat KUBE-NODEPORTS: a protocol's node ports from this one on.
    NodePorts(Protocol, u16),
}

impl fmt::Display for ChainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(fixed) => f.write_str(fixed.as_str()),
            Self::Of(role, hash) => write!(f, "{}{hash}", role.prefix()),
            // A prefix that upstream's clean-up of stale chains knows.
            Self::Dispatch(bucket) => {
                write!(f, "KUBE-SVC-DISPATCH-{:02X}", bucket.low)?;
                match bucket.high {
                    Some((mask, bits)) => {
                        write!(f, "-{:02X}", bits >> mask.trailing_zeros())
                    }
                    None => Ok(()),
                }
            }
            Self::NodePorts(protocol, first) => {
                let protocol = match protocol {
                    Protocol::Tcp => "TCP",
                    Protocol::Udp => "UDP",
                    Protocol::Sctp => "SCTP",
                };
                write!(f, "KUBE-SVC-NODEPORT-{protocol}-{first}")
            }
        }
    }
}

/// Whether a chain of the table nat is one that comes and goes with Services, by
/// whomever it was written.
#[must_use]
pub fn is_of_services(name: &str) -> bool {
    Role::ALL.iter().any(|role| name.starts_with(role.prefix()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::proxy::model::ServiceName;

    fn name(namespace: &str, service: &str, port: &str, protocol: Protocol) -> PortName {
        PortName {
            service: Arc::new(ServiceName::new(namespace, service)),
            port: port.into(),
            protocol,
        }
    }

    /// Expected values are from Python's hashlib and base64.
    #[test]
    fn hashes_are_kube_proxys() {
        let unnamed = name("default", "kubernetes", "", Protocol::Tcp);
        let https = name("default", "kubernetes", "https", Protocol::Tcp);
        let dns = name("kube-system", "kube-dns", "dns", Protocol::Udp);
        let sctp = name("ns", "svc", "p", Protocol::Sctp);
        assert_eq!(Hash::of_port(&https).to_string(), "NPX46M4PTMTKRN6Y");
        assert_eq!(Hash::of_port(&dns).to_string(), "TCOU7JCQXEZGVUNU");
        assert_eq!(Hash::of_port(&unnamed).to_string(), "MBEGLAPII7DDIM3R");
        assert_eq!(Hash::of_port(&sctp).to_string(), "WGKNK2DITNTWUU7O");
        let v4 = "10.0.0.1:53".parse().unwrap();
        let v6 = "[fd00::1]:53".parse().unwrap();
        assert_eq!(Hash::of_endpoint(&dns, v4).to_string(), "Y2UM6AL56PTWQBII");
        assert_eq!(Hash::of_endpoint(&dns, v6).to_string(), "DRPMWHPJ2PALM6AB");
    }

    #[test]
    fn no_name_is_too_long_for_the_kernel() {
        let high = Some((0xfc0, 0xfc0));
        let longest = [
            ChainName::Fixed(Fixed::ExternalServices),
            ChainName::Of(Role::Cluster, Hash([0xff; 10])),
            ChainName::Dispatch(Bucket {
                low_mask: 0x3f,
                low: 0x3f,
                high,
            }),
            ChainName::NodePorts(Protocol::Sctp, 65472),
        ];
        for name in longest {
            assert!(name.to_string().len() <= 28, "{name}");
        }
        assert_eq!(longest[2].to_string(), "KUBE-SVC-DISPATCH-3F-3F");
    }

    #[test]
    fn parts_of_the_dispatch_are_removed_by_upstreams_clean_up() {
        assert!(is_of_services("KUBE-SVC-DISPATCH-3F"));
        assert!(is_of_services("KUBE-FW-ABCDEFGHIJKLMNOP"));
        assert!(!is_of_services("KUBE-SERVICES"));
        assert!(!is_of_services("KUBE-FIREWALL"));
    }
}
