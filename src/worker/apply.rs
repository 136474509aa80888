//! Carrying out one step: the only place where a worker has effects.
//!
//! Each step is a handful of port calls in a fixed order, and ends in an
//! [`Outcome`]. What to do about a failure is for the next plan to say.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Container;

use super::WorkerDeps;
use super::step::{Outcome, StartFailure};
use crate::error::chain;
use crate::pod::containers::{find, kind_of, reference};
use crate::pod::inputs::{ContainerFiles, MountedVolumes, ResolvedRefs};
use crate::pod::plan::{NextAttempt, Step, StopContainer, StopReason};
use crate::pod::render::{self, ContainerInput, RenderError};
use crate::pod::spec::PresentImage;
use crate::pod::{
    ContainerId, DesiredPod, ObservedPod, PodEvent, Severity, WaitingReason, env, hosts, qos,
};
use crate::runtime::{ImageProgressEvent, RuntimeError};
use crate::volume::{ContainerFilesRequest, TerminationLog};

/// What a step is carried out on.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) deps: Arc<WorkerDeps>,
    pub(super) desired: Arc<DesiredPod>,
    pub(super) observed: Arc<ObservedPod>,
    /// Empty until mounted.
    pub(super) volumes: MountedVolumes,
}

impl Target {
    /// Carries out `step`. `image`: the image of the container to be started.
    pub(super) async fn execute(&self, step: Step, image: Option<PresentImage>) -> Outcome {
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
        let result = match render::sandbox(&self.desired, attempt, &self.deps.node) {
            Ok(spec) => {
                let run = self.deps.sandboxes.run_sandbox(&spec);
                told(self.deps.start_turns.take(run).await)
            }
            Err(error) => Err(error.message),
        };
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

    // === images ===

    async fn pull(&self, container: String) -> Outcome {
        let image = find(&self.desired.pod, &container)
            .and_then(|container| container.image.clone())
            .unwrap_or_default();
        let result = self.ensure_image(&container).await;
        if let Err(failure) = &result {
            self.image_failed(&container, &image, failure);
            self.start_failed(&container, failure.reason.as_str());
        }
        Outcome::Image {
            container,
            image,
            result,
        }
    }

    async fn ensure_image(&self, name: &str) -> Result<PresentImage, StartFailure> {
        let pod = &self.desired.pod;
        let container = find(pod, name).ok_or_else(|| no_such_container(name))?;
        let refs = self.resolve_pull_secrets().await;
        let request = render::image_request(&self.desired, container, &refs)?;
        let progress = |event| self.image_event(name, &request.image, &event);
        self.deps
            .images
            .ensure_image(&request, &progress)
            .await
            .map_err(|error| StartFailure {
                reason: error.reason,
                message: error.message,
            })
    }

    fn image_event(&self, container: &str, image: &str, event: &ImageProgressEvent) {
        let (reason, message) = match event {
            ImageProgressEvent::Pulling => ("Pulling", format!("Pulling image \"{image}\"")),
            ImageProgressEvent::AlreadyPresent => (
                "Pulled",
                format!(
                    "Container image \"{image}\" already present on machine and can be accessed \
                     by the pod"
                ),
            ),
            ImageProgressEvent::Pulled {
                took,
                took_with_wait,
                size,
            } => (
                "Pulled",
                format!(
                    "Successfully pulled image \"{image}\" in {} ({} including waiting). Image \
                     size: {size} bytes.",
                    seconds(*took),
                    seconds(*took_with_wait)
                ),
            ),
        };
        self.container_event(container, Severity::Normal, reason, message);
    }

    fn image_failed(&self, container: &str, image: &str, failure: &StartFailure) {
        let message = &failure.message;
        let (event, text) = match failure.reason {
            WaitingReason::ErrImageNeverPull => ("ErrImageNeverPull", message.clone()),
            WaitingReason::InvalidImageName | WaitingReason::ImageInspectError => {
                ("InspectFailed", message.clone())
            }
            _ => (
                "Failed",
                format!("Failed to pull image \"{image}\": {message}"),
            ),
        };
        self.container_event(container, Severity::Warning, event, text);
    }

    /// The last of the events about a start that failed.
    pub(super) fn start_failed(&self, container: &str, error: &str) {
        let text = format!("Error: {error}");
        self.container_event(container, Severity::Warning, "Failed", text);
    }

    /// Pull secrets that exist and can be read; the others are told of.
    async fn resolve_pull_secrets(&self) -> ResolvedRefs {
        let names = render::refs(&self.desired.pod).pull_secrets;
        let mut refs = ResolvedRefs::default();
        let mut missing = Vec::new();
        for name in names {
            match self
                .deps
                .objects
                .secret(&self.desired.name.namespace, &name)
                .await
            {
                Ok(Some(secret)) => {
                    refs.secrets.insert(name, secret);
                }
                Ok(None) | Err(_) => missing.push(name),
            }
        }
        if !missing.is_empty() {
            self.warn(
                "FailedToRetrieveImagePullSecret",
                format!(
                    "Unable to retrieve some image pull secrets ({}); attempting to pull the \
                     image may not succeed.",
                    missing.join(", ")
                ),
            );
        }
        refs
    }

    // === starting ===

    async fn start(
        &self,
        name: &str,
        attempt: NextAttempt,
        backoff: Option<Duration>,
        image: Option<PresentImage>,
    ) -> Result<(), StartFailure> {
        let deps = &self.deps;
        let container = find(&self.desired.pod, name).ok_or_else(|| no_such_container(name))?;
        let sandbox = self
            .observed
            .ready_sandbox()
            .ok_or_else(|| config_error("the pod has no sandbox".into()))?;
        let image = image.ok_or_else(|| config_error("the image is not known".into()))?;
        let refs = self.resolve_refs().await?;
        let attempt = match attempt {
            NextAttempt::Number(attempt) => attempt,
            NextAttempt::FromLogs => deps
                .sandboxes
                .last_logged_attempt(&self.desired.uid, &self.desired.name, name)
                .await
                .map_or(0, |last| last.saturating_add(1)),
        };
        let files = self.write_files(container, &sandbox.ips).await?;
        let spec = render::container(&ContainerInput {
            pod: &self.desired,
            container,
            attempt,
            backoff,
            image: &image,
            sandbox_ips: &sandbox.ips,
            volumes: &self.volumes,
            files: &files,
            refs: &refs,
            node: &deps.node,
        })?;
        let sandbox_spec = render::sandbox(&self.desired, sandbox.attempt, &deps.node)?;
        let id = deps
            .sandboxes
            .create_container(&sandbox.id, &spec, &sandbox_spec)
            .await
            .map_err(|error| failure(WaitingReason::CreateContainerError, &error))?;
        self.container_event(
            name,
            Severity::Normal,
            "Created",
            "Container created".into(),
        );
        self.start_created(name, &id).await
    }

    /// The files that a container gets beside its volumes.
    async fn write_files(
        &self,
        container: &Container,
        pod_ips: &[IpAddr],
    ) -> Result<ContainerFiles, StartFailure> {
        let deps = &self.deps;
        let request = ContainerFilesRequest {
            uid: self.desired.uid.clone(),
            container: container.name.clone(),
            etc_hosts: hosts::render(
                &self.desired,
                container,
                pod_ips,
                &(deps.etc_hosts)(),
                &deps.node.dns.cluster_domain,
            ),
            termination_log: match container.termination_message_path.as_deref() {
                None | Some("") => TerminationLog::NotWanted,
                Some(_) => TerminationLog::Wanted,
            },
        };
        let files = deps.volumes.container_files(&request).await;
        files.map_err(|error| config_error(chain(&error).to_string()))
    }

    async fn start_created(&self, name: &str, id: &ContainerId) -> Result<(), StartFailure> {
        self.deps
            .sandboxes
            .start_container(id)
            .await
            .map_err(|error| failure(WaitingReason::RunContainerError, &error))?;
        self.container_event(
            name,
            Severity::Normal,
            "Started",
            "Container started".into(),
        );
        Ok(())
    }

    fn report_start(&self, container: String, result: Result<(), StartFailure>) -> Outcome {
        let failure = result.as_ref().err().map(|failure| failure.reason);
        let kind = kind_of(&self.desired.pod, &container);
        self.deps.metrics.container(kind, failure);
        if let Err(failure) = &result {
            self.start_failed(&container, &failure.message);
        }
        Outcome::Start { container, result }
    }

    /// The objects that the environment refers to. What does not exist is left
    /// out; whether that matters is for the renderer to say.
    async fn resolve_refs(&self) -> Result<ResolvedRefs, StartFailure> {
        let wanted = render::refs(&self.desired.pod);
        let namespace = &self.desired.name.namespace;
        let objects = &self.deps.objects;
        let unreadable = |error| config_error(chain(&error).to_string());
        let mut refs = ResolvedRefs {
            service_env: self.service_env()?,
            ..ResolvedRefs::default()
        };
        for name in wanted.config_maps {
            let found = objects.config_map(namespace, &name).await;
            if let Some(map) = found.map_err(unreadable)? {
                refs.config_maps.insert(name, map);
            }
        }
        for name in wanted.secrets {
            let found = objects.secret(namespace, &name).await;
            if let Some(secret) = found.map_err(unreadable)? {
                refs.secrets.insert(name, secret);
            }
        }
        Ok(refs)
    }

    fn service_env(&self) -> Result<Vec<(String, String)>, StartFailure> {
        let Some(services) = self.deps.services.borrow().clone() else {
            return if self.desired.origin.is_static() {
                Ok(Vec::new())
            } else {
                Err(config_error(
                    "services have not yet been read at least once, cannot construct envvars"
                        .into(),
                ))
            };
        };
        let links = self
            .desired
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.enable_service_links)
            .unwrap_or(true);
        let namespace = &self.desired.name.namespace;
        Ok(env::service_env(&services, namespace, links))
    }

