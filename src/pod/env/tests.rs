use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use proptest::prelude::*;

use super::*;
use crate::pod::testing::{first, node, with_spec};

fn refs() -> ResolvedRefs {
    let map: ConfigMap =
        serde_json::from_str(r#"{"data": {"key": "value", "ref": "$(A)"}}"#).unwrap();
    // "s3cret" and a byte that is no text.
    let secret: Secret = serde_json::from_str(r#"{"data": {"password": "czNjcmV0"}}"#).unwrap();
    let binary: Secret = serde_json::from_str(r#"{"data": {"raw": "/w=="}}"#).unwrap();
    let file = EnvFile {
        volume: "v".into(),
        path: "p".into(),
    };
    ResolvedRefs {
        files: BTreeMap::from([(file, "A='one'\nB=''\nbroken".into())]),
        config_maps: BTreeMap::from([("map".into(), map)]),
        secrets: BTreeMap::from([("secret".into(), secret), ("binary".into(), binary)]),
        service_env: vec![
            ("KUBERNETES_SERVICE_HOST".into(), "10.96.0.1".into()),
            ("WEB_PORT".into(), "80".into()),
        ],
    }
}

fn rendered(container: &str) -> Result<Env, String> {
    let pod = with_spec(&format!("{{containers: [{{name: c, {container}}}]}}"));
    let node = node();
    let view = PodView {
        pod: &pod,
        sandbox_ips: &[],
        node: &node,
    };
    let env = render(&view, first(&pod), &refs()).map_err(|error| error.to_string())?;
    Ok(env)
}

/// Without the service variables that every container has.
fn own(container: &str) -> Result<Vec<(String, String)>, String> {
    let service = |name: &String| name == "KUBERNETES_SERVICE_HOST" || name == "WEB_PORT";
    let env = rendered(container)?;
    Ok(env.into_iter().filter(|(name, _)| !service(name)).collect())
}

#[track_caller]
fn assert_env(container: &str, expected: &[(&str, &str)]) {
    let expected: Vec<_> = expected
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    assert_eq!(own(container), Ok(expected));
}

#[test]
fn literal_values_refer_to_what_stands_before_them() {
    assert_env(
        "env: [{name: A, value: one}, {name: B, value: $(A)-$(C)}, {name: C, value: later},
               {name: D, value: $(WEB_PORT)}, {name: E, value: $$(A)}, {name: F}]",
        &[
            ("A", "one"),
            ("B", "one-$(C)"),
            ("C", "later"),
            ("D", "80"),
            ("E", "$(A)"),
            ("F", ""),
        ],
    );
}

#[test]
fn later_variables_win_and_see_the_earlier() {
    assert_env(
        "env: [{name: A, value: one}, {name: A, value: '$(A),two'}]",
        &[("A", "one,two")],
    );
}

#[test]
fn whole_objects_are_taken_with_a_prefix() {
    assert_env(
        "envFrom: [{configMapRef: {name: map}}, {prefix: S_, secretRef: {name: secret}}],
         env: [{name: key, value: own}, {name: X, value: $(S_password)}]",
        &[
            ("S_password", "s3cret"),
            ("X", "s3cret"),
            ("key", "own"),
            ("ref", "$(A)"),
        ],
    );
}

#[test]
fn keys_of_objects_are_taken_as_they_are() {
    assert_env(
        "env: [{name: A, value: x},
               {name: M, valueFrom: {configMapKeyRef: {name: map, key: ref}}},
               {name: S, valueFrom: {secretKeyRef: {name: secret, key: password}}}]",
        &[("A", "x"), ("M", "$(A)"), ("S", "s3cret")],
    );
}

#[test]
fn what_is_missing_is_named_unless_optional() {
    for (container, message) in [
        (
            "env: [{name: A, valueFrom: {configMapKeyRef: {name: map, key: k}}}]",
            "couldn't find key k in ConfigMap default/map",
        ),
        (
            "env: [{name: A, valueFrom: {secretKeyRef: {name: secret, key: k}}}]",
            "couldn't find key k in Secret default/secret",
        ),
        (
            "env: [{name: A, valueFrom: {configMapKeyRef: {name: none, key: k}}}]",
            "configmap \"none\" not found",
        ),
        (
            "env: [{name: A, valueFrom: {secretKeyRef: {name: none, key: k}}}]",
            "secret \"none\" not found",
        ),
        (
            "envFrom: [{configMapRef: {name: none}}]",
            "configmap \"none\" not found",
        ),
        (
            "envFrom: [{secretRef: {name: none}}]",
            "secret \"none\" not found",
        ),
    ] {
        assert_eq!(own(container), Err(message.into()), "{container}");
        let optional = container
            .replace("name: none", "optional: true, name: none")
            .replace("name: map", "optional: true, name: map")
            .replace("name: secret", "optional: true, name: secret");
        assert_eq!(own(&optional), Ok(vec![]), "{optional}");
    }
}

#[test]
fn values_come_from_files() {
    assert_env(
        "env: [{name: X, valueFrom: {fileKeyRef: {volumeName: v, path: p, key: A}}},
               {name: Y, valueFrom: {fileKeyRef: {volumeName: v, path: p, key: B}}},
               {name: Z, valueFrom:
                   {fileKeyRef: {volumeName: v, path: none, key: A, optional: true}}},
               {name: W, value: $(X)}]",
        &[("W", "one"), ("X", "one"), ("Y", "")],
    );
}

