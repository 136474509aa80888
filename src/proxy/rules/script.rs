//! Which chains go into a text, and in which order: no chain comes before those that it
//! jumps to, since the text may be cut anywhere between two chains.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::changes::{Changes, FILTER_CHAINS};
use super::dispatch::{self, Layout};
use super::fixed::{self, JUMPS, named};
use super::names::{self, CANARY, ChainName, Fixed, Role};
use super::rule::Rule;
use super::service::{Context, EndpointComments, Entry};
use super::{RuleSet, Written, large};
use crate::proxy::model::{Found, Jump, Protocol, RestoreScript, ServiceName, Table};
use crate::proxy::render::TableText;

/// Roles of chains in the order in which they are written.
const PASSES: [&[Role]; 4] = [
    &[Role::Endpoint],
    &[Role::Cluster, Role::Local],
    &[Role::External],
    &[Role::Firewall],
];

/// Which chains are written.
#[derive(Debug, Clone, Copy)]
enum Wanted<'a> {
    All,
    Only(&'a Changes),
}

impl Wanted<'_> {
    fn fixed(self, table: Table, chain: Fixed) -> bool {
        match self {
            Self::All => true,
            Self::Only(changes) => changes.fixed.contains(&(table, chain)),
        }
    }

    fn part(self, chain: ChainName) -> bool {
        match self {
            Self::All => true,
            Self::Only(changes) => changes.parts.contains(&chain),
        }
    }

    fn of_service(self, chain: ChainName) -> bool {
        match self {
            Self::All => true,
            Self::Only(changes) => changes.writes(chain),
        }
    }
}

impl RuleSet {
    /// The chains that differ from what the kernel has, if any do and if that is known:
    /// nothing if a full text is wanted.
    ///
    /// If the last text's outcome was never told, it counts as failed.
    pub fn partial(&mut self) -> Option<RestoreScript> {
        if self.sending {
            self.failed();
        }
        if self.is_clean() || self.wants_full {
            return None;
        }
        let mut changes = std::mem::take(&mut self.changes);
        let gone = self.adapt(&mut changes);
        let wanted = Wanted::Only(&changes);
        let mut filter = TableText::new(Table::Filter, self.settings.backend);
        self.write_filter(wanted, &mut filter);
        let mut nat = TableText::new(Table::Nat, self.settings.backend);
        self.write_nat(wanted, &mut nat, |_| ());
        let of_services = changes.removed().map(|name| name.to_string());
        let gone: Vec<String> = gone.into_iter().chain(of_services).collect();
        remove(&mut nat, gone.iter().map(String::as_str), |_| false);
        self.sending = true;
        Some(script([filter, nat]))
    }

    /// Every chain, the jumps that are missing, and the end of chains that Services had
    /// once. What the text is does not depend on what it was before.
    pub fn full(&mut self, found: &Found) -> RestoreScript {
        self.written = self.fresh();
        self.changes = Changes::default();
        self.wants_full = false;
        self.sending = true;

        let mut filter = TableText::new(Table::Filter, self.settings.backend);
        filter.empty(CANARY);
        self.write_filter(Wanted::All, &mut filter);
        let firewall = Fixed::Firewall.as_str();
        if !self.has_firewall_rule() && !has_chain(found, Table::Filter, firewall) {
            filter.empty(firewall);
        }
        insert_jumps(&mut filter, Table::Filter, found);

        let mut stale: BTreeSet<&str> = stale_candidates(found).collect();
        let mut nat = TableText::new(Table::Nat, self.settings.backend);
        nat.empty(CANARY);
        self.write_nat(Wanted::All, &mut nat, |name| {
            stale.remove(name.to_string().as_str());
        });
        insert_jumps(&mut nat, Table::Nat, found);
        remove(&mut nat, stale.iter().copied(), |name| {
            has_jump(found, Table::Nat, name)
        });

        // Last: it is of no use but to notice that tables were emptied, and the only
        // part that fails if the kernel lacks the table.
        let mut mangle = TableText::new(Table::Mangle, self.settings.backend);
        mangle.empty(CANARY);
        script([filter, nat, mangle])
    }

