//! All Services and their endpoints, as small as can be, and what has changed.
//!
//! In: Services and EndpointSlices in any order, one at a time or as a whole list, and
//! this node's name and zone. Out: the ports of a Service with the endpoints that
//! serve them, the names of Services for which that may have become different, and
//! what is wrong with objects.
//!
//! The work of an event is in proportion to what it changes, never to what there is.
//! What an object says is reduced to what matters before it is compared with what was
//! known, so that an event without meaning changes nothing. Nothing here depends on
//! the order of events: the state is a function of the objects that are there.
//!
//! Slices may come before their Service, and wait for it. Every destination belongs to
//! one Service, see [`claims`].

mod claims;
mod ledger;
mod update;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use self::claims::{Claim, Claims};
use self::ledger::{Ledger, Origin};
use super::model::{Destination, Family, PortName, Selected, ServiceName, ServicePort};
use super::problem::{Fault, Problem};
use super::select::{select, targets};
use super::service::{PortInfo, ServiceInfo};
use super::slice::SliceInfo;

/// This node, as endpoints speak of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeLocal {
    /// The Node's name, which never changes.
    pub name: Box<str>,
    /// Its label `topology.kubernetes.io/zone`.
    pub zone: Option<Box<str>>,
}

/// What may have become different for one Service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Change {
    /// Whether it was by a Service: this one, or one that wanted the same destinations.
    pub by_service: bool,
    /// Whether it was by slices.
    pub by_slices: bool,
    /// The UDP and SCTP destinations that it had when changes were last taken: flows to
    /// them may have to be forgotten. TCP's end by themselves.
    pub before: Vec<(Family, Destination)>,
    /// When those things happened that made slices change.
    pub triggers: Vec<Timestamp>,
}

/// What load balancers that ask this node are told about a Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthCheck {
    /// Where they ask.
    pub port: NonZeroU16,
    /// How many ready endpoints this node has.
    pub local_endpoints: usize,
}

/// How much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Services that this proxy serves.
    pub services: usize,
    pub slices: usize,
    /// Pairs of address and port in all slices.
    pub endpoints_v4: usize,
    pub endpoints_v6: usize,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct ServiceIndex {
    node: NodeLocal,
    services: BTreeMap<Arc<ServiceName>, Box<Entry>>,
    /// Whose they are, by namespace and name.
    slices: HashMap<Box<str>, HashMap<Arc<str>, Arc<ServiceName>>>,
    claims: Claims,
    health_checked: BTreeSet<Arc<ServiceName>>,
    changed: BTreeMap<Arc<ServiceName>, Change>,
    /// Those whose rivals changed since problems were last taken.
    contested: BTreeSet<Arc<ServiceName>>,
    ledger: Ledger,
    counts: Counts,
}

/// What is known by a Service's name: the Service, slices, or both.
#[derive(Debug, Default)]
struct Entry {
    info: Option<ServiceInfo>,
    /// In order of names.
    slices: Vec<(Arc<str>, SliceInfo)>,
}

impl Entry {
    fn position(&self, name: &str) -> Result<usize, usize> {
        self.slices.binary_search_by(|(one, _)| (**one).cmp(name))
    }

    fn slices(&self, family: Family) -> impl Iterator<Item = &SliceInfo> {
        self.slices
            .iter()
            .map(|(_, slice)| slice)
            .filter(move |slice| slice.family == family)
    }

    fn proxied(&self) -> Option<&ServiceInfo> {
        self.info.as_ref().filter(|info| info.proxied)
    }
}

impl ServiceIndex {
    #[must_use]
    pub fn new(node: NodeLocal) -> Self {
        Self {
            node,
            services: BTreeMap::new(),
            slices: HashMap::new(),
            claims: Claims::default(),
            health_checked: BTreeSet::new(),
            changed: BTreeMap::new(),
            contested: BTreeSet::new(),
            ledger: Ledger::default(),
            counts: Counts::default(),
        }
    }

    /// The Services whose ports or endpoints may be different from when this was last
    /// asked. Those that are gone have no [`ServiceIndex::ports`].
    pub fn take_changed(&mut self) -> BTreeMap<Arc<ServiceName>, Change> {
        std::mem::take(&mut self.changed)
    }

