//! What is written when something changes, and what is not.

use super::*;
use crate::proxy::model::Found;

const ONE: &str = "10.180.0.1:80";
const TWO: &str = "10.180.0.2:80";

fn numbered(i: u16) -> Service {
    let address = format!("10.96.{}.{}", i >> 8, i & 255);
    service(&format!("s{i}"), &address)
}

fn many(number: u16) -> RuleSet {
    let services = (0..number).map(|i| numbered(i).served_by(&[ONE, TWO]));
    rule_set(Family::V4, RuleSettings::default(), services.collect())
}

fn set(rules: &mut RuleSet, service: Service) {
    let (name, ports) = service.ports();
    rules.set(&name, &ports);
}

/// The chains that a text writes, by how their names begin.
fn written(text: &str) -> Vec<String> {
    let names = text.lines().filter_map(|line| line.strip_prefix(':'));
    let mut kinds: Vec<_> = names
        .map(|name| name.split_once(' ').unwrap().0.to_owned())
        .map(|name| match name.rsplit_once('-') {
            Some((kind, hash)) if hash.len() == 16 => kind.to_owned(),
            _ => name,
        })
        .collect();
    kinds.sort();
    kinds
}

#[test]
fn nothing_changed_nothing_written() {
    let mut rules = many(10);
    kernel_with(&mut rules);
    assert!(rules.is_clean());
    set(&mut rules, numbered(3).served_by(&[ONE, TWO]));
    rules.set_health_ports([]);
    rules.set_settings(RuleSettings::default());
    assert!(rules.is_clean());
    assert_eq!(rules.partial(), None);
}

#[test]
fn an_endpoint_that_goes_costs_its_chain_and_its_services() {
    let mut rules = many(500);
    let mut kernel = kernel_with(&mut rules);
    set(&mut rules, numbered(3).served_by(&[TWO]));
    let script = rules.partial().unwrap();
    assert_eq!(written(&script.text), ["KUBE-SEP", "KUBE-SVC"]);
    assert_eq!(script.nat_rules, 1);
    kernel.restore(&script.text).unwrap();
    rules.sent();
    assert!(rules.is_clean());
}

#[test]
fn a_service_that_comes_costs_one_part() {
    let mut rules = many(4200);
    let mut kernel = kernel_with(&mut rules);
    set(&mut rules, numbered(6000).served_by(&[ONE, TWO]));
    let script = rules.partial().unwrap();
    assert_eq!(
        written(&script.text),
        [
            "KUBE-SEP",
            "KUBE-SEP",
            "KUBE-SVC",
            "KUBE-SVC-DISPATCH-00-07"
        ]
    );
    assert!(script.nat_rules < 70, "{} rules", script.nat_rules);
    kernel.restore(&script.text).unwrap();
}

#[test]
fn a_service_without_endpoints_moves_to_the_filter() {
    let mut rules = many(10);
    let mut kernel = kernel_with(&mut rules);
    set(&mut rules, numbered(3));
    let script = rules.partial().unwrap();
    let expected = [
        "KUBE-SEP",
        "KUBE-SEP",
        "KUBE-SERVICES",
        "KUBE-SERVICES",
        "KUBE-SVC",
    ];
    assert_eq!(written(&script.text), expected);
    assert_eq!(script.filter_rules, 1);
    kernel.restore(&script.text).unwrap();
}

#[test]
fn what_came_and_went_between_two_texts_is_not_written() {
    let mut rules = many(400);
    kernel_with(&mut rules);
    set(&mut rules, numbered(520).served_by(&[ONE]));
    rules.set(&name("s520"), &[]);
    let script = rules.partial().unwrap();
    assert_eq!(written(&script.text), ["KUBE-SVC-DISPATCH-08"]);
}

#[test]
fn more_services_make_more_parts_and_fewer_do_not_at_once() {
    let mut rules = many(128);
    let mut kernel = kernel_with(&mut rules);
    let parts = |kernel: &Kernel| {
        let chains = kernel.chains(Table::Nat);
        chains.filter(|name| name.contains("DISPATCH")).count()
    };
    assert_eq!(parts(&kernel), 0);
    for (service, expected) in [
        (numbered(128).served_by(&[ONE]), 4),
        (numbered(128), 4),
        (numbered(127), 4),
    ] {
        set(&mut rules, service);
        bring_up_to_date(&mut rules, &mut kernel);
        assert_eq!(parts(&kernel), expected);
    }
    for i in 31..128 {
        set(&mut rules, numbered(i));
    }
    bring_up_to_date(&mut rules, &mut kernel);
    assert_eq!(parts(&kernel), 0);
    assert!(kernel == kernel_with(&mut many_with_refused(31, 129)));
}

