//! Whether a pod's demands on the node's labels and name are met:
//! `nodeSelector` and required node affinity.

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, PodSpec};

use super::node::NodeView;

/// The only field of a node that affinity may ask for.
const NAME_FIELD: &str = "metadata.name";

/// Whether the node has all labels of `nodeSelector` and meets one term of the
/// affinity, if there is one.
pub(super) fn matches(spec: &PodSpec, node: &NodeView) -> bool {
    let selected = spec
        .node_selector
        .iter()
        .flatten()
        .all(|(key, value)| node.labels.get(key) == Some(value));
    let required = spec
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|affinity| {
            affinity
                .required_during_scheduling_ignored_during_execution
                .as_ref()
        });
    selected
        && required.is_none_or(|selector| {
            let mut terms = selector.node_selector_terms.iter();
            terms.any(|term| term_matches(term, node))
        })
}

/// A term that asks for nothing matches nothing.
fn term_matches(term: &NodeSelectorTerm, node: &NodeView) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let is_empty = expressions.is_empty() && fields.is_empty();
    !is_empty
        && expressions
            .iter()
            .all(|wanted| label_matches(wanted, node.labels.get(&wanted.key).map(String::as_str)))
        && fields.iter().all(|wanted| field_matches(wanted, node))
}

/// Whether a label's value (`None`: there is no such label) is as wanted. What
/// the API does not define matches nothing.
fn label_matches(wanted: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = wanted.values.as_deref().unwrap_or_default();
    let is_listed = value.is_some_and(|value| values.iter().any(|listed| listed == value));
    match wanted.operator.as_str() {
        "In" => is_listed,
        "NotIn" => !values.is_empty() && !is_listed,
        "Exists" => value.is_some() && values.is_empty(),
        "DoesNotExist" => value.is_none() && values.is_empty(),
        "Gt" => compare(value, values).is_some_and(|(value, bound)| value > bound),
        "Lt" => compare(value, values).is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

/// The label and the one bound it is compared with, if both are numbers.
fn compare(value: Option<&str>, values: &[String]) -> Option<(i64, i64)> {
    let [bound] = values else { return None };
    Some((value?.parse().ok()?, bound.parse().ok()?))
}

fn field_matches(wanted: &NodeSelectorRequirement, node: &NodeView) -> bool {
    let [value] = wanted.values.as_deref().unwrap_or_default() else {
        return false;
    };
    match (wanted.key.as_str(), wanted.operator.as_str()) {
        (NAME_FIELD, "In") => *value == node.name,
        (NAME_FIELD, "NotIn") => *value != node.name,
        _ => false,
    }
}
