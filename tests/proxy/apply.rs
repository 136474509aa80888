//! Scripts into real tables and back, and programs that misbehave.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kubelet::proxy::apply::{HostIptables, Iptables, IptablesError, Mode, Programs};
use kubelet::proxy::model::{
    ChainId, Destination, Family, Found, Jump, Protocol, RestoreScript, Table,
};
use nix::fcntl::{Flock, FlockArg};

use crate::isolate::isolated;

pub const KINDS: [(&str, Mode); 2] = [("nft", Mode::Nft), ("legacy", Mode::Legacy)];
pub const SVC: &str = "KUBE-SVC-AAAAAAAAAAAAAAAA";

/// iptables of one kind; both families work.
pub async fn host(kind: &str) -> HostIptables {
    let programs = Programs {
        v4: format!("iptables-{kind}").into(),
        v6: format!("ip6tables-{kind}").into(),
    };
    let host = HostIptables::detect(&programs).await;
    for family in Family::ALL {
        let facts = host.usable(family).unwrap();
        assert!(KINDS.contains(&(kind, facts.mode)), "{kind}: {facts:?}");
        assert!(facts.random_fully());
    }
    host
}

pub fn script(text: impl Into<String>) -> RestoreScript {
    RestoreScript {
        text: text.into(),
        filter_rules: 0,
        nat_rules: 0,
    }
}

/// A small script with a bit of everything. `address`: of the service, as a network.
pub fn small(address: &str) -> RestoreScript {
    script(format!(
        "*filter\n\
         :KUBE-FORWARD - [0:0]\n\
         -I FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD\n\
         COMMIT\n\
         *nat\n\
         :KUBE-SERVICES - [0:0]\n\
         :KUBE-NODEPORTS - [0:0]\n\
         :{SVC} - [0:0]\n\
         -A {SVC} -j MARK --or-mark 0x4000\n\
         -A KUBE-SERVICES -d {address} -p udp -m udp --dport 53 -m comment --comment \"a/b:c cluster IP\" -j {SVC}\n\
         -A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\n\
         -A KUBE-NODEPORTS -p tcp -m tcp --dport 30080 -j {SVC}\n\
         -I OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         COMMIT\n"
    ))
}

fn sorted(mut found: Found) -> Found {
    found.chains.sort();
    found.jumps.sort();
    found
        .destinations
        .sort_by_key(|destination| format!("{destination:?}"));
    found
}

fn small_as_found(address: &str) -> Found {
    let jump = |table, from: &str, to: &str| Jump {
        table,
        from: from.into(),
        to: to.into(),
    };
    let nat = ["KUBE-SERVICES", "KUBE-NODEPORTS", SVC].map(|name| ChainId::new(Table::Nat, name));
    sorted(Found {
        chains: [&nat[..], &[ChainId::new(Table::Filter, "KUBE-FORWARD")]].concat(),
        jumps: vec![
            jump(Table::Filter, "FORWARD", "KUBE-FORWARD"),
            jump(Table::Nat, "OUTPUT", "KUBE-SERVICES"),
        ],
        destinations: vec![
            Destination::Address {
                protocol: Protocol::Udp,
                address: address.parse().unwrap(),
            },
            Destination::NodePort {
                protocol: Protocol::Tcp,
                port: 30080.try_into().unwrap(),
            },
        ],
        rules: [(Table::Nat, 4)].into(),
    })
}

#[test]
fn what_was_restored_is_found_again() {
    isolated("apply::what_was_restored_is_found_again", async {
        for (kind, _) in KINDS {
            let host = host(kind).await;
            for (family, net, address) in [
                (Family::V4, "10.0.0.10/32", "10.0.0.10:53"),
                (Family::V6, "fd00::10/128", "[fd00::10]:53"),
            ] {
                let before = host.found(family).await.unwrap();
                assert_eq!(before, Found::default(), "{kind} {family:?}");
                host.restore(family, &small(net)).await.unwrap();
                let after = sorted(host.found(family).await.unwrap());
                assert_eq!(after, small_as_found(address), "{kind} {family:?}");
            }
            // The other kind must not see these.
            for family in ["iptables", "ip6tables"] {
                for table in ["filter", "nat"] {
                    run(&format!("{family}-{kind}"), &["-t", table, "-F"]);
                    run(&format!("{family}-{kind}"), &["-t", table, "-X"]);
                }
            }
        }
    });
}

