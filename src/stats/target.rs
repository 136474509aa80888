//! Which pods and containers are looked at. Pure.
//!
//! A pod counts as long as its newest sandbox is up; of each container the
//! instance that runs. Pods that have ended use nothing, and are left out.

use jiff::Timestamp;

use crate::pod::qos::{self, QosClass};
use crate::pod::{ContainerState, DesiredPod, ObservedPod, PodName, PodUid};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PodTarget {
    pub(super) uid: PodUid,
    pub(super) name: PodName,
    /// `None` for a pod that no source wants any more.
    pub(super) class: Option<QosClass>,
    pub(super) host_network: bool,
    pub(super) sandbox: ContainerTarget,
    /// By name.
    pub(super) containers: Vec<ContainerTarget>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ContainerTarget {
    pub(super) id: String,
    /// Empty for a sandbox.
    pub(super) name: String,
    pub(super) image: String,
    pub(super) created_at: Timestamp,
}

/// `None`: nothing of this pod runs.
pub(super) fn target(observed: &ObservedPod, desired: Option<&DesiredPod>) -> Option<PodTarget> {
    let sandbox = observed.ready_sandbox()?;
    let mut containers: Vec<ContainerTarget> = Vec::new();
    for container in &observed.containers {
        let runs = matches!(container.state, ContainerState::Running { .. });
        let is_known = containers.iter().any(|known| known.name == container.name);
        if runs && !is_known && container.sandbox == sandbox.id {
            containers.push(ContainerTarget {
                id: container.id.0.clone(),
                name: container.name.clone(),
                image: container.image.clone(),
                created_at: container.created_at,
            });
        }
    }
    containers.sort_by(|a, b| a.name.cmp(&b.name));
    Some(PodTarget {
        uid: observed.uid.clone(),
        name: observed.name.clone(),
        class: desired.map(|desired| qos::class(&desired.pod)),
        host_network: sandbox.host_network,
        sandbox: ContainerTarget {
            id: sandbox.id.0.clone(),
            name: String::new(),
            image: String::new(),
            created_at: sandbox.created_at,
        },
        containers,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::SandboxState;
    use crate::pod::samples::{exited, instance, pod, running, sandbox, up};

    #[test]
    fn the_newest_running_instance_counts() {
        let desired = pod("Always", &["init"], &["b", "a"]);
        let observed = up(vec![
            instance(&desired, "b", 1, running()),
            instance(&desired, "a", 2, running()),
            instance(&desired, "b", 0, running()),
            instance(&desired, "init", 0, exited(0, 5)),
        ]);
        let found = target(&observed, Some(&desired)).unwrap();
        let names: Vec<_> = found.containers.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(found.containers[1].id, observed.containers[0].id.0);
        assert_eq!(found.class, Some(QosClass::BestEffort));
        assert_eq!(target(&observed, None).unwrap().class, None);
    }

    #[test]
    fn a_pod_without_a_sandbox_uses_nothing() {
        let mut observed = up(Vec::new());
        observed.sandboxes = vec![
            sandbox(1, SandboxState::NotReady),
            sandbox(0, SandboxState::Ready),
        ];
        assert_eq!(target(&observed, None), None);
        observed.sandboxes.clear();
        assert_eq!(target(&observed, None), None);
    }
}
