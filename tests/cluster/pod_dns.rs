//! Names: limits of a pod's resolver settings, its host name.

use anyhow::ensure;
use serde_json::json;

use crate::harness::{Scene, Test, shell, tests};
use crate::network::cluster_dns;

pub const TESTS: &[Test] = tests!(Shared:
    too_many_name_servers_are_cut_and_told,
    search_paths_that_are_too_long_together_are_cut_and_told,
    a_hostname_can_be_whole,
    a_hostname_can_be_one_of_another_domain,
);

async fn too_many_name_servers_are_cut_and_told(t: Scene) -> anyhow::Result<()> {
    // The cluster's own comes first.
    let spec = json!({
        "dnsConfig": { "nameservers": ["192.0.2.1", "192.0.2.2", "192.0.2.3"] },
        "containers": [shell("main", "cat /etc/resolv.conf")],
    });
    let (_, log) = t.run_to_end("asks", spec).await?;
    let servers: Vec<_> = log
        .lines()
        .filter_map(|line| line.strip_prefix("nameserver "))
        .collect();
    let dns = cluster_dns(&t)?;
    ensure!(servers == [dns.as_str(), "192.0.2.1", "192.0.2.2"], "{log}");
    let wanted = format!(
        "Nameserver limits were exceeded, some nameservers have been omitted, the applied \
         nameserver line is: {dns} 192.0.2.1 192.0.2.2"
    );
    t.event("asks", "DNSConfigForming", |message| message == wanted)
        .await?;
    Ok(())
}

async fn search_paths_that_are_too_long_together_are_cut_and_told(t: Scene) -> anyhow::Result<()> {
    let searches: Vec<_> = (0..32).map(|n| format!("n{n}.example.com")).collect();
    let spec = json!({
        "dnsConfig": { "searches": searches },
        "containers": [shell("main", "grep ^search /etc/resolv.conf | wc -w")],
    });
    let (_, log) = t.run_to_end("seeks", spec).await?;
    ensure!(log.trim() == "33", "{log}");
    let wanted = "Search Line limits were exceeded, some search paths have been omitted, the \
        applied search line is: ";
    t.event("seeks", "DNSConfigForming", |message| {
        message.starts_with(wanted)
    })
    .await?;
    Ok(())
}

async fn a_hostname_can_be_whole(t: Scene) -> anyhow::Result<()> {
    let spec = json!({
        "hostname": "me",
        "subdomain": "here",
        "setHostnameAsFQDN": true,
        "containers": [shell("main", "hostname")],
    });
    let (_, log) = t.run_to_end("named", spec).await?;
    let wanted = format!("me.here.{}.svc.cluster.local", t.namespace);
    // The kernel takes 64 characters; the test's namespace must leave room.
    ensure!(wanted.len() <= 64 && log.trim() == wanted, "{log}");
    Ok(())
}

async fn a_hostname_can_be_one_of_another_domain(t: Scene) -> anyhow::Result<()> {
    let spec = json!({
        "hostname": "me",
        "subdomain": "here",
        "hostnameOverride": "other.example.com",
        "containers": [shell("main", "hostname; grep -c here /etc/hosts || true")],
    });
    let (_, log) = t.run_to_end("named", spec).await?;
    ensure!(log == "other.example.com\n0\n", "{log}");
    Ok(())
}
