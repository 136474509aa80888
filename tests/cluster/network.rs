//! A pod's network identity: addresses, hostname, hosts file, resolver.

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::harness::{PATIENCE, Scene, Test, poll_until, shell, tests, text};

pub const TESTS: &[Test] = tests!(Shared:
    a_pod_has_an_address_that_the_host_reaches,
    a_pod_on_the_host_network_has_the_nodes_address,
    a_pod_knows_its_hostname,
    hostname_and_subdomain_make_a_name,
    cluster_first_dns_is_in_resolv_conf,
    default_dns_is_the_hosts,
    dns_config_alone_is_in_resolv_conf,
);

async fn a_pod_has_an_address_that_the_host_reaches(t: Scene) -> anyhow::Result<()> {
    let server =
        "mkdir /tmp/web; echo hello > /tmp/web/index.html; exec httpd -f -p 8080 -h /tmp/web";
    let pod = t.ready_pod("web", json!([shell("main", server)])).await?;
    let ip = text(&pod, "/status/podIP");
    let prefix = t.cluster.fact("NODE_POD_CIDR").trim_end_matches("0/24");
    ensure!(ip.starts_with(prefix), "{ip} is not of {prefix}");
    ensure!(
        pod["status"]["podIPs"] == json!([{ "ip": ip }]),
        "{}",
        pod["status"]
    );
    ensure!(
        text(&pod, "/status/hostIP") == t.cluster.fact("NODE_IP"),
        "{}",
        pod["status"]
    );
    let url = format!("http://{ip}:8080/");
    let fetch = || async {
        let answer = t
            .cluster
            .exec(["curl", "--silent", "--max-time", "5", &url])
            .await;
        Ok(answer.map_err(|error| format!("{error:#}")))
    };
    let answer = poll_until("the server answers", PATIENCE, fetch).await?;
    ensure!(answer == "hello\n", "{answer}");
    Ok(())
}

async fn a_pod_on_the_host_network_has_the_nodes_address(t: Scene) -> anyhow::Result<()> {
    let spec = json!({ "hostNetwork": true, "containers": [shell("main", "hostname; ip -o addr; cat /etc/resolv.conf")] });
    let (pod, log) = t.run_to_end("host", spec).await?;
    let node_ip = t.cluster.fact("NODE_IP");
    ensure!(text(&pod, "/status/podIP") == node_ip, "{}", pod["status"]);
    ensure!(
        pod["status"]["podIPs"] == pod["status"]["hostIPs"],
        "{}",
        pod["status"]
    );
    ensure!(log.contains(&format!(" {node_ip}/24 ")), "{log}");
    let hostname = tokio::fs::read_to_string("/proc/sys/kernel/hostname").await?;
    ensure!(log.starts_with(&hostname), "{log}");
    // ClusterFirst means Default there.
    ensure!(!log.contains("svc.cluster.local"), "{log}");
    Ok(())
}

async fn a_pod_knows_its_hostname(t: Scene) -> anyhow::Result<()> {
    let spec = json!({ "containers": [shell("main", "hostname; cat /etc/hostname /etc/hosts")] });
    let (pod, log) = t.run_to_end("known-as", spec).await?;
    ensure!(
        log.starts_with("known-as\nknown-as\n# Kubernetes-managed hosts file.\n"),
        "{log}"
    );
    let line = format!("{}\tknown-as\n", text(&pod, "/status/podIP"));
    ensure!(
        log.contains("127.0.0.1\tlocalhost\n") && log.contains(&line),
        "{log}"
    );
    Ok(())
}

async fn hostname_and_subdomain_make_a_name(t: Scene) -> anyhow::Result<()> {
    let spec = json!({
        "hostname": "alice",
        "subdomain": "wonderland",
        "hostAliases": [{ "ip": "192.0.2.1", "hostnames": ["rabbit", "hatter"] }],
        "containers": [shell("main", "hostname; cat /etc/hosts")],
    });
    let (pod, log) = t.run_to_end("named", spec).await?;
    ensure!(log.starts_with("alice\n"), "{log}");
    let domain = format!("alice.wonderland.{}.svc.cluster.local", t.namespace);
    let line = format!("{}\t{domain}\talice\n", text(&pod, "/status/podIP"));
    ensure!(log.contains(&line), "{log}");
    ensure!(
        log.contains("# Entries added by HostAliases.\n192.0.2.1\trabbit\thatter\n"),
        "{log}"
    );
    Ok(())
}

