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
pub mod proxy_alone;
mod reserved;
mod serve;
mod service_proxy;
mod settings;
mod supervise;
mod systemd;
pub mod telemetry;

use std::sync::Arc;

use tokio::sync::watch;

pub use error::StartError;
pub use serve::Addresses;
pub use supervise::{Agent, shutdown_signals};

use crate::config::Config;
use crate::node::ExtraCondition;
use crate::pod::DesiredPods;
use crate::proxy::presence;
use crate::status::StatusHandle;
use assembly::{Assembly, WorkerInputs};
use host::Host;
use serve::Served;
use service_proxy::Hearing;

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

    let inbox = agent.proxy_inbox();
    let conditions = watch::Sender::new(vec![ExtraCondition::Absent(presence::CONDITION)]);
    let (api_pods, services, node, statuses) = match &api {
        Some(api) => {
            let feeds = agent.feeds(api, inbox.as_ref());
            let conditions = conditions.subscribe();
            agent.node(
                api,
                feeds.node.clone(),
                &runtime,
                events.clone(),
                conditions,
            );
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
    let services = services.unwrap_or_else(|| {
        let proxy = inbox.as_ref();
        agent.manifest_services(manifests.clone(), desired.clone(), &statuses, proxy)
    });
    if let Some(inbox) = inbox {
        let events = events.clone();
        let hearing = Hearing {
            inbox,
            node: node.as_ref().map(|(_, feed)| feed.clone()),
            pods: Some(desired.clone()),
            events: Arc::new(move |event| events.record_proxy(event)),
        };
        agent.service_proxy(hearing, conditions)?;
    }
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
    agent.explain(pods.clone(), runtime.images.clone())?;
    let served = Served {
        runtime,
        desired,
        statuses,
        api: node,
    };
    agent.finish(manager, pods, served).await
}
