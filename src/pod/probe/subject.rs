//! What probes get to see of a pod, and what is known of it before they have
//! asked.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodStatus};

use super::{ProbeKind, Verdict, Verdicts, started};
use crate::pod::containers::{init, regular};
use crate::pod::env::expand;
use crate::pod::memory::PodMemory;
use crate::pod::observed::{ContainerId, ContainerState, ObservedContainer, ObservedPod};

/// A container that has run for this long when the agent starts was judged by
/// the process before.
const ADOPTED: Duration = Duration::from_secs(10);

/// One container, as its probes need to know it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Subject {
    /// The instance that runs, if one does, and since when.
    pub running: Option<(ContainerId, Timestamp)>,
    /// Its startup probe, if it has one, has passed.
    pub started: bool,
    /// The pod's first address; the node's for pods on its network. `None`
    /// until known.
    pub pod_ip: Option<String>,
}

impl Subject {
    /// What there is to see of `container`.
    #[must_use]
    pub fn of(
        container: &Container,
        observed: &ObservedPod,
        memory: &PodMemory,
        pod_ip: Option<&str>,
    ) -> Self {
        let newest = observed.newest(&container.name);
        Self {
            running: newest.and_then(|newest| Some((newest.id.clone(), running_since(newest)?))),
            started: newest
                .is_some_and(|newest| started(container, newest, &memory.container(&newest.name))),
            pod_ip: pod_ip.map(str::to_owned),
        }
    }

    /// Whether this instance is the one that runs.
    #[must_use]
    pub fn is(&self, instance: &ContainerId) -> bool {
        self.running.as_ref().is_some_and(|(id, _)| id == instance)
    }
}

/// The containers that can have probes: those that are meant to stay up.
pub fn probed(pod: &Pod) -> impl Iterator<Item = &Container> {
    let sidecars = init(pod)
        .iter()
        .filter(|container| container.restart_policy.as_deref() == Some("Always"));
    sidecars.chain(regular(pod))
}

/// What the API's `status` tells of containers that ran long before this
/// process (`process_start`): a restart of the agent must not make them unready.
#[must_use]
pub fn inherited(
    pod: &Pod,
    status: Option<&PodStatus>,
    observed: &ObservedPod,
    process_start: Timestamp,
) -> Vec<(String, Verdicts)> {
    let inherit = |container: &Container| {
        let newest = observed.newest(&container.name)?;
        let old = running_since(newest)? + ADOPTED < process_start;
        let told = told_of(status?, newest)?;
        let verdict = |holds: bool| {
            (old && holds).then(|| Verdict {
                instance: newest.id.clone(),
                passed: true,
            })
        };
        let verdicts = Verdicts {
            startup: verdict(told.started == Some(true)),
            liveness: None,
            readiness: verdict(told.ready),
        };
        (verdicts != Verdicts::default()).then(|| (container.name.clone(), verdicts))
    };
    probed(pod)
        .filter(|container| {
            ProbeKind::ALL
                .iter()
                .any(|kind| kind.of(container).is_some())
        })
        .filter_map(inherit)
        .collect()
}

/// The command of an exec probe: `$(NAME)` is replaced by the container's own
/// literal values, which are not expanded themselves.
#[must_use]
pub fn command(command: &[String], container: &Container) -> Vec<String> {
    let lookup = |name: &str| {
        let variables = container.env.as_deref().unwrap_or_default();
        // Of several the last counts, as in the container.
        let variable = variables.iter().rev().find(|env| env.name == name)?;
        Some(variable.value.as_deref().unwrap_or_default())
    };
    command.iter().map(|part| expand(part, lookup)).collect()
}

fn running_since(instance: &ObservedContainer) -> Option<Timestamp> {
    match instance.state {
        ContainerState::Running { started_at } => Some(started_at),
        ContainerState::Created | ContainerState::Exited(_) | ContainerState::Unknown => None,
    }
}