    // === stopping ===

    async fn stop_containers(&self, stops: Vec<StopContainer>) -> Outcome {
        let redefined = stops
            .iter()
            .filter(|stop| stop.why == StopReason::DefinitionChanged)
            .map(|stop| stop.name.clone())
            .collect();
        let results = join_all(stops.iter().map(|stop| self.stop_container(stop))).await;
        let errors: Vec<String> = results.into_iter().filter_map(Result::err).collect();
        Outcome::ContainersStopped {
            redefined,
            result: if errors.is_empty() {
                Ok(())
            } else {
                Err(errors.join("; "))
            },
        }
    }

    async fn stop_container(&self, stop: &StopContainer) -> Result<(), String> {
        let message = match stop.why {
            StopReason::PodEnds => format!("Stopping container {}", stop.name),
            StopReason::DefinitionChanged => format!(
                "Container {} definition changed, will be restarted",
                stop.name
            ),
            StopReason::StateUnknown => format!(
                "Container {} is in unknown state, try killing it before restart",
                stop.name
            ),
        };
        self.container_event(&stop.name, Severity::Normal, "Killing", message);
        let result = self
            .deps
            .sandboxes
            .stop_container(&stop.id, stop.grace)
            .await;
        if let Err(error) = &result {
            let text = chain(error).to_string();
            self.warn("FailedKillPod", format!("error killing pod: {text}"));
        }
        told(result)
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

    pub(super) fn warn(&self, reason: &'static str, message: String) {
        self.event(Severity::Warning, reason, message);
    }

    pub(super) fn event(&self, severity: Severity, reason: &'static str, message: String) {
        self.deps.events.record_pod(PodEvent {
            pod: self.desired.pod.clone(),
            container: None,
            severity,
            reason,
            message,
        });
    }

    pub(super) fn container_event(
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

/// A duration as upstream shows one in events, to the millisecond.
fn seconds(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{}ms", duration.as_millis())
    } else {
        format!("{:.3}s", duration.as_secs_f64())
    }
}
