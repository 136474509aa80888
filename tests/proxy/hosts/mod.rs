//! Real connections between hosts, through real rules.
//!
//! The scenarios are those that the packet tracer has (`kubelet::proxy::scenarios`). For
//! each, the rules are put in place of those of the one before, as after a restart.
//! Everybody who may answer does, so that a packet that goes astray is heard of. Where
//! the kernel has no sockets of SCTP, attempts by it are left out: the rules are put in
//! force, and the tracer has told what they do.

mod net;
mod talk;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use futures::future::{join_all, select};
use kubelet::proxy::apply::{HostIptables, Iptables, Mode};
use kubelet::proxy::limits::{self, LimitSettings};
use kubelet::proxy::model::Family;
use kubelet::proxy::rules::Backend;
use kubelet::proxy::scenarios::world::{Host, Party, node_addresses};
use kubelet::proxy::scenarios::{self, Attempt, Choice, Outcome, Scenario, Source};

use self::net::Net;
use self::talk::{Heard, ask, exists, serve};
use crate::apply::{host, run};
use crate::isolate::isolated;

/// For packets that never leave the machine.
const PATIENCE: Duration = Duration::from_secs(10);
/// For packets that are dropped. Others arrive in a thousandth of it.
const SHORT: Duration = Duration::from_millis(400);
/// So often somebody connects before an endpoint that has not answered never will: one
/// of three is missed by chance once in 10^12 times.
const TRIES: usize = 70;
/// So often somebody connects who always has to reach the same one.
const REPEATS: usize = 12;

#[test]
fn rules_of_nft_do_what_the_table_says() {
    isolated("hosts::rules_of_nft_do_what_the_table_says", hold("nft"));
}

#[test]
fn rules_of_legacy_tables_do_what_the_table_says() {
    isolated(
        "hosts::rules_of_legacy_tables_do_what_the_table_says",
        hold("legacy"),
    );
}

#[test]
fn connections_are_shared_evenly() {
    isolated("hosts::connections_are_shared_evenly", async {
        const CONNECTIONS: usize = 300;
        let world = World::new("nft").await;
        let all = scenarios::all();
        let named = |one: &&Scenario| one.name == "a cluster IP";
        let scenario = all.iter().find(named).unwrap();
        world.restore(scenario).await;
        let by_client = |one: &&Attempt| one.from == Party::Client;
        let attempt = scenario.attempts.iter().find(by_client).unwrap();
        let count = async {
            let mut counts: BTreeMap<SocketAddr, usize> = BTreeMap::new();
            for _ in 0..CONNECTIONS {
                match world.ask(attempt, Family::V4).await {
                    Ok(Heard::Answer { server, .. }) => *counts.entry(server).or_default() += 1,
                    other => panic!("{other:?}"),
                }
            }
            counts
        };
        let counts = world.while_served(scenario, count).await;
        // Six standard deviations: twice in 10^9 times it is further off by chance.
        let fair = |count: &usize| count.abs_diff(CONNECTIONS / 3) < 50;
        assert!(counts.len() == 3 && counts.values().all(fair), "{counts:?}");
    });
}

