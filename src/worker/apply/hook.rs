//! Lifecycle hooks of containers.
//!
//! A post-start hook is part of the start: until it is over, nobody is told that
//! the container runs, and no container after it is started. It has no limit of
//! its own and is given up when the pod ends, its deadline passes, or the agent
//! shuts down. One that an earlier process left unfinished counts as done: its
//! command may have had its effect, and nobody can tell.

use std::time::Duration;

use tracing::{info, warn};

use super::Target;
use crate::error::chain;
use crate::pod::containers::{find, host_network, termination_grace};
use crate::pod::hook::{self, Hook, HttpHook};
use crate::pod::plan::{self, StopReason};
use crate::pod::probe::PortError;
use crate::pod::probe::http::{HttpGet, Scheme};
use crate::pod::{ContainerId, Severity, WaitingReason};
use crate::runtime::ExecError;
use crate::worker::handler::http::{self, HttpError};
use crate::worker::step::StartFailure;

/// How much of a command's output is told.
const OUTPUT_BYTES: usize = 1024;

/// Why a hook did not do its work.
#[derive(Debug, thiserror::Error)]
pub(super) enum HookError {
    /// Neither a command nor a request nor a sleep. In upstream's words.
    #[error("invalid handler")]
    Invalid,
    #[error("the pod has no address for the hook's request")]
    NoAddress,
    #[error("the hook's request has no port")]
    Port(#[source] PortError),
    #[error("the hook's request failed")]
    Request(#[source] HttpError),
    #[error("the hook's command could not be run")]
    Command(#[source] ExecError),
    #[error("the hook's command ended with exit code {code}: {output:?}")]
    Exit { code: i32, output: String },
}

impl Target {
    /// Carries out a container's hook, for as long as it takes. Dropping it
    /// ends a command or a request.
    pub(super) async fn run_hook(&self, id: &ContainerId, hook: &Hook) -> Result<(), HookError> {
        match hook {
            Hook::Exec { command } => self.hook_command(id, command).await,
            Hook::HttpGet(hook) => self.hook_request(hook).await,
            Hook::Sleep(time) => {
                tokio::time::sleep(*time).await;
                Ok(())
            }
            Hook::Invalid => Err(HookError::Invalid),
        }
    }

    async fn hook_command(&self, id: &ContainerId, command: &[String]) -> Result<(), HookError> {
        let ran = self.deps.streaming.exec_sync(id, command, None).await;
        let output = ran.map_err(HookError::Command)?;
        if output.exit_code == 0 {
            return Ok(());
        }
        let mut text = output.stdout;
        text.extend(output.stderr);
        text.truncate(OUTPUT_BYTES);
        Err(HookError::Exit {
            code: output.exit_code,
            output: String::from_utf8_lossy(&text).into_owned(),
        })
    }

    async fn hook_request(&self, hook: &HttpHook) -> Result<(), HookError> {
        let address = match self.pod_address() {
            None if hook.needs_pod_ip() => return Err(HookError::NoAddress),
            address => address.unwrap_or_default(),
        };
        let request = hook.request(&address).map_err(HookError::Port)?;
        let place = request.authority();
        let sent = send(request).await.map_err(HookError::Request)?;
        if sent == Sent::WithoutTls {
            let message = format!(
                "request to HTTPS lifecycle hook {place} got HTTP response, retry with HTTP \
                 succeeded"
            );
            self.warn("LifecycleHTTPFallback", message);
        }
        Ok(())
    }

    /// Where the pod answers: its own address, or the node's if it has none.
    fn pod_address(&self) -> Option<String> {
        let newest = self.observed.sandboxes.first();
        let own = newest.and_then(|sandbox| sandbox.ips.first());
        let node = self.deps.node.host_ips.first();
        let address = match own {
            None if host_network(&self.desired.pod) => node,
            own => own,
        };
        address.map(ToString::to_string)
    }

    /// The post-start hook of a container that was just started. If it fails,
    /// the container is stopped.
    pub(super) async fn post_start(
        &self,
        name: &str,
        id: &ContainerId,
    ) -> Result<(), StartFailure> {
        let container = find(&self.desired.pod, name);
        let Some(hook) = container.as_deref().and_then(hook::post_start) else {
            return Ok(());
        };
        let error = tokio::select! {
            result = self.run_hook(id, &hook) => match result {
                Ok(()) => return Ok(()),
                Err(error) => error,
            },
            () = self.pace.hurried() => {
                info!(container = name, "the post-start hook is given up");
                return Ok(());
            }
            () = self.deadline() => {
                info!(container = name, "the pod's deadline ends its post-start hook");
                return Ok(());
            }
        };
        let message = chain(&error).to_string();
        warn!(container = name, error = %message, "the post-start hook failed");
        self.container_event(
            name,
            Severity::Warning,
            "FailedPostStartHook",
            "PostStartHook failed".into(),
        );
        self.stop_after_failed_hook(name, id).await;
        Err(StartFailure {
            reason: WaitingReason::PostStartHookError,
            message,
        })
    }

    /// Whatever becomes of this, the plan stops a container that still runs
    /// after its hook failed.
    async fn stop_after_failed_hook(&self, name: &str, id: &ContainerId) {
        let pod = &self.desired;
        let observed = match self.deps.observer.refresh(&pod.uid, &pod.name).await {
            Ok(observed) => observed,
            Err(error) => {
                warn!(container = name, error = %chain(&error), "cannot look at the container");
                return;
            }
        };
        let Some(container) = observed.live_containers().find(|c| c.id == *id) else {
            return;
        };
        let grace = termination_grace(&pod.pod);
        let stop = plan::stop(&pod.pod, container, grace, StopReason::PostStartFailed);
        if let Err(error) = self.stop_container(&stop).await {
            warn!(container = name, %error, "cannot stop the container whose hook failed");
        }
    }

    /// Completes when the pod's time is up.
    async fn deadline(&self) {
        let Some(at) = self.deadline else {
            return std::future::pending().await;
        };
        let left = Duration::try_from(at.duration_since((self.deps.clock)()));
        tokio::time::sleep(left.unwrap_or(Duration::ZERO)).await;
    }
}

/// How a request was answered in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    AsAsked,
    WithoutTls,
}

/// Any answer will do. A server that turns out not to speak TLS is asked without,
/// and without the credentials that were meant for TLS.
async fn send(request: HttpGet) -> Result<Sent, HttpError> {
    match http::get(&request).await {
        Err(HttpError::PlainAnswer) => {
            http::get(&without_tls(request)).await?;
            Ok(Sent::WithoutTls)
        }
        answer => answer.map(|_| Sent::AsAsked),
    }
}

fn without_tls(request: HttpGet) -> HttpGet {
    let mut request = HttpGet {
        scheme: Scheme::Http,
        ..request
    };
    let is_credential = |name: &str| name.eq_ignore_ascii_case("Authorization");
    request.headers.retain(|(name, _)| !is_credential(name));
    request
}

#[cfg(test)]
mod tests;
