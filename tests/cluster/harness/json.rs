//! Reading API objects as JSON, exactly as the server sent them. What is absent reads as
//! empty, so that predicates need no options.

use serde_json::Value;

static ABSENT: Value = Value::Null;

/// The string at a JSON pointer, or "".
pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The integer at a JSON pointer, or 0.
pub fn number(value: &Value, pointer: &str) -> i64 {
    value
        .pointer(pointer)
        .and_then(Value::as_i64)
        .unwrap_or_default()
}

/// The boolean at a JSON pointer, or false.
pub fn truth(value: &Value, pointer: &str) -> bool {
    value
        .pointer(pointer)
        .and_then(Value::as_bool)
        .unwrap_or_default()
}

/// A pod's status of the container (of either kind) of this name.
pub fn container<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let lists = ["/status/containerStatuses", "/status/initContainerStatuses"];
    let statuses = lists
        .iter()
        .filter_map(|list| pod.pointer(list)?.as_array())
        .flatten();
    statuses
        .into_iter()
        .find(|status| status["name"] == name)
        .unwrap_or(&ABSENT)
}

/// The condition of this type of a pod, node, job or deployment.
pub fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let conditions = object
        .pointer("/status/conditions")
        .and_then(Value::as_array);
    let mut found = conditions.into_iter().flatten();
    found
        .find(|condition| condition["type"] == kind)
        .unwrap_or(&ABSENT)
}
