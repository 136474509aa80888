//! The ports but `Streaming`, over a [`FakeRuntime`]'s memory.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::{Call, FakeRuntime, exit};
use crate::pod::observed::ContainerStamp;
use crate::pod::spec::{
    ContainerSpec, ImageId, ImageRequest, LinuxResources, NamespaceMode, PresentImage, PullPolicy,
    RunAs, SandboxSpec,
};
use crate::pod::{
    ContainerId, ContainerState, ObservedContainer, ObservedPod, ObservedSandbox, PodName, PodUid,
    SandboxId, SandboxState, WaitingReason,
};
use crate::runtime::{
    DiskUsage, ImageDisk, ImageError, ImageProgressEvent, Images, KnownPods, Observer,
    RunningPulls, RuntimeError, RuntimeHealth, Sandboxes, Usage,
};

/// Size reported for every image, bytes.
const IMAGE_SIZE: u64 = 1024;

impl FakeRuntime {
    pub(super) fn sandbox_owner(&self, id: &SandboxId) -> Option<(PodUid, PodName)> {
        self.state()
            .owner(|pod| pod.sandboxes.iter().any(|s| s.id == *id))
    }

    pub(super) fn container_owner(&self, id: &ContainerId) -> Option<(PodUid, PodName)> {
        self.state()
            .owner(|pod| pod.containers.iter().any(|c| c.id == *id))
    }

    /// `namespace/name/container`, or the bare ID of what is gone.
    pub(super) fn container_subject(&self, id: &ContainerId) -> String {
        let Some((uid, name)) = self.container_owner(id) else {
            return id.0.clone();
        };
        let pod = self.pod(&uid);
        let container = pod.containers.iter().find(|c| c.id == *id);
        container.map_or_else(|| id.0.clone(), |c| format!("{name}/{}", c.name))
    }

    pub(super) fn sandbox_subject(&self, id: &SandboxId) -> String {
        self.sandbox_owner(id)
            .map_or_else(|| id.0.clone(), |(_, name)| name.to_string())
    }

    /// Ends a container that runs; one that does not is left alone.
    fn end(&self, id: &ContainerId, code: i32) {
        let now = self.now();
        let Some((uid, name)) = self.container_owner(id) else {
            return;
        };
        self.change(&uid, &name, |pod| {
            for container in pod.containers.iter_mut().filter(|c| c.id == *id) {
                if let ContainerState::Running { started_at } = container.state {
                    container.state = ContainerState::Exited(exit(code, Some(started_at), now));
                }
            }
        });
    }
}

#[async_trait]
impl Sandboxes for FakeRuntime {
    async fn run_sandbox(&self, spec: &SandboxSpec) -> Result<SandboxId, RuntimeError> {
        let aftermath = self.begin(Call::RunSandbox, spec.name.to_string()).await?;
        let number = self.state().next_id();
        let id = SandboxId(format!("sandbox-{number}"));
        let host_network = spec.namespaces.network == NamespaceMode::Node;
        let sandbox = ObservedSandbox {
            id: id.clone(),
            attempt: spec.attempt,
            state: SandboxState::Ready,
            created_at: self.now(),
            ips: if host_network {
                Vec::new()
            } else {
                let [_, _, high, low] = number.to_be_bytes();
                vec![IpAddr::V4(Ipv4Addr::new(10, 0, high, low))]
            },
            host_network,
            runtime_handler: spec.runtime_handler.clone(),
        };
        self.change(&spec.uid, &spec.name, |pod| pod.sandboxes.push(sandbox));
        aftermath.finish(id)
    }

