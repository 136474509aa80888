//! What holds for all Services, in any order.

use proptest::prelude::*;

use super::*;
use crate::proxy::model::Found;

/// One thing that happens to a rule set.
#[derive(Debug, Clone)]
enum Step {
    Set(u8, Vec<Service>),
    Sync,
    /// The text was not taken.
    Fail,
    /// The text was cut short, and nothing is known.
    FailHalfWay,
    /// Somebody emptied a chain: the one after so many others.
    Touch(prop::sample::Index),
}

fn some_service() -> impl Strategy<Value = Service> {
    let addresses = (
        0..4_u8,
        prop::option::of(0..4_u8),
        prop::option::of(0..4_u8),
    );
    let policies = (any::<bool>(), any::<bool>(), any::<bool>());
    let protocol = prop_oneof![
        Just(Protocol::Tcp),
        Just(Protocol::Udp),
        Just(Protocol::Sctp)
    ];
    let sets = (0..4_u8, 0..3_u8, any::<bool>());
    let port = (80..83_u16, prop::option::of(30000..30200_u16), protocol);
    (addresses, policies, sets, port, any::<bool>()).prop_map(
        |((cluster, external, balancer), (sticky, inside, outside), sets, port, ranges)| {
            let (all, local, anywhere) = sets;
            let list = |number| (0..number).map(|i| format!("10.1.0.{i}:80"));
            let list = |number| list(number).map(|text| text.parse().unwrap()).collect();
            let mut one = service("x", &format!("10.96.0.{cluster}"));
            one.port.external_ips = external
                .map(|i| ip(&format!("1.0.0.{i}")))
                .into_iter()
                .collect();
            one.port.load_balancer_ips = balancer
                .map(|i| ip(&format!("2.0.0.{i}")))
                .into_iter()
                .collect();
            if ranges {
                one = one.from("192.168.0.0/16");
            }
            one.port.affinity = sticky.then_some(Duration::from_secs(5));
            one.port.internal_local = inside;
            one.port.external_local = outside;
            (one.port.port, _, one.port.name.protocol) = port;
            one.port.node_port = port.1.and_then(NonZeroU16::new);
            one.selected = Selected {
                cluster: list(all),
                local: list(local),
                anywhere,
            };
            one
        },
    )
}

fn some_step() -> impl Strategy<Value = Step> {
    let services = prop::collection::vec(some_service(), 0..3);
    prop_oneof![
        12 => (0..40_u8, services).prop_map(|(at, ports)| Step::Set(at, ports)),
        4 => Just(Step::Sync),
        1 => Just(Step::Fail),
        1 => Just(Step::FailHalfWay),
        2 => any::<prop::sample::Index>().prop_map(Step::Touch),
    ]
}

fn set(rules: &mut RuleSet, at: u8, ports: &[Service]) {
    let service = name(&format!("s{at}"));
    let ports: Vec<_> = ports
        .iter()
        .enumerate()
        .map(|(i, one)| {
            let mut port = one.port.clone();
            port.name.service = Arc::clone(&service);
            port.name.port = format!("p{i}").into();
            (port, one.selected.clone())
        })
        .collect();
    rules.set(&service, &ports);
}

/// Empties a chain of ours as somebody else would, and says so.
fn touch(rules: &mut RuleSet, kernel: &mut Kernel, which: prop::sample::Index) {
    let found = kernel.found();
    if found.chains.is_empty() {
        return;
    }
    let chain = which.get(&found.chains).clone();
    let (table, name) = (chain.table.as_str(), &chain.name);
    kernel
        .restore(&format!("*{table}\n:{name} - [0:0]\nCOMMIT\n"))
        .unwrap();
    rules.touched(&[chain]);
}

fn run(rules: &mut RuleSet, kernel: &mut Kernel, step: &Step) {
    match step {
        Step::Set(at, ports) => set(rules, *at, ports),
        Step::Sync => bring_up_to_date(rules, kernel),
        Step::Fail => {
            rules.partial();
            rules.failed();
        }
        Step::FailHalfWay => {
            if let Some(script) = rules.partial() {
                let filter = script.text.split_inclusive("COMMIT\n").next();
                kernel.restore(filter.unwrap_or_default()).unwrap();
            }
            rules.failed();
        }
        Step::Touch(which) => touch(rules, kernel, *which),
    }
}

