use proptest::prelude::*;

use super::*;

const KERNEL: u16 = 0;

fn attribute_bytes(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(ATTRIBUTE_HEADER + value.len()).unwrap();
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn string(kind: u16, text: &str) -> Vec<u8> {
    attribute_bytes(kind, format!("{text}\0").as_bytes())
}

fn message(kind: i32, family: i32, body: &[Vec<u8>]) -> Vec<u8> {
    let body = body.concat();
    let length = u32::try_from(16 + FAMILY_HEADER + body.len()).unwrap();
    let kind = u16::try_from((libc::NFNL_SUBSYS_NFTABLES << 8) | kind).unwrap();
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(KERNEL.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([u8::try_from(family).unwrap(), 0, 0, 0]);
    bytes.extend(body);
    bytes
}

fn rule(kind: i32, table: &str, chain: &str, jump: Option<&str>) -> Vec<u8> {
    let mut body = vec![string(TABLE, table), string(RULE_CHAIN, chain)];
    if let Some(jump) = jump {
        // A counter before it, as iptables writes rules.
        let counter = attribute_bytes(
            LIST_ELEMENT,
            &[string(1, "counter"), attribute_bytes(EXPRESSION_DATA, &[])].concat(),
        );
        let verdict = attribute_bytes(DATA_VERDICT, &string(VERDICT_CHAIN, jump));
        let immediate =
            attribute_bytes(EXPRESSION_DATA, &attribute_bytes(IMMEDIATE_DATA, &verdict));
        let jump = attribute_bytes(LIST_ELEMENT, &[string(1, "immediate"), immediate].concat());
        body.push(attribute_bytes(RULE_EXPRESSIONS, &[counter, jump].concat()));
    }
    message(kind, libc::NFPROTO_IPV4, &body)
}

fn generation(name: &str, pid: u32) -> Vec<u8> {
    let pid = attribute_bytes(GEN_PROCESS_ID, &pid.to_be_bytes());
    message(
        libc::NFT_MSG_NEWGEN,
        0,
        &[pid, string(GEN_PROCESS_NAME, name)],
    )
}

/// The chains told for one message that is a whole change.
fn told(message: Vec<u8>) -> Option<Chains> {
    let mut collector = Collector::new(&Family::ALL);
    let mut told = collector.take(&[message, generation("x", 1)].concat());
    assert!(told.len() <= 1);
    told.pop().map(|disturbance| disturbance.chains)
}

fn nat(chain: &str) -> Option<Chains> {
    Some(named(Table::Nat, chain))
}

#[test]
fn only_changes_to_what_is_ours_count() {
    const SVC: &str = "KUBE-SVC-AAAAAAAAAAAAAAAA";
    let (new, del) = (libc::NFT_MSG_NEWRULE, libc::NFT_MSG_DELRULE);
    let chain = |kind, name| {
        let body = [string(TABLE, "nat"), string(CHAIN_NAME, name)];
        message(kind, libc::NFPROTO_IPV4, &body)
    };
    let inet = message(
        libc::NFT_MSG_DELTABLE,
        libc::NFPROTO_INET,
        &[string(TABLE, "nat")],
    );
    let table = |name| {
        message(
            libc::NFT_MSG_DELTABLE,
            libc::NFPROTO_IPV6,
            &[string(TABLE, name)],
        )
    };
    for (message, expected) in [
        (rule(new, "nat", SVC, None), nat(SVC)),
        (rule(del, "nat", SVC, Some("KUBE-MARK-MASQ")), nat(SVC)),
        (
            rule(del, "nat", "OUTPUT", Some("KUBE-SERVICES")),
            nat("OUTPUT"),
        ),
        (rule(new, "nat", "OUTPUT", Some("KUBE-SERVICES")), None),
        (rule(del, "nat", "OUTPUT", Some("DOCKER")), None),
        (rule(del, "nat", "OUTPUT", None), None),
        (rule(del, "raw", "OUTPUT", Some("KUBE-SERVICES")), None),
        (chain(libc::NFT_MSG_DELCHAIN, SVC), nat(SVC)),
        (chain(libc::NFT_MSG_NEWCHAIN, SVC), nat(SVC)),
        (chain(libc::NFT_MSG_DELCHAIN, "DOCKER"), None),
        (table("filter"), Some(Chains::All)),
        (table("raw"), None),
        (inet, None),
    ] {
        assert_eq!(told(message.clone()), expected, "{message:?}");
    }
}

#[test]
fn a_change_is_told_when_it_is_complete_and_with_who_made_it() {
    let mut collector = Collector::new(&[Family::V4]);
    let flush = |chain| rule(libc::NFT_MSG_DELRULE, "nat", chain, None);
    assert_eq!(collector.take(&flush("KUBE-SERVICES")), []);
    assert_eq!(collector.take(&flush("KUBE-NODEPORTS")), []);
    let told = collector.take(&generation("iptables", 42));
    let chains = ["KUBE-NODEPORTS", "KUBE-SERVICES"];
    let expected = Disturbance {
        family: Family::V4,
        chains: Chains::Named(chains.map(|name| ChainId::new(Table::Nat, name)).into()),
        by: Some("iptables".to_owned()),
        pid: Some(42),
        writer: None,
    };
    assert_eq!(told, [expected]);
    assert_eq!(collector.take(&generation("iptables", 43)), []);
}

#[test]
fn lost_events_may_have_been_about_anything() {
    let mut collector = Collector::new(&Family::ALL);
    let told = collector.lost();
    assert_eq!(told.len(), 2);
    assert!(told.iter().all(|told| told.chains == Chains::All));
    let mut collector = Collector::new(&[Family::V6]);
    assert_eq!(collector.lost().len(), 1);
}

proptest! {
    #[test]
    fn no_datagram_makes_it_panic(noise in prop::collection::vec(any::<u8>(), 0..300)) {
        Collector::new(&Family::ALL).take(&noise);
    }

    #[test]
    fn no_damage_makes_it_panic(at in 0_usize..400, byte in any::<u8>(), keep in 0_usize..400) {
        let mut datagram = rule(libc::NFT_MSG_DELRULE, "nat", "OUTPUT", Some("KUBE-SERVICES"));
        datagram.extend(generation("x", 1));
        if let Some(place) = datagram.get_mut(at) {
            *place = byte;
        }
        datagram.truncate(keep);
        Collector::new(&Family::ALL).take(&datagram);
    }
}
