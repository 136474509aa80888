use super::*;
use crate::source::manifest::Kinds;
use crate::source::manifest::decode::{self, Manifest};

fn adopted(text: &str, node: &str, path: &str) -> (PodUid, PodName, Pod) {
    let Ok(Manifest::Pod(decoded)) = decode::decode(text.as_bytes(), Kinds::Pods) else {
        panic!("not a pod: {text}");
    };
    adopt(decoded.object, node, Path::new(path), Timestamp::UNIX_EPOCH)
}

const WEB: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers: []\n";

#[test]
fn the_uid_follows_content_node_and_file_and_nothing_else() {
    let uid = |text: &str, node: &str, path: &str| adopted(text, node, path).0;
    let first = uid(WEB, "n", "/m/a.yaml");
    assert_eq!(first.as_str().len(), 32);
    assert!(first.as_str().bytes().all(|b| b.is_ascii_hexdigit()));

    let reformatted = "# note\n{kind: Pod, apiVersion: v1, spec: {containers: []},\n metadata: {\"name\": 'web'}}";
    assert_eq!(first, uid(reformatted, "n", "/m/a.yaml"));
    assert_ne!(first, uid(&WEB.replace("web", "web2"), "n", "/m/a.yaml"));
    assert_ne!(first, uid(WEB, "other", "/m/a.yaml"));
    assert_ne!(first, uid(WEB, "n", "/m/b.yaml"));

    let given = WEB.replace("name: web", "name: web, uid: mine");
    assert_eq!(uid(&given, "n", "/m/a.yaml").as_str(), "mine");
}

#[test]
fn the_uid_is_the_same_in_every_release() {
    // A changed value here restarts every static pod of every node.
    let (uid, ..) = adopted(WEB, "node", "/etc/kubernetes/manifests/web.yaml");
    insta::assert_snapshot!(uid, @"75b0c7aedef5be2486efb76142c1e0ae");
}

#[test]
fn the_pod_is_marked_as_this_node_s() {
    let (uid, name, pod) = adopted(WEB, "Node-1", "/m/a.yaml");
    assert_eq!(name, PodName::new("default", "web-node-1"));
    let mut shown = serde_json::to_value(&pod).expect("serialisable");
    assert_eq!(shown["metadata"]["uid"], uid.as_str());
    assert_eq!(shown["metadata"]["annotations"][CONFIG_HASH], uid.as_str());
    for field in [
        "/metadata/uid",
        "/metadata/annotations/kubernetes.io~1config.hash",
    ] {
        *shown.pointer_mut(field).expect("is set") = "UID".into();
    }
    insta::assert_yaml_snapshot!(shown, @r#"
    apiVersion: v1
    kind: Pod
    metadata:
      annotations:
        kubernetes.io/config.hash: UID
        kubernetes.io/config.seen: "1970-01-01T00:00:00.000000000Z"
        kubernetes.io/config.source: file
      name: web-node-1
      namespace: default
      uid: UID
    spec:
      containers: []
      nodeName: Node-1
      tolerations:
        - effect: NoExecute
          operator: Exists
    status:
      phase: Pending
    "#);
}

#[test]
fn a_manifest_saved_from_a_cluster_starts_a_new_life() {
    let saved = "\
apiVersion: v1
kind: Pod
metadata:
  name: web
  namespace: kube-system
  deletionTimestamp: 2024-01-01T00:00:00Z
  deletionGracePeriodSeconds: 30
  annotations:
    kubernetes.io/config.mirror: old
    kubernetes.io/config.hash: old
    kubernetes.io/config.seen: old
    kept: x
spec:
  containers: []
  tolerations:
  - {operator: Exists, effect: NoExecute}
status: {phase: Failed}
";
    let (uid, name, pod) = adopted(saved, "n", "/m/a.yaml");
    assert_eq!(name, PodName::new("kube-system", "web-n"));
    let annotations = pod.metadata.annotations.expect("annotations");
    let keys: Vec<_> = annotations.keys().map(String::as_str).collect();
    assert_eq!(keys, ["kept", CONFIG_HASH, CONFIG_SEEN, CONFIG_SOURCE]);
    assert_eq!(annotations[CONFIG_HASH], uid.as_str());
    assert_eq!(pod.metadata.deletion_timestamp, None);
    assert_eq!(pod.metadata.deletion_grace_period_seconds, None);
    let phase = pod.status.and_then(|status| status.phase);
    assert_eq!(phase.as_deref(), Some("Pending"));
    let tolerations = pod.spec.and_then(|spec| spec.tolerations);
    assert_eq!(tolerations.map(|list| list.len()), Some(1));
}
