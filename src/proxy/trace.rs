//! A kernel for tests: reads the text that iptables would, holds the chains, and says
//! what becomes of a packet.
//!
//! It knows the matches and targets that our text uses and refuses all others, so that a
//! rule nobody understands does not pass as one that never matches. Like the kernel, it
//! refuses jumps to chains that are not there yet, and the removal of chains that hold
//! rules or are jumped to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::model::{ChainId, Found, Jump, Protocol, Table};

/// Longest name of a chain, and longest comment.
const NAME_MAX: usize = 28;
const COMMENT_MAX: usize = 255;

const BUILT_IN: [(Table, &[&str]); 3] = [
    (Table::Filter, &["INPUT", "FORWARD", "OUTPUT"]),
    (
        Table::Nat,
        &["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"],
    ),
    (Table::Mangle, &["PREROUTING"]),
];

type Chains = BTreeMap<String, Vec<Vec<String>>>;

/// The tables of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    tables: BTreeMap<Table, Chains>,
}

impl Default for Kernel {
    fn default() -> Self {
        let tables = BUILT_IN.map(|(table, chains)| {
            let chains = chains.iter().map(|name| ((*name).to_owned(), Vec::new()));
            (table, chains.collect())
        });
        Self {
            tables: tables.into(),
        }
    }
}

impl Kernel {
    /// What `iptables-restore --noflush` does. A transaction with an error in it changes
    /// nothing, those before it stay.
    pub fn restore(&mut self, text: &str) -> Result<(), String> {
        let mut open: Option<(Table, Chains)> = None;
        for line in text.lines() {
            let at = |problem: &str| format!("{problem}: {line}");
            if let Some(name) = line.strip_prefix('*') {
                let named = |(table, _): &&(Table, _)| table.as_str() == name;
                let (table, _) = BUILT_IN.iter().find(named).ok_or_else(|| at("no table"))?;
                open = Some((*table, self.tables[table].clone()));
            } else if line == "COMMIT" {
                let (table, chains) = open.take().ok_or_else(|| at("no transaction"))?;
                self.tables.insert(table, chains);
            } else {
                let (_, chains) = open.as_mut().ok_or_else(|| at("no transaction"))?;
                apply(chains, line).map_err(|problem| at(&problem))?;
            }
        }
        match open {
            Some(_) => Err("no COMMIT".to_owned()),
            None => Ok(()),
        }
    }

    /// What `iptables-save` would tell of us.
    pub fn found(&self) -> Found {
        let mut found = Found::default();
        for (table, chains) in &self.tables {
            for (name, rules) in chains {
                if name.starts_with("KUBE-") {
                    found.chains.push(ChainId::new(*table, name.as_str()));
                    continue;
                }
                for to in rules.iter().filter_map(|rule| jump_of(rule)) {
                    found.jumps.push(Jump {
                        table: *table,
                        from: name.as_str().into(),
                        to: to.into(),
                    });
                }
            }
        }
        found.jumps.retain(|jump| jump.to.starts_with("KUBE-"));
        found
    }

    /// The rules of a chain, as they were written.
    pub fn rules(&self, table: Table, chain: &str) -> Option<Vec<String>> {
        let rules = self.tables[&table].get(chain)?;
        Some(rules.iter().map(|rule| rule.join(" ")).collect())
    }

    pub fn chains(&self, table: Table) -> impl Iterator<Item = &str> {
        self.tables[&table].keys().map(String::as_str)
    }

    /// Everything that may become of a packet: chance is taken both ways.
    pub fn trace(&self, packet: &Packet<'_>) -> BTreeSet<Fate> {
        let mut fates = BTreeSet::new();
        let mut choices = Some(Vec::new());
        while let Some(given) = choices.take() {
            let mut trip = Trip::new(self, packet, given);
            fates.insert(trip.run());
            // The next branch: the last choice that was "yes" becomes "no".
            while let Some(last) = trip.choices.pop() {
                if last {
                    trip.choices.push(false);
                    choices = Some(trip.choices);
                    break;
                }
            }
        }
        fates
    }

    /// The longest way through nat PREROUTING, in rules.
    pub fn rules_walked(&self, packet: &Packet<'_>) -> usize {
        let mut trip = Trip::new(self, packet, Vec::new());
        trip.run();
        trip.walked
    }
}

