use proptest::prelude::*;

use super::*;
use crate::pod::testing::{node, with_spec};

fn rendered(spec: &str) -> (DnsSpec, Vec<DnsWarning>) {
    render(&with_spec(spec), &node())
}

fn spec(servers: &[&str], searches: &[&str], options: &[&str]) -> DnsSpec {
    let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
    DnsSpec {
        servers: owned(servers),
        searches: owned(searches),
        options: owned(options),
    }
}

#[test]
fn the_policy_decides_the_base() {
    let cluster = spec(
        &["10.96.0.10"],
        &[
            "default.svc.cluster.local",
            "svc.cluster.local",
            "cluster.local",
            "example.com",
        ],
        &["ndots:5"],
    );
    let host = node().dns.host;
    for (pod, expected) in [
        ("{dnsPolicy: ClusterFirst, containers: []}", &cluster),
        ("{containers: []}", &cluster),
        (
            "{dnsPolicy: ClusterFirst, hostNetwork: true, containers: []}",
            &host,
        ),
        (
            "{dnsPolicy: ClusterFirstWithHostNet, hostNetwork: true, containers: []}",
            &cluster,
        ),
        ("{dnsPolicy: Default, containers: []}", &host),
        ("{dnsPolicy: None, containers: []}", &DnsSpec::default()),
    ] {
        assert_eq!(rendered(pod), (expected.clone(), vec![]), "{pod}");
    }
}

#[test]
fn dns_config_is_merged_in() {
    let (dns, _) = rendered(
        "{dnsPolicy: ClusterFirst, containers: [], dnsConfig: {
           nameservers: [1.1.1.1, 10.96.0.10], searches: [corp.example, cluster.local],
           options: [{name: ndots, value: '2'}, {name: edns0}, {name: x, value: ''}]}}",
    );
    assert_eq!(dns.servers, ["10.96.0.10", "1.1.1.1"]);
    assert_eq!(
        dns.searches,
        [
            "default.svc.cluster.local",
            "svc.cluster.local",
            "cluster.local",
            "example.com",
            "corp.example"
        ]
    );
    assert_eq!(dns.options, ["ndots:2", "edns0", "x"]);
}

#[test]
fn without_cluster_dns_the_host_serves_and_people_hear_of_it() {
    let mut facts = node();
    facts.dns.cluster_servers.clear();
    let (dns, warnings) = render(
        &with_spec("{dnsPolicy: ClusterFirst, containers: []}"),
        &facts,
    );
    assert_eq!(dns, facts.dns.host);
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0].reason(), "MissingClusterDNS");
    assert_eq!(
        warnings[0].message(),
        "pod: \"p_default(u)\". kubelet does not have ClusterDNS IP configured and cannot create \
         Pod using \"ClusterFirst\" policy. Falling back to \"Default\" policy."
    );
    assert!(warnings[0].node_message().is_some());
}

#[test]
fn what_exceeds_the_limits_is_cut_with_a_warning() {
    let (dns, warnings) = rendered(
        "{dnsPolicy: None, containers: [],
          dnsConfig: {nameservers: [1.1.1.1, 1.1.1.2, 1.1.1.3, 1.1.1.4]}}",
    );
    assert_eq!(dns.servers, ["1.1.1.1", "1.1.1.2", "1.1.1.3"]);
    assert_eq!(warnings[0].reason(), "DNSConfigForming");
    assert_eq!(
        warnings[0].message(),
        "Nameserver limits were exceeded, some nameservers have been omitted, the applied \
         nameserver line is: 1.1.1.1 1.1.1.2 1.1.1.3"
    );
    let long = "a".repeat(254);
    let (dns, warnings) = rendered(&format!(
        "{{dnsPolicy: None, containers: [], dnsConfig: {{searches: [a.b, {long}, c.d]}}}}"
    ));
    assert_eq!(dns.searches, ["a.b", "c.d"]);
    assert_eq!(
        warnings[0].message(),
        "Search Line limits were exceeded, some search paths have been omitted, the applied \
         search line is: a.b c.d"
    );
}

