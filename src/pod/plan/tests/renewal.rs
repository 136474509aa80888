//! When mounted volumes are given new contents.

use super::*;
use crate::pod::inputs::MountedVolumes;

fn mounted(volumes: MountedVolumes) -> PodMemory {
    PodMemory {
        cgroup: Progress::Done(()),
        volumes: Progress::Done(volumes),
        ..with_images(prepared(), &["a"])
    }
}

fn renews(pod: &DesiredPod, memory: &PodMemory, now: i64) -> bool {
    let observed = up(vec![instance(pod, "a", 0, running())]);
    decide(pod, &observed, memory, now)
        .steps
        .contains(&Step::MountVolumes)
}

#[test]
fn a_change_that_was_heard_of_is_fetched() {
    let pod = pod("Always", &[], &["a"]);
    let mut memory = mounted(MountedVolumes {
        changes: 3,
        ..MountedVolumes::default()
    });
    memory.volume_changes = 3;
    assert!(!renews(&pod, &memory, 0));
    memory.volume_changes = 4;
    assert!(renews(&pod, &memory, 0));
}

#[test]
fn a_failed_renewal_waits_and_holds_nothing_else_up() {
    let pod = pod("Always", &[], &["a"]);
    let mut memory = mounted(MountedVolumes::default());
    memory.volume_changes = 1;
    memory.volume_renewal = Some(Failure::after(None, "gone".into(), Pauses::RENEWAL, at(0)));
    let observed = up(vec![]);
    let plan = decide(&pod, &observed, &memory, 0);
    assert_eq!(plan.steps, [start("a", NextAttempt::FromLogs, None)]);
    assert_eq!(plan.recheck_at(), Some(at(1)));
    assert!(renews(&pod, &memory, 1));
}

#[test]
fn contents_that_grow_old_are_renewed_in_time() {
    let pod = pod("Always", &[], &["a"]);
    let memory = mounted(MountedVolumes {
        refresh_at: Some(at(100)),
        ..MountedVolumes::default()
    });
    assert!(!renews(&pod, &memory, 99));
    assert!(renews(&pod, &memory, 100));
}

#[test]
fn new_labels_reach_the_volumes_that_show_them() {
    let plain = pod("Always", &[], &["a"]);
    let relabelled = |pod: &DesiredPod| {
        let mut object = Pod::clone(&pod.pod);
        object.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
        DesiredPod {
            pod: Arc::new(object),
            ..pod.clone()
        }
    };
    let mut object = Pod::clone(&plain.pod);
    let volume = serde_json::from_value(json!({"name": "v", "downwardAPI": {}}));
    object.spec.as_mut().unwrap().volumes = Some(vec![volume.unwrap()]);
    let showing = DesiredPod {
        pod: Arc::new(object),
        ..plain.clone()
    };
    let of = |pod: &DesiredPod| {
        mounted(MountedVolumes {
            shown: crate::pod::downward::shown(&pod.pod),
            ..MountedVolumes::default()
        })
    };
    assert!(!renews(&showing, &of(&showing), 0));
    assert!(renews(&relabelled(&showing), &of(&showing), 0));
    assert!(!renews(&relabelled(&plain), &of(&plain), 0));
}
