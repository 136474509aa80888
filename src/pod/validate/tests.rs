use serde_json::{Value, json};

use super::*;
use crate::pod::defaults;

/// All errors of a good pod with one thing changed.
fn errors(change: impl FnOnce(&mut Value)) -> Vec<String> {
    let mut pod = json!({
        "metadata": {"name": "web-node", "namespace": "default", "uid": "0f-1"},
        "spec": {
            "containers": [{"name": "c", "image": "i", "volumeMounts": [
                {"name": "v", "mountPath": "/v"},
            ]}],
            "initContainers": [{"name": "i", "image": "i"}],
            "volumes": [{"name": "v"}],
        },
    });
    change(&mut pod);
    let mut pod = serde_json::from_value(pod).expect("a pod");
    defaults::apply(&mut pod);
    static_pod(&pod, References::Forbidden)
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// Sets the value at a JSON pointer, or appends to a list with `/-`.
fn set(pointer: &str, value: Value) -> impl FnOnce(&mut Value) {
    move |pod| {
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        match pod.pointer_mut(parent).expect("exists") {
            Value::Object(map) => drop(map.insert(key.into(), value)),
            Value::Array(list) if key == "-" => list.push(value),
            Value::Array(list) => list[key.parse::<usize>().expect("an index")] = value,
            other => panic!("{pointer} is below {other}"),
        }
    }
}

#[test]
fn a_good_pod_has_no_errors() {
    assert_eq!(errors(|_| {}), [""; 0]);
}

#[test]
fn one_wrong_field_is_one_error() {
    let name_rule = "must consist of lower case alphanumeric characters or '-', and must start \
                     and end with an alphanumeric character";
    let label_error =
        |path: &str, value: &str| format!("{path}: Invalid value: {value:?}: {name_rule}");
    let c0 = "spec.containers[0]";
    let cases: Vec<(&str, Value, String)> = vec![
        (
            "/metadata/name",
            json!("Web_1"),
            "metadata.name: Invalid value: \"Web_1\": must consist of lower case alphanumeric \
             characters, '-' or '.', and every part must start and end with an alphanumeric \
             character"
                .into(),
        ),
        (
            "/metadata/namespace",
            json!("a.b"),
            label_error("metadata.namespace", "a.b"),
        ),
        (
            "/metadata/uid",
            json!("../../etc"),
            "metadata.uid: Invalid value: \"../../etc\": must consist of alphanumeric \
             characters, '-' or '_'"
                .into(),
        ),
        (
            "/spec/containers",
            json!([]),
            "spec.containers: Required value".into(),
        ),
        (
            "/spec/containers/0/name",
            json!(""),
            format!("{c0}.name: Required value"),
        ),
        (
            "/spec/containers/0/name",
            json!("C"),
            label_error("spec.containers[0].name", "C"),
        ),
        (
            "/spec/containers/0/name",
            json!("a".repeat(64)),
            format!(
                "{c0}.name: Invalid value: {:?}: must be no more than 63 characters",
                "a".repeat(64)
            ),
        ),
        (
            "/spec/containers/0/image",
            json!(""),
            format!("{c0}.image: Required value"),
        ),
        (
            "/spec/containers/0/imagePullPolicy",
            json!("always"),
            format!(
                "{c0}.imagePullPolicy: Unsupported value: \"always\": supported values: \
                 \"Always\", \"IfNotPresent\", \"Never\""
            ),
        ),
        (
            "/spec/initContainers/0/name",
            json!("c"),
            "spec.initContainers[0].name: Duplicate value: \"c\"".into(),
        ),
        (
            "/spec/restartPolicy",
            json!("Sometimes"),
            "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \
             \"Always\", \"OnFailure\", \"Never\""
                .into(),
        ),
        (
            "/spec/dnsPolicy",
            json!("None"),
            "spec.dnsConfig.nameservers: Required value: must provide at least one DNS \
             nameserver when `dnsPolicy` is None"
                .into(),
        ),
        (
            "/spec/hostname",
            json!("a_b"),
            label_error("spec.hostname", "a_b"),
        ),
        (
            "/spec/activeDeadlineSeconds",
            json!(0),
            "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, \
             inclusive"
                .into(),
        ),
        (
            "/spec/volumes/-",
            json!({"name": "v"}),
            "spec.volumes[1].name: Duplicate value: \"v\"".into(),
        ),
        (
            "/spec/volumes/-",
            json!({"name": "w", "emptyDir": {}, "hostPath": {"path": "/x"}}),
            "spec.volumes[1].hostPath: Forbidden: may not specify more than 1 volume type".into(),
        ),
        (
            "/spec/volumes/-",
            json!({"name": "w", "hostPath": {"path": "/x/../y"}}),
            "spec.volumes[1].hostPath.path: Invalid value: \"/x/../y\": must not contain '..'"
                .into(),
        ),
        (
            "/spec/containers/0/volumeMounts/0/name",
            json!("w"),
            format!("{c0}.volumeMounts[0].name: Not found: \"w\""),
        ),
        (
            "/spec/containers/0/volumeMounts/-",
            json!({"name": "v", "mountPath": "/v"}),
            format!("{c0}.volumeMounts[1].mountPath: Invalid value: \"/v\": must be unique"),
        ),
        (
            "/spec/containers/0/volumeMounts/0/mountPropagation",
            json!("Bidirectional"),
            format!(
                "{c0}.volumeMounts[0].mountPropagation: Forbidden: Bidirectional mount \
                 propagation is available only to privileged containers"
            ),
        ),
        (
            "/spec/containers/0/volumeMounts/0/subPath",
            json!("a/../b"),
            format!(
                "{c0}.volumeMounts[0].subPath: Invalid value: \"a/../b\": must not contain '..'"
            ),
        ),
        (
            "/spec/containers/0/ports",
            json!([{"containerPort": 65536}]),
            format!(
                "{c0}.ports[0].containerPort: Invalid value: 65536: must be between 1 and 65535, \
                 inclusive"
            ),
        ),
        (
            "/spec/containers/0/ports",
            json!([{"containerPort": 1, "hostPort": 9}, {"containerPort": 2, "hostPort": 9}]),
            format!("{c0}.ports[1].hostPort: Duplicate value: \"TCP/9\""),
        ),
        (
            "/spec/containers/0/env",
            json!([{"name": "A=B"}]),
            format!(
                "{c0}.env[0].name: Invalid value: \"A=B\": must consist of printable ASCII \
                 characters other than '='"
            ),
        ),
        (
            "/spec/containers/0/resources",
            json!({"requests": {"cpu": "-1"}}),
            format!(
                "{c0}.resources.requests[cpu]: Invalid value: \"-1\": must be greater than or \
                 equal to 0"
            ),
        ),
    ];
    for (pointer, value, expected) in cases {
        let found = errors(set(pointer, value.clone()));
        assert_eq!(found, [expected], "{pointer} = {value}");
    }
}

#[test]
fn a_static_pod_may_not_need_the_api() {
    let cases = [
        (
            "/spec/serviceAccountName",
            json!("x"),
            "spec.serviceAccountName",
            "serviceaccounts",
        ),
        (
            "/spec/serviceAccount",
            json!("x"),
            "spec.serviceAccountName",
            "serviceaccounts",
        ),
        (
            "/spec/imagePullSecrets",
            json!([{"name": "s"}]),
            "spec.imagePullSecrets[0]",
            "secrets",
        ),
        (
            "/spec/resourceClaims",
            json!([{"name": "r"}]),
            "spec.resourceClaims",
            "resourceclaims",
        ),
        (
            "/spec/containers/0/envFrom",
            json!([{"secretRef": {"name": "s"}}]),
            "spec.containers[0].envFrom[0].secretRef",
            "secrets",
        ),
        (
            "/spec/initContainers/0/env",
            json!([{"name": "E", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}]),
            "spec.initContainers[0].env[0].valueFrom.configMapKeyRef",
            "configmaps",
        ),
        (
            "/spec/volumes/0",
            json!({"name": "v", "secret": {"secretName": "s"}}),
            "spec.volumes[0].secret",
            "secrets (via secret volumes)",
        ),
        (
            "/spec/volumes/0",
            json!({"name": "v", "persistentVolumeClaim": {"claimName": "p"}}),
            "spec.volumes[0].persistentVolumeClaim",
            "persistentvolumeclaims",
        ),
        (
            "/spec/volumes/0",
            json!({"name": "v", "projected": {"sources": [
                {"downwardAPI": {}},
                {"serviceAccountToken": {"path": "t"}},
            ]}}),
            "spec.volumes[0].projected.sources[1].serviceAccountToken",
            "serviceaccounts (via projected volumes)",
        ),
        (
            "/spec/volumes/0",
            json!({"name": "v", "projected": {"sources": [{"clusterTrustBundle": {"path": "t"}}]}}),
            "spec.volumes[0].projected.sources[0].clusterTrustBundle",
            "clustertrustbundles",
        ),
    ];
    for (pointer, value, path, resource) in cases {
        let expected = format!("{path}: Forbidden: static pods may not reference {resource}");
        assert_eq!(errors(set(pointer, value)), [expected], "{pointer}");
    }
}

#[test]
fn on_a_node_of_its_own_a_static_pod_may_name_what_files_can_hold() {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "default", "uid": "u"},
        "spec": {
            "containers": [{
                "name": "c", "image": "i",
                "envFrom": [{"secretRef": {"name": "s"}}],
                "env": [{"name": "E", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}],
            }],
            "volumes": [
                {"name": "a", "secret": {"secretName": "s"}},
                {"name": "b", "projected": {"sources": [
                    {"configMap": {"name": "c"}}, {"serviceAccountToken": {"path": "t"}},
                ]}},
            ],
        },
    }))
    .expect("a pod");
    let paths = |references| -> Vec<String> {
        let errors = static_pod(&pod, references);
        let references = errors
            .iter()
            .filter(|error| error.to_string().contains("may not reference"));
        references.map(|error| error.path.clone()).collect()
    };
    assert_eq!(paths(References::Forbidden).len(), 5);
    let token = "spec.volumes[1].projected.sources[1].serviceAccountToken";
    assert_eq!(paths(References::Files), [token]);
}