fn apply(chains: &mut Chains, line: &str) -> Result<(), String> {
    if let Some(declared) = line.strip_prefix(':') {
        let name = declared
            .strip_suffix(" - [0:0]")
            .ok_or("not a declaration")?;
        if name.len() > NAME_MAX {
            return Err("long name".to_owned());
        }
        chains.insert(name.to_owned(), Vec::new());
        return Ok(());
    }
    let mut words = words(line);
    if words.len() < 2 {
        return Err("not a command".to_owned());
    }
    let rule = words.split_off(2);
    let (command, name) = (words[0].clone(), words[1].clone());
    if let Some(to) = jump_of(&rule)
        && command != "-D"
        && !chains.contains_key(to)
    {
        return Err("jump to nowhere".to_owned());
    }
    let used = |chains: &Chains| {
        let mut rules = chains.values().flatten();
        rules.any(|rule| jump_of(rule) == Some(name.as_str()))
    };
    if command == "-X" && used(chains) {
        return Err("still in use".to_owned());
    }
    let chain = chains.get_mut(&name).ok_or("no such chain")?;
    match command.as_str() {
        "-A" => chain.push(rule),
        "-I" => chain.insert(0, rule),
        "-D" => {
            let at = chain.iter().position(|other| *other == rule);
            chain.remove(at.ok_or("no such rule")?);
        }
        "-X" if chain.is_empty() => {
            chains.remove(&name);
        }
        _ => return Err("cannot".to_owned()),
    }
    Ok(())
}

/// The chain that a rule leads to, if it does.
fn jump_of(rule: &[String]) -> Option<&str> {
    const TARGETS: [&str; 7] = [
        "ACCEPT",
        "DROP",
        "REJECT",
        "RETURN",
        "MARK",
        "MASQUERADE",
        "DNAT",
    ];
    let at = rule.iter().position(|word| word == "-j")?;
    let target = rule[at + 1].as_str();
    (!TARGETS.contains(&target)).then_some(target)
}

fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut quoted = false;
    let mut word: Option<String> = None;
    for c in line.chars() {
        match c {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' if !quoted => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// The first packet of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    /// Addresses of the node besides loopback.
    pub node: &'a [IpAddr],
    /// Where it came in; nowhere if the node itself sent it.
    pub interface: Option<&'a str>,
    pub protocol: Protocol,
    pub source: IpAddr,
    pub destination: SocketAddr,
    /// On whose list of clients the source is.
    pub known_to: Option<&'a str>,
}

/// What became of a packet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    Dropped,
    Rejected,
    Went {
        /// To where its destination was changed, if it was.
        endpoint: Option<SocketAddr>,
        masqueraded: bool,
    },
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dropped => f.write_str("DROP"),
            Self::Rejected => f.write_str("REJECT"),
            Self::Went {
                endpoint,
                masqueraded,
            } => {
                match endpoint {
                    Some(endpoint) => write!(f, "{endpoint}")?,
                    None => f.write_str("none")?,
                }
                f.write_str(if *masqueraded { " masq" } else { "" })
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// The end of a chain, or RETURN.
    Back,
    /// No further rule of this table.
    Done,
    Dropped,
    Rejected,
}

/// One packet on its way, with one outcome of each chance.
struct Trip<'a> {
    kernel: &'a Kernel,
    packet: &'a Packet<'a>,
    destination: SocketAddr,
    mark: u32,
    masqueraded: bool,
    choices: Vec<bool>,
    chosen: usize,
    walked: usize,
}

impl<'a> Trip<'a> {
    fn new(kernel: &'a Kernel, packet: &'a Packet<'a>, choices: Vec<bool>) -> Self {
        Self {
            kernel,
            packet,
            destination: packet.destination,
            mark: 0,
            masqueraded: false,
            choices,
            chosen: 0,
            walked: 0,
        }
    }

    fn is_local(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.packet.node.contains(&address)
    }

    fn run(&mut self) -> Fate {
        let from_node = self.packet.interface.is_none();
        let first = if from_node { "OUTPUT" } else { "PREROUTING" };
        self.chain(Table::Nat, first);
        let mut ways = Vec::new();
        if from_node {
            ways.push("OUTPUT");
        }
        if self.is_local(self.destination.ip()) {
            ways.push("INPUT");
        } else if !from_node {
            ways.push("FORWARD");
        }
        for way in &ways {
            match self.chain(Table::Filter, way) {
                Verdict::Dropped => return Fate::Dropped,
                Verdict::Rejected => return Fate::Rejected,
                Verdict::Back | Verdict::Done => {}
            }
        }
        if ways != ["INPUT"] {
            self.chain(Table::Nat, "POSTROUTING");
        }
        let changed = self.destination != self.packet.destination;
        Fate::Went {
            endpoint: changed.then_some(self.destination),
            masqueraded: self.masqueraded,
        }
    }

    fn chain(&mut self, table: Table, name: &str) -> Verdict {
        let kernel = self.kernel;
        for rule in &kernel.tables[&table][name] {
            self.walked += usize::from(table == Table::Nat);
            if !self.matches(rule) {
                continue;
            }
            let verdict = match rule.iter().position(|word| word == "-j") {
                None => Verdict::Back,
                Some(at) => match rule[at + 1].as_str() {
                    "RETURN" => return Verdict::Back,
                    other => self.target(table, other, &rule[at + 2..]),
                },
            };
            if verdict != Verdict::Back {
                return verdict;
            }
        }
        Verdict::Back
    }

