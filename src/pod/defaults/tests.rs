use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::*;

fn defaulted(spec: serde_json::Value) -> Pod {
    let mut pod = serde_json::from_value(json!({"spec": spec})).expect("a pod");
    apply(&mut pod);
    let once = pod.clone();
    apply(&mut pod);
    assert_eq!(once, pod, "applying twice changes nothing more");
    pod
}

#[test]
fn a_bare_pod_gets_what_the_api_server_would_add() {
    let pod = defaulted(json!({
        "containers": [{"name": "c", "image": "i:1", "ports": [{"containerPort": 80}]}],
        "volumes": [{"name": "v"}],
    }));
    insta::assert_yaml_snapshot!(pod.spec, @r#"
    containers:
      - image: "i:1"
        imagePullPolicy: IfNotPresent
        name: c
        ports:
          - containerPort: 80
            protocol: TCP
        terminationMessagePath: /dev/termination-log
        terminationMessagePolicy: File
    dnsPolicy: ClusterFirst
    enableServiceLinks: true
    restartPolicy: Always
    schedulerName: default-scheduler
    securityContext: {}
    terminationGracePeriodSeconds: 30
    volumes:
      - emptyDir: {}
        name: v
    "#);
}

#[test]
fn what_is_set_stays() {
    let spec = json!({
        "restartPolicy": "Never",
        "dnsPolicy": "Default",
        "schedulerName": "mine",
        "terminationGracePeriodSeconds": 0,
        "enableServiceLinks": false,
        "securityContext": {"runAsUser": 1},
        "containers": [{
            "name": "c",
            "image": "i",
            "imagePullPolicy": "Never",
            "terminationMessagePath": "/t",
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "ports": [{"containerPort": 80, "hostPort": 81, "protocol": "UDP"}],
            "resources": {"limits": {"cpu": "2"}, "requests": {"cpu": "1"}},
        }],
        "volumes": [{"name": "v", "configMap": {"name": "c", "defaultMode": 256}}],
    });
    let pod = defaulted(spec.clone());
    let shown = serde_json::to_value(pod.spec).expect("serialisable");
    assert_eq!(shown, spec);
}

#[test]
fn requests_come_from_limits_one_by_one() {
    let resources = json!({"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "1"}});
    let pod = defaulted(json!({
        "containers": [{"name": "c", "resources": resources}],
        "initContainers": [{"name": "i", "resources": {"limits": {"cpu": "3"}}}],
    }));
    let spec = serde_json::to_value(pod.spec).expect("serialisable");
    let requests = |pointer: &str| spec.pointer(pointer).cloned();
    assert_eq!(
        requests("/containers/0/resources/requests"),
        Some(json!({"cpu": "1", "memory": "1Gi"}))
    );
    assert_eq!(
        requests("/initContainers/0/resources/requests"),
        Some(json!({"cpu": "3"}))
    );
}

#[test]
fn ports_of_the_host_network_are_the_host_s() {
    let pod = defaulted(json!({
        "hostNetwork": true,
        "containers": [{"name": "c", "ports": [
            {"containerPort": 80},
            {"containerPort": 81, "hostPort": 0},
            {"containerPort": 82, "hostPort": 82},
        ]}],
    }));
    let spec = pod.spec.expect("a spec");
    let ports: Vec<_> = spec.containers[0]
        .ports
        .iter()
        .flatten()
        .map(|port| port.host_port)
        .collect();
    assert_eq!(ports, [Some(80), Some(81), Some(82)]);
}

#[test]
fn pull_policy_by_tag() {
    let cases = [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1", "IfNotPresent"),
        ("localhost:5000/nginx", "Always"),
        ("localhost:5000/nginx:1", "IfNotPresent"),
        ("localhost:5000/nginx:latest", "Always"),
        ("nginx@sha256:00", "IfNotPresent"),
        ("nginx:latest@sha256:00", "Always"),
        ("nginx:1@sha256:00", "IfNotPresent"),
        ("", "Always"),
    ];
    for (image, policy) in cases {
        assert_eq!(pull_policy_for(image), policy, "{image}");
    }
}

#[test]
fn probes_hooks_and_references() {
    let pod = defaulted(json!({
        "containers": [{
            "name": "c",
            "image": "i:1",
            "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "livenessProbe": {"httpGet": {"port": 80}},
            "readinessProbe": {"grpc": {"port": 80}, "periodSeconds": 3},
            "startupProbe": {"exec": {"command": ["x"]}, "timeoutSeconds": 0},
            "lifecycle": {"preStop": {"httpGet": {"port": "web", "scheme": "HTTPS"}}},
        }],
    }));
    let spec = pod.spec.expect("a spec");
    insta::assert_yaml_snapshot!(spec.containers[0], @r#"
    env:
      - name: N
        valueFrom:
          fieldRef:
            apiVersion: v1
            fieldPath: metadata.name
    image: "i:1"
    imagePullPolicy: IfNotPresent
    lifecycle:
      preStop:
        httpGet:
          path: /
          port: web
          scheme: HTTPS
    livenessProbe:
      failureThreshold: 3
      httpGet:
        path: /
        port: 80
        scheme: HTTP
      periodSeconds: 10
      successThreshold: 1
      timeoutSeconds: 1
    name: c
    readinessProbe:
      failureThreshold: 3
      grpc:
        port: 80
        service: ""
      periodSeconds: 3
      successThreshold: 1
      timeoutSeconds: 1
    startupProbe:
      exec:
        command:
          - x
      failureThreshold: 3
      periodSeconds: 10
      successThreshold: 1
      timeoutSeconds: 1
    terminationMessagePath: /dev/termination-log
    terminationMessagePolicy: File
    "#);
}

#[test]
fn volumes() {
    let pod = defaulted(json!({
        "containers": [],
        "volumes": [
            {"name": "a", "hostPath": {"path": "/a"}},
            {"name": "b", "secret": {"secretName": "s"}},
            {"name": "c", "configMap": {"name": "c"}},
            {"name": "d", "downwardAPI": {"items": [
                {"path": "p", "fieldRef": {"fieldPath": "metadata.name"}},
            ]}},
            {"name": "e", "projected": {"sources": [
                {"serviceAccountToken": {"path": "token"}},
                {"downwardAPI": {"items": [
                    {"path": "p", "fieldRef": {"fieldPath": "metadata.name"}},
                ]}},
            ]}},
            {"name": "f", "image": {"reference": "i"}},
        ],
    }));
    insta::assert_yaml_snapshot!(pod.spec.expect("a spec").volumes, @r#"
    - hostPath:
        path: /a
        type: ""
      name: a
    - name: b
      secret:
        defaultMode: 420
        secretName: s
    - configMap:
        defaultMode: 420
        name: c
      name: c
    - downwardAPI:
        defaultMode: 420
        items:
          - fieldRef:
              apiVersion: v1
              fieldPath: metadata.name
            path: p
      name: d
    - name: e
      projected:
        defaultMode: 420
        sources:
          - serviceAccountToken:
              expirationSeconds: 3600
              path: token
          - downwardAPI:
              items:
                - fieldRef:
                    apiVersion: v1
                    fieldPath: metadata.name
                  path: p
    - image:
        pullPolicy: Always
        reference: i
      name: f
    "#);
}

#[test]
fn requests_of_a_pod_with_limits_of_its_own() {
    let requests = |resources: serde_json::Value| {
        let pod = defaulted(json!({
            "resources": resources,
            "containers": [
                {"name": "a", "resources": {"requests": {"cpu": "100m"}}},
                {"name": "b", "resources": {"limits": {"cpu": "50m"}}},
            ],
        }));
        let pod = serde_json::to_value(pod).expect("serialisable");
        pod.pointer("/spec/resources/requests").cloned()
    };
    for (resources, expected) in [
        // What containers ask for, else the limit.
        (
            json!({"limits": {"cpu": "2", "memory": "1Gi", "hugepages-2Mi": "2Mi"}}),
            Some(json!({"cpu": "150m", "memory": "1Gi", "hugepages-2Mi": "2Mi"})),
        ),
        (
            json!({"limits": {"memory": "1Gi"}, "requests": {"cpu": "1"}}),
            Some(json!({"cpu": "1", "memory": "1Gi"})),
        ),
        // Without limits nothing is made up.
        (
            json!({"requests": {"memory": "5"}}),
            Some(json!({"memory": "5"})),
        ),
        (json!({}), None),
    ] {
        assert_eq!(requests(resources.clone()), expected, "{resources}");
    }
}
