//! What probes say of a container, and what follows from it.
//!
//! In: the container's definition, what the runtime shows of it, and the
//! verdicts in the pod's memory. Out: whether it has started, is ready, or must
//! be stopped. Verdicts speak of one instance; those of another count for
//! nothing.

pub mod http;
pub mod schedule;
mod subject;
mod target;
mod tracker;

pub use subject::{Subject, command, inherited, probed};
pub use target::{PortError, authority, resolve_port};
pub use tracker::{Thresholds, Tracker};

use k8s_openapi::api::core::v1::Container;
use serde::Serialize;

use super::memory::ContainerMemory;
use super::observed::{ContainerId, ContainerState, ObservedContainer};

/// Which of a container's probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

impl ProbeKind {
    pub const ALL: [Self; 3] = [Self::Startup, Self::Liveness, Self::Readiness];

    /// As messages have it: `liveness`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Liveness => "liveness",
            Self::Readiness => "readiness",
        }
    }

    /// As events and metrics have it: `Liveness`.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }

    /// The probe of this kind in a container's definition.
    #[must_use]
    pub fn of(self, container: &Container) -> Option<&k8s_openapi::api::core::v1::Probe> {
        match self {
            Self::Startup => container.startup_probe.as_ref(),
            Self::Liveness => container.liveness_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
        }
    }
}

/// What a probe has come to say, its thresholds passed, of one instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    pub instance: ContainerId,
    pub passed: bool,
}

/// The last verdicts on one container; `None` where a probe has said nothing
/// yet.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Verdicts {
    pub startup: Option<Verdict>,
    pub liveness: Option<Verdict>,
    pub readiness: Option<Verdict>,
}

impl Verdicts {
    /// What the probe says of this very instance.
    #[must_use]
    pub fn on(&self, kind: ProbeKind, instance: &ContainerId) -> Option<bool> {
        let verdict = match kind {
            ProbeKind::Startup => &self.startup,
            ProbeKind::Liveness => &self.liveness,
            ProbeKind::Readiness => &self.readiness,
        };
        verdict
            .as_ref()
            .filter(|verdict| &verdict.instance == instance)
            .map(|verdict| verdict.passed)
    }

    /// Takes in a new verdict.
    pub fn set(&mut self, kind: ProbeKind, verdict: Verdict) {
        let slot = match kind {
            ProbeKind::Startup => &mut self.startup,
            ProbeKind::Liveness => &mut self.liveness,
            ProbeKind::Readiness => &mut self.readiness,
        };
        *slot = Some(verdict);
    }
}

/// `started` of the container's status: it runs, and its startup probe, if it
/// has one, has passed.
#[must_use]
pub fn started(
    container: &Container,
    instance: &ObservedContainer,
    memory: &ContainerMemory,
) -> bool {
    let running = matches!(instance.state, ContainerState::Running { .. });
    running && passes(ProbeKind::Startup, container, instance, memory)
}

/// `ready` of a container that is meant to stay up: started, and its readiness
/// probe, if it has one, passes.
#[must_use]
pub fn ready(
    container: &Container,
    instance: &ObservedContainer,
    memory: &ContainerMemory,
) -> bool {
    started(container, instance, memory)
        && passes(ProbeKind::Readiness, container, instance, memory)
}

/// The probe that wants this running instance stopped, if one does.
#[must_use]
pub fn failed(
    container: &Container,
    instance: &ObservedContainer,
    memory: &ContainerMemory,
) -> Option<ProbeKind> {
    if !matches!(instance.state, ContainerState::Running { .. }) {
        return None;
    }
    [ProbeKind::Startup, ProbeKind::Liveness]
        .into_iter()
        .find(|kind| {
            kind.of(container).is_some() && memory.probes.on(*kind, &instance.id) == Some(false)
        })
}

fn passes(
    kind: ProbeKind,
    container: &Container,
    instance: &ObservedContainer,
    memory: &ContainerMemory,
) -> bool {
    kind.of(container).is_none() || memory.probes.on(kind, &instance.id) == Some(true)
}
