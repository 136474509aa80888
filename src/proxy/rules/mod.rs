//! What the Services' rules are, and which of them the kernel does not have yet.
//!
//! In: per Service its ports with the endpoints chosen for them, and the ports of health
//! checks. Out: the text of what differs ([`RuleSet::partial`]), of everything
//! ([`RuleSet::full`]) or of what takes it all away ([`RuleSet::cleanup`]). Chains, rules
//! and their comments are those of kube-proxy's iptables mode, except that long
//! dispatching chains are cut into parts (see [`dispatch`]), and that only chains whose
//! rules differ are written.
//!
//! ```text
//!  set ──► Entry (kept: what rules are made of)
//!   │        └─ Built (all rules of one Service, old and new) ──► Changes
//!   └─ Index (which Services have rules in which part)               │
//!                                                 script ◄───────────┘
//!                                                   └─► render::TableText
//! ```
//!
//! The caller says what became of each text: [`RuleSet::sent`] or [`RuleSet::failed`].
//! After a failure, which may have left a part of the text in force, everything is
//! sent.

mod changes;
pub mod dispatch;
pub mod fixed;
pub mod names;
pub mod rule;
mod script;
mod service;
pub mod settings;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::sync::Arc;

use self::changes::{Built, Change, Changes};
use self::dispatch::{Index, Layout};
use self::fixed::{JUMPS, OwnJump};
use self::names::{CANARY, ChainName, Fixed, Role};
use self::service::{Context, EndpointComments, Entry};
pub use self::settings::{Backend, LocalDetector, NodePortAddresses, RuleSettings};
use super::model::{ChainId, Family, Found, Protocol, Selected, ServiceName, ServicePort, Table};

/// More endpoints than this make a cluster large.
const LARGE: usize = 1000;
/// With fewer than this it is no longer large.
const NO_LONGER_LARGE: usize = 800;

/// All rules of one family.
#[derive(Debug)]
pub struct RuleSet {
    family: Family,
    settings: RuleSettings,
    services: BTreeMap<Arc<ServiceName>, Box<[Entry]>>,
    health_ports: BTreeMap<Arc<ServiceName>, NonZeroU16>,
    index: Index,
    /// Which Services have rules in which chain of the table filter.
    filtered: BTreeSet<(Fixed, Arc<ServiceName>)>,
    totals: Totals,
    /// How the text was written that the kernel was last given.
    written: Written,
    changes: Changes,
    /// What the kernel has is not known, or cannot be brought up to date in part.
    wants_full: bool,
    /// A text is out whose outcome is not known yet.
    sending: bool,
}

/// What a text's writing depends on besides the rules.
#[derive(Debug, Default)]
struct Written {
    layout: Layout,
    comments: EndpointComments,
    node_port_parts: BTreeSet<(Protocol, u16)>,
}

/// Sums over all Services.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Totals {
    /// In chains of Services.
    chain_rules: usize,
    /// In nat KUBE-SERVICES and its parts.
    addresses: usize,
    /// In nat KUBE-NODEPORTS and its parts.
    node_ports: usize,
    filter: usize,
    endpoints: usize,
    lacking: NoLocalEndpoints,
}

/// Ports of Services whose traffic policy is Local and that have endpoints, but none
/// on this node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NoLocalEndpoints {
    pub internal: usize,
    pub external: usize,
}

impl Totals {
    fn of(entries: &[Entry], built: &Built<'_>) -> Self {
        fn count<K, V>(lists: &BTreeMap<K, Vec<V>>) -> usize {
            lists.values().map(Vec::len).sum()
        }
        let having = |lacks: fn(&Entry) -> bool| entries.iter().filter(|e| lacks(e)).count();
        Self {
            chain_rules: count(&built.chains),
            addresses: count(&built.addresses),
            node_ports: count(&built.node_ports),
            filter: count(&built.filter),
            endpoints: entries.iter().map(|entry| entry.endpoints().count()).sum(),
            lacking: NoLocalEndpoints {
                internal: having(Entry::lacks_internal_endpoints),
                external: having(Entry::lacks_external_endpoints),
            },
        }
    }

    fn replace(&mut self, old: Self, new: Self) {
        let change = |total: &mut usize, old: usize, new: usize| *total = *total + new - old;
        change(&mut self.chain_rules, old.chain_rules, new.chain_rules);
        change(&mut self.addresses, old.addresses, new.addresses);
        change(&mut self.node_ports, old.node_ports, new.node_ports);
        change(&mut self.filter, old.filter, new.filter);
        change(&mut self.endpoints, old.endpoints, new.endpoints);
        let (old, new) = (old.lacking, new.lacking);
        change(&mut self.lacking.internal, old.internal, new.internal);
        change(&mut self.lacking.external, old.external, new.external);
    }
}