#[test]
fn a_refused_script_changes_nothing_and_its_line_is_named() {
    isolated(
        "apply::a_refused_script_changes_nothing_and_its_line_is_named",
        async {
            for (kind, _) in KINDS {
                let host = host(kind).await;
                for bad in [
                    "-A KUBE-SERVICES -p nonsense",
                    "-X KUBE-NODEPORTS",
                    "-A KUBE-SERVICES -j NOSUCHCHAIN",
                ] {
                    let text = format!(
                        "*nat\n:KUBE-SERVICES - [0:0]\n{bad}\n-I OUTPUT -j KUBE-SERVICES\nCOMMIT\n"
                    );
                    let refused = host.restore(Family::V4, &script(text)).await.unwrap_err();
                    let IptablesError::Refused { number, line, .. } = &refused else {
                        panic!("{kind} {bad}: {refused:?}");
                    };
                    assert_eq!((*number, line.as_str()), (3, bad), "{kind}: {refused}");
                    let found = host.found(Family::V4).await.unwrap();
                    assert_eq!(found, Found::default(), "{kind} {bad}");
                }
            }
        },
    );
}

#[test]
fn a_held_lock_is_told_as_such() {
    isolated("apply::a_held_lock_is_told_as_such", async {
        let host = host("legacy").await;
        let file = File::create("/run/xtables.lock").unwrap();
        let lock = Flock::lock(file, FlockArg::LockExclusive).unwrap();
        let script = small("10.0.0.10/32");
        let busy = host.restore(Family::V4, &script).await.unwrap_err();
        assert!(matches!(busy, IptablesError::Busy { .. }), "{busy:?}");
        drop(lock);
        host.restore(Family::V4, &script).await.unwrap();
    });
}

#[test]
fn a_program_that_hangs_is_killed_with_what_it_started() {
    isolated(
        "apply::a_program_that_hangs_is_killed_with_what_it_started",
        async {
            let restore = "sleep 600 & echo $! > /tmp/ids; echo $$ >> /tmp/ids; wait";
            let host = Arc::new(fake(restore).await);
            let running = tokio::spawn({
                let host = Arc::clone(&host);
                async move { host.restore(Family::V4, &script("")).await }
            });
            let ids = || fs::read_to_string("/tmp/ids").unwrap_or_default();
            eventually("it has started", || ids().lines().count() == 2).await;
            tokio::time::pause();
            tokio::time::advance(Duration::from_secs(61)).await;
            let error = running.await.unwrap().unwrap_err();
            assert!(matches!(error, IptablesError::TimedOut { .. }), "{error:?}");
            tokio::time::resume();
            eventually("all of it is gone", || ids().lines().all(has_ended)).await;
        },
    );
}

#[test]
fn a_call_that_nobody_waits_for_is_ended() {
    isolated("apply::a_call_that_nobody_waits_for_is_ended", async {
        let host = fake("echo $$ > /tmp/ids; exec sleep 600").await;
        let id = || fs::read_to_string("/tmp/ids").unwrap_or_default();
        let nothing = script("");
        tokio::select! {
            ended = host.restore(Family::V4, &nothing) => panic!("it has ended: {ended:?}"),
            () = eventually("it has started", || !id().trim().is_empty()) => {}
        }
        eventually("it is gone", || has_ended(id().trim())).await;
    });
}

#[test]
fn a_program_that_reads_nothing_has_done_nothing() {
    isolated(
        "apply::a_program_that_reads_nothing_has_done_nothing",
        async {
            let host = fake("exit 0").await;
            // More than a pipe holds.
            let large = script("# nothing\n".repeat(100_000));
            let error = host.restore(Family::V4, &large).await.unwrap_err();
            assert!(matches!(error, IptablesError::Talk { .. }), "{error:?}");
        },
    );
}

/// A family whose `iptables-restore` is this shell script, and which works otherwise.
async fn fake(restore: &str) -> HostIptables {
    let install = |name: &str, body: &str| {
        let path = Path::new("/tmp").join(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    };
    install("iptables", "echo 'iptables v1.8.9 (nf_tables)'");
    install("iptables-restore", restore);
    let programs = Programs {
        v4: "/tmp/iptables".into(),
        v6: "/tmp/ip6tables".into(),
    };
    let host = HostIptables::detect(&programs).await;
    host.usable(Family::V4).unwrap();
    assert!(matches!(
        host.usable(Family::V6),
        Err(IptablesError::Missing { .. })
    ));
    host
}

/// Whether no process of this ID is at work; one that nobody has waited for is not.
fn has_ended(id: &str) -> bool {
    fs::read_to_string(format!("/proc/{id}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

/// Somebody else's command.
pub fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "still waiting: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
