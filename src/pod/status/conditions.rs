//! The conditions that the agent owns.

use k8s_openapi::api::core::v1::{Container, ContainerStatus, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::StatusInput;
use super::phase::Phase;
use crate::pod::containers::{host_network, init, is_sidecar, regular, sidecars};
use crate::pod::model::{Intent, TerminationReason};
use crate::pod::plan::may_restart_all;
use crate::pod::resize;

pub(super) const ALL_RESTARTING: &str = "AllContainersRestarting";

/// In the order in which `kubectl describe` is used to show them.
pub(super) fn conditions(
    input: &StatusInput<'_>,
    phase: Phase,
    init_statuses: &[ContainerStatus],
    statuses: &[ContainerStatus],
) -> Vec<PodCondition> {
    let containers_ready = containers_ready(input, phase, init_statuses, statuses);
    let ready = ready(input, &containers_ready);
    let usual = [
        ("PodReadyToStartContainers", sandbox_ready(input)),
        (
            "Initialized",
            initialized(input, phase, init_statuses, statuses),
        ),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
        ("PodScheduled", Verdict::yes()),
    ];
    usual
        .into_iter()
        .chain(all_restarting(input).map(|verdict| (ALL_RESTARTING, verdict)))
        .chain(resize(input))
        .map(|(kind, verdict)| condition(input, kind, verdict))
        .chain(disruption(input))
        .collect()
}

/// Whether all containers are being restarted; told of pods that have a rule
/// to that effect.
fn all_restarting(input: &StatusInput<'_>) -> Option<Verdict> {
    if !may_restart_all(&input.desired.pod) {
        return None;
    }
    Some(if input.restarts_all() {
        Verdict {
            message: Some("container exited with restart policy rule".into()),
            ..Verdict::yes_because("RestartAllContainersStarted")
        }
    } else {
        Verdict::no(None, None)
    })
}

/// Reason of `DisruptionTarget` where the node itself ends a pod.
const BY_NODE: &str = "TerminationByKubelet";

/// That the node ends the pod for the sake of others. What was said of it
/// stays, as the pod may be deleted while it ends.
fn disruption(input: &StatusInput<'_>) -> Option<PodCondition> {
    const KIND: &str = "DisruptionTarget";
    if let Intent::Terminate(termination) = &input.desired.intent
        && let TerminationReason::Failed {
            disruption: Some(message),
            ..
        } = &termination.reason
    {
        let verdict = Verdict {
            message: Some(message.clone()),
            ..Verdict::yes_because(BY_NODE)
        };
        return Some(condition(input, KIND, verdict));
    }
    let told = input.previous?.conditions.as_ref()?;
    let ours = told
        .iter()
        .find(|c| c.type_ == KIND && c.reason.as_deref() == Some(BY_NODE));
    ours.cloned()
}

/// A resize that waits, and one that is carried out; nothing without any.
fn resize(input: &StatusInput<'_>) -> Vec<(&'static str, Verdict)> {
    let memory = &input.memory.resize;
    let pending = memory.deferred.as_ref().map(|message| {
        let verdict = Verdict {
            message: Some(message.clone()),
            ..Verdict::yes_because(resize::DEFERRED)
        };
        (resize::PENDING, verdict)
    });
    let in_progress = memory.underway.as_ref().map(|underway| {
        let verdict = match &underway.failure {
            Some(failure) => Verdict {
                message: Some(failure.message.clone()),
                ..Verdict::yes_because(resize::ERROR)
            },
            None => Verdict::yes(),
        };
        (resize::IN_PROGRESS, verdict)
    });
    if input.ended() {
        return Vec::new();
    }
    pending.into_iter().chain(in_progress).collect()
}

/// A condition's answer before it gets its times.
#[derive(Debug, Clone, PartialEq)]
struct Verdict {
    holds: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Verdict {
    fn yes() -> Self {
        Self {
            holds: true,
            reason: None,
            message: None,
        }
    }

    fn yes_because(reason: &'static str) -> Self {
        Self {
            reason: Some(reason),
            ..Self::yes()
        }
    }

    fn no(reason: Option<&'static str>, message: Option<String>) -> Self {
        Self {
            holds: false,
            reason,
            message,
        }
    }
}

fn condition(input: &StatusInput<'_>, kind: &str, verdict: Verdict) -> PodCondition {
    let status = if verdict.holds { "True" } else { "False" };
    let unchanged_since = input
        .told(kind)
        .filter(|previous| previous.status == status)
        .and_then(|previous| previous.last_transition_time.clone());
    PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: verdict.reason.map(str::to_owned),
        message: verdict.message,
        observed_generation: input.desired.pod.metadata.generation,
        last_transition_time: unchanged_since.or(Some(Time(input.now))),
        last_probe_time: None,
    }
}

fn sandbox_ready(input: &StatusInput<'_>) -> Verdict {
    let up = input
        .observed
        .ready_sandbox()
        .is_some_and(|s| host_network(&input.desired.pod) || !s.ips.is_empty());
    if up {
        Verdict::yes()
    } else {
        Verdict::no(None, None)
    }
}

fn initialized(
    input: &StatusInput<'_>,
    phase: Phase,
    init_statuses: &[ContainerStatus],
    statuses: &[ContainerStatus],
) -> Verdict {
    if phase == Phase::Succeeded {
        return Verdict::yes_because("PodCompleted");
    }
    let any_started = statuses.iter().any(has_begun);
    let is_done = |container: &Container, status: &ContainerStatus| {
        if is_sidecar(container) {
            status.started == Some(true)
        } else {
            status.ready
        }
    };
    let waiting: Vec<&str> = init(&input.desired.pod)
        .iter()
        .zip(init_statuses)
        .filter(|(container, status)| !is_done(container, status))
        .map(|(container, _)| container.name.as_str())
        .collect();
    if waiting.is_empty() || any_started {
        return Verdict::yes();
    }
    Verdict::no(
        Some("ContainersNotInitialized"),
        Some(format!(
            "containers with incomplete status: [{}]",
            waiting.join(" ")
        )),
    )
}

/// Whether the container runs or has run in this round of the pod's life.
fn has_begun(status: &ContainerStatus) -> bool {
    status
        .state
        .as_ref()
        .is_some_and(|state| state.running.is_some() || state.terminated.is_some())
}

fn containers_ready(
    input: &StatusInput<'_>,
    phase: Phase,
    init_statuses: &[ContainerStatus],
    statuses: &[ContainerStatus],
) -> Verdict {
    match phase {
        Phase::Succeeded => return Verdict::no(Some("PodCompleted"), None),
        Phase::Failed => return Verdict::no(Some("PodFailed"), None),
        Phase::Pending | Phase::Running => {}
    }
    let pod = &input.desired.pod;
    let unready: Vec<&str> = sidecars(pod)
        .chain(regular(pod))
        .filter(|c| {
            !init_statuses
                .iter()
                .chain(statuses)
                .any(|s| s.name == c.name && s.ready)
        })
        .map(|c| c.name.as_str())
        .collect();
    if unready.is_empty() {
        return Verdict::yes();
    }
    Verdict::no(
        Some("ContainersNotReady"),
        Some(format!(
            "containers with unready status: [{}]",
            unready.join(" ")
        )),
    )
}

/// Containers ready, and every readiness gate that others set.
fn ready(input: &StatusInput<'_>, containers_ready: &Verdict) -> Verdict {
    if !containers_ready.holds {
        return containers_ready.clone();
    }
    let gates = input
        .desired
        .pod
        .spec
        .as_ref()
        .and_then(|spec| spec.readiness_gates.as_deref())
        .unwrap_or_default();
    let told = input
        .desired
        .pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    let missing: Vec<String> = gates
        .iter()
        .filter_map(|gate| {
            let kind = &gate.condition_type;
            match told.iter().find(|c| &c.type_ == kind) {
                None => Some(format!(
                    "corresponding condition of pod readiness gate \"{kind}\" does not exist."
                )),
                Some(c) if c.status == "True" => None,
                Some(c) => Some(format!(
                    "the status of pod readiness gate \"{kind}\" is not \"True\", but {}",
                    c.status
                )),
            }
        })
        .collect();
    if missing.is_empty() {
        return Verdict::yes();
    }
    Verdict::no(Some("ReadinessGatesNotReady"), Some(missing.join(", ")))
}