impl RuleSet {
    /// No Services yet, and nothing known of the kernel's rules.
    #[must_use]
    pub fn new(family: Family, settings: RuleSettings) -> Self {
        Self {
            family,
            settings,
            services: BTreeMap::new(),
            health_ports: BTreeMap::new(),
            index: Index::default(),
            filtered: BTreeSet::new(),
            totals: Totals::default(),
            written: Written::default(),
            changes: Changes::default(),
            wants_full: true,
            sending: false,
        }
    }

    /// Replaces one Service's rules. Without ports it has none. Costs what the Service
    /// has, however many there are.
    ///
    /// A port that is there twice counts once: its chains have one name.
    pub fn set(&mut self, service: &Arc<ServiceName>, ports: &[(ServicePort, Selected)]) {
        let mut entries: Vec<Entry> = Vec::with_capacity(ports.len());
        for (port, selected) in ports {
            if entries.iter().all(|entry| *entry.name() != port.name) {
                entries.push(Entry::new(port, selected));
            }
        }
        let (key, old) = match self.services.remove_entry(service) {
            Some((key, old)) => (key, old),
            None => (Arc::clone(service), Box::default()),
        };
        if *old != *entries {
            self.replace(&key, &old, &entries);
        }
        if !entries.is_empty() {
            self.services.insert(key, entries.into());
        }
        if large(self.written.comments, self.totals.endpoints) != self.written.comments {
            // Nearly every chain changes.
            self.want_full();
        }
    }

    fn replace(&mut self, service: &Arc<ServiceName>, old: &[Entry], new: &[Entry]) {
        let context = Context {
            settings: &self.settings,
            comments: self.written.comments,
        };
        let built = [old, new].map(|entries| Built::of(entries, context));
        let [before, after] = &built;
        self.totals
            .replace(Totals::of(old, before), Totals::of(new, after));
        if !self.wants_full {
            self.changes.compare(service, before, after);
        }
        for slot in before.addresses.keys() {
            self.index.remove_address(*slot, service);
        }
        for (protocol, port) in before.node_ports.keys() {
            self.index.remove_node_port(*protocol, *port, service);
        }
        for chain in before.filter.keys() {
            self.filtered.remove(&(*chain, Arc::clone(service)));
        }
        for slot in after.addresses.keys() {
            self.index.add_address(*slot, service);
        }
        for (protocol, port) in after.node_ports.keys() {
            self.index.add_node_port(*protocol, *port, service);
        }
        for chain in after.filter.keys() {
            self.filtered.insert((*chain, Arc::clone(service)));
        }
    }

    /// Replaces the ports on which this node answers load balancers' health checks.
    pub fn set_health_ports(
        &mut self,
        ports: impl IntoIterator<Item = (Arc<ServiceName>, NonZeroU16)>,
    ) {
        let ports = ports.into_iter().collect();
        if self.health_ports != ports {
            self.health_ports = ports;
            self.note_fixed(Table::Filter, Fixed::NodePorts);
        }
    }

    /// Replaces the settings. If they differ, everything is sent again.
    pub fn set_settings(&mut self, settings: RuleSettings) {
        if self.settings == settings {
            return;
        }
        self.settings = settings;
        // Not the sums over chains: whether there is a local detector decides about
        // rules in them.
        let context = Context {
            settings: &self.settings,
            comments: self.written.comments,
        };
        let mut totals = Totals::default();
        for entries in self.services.values() {
            let built = Built::of(entries, context);
            totals.replace(Totals::default(), Totals::of(entries, &built));
        }
        self.totals = totals;
        self.want_full();
    }

    /// Notes that somebody else changed, emptied or removed these chains. Those that are
    /// ours are sent again; if others are among them that lead to ours, everything is.
    pub fn touched(&mut self, chains: &[ChainId]) {
        let mut of_services = BTreeSet::new();
        for ChainId { table, name } in chains {
            let leads_to_ours = |jump: &OwnJump| jump.table == *table && *jump.from == **name;
            if let Some(fixed) = fixed::by_name(*table, name) {
                if fixed != Fixed::Firewall || self.has_firewall_rule() {
                    self.note_fixed(*table, fixed);
                }
            } else if **name == *CANARY || JUMPS.iter().any(leads_to_ours) {
                self.want_full();
            } else if *table == Table::Nat && names::is_of_services(name) {
                of_services.insert(&**name);
            }
        }
        if !self.wants_full && !of_services.is_empty() {
            self.note_touched(&of_services);
        }
    }

    fn note_touched(&mut self, touched: &BTreeSet<&str>) {
        let is_touched = |name: &ChainName| touched.contains(name.to_string().as_str());
        let parts = self.written.parts().filter(is_touched);
        self.changes.parts.extend(parts);
        // Nothing leads from an endpoint's chain to its Service: all are looked at. It
        // takes tens of milliseconds where Services are many, and is rare.
        let context = Context {
            settings: &self.settings,
            comments: self.written.comments,
        };
        for (service, entries) in &self.services {
            let chains = entries
                .iter()
                .flat_map(|entry| entry.chains(&Role::ALL, context));
            for chain in chains.filter(|chain| is_touched(&chain.name)) {
                self.changes.note(chain.name, Change::Rewritten);
                self.changes.services.insert(Arc::clone(service));
            }
        }
    }

