//! What a request asks for, in the words of RBAC: a verb, and the subresources
//! of `nodes` of which any one admits it (KEP-2862).

use axum::http::Method;

/// Verb and subresources of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) verb: &'static str,
    /// In the order in which they are asked about.
    pub(super) subresources: &'static [&'static str],
}

/// Paths that need less than `nodes/proxy`; what is not below one of these
/// needs that, whether it exists or not. Paths are compared as they came,
/// escapes included, which is how routes compare them too.
const SUBRESOURCES: &[(&str, &[&str])] = &[
    ("/stats", &["stats"]),
    ("/metrics", &["metrics"]),
    ("/logs", &["log"]),
    ("/checkpoint", &["checkpoint"]),
    ("/statusz", &["statusz"]),
    ("/flagz", &["configz"]),
    ("/pods", &["pods", "proxy"]),
    ("/runningpods", &["pods", "proxy"]),
    ("/healthz", &["healthz", "proxy"]),
    ("/configz", &["configz", "proxy"]),
];

impl Attributes {
    pub(super) fn of(method: &Method, path: &str) -> Self {
        let verb = match *method {
            Method::POST => "create",
            Method::GET => "get",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            // No role grants the empty verb but those that grant all.
            _ => "",
        };
        let subresources = SUBRESOURCES
            .iter()
            .find(|(prefix, _)| is_below(path, prefix))
            .map_or(["proxy"].as_slice(), |(_, subresources)| subresources);
        Self { verb, subresources }
    }
}

fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
