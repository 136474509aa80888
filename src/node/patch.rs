//! The difference between two Nodes as a strategic-merge patch. Pure.

use k8s_openapi::api::core::v1::Node;
use serde_json::{Map, Value, json};

/// The patch of `nodes/status` that turns `known` into `next`; `None` if they
/// are equal. Labels and annotations ride along; the spec is never touched.
///
/// # Errors
/// When a Node cannot be written as JSON (a time out of range).
pub(super) fn node_status(known: &Node, next: &Node) -> Result<Option<Value>, serde_json::Error> {
    let known = serde_json::to_value(known)?;
    let next = serde_json::to_value(next)?;
    let mut patch = Map::new();

    let mut metadata = Map::new();
    for field in ["labels", "annotations"] {
        let (old, new) = (&known["metadata"][field], &next["metadata"][field]);
        if let Some(change) = merge_difference(&or_empty(old), &or_empty(new)) {
            metadata.insert(field.to_owned(), change);
        }
    }
    if !metadata.is_empty() {
        patch.insert("metadata".to_owned(), metadata.into());
    }

    let (old, new) = (or_empty(&known["status"]), or_empty(&next["status"]));
    if let Some(Value::Object(mut status)) = merge_difference(&old, &new) {
        if let Some(addresses) = status.get_mut("addresses") {
            replace_list(addresses);
        }
        if let Some(conditions) = status.get_mut("conditions") {
            keep_changed(conditions, &old["conditions"]);
        }
        patch.insert("status".to_owned(), status.into());
    }
    Ok((!patch.is_empty()).then_some(patch.into()))
}

/// The JSON merge patch (RFC 7386) from `old` to `new`; `None` if equal. For
/// objects, scalars and atomic lists that is what a strategic merge does too.
fn merge_difference(old: &Value, new: &Value) -> Option<Value> {
    if old == new {
        return None;
    }
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        return Some(new.clone());
    };
    let removed = old
        .keys()
        .filter(|key| !new.contains_key(*key))
        .map(|key| (key.clone(), Value::Null));
    let changed = new.iter().filter_map(|(key, value)| {
        let change = match old.get(key) {
            Some(old) => merge_difference(old, value)?,
            None => value.clone(),
        };
        Some((key.clone(), change))
    });
    Some(Value::Object(removed.chain(changed).collect()))
}

/// Addresses are merged by type, and a node can have two of a type: the server
/// must be told to take the list as it is.
fn replace_list(list: &mut Value) {
    if let Value::Array(items) = list {
        items.push(json!({ "$patch": "replace" }));
    }
}

/// Conditions are merged by type; those that stay need not be sent, and must
/// not be if they are others'. Those that are gone must be named.
fn keep_changed(conditions: &mut Value, known: &Value) {
    if let (Value::Array(conditions), Value::Array(known)) = (conditions, known) {
        let is_gone = |old: &&Value| !conditions.iter().any(|c| c["type"] == old["type"]);
        let gone: Vec<Value> = known
            .iter()
            .filter(is_gone)
            .map(|old| json!({ "$patch": "delete", "type": old["type"] }))
            .collect();
        conditions.retain(|condition| !known.contains(condition));
        conditions.extend(gone);
    }
}

fn or_empty(value: &Value) -> Value {
    if value.is_null() {
        Value::Object(Map::new())
    } else {
        value.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use insta::assert_json_snapshot;

    fn node(value: Value) -> Node {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn equal_nodes_have_no_patch() {
        let a = node(json!({"metadata": {"name": "n"}, "status": {"phase": "x"}}));
        assert_eq!(node_status(&a, &a).unwrap(), None);
        // A spec is not ours to send.
        let b = node(json!({
            "metadata": {"name": "n", "labels": {}}, "spec": {"unschedulable": true},
            "status": {"phase": "x"},
        }));
        assert_eq!(node_status(&a, &b).unwrap(), None);
    }

    #[test]
    fn differences() {
        let known = node(json!({
            "metadata": {"name": "n", "labels": {"a": "1", "b": "1"}, "annotations": {"x": "1"}},
            "status": {
                "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
                "capacity": {"cpu": "2", "hugepages-1Gi": "0", "example.com/a": "1"},
                "conditions": [
                    {"type": "Ready", "status": "False", "reason": "KubeletNotReady"},
                    {"type": "NetworkUnavailable", "status": "False"},
                ],
                "images": [{"names": ["a"], "sizeBytes": 1}],
                "declaredFeatures": ["X"],
            },
        }));
        let next = node(json!({
            "metadata": {"name": "n", "labels": {"a": "1", "b": "2"}},
            "status": {
                "addresses": [
                    {"type": "InternalIP", "address": "10.0.0.1"},
                    {"type": "InternalIP", "address": "fd00::1"},
                ],
                "capacity": {"cpu": "4", "example.com/a": "1"},
                "conditions": [
                    {"type": "Ready", "status": "True", "reason": "KubeletReady"},
                    {"type": "NetworkUnavailable", "status": "False"},
                ],
                "images": [{"names": ["b"], "sizeBytes": 2}],
            },
        }));
        assert_json_snapshot!(node_status(&known, &next).unwrap());
    }

    #[test]
    fn a_condition_that_goes_is_named() {
        let with = |conditions: Value| node(json!({"status": {"conditions": conditions}}));
        let ready = json!({"type": "Ready", "status": "True"});
        let known = with(json!([ready, {"type": "Extra", "status": "True"}]));
        let patch = node_status(&known, &with(json!([ready]))).unwrap();
        let gone = json!({"$patch": "delete", "type": "Extra"});
        assert_eq!(patch, Some(json!({"status": {"conditions": [gone]}})));
    }
}