    async fn stop_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        let aftermath = self
            .begin(Call::StopSandbox, self.sandbox_subject(id))
            .await?;
        let now = self.now();
        if let Some((uid, name)) = self.sandbox_owner(id) {
            self.change(&uid, &name, |pod| {
                for sandbox in pod.sandboxes.iter_mut().filter(|s| s.id == *id) {
                    sandbox.state = SandboxState::NotReady;
                }
                for container in pod.containers.iter_mut().filter(|c| c.sandbox == *id) {
                    if let ContainerState::Running { started_at } = container.state {
                        container.state = ContainerState::Exited(exit(137, Some(started_at), now));
                    }
                }
            });
        }
        aftermath.finish(())
    }

    async fn remove_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        let aftermath = self
            .begin(Call::RemoveSandbox, self.sandbox_subject(id))
            .await?;
        if let Some((uid, name)) = self.sandbox_owner(id) {
            self.change(&uid, &name, |pod| {
                pod.sandboxes.retain(|s| s.id != *id);
                pod.containers.retain(|c| c.sandbox != *id);
            });
        }
        aftermath.finish(())
    }

    async fn create_container(
        &self,
        sandbox: &SandboxId,
        spec: &ContainerSpec,
        sandbox_spec: &SandboxSpec,
    ) -> Result<ContainerId, RuntimeError> {
        let subject = format!("{}/{}", sandbox_spec.name, spec.name);
        let aftermath = self.begin(Call::CreateContainer, subject).await?;
        if self.sandbox_owner(sandbox).is_none() {
            return Err(super::Fault::NotFound.into_error(Call::CreateContainer));
        }
        let id = ContainerId(format!("container-{}", self.state().next_id()));
        let annotations = spec.annotations.clone().into_iter().collect();
        let container = ObservedContainer {
            id: id.clone(),
            sandbox: sandbox.clone(),
            name: spec.name.clone(),
            attempt: spec.attempt,
            state: ContainerState::Created,
            created_at: self.now(),
            image: spec.user_image.clone(),
            image_ref: spec.image.0.clone(),
            stamp: ContainerStamp::read(&annotations),
            user: None,
        };
        self.change(&sandbox_spec.uid, &sandbox_spec.name, |pod| {
            pod.containers.push(container);
        });
        aftermath.finish(id)
    }

    async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let aftermath = self
            .begin(Call::StartContainer, self.container_subject(id))
            .await?;
        let now = self.now();
        let Some((uid, name)) = self.container_owner(id) else {
            return Err(super::Fault::NotFound.into_error(Call::StartContainer));
        };
        let started = self.change(&uid, &name, |pod| {
            let created = pod
                .containers
                .iter_mut()
                .find(|c| c.id == *id && c.state == ContainerState::Created);
            created.map(|container| {
                container.state = ContainerState::Running { started_at: now };
                container.name.clone()
            })
        });
        let Some(container) = started else {
            let fault = super::Fault::Refused("container is not in created state".to_owned());
            return Err(fault.into_error(Call::StartContainer));
        };
        let exits = self.state().behaviour(&container).exits;
        if let Some((after, code)) = exits {
            let (fake, id) = (self.clone(), id.clone());
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                fake.end(&id, code);
            });
        }
        aftermath.finish(())
    }

    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), RuntimeError> {
        let aftermath = self
            .begin(Call::StopContainer, self.container_subject(id))
            .await?;
        let Some((uid, _)) = self.container_owner(id) else {
            return aftermath.finish(());
        };
        let pod = self.pod(&uid);
        let container = pod.containers.iter().find(|c| c.id == *id);
        let takes = container.map_or(Duration::ZERO, |c| {
            self.state().behaviour(&c.name).stop_takes
        });
        if !takes.is_zero() {
            tokio::time::sleep(takes.min(grace)).await;
        }
        self.end(id, if takes > grace { 137 } else { 143 });
        aftermath.finish(())
    }

    async fn update_container(
        &self,
        id: &ContainerId,
        _resources: &LinuxResources,
    ) -> Result<(), RuntimeError> {
        let aftermath = self
            .begin(Call::UpdateContainer, self.container_subject(id))
            .await?;
        aftermath.finish(())
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let aftermath = self
            .begin(Call::RemoveContainer, self.container_subject(id))
            .await?;
        if let Some((uid, name)) = self.container_owner(id) {
            self.change(&uid, &name, |pod| pod.containers.retain(|c| c.id != *id));
        }
        aftermath.finish(())
    }

    async fn remove_pod_logs(&self, _uid: &PodUid, name: &PodName) -> Result<(), RuntimeError> {
        let aftermath = self.begin(Call::RemovePodLogs, name.to_string()).await?;
        aftermath.finish(())
    }

    async fn last_logged_attempt(
        &self,
        _uid: &PodUid,
        _name: &PodName,
        _container: &str,
    ) -> Option<u32> {
        None
    }
}

