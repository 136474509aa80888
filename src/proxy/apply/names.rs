//! Which chains are the service proxy's: the names that kube-proxy gives and
//! nobody else.
//!
//! In: a table and a chain's name. Out: whose it is.

use crate::proxy::model::Table;

/// Chains with fixed names, and the tables that have them.
const FIXED: &[(&str, &[Table])] = &[
    ("KUBE-SERVICES", &[Table::Nat, Table::Filter]),
    ("KUBE-NODEPORTS", &[Table::Nat, Table::Filter]),
    ("KUBE-POSTROUTING", &[Table::Nat]),
    ("KUBE-MARK-MASQ", &[Table::Nat]),
    ("KUBE-EXTERNAL-SERVICES", &[Table::Filter]),
    ("KUBE-FORWARD", &[Table::Filter]),
    ("KUBE-PROXY-FIREWALL", &[Table::Filter]),
    ("KUBE-FIREWALL", &[Table::Filter]),
    (
        "KUBE-PROXY-CANARY",
        &[Table::Mangle, Table::Nat, Table::Filter],
    ),
];

/// Prefixes of the chains that take a service's traffic.
const SERVICE: &[&str] = &["KUBE-SVC-", "KUBE-SVL-", "KUBE-EXT-", "KUBE-FW-"];
const ENDPOINT: &str = "KUBE-SEP-";
/// The parts into which long dispatching chains are split.
const DISPATCH: &str = "KUBE-SVC-DISPATCH-";
/// Characters of the hash that ends the name of a service's or endpoint's chain.
const HASH_LENGTH: usize = 16;

/// Whether a chain is the service proxy's, this one's or upstream's.
#[must_use]
pub fn is_ours(table: Table, name: &str) -> bool {
    // Nearly all chains of a host are told apart here.
    if !name.starts_with("KUBE-") {
        return false;
    }
    FIXED
        .iter()
        .any(|(fixed, tables)| *fixed == name && tables.contains(&table))
        || (table == Table::Nat && (takes_traffic(name) || has_hash(name, ENDPOINT)))
        || (table != Table::Mangle && is_dispatch(name))
}

/// Whether a rule that jumps to this chain gives it a service's traffic.
pub(super) fn takes_traffic(name: &str) -> bool {
    SERVICE.iter().any(|prefix| has_hash(name, prefix))
}

/// Whether the chain is a part of a long dispatching chain.
pub(super) fn is_dispatch(name: &str) -> bool {
    name.strip_prefix(DISPATCH)
        .is_some_and(|rest| !rest.is_empty())
}

fn has_hash(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|hash| {
        hash.len() == HASH_LENGTH
            && hash
                .bytes()
                .all(|byte| matches!(byte, b'A'..=b'Z' | b'2'..=b'7'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use Table::{Filter, Mangle, Nat};

    #[test]
    fn only_names_of_kube_proxy_are_ours() {
        for (table, name, ours) in [
            (Nat, "KUBE-SERVICES", true),
            (Filter, "KUBE-SERVICES", true),
            (Mangle, "KUBE-SERVICES", false),
            (Mangle, "KUBE-PROXY-CANARY", true),
            (Mangle, "KUBE-KUBELET-CANARY", false),
            (Nat, "KUBE-MARK-DROP", false),
            (Nat, "KUBE-SVC-NPX46M4PTMTKRN6Y", true),
            (Filter, "KUBE-SVC-NPX46M4PTMTKRN6Y", false),
            (Nat, "KUBE-SVC-NPX46M4PTMTKRN6", false),
            (Nat, "KUBE-SVC-npx46m4ptmtkrn6y", false),
            (Nat, "KUBE-SEP-7777777777777777", true),
            (Nat, "KUBE-SVC-DISPATCH-A7", true),
            (Nat, "KUBE-SVC-DISPATCH-", false),
            (Nat, "KUBE-ROUTER-INPUT", false),
            (Nat, "PREROUTING", false),
            (Nat, "", false),
        ] {
            assert_eq!(is_ours(table, name), ours, "{table:?} {name}");
        }
    }

    #[test]
    fn dispatching_chains_and_endpoints_take_no_service() {
        assert!(takes_traffic("KUBE-FW-NPX46M4PTMTKRN6Y"));
        assert!(!takes_traffic("KUBE-SEP-NPX46M4PTMTKRN6Y"));
        assert!(!takes_traffic("KUBE-SVC-DISPATCH-A7"));
    }
}
