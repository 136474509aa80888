use serde_json::{Value, json};

use super::*;
use crate::pod::testing;

/// A running pod of one container, and what its status tells of it.
fn pod(wish: &Value, given: Option<&Value>) -> Arc<DesiredPod> {
    let mut pod = testing::with_spec(&format!("{{containers: [{{name: c, resources: {wish}}}]}}"));
    if let Some(given) = given {
        let mut inner = Pod::clone(&pod.pod);
        inner.status = serde_json::from_value(json!({
            "containerStatuses": [{
                "name": "c", "image": "i", "imageID": "", "ready": true, "restartCount": 0,
                "resources": given,
            }]
        }))
        .unwrap();
        pod.pod = Arc::new(inner);
    }
    Arc::new(pod)
}

fn cpu(request: &str, limit: &str) -> Value {
    json!({ "requests": { "cpu": request }, "limits": { "cpu": limit } })
}

fn judged(wish: &Value, given: &Value) -> (Verdict, Value) {
    let wish = pod(wish, Some(given));
    let held = Allocation::recorded(&wish.pod);
    let requests = Resources::of(testing::first(&wish)).requests;
    let room = || (requests.cpu().value() < 4).then_some(());
    let allocated = allocate(&wish, &held, || room().ok_or_else(|| "too much".into()));
    let resources = &testing::first(&allocated.pod).resources;
    (allocated.verdict, serde_json::to_value(resources).unwrap())
}

#[test]
fn a_wish_is_granted_or_deferred() {
    let old = cpu("100m", "200m");
    assert_eq!(judged(&old, &old).0, Verdict::Unchanged);
    // Another spelling is no other amount.
    assert_eq!(judged(&cpu("0.1", "200m"), &old).0, Verdict::Unchanged);

    let new = cpu("200m", "200m");
    let (verdict, resources) = judged(&new, &old);
    assert!(
        matches!(&verdict, Verdict::Granted(c) if c["c"].contains(CPU)),
        "{verdict:?}"
    );
    assert_eq!(resources, new);

    let huge = cpu("100", "100");
    let (verdict, resources) = judged(&huge, &old);
    assert_eq!(verdict, Verdict::Deferred("too much".into()));
    assert_eq!(resources, old, "it keeps what it has");
}

#[test]
fn limits_can_come_and_go() {
    let none = json!({ "requests": { "cpu": "100m" } });
    for (old, new) in [(&none, cpu("100m", "1")), (&cpu("100m", "1"), none.clone())] {
        let (verdict, resources) = judged(&new, old);
        assert!(matches!(verdict, Verdict::Granted(_)), "{verdict:?}");
        assert_eq!(resources, new);
    }
}

#[test]
fn only_cpu_and_memory_are_looked_at() {
    let storage = |amount: &str| json!({ "requests": { "ephemeral-storage": amount } });
    let (verdict, resources) = judged(&storage("1Gi"), &storage("2Gi"));
    assert_eq!((verdict, resources), (Verdict::Unchanged, storage("1Gi")));
}

#[test]
fn a_pod_that_ends_keeps_what_it_has() {
    let mut wish = DesiredPod::clone(&pod(&cpu("2", "2"), Some(&cpu("1", "1"))));
    wish.intent = Intent::Terminate(crate::pod::Termination {
        grace: None,
        reason: crate::pod::TerminationReason::Deleted,
    });
    let held = Allocation::recorded(&wish.pod);
    let allocated = allocate(&Arc::new(wish), &held, || Ok(()));
    assert_eq!(allocated.verdict, Verdict::Unchanged);
    let resources = &testing::first(&allocated.pod).resources;
    assert_eq!(serde_json::to_value(resources).unwrap(), cpu("1", "1"));
}

#[test]
fn what_waits_is_read_from_the_status() {
    let mut told = Pod::clone(&pod(&cpu("2", "2"), Some(&cpu("1", "1"))).pod);
    let condition = json!([{ "type": PENDING, "status": "True", "message": "full" }]);
    told.status.get_or_insert_default().conditions = serde_json::from_value(condition).unwrap();
    let memory = ResizeMemory::recorded(&told);
    assert_eq!(memory.deferred.as_deref(), Some("full"));
    assert_eq!(memory.underway, None);
}

#[test]
fn a_resize_that_was_under_way_is_taken_up_again() {
    let with_condition = |status: &str| {
        let mut pod = Pod::clone(&pod(&cpu("1", "1"), Some(&cpu("1", "1"))).pod);
        let condition = json!([{
            "type": IN_PROGRESS, "status": status, "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]);
        pod.status.get_or_insert_default().conditions = serde_json::from_value(condition).unwrap();
        Underway::recorded(&pod)
    };
    let underway = with_condition("True").expect("a resize");
    assert_eq!(underway.since, "2026-01-01T00:00:00Z".parse().unwrap());
    assert_eq!(underway.changes["c"].len(), 2);
    assert_eq!(with_condition("False"), None);
    assert_eq!(Underway::recorded(&pod(&cpu("1", "1"), None).pod), None);
}

#[test]
fn the_envelope_has_room_for_old_and_new() {
    let cgroup = |cpu_quota, memory_limit| PodCgroup {
        uid: "u".into(),
        path: "/kubepods/podu".into(),
        cpu_shares: 2,
        cpu_quota,
        cpu_period: 100_000,
        memory_limit,
        pids_limit: None,
        hugepage_limits: Vec::new(),
    };
    let (old, new) = (cgroup(Some(10), Some(200)), cgroup(Some(20), Some(100)));
    assert_eq!(envelope(&old, &new), cgroup(Some(20), Some(200)));
    let open = cgroup(None, Some(100));
    assert_eq!(envelope(&old, &open), cgroup(None, Some(200)));
}

#[test]
fn events_carry_the_resources() {
    let pod = &pod(&cpu("1", "2"), None).pod;
    assert_eq!(
        event_detail(pod, Some("no room")),
        r#"{"containers":[{"name":"c","resources":{"limits":{"cpu":"2"},"requests":{"cpu":"1"}}}],"generation":0,"error":"no room"}"#
    );
    let with_init = testing::with_spec("{initContainers: [{name: i}], containers: [{name: c}]}");
    assert_eq!(
        event_detail(&with_init.pod, None),
        r#"{"initContainers":[{"name":"i","resources":{}}],"containers":[{"name":"c","resources":{}}],"generation":0}"#
    );
}
