//! Tables and goldens; nothing here touches a machine.

use super::*;
use insta::assert_json_snapshot;
use serde_json::json;

#[test]
fn a_node_with_everything() {
    let settings = NodeSettings {
        labels: [
            ("node.kubernetes.io/instance-type", "m5"),
            ("kubernetes.io/hostname", "other"),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into(),
        taints: vec![Taint {
            key: "dedicated".to_owned(),
            value: Some("db".to_owned()),
            effect: "NoExecute".to_owned(),
            time_added: None,
        }],
        provider_id: Some("cloud:///1".to_owned()),
        external_cloud_provider: true,
        ..NodeSettings::for_test()
    };
    assert_json_snapshot!(initial_node(&settings, &MachineFacts::for_test()));
}

fn existing() -> Node {
    serde_json::from_value(json!({
        "metadata": {
            "name": "node-1",
            "labels": {
                "kubernetes.io/hostname": "old",
                "custom": "1",
                "node.kubernetes.io/instance-type": "m4",
            },
            "annotations": {"x": "y", "volumes.kubernetes.io/controller-managed-attach-detach": "true"},
        },
        "spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]},
        "status": {
            "capacity": {"cpu": "1", "example.com/gpu": "4"},
            "allocatable": {"cpu": "1", "example.com/gpu": "3"},
        },
    }))
    .unwrap()
}

#[test]
fn an_existing_node_is_put_right() {
    let settings = NodeSettings {
        controller_attach_detach: false,
        labels: [("custom".to_owned(), "2".to_owned())].into(),
        ..NodeSettings::for_test()
    };
    let initial = initial_node(&settings, &MachineFacts::for_test());
    let node = reconcile(&existing(), &initial, ExtendedResources::Zero);
    assert_json_snapshot!(node);
}

#[test]
fn devices_with_a_checkpoint_are_kept() {
    let initial = initial_node(&NodeSettings::for_test(), &MachineFacts::for_test());
    let node = reconcile(&existing(), &initial, ExtendedResources::Keep);
    assert_eq!(node.status, existing().status);
    assert_eq!(node.metadata.annotations, existing().metadata.annotations);
}