/// What the status says of this very instance.
fn told_of<'a>(status: &'a PodStatus, instance: &ObservedContainer) -> Option<&'a ContainerStatus> {
    let lists = [&status.init_container_statuses, &status.container_statuses];
    lists.into_iter().flatten().flatten().find(|told| {
        let id = told.container_id.as_deref().unwrap_or_default();
        let id = id.split_once("://").map_or(id, |(_, id)| id);
        told.name == instance.name && id == instance.id.0
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pod::samples::{at, exited, instance, pod, running, up};

    fn probed_pod() -> crate::pod::DesiredPod {
        let mut desired = pod("Always", &["setup"], &["a", "plain"]);
        let mut pod = Pod::clone(&desired.pod);
        let spec = pod.spec.as_mut().unwrap();
        let probe = json!({"tcpSocket": {"port": 80}});
        spec.containers[0].readiness_probe = serde_json::from_value(probe.clone()).unwrap();
        spec.containers[0].startup_probe = serde_json::from_value(probe).unwrap();
        desired.pod = pod.into();
        desired
    }

    #[test]
    fn sidecars_and_app_containers_are_probed() {
        let mut pod = Pod::clone(&probed_pod().pod);
        let names = |pod: &Pod| probed(pod).map(|c| c.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&pod), ["a", "plain"]);
        let spec = pod.spec.as_mut().unwrap();
        let setup = &mut spec.init_containers.as_mut().unwrap()[0];
        setup.restart_policy = Some("Always".into());
        assert_eq!(names(&pod), ["setup", "a", "plain"]);
    }

    #[test]
    fn probes_see_the_instance_that_runs() {
        let desired = probed_pod();
        let container = &regular(&desired.pod)[0];
        let mut memory = PodMemory::default();
        let see = |state, memory: &PodMemory| {
            let observed = up(vec![instance(&desired, "a", 2, state)]);
            Subject::of(container, &observed, memory, Some("10.0.0.2"))
        };
        let subject = see(running(), &memory);
        assert_eq!(subject.running, Some((ContainerId("a2".into()), at(0))));
        assert!(!subject.started, "the startup probe has not passed");
        assert_eq!(see(exited(1, 5), &memory).running, None);
        let passed = Verdict {
            instance: ContainerId("a2".into()),
            passed: true,
        };
        let entry = memory.containers.entry("a".into()).or_default();
        entry.probes.set(ProbeKind::Startup, passed);
        assert!(see(running(), &memory).started);
        assert!(!see(exited(1, 5), &memory).started);
    }

    #[test]
    fn a_new_agent_believes_what_was_told_of_old_containers() {
        let desired = probed_pod();
        let observed = up(vec![
            instance(&desired, "a", 0, running()),
            instance(&desired, "plain", 0, running()),
        ]);
        let told = |id: &str, started: Option<bool>, ready: bool| {
            let status: PodStatus = serde_json::from_value(json!({"containerStatuses": [{
                "name": "a", "containerID": id, "started": started, "ready": ready,
                "image": "", "imageID": "", "restartCount": 0,
            }]}))
            .unwrap();
            status
        };
        let inherit = |status: Option<&PodStatus>, since: i64| {
            let all = inherited(&desired.pod, status, &observed, at(since));
            let passed = |verdict: Option<Verdict>| verdict.is_some_and(|verdict| verdict.passed);
            all.into_iter()
                .map(|(name, v)| (name, passed(v.startup), passed(v.readiness)))
                .collect::<Vec<_>>()
        };
        let a = |startup, readiness| vec![("a".to_owned(), startup, readiness)];
        for (status, since, wanted) in [
            (told("containerd://a0", Some(true), true), 11, a(true, true)),
            (
                told("containerd://a0", Some(true), false),
                11,
                a(true, false),
            ),
            (told("containerd://a0", Some(false), false), 11, vec![]),
            (told("containerd://a0", Some(true), true), 10, vec![]),
            (told("containerd://other", Some(true), true), 11, vec![]),
        ] {
            assert_eq!(inherit(Some(&status), since), wanted);
        }
        assert_eq!(inherit(None, 11), vec![]);
    }

    #[test]
    fn commands_know_literal_variables_only() {
        let container: Container = serde_json::from_value(json!({"name": "c", "env": [
            {"name": "A", "value": "1"},
            {"name": "B", "value": "$(A)"},
            {"name": "A", "value": "2"},
            {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        ]}))
        .unwrap();
        for (given, wanted) in [
            ("$(A)-$(B)", "2-$(A)"),
            ("[$(SECRET)]", "[]"),
            ("$(UNKNOWN) $$(A)", "$(UNKNOWN) $(A)"),
        ] {
            assert_eq!(command(&[given.to_owned()], &container), [wanted]);
        }
    }
}
