//! Rules as the text that `iptables-restore --noflush --counters` reads.
//!
//! In: chains with their rules, in an order in which no chain jumps to a later one.
//! Out: one table's part of the text.
//!
//! What `iptables-restore` of nf_tables (1.8.9) does with it decides how it looks. For
//! each declaration and each rule it walks a sorted list of all chains that the
//! transaction has named so far, from the front: the time goes with the square of the
//! chains. With 10,000 Services (30,000 chains, 70,000 rules) one transaction took 12.2 s
//! with the declarations ascending and 10.7 s descending, where every new name is the
//! first of the list; unsorted ones take several times as long. The order of the rules
//! makes no difference. Cut into transactions of 1,000 chains the same took 3.5 s, and a
//! fifth of the memory. No packet sees a half of anything that matters, since chains come
//! before those that jump to them. `iptables-restore` of legacy tables reads and writes
//! the whole table in each transaction (1.1 s for one, 6.5 s for thirty), so there all is
//! one.

use std::fmt::Write as _;

use super::model::{Family, Protocol, Table};
use super::rules::names::ChainName;
use super::rules::rule::{Addresses, Comment, InterfacePattern, Is, Match, Rule, Target};
use super::rules::settings::Backend;

/// Chains in one transaction of nf_tables, at most.
const CHAINS_AT_ONCE: usize = 1000;

/// One table's text while it is written.
#[derive(Debug)]
pub struct TableText {
    table: Table,
    done: String,
    declared: Vec<String>,
    body: String,
    chains_at_once: usize,
    rules: usize,
}

impl TableText {
    #[must_use]
    pub const fn new(table: Table, backend: Backend) -> Self {
        Self {
            table,
            done: String::new(),
            declared: Vec::new(),
            body: String::new(),
            chains_at_once: match backend {
                Backend::NfTables => CHAINS_AT_ONCE,
                Backend::Legacy => usize::MAX,
            },
            rules: 0,
        }
    }

    #[must_use]
    pub const fn table(&self) -> Table {
        self.table
    }

    /// Makes a chain if it is not there, and replaces what is in it.
    pub fn chain<'a>(&mut self, name: ChainName, rules: impl IntoIterator<Item = Rule<'a>>) {
        let name = name.to_string();
        for rule in rules {
            self.rules += 1;
            put(&mut self.body, format_args!("-A {name}"));
            put_rule(&mut self.body, &rule);
            self.body.push('\n');
        }
        self.declared.push(name);
        self.cut();
    }

    /// Makes a chain if it is not there, and empties it.
    pub fn empty(&mut self, name: &str) {
        self.declared.push(name.to_owned());
        self.cut();
    }

    /// Removes an empty chain that nothing jumps to any more.
    pub fn remove(&mut self, name: &str) {
        put(&mut self.body, format_args!("-X {name}\n"));
    }

    /// Adds a rule at the front of a chain that is not ours.
    pub fn insert(&mut self, chain: &str, rule: &str) {
        self.rules += 1;
        put(&mut self.body, format_args!("-I {chain} {rule}\n"));
    }

    /// Removes a rule from a chain that is not ours.
    pub fn delete(&mut self, chain: &str, rule: &str) {
        put(&mut self.body, format_args!("-D {chain} {rule}\n"));
    }

    /// Ends the transaction: what follows relies on what was written so far.
    pub fn commit(&mut self) {
        if self.declared.is_empty() && self.body.is_empty() {
            return;
        }
        put(&mut self.done, format_args!("*{}\n", self.table.as_str()));
        self.declared.sort_unstable_by(|a, b| b.cmp(a));
        for name in self.declared.drain(..) {
            put(&mut self.done, format_args!(":{name} - [0:0]\n"));
        }
        self.done.push_str(&self.body);
        self.done.push_str("COMMIT\n");
        self.body.clear();
    }

    /// The text, and how many rules (`-A`, `-I`) are in it.
    #[must_use]
    pub fn finish(mut self) -> (String, usize) {
        self.commit();
        (self.done, self.rules)
    }

    fn cut(&mut self) {
        if self.declared.len() >= self.chains_at_once {
            self.commit();
        }
    }
}

/// A rule without the chain it is in.
#[must_use]
pub fn rule(rule: &Rule<'_>) -> String {
    let mut text = String::new();
    put_rule(&mut text, rule);
    text.trim_start().to_owned()
}

fn put(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = text.write_fmt(arguments);
}

