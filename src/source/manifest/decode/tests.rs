use std::path::Path;

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::source::manifest::compile::compile;

const GOOD: &str = "\
apiVersion: v1
kind: Pod
metadata:
  name: web
spec:
  containers:
  - name: nginx
    image: nginx:1
    env:
    - {name: A, value: b}
  volumes:
  - &v {name: tmp, emptyDir: {}}
  - <<: *v
    name: other
";

/// Reads one pod, which is all that is taken.
fn pod(bytes: &[u8]) -> Result<Decoded<Pod>, Finding> {
    match decode(bytes, Kinds::Pods)? {
        Manifest::Pod(pod) => Ok(*pod),
        other => panic!("{other:?}"),
    }
}

fn shown(finding: &Finding) -> String {
    match finding.position {
        Some(Position { line, column }) => format!("{line}:{column}: {}", finding.reason),
        None => finding.reason.to_string(),
    }
}

#[test]
fn errors_name_their_place() {
    let cases: &[(&str, &str)] = &[
        ("", "holds no object"),
        ("# nothing\n", "holds no object"),
        ("---\n---\n", "holds no object"),
        ("just text\n", "1:1: expected mapping start"),
        ("- 1\n", "1:1: expected mapping start"),
        (
            "apiVersion: v1\nkind: Service\n",
            "2:7: kind Service is not a v1 Pod",
        ),
        (
            "apiVersion: v1\nmetadata: {}\n",
            "1:1: an object without a kind is not a v1 Pod",
        ),
        (
            "kind: Pod\n",
            "1:1: an object without an apiVersion is not a v1 Pod",
        ),
        (
            "kind: Pod\napiVersion: apps/v1\n",
            "2:13: a Pod of apiVersion apps/v1 is not a v1 Pod",
        ),
        (
            "apiVersion: v1\nkind: Pod\n---\n# more\nkind: Service\n",
            "5:1: a second document: a manifest holds one pod",
        ),
        (
            "apiVersion: v1\nkind: Pod\nkind: Pod\n",
            "3:1: duplicate mapping key `kind` is not allowed here",
        ),
        (
            "apiVersion: v1\nkind: Pod\nspec:\n\tcontainers: []\n",
            "4:2: tabs disallowed within this context (block indentation)",
        ),
        (
            "apiVersion: v1\nkind: Pod\nspec:\n  containers: 5\n",
            "4:15: expected sequence start",
        ),
        (
            "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - ports:\n    - containerPort: http\n",
            "6:22: invalid i32",
        ),
        (
            "kind: Pod\napiVersion: v1\nmetadata: {name: 'web\n",
            "3:18: unclosed quote",
        ),
        (
            "kind: Pod\napiVersion: v1\nmetadata: *nowhere\n",
            "3:11: reference to unknown value",
        ),
        (
            "{\"kind\": \"Pod\",\n \"apiVersion\"",
            "1:1: unclosed bracket '{'",
        ),
    ];
    for (text, expected) in cases {
        let finding = pod(text.as_bytes()).expect_err(text);
        assert_eq!(shown(&finding), *expected, "{text}");
    }
    let finding = pod(b"kind: Pod\nname: \xff").expect_err("not UTF-8");
    assert_eq!(shown(&finding), "2:7: is not UTF-8 text");
}

#[test]
fn yaml_and_json_say_the_same() {
    let yaml = pod(GOOD.as_bytes()).expect("YAML");
    let json = serde_json::to_vec_pretty(&yaml.object).expect("serialisable");
    let json = pod(&json).expect("JSON");
    assert_eq!(yaml.object, json.object);
    assert_eq!((yaml.unknown, json.unknown), (vec![], vec![]));
}

#[test]
fn empty_documents_around_the_pod_do_not_count() {
    let text = format!("---\n# from a template\n---\n{GOOD}---\n...\n");
    pod(text.as_bytes()).expect("one real document");
}

