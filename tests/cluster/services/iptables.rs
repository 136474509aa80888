//! An iptables that misbehaves: what is in the kernel goes on serving, the agent tells
//! what is wrong, and when that is over changes are followed. Each on a cluster of its
//! own.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::fcntl::{Flock, FlockArg};
use serde_json::{Value, json};

use super::client::{From, until_only};
use super::traffic::Traffic;
use super::{serve, service, slice};
use crate::harness::{PATIENCE, Scene, Test, poll_until, tests, text};

pub const TESTS: &[Test] = tests!(Own:
    a_broken_iptables_harms_no_traffic_and_is_told,
    a_held_lock_harms_no_traffic_and_is_told,
);

/// What a node's event tells of rules that cannot be written.
const EVENT: &str = "ServiceRulesNotWritten";
const METRIC: &str = "kubeproxy_sync_proxy_rules_iptables_restore_failures_total";
/// The longest pause between two tries is half a minute, after many failures; it begins
/// with a second.
const SOON: Duration = Duration::from_secs(20);

/// What stands in for iptables-restore, and what is told of it.
struct Fault {
    /// The end of a shell script; `$real` is the program's path.
    script: &'static str,
    told: &'static str,
}

const FAULTS: [Fault; 3] = [
    Fault {
        script: "cat >/dev/null; echo 'out of luck' >&2; exit 1",
        told: "failed (exit status: 1): out of luck",
    },
    // Killed when it has written the first of its tables and not the others.
    Fault {
        script: r#"exec "$real" "$@" < <(sed -u '/^COMMIT/q'; sleep 0.5; kill -KILL $$)"#,
        told: "failed (signal: 9 (SIGKILL))",
    },
    Fault {
        script: r#"while [[ -e $0 ]]; do sleep 0.2; done; exec "$real" "$@""#,
        told: "took longer than 60 s and was killed",
    },
];

/// A service that is changed during faults, and another one with clients.
struct Served {
    t: Scene,
    url: String,
    /// Names and addresses.
    pods: Vec<(&'static str, String)>,
    turn: usize,
    traffic: Traffic,
}

impl Served {
    async fn new(t: &Scene) -> anyhow::Result<Self> {
        let mut pods = Vec::new();
        for name in ["a", "b"] {
            let pod = serve(t, name, "web").await?;
            pods.push((name, text(&pod, "/status/podIP").to_owned()));
        }
        let endpoint = |address: &str| json!([{ "addresses": [address] }]);
        let other = service(t, "other", json!({})).await?;
        let both: Value = pods
            .iter()
            .map(|(_, address)| json!({ "addresses": [address] }))
            .collect();
        slice(t, "other-1", "other", both).await?;
        let changed = service(t, "changed", json!({})).await?;
        slice(t, "changed-1", "changed", endpoint(&pods[0].1)).await?;
        until_only(
            t,
            From::Host,
            &format!("http://{other}/hostname"),
            &["a", "b"],
        )
        .await?;
        let url = format!("http://{changed}/hostname");
        until_only(t, From::Host, &url, &["a"]).await?;
        Ok(Self {
            t: t.clone(),
            url,
            pods,
            turn: 0,
            traffic: Traffic::start([format!("{other}:80")]).await?,
        })
    }

    /// Gives the service the endpoint that it has not.
    async fn change(&mut self) -> anyhow::Result<()> {
        self.turn = 1 - self.turn;
        let address = &self.pods[self.turn].1;
        let endpoint = json!([{ "addresses": [address] }]);
        slice(&self.t, "changed-1", "changed", endpoint)
            .await
            .map(drop)
    }

    /// Waits until clients of the service follow; says how long that took.
    async fn until_followed(&self) -> anyhow::Result<Duration> {
        let start = Instant::now();
        until_only(&self.t, From::Host, &self.url, &[self.pods[self.turn].0]).await?;
        let took = start.elapsed();
        ensure!(took < SOON, "followed after {took:?}");
        Ok(took)
    }