    /// How many Services [`ServiceIndex::take_changed`] would name.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.changed.len()
    }

    /// What is wrong with objects and was not when this was last asked.
    pub fn take_problems(&mut self) -> Vec<Problem> {
        for name in std::mem::take(&mut self.contested) {
            let faults = self.lost(&name);
            self.ledger.set(&name, Origin::Rivals, faults);
        }
        let services = &self.services;
        self.ledger.take(|name| {
            let info = services.get(name)?.proxied()?;
            Some(info.uid.as_deref())
        })
    }

    /// What one family's rules are made of. Empty if there is no such Service, or not
    /// for this proxy, or not of this family.
    #[must_use]
    pub fn ports(&self, name: &ServiceName, family: Family) -> Vec<(ServicePort, Selected)> {
        let Some(entry) = self.services.get(name) else {
            return Vec::new();
        };
        let Some(info) = entry.proxied() else {
            return Vec::new();
        };
        let Some(cluster_ip) = info.cluster_ip(family) else {
            return Vec::new();
        };
        let zone = self.node.zone.as_deref();
        let with_endpoints = |port: &PortInfo| {
            let service_port = self.service_port(info, port, family, cluster_ip)?;
            let targets = targets(entry.slices(family), &port.name, port.protocol);
            let selected = select(&service_port, &targets, zone);
            Some((service_port, selected))
        };
        info.ports.iter().filter_map(with_endpoints).collect()
    }

    /// Endpoints of one port that answer the clients they have, whoever gets new ones:
    /// also those that are ending, and those of other zones.
    #[must_use]
    pub fn answering(&self, name: &PortName, family: Family) -> Vec<SocketAddr> {
        let Some(entry) = self.services.get(&*name.service) else {
            return Vec::new();
        };
        let targets = targets(entry.slices(family), &name.port, name.protocol);
        let serving = targets.into_iter().filter(|(_, one)| one.serving);
        serving.map(|(address, _)| address).collect()
    }

    /// Everything of one family that clients can send to and that this Service has.
    pub fn destinations(
        &self,
        name: &ServiceName,
        family: Family,
    ) -> impl Iterator<Item = Destination> {
        let entry = self.services.get(name);
        let info = entry.and_then(|entry| entry.info.as_ref());
        info.into_iter().flat_map(move |info| {
            info.destinations(family)
                .map(|(_, _, destination)| destination)
                .filter(move |destination| self.owns(&info.name, family, *destination))
        })
    }

    /// The Services that this proxy serves, in order.
    pub fn names(&self) -> impl Iterator<Item = &Arc<ServiceName>> {
        self.infos().filter(|one| one.proxied).map(|one| &one.name)
    }

    /// One Service with a cluster IP, whoever serves it.
    #[must_use]
    pub fn service(&self, name: &ServiceName) -> Option<&ServiceInfo> {
        self.services.get(name)?.info.as_ref()
    }

    /// All Services with a cluster IP in one namespace, whoever serves them, in order.
    pub fn services_in(&self, namespace: &str) -> impl Iterator<Item = &ServiceInfo> {
        let first = ServiceName::new(namespace, "");
        self.services
            .range::<ServiceName, _>(&first..)
            .take_while(move |(name, _)| name.namespace == first.namespace)
            .filter_map(|(_, entry)| entry.info.as_ref())
    }

    /// What the health servers of one family tell. Costs what there are of them.
    #[must_use]
    pub fn health_checks(&self, family: Family) -> BTreeMap<Arc<ServiceName>, HealthCheck> {
        let check = |name: &Arc<ServiceName>| {
            let entry = self.services.get(name)?;
            let info = entry.proxied()?;
            info.cluster_ip(family)?;
            let endpoints = entry
                .slices(family)
                .filter(|slice| !slice.ports.is_empty())
                .flat_map(|slice| &slice.endpoints);
            let local: BTreeSet<IpAddr> = endpoints
                .filter(|endpoint| endpoint.local && endpoint.ready)
                .map(|endpoint| endpoint.address)
                .collect();
            let check = HealthCheck {
                port: info.health_check_node_port()?,
                local_endpoints: local.len(),
            };
            Some((Arc::clone(name), check))
        };
        self.health_checked.iter().filter_map(check).collect()
    }

    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    fn infos(&self) -> impl Iterator<Item = &ServiceInfo> {
        let entries = self.services.values();
        entries.filter_map(|entry| entry.info.as_ref())
    }

    fn owns(&self, name: &ServiceName, family: Family, destination: Destination) -> bool {
        let owner = self.claims.owner(Claim::new(family, destination));
        owner.is_some_and(|owner| **owner == *name)
    }

    /// None if others have all of it.
    fn service_port(
        &self,
        info: &ServiceInfo,
        port: &PortInfo,
        family: Family,
        cluster_ip: IpAddr,
    ) -> Option<ServicePort> {
        let owns = |destination| self.owns(&info.name, family, destination);
        let owned = |address: &IpAddr| owns(port.at(*address));
        let service_port = ServicePort {
            name: PortName {
                service: Arc::clone(&info.name),
                port: Arc::clone(&port.name),
                protocol: port.protocol,
            },
            cluster_ip: Some(cluster_ip).filter(owned),
            port: port.port.get(),
            node_port: port
                .node_port
                .filter(|_| port.node_port_destination().is_some_and(owns)),
            external_ips: info.external_ips(family).filter(owned).collect(),
            load_balancer_ips: info.load_balancer_ips(family).filter(owned).collect(),
            source_ranges: info.source_ranges(family).collect(),
            affinity: info
                .affinity
                .map(|seconds| Duration::from_secs(seconds.get().into())),
            internal_local: info.internal_local,
            external_local: info.external_local,
        };
        let nothing = service_port.cluster_ip.is_none()
            && service_port.node_port.is_none()
            && service_port.external_ips.is_empty()
            && service_port.load_balancer_ips.is_empty();
        (!nothing).then_some(service_port)
    }

    /// What a Service cannot have because others do.
    fn lost(&self, name: &ServiceName) -> Vec<Fault> {
        let mut faults = Vec::new();
        let info = self.service(name);
        for family in Family::ALL {
            let wanted = info.into_iter().flat_map(|info| info.destinations(family));
            for (entrance, port, destination) in wanted {
                let owner = self.claims.owner(Claim::new(family, destination));
                let Some(owner) = owner.filter(|owner| ***owner != *name) else {
                    continue;
                };
                let what = match destination {
                    Destination::Address { address, .. } => address.to_string(),
                    Destination::NodePort { port, .. } => {
                        format!("node port {port} ({})", family.as_str())
                    }
                };
                let protocol = port.protocol.as_str();
                let message = format!("{protocol} {what} is already that of Service {owner}");
                faults.push(Fault::new(entrance.field(), message));
            }
        }
        faults
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
