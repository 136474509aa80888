//! What nf_tables' events say, as far as it concerns our chains.
//!
//! In: datagrams of netlink. Out: a [`Disturbance`] per family and committed change.
//!
//! Events are walked attribute by attribute down to the names, and no objects are made
//! of them: a rule can hold any expression, and only its chain and the one it jumps to
//! are of interest here. Numbers are those of `linux/netfilter/nf_tables.h`.

use std::collections::{BTreeMap, BTreeSet};

use netlink_packet_core::{NetlinkBuffer, NlasIterator};

use super::{Chains, Disturbance};
use crate::proxy::apply::names;
use crate::proxy::model::{ChainId, Family, Table};

/// Length of `struct nfgenmsg`, whose first byte is the family.
const FAMILY_HEADER: usize = 4;
/// Length of the header of an attribute.
const ATTRIBUTE_HEADER: usize = 4;

/// `NFTA_TABLE_NAME`, `NFTA_CHAIN_TABLE`, `NFTA_RULE_TABLE`.
const TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const LIST_ELEMENT: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const IMMEDIATE_DATA: u16 = 2;
const DATA_VERDICT: u16 = 2;
const VERDICT_CHAIN: u16 = 2;
const GEN_PROCESS_ID: u16 = 2;
const GEN_PROCESS_NAME: u16 = 3;

/// Where in a rule the chain is that it jumps to.
const JUMP: &[u16] = &[
    RULE_EXPRESSIONS,
    LIST_ELEMENT,
    EXPRESSION_DATA,
    IMMEDIATE_DATA,
    DATA_VERDICT,
    VERDICT_CHAIN,
];

/// Puts events together until the change they belong to is complete.
#[derive(Debug)]
pub(super) struct Collector {
    families: Vec<Family>,
    pending: BTreeMap<Family, Chains>,
    /// Where rules were put into chains of ours.
    written: BTreeSet<Family>,
}

/// One message.
#[derive(Debug)]
enum Event<'a> {
    Changed(Family, Chains),
    /// All events of a change have been sent.
    Complete {
        by: Option<&'a str>,
        pid: Option<u32>,
    },
}

impl Collector {
    /// `families`: of which events count.
    pub(super) fn new(families: &[Family]) -> Self {
        Self {
            families: families.to_vec(),
            pending: BTreeMap::new(),
            written: BTreeSet::new(),
        }
    }

    /// Takes the next datagram; returns what it completes.
    pub(super) fn take(&mut self, datagram: &[u8]) -> Vec<Disturbance> {
        let mut complete = Vec::new();
        let mut rest = datagram;
        while let Ok(message) = NetlinkBuffer::new_checked(rest) {
            match event(message.message_type(), message.payload()) {
                Some(Event::Changed(family, chains)) if self.families.contains(&family) => {
                    self.add(family, chains);
                    if is_new_rule(message.message_type()) {
                        self.written.insert(family);
                    }
                }
                Some(Event::Complete { by, pid }) => complete.extend(self.complete(by, pid)),
                Some(Event::Changed(..)) | None => {}
            }
            // Messages begin at multiples of four.
            let length = (message.length() as usize).next_multiple_of(4);
            rest = rest.get(length..).unwrap_or_default();
        }
        complete
    }

    /// Events were lost, and with them who caused them.
    pub(super) fn lost(&mut self) -> Vec<Disturbance> {
        for family in self.families.clone() {
            self.add(family, Chains::All);
        }
        self.complete(None, None)
    }

    fn add(&mut self, family: Family, chains: Chains) {
        match self.pending.get_mut(&family) {
            Some(pending) => pending.merge(chains),
            None => {
                self.pending.insert(family, chains);
            }
        }
    }

    fn complete(&mut self, by: Option<&str>, pid: Option<u32>) -> Vec<Disturbance> {
        let written = std::mem::take(&mut self.written);
        std::mem::take(&mut self.pending)
            .into_iter()
            .map(|(family, chains)| Disturbance {
                family,
                chains,
                by: by.map(str::to_owned),
                pid,
                writer: by.filter(|_| written.contains(&family)).map(str::to_owned),
            })
            .collect()
    }
}