/// All scenarios with one kind of iptables.
async fn hold(kind: &str) {
    let world = World::new(kind).await;
    let mut wrong = Vec::new();
    for scenario in scenarios::all() {
        world.restore(&scenario).await;
        let attempts = Family::ALL.into_iter().flat_map(|family| {
            let made = scenario.attempts.iter();
            made.filter(move |one| one.is_made_in(family))
                .map(move |one| (family, one))
        });
        let attempts = attempts.filter(|(_, one)| exists(one.to.protocol));
        let checks = attempts.map(async |(family, attempt)| {
            let problem = world.check(attempt, family).await.err()?;
            let (from, to) = (attempt.from, attempt.to);
            let family = family.as_str();
            Some(format!(
                "{}: {family}, {from:?} to {to}: {problem}",
                scenario.name
            ))
        });
        let problems = world.while_served(&scenario, join_all(checks)).await;
        wrong.extend(problems.into_iter().flatten());
        // Whoever gets the same port again must not follow an earlier connection.
        run("conntrack", &["-F"]);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

struct World {
    iptables: HostIptables,
    net: Net,
}

impl World {
    async fn new(kind: &str) -> Self {
        let iptables = host(kind).await;
        let net = Net::set_up();
        let settings = LimitSettings {
            // It is the whole machine's.
            max_per_core: 0,
            ..LimitSettings::default()
        };
        limits::ensure(Path::new("/"), &settings, 1);
        Self { iptables, net }
    }

    /// Puts a scenario's rules in force.
    async fn restore(&self, scenario: &Scenario) {
        for family in Family::ALL {
            let facts = self.iptables.usable(family).unwrap();
            let (mut rules, _) = scenario.rules(family, |settings| {
                settings.random_fully = facts.random_fully();
                settings.backend = match facts.mode {
                    Mode::Nft => Backend::NfTables,
                    Mode::Legacy => Backend::Legacy,
                };
            });
            let found = self.iptables.found(family).await.unwrap();
            let script = rules.full(&found);
            let restored = self.iptables.restore(family, &script).await;
            restored.unwrap_or_else(|error| panic!("{}: {error:?}", scenario.name));
        }
    }

    /// Does something while all answer who can in a scenario.
    async fn while_served<T>(&self, scenario: &Scenario, work: impl Future<Output = T>) -> T {
        let mut servers = Vec::new();
        for family in Family::ALL {
            for (host, protocol, address) in scenario.servers(family) {
                if exists(protocol) {
                    servers.push(serve(self.net.host(host), protocol, address));
                }
            }
        }
        match select(pin!(work), join_all(servers)).await {
            futures::future::Either::Left((done, _)) => done,
            futures::future::Either::Right(_) => panic!("no server"),
        }
    }

    async fn ask(&self, attempt: &Attempt, family: Family) -> std::io::Result<Heard> {
        let patience = match attempt.outcome {
            Outcome::Dropped => SHORT,
            Outcome::Reaches { .. } | Outcome::Untouched | Outcome::Refused => PATIENCE,
        };
        ask(
            self.net.host(attempt.from.host()),
            attempt.source(family),
            attempt.to.protocol,
            attempt.to.socket(family),
            patience,
        )
        .await
    }

    /// Whether what is heard is what should be.
    async fn check(&self, attempt: &Attempt, family: Family) -> Result<(), String> {
        let source = attempt.source(family);
        let (expected, choice) = match &attempt.outcome {
            Outcome::Refused => (vec![vec![Heard::Refusal]], Choice::ByConnection),
            Outcome::Dropped => (vec![vec![Heard::Silence]], Choice::ByConnection),
            Outcome::Untouched => {
                let server = attempt.to.socket(family);
                let answer = Heard::Answer {
                    server,
                    client: source,
                };
                (vec![vec![answer]], Choice::ByConnection)
            }
            Outcome::Reaches {
                endpoints,
                port,
                choice,
            } => {
                let answers = endpoints
                    .iter()
                    .map(|(endpoint, seen)| answers(*endpoint, *port, *seen, source, family));
                (answers.collect(), *choice)
            }
        };
        let mut heard = BTreeSet::new();
        let (at_least, at_most) = match choice {
            Choice::ByConnection => (1, TRIES),
            Choice::ByClient => (REPEATS, REPEATS),
        };
        let is_complete = |heard: &BTreeSet<Heard>| {
            expected
                .iter()
                .all(|answers| answers.iter().any(|one| heard.contains(one)))
        };
        let mut tries = 0;
        while tries < at_least || (tries < at_most && !is_complete(&heard)) {
            tries += 1;
            let one = self.ask(attempt, family).await;
            let one = one.map_err(|error| format!("cannot connect: {error}"))?;
            if !expected.iter().flatten().any(|other| *other == one) {
                return Err(format!("{one:?}, not {expected:?}"));
            }
            heard.insert(one);
        }
        match choice {
            Choice::ByConnection if !is_complete(&heard) => {
                Err(format!("only {heard:?} of {expected:?}"))
            }
            Choice::ByClient if heard.len() != 1 => Err(format!("not one, but {heard:?}")),
            Choice::ByConnection | Choice::ByClient => Ok(()),
        }
    }
}

/// How one endpoint may answer.
fn answers(endpoint: Party, port: u16, seen: Source, source: IpAddr, family: Family) -> Vec<Heard> {
    let clients = match (seen, endpoint.host()) {
        (Source::Kept, _) => vec![source],
        // On its way to itself, the node takes any of its addresses.
        (Source::Masqueraded, Host::Node) => node_addresses(),
        (Source::Masqueraded, host) => vec![host.gateway(family)],
    };
    let server = SocketAddr::new(endpoint.address(family), port);
    clients
        .into_iter()
        .map(|client| Heard::Answer { server, client })
        .collect()
}
