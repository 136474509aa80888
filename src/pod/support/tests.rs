use Effect::{Refuse, Warn};
use serde_json::{Value, json};

use super::*;

fn found(spec: Value) -> Vec<(String, Effect)> {
    let pod = serde_json::from_value(json!({"spec": spec})).expect("a pod");
    let findings = unsupported(&pod);
    assert!(findings.iter().all(|finding| !finding.message.is_empty()));
    findings
        .into_iter()
        .map(|finding| (finding.field_path, finding.effect))
        .collect()
}

#[test]
fn what_is_honoured_is_not_mentioned() {
    let spec = json!({
        "hostNetwork": true, "hostPID": true, "hostIPC": true, "hostUsers": false,
        "runtimeClassName": "kata", "resources": {"limits": {"cpu": "1"}},
        "restartPolicy": "OnFailure", "terminationGracePeriodSeconds": 5,
        "dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"]},
        "securityContext": {
            "runAsUser": 1, "supplementalGroupsPolicy": "Strict",
            "sysctls": [{"name": "kernel/shm_rmid_forced", "value": "1"}],
        },
        "readinessGates": [{"conditionType": "x"}],
        "initContainers": [
            {"name": "i", "image": "i"},
            {"name": "s", "image": "i", "restartPolicy": "Always"},
        ],
        "ephemeralContainers": [{"name": "e", "targetContainerName": "c"}],
        "containers": [{
            "name": "c", "image": "i", "restartPolicy": "Never",
            "restartPolicyRules": [{"action": "RestartAllContainers"}],
            "env": [
                {"name": "A", "value": "b"},
                {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "C", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            ],
            "ports": [{"containerPort": 80, "hostPort": 80}],
            "resources": {"limits": {"cpu": "1"}},
            "volumeMounts": [{"name": "a", "mountPath": "/a", "subPath": ""}],
            "lifecycle": {},
        }],
        "volumes": [
            {"name": "a"},
            {"name": "b", "emptyDir": {"medium": "Memory"}},
            {"name": "c", "hostPath": {"path": "/"}},
            {"name": "d", "projected": {"sources": [
                {"serviceAccountToken": {"path": "t"}},
                {"configMap": {"name": "c"}},
                {"secret": {"name": "c"}},
                {"downwardAPI": {}},
            ]}},
            {"name": "e", "configMap": {"name": "c"}},
            {"name": "f", "secret": {"secretName": "c"}},
            {"name": "g", "downwardAPI": {}},
        ],
    });
    assert_eq!(found(spec), []);
    assert_eq!(unsupported(&Pod::default()), []);
}

#[test]
fn pod_fields() {
    let spec = json!({"resourceClaims": [{"name": "r"}]});
    assert_eq!(found(spec), [("spec.resourceClaims".to_owned(), Refuse)]);
}

#[test]
fn container_fields() {
    let cases = [
        (
            json!({"resources": {"claims": [{"name": "r"}]}}),
            "resources.claims",
            Refuse,
        ),
        (
            json!({"volumeDevices": [{"name": "d", "devicePath": "/d"}]}),
            "volumeDevices",
            Refuse,
        ),
        (
            json!({"lifecycle": {"stopSignal": "SIGINT"}}),
            "lifecycle.stopSignal",
            Warn,
        ),
    ];
    for (mut container, field, effect) in cases {
        container["name"] = json!("c");
        for list in ["containers", "initContainers"] {
            let expected = (format!("spec.{list}[0].{field}"), effect);
            assert_eq!(found(json!({list: [container]})), [expected]);
        }
    }
}

#[test]
fn volumes() {
    let cases = [
        (
            json!({"emptyDir": {"medium": "HugePages"}}),
            "emptyDir.medium",
        ),
        (
            json!({"persistentVolumeClaim": {"claimName": "p"}}),
            "persistentVolumeClaim",
        ),
        (json!({"csi": {"driver": "d"}}), "csi"),
        (json!({"image": {"reference": "i"}}), "image"),
        (json!({"nfs": {"server": "s", "path": "/"}}), "nfs"),
        (json!({"ephemeral": {}}), "ephemeral"),
        (
            json!({"projected": {"sources": [{"clusterTrustBundle": {"path": "t"}}]}}),
            "projected.sources[0].clusterTrustBundle",
        ),
    ];
    for (mut volume, field) in cases {
        volume["name"] = json!("v");
        let expected = (format!("spec.volumes[0].{field}"), Refuse);
        assert_eq!(found(json!({"volumes": [volume]})), [expected]);
    }
}
