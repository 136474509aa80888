//! Tables: static pods, mirrors and node in, steps out.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::json;

use super::object;
use crate::pod::{
    DesiredPod, DesiredPods, Intent, Origin, PodName, PodUid, SourcesReady, Termination,
    TerminationReason,
};
use crate::status::mirror::{MirrorStep, plan};

const READY: SourcesReady = SourcesReady {
    api: true,
    manifests: true,
};

pub(super) fn static_pod(hash: &str, intent: Intent) -> DesiredPod {
    let pod: Pod = object(json!({
        "metadata": {
            "namespace": "kube-system", "name": "web-n1", "uid": hash, "labels": { "app": "web" },
            "annotations": { "kubernetes.io/config.hash": hash },
        },
        "spec": { "nodeName": "n1", "containers": [{ "name": "main" }] },
        "status": { "phase": "Pending" },
    }));
    DesiredPod {
        uid: PodUid::from(hash),
        name: PodName::of(&pod),
        pod: Arc::new(pod),
        origin: Origin::Static {
            path: "/etc/web.yaml".into(),
        },
        intent,
    }
}

pub(super) fn mirror(hash: &str) -> Pod {
    object(json!({
        "metadata": {
            "namespace": "kube-system", "name": "web-n1", "uid": format!("mirror-{hash}"),
            "resourceVersion": "1",
            "annotations": { "kubernetes.io/config.mirror": hash },
        },
        "spec": { "nodeName": "n1", "containers": [{ "name": "main" }] },
        "status": { "phase": "Pending" },
    }))
}

pub(super) fn node() -> Node {
    object(json!({ "metadata": { "name": "n1", "uid": "node-uid" } }))
}

pub(super) fn desired(
    pods: Vec<DesiredPod>,
    mirrors: Vec<Pod>,
    ready: SourcesReady,
) -> DesiredPods {
    let by_uid = pods.into_iter().map(|pod| (pod.uid.clone(), Arc::new(pod)));
    let by_name = mirrors
        .into_iter()
        .map(|pod| (PodName::of(&pod), Arc::new(pod)));
    DesiredPods {
        pods: Arc::new(by_uid.collect()),
        mirrors: Arc::new(by_name.collect::<BTreeMap<_, _>>()),
        ready,
    }
}

fn ending() -> Intent {
    Intent::Terminate(Termination {
        grace: None,
        reason: TerminationReason::Removed,
    })
}

/// Steps in short: `+` creates, `-UID` deletes.
fn short(steps: &[MirrorStep]) -> String {
    let show = |step: &MirrorStep| match step {
        MirrorStep::Create { .. } => "+".to_owned(),
        MirrorStep::Delete { uid, .. } => format!("-{uid}"),
    };
    steps.iter().map(show).collect::<Vec<_>>().join(" ")
}

#[test]
fn steps_for_each_situation() {
    let going = |mut pod: Pod| {
        pod.metadata.deletion_timestamp = Some(object(json!("2026-01-01T00:00:00Z")));
        pod
    };
    let run = |hash| static_pod(hash, Intent::Run);
    let no_api = SourcesReady {
        api: false,
        ..READY
    };
    let no_manifests = SourcesReady {
        manifests: false,
        ..READY
    };
    let table = [
        ("no mirror yet", vec![run("h1")], vec![], READY, "+"),
        (
            "all is well",
            vec![run("h1")],
            vec![mirror("h1")],
            READY,
            "",
        ),
        (
            "mirror of an old manifest",
            vec![run("h2")],
            vec![mirror("h1")],
            READY,
            "-mirror-h1",
        ),
        (
            "old manifest still ends",
            vec![static_pod("h1", ending()), run("h2")],
            vec![mirror("h1")],
            READY,
            "",
        ),
        (
            "mirror deleted by a user",
            vec![run("h1")],
            vec![going(mirror("h1"))],
            READY,
            "-mirror-h1",
        ),
        ("orphan", vec![], vec![mirror("h1")], READY, "-mirror-h1"),
        (
            "orphan, manifests unread",
            vec![],
            vec![mirror("h1")],
            no_manifests,
            "",
        ),
        ("mirrors unknown", vec![run("h1")], vec![], no_api, ""),
        (
            "ending pod keeps its mirror",
            vec![static_pod("h1", ending())],
            vec![mirror("h1")],
            READY,
            "",
        ),
        (
            "ending pod gets no mirror",
            vec![static_pod("h1", ending())],
            vec![],
            READY,
            "",
        ),
    ];
    for (name, pods, mirrors, ready, expected) in table {
        let steps = plan(&desired(pods, mirrors, ready), &[], Some(&node()));
        assert_eq!(short(&steps), expected, "{name}");
    }
}

#[test]
fn mirrors_wait_for_a_node_that_stays() {
    let desired = desired(vec![static_pod("h1", Intent::Run)], vec![], READY);
    assert_eq!(plan(&desired, &[], None), vec![]);
    let mut leaving = node();
    leaving.metadata.deletion_timestamp = Some(object(json!("2026-01-01T00:00:00Z")));
    assert_eq!(plan(&desired, &[], Some(&leaving)), vec![]);
}

#[test]
fn a_mirror_is_a_copy_owned_by_the_node() {
    let desired = desired(vec![static_pod("h1", Intent::Run)], vec![], READY);
    let steps = plan(&desired, &[], Some(&node()));
    let [MirrorStep::Create { pod, .. }] = &steps[..] else {
        panic!("{steps:?}");
    };
    insta::assert_json_snapshot!(pod, @r#"
    {
      "apiVersion": "v1",
      "kind": "Pod",
      "metadata": {
        "annotations": {
          "kubernetes.io/config.hash": "h1",
          "kubernetes.io/config.mirror": "h1"
        },
        "labels": {
          "app": "web"
        },
        "name": "web-n1",
        "namespace": "kube-system",
        "ownerReferences": [
          {
            "apiVersion": "v1",
            "controller": true,
            "kind": "Node",
            "name": "n1",
            "uid": "node-uid"
          }
        ]
      },
      "spec": {
        "containers": [
          {
            "name": "main"
          }
        ],
        "nodeName": "n1"
      }
    }
    "#);
}

#[test]
fn a_mirror_stays_until_its_pod_is_gone() {
    let old = Arc::new(static_pod("old", Intent::Run));
    let removed = desired(vec![], vec![mirror("old")], READY);
    assert_eq!(
        plan(&removed, std::slice::from_ref(&old), Some(&node())),
        vec![]
    );
    assert_eq!(plan(&removed, &[], Some(&node())).len(), 1);
    // An edited manifest: the new pod has to wait for the old one, too.
    let new = static_pod("new", Intent::Run);
    let edited = desired(vec![new], vec![mirror("old")], READY);
    assert_eq!(plan(&edited, &[old], Some(&node())), vec![]);
    assert_eq!(plan(&edited, &[], Some(&node())).len(), 1);
}
