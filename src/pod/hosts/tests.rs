use super::*;
use crate::pod::testing::{first, with_spec};

fn rendered(spec: &str, ips: &[&str]) -> Option<String> {
    let pod = with_spec(spec);
    let ips: Vec<IpAddr> = ips.iter().map(|ip| ip.parse().unwrap()).collect();
    render(
        &pod,
        first(&pod),
        &ips,
        "192.0.2.10 node-1\n",
        "cluster.local",
    )
}

#[test]
fn a_pod_finds_itself() {
    let text = rendered("{containers: [{name: a}]}", &["10.0.0.5", "fd00::5"]).unwrap();
    insta::assert_snapshot!(text, @r"
    # Kubernetes-managed hosts file.
    127.0.0.1	localhost
    ::1	localhost ip6-localhost ip6-loopback
    fe00::0	ip6-localnet
    fe00::0	ip6-mcastprefix
    fe00::1	ip6-allnodes
    fe00::2	ip6-allrouters
    10.0.0.5	p
    fd00::5	p
    ");
}

#[test]
fn domain_and_aliases_are_written() {
    let text = rendered(
        "{subdomain: s, hostAliases: [{ip: 1.2.3.4, hostnames: [a.example, b.example]}, {ip: 1.2.3.5}],
          containers: [{name: a}]}",
        &["10.0.0.5"],
    );
    let text = text.unwrap();
    assert!(text.ends_with(
        "10.0.0.5\tp.s.default.svc.cluster.local\tp\n\n# Entries added by HostAliases.\n\
         1.2.3.4\ta.example\tb.example\n1.2.3.5\t\n"
    ));
}

#[test]
fn on_the_hosts_network_the_hosts_file_is_the_base() {
    let spec = "{hostNetwork: true, hostAliases: [{ip: 1.2.3.4, hostnames: [a]}], containers: [{name: a}]}";
    assert_eq!(
        rendered(spec, &[]).unwrap(),
        "# Kubernetes-managed hosts file (host network).\n192.0.2.10 node-1\n\n\
         # Entries added by HostAliases.\n1.2.3.4\ta\n"
    );
}

#[test]
fn some_containers_get_none() {
    assert_eq!(rendered("{containers: [{name: a}]}", &[]), None);
    let own = "{containers: [{name: a, volumeMounts: [{name: v, mountPath: /etc/hosts}]}]}";
    assert_eq!(rendered(own, &["10.0.0.5"]), None);
}