#[test]
fn what_cannot_be_given_is_refused() {
    for (container, message) in [
        (
            "env: [{name: A, valueFrom: {secretKeyRef: {name: binary, key: raw}}}]",
            "the value of key raw in Secret default/binary is not text",
        ),
        (
            "envFrom: [{secretRef: {name: binary}}]",
            "the value of key raw in Secret default/binary is not text",
        ),
        (
            "env: [{name: A, valueFrom: {fileKeyRef: {volumeName: v, path: p, key: k}}}]",
            "couldn't parse env file",
        ),
        (
            "env: [{name: A, valueFrom: {fileKeyRef: {volumeName: v, path: none, key: k}}}]",
            "couldn't find env file \"none\" in volume \"v\"",
        ),
        (
            "env: [{name: A, valueFrom: {fieldRef: {fieldPath: spec.x}}}]",
            "field label not supported: spec.x",
        ),
    ] {
        assert_eq!(own(container), Err(message.into()));
    }
}

#[test]
fn service_variables_fill_up() {
    let env = rendered("env: [{name: WEB_PORT, value: own}]").unwrap();
    assert_eq!(env["WEB_PORT"], "own");
    assert_eq!(env["KUBERNETES_SERVICE_HOST"], "10.96.0.1");
}

#[test]
fn a_huge_environment_renders() {
    let variables: Vec<String> = (0..10_000)
        .map(|i| format!("{{name: V{i}, value: '$(V{})$('}}", i / 2))
        .collect();
    let env = own(&format!("env: [{}]", variables.join(", "))).unwrap();
    assert_eq!(env.len(), 10_000);
}

fn services() -> Vec<Service> {
    serde_saphyr::from_str(
        "
- metadata: {name: kubernetes, namespace: default}
  spec: {clusterIP: 10.96.0.1, ports: [{name: https, port: 443, protocol: TCP}]}
- metadata: {name: my-web, namespace: shop}
  spec: {clusterIP: 'fd00::8', ports: [{name: http, port: 80}, {name: dns-udp, port: 53, protocol: UDP}]}
- metadata: {name: headless, namespace: shop}
  spec: {clusterIP: None, ports: [{port: 80}]}
- metadata: {name: external, namespace: shop}
  spec: {externalName: example.com}
- metadata: {name: portless, namespace: shop}
  spec: {clusterIP: 10.96.0.7}
- metadata: {name: elsewhere, namespace: other}
  spec: {clusterIP: 10.96.0.9, ports: [{port: 80}]}
",
    )
    .unwrap()
}

#[test]
fn services_have_names_of_two_traditions() {
    let text = |links| {
        let env = services().iter().collect::<Services>().env("shop", links);
        let lines: Vec<String> = env.iter().map(|(k, v)| format!("{k}={v}")).collect();
        lines.join("\n")
    };
    insta::assert_snapshot!(text(false), @"
    KUBERNETES_PORT=tcp://10.96.0.1:443
    KUBERNETES_PORT_443_TCP=tcp://10.96.0.1:443
    KUBERNETES_PORT_443_TCP_ADDR=10.96.0.1
    KUBERNETES_PORT_443_TCP_PORT=443
    KUBERNETES_PORT_443_TCP_PROTO=tcp
    KUBERNETES_SERVICE_HOST=10.96.0.1
    KUBERNETES_SERVICE_PORT=443
    KUBERNETES_SERVICE_PORT_HTTPS=443
    ");
    insta::assert_snapshot!(text(true).lines().skip(8).collect::<Vec<_>>().join("\n"), @"
    MY_WEB_PORT=tcp://[fd00::8]:80
    MY_WEB_PORT_53_UDP=udp://[fd00::8]:53
    MY_WEB_PORT_53_UDP_ADDR=fd00::8
    MY_WEB_PORT_53_UDP_PORT=53
    MY_WEB_PORT_53_UDP_PROTO=udp
    MY_WEB_PORT_80_TCP=tcp://[fd00::8]:80
    MY_WEB_PORT_80_TCP_ADDR=fd00::8
    MY_WEB_PORT_80_TCP_PORT=80
    MY_WEB_PORT_80_TCP_PROTO=tcp
    MY_WEB_SERVICE_HOST=fd00::8
    MY_WEB_SERVICE_PORT=80
    MY_WEB_SERVICE_PORT_DNS_UDP=53
    MY_WEB_SERVICE_PORT_HTTP=80
    PORTLESS_SERVICE_HOST=10.96.0.7
    ");
}

proptest! {
    #[test]
    fn any_literal_renders(values in prop::collection::vec("[$()A-D]{0,12}", 0..6)) {
        let variables: Vec<String> = values
            .iter()
            .zip(["A", "B", "C", "D", "A", "B"])
            .map(|(value, name)| format!("{{name: {name}, value: {value:?}}}"))
            .collect();
        let env = own(&format!("env: [{}]", variables.join(", ")));
        prop_assert_eq!(env.unwrap().len(), values.len().min(4));
    }
}