    /// Removes what is ours, whoever wrote it: jumps, chains, the canary. What others
    /// jump to stays: KUBE-MARK-MASQ as it is, other chains without rules. KUBE-FIREWALL
    /// is the kubelet's too, and stays.
    ///
    /// Jumps are removed as [`RuleSet::jumps`] writes them, as often as they were found.
    #[must_use]
    pub fn cleanup(found: &Found) -> RestoreScript {
        let texts = [Table::Filter, Table::Nat, Table::Mangle].map(|table| {
            let mut text = TableText::new(table, super::Backend::NfTables);
            for jump in JUMPS.iter().filter(|jump| jump.table == table) {
                let same = |other: &&Jump| is_same(jump, other);
                for _ in found.jumps.iter().filter(same) {
                    if jump.is_ours_alone() {
                        text.delete(jump.from, &jump.rule());
                    }
                }
            }
            text.commit();
            let of_others = |name: &str| {
                let jumps = found.jumps.iter();
                let mut to_it = jumps.filter(|jump| jump.table == table && *jump.to == *name);
                to_it.any(|jump| !JUMPS.iter().any(|own| is_same(own, jump)))
            };
            let masq = Fixed::MarkMasq.as_str();
            let chains = found.chains.iter();
            let ours: BTreeSet<&str> = chains
                .filter(|chain| chain.table == table && is_ours(table, &chain.name))
                .map(|chain| &*chain.name)
                .filter(|name| *name != masq || !of_others(name))
                .collect();
            remove(&mut text, ours.iter().copied(), of_others);
            text
        });
        script(texts)
    }

    /// Fits the layout to what there is now, and turns places that differ into chains
    /// that differ. Returns the parts that are no more.
    fn adapt(&mut self, changes: &mut Changes) -> Vec<String> {
        let before: BTreeSet<String> = self.written.parts().map(|n| n.to_string()).collect();
        let old = std::mem::take(&mut self.written);
        let layout = old
            .layout
            .adapted(self.totals.addresses, self.totals.node_ports);
        self.written = self.written_as(layout, old.comments);

        if layout.same_services(old.layout) {
            for slot in &changes.slots {
                match layout.part_of(*slot) {
                    Some(part) => changes.parts.insert(ChainName::Dispatch(part)),
                    None => changes.fixed.insert((Table::Nat, Fixed::Services)),
                };
            }
        } else {
            let parts = layout.branches().chain(layout.leaves());
            changes.parts.extend(parts.map(ChainName::Dispatch));
            changes.fixed.insert((Table::Nat, Fixed::Services));
        }

        let parts = &self.written.node_port_parts;
        if *parts != old.node_port_parts {
            changes.fixed.insert((Table::Nat, Fixed::NodePorts));
            let new = parts.difference(&old.node_port_parts);
            changes
                .parts
                .extend(new.map(|(p, first)| ChainName::NodePorts(*p, *first)));
        }
        for (protocol, port) in &changes.node_ports {
            if layout.cuts_node_ports() {
                let part = (*protocol, dispatch::part_of_port(*port));
                changes.parts.insert(ChainName::NodePorts(part.0, part.1));
            } else {
                changes.fixed.insert((Table::Nat, Fixed::NodePorts));
            }
        }
        let after: BTreeSet<String> = self.written.parts().map(|n| n.to_string()).collect();
        before.difference(&after).cloned().collect()
    }

    fn fresh(&self) -> Written {
        let layout = Layout::fresh(self.totals.addresses, self.totals.node_ports);
        let comments = large(EndpointComments::Written, self.totals.endpoints);
        self.written_as(layout, comments)
    }

    fn written_as(&self, layout: Layout, comments: EndpointComments) -> Written {
        let node_port_parts = if layout.cuts_node_ports() {
            self.index.node_port_parts().into_iter().collect()
        } else {
            BTreeSet::new()
        };
        Written {
            layout,
            comments,
            node_port_parts,
        }
    }

