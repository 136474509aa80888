use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::cache::Cache;
use super::read::Listing;
use super::sign::{Sign, Signs};
use crate::pod::observed::ContainerStamp;
use crate::pod::stamp::{LABEL_POD_NAME, LABEL_POD_NAMESPACE, LABEL_POD_UID};
use crate::pod::{
    ContainerId, ContainerState, Exit, ObservedContainer, ObservedPod, ObservedSandbox, PodName,
    PodUid, SandboxId, SandboxState,
};
use crate::runtime::cri;

const EPOCH: Timestamp = Timestamp::UNIX_EPOCH;
const RUNNING: ContainerState = ContainerState::Running { started_at: EPOCH };

fn name(uid: &str) -> PodName {
    PodName::new("default", uid)
}

/// A pod with a sandbox `s-<uid>` and a container `c-<uid>`.
fn pod(uid: &str, sandbox: SandboxState, container: ContainerState) -> ObservedPod {
    let sandbox_id = SandboxId(format!("s-{uid}"));
    ObservedPod {
        sandboxes: vec![ObservedSandbox {
            id: sandbox_id.clone(),
            attempt: 0,
            state: sandbox,
            created_at: EPOCH,
            ips: vec![[10, 0, 0, 1].into()],
            host_network: false,
            runtime_handler: String::new(),
        }],
        containers: vec![ObservedContainer {
            id: ContainerId(format!("c-{uid}")),
            sandbox: sandbox_id,
            name: "main".to_owned(),
            attempt: 0,
            state: container,
            created_at: EPOCH,
            image: "i".to_owned(),
            image_ref: "i".to_owned(),
            stamp: ContainerStamp::default(),
            user: None,
        }],
        ..ObservedPod::absent(PodUid::from(uid), name(uid), EPOCH)
    }
}

fn running(uid: &str) -> ObservedPod {
    pod(uid, SandboxState::Ready, RUNNING)
}

fn absent(uid: &str) -> ObservedPod {
    ObservedPod::absent(PodUid::from(uid), name(uid), EPOCH)
}

fn exited() -> ContainerState {
    ContainerState::Exited(Exit {
        code: 0,
        signal: None,
        reason: "Completed".to_owned(),
        message: String::new(),
        started_at: None,
        finished_at: EPOCH,
    })
}

// === the cache ===

#[test]
fn an_older_reading_never_replaces_a_newer_one() {
    let cache = Cache::default();
    let older = cache.take_ticket();
    let newer = cache.take_ticket();
    let uid = PodUid::from("a");
    let watch = cache.watch(&uid, &name("a"));
    let ended = pod("a", SandboxState::Ready, exited());
    cache.publish(ended.clone(), newer);
    let shown = cache.publish(running("a"), older);
    assert_eq!(*shown, ended);
    assert_eq!(**watch.borrow(), ended);
}

#[test]
fn only_new_content_wakes_watchers() {
    let cache = Cache::default();
    let mut watch = cache.watch(&PodUid::from("a"), &name("a"));
    let publish = |pod| cache.publish(pod, cache.take_ticket());
    publish(running("a"));
    assert!(watch.has_changed().expect("open"));
    watch.borrow_and_update();
    let later = ObservedPod {
        observed_at: EPOCH + Duration::from_secs(9),
        ..running("a")
    };
    publish(later.clone());
    assert!(!watch.has_changed().expect("open"));
    assert_eq!(watch.borrow().observed_at, later.observed_at);
}

#[test]
fn members_are_told_once_all_were_seen() {
    let cache = Cache::default();
    let members = cache.members();
    let told = || {
        let members = members.borrow();
        let members = members.as_ref()?;
        Some(
            members
                .iter()
                .map(|(uid, _)| uid.to_string())
                .collect::<Vec<_>>(),
        )
    };
    cache.publish(running("a"), cache.take_ticket());
    assert_eq!(told(), None);
    cache.open();
    assert_eq!(told(), Some(vec!["a".to_owned()]));
    cache.publish(running("b"), cache.take_ticket());
    cache.publish(absent("a"), cache.take_ticket());
    assert_eq!(told(), Some(vec!["b".to_owned()]));
}

// === relists ===

fn labels(uid: &str) -> HashMap<String, String> {
    HashMap::from([
        (LABEL_POD_UID.to_owned(), uid.to_owned()),
        (LABEL_POD_NAME.to_owned(), uid.to_owned()),
        (LABEL_POD_NAMESPACE.to_owned(), "default".to_owned()),
    ])
}

fn listing(pods: &[(&str, cri::PodSandboxState, cri::ContainerState)]) -> Listing {
    let sandboxes = pods.iter().map(|(uid, state, _)| cri::PodSandbox {
        id: format!("s-{uid}"),
        state: (*state).into(),
        labels: labels(uid),
        ..Default::default()
    });
    let containers = pods.iter().map(|(uid, _, state)| cri::Container {
        id: format!("c-{uid}"),
        state: (*state).into(),
        labels: labels(uid),
        ..Default::default()
    });
    Listing::new(sandboxes.collect(), containers.collect(), EPOCH)
}