/// The first so many with endpoints, the rest without.
fn many_with_refused(served: u16, all: u16) -> RuleSet {
    let mut rules = many(served);
    for i in served..all {
        set(&mut rules, numbered(i));
    }
    rules
}

#[test]
fn large_clusters_do_without_comments_at_endpoints() {
    let mut rules = many(500);
    let mut kernel = kernel_with(&mut rules);
    let commented = |kernel: &Kernel| {
        let chains: Vec<_> = kernel.chains(Table::Nat).collect();
        let endpoint = chains.iter().find(|name| name.starts_with("KUBE-SEP"));
        let rules = kernel.rules(Table::Nat, endpoint.unwrap()).unwrap();
        rules[0].contains("--comment")
    };
    assert!(commented(&kernel));
    set(&mut rules, numbered(500).served_by(&[ONE]));
    assert!(rules.wants_full());
    bring_up_to_date(&mut rules, &mut kernel);
    assert!(!commented(&kernel));
    rules.set(&name("s500"), &[]);
    assert!(!rules.wants_full(), "one endpoint less rewrites everything");
    for i in 399..500 {
        rules.set(&name(&format!("s{i}")), &[]);
    }
    assert!(rules.wants_full());
    bring_up_to_date(&mut rules, &mut kernel);
    assert!(commented(&kernel));
}

#[test]
fn chains_that_others_touched_are_written_again() {
    let mut rules = many(200);
    let mut kernel = kernel_with(&mut rules);
    let good = kernel.clone();
    let chain = |prefix: &str| {
        let mut chains = good.chains(Table::Nat);
        chains.find(|name| name.starts_with(prefix)).unwrap()
    };
    let fixed = "KUBE-SERVICES KUBE-MARK-MASQ KUBE-POSTROUTING KUBE-NODEPORTS";
    let of_services = [
        chain("KUBE-SVC-A"),
        chain("KUBE-SEP-"),
        chain("KUBE-SVC-DISPATCH-"),
    ];
    for name in fixed.split(' ').chain(of_services) {
        kernel
            .restore(&format!("*nat\n:{name} - [0:0]\nCOMMIT\n"))
            .unwrap();
        rules.touched(&[ChainId::new(Table::Nat, name)]);
        let script = rules.partial().unwrap();
        assert_eq!(written(&script.text).len(), 1, "{}", script.text);
        kernel.restore(&script.text).unwrap();
        rules.sent();
    }
    assert!(kernel == good);
}

#[test]
fn chains_of_others_are_no_concern() {
    let mut rules = many(3);
    kernel_with(&mut rules);
    rules.touched(&[
        ChainId::new(Table::Nat, "DOCKER"),
        ChainId::new(Table::Nat, "KUBE-SVC-ABCDEFGHIJKLMNOP"),
        ChainId::new(Table::Mangle, "INPUT"),
    ]);
    assert!(rules.is_clean());
    for (table, name) in [
        (Table::Filter, "INPUT"),
        (Table::Nat, "PREROUTING"),
        (Table::Mangle, CANARY),
    ] {
        rules.touched(&[ChainId::new(table, name)]);
        assert!(rules.wants_full(), "{name}");
        kernel_with(&mut rules);
    }
}

#[test]
fn jumps_are_made_once_and_stand_as_kube_proxys() {
    let mut rules = many(1);
    let mut kernel = kernel_with(&mut rules);
    let input = kernel.rules(Table::Filter, "INPUT").unwrap();
    let targets: Vec<_> = input
        .iter()
        .map(|r| r.rsplit_once(' ').unwrap().1)
        .collect();
    let expected = [
        "KUBE-FIREWALL",
        "KUBE-PROXY-FIREWALL",
        "KUBE-NODEPORTS",
        "KUBE-EXTERNAL-SERVICES",
    ];
    assert_eq!(targets, expected);
    let before = kernel.clone();
    rules.want_full();
    bring_up_to_date(&mut rules, &mut kernel);
    assert!(kernel == before);
}

