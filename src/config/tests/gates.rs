//! Feature gates.

use std::collections::{BTreeMap, BTreeSet};

use super::super::gates::{self, Behaviour, Component, GateError, GateNotice, GateSpec, Stage};
use super::{Files, errors_of};

fn set(name: &str, value: bool) -> gates::Resolution {
    gates::resolve(Component::Node, &BTreeMap::from([(name.to_owned(), value)]))
}

#[test]
fn every_gate_obeys_its_row() {
    let mut names = BTreeSet::new();
    for spec in gates::all() {
        let GateSpec {
            name,
            default,
            locked,
            behaviour,
            ..
        } = *spec;
        assert!(names.insert(name), "{name} is listed twice");
        assert_eq!(gates::FeatureGates::default().enabled(name), default);
        for value in [true, false] {
            let resolved = set(name, value);
            if locked && value != default {
                assert_eq!(
                    resolved.errors,
                    [(name.to_owned(), GateError::Locked(default))]
                );
                continue;
            }
            assert_eq!(resolved.gates.enabled(name), value, "{name}");
            let notice = match (behaviour, value) {
                (Behaviour::Absent, true) => Some(GateNotice::NotImplemented),
                (Behaviour::Always, false) => Some(GateNotice::AlwaysOn),
                _ => None,
            };
            let notices: Vec<_> = resolved.notices.iter().map(|(_, notice)| *notice).collect();
            assert_eq!(notices, notice.into_iter().collect::<Vec<_>>(), "{name}");
            let only_requirements = resolved
                .errors
                .iter()
                .all(|(_, error)| matches!(error, GateError::Requires(_)));
            assert!(only_requirements, "{name}: {:?}", resolved.errors);
        }
    }
    assert!(names.len() > 200);
}

#[test]
fn defaults_meet_their_own_requirements() {
    assert_eq!(
        gates::resolve(Component::Node, &BTreeMap::new()),
        gates::Resolution::default()
    );
}

#[test]
fn whole_stages_can_be_set_with_exceptions() {
    let requested = BTreeMap::from([
        ("AllAlpha".to_owned(), true),
        ("MemoryQoS".to_owned(), false),
    ]);
    let resolved = gates::resolve(Component::Node, &requested);
    assert!(!resolved.gates.enabled("MemoryQoS"));
    for spec in gates::all().filter(|spec| spec.stage == Stage::Alpha) {
        let expected = spec.name != "MemoryQoS";
        assert_eq!(resolved.gates.enabled(spec.name), expected, "{}", spec.name);
    }
    assert_eq!(
        resolved.notices,
        [("AllAlpha".to_owned(), GateNotice::NotImplemented)]
    );
}

#[test]
fn problems_are_told_by_name() {
    let errors = errors_of(
        "featureGates: {KubeletPSI: false, MemoryQos: true, Frobnicate: true, GracefulNodeShutdown: false}",
        &[],
    );
    insta::assert_snapshot!(errors, @r#"
    4 errors in the configuration
      {dir}/config.yaml:3:15: featureGates: GracefulNodeShutdownBasedOnPodPriority needs GracefulNodeShutdown, which is off
      {dir}/config.yaml:3:28: featureGates.KubeletPSI: KubeletPSI is locked to true
      {dir}/config.yaml:3:46: featureGates.MemoryQos: MemoryQos is no feature gate (did you mean "MemoryQoS"?)
      {dir}/config.yaml:3:64: featureGates.Frobnicate: Frobnicate is no feature gate
    "#);
    let typed = errors_of("featureGates: {MemoryQoS: enabled}", &[]);
    insta::assert_snapshot!(typed, @r#"{dir}/config.yaml:3:27: featureGates.MemoryQoS: expected true or false, found "enabled""#);
    let warnings = Files::new().warnings(&[
        "--feature-gates=ContainerCheckpoint=true,HostnameOverride=false,HPAScaleToZero=true",
    ]);
    insta::assert_snapshot!(warnings.join("\n"), @r#"
    --feature-gates: ContainerCheckpoint is not supported yet and has no effect
    --feature-gates: HostnameOverride cannot be turned off here
    "#);
}
