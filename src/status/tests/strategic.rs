//! A small applier of strategic-merge patches: just what an API server does
//! with a pod status.

use serde_json::{Map, Value};

/// Lists that are merged by a key of their elements.
fn merge_key(field: &str) -> Option<&'static str> {
    match field {
        "conditions" => Some("type"),
        "podIPs" | "hostIPs" => Some("ip"),
        _ => None,
    }
}

pub(super) fn apply(target: &mut Value, patch: &Value) {
    let (Value::Object(target), Value::Object(patch)) = (&mut *target, patch) else {
        *target = patch.clone();
        return;
    };
    if patch.get("$patch").and_then(Value::as_str) == Some("replace") {
        *target = without_directive(patch);
        return;
    }
    for (field, change) in patch {
        if change.is_null() {
            target.remove(field);
            continue;
        }
        match (target.get_mut(field), change, merge_key(field)) {
            (Some(Value::Array(list)), Value::Array(changes), Some(key)) => {
                apply_list(list, changes, key);
            }
            (Some(old @ Value::Object(_)), Value::Object(_), _) => apply(old, change),
            _ => {
                target.insert(field.clone(), change.clone());
            }
        }
    }
}

fn apply_list(list: &mut Vec<Value>, changes: &[Value], key: &str) {
    let is_replace =
        |change: &Value| change.get("$patch").and_then(Value::as_str) == Some("replace");
    if changes.iter().any(is_replace) {
        *list = changes
            .iter()
            .filter(|change| !is_replace(change))
            .cloned()
            .collect();
        return;
    }
    for change in changes {
        let position = list
            .iter()
            .position(|item| item.get(key) == change.get(key));
        let is_delete = change.get("$patch").and_then(Value::as_str) == Some("delete");
        match (position, is_delete) {
            (Some(position), true) => {
                list.remove(position);
            }
            (Some(position), false) => apply(&mut list[position], change),
            (None, true) => {}
            (None, false) => list.push(change.clone()),
        }
    }
}

fn without_directive(patch: &Map<String, Value>) -> Map<String, Value> {
    let mut whole = patch.clone();
    whole.remove("$patch");
    whole
}