    fn write_filter(&self, wanted: Wanted<'_>, text: &mut TableText) {
        for chain in Fixed::FILTER {
            if !wanted.fixed(Table::Filter, chain) {
                continue;
            }
            match chain {
                Fixed::Forward => text.chain(named(chain), fixed::forward(&self.settings)),
                Fixed::Firewall => {
                    if self.has_firewall_rule() {
                        let rules = fixed::firewall(self.family, &self.settings);
                        text.chain(named(chain), rules);
                    }
                }
                Fixed::NodePorts => {
                    let ports = self.health_ports.iter();
                    let rules = ports.map(|(name, port)| fixed::health_check(name, port.get()));
                    text.chain(named(chain), rules);
                }
                Fixed::Services
                | Fixed::ExternalServices
                | Fixed::ProxyFirewall
                | Fixed::Postrouting
                | Fixed::MarkMasq => text.chain(named(chain), self.filter_rules(chain)),
            }
        }
    }

    fn filter_rules(&self, chain: Fixed) -> impl Iterator<Item = Rule<'_>> {
        debug_assert!(FILTER_CHAINS.contains(&chain), "{chain:?} has no Services");
        let from = (chain, Arc::new(ServiceName::new("", "")));
        self.filtered
            .range(from..)
            .take_while(move |(at, _)| *at == chain)
            .flat_map(|(_, service)| self.entries(service))
            .flat_map(move |entry| entry.filter_rules(chain))
    }

    fn write_nat(
        &self,
        wanted: Wanted<'_>,
        text: &mut TableText,
        mut wrote: impl FnMut(ChainName),
    ) {
        let fixed = |text: &mut TableText, chain, rules: Vec<Rule<'_>>| {
            if wanted.fixed(Table::Nat, chain) {
                text.chain(named(chain), rules);
            }
        };
        fixed(text, Fixed::MarkMasq, fixed::mark_masq(&self.settings));
        fixed(text, Fixed::Postrouting, fixed::postrouting(&self.settings));
        for roles in PASSES {
            match wanted {
                Wanted::All => {
                    let all = self.services.values().flat_map(|entries| entries.iter());
                    self.write_chains(all, roles, wanted, text, &mut wrote);
                }
                Wanted::Only(changes) => {
                    let some = changes.services.iter().flat_map(|name| self.entries(name));
                    self.write_chains(some, roles, wanted, text, &mut wrote);
                }
            }
        }
        self.write_parts(wanted, text, &mut wrote);
        if wanted.fixed(Table::Nat, Fixed::Services) {
            text.chain(named(Fixed::Services), self.services_rules());
        }
    }

    fn write_chains<'a>(
        &'a self,
        entries: impl Iterator<Item = &'a Entry>,
        roles: &[Role],
        wanted: Wanted<'_>,
        text: &mut TableText,
        wrote: &mut impl FnMut(ChainName),
    ) {
        let context = Context {
            settings: &self.settings,
            comments: self.written.comments,
        };
        for chain in entries.flat_map(|entry| entry.chains(roles, context)) {
            if wanted.of_service(chain.name) {
                wrote(chain.name);
                text.chain(chain.name, chain.rules);
            }
        }
    }

    /// What nat KUBE-SERVICES leads to: nat KUBE-NODEPORTS, and the parts of both.
    fn write_parts(
        &self,
        wanted: Wanted<'_>,
        text: &mut TableText,
        wrote: &mut impl FnMut(ChainName),
    ) {
        let Written {
            layout,
            node_port_parts,
            ..
        } = &self.written;
        for (protocol, first) in node_port_parts {
            let name = ChainName::NodePorts(*protocol, *first);
            if wanted.part(name) {
                wrote(name);
                text.chain(name, self.node_port_rules(Some((*protocol, *first))));
            }
        }
        if wanted.fixed(Table::Nat, Fixed::NodePorts) {
            let name = named(Fixed::NodePorts);
            if layout.cuts_node_ports() {
                let parts = node_port_parts.iter();
                text.chain(name, parts.map(|(p, first)| dispatch::to_ports(*p, *first)));
            } else {
                text.chain(name, self.node_port_rules(None));
            }
        }
        for leaf in layout.leaves() {
            let name = ChainName::Dispatch(leaf);
            if wanted.part(name) {
                wrote(name);
                text.chain(name, self.address_rules(Some(leaf)));
            }
        }
        for branch in layout.branches() {
            let name = ChainName::Dispatch(branch);
            if wanted.part(name) {
                wrote(name);
                text.chain(name, layout.second_level(self.family, branch));
            }
        }
    }

    fn services_rules(&self) -> Vec<Rule<'_>> {
        let layout = self.written.layout;
        let mut rules = if layout.cuts_services() {
            layout.first_level(self.family)
        } else {
            self.address_rules(None).collect()
        };
        rules.extend(fixed::to_node_ports(self.family, &self.settings));
        rules
    }

    fn address_rules(&self, part: Option<names::Bucket>) -> impl Iterator<Item = Rule<'_>> {
        self.index.addresses(part).flat_map(|(slot, service)| {
            let all = self.entries(service).iter().flat_map(Entry::addresses);
            all.filter(move |(address, _)| dispatch::slot(*address) == *slot)
                .map(|(_, rule)| rule)
        })
    }

    fn node_port_rules(&self, part: Option<(Protocol, u16)>) -> impl Iterator<Item = Rule<'_>> {
        let places = self.index.node_ports(part);
        places.flat_map(|(protocol, port, service)| {
            let entries = self.entries(service).iter();
            entries
                .filter(move |entry| entry.protocol() == *protocol)
                .filter_map(Entry::node_port)
                .filter(move |(at, _)| at == port)
                .map(|(_, rule)| rule)
        })
    }

    fn entries(&self, service: &Arc<ServiceName>) -> &[Entry] {
        self.services.get(service).map_or(&[], |entries| entries)
    }
}

