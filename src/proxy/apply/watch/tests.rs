use super::*;
use crate::proxy::model::Table;

fn disturbance(family: Family, chains: &[&str], by: Option<&str>) -> Disturbance {
    let named = chains.iter().map(|name| ChainId::new(Table::Nat, *name));
    Disturbance {
        family,
        chains: Chains::Named(named.collect()),
        by: by.map(str::to_owned),
        pid: by.map(|_| 7),
        writer: None,
    }
}

#[tokio::test]
async fn what_waits_is_joined_by_family() {
    let mailbox = Arc::<Mailbox>::default();
    let mut heard = Disturbances(Arc::clone(&mailbox));
    mailbox.put(disturbance(Family::V4, &["A"], Some("first")));
    mailbox.put(disturbance(Family::V6, &["C"], None));
    mailbox.put(disturbance(Family::V4, &["B"], None));
    let joined = disturbance(Family::V4, &["A", "B"], Some("first"));
    assert_eq!(heard.next().await, joined);
    assert_eq!(heard.next().await, disturbance(Family::V6, &["C"], None));
    assert!(mailbox.take().is_none());
}

#[tokio::test]
async fn one_that_waits_is_woken() {
    let mailbox = Arc::<Mailbox>::default();
    let mut heard = Disturbances(Arc::clone(&mailbox));
    let waiting = tokio::spawn(async move { heard.next().await });
    tokio::task::yield_now().await;
    mailbox.put(disturbance(Family::V4, &["A"], None));
    let told = waiting.await.unwrap();
    assert_eq!(told, disturbance(Family::V4, &["A"], None));
}

#[test]
fn too_many_chains_are_all_chains() {
    let many: Vec<String> = (0..=MOST_CHAINS).map(|n| format!("KUBE-{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let mut chains = disturbance(Family::V4, &many[1..], None).chains;
    assert_ne!(chains, Chains::All);
    chains.merge(disturbance(Family::V4, &many[..1], None).chains);
    assert_eq!(chains, Chains::All);
    chains.merge(disturbance(Family::V4, &["A"], None).chains);
    assert_eq!(chains, Chains::All);
}
