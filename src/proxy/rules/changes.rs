//! What differs between the rules and what the kernel was last given.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::dispatch;
use super::names::{ChainName, Fixed, Role};
use super::rule::Rule;
use super::service::{Context, Entry};
use crate::proxy::model::{Protocol, ServiceName, Table};

/// How a chain that belongs to a Service differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The kernel does not have it.
    Created,
    /// The kernel has it with other rules.
    Rewritten,
    /// The kernel still has it.
    Removed,
}

/// Everything that has to be sent again.
#[derive(Debug, Default)]
pub struct Changes {
    chains: BTreeMap<ChainName, Change>,
    /// The Services that those chains belong to, or belonged.
    pub services: BTreeSet<Arc<ServiceName>>,
    /// Where nat KUBE-SERVICES differs, as [`super::dispatch::slot`].
    pub slots: BTreeSet<u32>,
    /// Where nat KUBE-NODEPORTS differs.
    pub node_ports: BTreeSet<(Protocol, u16)>,
    pub fixed: BTreeSet<(Table, Fixed)>,
    /// Parts of the dispatching chains that differ as a whole.
    pub parts: BTreeSet<ChainName>,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        let Self {
            chains,
            services: _,
            slots,
            node_ports,
            fixed,
            parts,
        } = self;
        chains.is_empty()
            && slots.is_empty()
            && node_ports.is_empty()
            && fixed.is_empty()
            && parts.is_empty()
    }

    /// Notes how one chain differs from what was there just before.
    pub fn note(&mut self, chain: ChainName, change: Change) {
        let before = self.chains.remove(&chain);
        let together = match (before, change) {
            (Some(Change::Created), Change::Removed) => return,
            (Some(Change::Created), Change::Created | Change::Rewritten) => Change::Created,
            (Some(Change::Removed), Change::Created) => Change::Rewritten,
            (Some(Change::Rewritten | Change::Removed) | None, change) => change,
        };
        self.chains.insert(chain, together);
    }

    /// Whether a chain has to be written.
    pub fn writes(&self, chain: ChainName) -> bool {
        matches!(
            self.chains.get(&chain),
            Some(Change::Created | Change::Rewritten)
        )
    }

    /// Chains of Services that have to go.
    pub fn removed(&self) -> impl Iterator<Item = ChainName> {
        let removed = |change: &Change| *change == Change::Removed;
        let chains = self.chains.iter();
        chains
            .filter(move |(_, change)| removed(change))
            .map(|(name, _)| *name)
    }

    /// Notes how the rules of one Service differ from those it had.
    pub fn compare(&mut self, service: &Arc<ServiceName>, old: &Built<'_>, new: &Built<'_>) {
        for (chain, change) in differing(&old.chains, &new.chains) {
            self.note(chain, change);
            self.services.insert(Arc::clone(service));
        }
        let slots = differing(&old.addresses, &new.addresses);
        self.slots.extend(slots.map(|(slot, _)| slot));
        let ports = differing(&old.node_ports, &new.node_ports);
        self.node_ports.extend(ports.map(|(port, _)| port));
        let filter = differing(&old.filter, &new.filter);
        self.fixed
            .extend(filter.map(|(chain, _)| (Table::Filter, chain)));
    }
}

fn differing<'a, K: Ord + Copy, V: PartialEq>(
    old: &'a BTreeMap<K, V>,
    new: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (K, Change)> + 'a {
    let removed = old.keys().filter(|key| !new.contains_key(key));
    let written = new.iter().filter_map(|(key, value)| match old.get(key) {
        None => Some((*key, Change::Created)),
        Some(before) => (before != value).then_some((*key, Change::Rewritten)),
    });
    removed.map(|key| (*key, Change::Removed)).chain(written)
}

/// All that one Service has rules in.
#[derive(Debug, Default)]
pub struct Built<'a> {
    /// Its own chains.
    pub chains: BTreeMap<ChainName, Vec<Rule<'a>>>,
    /// Its rules in nat KUBE-SERVICES, by slot.
    pub addresses: BTreeMap<u32, Vec<Rule<'a>>>,
    /// Its rules in nat KUBE-NODEPORTS.
    pub node_ports: BTreeMap<(Protocol, u16), Vec<Rule<'a>>>,
    /// Its rules in fixed chains of the table filter.
    pub filter: BTreeMap<Fixed, Vec<Rule<'a>>>,
}

impl<'a> Built<'a> {
    pub fn of(entries: &'a [Entry], context: Context<'a>) -> Self {
        let mut built = Self::default();
        for entry in entries {
            for chain in entry.chains(&Role::ALL, context) {
                built.chains.insert(chain.name, chain.rules);
            }
            for (address, rule) in entry.addresses() {
                let slot = dispatch::slot(address);
                built.addresses.entry(slot).or_default().push(rule);
            }
            if let Some((port, rule)) = entry.node_port() {
                let at = (entry.protocol(), port);
                built.node_ports.entry(at).or_default().push(rule);
            }
            for chain in FILTER_CHAINS {
                let rules = entry.filter_rules(chain);
                if !rules.is_empty() {
                    built.filter.entry(chain).or_default().extend(rules);
                }
            }
        }
        built
    }
}

/// The chains of the table filter that Services add rules to.
pub const FILTER_CHAINS: [Fixed; 3] = [
    Fixed::Services,
    Fixed::ExternalServices,
    Fixed::ProxyFirewall,
];
