//! The difference of two pod statuses as a strategic-merge patch. Pure.
//!
//! Conditions are merged by type, so a condition that someone else adds in the
//! meantime survives; everything else that differs is replaced whole. Empty is
//! the same as absent: the API server fills in an empty `lastState`, say.

use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Map, Value, json};

/// Lists that the API server would merge by key; we own them, so each patch
/// says that it replaces them.
const REPLACED_LISTS: [&str; 2] = ["podIPs", "hostIPs"];

/// The body that turns `old` into `new` on the object with this UID and on no
/// other. `None`: there is nothing to change.
pub(super) fn diff(
    uid: &str,
    old: &PodStatus,
    new: &PodStatus,
) -> Result<Option<Value>, serde_json::Error> {
    let old = serde_json::to_value(old)?;
    let new = serde_json::to_value(new)?;
    let (Value::Object(mut old), Value::Object(mut new)) = (old, new) else {
        // A struct with named fields is an object.
        return Ok(None);
    };
    prune(&mut old);
    prune(&mut new);
    let status = diff_status(&old, &new);
    Ok((!status.is_empty()).then(|| json!({ "metadata": { "uid": uid }, "status": status })))
}

/// Removes fields that say nothing.
fn prune(fields: &mut Map<String, Value>) {
    fields.retain(|_, value| {
        match value {
            Value::Object(inner) => prune(inner),
            Value::Array(items) => items
                .iter_mut()
                .filter_map(Value::as_object_mut)
                .for_each(prune),
            _ => {}
        }
        match value {
            Value::Null => false,
            Value::Object(inner) => !inner.is_empty(),
            Value::Array(items) => !items.is_empty(),
            _ => true,
        }
    });
}

fn diff_status(old: &Map<String, Value>, new: &Map<String, Value>) -> Map<String, Value> {
    let mut patch = nulls_for_removed(old, new);
    for (field, value) in new {
        let before = old.get(field);
        if before == Some(value) {
            continue;
        }
        let change = match (field.as_str(), before, value) {
            ("conditions", Some(Value::Array(before)), Value::Array(after)) => {
                Value::Array(diff_conditions(before, after))
            }
            (name, Some(Value::Array(_)), Value::Array(after))
                if REPLACED_LISTS.contains(&name) =>
            {
                let directive = json!({ "$patch": "replace" });
                after.iter().cloned().chain([directive]).collect()
            }
            (_, Some(Value::Object(_)), Value::Object(after)) => {
                let mut whole = after.clone();
                whole.insert("$patch".into(), "replace".into());
                Value::Object(whole)
            }
            (_, _, after) => after.clone(),
        };
        patch.insert(field.clone(), change);
    }
    patch
}

fn nulls_for_removed(old: &Map<String, Value>, new: &Map<String, Value>) -> Map<String, Value> {
    old.keys()
        .filter(|field| !new.contains_key(*field))
        .map(|field| (field.clone(), Value::Null))
        .collect()
}

fn diff_conditions(old: &[Value], new: &[Value]) -> Vec<Value> {
    let type_of = |condition: &Value| condition.get("type").cloned().unwrap_or_default();
    let find = |list: &[Value], type_: &Value| {
        list.iter()
            .find(|condition| type_of(condition) == *type_)
            .cloned()
    };
    let mut patch = Vec::new();
    for condition in new {
        let type_ = type_of(condition);
        match (find(old, &type_), condition) {
            (Some(before), after) if before == *after => {}
            (Some(Value::Object(before)), Value::Object(after)) => {
                let mut changed = nulls_for_removed(&before, after);
                let differs =
                    |(field, value): &(&String, &Value)| before.get(*field) != Some(value);
                let fields = after.iter().filter(differs);
                changed.extend(fields.map(|(field, value)| (field.clone(), value.clone())));
                changed.insert("type".into(), type_);
                patch.push(Value::Object(changed));
            }
            _ => patch.push(condition.clone()),
        }
    }
    for condition in old {
        let type_ = type_of(condition);
        if find(new, &type_).is_none() {
            patch.push(json!({ "$patch": "delete", "type": type_ }));
        }
    }
    patch
}
