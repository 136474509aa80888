//! The scenarios, held against a kernel in memory.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::*;
use crate::proxy::model::Table;
use crate::proxy::trace::{Fate, Kernel, Packet};

/// The node, with the rules of one family.
struct Node {
    family: Family,
    kernel: Kernel,
}

impl Node {
    fn of(scenario: &Scenario, family: Family) -> Self {
        let (mut rules, _) = scenario.rules(family, |_| ());
        let mut kernel = Kernel::default();
        let script = rules.full(&kernel.found());
        kernel.restore(&script.text).unwrap();
        Self { family, kernel }
    }

    fn fates(&self, attempt: &Attempt, known_to: Option<&str>) -> BTreeSet<Fate> {
        self.kernel.trace(&Packet {
            node: &world::node_addresses(),
            interface: attempt.from.host().interface(),
            protocol: attempt.to.protocol,
            source: attempt.source(self.family),
            destination: attempt.to.socket(self.family),
            known_to,
        })
    }

    /// What becomes of those who connect again, whatever became of them the first time.
    fn fates_of_the_known(&self, attempt: &Attempt) -> BTreeSet<Fate> {
        let chains = self.kernel.chains(Table::Nat);
        let endpoints = chains.filter(|chain| chain.starts_with("KUBE-SEP-"));
        let fates = endpoints.map(|chain| {
            let fates = self.fates(attempt, Some(chain));
            assert_eq!(fates.len(), 1, "{chain}: {fates:?}");
            fates
        });
        fates.flatten().collect()
    }
}

fn expected(outcome: &Outcome, family: Family) -> BTreeSet<Fate> {
    let went = |endpoint, source| Fate::Went {
        endpoint,
        masqueraded: source == Source::Masqueraded,
    };
    match outcome {
        Outcome::Reaches {
            endpoints, port, ..
        } => endpoints
            .iter()
            .map(|(party, source)| {
                let address = SocketAddr::new(party.address(family), *port);
                went(Some(address), *source)
            })
            .collect(),
        Outcome::Untouched => [went(None, Source::Kept)].into(),
        Outcome::Refused => [Fate::Rejected].into(),
        Outcome::Dropped => [Fate::Dropped].into(),
    }
}

#[test]
fn the_rules_do_what_the_table_says() {
    let mut wrong = Vec::new();
    for scenario in all() {
        for family in Family::ALL {
            let node = Node::of(&scenario, family);
            let made = |one: &&Attempt| one.is_made_in(family);
            for attempt in scenario.attempts.iter().filter(made) {
                let expected = expected(&attempt.outcome, family);
                let mut checked = vec![node.fates(attempt, None)];
                if let Outcome::Reaches {
                    choice: Choice::ByClient,
                    ..
                } = attempt.outcome
                {
                    checked.push(node.fates_of_the_known(attempt));
                }
                for fates in checked.into_iter().filter(|fates| *fates != expected) {
                    wrong.push(format!(
                        "{}: {}, {:?} to {}: {fates:?}, not {expected:?}",
                        scenario.name,
                        family.as_str(),
                        attempt.from,
                        attempt.to,
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The table means what it says only if nothing of it was left out.
#[test]
fn nothing_is_wrong_with_the_objects_but_what_is_meant_to_be() {
    let mut problems = Vec::new();
    for scenario in all() {
        let (_, found) = scenario.rules(Family::V4, |_| ());
        let told = found.into_iter().map(|one| {
            let (service, message) = (one.service, one.message);
            format!("{}: {service}: {message}", scenario.name)
        });
        problems.extend(told);
    }
    insta::assert_snapshot!(problems.join("\n"), @r"
    two Services at one external IP: shop/web-2: tcp 198.51.100.1:80 is already that of Service shop/web-1
    two Services at one external IP: shop/web-2: tcp [2001:db9::1]:80 is already that of Service shop/web-1
    ");
}

#[test]
fn scenarios_have_names_of_their_own() {
    let all = all();
    let names: BTreeSet<_> = all.iter().map(|scenario| scenario.name).collect();
    assert_eq!(names.len(), all.len());
}