    /// Waits until log, event and metric tell of a fault, by the log from this length on.
    async fn until_told(&self, log_before: usize, what: &str) -> anyhow::Result<()> {
        let t = &self.t;
        poll_until(&format!("the log tells: {what}"), PATIENCE, || async {
            let log = t.cluster.agent_log().await?;
            let told = log[log_before..].lines().any(|line| {
                line.contains("cannot write the rules of Services") && line.contains(what)
            });
            Ok(if told { Ok(()) } else { Err(String::new()) })
        })
        .await?;
        let default = Scene {
            namespace: "default".to_owned(),
            ..t.clone()
        };
        let about = t.cluster.node_name();
        default
            .event(about, EVENT, |said| said.contains(what))
            .await?;
        Ok(())
    }

    /// Failed runs of iptables-restore so far.
    async fn failures(&self) -> anyhow::Result<u64> {
        let metrics = ["curl", "--silent", "http://127.0.0.1:10249/metrics"];
        let metrics = self.t.cluster.exec(metrics).await?;
        let prefix = format!("{METRIC}{{ip_family=\"IPv4\"}} ");
        let value = metrics.lines().find_map(|line| line.strip_prefix(&prefix));
        value.map_or(Ok(0), |value| value.parse().context(METRIC))
    }
}

/// Programs that come before the host's, until this is dropped.
struct Instead(Vec<PathBuf>);

impl Instead {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn put(&mut self, t: &Scene, program: &str, script: &str) -> anyhow::Result<()> {
        let path = t.cluster.path("DIR").join("bin").join(program);
        // In one step, as it may be started at any time.
        let new = path.with_extension("new");
        std::fs::write(&new, format!("#!/bin/bash\n{script}\n"))?;
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755))?;
        std::fs::rename(&new, &path)?;
        self.0.push(path);
        Ok(())
    }
}

impl Drop for Instead {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

async fn a_broken_iptables_harms_no_traffic_and_is_told(t: Scene) -> anyhow::Result<()> {
    let mut served = Served::new(&t).await?;
    let real = t.cluster.exec(["which", "iptables-restore"]).await?;
    for Fault { script, told } in FAULTS {
        let (log_before, failed) = (t.cluster.agent_log().await?.len(), served.failures().await?);
        let mut instead = Instead::new();
        let script = format!("real={}\n{script}", real.trim());
        instead.put(&t, "iptables-restore", &script)?;
        served.change().await?;
        served.until_told(log_before, told).await?;
        ensure!(served.failures().await? > failed, "{told} is not counted");
        served.traffic.unharmed(told)?;
        drop(instead);
        let took = served.until_followed().await?;
        served.traffic.unharmed(told)?;
        println!("followed {took:.1?} after: {told}");
    }
    println!("{}", served.traffic);
    Ok(())
}

async fn a_held_lock_harms_no_traffic_and_is_told(t: Scene) -> anyhow::Result<()> {
    // A lock of its own, as the host's is everybody's.
    let lock = t.cluster.path("DIR").join("run/xtables.lock");
    t.cluster.ctl_agent("stop").await?;
    let empty = "printf '*%s\nCOMMIT\n' mangle filter nat | iptables-restore";
    t.cluster.exec(["sh", "-c", empty]).await?;
    let mut instead = Instead::new();
    for program in ["iptables", "iptables-save", "iptables-restore"] {
        let legacy = program.replace("iptables", "iptables-legacy");
        let lock = lock.display();
        let script = format!("XTABLES_LOCKFILE={lock} exec {legacy} \"$@\"");
        instead.put(&t, program, &script)?;
    }
    t.cluster.ctl_agent("start").await?;
    let mut served = Served::new(&t).await?;

    let log_before = t.cluster.agent_log().await?.len();
    let held = Flock::lock(std::fs::File::create(&lock)?, FlockArg::LockExclusive)
        .map_err(|(_, error)| error)?;
    served.change().await?;
    let told = "Another app is currently holding the xtables lock";
    served.until_told(log_before, told).await?;
    ensure!(served.failures().await? > 0, "{told} is not counted");
    served.traffic.unharmed(told)?;
    drop(held);
    let took = served.until_followed().await?;
    served.traffic.unharmed("the lock is free")?;
    println!(
        "followed {took:.1?} after the lock was free{}",
        served.traffic
    );
    Ok(())
}
