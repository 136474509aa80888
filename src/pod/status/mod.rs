//! The pod's status in the API's form, computed from the same inputs as the
//! plan.
//!
//! In: what is wanted, observed and remembered, how far the pod has come, and
//! the last status told. Out: a whole `PodStatus`. What of it may be sent, and
//! how it is merged with other writers' parts, is for `crate::status` to say.

mod conditions;
mod containers;
mod phase;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{HostIP, PodCondition, PodIP, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::admission::Rejection;
use super::containers::{ephemeral, host_network, init, regular};
use super::deadline;
use super::facts::NodeFacts;
use super::inputs::RuntimeFeatures;
use super::memory::PodMemory;
use super::model::{DesiredPod, Intent, Termination, TerminationReason};
use super::observed::ObservedPod;
use super::plan::{self, Stage};
use super::qos;

/// Everything a status depends on.
#[derive(Debug, Clone, Copy)]
pub struct StatusInput<'a> {
    pub desired: &'a DesiredPod,
    pub observed: &'a ObservedPod,
    pub memory: &'a PodMemory,
    pub node: &'a NodeFacts,
    /// What the runtime can do with the pod's handler.
    pub features: RuntimeFeatures,
    pub stage: Stage,
    /// The last status known to readers: this process's own last one, or what
    /// the API object carries.
    pub previous: Option<&'a PodStatus>,
    pub now: Timestamp,
}

impl StatusInput<'_> {
    /// Whether no container runs and none will.
    fn ended(&self) -> bool {
        self.stage >= Stage::Stopped
    }

    /// Whether all containers are being stopped and removed to begin anew.
    fn restarts_all(&self) -> bool {
        self.stage == Stage::Running
            && !plan::restarters(&self.desired.pod, self.observed).is_empty()
    }

    /// What readers were last told of a condition.
    fn told(&self, condition: &str) -> Option<&PodCondition> {
        let conditions = self.previous?.conditions.as_ref()?;
        conditions.iter().find(|c| c.type_ == condition)
    }
}

/// Computes the pod's status.
#[must_use]
pub fn compute(input: &StatusInput<'_>) -> PodStatus {
    let pod = &input.desired.pod;
    let init_statuses: Vec<_> = init(pod)
        .iter()
        .map(|c| containers::init_status(input, c))
        .collect();
    let mut statuses: Vec<_> = regular(pod)
        .iter()
        .map(|c| containers::regular_status(input, c))
        .collect();
    statuses.sort_by(|a, b| a.name.cmp(&b.name));
    let mut ephemeral_statuses: Vec<_> = ephemeral(pod)
        .iter()
        .map(|c| containers::ephemeral_status(input, c))
        .collect();
    ephemeral_statuses.sort_by(|a, b| a.name.cmp(&b.name));
    let phase = phase::phase(input, &init_statuses, &statuses);
    let (reason, message) = reason(input, phase);
    let conditions = conditions::conditions(input, phase, &init_statuses, &statuses);
    let ips = pod_ips(input);
    let host_ips = &input.node.host_ips;
    PodStatus {
        phase: Some(phase.as_str().to_owned()),
        reason,
        message,
        conditions: Some(conditions),
        observed_generation: pod.metadata.generation,
        host_ip: host_ips.first().map(ToString::to_string),
        host_ips: (!host_ips.is_empty()).then(|| {
            host_ips
                .iter()
                .map(|ip| HostIP { ip: ip.to_string() })
                .collect()
        }),
        pod_ip: ips.first().cloned(),
        pod_ips: (!ips.is_empty()).then(|| ips.into_iter().map(|ip| PodIP { ip }).collect()),
        start_time: Some(Time(start_time(input))),
        init_container_statuses: (!init_statuses.is_empty()).then_some(init_statuses),
        container_statuses: Some(statuses),
        ephemeral_container_statuses: (!ephemeral_statuses.is_empty())
            .then_some(ephemeral_statuses),
        qos_class: Some(
            input
                .previous
                .and_then(|status| status.qos_class.clone())
                .unwrap_or_else(|| qos::class(pod).as_str().to_owned()),
        ),
        ..PodStatus::default()
    }
}

/// The status of a pod that this node refuses to run.
#[must_use]
pub fn rejected(desired: &DesiredPod, rejection: &Rejection, now: Timestamp) -> PodStatus {
    let Rejection { reason, message } = rejection;
    PodStatus {
        phase: Some("Failed".into()),
        reason: Some(reason.clone()),
        message: Some(format!("Pod was rejected: {message}")),
        observed_generation: desired.pod.metadata.generation,
        start_time: Some(
            desired
                .pod
                .status
                .as_ref()
                .and_then(|status| status.start_time.clone())
                .unwrap_or(Time(now)),
        ),
        qos_class: Some(qos::class(&desired.pod).as_str().into()),
        ..PodStatus::default()
    }
}

/// A reason given with the termination; else the one that goes with an
/// unchanged phase.
fn reason(input: &StatusInput<'_>, phase: phase::Phase) -> (Option<String>, Option<String>) {
    if let Intent::Terminate(Termination {
        reason: TerminationReason::Failed {
            reason, message, ..
        },
        ..
    }) = &input.desired.intent
    {
        return (Some(reason.clone()), Some(message.clone()));
    }
    if phase == phase::Phase::Failed && late(input) {
        return (
            Some(deadline::REASON.into()),
            Some(deadline::MESSAGE.into()),
        );
    }
    match input.previous {
        Some(previous) if previous.phase.as_deref() == Some(phase.as_str()) => {
            (previous.reason.clone(), previous.message.clone())
        }
        _ => (None, None),
    }
}

/// Whether the pod's deadline passed before it ended by itself.
fn late(input: &StatusInput<'_>) -> bool {
    let ended_before = input
        .previous
        .and_then(|status| status.phase.as_deref())
        .is_some_and(|phase| matches!(phase, "Succeeded" | "Failed"));
    !ended_before && deadline::passed(input.desired, start_time(input), input.now)
}

/// The start never moves: what was told, else the oldest trace there is.
fn start_time(input: &StatusInput<'_>) -> Timestamp {
    let told = input
        .previous
        .and_then(|status| status.start_time.as_ref())
        .map(|time| time.0);
    let oldest_sandbox = input
        .observed
        .sandboxes
        .iter()
        .map(|s| s.created_at)
        .filter(|created_at| *created_at > Timestamp::UNIX_EPOCH)
        .min();
    told.or(oldest_sandbox)
        .or(input.memory.first_seen)
        .unwrap_or(input.now)
}

/// Primary family first. Kept after the sandbox stopped.
fn pod_ips(input: &StatusInput<'_>) -> Vec<String> {
    if host_network(&input.desired.pod) {
        return input
            .node
            .host_ips
            .iter()
            .map(ToString::to_string)
            .collect();
    }
    let Some(sandbox) = input.observed.ready_sandbox().filter(|s| !s.ips.is_empty()) else {
        return input
            .previous
            .and_then(|status| status.pod_ips.as_ref())
            .map(|ips| ips.iter().map(|ip| ip.ip.clone()).collect())
            .unwrap_or_default();
    };
    let prefers_v6 = input.node.host_ips.first().is_some_and(IpAddr::is_ipv6);
    let mut ips: Vec<IpAddr> = Vec::new();
    for ip in &sandbox.ips {
        if ips.iter().all(|seen| seen.is_ipv6() != ip.is_ipv6()) {
            ips.push(*ip);
        }
    }
    ips.sort_by_key(|ip| ip.is_ipv6() != prefers_v6);
    ips.iter().map(ToString::to_string).collect()
}