#[async_trait]
impl Images for FakeRuntime {
    async fn ensure_image(
        &self,
        request: &ImageRequest,
        progress: &(dyn Fn(ImageProgressEvent) + Send + Sync),
    ) -> Result<PresentImage, ImageError> {
        let pull_error = |error: RuntimeError| ImageError {
            reason: WaitingReason::ErrImagePull,
            message: error.to_string(),
        };
        self.begin(Call::EnsureImage, request.image.clone())
            .await
            .map_err(pull_error)?;
        let present = self.state().images.contains(&request.image);
        let image = PresentImage {
            id: ImageId(format!("sha256:{}", request.image)),
            user: Some(RunAs::Uid(0)),
        };
        if present && request.policy != PullPolicy::Always {
            progress(ImageProgressEvent::AlreadyPresent);
            return Ok(image);
        }
        if request.policy == PullPolicy::Never {
            return Err(ImageError {
                reason: WaitingReason::ErrImageNeverPull,
                message: format!(
                    "Container image \"{}\" is not present with pull policy of Never",
                    request.image
                ),
            });
        }
        progress(ImageProgressEvent::Pulling);
        let begun = tokio::time::Instant::now();
        self.begin(Call::PullImage, request.image.clone())
            .await
            .map_err(pull_error)?;
        let refused = self.state().unpullable.get(&request.image).cloned();
        if let Some(error) = refused {
            return Err(error);
        }
        self.state().images.insert(request.image.clone());
        progress(ImageProgressEvent::Pulled {
            took: begun.elapsed(),
            took_with_wait: begun.elapsed(),
            size: IMAGE_SIZE,
        });
        Ok(image)
    }

    async fn pulls(&self) -> RunningPulls {
        RunningPulls::default()
    }
}

#[async_trait]
impl Observer for FakeRuntime {
    async fn refresh(
        &self,
        uid: &PodUid,
        name: &PodName,
    ) -> Result<Arc<ObservedPod>, RuntimeError> {
        let aftermath = self.begin(Call::Refresh, name.to_string()).await?;
        let now = self.now();
        let pod = self.state().refresh(uid, name, now);
        aftermath.finish(pod)
    }

    fn watch(&self, uid: &PodUid, name: &PodName) -> watch::Receiver<Arc<ObservedPod>> {
        let now = self.now();
        self.state().watch(uid, name, now)
    }

    fn pods(&self) -> watch::Receiver<KnownPods> {
        self.shared.pods.subscribe()
    }

    fn health(&self) -> watch::Receiver<RuntimeHealth> {
        self.shared.health.subscribe()
    }
}

#[async_trait]
impl Usage for FakeRuntime {
    async fn writable_layers(&self) -> Result<Vec<(ContainerId, DiskUsage)>, RuntimeError> {
        let aftermath = self.begin(Call::Usage, "layers".to_owned()).await?;
        let layers = self.state().layers.clone();
        aftermath.finish(layers.into_iter().collect())
    }

    async fn image_disk(&self) -> Result<ImageDisk, RuntimeError> {
        let aftermath = self.begin(Call::Usage, "images".to_owned()).await?;
        let disk = self.state().image_disk.clone();
        aftermath.finish(disk)
    }
}
