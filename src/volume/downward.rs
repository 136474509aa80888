//! What a pod says about itself in files: metadata fields and the resources of
//! its containers. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use k8s_openapi::api::core::v1::{
    Container, Pod, PodSpec, ResourceFieldSelector, ResourceRequirements,
};

use super::quantity::{ParseQuantityError, Quantity};
use crate::pod::facts::ComputeResources;

/// Why a downward API item has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum DownwardError {
    #[error("unsupported fieldPath: {0}")]
    Field(String),
    #[error("container {0} not found")]
    Container(String),
    #[error("unsupported container resource : {0}")]
    Resource(String),
    #[error("the divisor of {0} must be positive")]
    Divisor(String),
    #[error("cannot compute {resource}")]
    Quantity {
        resource: String,
        #[source]
        source: ParseQuantityError,
    },
    #[error("the item for {0} has neither fieldRef nor resourceFieldRef")]
    NoSource(String),
}

/// The value of a `fieldRef` in a volume: one of `metadata.name`, `.namespace`,
/// `.uid`, `.labels`, `.annotations`, or one label or annotation by subscript.
pub(super) fn field(pod: &Pod, path: &str) -> Result<String, DownwardError> {
    let metadata = &pod.metadata;
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    if let Some((map, key)) = path
        .strip_suffix("']")
        .and_then(|path| path.split_once("['"))
    {
        let map = match map {
            "metadata.labels" => &metadata.labels,
            "metadata.annotations" => &metadata.annotations,
            _ => return Err(DownwardError::Field(path.to_owned())),
        };
        let value = map.as_ref().and_then(|map| map.get(key));
        return Ok(value.cloned().unwrap_or_default());
    }
    match path {
        "metadata.name" => Ok(text(&metadata.name)),
        "metadata.namespace" => Ok(text(&metadata.namespace)),
        "metadata.uid" => Ok(text(&metadata.uid)),
        "metadata.labels" => Ok(map_text(metadata.labels.as_ref())),
        "metadata.annotations" => Ok(map_text(metadata.annotations.as_ref())),
        _ => Err(DownwardError::Field(path.to_owned())),
    }
}

/// One `key="value"` line per entry, in order of keys, quoted as Go's `%q`.
fn map_text(map: Option<&BTreeMap<String, String>>) -> String {
    let lines = map.into_iter().flatten();
    lines
        .map(|(key, value)| format!("{key}={}", go_quoted(value)))
        .collect::<Vec<_>>()
        .join("\n")
}

/// A string as a Go string literal: readers of these files unquote it so.
fn go_quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\x07' => quoted.push_str("\\a"),
            '\x08' => quoted.push_str("\\b"),
            '\x0c' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\x0b' => quoted.push_str("\\v"),
            c if is_printable(c) => quoted.push(c),
            c => push_escaped(&mut quoted, u32::from(c)),
        }
    }
    quoted.push('"');
    quoted
}

fn push_escaped(quoted: &mut String, code: u32) {
    let written = match code {
        0..0x80 => write!(quoted, "\\x{code:02x}"),
        0x80..0x1_0000 => write!(quoted, "\\u{code:04x}"),
        _ => write!(quoted, "\\U{code:08x}"),
    };
    debug_assert!(written.is_ok(), "writing to a String does not fail");
}

/// The standard library's own tables, asked through `escape_debug`. A leading
/// letter keeps combining marks, which are printable, from being escaped.
fn is_printable(c: char) -> bool {
    let mut with_base = String::from("a");
    with_base.push(c);
    with_base.escape_debug().count() == 2 || c == '\''
}

/// The value of a `resourceFieldRef`: the quantity divided by the divisor and
/// rounded up. A limit that is not set is what the pod, or else the node, can
/// give; a request that is not set is 0.
pub(super) fn resource(
    pod: &Pod,
    selector: &ResourceFieldSelector,
    allocatable: &ComputeResources,
) -> Result<String, DownwardError> {
    let name = selector.container_name.as_deref().unwrap_or_default();
    let spec = pod.spec.as_ref();
    let container = spec
        .and_then(|spec| find_container(spec, name))
        .ok_or_else(|| DownwardError::Container(name.to_owned()))?;
    let unknown = || DownwardError::Resource(selector.resource.clone());
    let (group, resource) = selector.resource.split_once('.').ok_or_else(unknown)?;
    let own = |resources: Option<&ResourceRequirements>| {
        let list = resources.and_then(|resources| match group {
            "limits" => resources.limits.as_ref(),
            _ => resources.requests.as_ref(),
        });
        list.and_then(|list| list.get(resource)).cloned()
    };
    let quantity_error = |source| DownwardError::Quantity {
        resource: selector.resource.clone(),
        source,
    };
    let node = node_amount(resource, allocatable).ok_or_else(unknown)?;
    let quantity = match group {
        "limits" => own(container.resources.as_ref())
            .or_else(|| own(spec.and_then(|spec| spec.resources.as_ref()))),
        "requests" => own(container.resources.as_ref()),
        _ => return Err(unknown()),
    };
    let amount = match (quantity, group) {
        (Some(quantity), _) => Quantity::try_from(&quantity).map_err(quantity_error)?,
        (None, "limits") => node,
        (None, _) => Quantity::default(),
    };
    let divisor = match &selector.divisor {
        Some(divisor) if divisor.0 != "0" => Quantity::try_from(divisor).map_err(quantity_error)?,
        _ => Quantity::from_value(1),
    };
    if !divisor.is_positive() {
        return Err(DownwardError::Divisor(selector.resource.clone()));
    }
    let share = if resource == "cpu" {
        ceil_div(amount.milli_value(), divisor.milli_value())
    } else {
        ceil_div(amount.value(), divisor.value())
    };
    Ok(share.to_string())
}

/// Division rounding up; the divisor is positive.
fn ceil_div(value: i64, divisor: i64) -> i64 {
    value.div_euclid(divisor) + i64::from(value.rem_euclid(divisor) != 0)
}

fn find_container<'a>(spec: &'a PodSpec, name: &str) -> Option<&'a Container> {
    let containers = spec.containers.iter();
    let mut all = containers.chain(spec.init_containers.iter().flatten());
    all.find(|container| container.name == name)
}

/// What the node can give of a resource; `None` if it is not one that a file
/// can show. Huge pages have no default.
fn node_amount(resource: &str, allocatable: &ComputeResources) -> Option<Quantity> {
    match resource {
        "cpu" => Some(Quantity::from_milli(allocatable.milli_cpu)),
        "memory" => Some(Quantity::from_value(allocatable.memory)),
        "ephemeral-storage" => Some(Quantity::from_value(allocatable.ephemeral_storage)),
        _ if resource.starts_with("hugepages-") => Some(Quantity::default()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
