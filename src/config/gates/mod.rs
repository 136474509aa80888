//! Feature gates: which exist, which are on, and which of them this agent obeys.
//!
//! Input: the merged `featureGates` map of files and flags. Output: [`FeatureGates`], plus
//! the problems found: unknown names, locked gates set to the other value, unmet
//! dependencies (errors), and gates asked for that change nothing here (warnings).

mod table;

use std::collections::BTreeMap;

use serde::Serialize;

/// How mature a feature is, which decides its default and what `AllAlpha`/`AllBeta` cover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Alpha,
    Beta,
    Ga,
    Deprecated,
}

/// What this agent does about a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behaviour {
    /// Another component's gate, or one that is locked.
    Elsewhere,
    /// The feature is not there; the agent behaves as if the gate were off.
    Absent,
    /// The feature is how the agent works; it cannot be turned off.
    Always,
    /// The agent obeys the gate.
    Switch,
}

/// Whose gates are set: a gate does something in some of them only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Component {
    /// The node agent.
    Node,
    /// The service proxy.
    Proxy,
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GateSpec {
    pub(super) name: &'static str,
    pub(super) stage: Stage,
    pub(super) default: bool,
    pub(super) locked: bool,
    pub(super) behaviour: Behaviour,
}

/// Which feature gates are on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct FeatureGates {
    /// Only what differs from the defaults.
    changed: BTreeMap<&'static str, bool>,
}

/// A gate that cannot be set as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GateError {
    /// No component of Kubernetes 1.36 has such a gate.
    #[error("is no feature gate{}", hint(.suggestion))]
    Unknown {
        /// A gate whose name is nearly the same.
        suggestion: Option<&'static str>,
    },
    /// The feature is final.
    #[error("is locked to {0}")]
    Locked(bool),
    /// A gate this one builds on is off.
    #[error("needs {0}, which is off")]
    Requires(&'static str),
}

/// A gate that is set, and changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateNotice {
    /// Turned on, not implemented.
    NotImplemented,
    /// Turned off, cannot be.
    AlwaysOn,
}

/// What became of the gates a user set, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Resolution {
    pub(super) gates: FeatureGates,
    pub(super) errors: Vec<(String, GateError)>,
    pub(super) notices: Vec<(String, GateNotice)>,
}

const ALL_ALPHA: &str = "AllAlpha";
const ALL_BETA: &str = "AllBeta";

fn hint(suggestion: &Option<&'static str>) -> String {
    suggestion.map_or_else(String::new, |name| format!(" (did you mean {name:?}?)"))
}

/// Every known gate.
pub(super) fn all() -> impl Iterator<Item = &'static GateSpec> {
    table::NODE.iter().chain(table::OTHER).chain(table::LOCKED)
}

impl Component {
    /// What this component does about a gate.
    fn behaviour(self, spec: &GateSpec) -> Behaviour {
        match self {
            Self::Node => spec.behaviour,
            Self::Proxy => table::PROXY
                .iter()
                .find(|(name, _)| *name == spec.name)
                .map_or(Behaviour::Elsewhere, |(_, behaviour)| *behaviour),
        }
    }
}

fn find(name: &str) -> Option<&'static GateSpec> {
    all().find(|spec| spec.name == name)
}

impl FeatureGates {
    /// Whether `gate` is on. A name no component knows is off.
    pub fn enabled(&self, gate: &str) -> bool {
        self.changed
            .get(gate)
            .copied()
            .unwrap_or_else(|| find(gate).is_some_and(|spec| spec.default))
    }

    fn set(&mut self, spec: &GateSpec, value: bool) {
        if value == spec.default {
            self.changed.remove(spec.name);
        } else {
            self.changed.insert(spec.name, value);
        }
    }
}

/// Applies what a user set for a component to the defaults.
pub(super) fn resolve(component: Component, requested: &BTreeMap<String, bool>) -> Resolution {
    let mut out = Resolution::default();
    set_whole_stages(component, requested, &mut out);
    for (name, &value) in requested {
        if name == ALL_ALPHA || name == ALL_BETA {
            continue;
        }
        let Some(spec) = find(name) else {
            let suggestion = super::suggest::closest(name, all().map(|spec| spec.name));
            out.errors
                .push((name.clone(), GateError::Unknown { suggestion }));
            continue;
        };
        if spec.locked && value != spec.default {
            out.errors
                .push((name.clone(), GateError::Locked(spec.default)));
            continue;
        }
        out.gates.set(spec, value);
        match (component.behaviour(spec), value) {
            (Behaviour::Absent, true) => {
                out.notices.push((name.clone(), GateNotice::NotImplemented));
            }
            (Behaviour::Always, false) => out.notices.push((name.clone(), GateNotice::AlwaysOn)),
            _ => {}
        }
    }
    for (name, requirement) in table::REQUIRES {
        if out.gates.enabled(name) && !out.gates.enabled(requirement) {
            out.errors
                .push(((*name).to_owned(), GateError::Requires(requirement)));
        }
    }
    out
}

/// `AllAlpha` and `AllBeta` set every gate of their stage that is not named itself.
fn set_whole_stages(
    component: Component,
    requested: &BTreeMap<String, bool>,
    out: &mut Resolution,
) {
    for (name, stage) in [(ALL_ALPHA, Stage::Alpha), (ALL_BETA, Stage::Beta)] {
        let Some(&value) = requested.get(name) else {
            continue;
        };
        let covered = || all().filter(|spec| spec.stage == stage && !spec.locked);
        for spec in covered() {
            out.gates.set(spec, value);
        }
        if value && covered().any(|spec| component.behaviour(spec) == Behaviour::Absent) {
            out.notices
                .push((name.to_owned(), GateNotice::NotImplemented));
        }
    }
}