#[test]
fn host_resolver_settings_are_read() {
    let text = "# comment\n\
        nameserver 192.0.2.1\n\
        \tnameserver  192.0.2.2 ignored\n\
        nameserver\n\
        search old.example\n\
        ; other comment\n\
        search example.com. . sub.example.com\n\
        options ndots:1 timeout:3\r\n\
        options ndots:2 rotate\n\
        domain x\n\
        unknown line\n";
    assert_eq!(
        parse_resolv_conf(text),
        spec(
            &["192.0.2.1", "192.0.2.2"],
            &["example.com", "sub.example.com"],
            &["ndots:2", "timeout:3", "rotate"],
        )
    );
    assert_eq!(parse_resolv_conf(""), DnsSpec::default());
}

#[test]
fn no_search_at_all_has_no_place_beside_the_clusters() {
    let mut facts = node();
    facts.dns.host = resolver_on_node(&facts.host_ips);
    assert_eq!(facts.dns.host, spec(&["127.0.0.1"], &["."], &[]));
    let (dns, _) = render(&with_spec("{containers: []}"), &facts);
    assert_eq!(dns.searches.len(), 3);
    assert_eq!(resolver_on_node(&["::1".parse().unwrap()]).servers, ["::1"]);
    assert_eq!(resolver_on_node(&[]).servers, ["127.0.0.1"]);
}

#[test]
fn the_nodes_search_line_must_leave_room_for_the_clusters() {
    let problem = |searches: Vec<String>, domain: &str| {
        let dns = DnsSpec {
            searches,
            ..DnsSpec::default()
        };
        host_limits(&dns, "/r", domain)
    };
    let paths = |count: usize, length: usize| vec!["a".repeat(length); count];
    for (searches, domain, expected) in [
        (paths(29, 10), "cluster.local", None),
        (
            paths(30, 10),
            "cluster.local",
            Some("Resolv.conf file '/r' contains search line consisting of more than 29 domains!"),
        ),
        (paths(32, 10), "", None),
        (
            paths(1, 254),
            "",
            Some(
                "Resolv.conf file \"/r\" contains a search path which length is more than \
                 allowed 253 chars!",
            ),
        ),
        (
            paths(20, 200),
            "",
            Some(
                "Resolv.conf file '/r' contains search line which length is more than allowed \
                 2048 chars!",
            ),
        ),
    ] {
        assert_eq!(problem(searches, domain).as_deref(), expected);
    }
}

proptest! {
    #[test]
    fn limits_are_never_exceeded(
        servers in prop::collection::vec(1usize..20, 0..8),
        searches in prop::collection::vec(1usize..300, 0..50),
    ) {
        let of_lengths = |lengths: Vec<usize>| lengths.iter().map(|n| "a".repeat(*n)).collect();
        let mut dns = DnsSpec {
            servers: of_lengths(servers),
            searches: of_lengths(searches),
            options: vec![],
        };
        let wanted = dns.clone();
        let warnings = [limit_servers(&mut dns.servers), limit_searches(&mut dns.searches)];
        prop_assert!(dns.servers.len() <= 3);
        prop_assert!(dns.searches.len() <= 32);
        prop_assert!(dns.searches.iter().all(|s| s.len() <= 253));
        prop_assert!(dns.searches.join(" ").len() <= 2048);
        prop_assert_eq!(warnings[0].is_some(), dns.servers != wanted.servers);
        prop_assert_eq!(warnings[1].is_some(), dns.searches != wanted.searches);
    }

    #[test]
    fn any_file_parses(text in "(nameserver|search|options|#|[ a-z.:\n]){0,40}|\\PC*") {
        let dns = parse_resolv_conf(&text);
        prop_assert!(dns.searches.iter().all(|s| !s.contains(' ')));
    }
}
