//! One actor per pod, and the manager that starts and forgets them.
//!
//! In: [`DesiredPods`](crate::pod::DesiredPods) snapshots and what the runtime
//! observes. Out: effects through ports, [`StatusUpdate`](crate::status::StatusUpdate)s,
//! events, and a [`PodView`] per pod for people who ask why.
//!
//! A worker repeats: look, [`plan`](crate::pod::plan::plan), carry out what
//! comes first, look again. Image pulls go on beside. It keeps no state that it
//! could not lose.

mod admission;
mod apply;
mod command;
mod handler;
mod haste;
mod heartbeat;
mod manager;
mod memory;
mod metrics;
mod pod;
mod probe;
mod step;
#[cfg(test)]
mod tests;
mod turns;
mod view;

use std::sync::Arc;

use jiff::Timestamp;

pub use admission::{Admission, AdmissionDeps};
pub use command::{COMMANDS, PodCommand};
pub use heartbeat::Heartbeat;
pub use manager::{Manager, PodsView, WorkerEntry};
pub use metrics::{Metrics, register_gauges};
pub use probe::{ProbeMetrics, Probing};
pub use turns::StartTurns;
pub use view::{AdmissionView, PodView};

use crate::apiserver::{EventRecorder, ObjectRefs, ServiceFeed};
use crate::cgroup::PodCgroups;
use crate::pod::NodeFacts;
use crate::pod::spec::DnsSpec;
use crate::runtime::{Images, Observer, Sandboxes, Streaming};
use crate::status::StatusHandle;
use crate::volume::Volumes;

/// The ports and facts that every worker uses.
pub struct WorkerDeps {
    pub sandboxes: Arc<dyn Sandboxes>,
    pub images: Arc<dyn Images>,
    /// Commands in containers, for probes and hooks.
    pub streaming: Arc<dyn Streaming>,
    pub observer: Arc<dyn Observer>,
    pub volumes: Arc<dyn Volumes>,
    pub cgroups: Arc<dyn PodCgroups>,
    pub objects: Arc<dyn ObjectRefs>,
    /// Services whose addresses go into environments; `None` until the API
    /// server has delivered them, and for ever when there is none.
    pub services: ServiceFeed,
    /// Decides which pods may start.
    pub admission: Arc<Admission>,
    pub status: StatusHandle,
    pub events: EventRecorder,
    pub metrics: Metrics,
    pub start_turns: StartTurns,
    pub probing: Probing,
    pub node: Arc<NodeFacts>,
    /// The node's own resolver settings of now; `None`: those of the start.
    pub resolver: Arc<dyn Fn() -> Option<DnsSpec> + Send + Sync>,
    /// The node's own `/etc/hosts`, for host-network pods.
    pub etc_hosts: Arc<dyn Fn() -> String + Send + Sync>,
    pub clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}
