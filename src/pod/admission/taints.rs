//! Taints that keep pods off a node, and tolerations of them.

use k8s_openapi::api::core::v1::{Taint, Toleration};

/// The one effect that a node agent enforces; the others are the scheduler's.
const NO_EXECUTE: &str = "NoExecute";

/// Whether the pod may be on a node with these taints.
pub(super) fn tolerated(taints: &[Taint], tolerations: &[Toleration]) -> bool {
    taints
        .iter()
        .filter(|taint| taint.effect == NO_EXECUTE)
        .all(|taint| tolerations.iter().any(|t| tolerates(t, taint)))
}

/// An empty effect or key stands for all; so does `Exists` for values.
fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let effect = text(&toleration.effect);
    let key = text(&toleration.key);
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    let (value, tainted) = (text(&toleration.value), text(&taint.value));
    match text(&toleration.operator).as_str() {
        "" | "Equal" => value == tainted,
        "Exists" => true,
        "Gt" => compare(&tainted, &value).is_some_and(|(taint, bound)| taint > bound),
        "Lt" => compare(&tainted, &value).is_some_and(|(taint, bound)| taint < bound),
        _ => false,
    }
}

fn compare(a: &str, b: &str) -> Option<(i64, i64)> {
    Some((a.parse().ok()?, b.parse().ok()?))
}