fn put_rule(text: &mut String, rule: &Rule<'_>) {
    for one in &rule.matches {
        put_match(text, one);
    }
    match rule.target {
        None => {}
        Some(Target::Jump(chain)) => put(text, format_args!(" -j {chain}")),
        Some(Target::Return) => text.push_str(" -j RETURN"),
        Some(Target::Accept) => text.push_str(" -j ACCEPT"),
        Some(Target::Drop) => text.push_str(" -j DROP"),
        Some(Target::Reject) => text.push_str(" -j REJECT"),
        Some(Target::XorMark(mark)) => put(text, format_args!(" -j MARK --xor-mark {mark:#010x}")),
        Some(Target::OrMark(mark)) => put(text, format_args!(" -j MARK --or-mark {mark:#010x}")),
        Some(Target::Masquerade) => text.push_str(" -j MASQUERADE"),
        Some(Target::MasqueradeRandomFully) => text.push_str(" -j MASQUERADE --random-fully"),
        Some(Target::Dnat(endpoint)) => {
            put(text, format_args!(" -j DNAT --to-destination {endpoint}"));
        }
    }
}

fn put_match(text: &mut String, one: &Match<'_>) {
    match one {
        Match::Comment(comment) => put_comment(text, comment),
        Match::Protocol(protocol) => put_protocol(text, *protocol),
        Match::Source(is, addresses) => put_addresses(text, *is, "-s", addresses),
        Match::Destination(is, addresses) => put_addresses(text, *is, "-d", addresses),
        Match::InInterface(is, pattern) => {
            let not = not(*is);
            match pattern {
                InterfacePattern::Name(name) => put(text, format_args!("{not} -i {name}")),
                InterfacePattern::Prefix(prefix) => put(text, format_args!("{not} -i {prefix}+")),
            }
        }
        Match::DestinationPort(port) => put(text, format_args!(" --dport {port}")),
        Match::DestinationPorts(first, last) => {
            put(text, format_args!(" --dport {first}:{last}"));
        }
        Match::SourceIsLocal => text.push_str(" -m addrtype --src-type LOCAL"),
        Match::DestinationIsLocal => text.push_str(" -m addrtype --dst-type LOCAL"),
        Match::OneIn(n) => {
            let probability = probability(*n);
            put(
                text,
                format_args!(" -m statistic --mode random --probability {probability:.10}"),
            );
        }
        Match::SeenWithin(chain, seconds) => put(
            text,
            format_args!(" -m recent --name {chain} --rcheck --seconds {seconds} --reap"),
        ),
        Match::NoteOn(chain) => put(text, format_args!(" -m recent --name {chain} --set")),
        Match::Conntrack(is, states) => {
            put(
                text,
                format_args!(" -m conntrack{} --ctstate {states}", not(*is)),
            );
        }
        Match::Mark(is, mark) => put(
            text,
            format_args!(" -m mark{} --mark {mark:#010x}/{mark:#010x}", not(*is)),
        ),
    }
}

const fn not(is: Is) -> &'static str {
    match is {
        Is::Is => "",
        Is::Not => " !",
    }
}

/// Quoted as kube-proxy does, and made safe: objects from files were never checked by
/// an API server, and a quote or a line break would be read as more rules.
fn put_comment(text: &mut String, comment: &Comment<'_>) {
    let plain = comment.to_string();
    let safe = plain.replace(
        |c: char| !(' '..='~').contains(&c) || c == '"' || c == '\\',
        "?",
    );
    if matches!(comment, Comment::Name(_)) && !safe.contains(' ') {
        put(text, format_args!(" -m comment --comment {safe}"));
    } else {
        put(text, format_args!(" -m comment --comment \"{safe}\""));
    }
}

fn put_protocol(text: &mut String, protocol: Protocol) {
    let name = protocol.as_str();
    put(text, format_args!(" -m {name} -p {name}"));
}

fn put_addresses(text: &mut String, is: Is, option: &str, addresses: &Addresses) {
    put(text, format_args!("{} {option} ", not(is)));
    match addresses {
        Addresses::One(address) => put(text, format_args!("{address}")),
        Addresses::Net(net) => put(text, format_args!("{}", net.trunc())),
        Addresses::LowBits { family, bits, mask } => match family {
            Family::V4 => {
                let [bits, mask] = [*bits, *mask].map(std::net::Ipv4Addr::from_bits);
                put(text, format_args!("{bits}/{mask}"));
            }
            Family::V6 => {
                let [bits, mask] =
                    [*bits, *mask].map(|low| std::net::Ipv6Addr::from_bits(u128::from(low)));
                put(text, format_args!("{bits}/{mask}"));
            }
        },
    }
}

/// One in `n`.
#[allow(
    clippy::cast_precision_loss,
    reason = "a Service has far fewer than 2^52 endpoints"
)]
fn probability(n: usize) -> f64 {
    1.0 / n as f64
}