    fn note_fixed(&mut self, table: Table, chain: Fixed) {
        if !self.wants_full {
            self.changes.fixed.insert((table, chain));
        }
    }

    fn has_firewall_rule(&self) -> bool {
        !fixed::firewall(self.family, &self.settings).is_empty()
    }

    /// Whether the kernel has everything, as far as is known.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        !self.wants_full && self.changes.is_empty()
    }

    /// Whether the next text must be a full one.
    #[must_use]
    pub const fn wants_full(&self) -> bool {
        self.wants_full
    }

    /// Makes the next text a full one.
    pub fn want_full(&mut self) {
        self.wants_full = true;
        self.changes = Changes::default();
    }

    /// The last text is in force.
    pub const fn sent(&mut self) {
        self.sending = false;
    }

    /// The last text is not in force, or only in part.
    pub fn failed(&mut self) {
        self.sending = false;
        self.want_full();
    }

    /// The jumps from chains that are not ours, in the order in which each goes to the
    /// front of its chain.
    #[must_use]
    pub const fn jumps() -> &'static [OwnJump] {
        &JUMPS
    }

    /// Whether these are the tables that this set has written, as far as counts and jumps
    /// tell. Rules that were replaced one by one are not seen; others' writes are heard of
    /// in another way, and this is for when it is not known whether there were any.
    #[must_use]
    pub fn matches(&self, found: &Found) -> bool {
        let count = |table| found.rules.get(&table).copied().unwrap_or_default();
        let counts = [Table::Filter, Table::Nat]
            .into_iter()
            .all(|table| count(table) == self.rules(table));
        let leads = |jump: &OwnJump| found.jumps.iter().any(|other| script::is_same(jump, other));
        counts && JUMPS.iter().all(leads)
    }

    /// The Service for which this line of a text was written, if it was for one. Costs
    /// what all Services have.
    #[must_use]
    pub fn author(&self, line: &str) -> Option<&Arc<ServiceName>> {
        let words = line.split([' ', ':']);
        let named: BTreeSet<&str> = words.filter(|word| names::is_of_services(word)).collect();
        let context = Context {
            settings: &self.settings,
            comments: self.written.comments,
        };
        let is_theirs = |entries: &[Entry]| {
            let mut chains = entries
                .iter()
                .flat_map(|entry| entry.chains(&Role::ALL, context));
            chains.any(|chain| named.contains(chain.name.to_string().as_str()))
        };
        let mut services = self.services.iter();
        services
            .find(|(_, entries)| is_theirs(entries))
            .map(|(name, _)| name)
    }

    /// Whether there are so many endpoints that rules go without comments.
    #[must_use]
    pub const fn is_large(&self) -> bool {
        matches!(self.written.comments, EndpointComments::LeftOut)
    }

    /// How many rules there are in a table.
    #[must_use]
    pub fn rules(&self, table: Table) -> usize {
        match table {
            Table::Filter => {
                let own = fixed::forward(&self.settings).len();
                let firewall = fixed::firewall(self.family, &self.settings).len();
                own + firewall + self.totals.filter + self.health_ports.len()
            }
            Table::Nat => {
                let fixed = fixed::postrouting(&self.settings).len()
                    + fixed::mark_masq(&self.settings).len()
                    + fixed::to_node_ports(self.family, &self.settings).len();
                let jumps = self.written.layout.jumps() + self.written.node_port_parts.len();
                let Totals {
                    chain_rules,
                    addresses,
                    node_ports,
                    ..
                } = self.totals;
                fixed + jumps + chain_rules + addresses + node_ports
            }
            Table::Mangle => 0,
        }
    }

    /// Ports of Services that drop traffic for want of an endpoint on this node.
    #[must_use]
    pub const fn no_local_endpoints(&self) -> NoLocalEndpoints {
        self.totals.lacking
    }
}

impl Written {
    /// The parts into which dispatching chains are cut.
    fn parts(&self) -> impl Iterator<Item = ChainName> {
        let ports = self.node_port_parts.iter();
        self.layout
            .branches()
            .chain(self.layout.leaves())
            .map(ChainName::Dispatch)
            .chain(ports.map(|(protocol, first)| ChainName::NodePorts(*protocol, *first)))
    }
}

/// Whether endpoints' rules carry comments, for so many endpoints, given whether they
/// did before. Counted are the endpoints that rules exist for, and there is room between
/// the two limits, so that one endpoint that comes and goes does not rewrite everything.
const fn large(before: EndpointComments, endpoints: usize) -> EndpointComments {
    match before {
        EndpointComments::Written if endpoints > LARGE => EndpointComments::LeftOut,
        EndpointComments::LeftOut if endpoints < NO_LONGER_LARGE => EndpointComments::Written,
        EndpointComments::Written | EndpointComments::LeftOut => before,
    }
}
