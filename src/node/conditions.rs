//! The node's conditions: what they say, and when they last changed. Pure.

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::NodeCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::pressure::Pressure;
use super::resources::ResourceList;
use crate::runtime::{ConditionFailure, RUNTIME_DOWN, RuntimeHealth};

/// A condition that another part of the agent answers for.
#[derive(Debug, Clone, PartialEq)]
pub enum ExtraCondition {
    /// Its type, status, reason and message; the times are seen to here.
    Says(NodeCondition),
    /// The Node is to have no condition of this type.
    Absent(&'static str),
}

/// What one condition says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    kind: Cow<'static, str>,
    /// `True`, `False` or `Unknown`.
    status: Cow<'static, str>,
    reason: Cow<'static, str>,
    message: String,
}

impl Verdict {
    /// What `condition` says, whenever it said so.
    fn of(condition: &NodeCondition) -> Self {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        Self {
            kind: condition.type_.clone().into(),
            status: condition.status.clone().into(),
            reason: text(&condition.reason).into(),
            message: text(&condition.message),
        }
    }
}

/// All conditions of ours, in the order in which a new Node gets them.
pub(super) fn verdicts(
    runtime: &RuntimeHealth,
    pressure: Pressure,
    capacity: &ResourceList,
    required: &[&str],
) -> [Verdict; 4] {
    let pick = |kind, holds, [yes, no]: [(&'static str, &str); 2]| {
        let (reason, message) = if holds { yes } else { no };
        Verdict {
            kind: Cow::Borrowed(kind),
            status: status_text(holds).into(),
            reason: Cow::Borrowed(reason),
            message: message.to_owned(),
        }
    };
    [
        pick(
            "MemoryPressure",
            pressure.memory,
            [
                (
                    "KubeletHasInsufficientMemory",
                    "kubelet has insufficient memory available",
                ),
                (
                    "KubeletHasSufficientMemory",
                    "kubelet has sufficient memory available",
                ),
            ],
        ),
        pick(
            "DiskPressure",
            pressure.disk,
            [
                ("KubeletHasDiskPressure", "kubelet has disk pressure"),
                ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            ],
        ),
        pick(
            "PIDPressure",
            pressure.pid,
            [
                (
                    "KubeletHasInsufficientPID",
                    "kubelet has insufficient PID available",
                ),
                (
                    "KubeletHasSufficientPID",
                    "kubelet has sufficient PID available",
                ),
            ],
        ),
        ready(runtime, capacity, required),
    ]
}

fn ready(runtime: &RuntimeHealth, capacity: &ResourceList, required: &[&str]) -> Verdict {
    let mut problems = runtime_problems(runtime);
    let missing: Vec<&str> = required
        .iter()
        .copied()
        .filter(|name| !capacity.contains_key(*name))
        .collect();
    if !missing.is_empty() {
        problems.push(format!(
            "missing node capacity for resources: {}",
            missing.join(", ")
        ));
    }
    let (reason, message) = match problems.as_slice() {
        [] => ("KubeletReady", "kubelet is posting ready status".to_owned()),
        [problem] => ("KubeletNotReady", problem.clone()),
        several => ("KubeletNotReady", format!("[{}]", several.join(", "))),
    };
    Verdict {
        kind: "Ready".into(),
        status: status_text(problems.is_empty()).into(),
        reason: reason.into(),
        message,
    }
}

/// What keeps the runtime from running pods, in upstream's words.
fn runtime_problems(health: &RuntimeHealth) -> Vec<String> {
    if !health.checked {
        return vec![
            "container runtime status check may not have completed yet".to_owned(),
            "network state unknown".to_owned(),
        ];
    }
    let says = |what: &str, condition: &str, failure: &ConditionFailure| {
        format!(
            "{what} not ready: {condition}=false reason:{} message:{}",
            failure.reason, failure.message
        )
    };
    let runtime = health.runtime.as_ref().map(|failure| {
        if failure.reason == RUNTIME_DOWN {
            failure.message.clone()
        } else {
            says("container runtime", "RuntimeReady", failure)
        }
    });
    let network = health
        .network
        .as_ref()
        .map(|failure| says("container runtime network", "NetworkReady", failure));
    runtime.into_iter().chain(network).collect()
}

/// Puts the verdicts in their places among `base`, the conditions that the API
/// server has, and takes out what is to be absent; others' stay as they are. `last`
/// is what was computed before, sent or not: it knows when a state began that could
/// not be told yet.
pub(super) fn merge(
    base: &[NodeCondition],
    last: &[NodeCondition],
    verdicts: [Verdict; 4],
    extra: &[ExtraCondition],
    now: Timestamp,
) -> Vec<NodeCondition> {
    let mut merged = base.to_vec();
    let extra_verdicts = extra.iter().filter_map(|condition| match condition {
        ExtraCondition::Says(condition) => Some(Verdict::of(condition)),
        ExtraCondition::Absent(_) => None,
    });
    for verdict in verdicts.into_iter().chain(extra_verdicts) {
        let (known, last) = (find(base, &verdict.kind), find(last, &verdict.kind));
        let condition = NodeCondition {
            last_heartbeat_time: Some(Time(now)),
            last_transition_time: Some(Time(began(&verdict, known, last, now))),
            status: verdict.status.into_owned(),
            reason: Some(verdict.reason.into_owned()),
            message: Some(verdict.message),
            type_: verdict.kind.into_owned(),
        };
        match merged.iter_mut().find(|c| c.type_ == condition.type_) {
            Some(place) => *place = condition,
            None => merged.push(condition),
        }
    }
    merged.retain(|condition| {
        !extra
            .iter()
            .any(|extra| matches!(extra, ExtraCondition::Absent(kind) if *kind == condition.type_))
    });
    merged
}

/// Since when the verdict holds.
fn began(
    verdict: &Verdict,
    known: Option<&NodeCondition>,
    last: Option<&NodeCondition>,
    now: Timestamp,
) -> Timestamp {
    let says_same = |condition: &&NodeCondition| condition.status == verdict.status;
    let since = |condition: &NodeCondition| condition.last_transition_time.as_ref().map(|t| t.0);
    if let Some(time) = known.filter(says_same).and_then(since) {
        return time;
    }
    // The API server says otherwise, since some time. If we have known better
    // for a shorter while than that, this is when the change came.
    let known_since = known.and_then(since);
    last.filter(says_same)
        .and_then(since)
        .filter(|time| known_since.is_none_or(|known| *time >= known))
        .unwrap_or(now)
}

/// The condition of this type.
pub(super) fn find<'a>(conditions: &'a [NodeCondition], kind: &str) -> Option<&'a NodeCondition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

fn status_text(holds: bool) -> &'static str {
    if holds { "True" } else { "False" }
}

#[cfg(test)]
mod tests;