    fn target(&mut self, table: Table, target: &str, arguments: &[String]) -> Verdict {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        match (target, arguments.as_slice()) {
            ("ACCEPT", []) => Verdict::Done,
            ("DROP", []) => Verdict::Dropped,
            ("REJECT", []) => Verdict::Rejected,
            ("MARK", ["--or-mark", mark]) => {
                self.mark |= hex(mark);
                Verdict::Back
            }
            ("MARK", ["--xor-mark", mark]) => {
                self.mark ^= hex(mark);
                Verdict::Back
            }
            ("MASQUERADE", [] | ["--random-fully"]) => {
                self.masqueraded = true;
                Verdict::Done
            }
            ("DNAT", ["--to-destination", to]) => {
                self.destination = to.parse().expect("an address and a port");
                Verdict::Done
            }
            (chain, []) => self.chain(table, chain),
            other => panic!("unknown target {other:?}"),
        }
    }

    fn matches(&mut self, rule: &[String]) -> bool {
        let mut words = rule.iter().map(String::as_str);
        let mut list = "";
        let mut wanted = true;
        while let Some(word) = words.next() {
            let mut value = || words.next().expect("a value");
            let holds = match word {
                "!" => {
                    wanted = false;
                    continue;
                }
                "-j" => return true,
                "-m" => {
                    value();
                    continue;
                }
                "--comment" => {
                    assert!(value().len() <= COMMENT_MAX, "{rule:?}");
                    continue;
                }
                "--mode" => value() == "random",
                "--name" => {
                    list = value();
                    continue;
                }
                "--seconds" => value().parse::<u64>().is_ok(),
                "--reap" | "--set" => true,
                "--rcheck" => self.packet.known_to == Some(list),
                "--probability" => {
                    let probability: f64 = value().parse().expect("a number");
                    assert!((0.0..=1.0).contains(&probability), "{rule:?}");
                    self.choose()
                }
                "-p" => value() == self.packet.protocol.as_str(),
                "-s" => contains(value(), self.packet.source),
                "-d" => contains(value(), self.destination.ip()),
                "-i" => self.came_in_by(value()),
                "--dport" => has_port(value(), self.destination.port()),
                "--src-type" => value() == "LOCAL" && self.is_local(self.packet.source),
                "--dst-type" => value() == "LOCAL" && self.is_local(self.destination.ip()),
                "--mark" => {
                    let (mark, mask) = value().split_once('/').expect("a mask");
                    self.mark & hex(mask) == hex(mark)
                }
                "--ctstate" => value().split(',').any(|state| self.is_in(state)),
                other => panic!("unknown match {other}: {rule:?}"),
            };
            if holds != wanted {
                return false;
            }
            wanted = true;
        }
        true
    }

    fn is_in(&self, state: &str) -> bool {
        match state {
            "NEW" => true,
            "DNAT" => self.destination != self.packet.destination,
            "INVALID" | "RELATED" | "ESTABLISHED" => false,
            other => panic!("unknown state {other}"),
        }
    }

    fn came_in_by(&self, pattern: &str) -> bool {
        let name = self.packet.interface.unwrap_or("");
        match pattern.strip_suffix('+') {
            Some(prefix) => name.starts_with(prefix),
            None => name == pattern,
        }
    }

    fn choose(&mut self) -> bool {
        if self.chosen == self.choices.len() {
            self.choices.push(true);
        }
        self.chosen += 1;
        self.choices[self.chosen - 1]
    }
}

fn hex(text: &str) -> u32 {
    let digits = text.strip_prefix("0x").expect("a hexadecimal number");
    u32::from_str_radix(digits, 16).expect("a hexadecimal number")
}

fn has_port(pattern: &str, port: u16) -> bool {
    let (first, last) = pattern.split_once(':').unwrap_or((pattern, pattern));
    let [first, last] = [first, last].map(|end| end.parse::<u16>().expect("a port"));
    (first..=last).contains(&port)
}

/// Whether `address[/mask]` has an address in it; a mask is a length or has holes.
fn contains(pattern: &str, address: IpAddr) -> bool {
    let (base, mask) = pattern.split_once('/').unwrap_or((pattern, ""));
    let base: IpAddr = base.parse().expect("an address");
    assert_eq!(base.is_ipv4(), address.is_ipv4(), "{pattern}");
    let width = if base.is_ipv4() { 32 } else { 128 };
    let all = u128::MAX >> (128 - width);
    let mask = match (mask, mask.parse::<u32>()) {
        ("", _) => all,
        (_, Ok(0)) => 0,
        (_, Ok(length)) => all << (width - length) & all,
        (mask, Err(_)) => bits(mask.parse().expect("a mask")),
    };
    bits(address) & mask == bits(base) & mask
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}
