//! Whether this node takes a pod that was given to it.
//!
//! In: the pod, the node, what pods that are here already take. Out: yes, or
//! the refusal that goes into the pod's status and event, or what has to happen
//! first. A pod is judged once, before anything of it is made, and never again:
//! labels, taints and resources of a node may change under its pods. Only if it
//! asks for more than it was given, that more is judged ([`fits_resized`]).

mod affinity;
mod claim;
mod fit;
mod node;
pub mod preempt;
mod taints;
#[cfg(test)]
mod tests;

use k8s_openapi::api::core::v1::{Container, PodSpec};
use serde::Serialize;

pub use claim::Claim;
pub use fit::{Shortage, fits_resized};
pub use node::NodeView;

use super::model::DesiredPod;
use super::support::{self, Effect};
use super::sysctl::{Allowlist, HostNamespaces};
use super::{qos, resources};

const OS_LABEL: &str = "kubernetes.io/os";
const OS: &str = "linux";

/// Why the node does not take a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rejection {
    /// `status.reason`, and the reason of the event.
    pub reason: String,
    /// The sentence of the event; the status says it after "Pod was rejected: ".
    pub message: String,
}

impl Rejection {
    #[must_use]
    pub fn new(reason: &str, message: impl Into<String>) -> Self {
        Self {
            reason: reason.to_owned(),
            message: message.into(),
        }
    }
}

/// Something that the node either has or does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    Present,
    Absent,
}

/// What of the machine and of the configuration decides about pods.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub sysctls: Allowlist,
    pub apparmor: Support,
    /// The feature gate `PodLevelResources`.
    pub pod_level_resources: Support,
}

/// Everything an admission depends on.
#[derive(Debug, Clone, Copy)]
pub struct AdmissionInput<'a> {
    pub pod: &'a DesiredPod,
    pub node: &'a NodeView,
    /// What all other pods of this node take together.
    pub taken: &'a Claim,
    /// Whether the runtime knows `supplementalGroupsPolicy`.
    pub supplemental_groups_policy: Support,
    pub settings: &'a Settings,
}

/// The outcome of an admission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Admitted,
    Rejected(Rejection),
    /// Nothing but the node's labels or taints is against it. They may have been
    /// changed a moment ago: worth another look at the newest Node.
    NodeDiffers(Rejection),
    /// Nothing but a lack of resources is against a critical pod: others have
    /// to make room.
    MakeRoom(Vec<Shortage>),
}

/// Judges a pod. What is found first is told.
#[must_use]
pub fn admit(input: &AdmissionInput<'_>) -> Verdict {
    let none = PodSpec::default();
    let spec = input.pod.pod.spec.as_ref().unwrap_or(&none);
    let needs_room = match sysctls(input, spec)
        .and_then(|()| platform(input, spec))
        .map(|()| predicates(input, spec))
    {
        Err(rejection) => return Verdict::Rejected(rejection),
        Ok(verdict @ (Verdict::Rejected(_) | Verdict::NodeDiffers(_))) => return verdict,
        Ok(verdict @ (Verdict::Admitted | Verdict::MakeRoom(_))) => verdict,
    };
    match apparmor(input, spec)
        .and_then(|()| pod_level_resources(input, spec))
        .and_then(|()| features(input))
    {
        Err(rejection) => Verdict::Rejected(rejection),
        Ok(()) => needs_room,
    }
}

fn sysctls(input: &AdmissionInput<'_>, spec: &PodSpec) -> Result<(), Rejection> {
    let host = HostNamespaces {
        network: spec.host_network.unwrap_or(false),
        ipc: spec.host_ipc.unwrap_or(false),
    };
    let security = spec.security_context.as_ref();
    for sysctl in security.iter().flat_map(|s| s.sysctls.iter().flatten()) {
        if let Err(error) = input.settings.sysctls.check(&sysctl.name, host) {
            let message = format!("forbidden sysctl: {error}");
            return Err(Rejection::new("SysctlForbidden", message));
        }
    }
    Ok(())
}

/// What no room that others make could change.
fn platform(input: &AdmissionInput<'_>, spec: &PodSpec) -> Result<(), Rejection> {
    // A label of the pod, not its node selector: that is how it is defined.
    let labels = input.pod.pod.metadata.labels.as_ref();
    if labels.is_some_and(|labels| labels.get(OS_LABEL).is_some_and(|os| os != OS)) {
        return Err(Rejection::new(
            "PodOSSelectorNodeLabelDoesNotMatch",
            "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label",
        ));
    }
    if spec.os.as_ref().is_some_and(|os| os.name != OS) {
        return Err(Rejection::new(
            "PodOSNotSupported",
            "Failed to admit pod as the OS field doesn't match node OS",
        ));
    }
    let security = spec.security_context.as_ref();
    let policy = security.and_then(|s| s.supplemental_groups_policy.as_deref());
    if policy == Some("Strict") && input.supplemental_groups_policy == Support::Absent {
        return Err(Rejection::new(
            "SupplementalGroupsPolicyNotSupported",
            "SupplementalGroupsPolicy=Strict is not supported in this node",
        ));
    }
    Ok(())
}

