//! Events about the node, in upstream's words. Pure.

use k8s_openapi::api::core::v1::{Node, NodeCondition};

use super::conditions::find;
use crate::apiserver::NodeEvent;
use crate::pod::Severity;

/// The agent starts.
#[must_use]
pub fn starting() -> NodeEvent {
    normal("Starting", "Starting kubelet.".to_owned())
}

/// Limits of all pods together are in force.
#[must_use]
pub fn allocatable_enforced() -> NodeEvent {
    normal(
        "NodeAllocatableEnforced",
        "Updated Node Allocatable limit across pods".to_owned(),
    )
}

/// Limits of the node's daemons are in force. `who`: `system reserved` or `kube
/// reserved`.
#[must_use]
pub fn daemons_limited(who: &str, cgroup: &str) -> NodeEvent {
    normal(
        "NodeAllocatableEnforced",
        format!("Updated limits on {who} cgroup {cgroup}"),
    )
}

/// Limits of all pods together could not be written.
#[must_use]
pub fn allocatable_not_enforced(root: &str, error: &dyn std::error::Error) -> NodeEvent {
    let error = crate::error::chain(error);
    warning(
        "FailedNodeAllocatableEnforcement",
        format!("Failed to update Node Allocatable Limits {root:?}: {error}"),
    )
}

/// The node's own resolver settings leave no room for a cluster's.
#[must_use]
pub fn resolver_limits(message: String) -> NodeEvent {
    warning("CheckLimitsForResolvConf", message)
}

/// The machine has cgroup v1.
#[must_use]
pub fn cgroup_v1() -> NodeEvent {
    warning(
        "CgroupV1",
        "cgroup v1 is in use. Kubernetes is giving it up: please move this node to cgroup v2."
            .to_owned(),
    )
}

/// What a change of the Node from `known` to `next` is worth telling.
pub(super) fn of_change(name: &str, known: &Node, next: &Node) -> Vec<NodeEvent> {
    let mut events = Vec::new();
    let boot_id = |node: &Node| {
        let info = node.status.as_ref()?.node_info.as_ref()?;
        Some(info.boot_id.clone()).filter(|id| !id.is_empty())
    };
    if let (Some(old), Some(new)) = (boot_id(known), boot_id(next))
        && old != new
    {
        let message = format!("Node {name} has been rebooted, boot id: {new}");
        events.push(warning("Rebooted", message));
    }
    let conditions = |node: &Node| -> Vec<NodeCondition> {
        let status = node.status.as_ref();
        status
            .and_then(|s| s.conditions.clone())
            .unwrap_or_default()
    };
    let (old, new) = (conditions(known), conditions(next));
    for (kind, when_true, when_false) in [
        (
            "MemoryPressure",
            "NodeHasInsufficientMemory",
            "NodeHasSufficientMemory",
        ),
        (
            "DiskPressure",
            "NodeHasDiskPressure",
            "NodeHasNoDiskPressure",
        ),
        (
            "PIDPressure",
            "NodeHasInsufficientPID",
            "NodeHasSufficientPID",
        ),
        ("Ready", "NodeReady", "NodeNotReady"),
    ] {
        let Some(now) = find(&new, kind) else {
            continue;
        };
        let before = find(&old, kind);
        if before.is_some_and(|before| before.status == now.status) {
            continue;
        }
        let holds = now.status == "True";
        // A node that starts out not ready has not become so.
        if kind == "Ready" && before.is_none() && !holds {
            continue;
        }
        events.push(status_is_now(
            name,
            if holds { when_true } else { when_false },
        ));
    }
    events
}

/// The administrator has taken the node out of scheduling, or back in.
pub(super) fn schedulable(name: &str, unschedulable: bool) -> NodeEvent {
    let reason = if unschedulable {
        "NodeNotSchedulable"
    } else {
        "NodeSchedulable"
    };
    status_is_now(name, reason)
}

fn status_is_now(name: &str, reason: &'static str) -> NodeEvent {
    normal(reason, format!("Node {name} status is now: {reason}"))
}

fn normal(reason: &'static str, message: String) -> NodeEvent {
    NodeEvent {
        severity: Severity::Normal,
        reason,
        message,
    }
}

fn warning(reason: &'static str, message: String) -> NodeEvent {
    NodeEvent {
        severity: Severity::Warning,
        reason,
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(ready: Option<&str>, memory: Option<&str>, boot: &str) -> Node {
        let condition = |kind: &str, status: &str| json!({"type": kind, "status": status});
        let conditions: Vec<_> = [("Ready", ready), ("MemoryPressure", memory)]
            .iter()
            .filter_map(|(kind, status)| status.map(|status| condition(kind, status)))
            .collect();
        serde_json::from_value(json!({
            "metadata": {},
            "status": {"conditions": conditions, "nodeInfo": {"bootID": boot}},
        }))
        .unwrap()
    }

    fn reasons(known: &Node, next: &Node) -> Vec<&'static str> {
        let events = of_change("n", known, next);
        events.iter().map(|event| event.reason).collect()
    }

    #[test]
    fn changes() {
        let ready = node(Some("True"), Some("False"), "b1");
        let not_ready = node(Some("False"), Some("False"), "b1");
        for (known, next, expected) in [
            (
                &Node::default(),
                &ready,
                &["NodeHasSufficientMemory", "NodeReady"][..],
            ),
            (&Node::default(), &not_ready, &["NodeHasSufficientMemory"]),
            (&ready, &ready, &[]),
            (&ready, &not_ready, &["NodeNotReady"]),
            (&not_ready, &ready, &["NodeReady"]),
            (
                &node(Some("Unknown"), Some("Unknown"), "b1"),
                &ready,
                &["NodeHasSufficientMemory", "NodeReady"],
            ),
            (
                &node(Some("True"), Some("True"), "b0"),
                &ready,
                &["Rebooted", "NodeHasSufficientMemory"],
            ),
            (&node(Some("True"), Some("False"), ""), &ready, &[]),
        ] {
            assert_eq!(reasons(known, next), expected);
        }
    }

    #[test]
    fn texts() {
        let known = node(Some("True"), None, "b0");
        let next = node(Some("False"), None, "b1");
        let messages: Vec<_> = of_change("n", &known, &next)
            .into_iter()
            .map(|event| (event.severity, event.message))
            .collect();
        assert_eq!(
            messages,
            [
                (
                    Severity::Warning,
                    "Node n has been rebooted, boot id: b1".to_owned()
                ),
                (
                    Severity::Normal,
                    "Node n status is now: NodeNotReady".to_owned()
                ),
            ]
        );
        assert_eq!(
            schedulable("n", true).message,
            "Node n status is now: NodeNotSchedulable"
        );
    }
}