#[test]
fn only_pods_that_changed_are_read_after_a_relist() {
    use cri::ContainerState::{ContainerExited, ContainerRunning};
    use cri::PodSandboxState::{SandboxNotready, SandboxReady};

    let listing = listing(&[
        ("same", SandboxReady, ContainerRunning),
        ("ended", SandboxReady, ContainerExited),
        ("dead", SandboxNotready, ContainerRunning),
        ("new", SandboxReady, ContainerRunning),
    ]);
    let readings = ["same", "ended", "dead", "gone"].map(|uid| running(uid).into());
    let changed = listing.changed_since(&readings);
    let changed: Vec<_> = changed.iter().map(|pod| pod.uid.as_str()).collect();
    assert_eq!(changed, ["dead", "ended", "gone", "new"]);
}

#[test]
fn what_is_not_a_pods_is_not_listed() {
    let stranger = cri::Container {
        id: "c".to_owned(),
        ..Default::default()
    };
    let listing = Listing::new(Vec::new(), vec![stranger], EPOCH);
    assert!(listing.changed_since(&[]).is_empty());
}

// === signs ===

#[test]
fn a_sign_is_seen_in_what_it_announced() {
    let running = running("a");
    let created = pod("a", SandboxState::Ready, ContainerState::Created);
    let ended = pod("a", SandboxState::NotReady, exited());
    let gone = absent("a");
    let cases = [
        (Sign::Started, "c-a", &created, false),
        (Sign::Started, "c-a", &running, true),
        (Sign::Started, "s-a", &running, true),
        (Sign::Ended, "c-a", &running, false),
        (Sign::Ended, "c-a", &ended, true),
        (Sign::Reaped, "s-a", &running, false),
        (Sign::Reaped, "s-a", &ended, true),
        (Sign::Removed, "c-a", &ended, false),
        (Sign::Removed, "c-a", &gone, true),
        (Sign::Ended, "c-a", &gone, true),
    ];
    for (sign, id, pod, expected) in cases {
        assert_eq!(sign.is_seen(id, pod), expected, "{sign:?} of {id}");
    }
}

#[test]
fn signs_come_again_until_they_are_settled() {
    let begun = Instant::now();
    let mut signs = Signs::default();
    assert_eq!(signs.next_due(), None);
    signs.note("c".to_owned(), Sign::Ended, begun);
    assert!(signs.due(begun).is_empty());
    signs.note("c".to_owned(), Sign::Reaped, begun);
    // An earlier sign that comes late changes nothing.
    signs.note("c".to_owned(), Sign::Started, begun);
    let mut looks = Vec::new();
    while let Some(due) = signs.next_due() {
        let ids = signs.due(due);
        if due > begun + Duration::from_secs(60) {
            break;
        }
        looks.extend(ids.iter().map(|_| (due - begun).as_millis()));
    }
    assert_eq!(looks[..5], [0, 10, 30, 70, 150]);
    assert!(looks.len() < 30, "{looks:?}");
    assert_eq!(signs.next_due(), None, "it does not live for ever");
    signs.note("c".to_owned(), Sign::Reaped, begun);
    signs.settle("c");
    assert_eq!(signs.next_due(), None);
}

/// Whether another pod can be asked for while a value that a reading changes is
/// looked at.
fn others_can_be_asked_for(cache: &Arc<Cache>, looking: impl Sized) -> bool {
    use std::sync::mpsc;
    use std::thread;
    let publisher = thread::spawn({
        let cache = Arc::clone(cache);
        move || drop(cache.publish(running("a"), cache.take_ticket()))
    });
    // The reading is there while those who watch have to wait for it.
    let (done, asked) = mpsc::channel();
    let cache = Arc::clone(cache);
    thread::spawn(move || {
        while cache.present().is_empty() {
            thread::yield_now();
        }
        drop(cache.watch(&PodUid::from("b"), &name("b")));
        done.send(())
    });
    let asked = asked.recv_timeout(std::time::Duration::from_secs(20));
    drop(looking);
    publisher.join().expect("published");
    asked.is_ok()
}

#[test]
fn who_looks_at_the_members_keeps_nobody_from_the_pods() {
    let cache = Arc::new(Cache::default());
    cache.open();
    let members = cache.members();
    assert!(others_can_be_asked_for(&cache, members.borrow()));
}

#[test]
fn who_looks_at_a_pod_keeps_nobody_from_the_others() {
    let cache = Arc::new(Cache::default());
    let pod = cache.watch(&PodUid::from("a"), &name("a"));
    assert!(others_can_be_asked_for(&cache, pod.borrow()));
}
