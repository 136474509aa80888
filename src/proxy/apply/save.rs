//! What `iptables-save` prints, as far as it concerns the service proxy.
//!
//! In: the output, line by line. Out: [`Found`]. Only what is ours is kept, so a host
//! with hundreds of thousands of rules costs no more memory than our own chains. Rules
//! that make no sense to us are somebody else's and passed over; output that does not
//! end as it should is an error.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use ipnet::IpNet;

use super::names;
use crate::proxy::model::{ChainId, Destination, Family, Found, Jump, Protocol, Table};

/// Why the output says nothing about our rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SaveFault {
    /// It ended within a table.
    Incomplete,
    /// A table of this name has rules that iptables cannot show.
    Incompatible(String),
}

/// Reads the output of one `iptables-save`.
#[derive(Debug)]
pub(super) struct SaveParser {
    family: Family,
    place: Place,
    found: Found,
    incompatible: Option<String>,
}

/// The table that the last line belonged to.
#[derive(Debug, Clone, Copy)]
enum Place {
    Outside,
    In(Table),
    /// A table in which nothing can be ours.
    Elsewhere,
}

impl SaveParser {
    pub(super) fn new(family: Family) -> Self {
        Self {
            family,
            place: Place::Outside,
            found: Found::default(),
            incompatible: None,
        }
    }

    /// Takes the next line, without its end.
    pub(super) fn line(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        let line = line.trim();
        if let Some(name) = line.strip_prefix('*') {
            self.place = table_named(name).map_or(Place::Elsewhere, Place::In);
        } else if line == "COMMIT" {
            self.place = Place::Outside;
        } else if let Some(comment) = line.strip_prefix('#') {
            self.comment(comment);
        } else if let Place::In(table) = self.place {
            match line.strip_prefix(':') {
                Some(chain) => self.chain(table, chain),
                None => self.rule(table, line),
            }
        }
    }

    /// What was found, once the output has ended.
    pub(super) fn finish(self) -> Result<Found, SaveFault> {
        match (self.incompatible, self.place) {
            (Some(table), _) => Err(SaveFault::Incompatible(table)),
            (None, Place::Outside) => Ok(self.found),
            (None, Place::In(_) | Place::Elsewhere) => Err(SaveFault::Incomplete),
        }
    }

    /// `` # Table `nat' is incompatible, use 'nft' tool. ``
    fn comment(&mut self, comment: &str) {
        let named = comment.trim().strip_prefix("Table `");
        if let Some((table, rest)) = named.and_then(|text| text.split_once('\''))
            && rest.contains("is incompatible")
            && table_named(table).is_some()
        {
            self.incompatible = Some(table.to_owned());
        }
    }

    fn chain(&mut self, table: Table, declaration: &str) {
        let name = declaration.split(' ').next().unwrap_or_default();
        if names::is_ours(table, name) {
            self.found.chains.push(ChainId::new(table, name));
        }
    }

    fn rule(&mut self, table: Table, line: &str) {
        let Some(rule) = Rule::parse(line) else {
            return;
        };
        if names::is_ours(table, rule.chain) {
            *self.found.rules.entry(table).or_default() += 1;
        }
        let Some(target) = rule.target.filter(|target| names::is_ours(table, target)) else {
            return;
        };
        if !names::is_ours(table, rule.chain) {
            self.found.jumps.push(Jump {
                table,
                from: rule.chain.into(),
                to: target.into(),
            });
        }
        if names::takes_traffic(target)
            && let Some(destination) = rule.destination(self.family)
        {
            self.found.destinations.push(destination);
        }
    }
}

fn table_named(name: &str) -> Option<Table> {
    [Table::Filter, Table::Nat, Table::Mangle]
        .into_iter()
        .find(|table| table.as_str() == name)
}

/// One rule, as far as it is of interest.
#[derive(Debug, Default)]
struct Rule<'a> {
    chain: &'a str,
    target: Option<&'a str>,
    address: Option<&'a str>,
    protocol: Option<Protocol>,
    port: Option<NonZeroU16>,
    /// It says what its packets must not have, in a field that is of interest.
    negated: bool,
}

impl<'a> Rule<'a> {
    /// Reads `[1:2] -A CHAIN …`; the counters may be missing.
    fn parse(line: &'a str) -> Option<Self> {
        let mut words = Words(line);
        let mut command = words.next()?;
        if command.starts_with('[') {
            command = words.next()?;
        }
        if command != "-A" {
            return None;
        }
        let mut rule = Self {
            chain: words.next()?,
            ..Self::default()
        };
        let mut not = false;
        while let Some(word) = words.next() {
            let of_interest = match word {
                "-d" => {
                    rule.address = words.next();
                    true
                }
                "-p" => {
                    rule.protocol = words.next().and_then(protocol_named);
                    true
                }
                "--dport" => {
                    rule.port = words.next().and_then(|port| port.parse().ok());
                    true
                }
                // What follows is the target's own.
                "-j" | "-g" => {
                    rule.target = words.next();
                    break;
                }
                // Their values could look like anything.
                "-m" | "--comment" => {
                    words.next();
                    false
                }
                _ => false,
            };
            rule.negated |= not && of_interest;
            not = word == "!";
        }
        Some(rule)
    }

    /// The packets that the rule takes, if it takes those to one port.
    fn destination(&self, family: Family) -> Option<Destination> {
        let (protocol, port) = (self.protocol?, self.port?);
        if self.negated {
            return None;
        }
        match self.address {
            Some(address) => {
                let address = host(address).filter(|address| Family::of(*address) == family)?;
                Some(Destination::Address {
                    protocol,
                    address: SocketAddr::new(address, port.get()),
                })
            }
            None => (self.chain == "KUBE-NODEPORTS" || names::is_dispatch(self.chain))
                .then_some(Destination::NodePort { protocol, port }),
        }
    }
}

fn protocol_named(name: &str) -> Option<Protocol> {
    [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
        .into_iter()
        .find(|protocol| protocol.as_str() == name)
}

/// `10.0.0.1/32` or `10.0.0.1`, but no larger network.
fn host(text: &str) -> Option<IpAddr> {
    match text.parse::<IpNet>() {
        Ok(net) => (net.prefix_len() == net.max_prefix_len()).then(|| net.addr()),
        Err(_) => text.parse().ok(),
    }
}

/// The words of a line. Quoted ones come without their quotes, their escapes left as
/// they are: nothing that is looked for here is ever quoted.
struct Words<'a>(&'a str);

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let rest = self.0.trim_start_matches(' ');
        if rest.is_empty() {
            self.0 = rest;
            return None;
        }
        let (word, after) = match rest.strip_prefix('"') {
            Some(quoted) => {
                let end = closing_quote(quoted);
                (&quoted[..end], quoted.get(end + 1..).unwrap_or_default())
            }
            None => rest.split_once(' ').unwrap_or((rest, "")),
        };
        self.0 = after;
        Some(word)
    }
}

fn closing_quote(text: &str) -> usize {
    let mut escaped = false;
    text.bytes()
        .position(|byte| {
            let closes = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            closes
        })
        .unwrap_or(text.len())
}

#[cfg(test)]
mod tests;
