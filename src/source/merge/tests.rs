use std::path::PathBuf;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use proptest::prelude::*;

use super::*;

fn pod(uid: &str, name: &str) -> Pod {
    Pod {
        metadata: ObjectMeta {
            uid: Some(uid.into()),
            name: Some(name.into()),
            namespace: Some("default".into()),
            ..ObjectMeta::default()
        },
        ..Pod::default()
    }
}

fn mirror(uid: &str, name: &str) -> Pod {
    let mut pod = pod(uid, name);
    pod.metadata.annotations = Some([(CONFIG_MIRROR.to_owned(), "hash".to_owned())].into());
    pod
}

fn deleted(uid: &str, name: &str, grace: Option<i64>) -> Pod {
    let mut pod = pod(uid, name);
    pod.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    pod.metadata.deletion_grace_period_seconds = grace;
    pod
}

fn api(pods: impl IntoIterator<Item = Pod>) -> PodSnapshot {
    let keyed = pods.into_iter().map(|pod| {
        (
            PodUid::from(pod.metadata.uid.as_deref().unwrap_or("")),
            Arc::new(pod),
        )
    });
    PodSnapshot {
        synced: true,
        pods: Arc::new(keyed.collect()),
    }
}

fn manifests(names: impl IntoIterator<Item = &'static str>) -> ManifestSnapshot {
    let pods = names.into_iter().map(|name| {
        let pod = pod(name, name);
        let desired = DesiredPod {
            uid: PodUid::from(name),
            name: PodName::of(&pod),
            pod: Arc::new(pod),
            origin: Origin::Static {
                path: PathBuf::from(name),
            },
            intent: Intent::Run,
        };
        (desired.uid.clone(), Arc::new(desired))
    });
    ManifestSnapshot {
        pods: Arc::new(pods.collect()),
        synced: true,
        ..ManifestSnapshot::default()
    }
}

fn uids(desired: &DesiredPods) -> Vec<&str> {
    desired.pods.keys().map(PodUid::as_str).collect()
}

#[test]
fn both_sources_are_joined() {
    let merged = merge(
        &DesiredPods::default(),
        Some(&api([pod("a", "web")])),
        &manifests(["s"]),
    );
    assert_eq!(uids(&merged.desired), ["a", "s"]);
    assert!(merged.desired.pods[&PodUid::from("s")].origin.is_static());
    assert!(merged.desired.ready.all());
    assert_eq!(merged.dropped, []);
}

#[test]
fn standalone_is_ready_without_an_api_server() {
    let mut files = manifests([]);
    let ready = |files: &_| merge(&DesiredPods::default(), None, files).desired.ready;
    assert!(ready(&files).all());
    files.synced = false;
    assert!(!ready(&files).all());
}

#[test]
fn a_source_that_has_not_delivered_is_not_ready() {
    let silent = PodSnapshot::default();
    let ready = merge(&DesiredPods::default(), Some(&silent), &manifests(["s"]))
        .desired
        .ready;
    assert!(!ready.api && ready.manifests);
}

#[test]
fn deletion_is_termination_with_the_object_s_grace() {
    let cases = [
        (Some(30), Some(Duration::from_secs(30))),
        (Some(0), Some(Duration::ZERO)),
        (Some(-1), Some(Duration::ZERO)),
        (None, None),
    ];
    for (seconds, grace) in cases {
        let snapshot = api([deleted("a", "web", seconds)]);
        let merged = merge(&DesiredPods::default(), Some(&snapshot), &manifests([]));
        let expected = Intent::Terminate(Termination {
            grace,
            reason: TerminationReason::Deleted,
        });
        assert_eq!(merged.desired.pods[&PodUid::from("a")].intent, expected);
    }
}

#[test]
fn mirrors_are_kept_apart_by_name() {
    let snapshot = api([mirror("m", "etcd-node"), pod("a", "web")]);
    let merged = merge(&DesiredPods::default(), Some(&snapshot), &manifests([])).desired;
    assert_eq!(uids(&merged), ["a"]);
    let name = PodName::new("default", "etcd-node");
    assert_eq!(merged.mirrors[&name].metadata.uid.as_deref(), Some("m"));
}

