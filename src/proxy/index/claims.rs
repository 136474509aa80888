//! Who has which destination.
//!
//! Two Services cannot both have an address and port, nor both a node port. The older
//! one has it, of equally old ones the first by name: an answer that does not depend
//! on the order of events, and that a newcomer cannot turn to take over the addresses
//! of others. When the owner goes, the next one has it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::super::model::{Destination, Family, Protocol, ServiceName};

/// A destination as one family sees it. Much smaller than a [`Destination`]: there is
/// one for each that any Service has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Claim {
    /// The unspecified address stands for any of the node's.
    address: IpAddr,
    port: u16,
    protocol: Protocol,
}

impl Claim {
    pub(super) const fn new(family: Family, destination: Destination) -> Self {
        match destination {
            Destination::Address { protocol, address } => Self {
                address: address.ip(),
                port: address.port(),
                protocol,
            },
            Destination::NodePort { protocol, port } => Self {
                address: match family {
                    Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                    Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
                },
                port: port.get(),
                protocol,
            },
        }
    }
}

/// A Service that wants a destination. The least of several has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claimant {
    /// Seconds since 1970.
    pub(super) created: i64,
    pub(super) service: Arc<ServiceName>,
}

/// Nearly always there is one.
#[derive(Debug)]
enum Claimants {
    One(Claimant),
    /// In order, at least two.
    Several(Vec<Claimant>),
}

/// All claims of all Services.
#[derive(Debug, Default)]
pub(super) struct Claims {
    by_claim: HashMap<Claim, Claimants>,
}

impl Claims {
    pub(super) fn owner(&self, claim: Claim) -> Option<&Arc<ServiceName>> {
        self.claimants(claim).first().map(|one| &one.service)
    }

    /// The others that want what `service` wants.
    pub(super) fn rivals<'a>(
        &'a self,
        claim: Claim,
        service: &'a ServiceName,
    ) -> impl Iterator<Item = &'a Arc<ServiceName>> {
        self.claimants(claim)
            .iter()
            .map(|one| &one.service)
            .filter(move |one| ***one != *service)
    }

    /// Adds a claim that the Service does not have yet.
    pub(super) fn add(&mut self, claim: Claim, claimant: Claimant) {
        let all = match self.by_claim.remove(&claim) {
            None => Claimants::One(claimant),
            Some(Claimants::One(other)) => {
                let mut both = vec![other, claimant];
                both.sort();
                Claimants::Several(both)
            }
            Some(Claimants::Several(mut all)) => {
                all.push(claimant);
                all.sort();
                Claimants::Several(all)
            }
        };
        self.by_claim.insert(claim, all);
    }

    pub(super) fn remove(&mut self, claim: Claim, service: &ServiceName) {
        let remaining = match self.by_claim.remove(&claim) {
            None => return,
            Some(Claimants::One(one)) => Some(one)
                .filter(|one| *one.service != *service)
                .map(Claimants::One),
            Some(Claimants::Several(mut all)) => {
                all.retain(|one| *one.service != *service);
                match all.len() {
                    0 => None,
                    1 => all.pop().map(Claimants::One),
                    _ => Some(Claimants::Several(all)),
                }
            }
        };
        if let Some(remaining) = remaining {
            self.by_claim.insert(claim, remaining);
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.by_claim.is_empty()
    }

    fn claimants(&self, claim: Claim) -> &[Claimant] {
        match self.by_claim.get(&claim) {
            None => &[],
            Some(Claimants::One(one)) => std::slice::from_ref(one),
            Some(Claimants::Several(all)) => all,
        }
    }
}