fn script(texts: impl IntoIterator<Item = TableText>) -> RestoreScript {
    let mut script = RestoreScript {
        text: String::new(),
        filter_rules: 0,
        nat_rules: 0,
    };
    for text in texts {
        let table = text.table();
        let (text, rules) = text.finish();
        match table {
            Table::Filter => script.filter_rules += rules,
            Table::Nat => script.nat_rules += rules,
            Table::Mangle => {}
        }
        if script.text.is_empty() {
            // Of a large text there is only one copy this way, if only one table has
            // any.
            script.text = text;
        } else {
            script.text.push_str(&text);
        }
    }
    script
}

/// Empties chains and removes those of them that nothing else jumps to.
fn remove<'a>(
    text: &mut TableText,
    chains: impl Iterator<Item = &'a str> + Clone,
    stays: impl Fn(&str) -> bool,
) {
    // They may jump to each other: all are emptied before the first one is removed.
    for name in chains.clone() {
        text.empty(name);
    }
    for name in chains.filter(|name| !stays(name)) {
        text.remove(name);
    }
}

fn insert_jumps(text: &mut TableText, table: Table, found: &Found) {
    let missing = |jump: &&fixed::OwnJump| !found.jumps.iter().any(|other| is_same(jump, other));
    let jumps = JUMPS.iter().filter(|jump| jump.table == table);
    for jump in jumps.filter(missing) {
        text.insert(jump.from, &jump.rule());
    }
}

pub(super) fn is_same(own: &fixed::OwnJump, jump: &Jump) -> bool {
    own.table == jump.table && *own.from == *jump.from && *own.to.as_str() == *jump.to
}

fn has_chain(found: &Found, table: Table, name: &str) -> bool {
    let mut chains = found.chains.iter();
    chains.any(|chain| chain.table == table && *chain.name == *name)
}

fn has_jump(found: &Found, table: Table, to: &str) -> bool {
    let mut jumps = found.jumps.iter();
    jumps.any(|jump| jump.table == table && *jump.to == *to)
}

fn stale_candidates(found: &Found) -> impl Iterator<Item = &str> {
    let chains = found.chains.iter();
    chains
        .filter(|chain| chain.table == Table::Nat && names::is_of_services(&chain.name))
        .map(|chain| &*chain.name)
}

/// Whether the clean-up removes a chain.
fn is_ours(table: Table, name: &str) -> bool {
    let fixed = fixed::by_name(table, name).is_some_and(|fixed| fixed != Fixed::Firewall);
    fixed || name == CANARY || (table == Table::Nat && names::is_of_services(name))
}