fn is_new_rule(kind: u16) -> bool {
    let [_, message] = kind.to_be_bytes();
    libc::c_int::from(message) == libc::NFT_MSG_NEWRULE
}

/// What a message says, if it concerns us.
fn event(kind: u16, payload: &[u8]) -> Option<Event<'_>> {
    let [subsystem, message] = kind.to_be_bytes();
    if libc::c_int::from(subsystem) != libc::NFNL_SUBSYS_NFTABLES {
        return None;
    }
    let (header, body) = payload.split_at_checked(FAMILY_HEADER)?;
    let message = libc::c_int::from(message);
    if message == libc::NFT_MSG_NEWGEN {
        return Some(Event::Complete {
            by: text(body, GEN_PROCESS_NAME),
            pid: attribute(body, GEN_PROCESS_ID)
                .and_then(|value| value.try_into().ok())
                .map(u32::from_be_bytes),
        });
    }
    let family = match libc::c_int::from(header[0]) {
        libc::NFPROTO_IPV4 => Family::V4,
        libc::NFPROTO_IPV6 => Family::V6,
        _ => return None,
    };
    let table = table(text(body, TABLE)?)?;
    let chains = match message {
        libc::NFT_MSG_DELTABLE => Chains::All,
        libc::NFT_MSG_NEWCHAIN | libc::NFT_MSG_DELCHAIN => named(
            table,
            text(body, CHAIN_NAME).filter(|name| names::is_ours(table, name))?,
        ),
        libc::NFT_MSG_NEWRULE => named(
            table,
            text(body, RULE_CHAIN).filter(|name| names::is_ours(table, name))?,
        ),
        libc::NFT_MSG_DELRULE => {
            let chain = text(body, RULE_CHAIN)?;
            let counts = names::is_ours(table, chain) || jumps_to_ours(table, body);
            named(table, counts.then_some(chain)?)
        }
        _ => return None,
    };
    Some(Event::Changed(family, chains))
}

fn named(table: Table, chain: &str) -> Chains {
    Chains::Named(BTreeSet::from([ChainId::new(table, chain)]))
}

fn table(name: &str) -> Option<Table> {
    [Table::Filter, Table::Nat, Table::Mangle]
        .into_iter()
        .find(|table| table.as_str() == name)
}

/// Whether a rule jumps to a chain of ours.
fn jumps_to_ours(table: Table, rule: &[u8]) -> bool {
    any_below(rule, JUMP, |name| names::is_ours(table, name))
}

/// Whether some text at the end of this path of attributes is as wanted.
///
/// Other expressions use the same numbers for other things, which are not taken for an
/// immediate's by mistake: their bytes would have to be nested in the same way and end
/// in the name of a chain of ours.
fn any_below(bytes: &[u8], path: &[u16], wanted: impl Fn(&str) -> bool + Copy) -> bool {
    let Some((first, rest)) = path.split_first() else {
        return as_text(bytes).is_some_and(wanted);
    };
    attributes(bytes)
        .filter(|(kind, _)| kind == first)
        .any(|(_, value)| any_below(value, rest, wanted))
}

fn text(bytes: &[u8], kind: u16) -> Option<&str> {
    attribute(bytes, kind).and_then(as_text)
}

/// Text up to its terminating zero.
fn as_text(value: &[u8]) -> Option<&str> {
    let text = value.split(|byte| *byte == 0).next()?;
    std::str::from_utf8(text).ok()
}

fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(found, value)| (found == kind).then_some(value))
}

/// Attributes with their values, up to the first that is broken.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(|attribute| {
        let attribute = attribute.ok()?;
        let (kind, length) = (attribute.kind(), usize::from(attribute.length()));
        let value = attribute.into_inner().get(ATTRIBUTE_HEADER..length)?;
        Some((kind, value))
    })
}

#[cfg(test)]
mod tests;
