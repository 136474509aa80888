//! Tables and goldens; nothing here touches a machine.

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| ip(text)).collect()
}

fn candidates(looked_up: &[&str], routed: &[&str]) -> Candidates {
    Candidates {
        local: ips(&["127.0.0.1", "10.0.0.5", "10.0.0.6", "fd00::5", "fe80::1"]),
        looked_up: ips(looked_up),
        routed: ips(routed),
    }
}

#[test]
fn choices() {
    let none = candidates(&[], &[]);
    let both_routes = candidates(&[], &["10.0.0.5", "fd00::5"]);
    for (asked, name, found, expected) in [
        (NodeIps::One(ip("10.0.0.5")), "n", &none, &["10.0.0.5"][..]),
        (
            NodeIps::Pair(ip("fd00::5"), ip("10.0.0.5")),
            "n",
            &none,
            &["fd00::5", "10.0.0.5"],
        ),
        (NodeIps::Auto, "10.9.9.9", &both_routes, &["10.9.9.9"]),
        (NodeIps::Auto, "n", &both_routes, &["10.0.0.5"]),
        (NodeIps::PreferV4, "n", &both_routes, &["10.0.0.5"]),
        (NodeIps::PreferV6, "n", &both_routes, &["fd00::5"]),
        (
            NodeIps::PreferV6,
            "n",
            &candidates(&[], &["10.0.0.5"]),
            &["10.0.0.5"],
        ),
        // Debian's installer puts the name on 127.0.1.1.
        (
            NodeIps::Auto,
            "n",
            &candidates(&["127.0.1.1"], &["10.0.0.5"]),
            &["10.0.0.5"],
        ),
        (
            NodeIps::Auto,
            "n",
            &candidates(&["192.0.2.7", "fd00::5", "10.0.0.6"], &["10.0.0.5"]),
            &["10.0.0.6"],
        ),
        (
            NodeIps::Auto,
            "n",
            &candidates(&["fd00::5"], &["10.0.0.5"]),
            &["fd00::5"],
        ),
    ] {
        let chosen = choose(asked, name, found).unwrap();
        assert_eq!(chosen, ips(expected), "{asked:?} {name} {found:?}");
    }
}

#[test]
fn refusals() {
    for (asked, message) in [
        (
            NodeIps::One(ip("192.0.2.7")),
            "node IP 192.0.2.7 is not an address of this machine's interfaces",
        ),
        (
            NodeIps::One(ip("127.0.0.1")),
            "node IP 127.0.0.1 is a loopback address, which other machines cannot reach",
        ),
        (
            NodeIps::Pair(ip("10.0.0.5"), ip("fe80::1")),
            "node IP fe80::1 is a link-local address, which other machines cannot reach",
        ),
        (
            NodeIps::Auto,
            "\"n\" has no usable address, and there is no default route",
        ),
    ] {
        let error = choose(asked, "n", &candidates(&[], &[])).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
}

fn texts(addresses: &[NodeAddress]) -> Vec<String> {
    addresses
        .iter()
        .map(|a| format!("{} {}", a.type_, a.address))
        .collect()
}

#[test]
fn addresses_of_the_node_object() {
    let plain = NodeSettings::for_test();
    let cloud = NodeSettings {
        external_cloud_provider: true,
        ..NodeSettings::for_test()
    };
    let cloud_with_ip = NodeSettings {
        ips: NodeIps::One(ip("10.0.0.5")),
        ..cloud.clone()
    };
    let set = [address("ExternalIP", "198.51.100.1".to_owned())];
    let found = ips(&["10.0.0.5"]);
    for (settings, internal, existing, expected) in [
        (
            &plain,
            Some(&found),
            &[][..],
            &["InternalIP 10.0.0.5", "Hostname node-1"][..],
        ),
        (
            &plain,
            Some(&found),
            &set,
            &["InternalIP 10.0.0.5", "Hostname node-1"],
        ),
        (&plain, None, &set, &["ExternalIP 198.51.100.1"]),
        (&cloud, Some(&found), &[], &["Hostname node-1"]),
        (&cloud, Some(&found), &set, &["ExternalIP 198.51.100.1"]),
        (
            &cloud_with_ip,
            Some(&found),
            &[],
            &["InternalIP 10.0.0.5", "Hostname node-1"],
        ),
    ] {
        let addresses = node_addresses(settings, internal.map(Vec::as_slice), existing);
        assert_eq!(texts(&addresses), expected);
    }
    assert_eq!(provided_ip(&plain), None);
    assert_eq!(provided_ip(&cloud), None);
    assert_eq!(provided_ip(&cloud_with_ip).as_deref(), Some("10.0.0.5"));
}

#[test]
fn hosts_of_pods() {
    let list = |entries: &[(&str, &str)]| -> Vec<NodeAddress> {
        entries
            .iter()
            .map(|(kind, text)| address(kind, (*text).to_owned()))
            .collect()
    };
    for (addresses, expected) in [
        (list(&[("Hostname", "n")]), &[][..]),
        (
            list(&[("ExternalIP", "198.51.100.1"), ("InternalIP", "10.0.0.5")]),
            &["10.0.0.5"],
        ),
        (
            list(&[("InternalIP", "10.0.0.5"), ("InternalIP", "fd00::5")]),
            &["10.0.0.5", "fd00::5"],
        ),
        (list(&[("ExternalIP", "198.51.100.1")]), &["198.51.100.1"]),
    ] {
        assert_eq!(host_ips(&addresses), ips(expected));
    }
}

#[tokio::test]
async fn an_address_that_is_still_there_stays() {
    let settings = NodeSettings::for_test();
    let previous = ips(&["127.0.0.1"]);
    let found = discover(&settings, &previous).await.unwrap();
    assert_eq!(found, previous);
}
