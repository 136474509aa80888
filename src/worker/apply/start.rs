//! Starting a container: what it refers to, its files, its configuration.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Container;

use super::{Target, config_error, failure, no_such_container};
use crate::error::chain;
use crate::pod::containers::{find, find_ephemeral, kind_of};
use crate::pod::inputs::{ContainerFiles, EnvFile, ResolvedRefs};
use crate::pod::plan::NextAttempt;
use crate::pod::render::{self, ContainerInput};
use crate::pod::spec::PresentImage;
use crate::pod::{ContainerId, Severity, WaitingReason, env, hosts};
use crate::volume::{ContainerFilesRequest, EnvFileRequest, TerminationLog};
use crate::worker::step::{Outcome, StartFailure};

impl Target {
    pub(super) async fn start(
        &self,
        name: &str,
        attempt: NextAttempt,
        backoff: Option<Duration>,
        image: Option<PresentImage>,
    ) -> Result<(), StartFailure> {
        let deps = &self.deps;
        let container = find(&self.desired.pod, name).ok_or_else(|| no_such_container(name))?;
        let container = container.as_ref();
        let sandbox = self
            .observed
            .ready_sandbox()
            .ok_or_else(|| config_error("the pod has no sandbox".into()))?;
        let image = image.ok_or_else(|| config_error("the image is not known".into()))?;
        let process_target = self.process_target(name)?;
        let refs = self.resolve_refs(container).await?;
        let attempt = match attempt {
            NextAttempt::Number(attempt) => attempt,
            NextAttempt::FromLogs => deps
                .sandboxes
                .last_logged_attempt(&self.desired.uid, &self.desired.name, name)
                .await
                .map_or(0, |last| last.saturating_add(1)),
        };
        let runtime = self
            .runtime(sandbox.runtime_handler.clone())
            .await
            .map_err(config_error)?;
        let no_files = ContainerFiles::default();
        let input = ContainerInput {
            pod: &self.desired,
            container,
            process_target: process_target.as_ref(),
            attempt,
            backoff,
            image: &image,
            sandbox_ips: &sandbox.ips,
            volumes: &self.volumes,
            files: &no_files,
            refs: &refs,
            runtime: &runtime,
            node: &deps.node,
        };
        let files = self.write_files(&input).await?;
        let spec = render::container(&ContainerInput {
            files: &files,
            ..input
        })?;
        let sandbox_spec = render::sandbox(&self.desired, sandbox.attempt, &runtime, &self.node())?;
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

    /// The instance whose processes an ephemeral container asks to see.
    fn process_target(&self, name: &str) -> Result<Option<ContainerId>, StartFailure> {
        let ephemeral = find_ephemeral(&self.desired.pod, name);
        let target = ephemeral.and_then(|container| container.target_container_name.as_deref());
        let Some(target) = target.filter(|target| !target.is_empty()) else {
            return Ok(None);
        };
        let instance = self
            .observed
            .newest(target)
            .ok_or_else(|| config_error(format!("unable to find target container {target}")))?;
        Ok(Some(instance.id.clone()))
    }

    /// The files that a container gets beside its volumes, and what it mounts
    /// of these in part.
    async fn write_files(
        &self,
        input: &ContainerInput<'_>,
    ) -> Result<ContainerFiles, StartFailure> {
        let deps = &self.deps;
        let container = input.container;
        let request = ContainerFilesRequest {
            uid: self.desired.uid.clone(),
            container: container.name.clone(),
            etc_hosts: hosts::render(
                &self.desired,
                container,
                input.sandbox_ips,
                &(deps.etc_hosts)(),
                &deps.node.dns.cluster_domain,
            ),
            termination_log: match container.termination_message_path.as_deref() {
                None | Some("") => TerminationLog::NotWanted,
                Some(_) => TerminationLog::Wanted,
            },
            sub_paths: render::sub_paths(input)?,
        };
        let files = deps.volumes.container_files(&request).await;
        files.map_err(|error| config_error(chain(&error).to_string()))
    }

    pub(super) async fn start_created(
        &self,
        name: &str,
        id: &ContainerId,
    ) -> Result<(), StartFailure> {
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
        self.post_start(name, id).await
    }

    pub(super) fn report_start(
        &self,
        container: String,
        result: Result<(), StartFailure>,
    ) -> Outcome {
        let failure = result.as_ref().err().map(|failure| failure.reason);
        let kind = kind_of(&self.desired.pod, &container);
        self.deps.metrics.container(kind, failure);
        if let Err(failure) = &result
            && failure.reason != WaitingReason::PostStartHookError
        {
            self.start_failed(&container, &failure.message);
        }
        Outcome::Start { container, result }
    }

    /// The objects that the environment refers to. What does not exist is left
    /// out; whether that matters is for the renderer to say.
    async fn resolve_refs(&self, container: &Container) -> Result<ResolvedRefs, StartFailure> {
        let wanted = render::refs(&self.desired.pod);
        let namespace = &self.desired.name.namespace;
        let objects = &self.deps.objects;
        let unreadable = |error| config_error(chain(&error).to_string());
        let mut refs = ResolvedRefs {
            service_env: self.service_env()?,
            files: self.env_files(container).await?,
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

    /// The files that variables come from. One that is not there is left out.
    async fn env_files(
        &self,
        container: &Container,
    ) -> Result<BTreeMap<EnvFile, String>, StartFailure> {
        let mut texts = BTreeMap::new();
        for file in env::files(container) {
            let volume = self.volumes.volumes.get(&file.volume).ok_or_else(|| {
                config_error(format!(
                    "cannot find the volume {:?} referenced by FileKeyRef",
                    file.volume
                ))
            })?;
            let request = EnvFileRequest {
                uid: self.desired.uid.clone(),
                file: file.clone(),
                volume_path: volume.host_path.clone(),
            };
            let bytes = self.deps.volumes.env_file(&request).await;
            let bytes = bytes.map_err(|error| config_error(chain(&error).to_string()))?;
            let Some(bytes) = bytes else { continue };
            let text = String::from_utf8(bytes)
                .map_err(|_| config_error(format!("env file {:?} is not text", file.path)))?;
            texts.insert(file, text);
        }
        Ok(texts)
    }

    fn service_env(&self) -> Result<Vec<(String, String)>, StartFailure> {
        let services = self.deps.services.borrow();
        let Some(services) = services.as_ref() else {
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
        Ok(services.env(namespace, links))
    }
}
