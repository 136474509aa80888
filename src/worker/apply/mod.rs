//! Carrying out one step: the only place where a worker has effects.
//!
//! Each step is a handful of port calls in a fixed order, and ends in an
//! [`Outcome`]. What to do about a failure is for the next plan to say.

mod hook;
mod image;
mod resize;
mod runtime;
mod start;
mod stop;

use std::sync::Arc;

use jiff::Timestamp;

use super::WorkerDeps;
use super::haste::Pace;
use super::step::{Outcome, StartFailure};
use crate::apiserver::NodeEvent;
use crate::error::chain;
use crate::pod::containers::reference;
use crate::pod::inputs::MountedVolumes;
use crate::pod::plan::Step;
use crate::pod::render::{self, RenderError};
use crate::pod::spec::PresentImage;
use crate::pod::{
    DesiredPod, NodeFacts, ObservedPod, PodEvent, SandboxId, Severity, WaitingReason, dns, qos,
};
use crate::runtime::RuntimeError;

/// What a step is carried out on.
#[derive(Clone)]
pub(in crate::worker) struct Target {
    pub(in crate::worker) deps: Arc<WorkerDeps>,
    pub(in crate::worker) desired: Arc<DesiredPod>,
    pub(in crate::worker) observed: Arc<ObservedPod>,
    /// Empty until mounted.
    pub(in crate::worker) volumes: MountedVolumes,
    /// When the pod's `activeDeadlineSeconds` are over.
    pub(in crate::worker) deadline: Option<Timestamp>,
    /// Whether the step may take its time.
    pub(in crate::worker) pace: Pace,
}

impl Target {
    /// Carries out `step`. `image`: the image of the container to be started.
    pub(in crate::worker) async fn execute(
        &self,
        step: Step,
        image: Option<PresentImage>,
    ) -> Outcome {
        match step {
            Step::EnsureCgroup => Outcome::Cgroup(self.ensure_cgroup().await),
            Step::MountVolumes => Outcome::Volumes(self.mount_volumes().await),
            Step::CreateSandbox { attempt, replaces } => {
                Outcome::Sandbox(self.create_sandbox(attempt, replaces).await)
            }
            Step::PullImage { container } => self.pull(container).await,
            Step::StartContainer {
                container,
                attempt,
                backoff,
            } => {
                let result = self.start(&container, attempt, backoff, image).await;
                self.report_start(container, result)
            }
            Step::StartCreated { container, id } => {
                let result = self.start_created(&container, &id).await;
                self.report_start(container, result)
            }
            Step::Resize { updates, from, aim } => self.resize(updates, from, aim).await,
            Step::StopContainers(stops) => self.stop_containers(stops).await,
            Step::StopSandbox(id) => Outcome::SandboxStopped {
                result: told(self.deps.sandboxes.stop_sandbox(&id).await),
                id,
            },
            Step::UnmountVolumes => {
                let result = self.deps.volumes.tear_down(&self.desired.uid).await;
                Outcome::VolumesUnmounted(told(result))
            }
            Step::RemoveCgroup => {
                Outcome::CgroupRemoved(told(self.deps.cgroups.remove(&self.desired.uid).await))
            }
            Step::RemoveContainer(id) => Outcome::ContainerRemoved {
                result: told(self.deps.sandboxes.remove_container(&id).await),
                id,
            },
            Step::RemoveSandbox(id) => Outcome::SandboxRemoved {
                result: told(self.deps.sandboxes.remove_sandbox(&id).await),
                id,
            },
            Step::RemoveTraces => Outcome::TracesRemoved(self.remove_traces().await),
        }
    }

    async fn ensure_cgroup(&self) -> Result<(), String> {
        let Some(cgroup) = qos::pod_cgroup(&self.desired, &self.deps.node) else {
            return Ok(());
        };
        let result = told(self.deps.cgroups.ensure(&cgroup).await);
        if let Err(message) = &result {
            self.warn(
                "FailedCreatePodContainer",
                format!("unable to ensure pod container exists: {message}"),
            );
        }
        result
    }