async fn cluster_first_dns_is_in_resolv_conf(t: Scene) -> anyhow::Result<()> {
    let dns_config = json!({
        "nameservers": ["192.0.2.53"],
        "searches": ["example.org"],
        "options": [{ "name": "ndots", "value": "2" }, { "name": "edns0" }],
    });
    for (name, config, last_search, options) in [
        ("plain", json!({}), None, vec!["ndots:5"]),
        (
            "changed",
            dns_config,
            Some("example.org"),
            vec!["ndots:2", "edns0"],
        ),
    ] {
        let file = resolv_conf(&t, name, json!({ "dnsConfig": config })).await?;
        let dns = cluster_dns(&t)?;
        ensure!(file.nameservers.first() == Some(&dns), "{file:?}");
        ensure!(
            file.nameservers.contains(&"192.0.2.53".to_owned()) == last_search.is_some(),
            "{file:?}"
        );
        let namespace = format!("{}.svc.cluster.local", t.namespace);
        let first = [&namespace, "svc.cluster.local", "cluster.local"];
        ensure!(file.searches.iter().take(3).eq(first), "{file:?}");
        ensure!(
            last_search.is_none_or(|last| file.searches.last().is_some_and(|s| s == last)),
            "{file:?}"
        );
        let mut found = file.options.clone();
        found.sort();
        let mut wanted = options;
        wanted.sort_unstable();
        ensure!(found == wanted, "{file:?}");
    }
    Ok(())
}

async fn default_dns_is_the_hosts(t: Scene) -> anyhow::Result<()> {
    let file = resolv_conf(&t, "default", json!({ "dnsPolicy": "Default" })).await?;
    let host = parse(&tokio::fs::read_to_string("/etc/resolv.conf").await?);
    ensure!(
        file.nameservers == host.nameservers,
        "{file:?} is not {host:?}"
    );
    Ok(())
}

async fn dns_config_alone_is_in_resolv_conf(t: Scene) -> anyhow::Result<()> {
    let config = json!({ "nameservers": ["192.0.2.53"], "searches": ["example.org"] });
    let spec = json!({ "dnsPolicy": "None", "dnsConfig": config });
    let file = resolv_conf(&t, "none", spec).await?;
    ensure!(file.nameservers == ["192.0.2.53"], "{file:?}");
    ensure!(file.searches == ["example.org"], "{file:?}");
    ensure!(file.options.is_empty(), "{file:?}");
    Ok(())
}

#[derive(Debug, Default)]
struct ResolvConf {
    nameservers: Vec<String>,
    searches: Vec<String>,
    options: Vec<String>,
}

/// The resolver's configuration as a container of a pod like this finds it.
async fn resolv_conf(t: &Scene, name: &str, mut spec: Value) -> anyhow::Result<ResolvConf> {
    spec["containers"] = json!([shell("main", "cat /etc/resolv.conf")]);
    let (_, log) = t.run_to_end(name, spec).await?;
    Ok(parse(&log))
}

fn parse(text: &str) -> ResolvConf {
    let mut file = ResolvConf::default();
    for line in text.lines() {
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => file.nameservers.extend(words),
            Some("search") => file.searches = words.collect(),
            Some("options") => file.options.extend(words),
            _ => {}
        }
    }
    file
}

/// The tenth address of the services' network, as `hack/cluster` configures it.
pub fn cluster_dns(t: &Scene) -> anyhow::Result<String> {
    let network = t.cluster.fact("SERVICE_CIDR");
    let prefix = network.strip_suffix(".0/17").context("SERVICE_CIDR")?;
    Ok(format!("{prefix}.10"))
}
