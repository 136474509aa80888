//! Who changes our chains, as the kernel tells it.

use std::fmt::Write;
use std::time::Duration;

use kubelet::proxy::apply::watch::{Chains, Disturbance, Disturbances, LEGACY_PERIOD};
use kubelet::proxy::apply::{HostIptables, Iptables};
use kubelet::proxy::model::{ChainId, Family, RestoreScript, Table};
use tokio::time::timeout;

use crate::apply::{SVC, host, run, script, small};
use crate::isolate::isolated;

/// How soon nft's changes are told.
const SOON: Duration = Duration::from_secs(1);

/// Small tables of both families, watched.
async fn watched(kind: &str) -> (HostIptables, Disturbances) {
    let host = host(kind).await;
    host.restore(Family::V4, &small("10.0.0.10/32"))
        .await
        .unwrap();
    host.restore(Family::V6, &small("fd00::10/128"))
        .await
        .unwrap();
    let (watch, disturbances) = host.watch().unwrap();
    tokio::spawn(watch.run());
    // Legacy tables are first looked at when it runs.
    tokio::task::yield_now().await;
    (host, disturbances)
}

async fn next(disturbances: &mut Disturbances, within: Duration) -> Disturbance {
    timeout(within, disturbances.next()).await.unwrap()
}

fn nat(names: &[&str]) -> Chains {
    Chains::Named(
        names
            .iter()
            .map(|name| ChainId::new(Table::Nat, *name))
            .collect(),
    )
}

#[test]
fn what_others_change_is_told_within_a_second() {
    isolated("watch::what_others_change_is_told_within_a_second", async {
        let (host, mut disturbances) = watched("nft").await;
        let all = nat(&["KUBE-SERVICES", "KUBE-NODEPORTS", SVC, "OUTPUT"]);
        let dispatch = nat(&["KUBE-SERVICES"]);
        let v6 = "ip6tables-nft";
        for (program, args, family, chains) in [
            (
                "iptables-nft",
                "-t nat -D KUBE-SERVICES 1",
                Family::V4,
                &dispatch,
            ),
            (
                "iptables-nft",
                "-t nat -D OUTPUT 1",
                Family::V4,
                &nat(&["OUTPUT"]),
            ),
            (
                "iptables-nft",
                "-t nat -F KUBE-SERVICES",
                Family::V4,
                &dispatch,
            ),
            (
                v6,
                "-t nat -I KUBE-SERVICES -j ACCEPT",
                Family::V6,
                &dispatch,
            ),
            (v6, "-t nat -D KUBE-SERVICES 1", Family::V6, &dispatch),
            (v6, "-t nat -F", Family::V6, &all),
        ] {
            let args: Vec<_> = args.split(' ').collect();
            run(program, &args);
            let told = next(&mut disturbances, SOON).await;
            assert_eq!(told.family, family, "{args:?}");
            assert_eq!(&told.chains, chains, "{args:?}");
            assert_eq!(told.by.as_deref(), Some(program), "{args:?}");
            assert!(told.pid.is_some());
        }
        // Healing it is our own change.
        host.restore(Family::V6, &small("fd00::10/128"))
            .await
            .unwrap();
        run("iptables-nft", &["-t", "nat", "-F", SVC]);
        let told = next(&mut disturbances, SOON).await;
        assert_eq!((told.family, told.chains), (Family::V4, nat(&[SVC])));
    });
}

#[test]
fn what_is_not_ours_is_not_told() {
    isolated("watch::what_is_not_ours_is_not_told", async {
        let (_host, mut disturbances) = watched("nft").await;
        for args in [
            "-t nat -N MINE",
            "-t nat -A MINE -j RETURN",
            "-t nat -A OUTPUT -j MINE",
            "-t nat -D OUTPUT -j MINE",
            "-t nat -X MINE",
            "-t raw -A OUTPUT -j ACCEPT",
            // The first that counts.
            "-t nat -F KUBE-NODEPORTS",
        ] {
            if args.contains("-X") {
                run("iptables-nft", &["-t", "nat", "-F", "MINE"]);
            }
            run("iptables-nft", &args.split(' ').collect::<Vec<_>>());
        }
        let told = next(&mut disturbances, SOON).await;
        assert_eq!(told.chains, nat(&["KUBE-NODEPORTS"]));
    });
}

