use super::*;
use crate::pod::testing::{pod, with_spec};

fn named(spec: &str) -> Result<(String, String), String> {
    of(&with_spec(spec), "cluster.local")
        .map(|name| (name.host, name.domain))
        .map_err(|error| error.to_string())
}

#[test]
fn names_come_from_the_spec_or_the_pod() {
    for (spec, host, domain) in [
        ("{containers: []}", "p", ""),
        ("{hostname: h, containers: []}", "h", ""),
        ("{hostname: '', containers: []}", "p", ""),
        (
            "{subdomain: s, containers: []}",
            "p",
            "s.default.svc.cluster.local",
        ),
        (
            "{hostname: h, subdomain: s, containers: []}",
            "h",
            "s.default.svc.cluster.local",
        ),
        (
            "{hostnameOverride: a.b-c, subdomain: s, containers: []}",
            "a.b-c",
            "",
        ),
    ] {
        assert_eq!(named(spec), Ok((host.into(), domain.into())), "{spec}");
    }
}

#[test]
fn names_that_dns_does_not_allow_are_refused() {
    for (spec, message) in [
        (
            "{hostname: a.b, containers: []}",
            "pod Hostname \"a.b\" is not a valid DNS label",
        ),
        (
            "{hostname: -a, containers: []}",
            "pod Hostname \"-a\" is not a valid DNS label",
        ),
        (
            "{subdomain: A, containers: []}",
            "pod Subdomain \"A\" is not a valid DNS label",
        ),
        (
            "{hostnameOverride: a..b, containers: []}",
            "pod HostnameOverride \"a..b\" is not a valid DNS subdomain",
        ),
    ] {
        assert_eq!(named(spec), Err(message.into()));
    }
}

#[test]
fn long_pod_names_are_cut() {
    let long = |name: &str| {
        let yaml = format!("metadata: {{name: {name:?}, namespace: n}}\nspec: {{containers: []}}");
        of(&pod(&yaml), "cluster.local").map(|name| name.host)
    };
    assert_eq!(long(&"a".repeat(70)).unwrap(), "a".repeat(63));
    let name = format!("{}-.b", "a".repeat(61));
    assert_eq!(long(&name).unwrap(), "a".repeat(61));
    assert!(long(&"-".repeat(70)).is_err());
    // No API server admits this; it must do no harm either way.
    assert!(long(&"é".repeat(40)).is_ok());
}

#[test]
fn the_kernel_is_told_the_full_name_on_demand() {
    let kernel = |spec: &str| for_kernel(&with_spec(spec), "cluster.local");
    assert_eq!(kernel("{subdomain: s, containers: []}").unwrap(), "p");
    assert_eq!(
        kernel("{subdomain: s, setHostnameAsFQDN: true, containers: []}").unwrap(),
        "p.s.default.svc.cluster.local"
    );
    assert_eq!(
        kernel("{setHostnameAsFQDN: true, containers: []}").unwrap(),
        "p"
    );
    assert_eq!(
        kernel("{hostNetwork: true, hostname: h, containers: []}").unwrap(),
        ""
    );
    let long = format!(
        "{{subdomain: {}, setHostnameAsFQDN: true, containers: []}}",
        "s".repeat(40)
    );
    assert_eq!(
        kernel(&long).unwrap_err().to_string(),
        format!(
            "failed to construct FQDN from pod hostname and cluster domain, FQDN \
             p.{}.default.svc.cluster.local is too long (64 characters is the max, 68 characters \
             requested)",
            "s".repeat(40)
        )
    );
}
