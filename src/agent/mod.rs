//! The composition root: makes every handle in dependency order, and runs the
//! long-lived tasks.
//!
//! [`build`] does everything that can fail at start: it checks the machine
//! (`host`), reads credentials and binds listeners (`assembly`).
//! [`Agent::run`] spawns and supervises (`supervise`). Nothing is awaited from
//! the API server or the runtime before that: both may be away, and come when
//! they come.

mod assembly;
mod error;
mod host;
mod metrics;
mod reserved;
mod serve;
mod settings;
mod supervise;
pub mod telemetry;

use tokio::sync::watch;

pub use error::StartError;
pub use serve::Addresses;
pub use supervise::{Agent, shutdown_signals};

use crate::config::Config;
use crate::pod::DesiredPods;
use crate::status::StatusHandle;
use assembly::{Assembly, WorkerInputs};
use host::Host;
use serve::Served;

/// Prepares an agent: who talks to whom.
///
/// # Errors
/// When this machine, or what was configured, cannot carry one. All of these
/// are for a person to mend; a runtime or API server that is away is not one of
/// them.
pub async fn build(config: Config) -> Result<Agent, StartError> {
    let host = Host::prepare(&config).await?;
    let mut agent = Assembly::new(config, host);
    let runtime = agent.runtime();
    agent.log_rotation(&runtime);
    let api = agent.api_server().await?;
    let events = agent.events(api.as_ref());
    let (desired_out, desired) = watch::channel(DesiredPods::default());
    let status = StatusHandle::default();

    let (api_pods, services, node, statuses) = match &api {
        Some(api) => {
            let feeds = agent.feeds(api);
            agent.node(api, feeds.node.clone(), &runtime, events.clone());
            let statuses = agent.reporter(api, &feeds, status.clone(), desired.clone());
            let node = Some((api.clone(), feeds.node));
            (Some(feeds.pods), Some(feeds.services), node, statuses)
        }
        None => {
            let statuses = agent.standalone_status(status.clone(), desired.clone());
            (None, None, None, statuses)
        }
    };
    let manifests = agent.sources(api_pods, desired_out);
    let services = services
        .unwrap_or_else(|| agent.manifest_services(manifests.clone(), desired.clone(), &statuses));
    let workers = agent.workers(WorkerInputs {
        runtime: runtime.clone(),
        api,
        node: node.as_ref().map(|(_, feed)| feed.clone()),
        services,
        status,
        events,
        desired: desired.clone(),
        manifests,
    });
    let (manager, pods) = workers.await;
    agent.explain(pods, runtime.images.clone())?;
    let served = Served {
        runtime,
        desired,
        statuses,
        api: node,
    };
    agent.finish(manager, served).await
}