#[test]
fn unknown_fields_are_found_where_they_stand() {
    let text = "\
---
# a comment
apiVersion: v1
kind: Pod
metadata:
  lables: {app: web}
  name: web
spec:
  containers:
  - {name: a, image: b}
  - name: c
    image: d
    resources:
      limit:
        cpu: 1
    volumMounts: []
";
    let decoded = pod(text.as_bytes()).expect("typos do no harm");
    let unknown: Vec<_> = decoded.unknown.iter().map(shown).collect();
    assert_eq!(
        unknown,
        [
            "6:3: unknown field metadata.lables",
            "14:7: unknown field spec.containers[1].resources.limit",
            "16:5: unknown field spec.containers[1].volumMounts",
        ]
    );
}

#[test]
fn scalars_mean_what_they_mean_to_other_readers() {
    let text = "\
apiVersion: v1
kind: Pod
spec:
  hostNetwork: yes
  containers:
  - name: c
    env: [{name: N, value: 010}, {name: Y, value: yes}]
    resources: {limits: {cpu: 0.5, memory: 1Gi, pods: 3}}
  volumes:
  - name: v
    configMap: {name: c, defaultMode: 0400}
";
    let spec = pod(text.as_bytes())
        .expect("decodes")
        .object
        .spec
        .expect("a spec");
    assert_eq!(spec.host_network, Some(true));
    let container = &spec.containers[0];
    let values: Vec<_> = container
        .env
        .iter()
        .flatten()
        .map(|env| env.value.as_deref().expect("a value"))
        .collect();
    assert_eq!(values, ["010", "yes"], "strings are taken as written");
    let limits = container.resources.as_ref().and_then(|r| r.limits.as_ref());
    let limits: Vec<_> = limits
        .expect("limits")
        .iter()
        .map(|(name, quantity)| (name.as_str(), quantity.0.as_str()))
        .collect();
    assert_eq!(limits, [("cpu", "0.5"), ("memory", "1Gi"), ("pods", "3")]);
    let mode = spec
        .volumes
        .as_ref()
        .and_then(|volumes| volumes[0].config_map.as_ref());
    assert_eq!(mode.and_then(|source| source.default_mode), Some(0o400));
}

#[test]
fn an_alias_bomb_is_refused() {
    let mut text = String::from("apiVersion: v1\nkind: Pod\na0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let previous = format!("*a{}", level - 1);
        let items = vec![previous; 9].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{items}]\n"));
    }
    let finding = pod(text.as_bytes()).expect_err("too much");
    assert!(matches!(finding.reason, Reason::Syntax(_)), "{finding:?}");
}

#[test]
fn deep_nesting_is_refused() {
    let text = format!("kind: Pod\nspec: {}", "[".repeat(100_000));
    pod(text.as_bytes()).expect_err("too deep");
}

#[test]
fn the_nearest_place_is_that_of_what_is_around() {
    let places = Places::of("a:\n  b:\n  - c: 1\n    d:\n      e.f/g: 2\n");
    let cases = [
        ("a.b[0].c", Some((3, 5))),
        ("a.b[0].missing.deeper", Some((3, 5))),
        ("a.b[0].d[e.f/g]", Some((5, 7))),
        ("a.b[7]", Some((2, 3))),
        ("z", None),
    ];
    for (path, expected) in cases {
        let place = places.nearest(path).map(|place| (place.line, place.column));
        assert_eq!(place, expected, "{path}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = pod(&bytes);
    }

    #[test]
    fn arbitrary_yaml_like_text_does_not_panic(
        text in "([a-z]{1,4}|[-:{}\\[\\],&*!|>'\"%@#?~<.0-9 \n\t]|apiVersion: v1\n|kind: Pod\n|spec:\n|  containers:\n|  - name: x\n|---\n){0,60}",
    ) {
        let _ = pod(text.as_bytes());
        let _ = Places::of(&text);
    }

    #[test]
    fn a_damaged_manifest_does_not_panic(
        at in 0..GOOD.len(),
        cut in 0..30_usize,
        patch in prop::collection::vec(any::<u8>(), 0..5),
    ) {
        let mut bytes = GOOD.as_bytes().to_vec();
        let end = (at + cut).min(bytes.len());
        bytes.splice(at..end, patch);
        let _ = compile(&bytes, Kinds::PodsAndData, "node", Path::new("/m"), Timestamp::UNIX_EPOCH);
    }
}