/// More rules than fit one chain from the start, so that parts are written too.
fn crowd(rules: &mut RuleSet) {
    for i in 0..120_u8 {
        let one = service("x", &format!("10.96.1.{i}")).served_by(&["10.1.9.9:80"]);
        let one = one.node_port(31000 + u16::from(i));
        set(rules, 100 + i, &[one]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever happened, the kernel ends up with what a new agent would write at once;
    /// and on the way no text is refused, so every jump leads somewhere.
    #[test]
    fn the_kernel_follows(
        steps in prop::collection::vec(some_step(), 1..60),
        crowded in any::<bool>(),
    ) {
        let mut rules = RuleSet::new(Family::V4, cluster_cidr("10.1.0.0/16"));
        if crowded {
            crowd(&mut rules);
        }
        let mut kernel = kernel_with(&mut rules);
        for step in &steps {
            run(&mut rules, &mut kernel, step);
        }
        bring_up_to_date(&mut rules, &mut kernel);
        prop_assert!(rules.is_clean());

        // The layout is allowed to differ until the next full text.
        let followed = kernel.clone();
        rules.want_full();
        bring_up_to_date(&mut rules, &mut kernel);
        let fresh = kernel_with(&mut rules_again(&steps, crowded));
        prop_assert_eq!(&kernel, &fresh);
        let without_dispatch = |kernel: &Kernel| {
            let chains = kernel.chains(Table::Nat).filter(|name| {
                !name.contains("DISPATCH") && !name.contains("NODEPORT") && *name != "KUBE-SERVICES"
            });
            chains.map(|name| (name.to_owned(), kernel.rules(Table::Nat, name))).collect::<Vec<_>>()
        };
        prop_assert_eq!(without_dispatch(&followed), without_dispatch(&fresh));
        let mut counted = 0;
        for name in fresh.chains(Table::Nat).filter(|name| name.starts_with("KUBE-")) {
            counted += fresh.rules(Table::Nat, name).unwrap().len();
        }
        prop_assert_eq!(rules.rules(Table::Nat), counted);
    }

    /// The order in which Services came does not show.
    #[test]
    fn equal_sets_have_equal_texts(
        services in prop::collection::btree_map(0..40_u8, prop::collection::vec(some_service(), 0..3), 0..20),
    ) {
        let mut forward = RuleSet::new(Family::V4, RuleSettings::default());
        let mut backward = RuleSet::new(Family::V4, RuleSettings::default());
        for (at, ports) in &services {
            set(&mut forward, *at, ports);
        }
        for (at, ports) in services.iter().rev() {
            set(&mut backward, *at, &[]);
            set(&mut backward, *at, ports);
        }
        prop_assert_eq!(forward.full(&Found::default()), backward.full(&Found::default()));
    }

    /// After the clean-up the kernel is as it was before, but for what the kubelet
    /// shares.
    #[test]
    fn clean_up_removes_everything(
        services in prop::collection::vec(prop::collection::vec(some_service(), 0..3), 0..20),
    ) {
        let mut rules = RuleSet::new(Family::V4, RuleSettings::default());
        for (at, ports) in services.iter().enumerate() {
            set(&mut rules, u8::try_from(at).unwrap(), ports);
        }
        let mut kernel = kernel_with(&mut rules);
        kernel.restore(&RuleSet::cleanup(&kernel.found()).text).unwrap();
        let left = kernel.found();
        prop_assert_eq!(left.chains, vec![ChainId::new(Table::Filter, "KUBE-FIREWALL")]);
        prop_assert!(left.jumps.iter().all(|jump| &*jump.to == "KUBE-FIREWALL"));
    }
}

/// What is left of all steps, in a set that never knew anything else.
fn rules_again(steps: &[Step], crowded: bool) -> RuleSet {
    let mut rules = RuleSet::new(Family::V4, cluster_cidr("10.1.0.0/16"));
    if crowded {
        crowd(&mut rules);
    }
    let mut last = BTreeMap::new();
    for step in steps {
        if let Step::Set(at, ports) = step {
            last.insert(*at, ports);
        }
    }
    for (at, ports) in last {
        set(&mut rules, at, ports);
    }
    rules
}