/// What the scheduler would have looked at.
fn predicates(input: &AdmissionInput<'_>, spec: &PodSpec) -> Verdict {
    let claim = Claim::of(&input.pod.pod);
    let shortages = fit::shortages(&claim, input.node, input.taken);
    let unmet = unmet(input, spec, &claim);
    let rejection = unmet
        .first()
        .map(|Unmet { name, why }| Rejection::new(name, format!("Predicate {name} failed: {why}")));
    match (shortages.first(), rejection) {
        (None, None) => Verdict::Admitted,
        (None, Some(rejection)) if unmet.iter().all(Unmet::may_be_outdated) => {
            Verdict::NodeDiffers(rejection)
        }
        (Some(first), _) if !qos::is_critical(input.pod) => Verdict::Rejected(first.rejection()),
        (_, Some(rejection)) => Verdict::Rejected(rejection),
        (Some(_), None) => Verdict::MakeRoom(shortages),
    }
}

/// A demand that has nothing to do with amounts, and is not met.
struct Unmet {
    name: &'static str,
    why: &'static str,
}

const NODE_AFFINITY: Unmet = Unmet {
    name: "NodeAffinity",
    why: "node(s) didn't match Pod's node affinity/selector",
};
const NODE_NAME: Unmet = Unmet {
    name: "NodeName",
    why: "node(s) didn't match the requested node name",
};
const NODE_PORTS: Unmet = Unmet {
    name: "NodePorts",
    why: "node(s) didn't have free ports for the requested pod ports",
};
const TAINT_TOLERATION: Unmet = Unmet {
    name: "TaintToleration",
    why: "node(s) had taints that the pod didn't tolerate",
};

impl Unmet {
    /// Whether an administrator may have changed the node a moment ago.
    fn may_be_outdated(&self) -> bool {
        [NODE_AFFINITY.name, TAINT_TOLERATION.name].contains(&self.name)
    }
}

/// In the order in which they are told.
fn unmet(input: &AdmissionInput<'_>, spec: &PodSpec, claim: &Claim) -> Vec<Unmet> {
    let wanted_name = spec.node_name.as_deref().unwrap_or_default();
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let is_tolerant =
        input.pod.origin.is_static() || taints::tolerated(&input.node.taints, tolerations);
    [
        (affinity::matches(spec, input.node), NODE_AFFINITY),
        (
            wanted_name.is_empty() || wanted_name == input.node.name,
            NODE_NAME,
        ),
        (!claim.ports_conflict(input.taken), NODE_PORTS),
        (is_tolerant, TAINT_TOLERATION),
    ]
    .into_iter()
    .filter(|(is_met, _)| !is_met)
    .map(|(_, unmet)| unmet)
    .collect()
}

fn apparmor(input: &AdmissionInput<'_>, spec: &PodSpec) -> Result<(), Rejection> {
    let status = input.pod.pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref());
    let is_pending = matches!(phase, None | Some("" | "Pending"));
    let confines = |kind: Option<&str>| kind.is_some_and(|kind| kind != "Unconfined");
    let of_pod = spec
        .security_context
        .as_ref()
        .and_then(|s| s.app_armor_profile.as_ref());
    let by_container = |container: &Container| {
        let security = container.security_context.as_ref();
        let profile = security.and_then(|s| s.app_armor_profile.as_ref());
        confines(profile.map(|profile| profile.type_.as_str()))
    };
    let init = spec.init_containers.iter().flatten();
    let asks = confines(of_pod.map(|profile| profile.type_.as_str()))
        || spec.containers.iter().chain(init).any(by_container);
    if is_pending && asks && input.settings.apparmor == Support::Absent {
        return Err(Rejection::new(
            "AppArmor",
            "Cannot enforce AppArmor: AppArmor is not enabled on the host",
        ));
    }
    Ok(())
}

fn pod_level_resources(input: &AdmissionInput<'_>, spec: &PodSpec) -> Result<(), Rejection> {
    let at_pod_level = resources::Resources::at_pod_level(spec);
    if input.settings.pod_level_resources == Support::Absent
        && at_pod_level != resources::Resources::default()
    {
        return Err(Rejection::new(
            "PodLevelResourcesNotSupported",
            "PodLevelResources feature gate is disabled",
        ));
    }
    Ok(())
}

/// What this agent cannot do and the pod would be wrong without.
fn features(input: &AdmissionInput<'_>) -> Result<(), Rejection> {
    let refused: Vec<String> = support::unsupported(&input.pod.pod)
        .into_iter()
        .filter(|item| item.effect == Effect::Refuse)
        .map(|item| format!("{}: {}", item.field_path, item.message))
        .collect();
    if refused.is_empty() {
        return Ok(());
    }
    Err(Rejection::new(
        support::REASON_UNSUPPORTED,
        refused.join("; "),
    ))
}