#[test]
fn stale_chains_go_unless_others_use_them() {
    let mut kernel = Kernel::default();
    kernel
        .restore(
            "*nat\n:KUBE-SVC-OLD - [0:0]\n:KUBE-SEP-OLD - [0:0]\n:KUBE-SVC-USED - [0:0]\n\
             :KUBE-HOSTPORTS - [0:0]\n-A KUBE-SVC-OLD -j KUBE-SEP-OLD\n\
             -A KUBE-SVC-USED -j KUBE-SEP-OLD\n-A INPUT -j KUBE-SVC-USED\nCOMMIT\n",
        )
        .unwrap();
    let mut rules = many(1);
    bring_up_to_date(&mut rules, &mut kernel);
    let chains: Vec<_> = kernel.chains(Table::Nat).collect();
    assert!(!chains.iter().any(|name| name.ends_with("-OLD")));
    assert!(chains.contains(&"KUBE-HOSTPORTS"));
    assert_eq!(kernel.rules(Table::Nat, "KUBE-SVC-USED"), Some(vec![]));
}

#[test]
fn clean_up_leaves_what_is_not_ours() {
    let mut kernel = Kernel::default();
    let others = "*filter\n:KUBE-FIREWALL - [0:0]\n-I INPUT -j KUBE-FIREWALL\n\
                  -I OUTPUT -j KUBE-FIREWALL\n-A FORWARD -s 10.0.0.0/8 -j ACCEPT\nCOMMIT\n\
                  *nat\n:CNI-HOSTPORT - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n\
                  -A KUBE-MARK-MASQ -j MARK --or-mark 0x00004000\n\
                  -A CNI-HOSTPORT -j KUBE-MARK-MASQ\nCOMMIT\n";
    kernel.restore(others).unwrap();
    let mut rules = many(300);
    // Without localhost's node ports KUBE-FIREWALL is the kubelet's alone.
    rules.set_settings(RuleSettings {
        localhost_node_ports: false,
        ..RuleSettings::default()
    });
    let before = kernel.clone();
    bring_up_to_date(&mut rules, &mut kernel);
    kernel
        .restore(&RuleSet::cleanup(&kernel.found()).text)
        .unwrap();
    assert!(kernel == before);
    assert_eq!(RuleSet::cleanup(&Found::default()).text, "");
}

#[test]
fn an_untold_outcome_counts_as_a_failure() {
    let mut rules = many(3);
    kernel_with(&mut rules);
    set(&mut rules, numbered(1));
    assert!(rules.partial().is_some());
    set(&mut rules, numbered(2));
    assert_eq!(rules.partial(), None);
    assert!(rules.wants_full());
}

#[test]
fn numbers_for_metrics() {
    let local = service("local", "10.96.9.9")
        .served_by(&[ONE])
        .internal_local()
        .external_local()
        .node_port(30001);
    let mut rules = many(700);
    set(&mut rules, local);
    set(&mut rules, numbered(800));
    rules.set_health_ports([(name("local"), NonZeroU16::new(32000).unwrap())]);
    let mut kernel = kernel_with(&mut rules);
    let lacking = NoLocalEndpoints {
        internal: 1,
        external: 1,
    };
    assert_eq!(rules.no_local_endpoints(), lacking);
    let counted = |kernel: &Kernel, table| {
        let chains = kernel.chains(table);
        let ours = chains.filter(|name| name.starts_with("KUBE-"));
        ours.map(|name| kernel.rules(table, name).unwrap().len())
            .sum::<usize>()
    };
    for table in [Table::Filter, Table::Nat, Table::Mangle] {
        assert_eq!(rules.rules(table), counted(&kernel, table));
    }
    rules.set_settings(cluster_cidr("10.0.0.0/8"));
    bring_up_to_date(&mut rules, &mut kernel);
    assert_eq!(rules.rules(Table::Nat), counted(&kernel, Table::Nat));
}

#[test]
fn large_texts_are_cut_for_nf_tables_and_whole_for_legacy() {
    let commits = |backend| {
        let settings = RuleSettings {
            backend,
            ..RuleSettings::default()
        };
        let mut rules = many(1000);
        rules.set_settings(settings);
        let text = rules.full(&Found::default()).text;
        let mut kernel = Kernel::default();
        kernel.restore(&text).unwrap();
        (text.matches("\nCOMMIT\n").count(), kernel)
    };
    let (legacy, in_legacy) = commits(Backend::Legacy);
    let (nf_tables, in_nf_tables) = commits(Backend::NfTables);
    assert_eq!(legacy, 3);
    assert_eq!(nf_tables, 6);
    assert!(in_legacy == in_nf_tables);
}
