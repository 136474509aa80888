//! What clients see of Services, as a table: for tests.
//!
//! In: nothing. Out: [`all`] scenarios, each with its Services and EndpointSlices, the
//! rules that come of them, and attempts to connect with what becomes of each. The same
//! table is held against a kernel in memory that reads the rules' text, and against a
//! real one, with real connections between network namespaces (`tests/proxy/hosts`).
//! Everything is there in both families, unless a scenario says otherwise.

mod objects;
mod table;
#[cfg(test)]
mod tests;
pub mod world;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

pub use self::table::all;
use self::world::{Address, NODE, Party, To, ZONE, cluster_cidr};
use super::index::{NodeLocal, ServiceIndex};
use super::model::{Family, Protocol};
use super::problem::Problem;
use super::rules::{LocalDetector, RuleSet, RuleSettings};

/// A cluster, and what becomes of those who connect.
#[derive(Debug, Clone)]
pub struct Scenario {
    pub name: &'static str,
    settings: fn(Family) -> RuleSettings,
    services: Vec<Service>,
    slices: Vec<EndpointSlice>,
    endpoints: BTreeSet<(Party, Protocol, u16)>,
    pub attempts: Vec<Attempt>,
}

/// Somebody connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    pub from: Party,
    pub to: To,
    pub outcome: Outcome,
    /// `None`: in both.
    pub only: Option<Family>,
}

/// What becomes of those who connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Each of these endpoints answers some of them, and nobody else.
    Reaches {
        endpoints: Vec<(Party, Source)>,
        port: u16,
        choice: Choice,
    },
    /// Their packets go to where they were sent.
    Untouched,
    /// They are told at once that nobody is there.
    Refused,
    /// They hear nothing.
    Dropped,
}

/// Whom an endpoint sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Who has connected.
    Kept,
    /// The node.
    Masqueraded,
}

/// How an endpoint is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    ByConnection,
    /// Whoever connects again stays where he was.
    ByClient,
}

/// The port that endpoints listen on, if nothing else is said.
const TARGET_PORT: u16 = 8080;

/// These endpoints answer, and see who has connected.
fn reaches(endpoints: &[Party]) -> Outcome {
    Outcome::Reaches {
        endpoints: with(endpoints, Source::Kept),
        port: TARGET_PORT,
        choice: Choice::ByConnection,
    }
}

/// These endpoints answer, and see the node.
fn masquerades(endpoints: &[Party]) -> Outcome {
    reaches(&[]).or_masquerades(endpoints)
}

fn with(endpoints: &[Party], source: Source) -> Vec<(Party, Source)> {
    endpoints.iter().map(|one| (*one, source)).collect()
}

impl Outcome {
    /// These endpoints answer too, and see the node.
    fn or_masquerades(mut self, others: &[Party]) -> Self {
        if let Self::Reaches { endpoints, .. } = &mut self {
            endpoints.extend(with(others, Source::Masqueraded));
        }
        self
    }

    fn at_port(mut self, number: u16) -> Self {
        if let Self::Reaches { port, .. } = &mut self {
            *port = number;
        }
        self
    }

    fn and_stays(mut self) -> Self {
        if let Self::Reaches { choice, .. } = &mut self {
            *choice = Choice::ByClient;
        }
        self
    }
}

impl Attempt {
    /// The address it is made from.
    #[must_use]
    pub fn source(&self, family: Family) -> IpAddr {
        match self.to.address {
            Address::Localhost => Address::Localhost.ip(family),
            _ => self.from.address(family),
        }
    }

    #[must_use]
    pub fn is_made_in(&self, family: Family) -> bool {
        self.only.is_none_or(|only| only == family)
    }
}

impl Scenario {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            settings: usual,
            services: Vec::new(),
            slices: Vec::new(),
            endpoints: BTreeSet::new(),
            attempts: Vec::new(),
        }
    }

    fn settings(mut self, settings: fn(Family) -> RuleSettings) -> Self {
        self.settings = settings;
        self
    }

    fn service(mut self, service: &objects::Web) -> Self {
        self.services.push(service.object());
        self.slices.extend(service.slices());
        self.endpoints.extend(service.sockets());
        self
    }

    fn attempts(
        mut self,
        attempts: impl IntoIterator<Item = (&'static [Party], To, Outcome)>,
    ) -> Self {
        self.add(None, attempts);
        self
    }

    fn attempts_in(
        mut self,
        family: Family,
        attempts: impl IntoIterator<Item = (&'static [Party], To, Outcome)>,
    ) -> Self {
        self.add(Some(family), attempts);
        self
    }

    fn add(
        &mut self,
        only: Option<Family>,
        attempts: impl IntoIterator<Item = (&'static [Party], To, Outcome)>,
    ) {
        for (parties, to, outcome) in attempts {
            let by = |from: &Party| Attempt {
                from: *from,
                to,
                outcome: outcome.clone(),
                only,
            };
            self.attempts.extend(parties.iter().map(by));
        }
    }

    /// The rules, and what is wrong with the objects. `adapt` makes the settings fit the
    /// machine.
    #[must_use]
    pub fn rules(
        &self,
        family: Family,
        adapt: impl FnOnce(&mut RuleSettings),
    ) -> (RuleSet, Vec<Problem>) {
        let mut index = ServiceIndex::new(NodeLocal {
            name: NODE.into(),
            zone: Some(ZONE.into()),
        });
        index.reset_services(&self.services);
        index.reset_slices(&self.slices);
        let mut settings = (self.settings)(family);
        adapt(&mut settings);
        let mut rules = RuleSet::new(family, settings);
        for name in index.take_changed().keys() {
            rules.set(name, &index.ports(name, family));
        }
        (rules, index.take_problems())
    }

    /// Everybody who can answer in this family: all endpoints, and who gets what no rule
    /// touches.
    #[must_use]
    pub fn servers(&self, family: Family) -> BTreeSet<(world::Host, Protocol, SocketAddr)> {
        let endpoints = self.endpoints.iter().map(|(party, protocol, port)| {
            let address = SocketAddr::new(party.address(family), *port);
            (party.host(), *protocol, address)
        });
        let attempts = self.attempts.iter().filter(|one| one.is_made_in(family));
        let untouched = attempts.map(|attempt| {
            let to = attempt.to;
            (to.address.host(), to.protocol, to.socket(family))
        });
        endpoints.chain(untouched).collect()
    }
}

/// The cluster's CIDR tells what is local.
fn usual(family: Family) -> RuleSettings {
    RuleSettings {
        local_detector: Some(LocalDetector::Cidr(cluster_cidr(family))),
        node_ips: vec![Party::Node.address(family)],
        localhost_node_ports: family == Family::V4,
        ..RuleSettings::default()
    }
}
