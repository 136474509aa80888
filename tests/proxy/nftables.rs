//! What kube-proxy's nftables mode leaves, in real nf_tables.

use std::process::Command;

use kubelet::proxy::apply::{Iptables, Removal};
use kubelet::proxy::model::Family;

use crate::apply::{host, run, small};
use crate::isolate::isolated;

/// As kube-proxy builds it: a hook that leads to a map, which leads to a chain.
fn table(kind: &str, name: &str) -> String {
    let (address, service) = match kind {
        "ip" => ("ipv4_addr", "10.0.0.10"),
        _ => ("ipv6_addr", "fd00::10"),
    };
    format!(
        "table {kind} {name} {{
            chain service {{ counter drop; }}
            map service-ips {{
                type {address} . inet_proto . inet_service : verdict;
                elements = {{ {service} . tcp . 80 : goto service }};
            }}
            chain services {{ {kind} daddr . meta l4proto . th dport vmap @service-ips; }}
            chain nat-output {{
                type nat hook output priority -100; policy accept;
                jump services;
            }}
        }}"
    )
}

fn tables() -> Vec<String> {
    let output = Command::new("nft")
        .args(["list", "tables"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let mut tables: Vec<String> = text.lines().map(str::to_owned).collect();
    tables.sort_unstable();
    tables
}

#[test]
fn the_nftables_modes_table_is_removed_with_all_that_is_in_it_and_no_other() {
    isolated(
        "nftables::the_nftables_modes_table_is_removed_with_all_that_is_in_it_and_no_other",
        async {
            let host = host("nft").await;
            for (family, address) in [(Family::V4, "10.0.0.10/32"), (Family::V6, "fd00::10/128")] {
                host.restore(family, &small(address)).await.unwrap();
                let absent = host.remove_nftables_mode(family).await.unwrap();
                assert_eq!(absent, Removal::WasAbsent);
            }
            for kind in ["ip", "ip6"] {
                run("nft", &[&table(kind, "other")]);
            }
            let others = tables();
            for kind in ["ip", "ip6"] {
                run("nft", &[&table(kind, "kube-proxy")]);
            }
            assert_eq!(tables().len(), others.len() + 2);
            for family in Family::ALL {
                let removed = host.remove_nftables_mode(family).await.unwrap();
                assert_eq!(removed, Removal::Removed, "{family:?}");
            }
            assert_eq!(tables(), others);
        },
    );
}
