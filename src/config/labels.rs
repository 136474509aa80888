//! Names and values a node may give itself: label keys, label values, taints.

/// Label namespaces reserved for the project, in which a node may set only some labels.
const RESERVED: [&str; 2] = ["kubernetes.io", "k8s.io"];

/// Namespaces (and their sub-domains) within the reserved ones that are free to nodes.
const FREE: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

/// Single labels within the reserved namespaces that a node may set.
const ALLOWED: [&str; 11] = [
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
];

/// Why a node cannot have the label `key=value`; `None` if it can.
pub(super) fn refusal(key: &str, value: &str) -> Option<String> {
    if !is_qualified_name(key) {
        return Some(format!("{key:?} is not a valid label key"));
    }
    if !is_label_value(value) {
        return Some(format!("{value:?} is not a valid label value"));
    }
    let (namespace, _) = key.split_once('/')?;
    let reserved = RESERVED.iter().any(|domain| is_within(namespace, domain));
    let free = FREE.iter().any(|domain| is_within(namespace, domain));
    (reserved && !free && !ALLOWED.contains(&key)).then(|| {
        format!(
            "a node may not set the label {key:?}; in the kubernetes.io and k8s.io namespaces \
             it may set {} and keys below {}",
            ALLOWED.join(", "),
            FREE.join(" and "),
        )
    })
}

fn is_within(namespace: &str, domain: &str) -> bool {
    namespace
        .strip_suffix(domain)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// `[prefix/]name`: a DNS sub-domain of up to 253 characters and a name of up to 63.
pub(super) fn is_qualified_name(key: &str) -> bool {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    prefix.is_none_or(is_dns_subdomain) && is_name(name)
}

/// Empty, or a name.
pub(super) fn is_label_value(value: &str) -> bool {
    value.is_empty() || is_name(value)
}

fn is_name(name: &str) -> bool {
    is_bounded(name, 63, |c| {
        c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
    })
}

fn is_dns_subdomain(domain: &str) -> bool {
    domain.len() <= 253
        && domain.split('.').all(|label| {
            is_bounded(label, 253, |c| {
                c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'
            })
        })
}

/// 1 to `max` characters of the given kind, the first and last alphanumeric.
fn is_bounded(text: &str, max: usize, allowed: impl Fn(char) -> bool) -> bool {
    text.len() <= max
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(allowed)
}
