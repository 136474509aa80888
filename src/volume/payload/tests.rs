//! Tests of [`super`]: the files of a volume.

use k8s_openapi::ByteString;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::volume::plan::{VolumeKind, plan};

const NODE: ComputeResources = ComputeResources {
    milli_cpu: 4000,
    memory: 8 << 30,
    ephemeral_storage: 0,
};

/// A pod with one volume, and the plan of that volume.
fn pod_and_volume(mut volume: Value, spec: Value) -> (Pod, FilesVolume) {
    volume["name"] = json!("v");
    let mut spec = spec;
    if spec["containers"].is_null() {
        spec["containers"] = json!([{"name": "c"}]);
    }
    spec["containers"][0]["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
    spec["volumes"] = json!([volume]);
    let pod = json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": spec});
    let pod: Pod = serde_json::from_value(pod).unwrap();
    match plan(&pod, &NODE).unwrap().remove(0).kind {
        VolumeKind::Files(files) => (pod, files),
        other => panic!("{other:?}"),
    }
}

fn fetched() -> Fetched {
    let mut fetched = Fetched::default();
    let config_map = ConfigMap {
        data: Some([("a".into(), "text".into()), ("b".into(), String::new())].into()),
        binary_data: Some([("bin".into(), ByteString(vec![0, 255]))].into()),
        ..ConfigMap::default()
    };
    let secret = Secret {
        data: Some([("key".into(), ByteString(b"s3cret".to_vec()))].into()),
        ..Secret::default()
    };
    fetched
        .config_maps
        .insert("map".into(), Ok(Some(config_map)));
    fetched.config_maps.insert("gone".into(), Ok(None));
    fetched
        .config_maps
        .insert("away".into(), Err(Arc::new(unreachable_server())));
    fetched.secrets.insert("sec".into(), Ok(Some(secret)));
    fetched.secrets.insert("gone".into(), Ok(None));
    fetched
        .secrets
        .insert("denied".into(), Err(Arc::new(refused(403))));
    fetched.secrets.insert(
        "alone".into(),
        Err(Arc::new(ApiError::Standalone { call: "get" })),
    );
    fetched.tokens.insert(token_key(), Ok("jwt".into()));
    fetched
}

fn token_key() -> TokenKey {
    TokenKey {
        service_account: "default".into(),
        audience: None,
        expiration_seconds: 3600,
    }
}

fn unreachable_server() -> ApiError {
    ApiError::Unreachable {
        call: "get configmap",
        source: "connection refused".into(),
    }
}

fn refused(code: u16) -> ApiError {
    ApiError::Refused {
        call: "get secret",
        code,
        reason: "Forbidden".into(),
        message: "no".into(),
        retry_after: None,
    }
}

/// `path mode owner bytes`, one per file.
fn listing(volume: Value, spec: Value) -> Vec<String> {
    let (pod, files) = pod_and_volume(volume, spec);
    let payload = payload(&files, &fetched(), &pod, &NODE).unwrap();
    let line = |(path, file): (RelativePath, File)| {
        let owner = file.owner.map_or("root".into(), |owner| owner.to_string());
        let bytes = String::from_utf8_lossy(&file.bytes).into_owned();
        format!(
            "{} {:o} {owner} {bytes}",
            path.as_path().display(),
            file.mode
        )
    };
    payload.into_iter().map(line).collect()
}

fn error(volume: Value) -> PayloadError {
    let (pod, files) = pod_and_volume(volume, json!({}));
    payload(&files, &fetched(), &pod, &NODE).unwrap_err()
}

#[test]
fn every_source_becomes_files() {
    let files = listing(
        json!({"projected": {"defaultMode": 0o440, "sources": [
            {"serviceAccountToken": {"path": "token"}},
            {"configMap": {"name": "map", "items": [
                {"key": "a", "path": "certs//ca.crt"}, {"key": "b", "path": "b", "mode": 0o400}]}},
            {"secret": {"name": "sec"}},
            {"downwardAPI": {"items": [
                {"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}},
                {"path": "mem", "mode": 0o444,
                 "resourceFieldRef": {"containerName": "c", "resource": "limits.memory",
                                      "divisor": "1Gi"}}]}},
        ]}}),
        json!({}),
    );
    assert_eq!(
        files,
        [
            "b 400 root ",
            "certs/ca.crt 440 root text",
            "key 440 root s3cret",
            "mem 444 root 8",
            "namespace 440 root shop",
            "token 440 root jwt",
        ]
    );
}

#[test]
fn standalone_volumes_take_all_keys_and_later_sources_win() {
    assert_eq!(
        listing(json!({"configMap": {"name": "map"}}), json!({})),
        ["a 644 root text", "b 644 root ", "bin 644 root \0\u{fffd}"]
    );
    assert_eq!(
        listing(
            json!({"secret": {"secretName": "sec", "defaultMode": 0o400}}),
            json!({})
        ),
        ["key 400 root s3cret"]
    );
    let sources = json!([
        {"secret": {"name": "sec", "items": [{"key": "key", "path": "same"}]}},
        {"configMap": {"name": "map", "items": [{"key": "a", "path": "./same"}]}},
    ]);
    assert_eq!(
        listing(json!({"projected": {"sources": sources}}), json!({})),
        ["same 644 root text"]
    );
}

#[test]
fn a_token_is_private_if_its_reader_is_known() {
    let token = |spec| {
        let sources = json!([{"serviceAccountToken": {"path": "token"}}]);
        listing(json!({"projected": {"sources": sources}}), spec).remove(0)
    };
    let user = |uid: i64| json!({"name": "c", "securityContext": {"runAsUser": uid}});
    let cases = [
        (json!({}), "token 644 root jwt"),
        (
            json!({"securityContext": {"fsGroup": 2000}}),
            "token 600 root jwt",
        ),
        (
            json!({"securityContext": {"runAsUser": 1000}}),
            "token 600 1000 jwt",
        ),
        (json!({"containers": [user(7), user(7)]}), "token 600 7 jwt"),
        (
            json!({"containers": [user(7), user(8)]}),
            "token 644 root jwt",
        ),
        (
            json!({"containers": [user(7), {"name": "d"}]}),
            "token 644 root jwt",
        ),
        (
            json!({"containers": [user(7)], "initContainers": [user(0)]}),
            "token 644 root jwt",
        ),
        (
            json!({"containers": [user(7), {"name": "d"}], "securityContext": {"runAsUser": 7}}),
            "token 600 7 jwt",
        ),
        (
            json!({"containers": [user(7)], "ephemeralContainers": [user(9)],
                "securityContext": {"fsGroup": 5}}),
            "token 600 root jwt",
        ),
    ];
    for (spec, expected) in cases {
        assert_eq!(token(spec.clone()), expected, "{spec}");
    }
}

#[test]
fn what_is_optional_may_be_missing() {
    for volume in [
        json!({"configMap": {"name": "gone", "optional": true}}),
        json!({"secret": {"secretName": "gone", "optional": true,
                          "items": [{"key": "k", "path": "p"}]}}),
        json!({"configMap": {"name": "map", "optional": true,
                             "items": [{"key": "nope", "path": "p"}]}}),
    ] {
        assert!(listing(volume, json!({})).is_empty());
    }
}

#[test]
fn errors_read_as_upstreams() {
    let cases = [
        (
            json!({"configMap": {"name": "gone"}}),
            "configmap \"gone\" not found",
        ),
        (
            json!({"secret": {"secretName": "gone"}}),
            "secret \"gone\" not found",
        ),
        (
            json!({"configMap": {"name": "map", "items": [{"key": "k", "path": "p"}]}}),
            "configmap references non-existent config key: k",
        ),
        (
            json!({"secret": {"secretName": "sec", "items": [{"key": "k", "path": "p"}]}}),
            "references non-existent secret key: k",
        ),
        (
            json!({"secret": {"secretName": "sec", "items": [{"key": "key", "path": "../p"}]}}),
            "invalid path: must not contain '..': ../p",
        ),
        (
            json!({"secret": {"secretName": "alone"}}),
            "cannot set up secret volume because no API server is configured",
        ),
        (
            json!({"projected": {"sources": [{"secret": {"name": "alone"}}]}}),
            "cannot set up projected volume because no API server is configured",
        ),
        (
            json!({"configMap": {"name": "away", "optional": true}}),
            "cannot get configmap \"away\": get configmap: the API server cannot be reached: \
          connection refused",
        ),
        (
            json!({"projected": {"sources": [
            {"configMap": {"name": "gone"}}, {"secret": {"name": "gone"}}]}}),
            "[configmap \"gone\" not found, secret \"gone\" not found]",
        ),
        (
            json!({"downwardAPI": {"items": [
            {"path": "a", "fieldRef": {"fieldPath": "spec.x"}}, {"path": "b"}]}}),
            "[unsupported fieldPath: spec.x, the item for b has neither fieldRef nor \
          resourceFieldRef]",
        ),
        (
            json!({"configMap": {"name": "map", "items": [
            {"key": "a", "path": "d"}, {"key": "b", "path": "d/e"}]}}),
            "path d is both a file and a directory",
        ),
    ];
    for (volume, expected) in cases {
        assert_eq!(error(volume.clone()).to_string(), expected, "{volume}");
    }
}

#[test]
fn only_what_time_may_mend_is_transient() {
    let away = json!({"configMap": {"name": "away"}});
    let denied = json!({"secret": {"name": "denied"}});
    let gone = json!({"secret": {"name": "gone"}});
    let alone = json!({"secret": {"name": "alone"}});
    let transient =
        |sources: &[&Value]| error(json!({"projected": {"sources": sources}})).is_transient();
    assert!(transient(&[&away]));
    assert!(transient(&[&away, &denied]));
    assert!(!transient(&[&gone]));
    assert!(!transient(&[&away, &gone]));
    assert!(!transient(&[&alone]));
}

#[test]
fn needs_are_collected_once() {
    let (_, files) = pod_and_volume(
        json!({"projected": {"sources": [
            {"serviceAccountToken": {"path": "a"}},
            {"serviceAccountToken": {"path": "b"}},
            {"configMap": {"name": "map"}},
            {"configMap": {"name": "map"}},
            {"secret": {"name": "sec"}},
        ]}}),
        json!({}),
    );
    let mut needs = Needs::default();
    needs.add(&files);
    needs.add(&files);
    assert_eq!(needs.tokens, [token_key()].into());
    assert_eq!(needs.config_maps, ["map".to_owned()].into());
    assert_eq!(needs.secrets, ["sec".to_owned()].into());
}

#[test]
fn contents_are_not_shown_in_debug_output() {
    let file = File {
        bytes: b"s3cret".to_vec(),
        mode: 0o600,
        owner: None,
    };
    assert_eq!(
        format!("{file:?}"),
        "File { bytes: 6, mode: 600, owner: None }"
    );
}

proptest! {
    /// Whatever keys and paths an object has, no file leaves the volume, and
    /// none is inside of another.
    #[test]
    fn files_stay_in_the_volume_and_apart(
        paths in prop::collection::vec(r"[ab./]{1,8}", 1..6),
    ) {
        let items: Vec<Value> =
            paths.iter().map(|path| json!({"key": "a", "path": path})).collect();
        let (pod, files) =
            pod_and_volume(json!({"configMap": {"name": "map", "items": items}}), json!({}));
        if let Ok(payload) = payload(&files, &fetched(), &pod, &NODE) {
            let all: Vec<&Path> = payload.keys().map(RelativePath::as_path).collect();
            for path in &all {
                prop_assert!(path.components().all(
                    |part| matches!(part, std::path::Component::Normal(_))));
                prop_assert_eq!(all.iter().filter(|other| other.starts_with(path)).count(), 1);
            }
        }
    }
}