    async fn mount_volumes(&self) -> Result<MountedVolumes, String> {
        let error = match self.deps.volumes.ensure(&self.desired).await {
            Ok(mounted) => return Ok(mounted),
            Err(error) => error,
        };
        // Tools look for upstream's blank before the colon.
        let message = match std::error::Error::source(&error) {
            Some(cause) => format!("{error} : {}", chain(cause)),
            None => error.to_string(),
        };
        self.warn("FailedMount", message.clone());
        Err(message)
    }

    async fn create_sandbox(&self, attempt: u32, replaces: bool) -> Result<(), String> {
        if replaces {
            self.event(
                Severity::Normal,
                "SandboxChanged",
                "Pod sandbox changed, it will be killed and re-created.".into(),
            );
        }
        let result = self.run_sandbox(attempt).await;
        self.deps.metrics.sandbox(&result);
        match result {
            Ok(_) => Ok(()),
            Err(message) => {
                self.warn(
                    "FailedCreatePodSandBox",
                    format!("Failed to create pod sandbox: {message}"),
                );
                Err(message)
            }
        }
    }

    async fn run_sandbox(&self, attempt: u32) -> Result<SandboxId, String> {
        let runtime = self.new_runtime().await?;
        let node = self.node();
        let spec = render::sandbox(&self.desired, attempt, &runtime, &node)
            .map_err(|error| error.message)?;
        for warning in dns::render(&self.desired, &node).1 {
            self.warn(warning.reason(), warning.message());
            if let Some(message) = warning.node_message() {
                self.deps.events.record_node(NodeEvent {
                    severity: Severity::Warning,
                    reason: warning.reason(),
                    message: message.to_owned(),
                });
            }
        }
        let run = self.deps.sandboxes.run_sandbox(&spec);
        told(self.deps.start_turns.take(run).await)
    }

    /// The node with its resolver settings of now, which a DHCP client may have
    /// changed since the start.
    fn node(&self) -> NodeFacts {
        let mut node = NodeFacts::clone(&self.deps.node);
        if let Some(host) = (self.deps.resolver)() {
            node.dns.host = host;
        }
        node
    }

    async fn remove_traces(&self) -> Result<(), String> {
        let pod = &self.desired;
        told(
            self.deps
                .sandboxes
                .remove_pod_logs(&pod.uid, &pod.name)
                .await,
        )?;
        told(self.deps.volumes.remove_pod_directory(&pod.uid).await)
    }

    // === events ===

    pub(in crate::worker) fn warn(&self, reason: &'static str, message: String) {
        self.event(Severity::Warning, reason, message);
    }

    pub(in crate::worker) fn event(
        &self,
        severity: Severity,
        reason: &'static str,
        message: String,
    ) {
        self.deps.events.record_pod(PodEvent {
            pod: self.desired.pod.clone(),
            container: None,
            severity,
            reason,
            message,
        });
    }

    pub(in crate::worker) fn container_event(
        &self,
        container: &str,
        severity: Severity,
        reason: &'static str,
        message: String,
    ) {
        self.deps.events.record_pod(PodEvent {
            pod: self.desired.pod.clone(),
            container: Some(reference(&self.desired.pod, container)),
            severity,
            reason,
            message,
        });
    }
}

impl From<RenderError> for StartFailure {
    fn from(error: RenderError) -> Self {
        Self {
            reason: error.reason,
            message: error.message,
        }
    }
}

/// An error in the words that go into memory, events and views.
fn told<T, E: std::error::Error>(result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| chain(&error).to_string())
}

fn failure(reason: WaitingReason, error: &RuntimeError) -> StartFailure {
    StartFailure {
        reason,
        message: chain(error).to_string(),
    }
}

fn config_error(message: String) -> StartFailure {
    StartFailure {
        reason: WaitingReason::CreateContainerConfigError,
        message,
    }
}

fn no_such_container(name: &str) -> StartFailure {
    config_error(format!("the pod has no container \"{name}\""))
}