#[test]
fn what_has_no_identity_is_dropped_and_the_rest_stays() {
    let mut nameless = pod("b", "x");
    nameless.metadata.name = None;
    let snapshot = api([pod("a", "web"), nameless, pod("", "y"), pod("s", "z")]);
    let merged = merge(&DesiredPods::default(), Some(&snapshot), &manifests(["s"]));
    assert_eq!(uids(&merged.desired), ["a", "s"]);
    let reasons: Vec<_> = merged
        .dropped
        .iter()
        .map(|drop| (drop.uid.as_str(), drop.reason))
        .collect();
    assert_eq!(
        reasons,
        [
            ("", DropReason::NoIdentity),
            ("b", DropReason::NoIdentity),
            ("s", DropReason::UidOfStaticPod),
        ]
    );
}

#[test]
fn what_did_not_change_keeps_its_pointers() {
    let files = manifests(["s"]);
    let first = merge(
        &DesiredPods::default(),
        Some(&api([pod("a", "web"), pod("b", "db"), mirror("m", "s")])),
        &files,
    )
    .desired;

    // A new list with equal objects, as after a reconnect.
    let relisted = api([pod("a", "web"), pod("b", "db"), mirror("m", "s")]);
    let second = merge(&first, Some(&relisted), &manifests(["s"])).desired;
    assert!(Arc::ptr_eq(&first.pods, &second.pods));

    let changed = api([pod("a", "web"), deleted("b", "db", None), mirror("m", "s")]);
    let third = merge(&second, Some(&changed), &files).desired;
    let same = |uid: &str| {
        Arc::ptr_eq(
            &second.pods[&PodUid::from(uid)],
            &third.pods[&PodUid::from(uid)],
        )
    };
    assert!(same("a") && same("s") && !same("b"));
}

fn any_pod() -> impl Strategy<Value = Pod> {
    (0..20_u8, 0..4_u8).prop_map(|(id, kind)| {
        let (uid, name) = (format!("u{id}"), format!("n{id}"));
        match kind {
            0 => mirror(&uid, &name),
            1 => deleted(&uid, &name, Some(5)),
            2 => pod(&uid, ""),
            _ => pod(&uid, &name),
        }
    })
}

proptest! {
    #[test]
    fn merge_laws(
        before in prop::collection::vec(any_pod(), 0..20),
        after in prop::collection::vec(any_pod(), 0..20),
    ) {
        let files = manifests(["s1", "s2"]);
        let (before, after) = (api(before), api(after));
        let first = merge(&DesiredPods::default(), Some(&before), &files).desired;
        let merged = merge(&first, Some(&after), &files);

        // Every object ends in exactly one place.
        prop_assert_eq!(
            merged.desired.pods.len() + merged.desired.mirrors.len() + merged.dropped.len(),
            after.pods.len() + files.pods.len()
        );
        prop_assert!(merged.desired.pods.values().all(|pod| !is_mirror(&pod.pod)));
        prop_assert!(merged.desired.mirrors.values().all(|pod| is_mirror(pod)));
        for (uid, pod) in merged.desired.pods.iter() {
            prop_assert_eq!(uid, &pod.uid);
            let deleted = pod.pod.metadata.deletion_timestamp.is_some();
            prop_assert_eq!(pod.intent == Intent::Run, !deleted);
        }
        // History decides about pointers, never about content.
        let fresh = merge(&DesiredPods::default(), Some(&after), &files);
        prop_assert_eq!(&*fresh.desired.pods, &*merged.desired.pods);
        // And merging the same again is the same.
        let again = merge(&merged.desired, Some(&after), &files).desired;
        prop_assert!(Arc::ptr_eq(&again.pods, &merged.desired.pods));
        prop_assert!(Arc::ptr_eq(&again.mirrors, &merged.desired.mirrors));
    }
}