#[test]
fn our_own_changes_are_not_told_however_large() {
    isolated("watch::our_own_changes_are_not_told_however_large", async {
        let (host, mut disturbances) = watched("nft").await;
        let (v4, v6) = (large("10.0.0", "/32"), large("fd00::", "/128"));
        let (first, second) =
            tokio::join!(host.restore(Family::V4, &v4), host.restore(Family::V6, &v6),);
        first.and(second).unwrap();
        let found = host.found(Family::V4).await.unwrap();
        assert!(found.destinations.len() >= 1000);
        run("iptables-nft", &["-t", "nat", "-F", SVC]);
        let told = next(&mut disturbances, SOON).await;
        assert_eq!((told.family, told.chains), (Family::V4, nat(&[SVC])));
    });
}

#[test]
fn more_than_can_be_named_is_told_as_everything() {
    isolated(
        "watch::more_than_can_be_named_is_told_as_everything",
        async {
            let (host, mut disturbances) = watched("nft").await;
            host.restore(Family::V4, &large("10.0.0", "/32"))
                .await
                .unwrap();
            run("iptables-nft", &["-t", "nat", "-F"]);
            run("iptables-nft", &["-t", "nat", "-X"]);
            let told = next(&mut disturbances, SOON).await;
            assert_eq!((told.family, told.chains), (Family::V4, Chains::All));
        },
    );
}

/// A thousand services, whose addresses begin and end like this.
fn large(address: &str, length: &str) -> RestoreScript {
    let mut text = "*nat\n:KUBE-SERVICES - [0:0]\n".to_owned();
    let separator = if address.ends_with(':') { "" } else { "." };
    for port in 1..=1000 {
        let hash = base32(port);
        writeln!(
            text,
            ":KUBE-SVC-{hash} - [0:0]\n:KUBE-SEP-{hash} - [0:0]\n\
             -A KUBE-SERVICES -d {address}{separator}1{length} -p tcp -m tcp --dport {port} \
             -j KUBE-SVC-{hash}\n\
             -A KUBE-SVC-{hash} -m statistic --mode random --probability 0.5 -j KUBE-SEP-{hash}\n\
             -A KUBE-SEP-{hash} -p tcp -m comment --comment test -j RETURN"
        )
        .unwrap();
    }
    script(text + "COMMIT\n")
}

/// A number as the sixteen characters of a chain's hash.
fn base32(number: usize) -> String {
    const DIGITS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    (0..16)
        .rev()
        .map(|place| number.checked_shr(5 * place).unwrap_or(0))
        .map(|rest| char::from(DIGITS[rest % 32]))
        .collect()
}

#[test]
fn legacy_tables_are_looked_at() {
    isolated("watch::legacy_tables_are_looked_at", async {
        let (host, mut disturbances) = watched("legacy").await;
        let restored = small("10.0.0.11/32");
        host.restore(Family::V4, &restored).await.unwrap();
        let quiet = timeout(2 * LEGACY_PERIOD, disturbances.next()).await;
        assert!(quiet.is_err(), "our own changes were told: {quiet:?}");
        for (program, family, args) in [
            ("iptables-legacy", Family::V4, "-t nat -D OUTPUT 1"),
            ("iptables-legacy", Family::V4, "-t nat -F"),
            ("ip6tables-legacy", Family::V6, "-t filter -F"),
        ] {
            run(program, &args.split(' ').collect::<Vec<_>>());
            let told = next(&mut disturbances, LEGACY_PERIOD + SOON).await;
            assert_eq!((told.family, told.chains), (family, Chains::All), "{args}");
        }
        // What happened before our own next change is not forgotten over it.
        run("iptables-legacy", &["-t", "filter", "-F"]);
        host.restore(Family::V4, &restored).await.unwrap();
        next(&mut disturbances, Duration::from_millis(100)).await;
    });
}