#[test]
fn all_errors_come_at_once() {
    let found = errors(|pod| {
        pod["spec"] = json!({"containers": [
            {"name": "c", "volumeMounts": [{"name": "x", "mountPath": ""}]},
            {"name": "c", "image": "i", "ports": [{"name": "toolongaportname1", "containerPort": 0}]},
        ]});
    });
    insta::assert_snapshot!(found.join("\n"), @r#"
    spec.containers[0].image: Required value
    spec.containers[0].volumeMounts[0].name: Not found: "x"
    spec.containers[0].volumeMounts[0].mountPath: Required value
    spec.containers[1].name: Duplicate value: "c"
    spec.containers[1].ports[0].name: Invalid value: "toolongaportname1": must be no more than 15 characters
    spec.containers[1].ports[0].containerPort: Required value
    "#);
}

#[test]
fn host_network_ports_are_the_containers() {
    let found = errors(|pod| {
        set("/spec/hostNetwork", json!(true))(pod);
        set(
            "/spec/containers/0/ports",
            json!([{"containerPort": 80, "hostPort": 81}]),
        )(pod);
    });
    assert_eq!(
        found,
        [
            "spec.containers[0].ports[0].containerPort: Invalid value: 80: must match `hostPort` \
          when `hostNetwork` is true"
        ]
    );
}
