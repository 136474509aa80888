//! One [`Snapshot`] for all who ask at the same time.
//!
//! Nothing is read unless somebody asks. Whoever asks while a collection is
//! under way waits for it; whoever asks shortly after one gets its result. Only
//! the readings that CPU rates need are kept in between.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::disk::{Disk, DiskSettings};
use super::model::{Detail, Snapshot};
use super::place::CgroupNames;
use super::rate::Rates;
use super::read::{CgroupReader, SwapSpace};
use super::survey::{Places, RuntimeDisk, Survey};
use super::target::{PodTarget, target};
use super::{MachineInfo, StatsError};
use crate::cgroup::{CgroupPath, Hierarchy};
use crate::error::chain;
use crate::pod::DesiredPods;
use crate::runtime::{Observer, Usage};

/// The least time between two collections.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// How long the runtime's word on disk usage is good for; containerd itself
/// looks only so often.
const RUNTIME_DISK_PERIOD: Duration = Duration::from_secs(10);
/// How long the runtime is waited for. Without its answer the last one is told,
/// which says itself how old it is.
const RUNTIME_PATIENCE: Duration = Duration::from_secs(5);

/// What statistics are made from.
pub struct CollectorDeps {
    pub settings: StatsSettings,
    pub desired: watch::Receiver<DesiredPods>,
    pub observer: Arc<dyn Observer>,
    pub usage: Arc<dyn Usage>,
}

/// What does not change while the agent runs.
#[derive(Debug, Clone)]
pub struct StatsSettings {
    pub node_name: String,
    pub hierarchy: Hierarchy,
    pub names: CgroupNames,
    pub disk: DiskSettings,
    pub machine: MachineInfo,
    /// `--runtime-cgroups`.
    pub runtime_cgroup: Option<String>,
}

/// Collects on demand. Clonable; clones share what was collected.
#[derive(Clone)]
pub struct Collector {
    shared: Arc<Shared>,
}

struct Shared {
    node_name: String,
    machine: MachineInfo,
    desired: watch::Receiver<DesiredPods>,
    observer: Arc<dyn Observer>,
    usage: Arc<dyn Usage>,
    state: Arc<Mutex<State>>,
    /// Apart from the state, so that who does not need the runtime does not
    /// wait for it.
    runtime_disk: Mutex<Option<(Instant, Arc<RuntimeDisk>)>>,
}

/// What only one collection at a time may use.
struct State {
    survey: Survey,
    last: Option<(Instant, Arc<Snapshot>)>,
}

impl Collector {
    /// # Errors
    /// When a cgroup is named in the settings that is not a path.
    pub fn new(deps: CollectorDeps) -> Result<Self, StatsError> {
        let settings = deps.settings;
        let swap = match settings.machine.swap {
            0 => SwapSpace::None,
            _ => SwapSpace::Some,
        };
        let own = super::survey::own_cgroup(&settings.hierarchy);
        let cgroup = |path: String| CgroupPath::parse(&path).map_err(StatsError::Settings);
        let places = Places {
            agent: own.map(cgroup).transpose()?,
            runtime: settings.runtime_cgroup.map(cgroup).transpose()?,
            names: settings.names,
        };
        let survey = Survey::new(
            CgroupReader::new(&settings.hierarchy, swap),
            Rates::default(),
            Disk::new(settings.disk),
            places,
            settings.machine.memory,
        );
        let state = State { survey, last: None };
        Ok(Self {
            shared: Arc::new(Shared {
                node_name: settings.node_name,
                machine: settings.machine,
                desired: deps.desired,
                observer: deps.observer,
                usage: deps.usage,
                state: Arc::new(Mutex::new(state)),
                runtime_disk: Mutex::default(),
            }),
        })
    }

    #[must_use]
    pub fn node_name(&self) -> &str {
        &self.shared.node_name
    }

    #[must_use]
    pub fn machine(&self) -> &MachineInfo {
        &self.shared.machine
    }

    /// What is used now, or was a moment ago, in at least this detail.
    ///
    /// # Errors
    /// When the machine's own cgroup cannot be read. What is wrong with one pod
    /// leaves that pod's numbers out.
    pub async fn snapshot(&self, detail: Detail) -> Result<Arc<Snapshot>, StatsError> {
        let shared = &self.shared;
        if let Some(snapshot) = shared.state.lock().await.fresh(detail) {
            return Ok(snapshot);
        }
        let runtime_disk = if detail >= Detail::Summary {
            shared.runtime_disk().await
        } else {
            Arc::default()
        };
        let mut state = Arc::clone(&shared.state).lock_owned().await;
        if let Some(snapshot) = state.fresh(detail) {
            return Ok(snapshot);
        }
        let targets = shared.targets();
        // The lock goes along: a caller that vanishes does not make room for a
        // second collection beside the first.
        let work = tokio::task::spawn_blocking(move || state.take(detail, targets, &runtime_disk));
        match work.await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Cancelled: the runtime is shutting down, and the caller with it.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

impl Shared {
    /// What runs, by UID.
    fn targets(&self) -> Vec<PodTarget> {
        let known = self.observer.pods().borrow().clone();
        let desired = Arc::clone(&self.desired.borrow().pods);
        let mut targets: Vec<PodTarget> = known
            .iter()
            .flat_map(|known| known.iter())
            .filter_map(|(uid, name)| {
                let observed = self.observer.watch(uid, name).borrow().clone();
                target(&observed, desired.get(uid).map(AsRef::as_ref))
            })
            .collect();
        targets.sort_by(|a, b| a.uid.cmp(&b.uid));
        targets
    }

    /// The runtime's numbers, asked for anew when they have grown old. A
    /// runtime that does not answer is not asked again for as long either.
    async fn runtime_disk(&self) -> Arc<RuntimeDisk> {
        let mut kept = self.runtime_disk.lock().await;
        let last = match &*kept {
            Some((at, disk)) if at.elapsed() < RUNTIME_DISK_PERIOD => return Arc::clone(disk),
            Some((_, disk)) => Arc::clone(disk),
            None => Arc::default(),
        };
        let ask = async { tokio::try_join!(self.usage.writable_layers(), self.usage.image_disk()) };
        let disk = match timeout(RUNTIME_PATIENCE, ask).await {
            Ok(Ok((layers, images))) => Arc::new(RuntimeDisk {
                layers: layers.into_iter().collect(),
                images,
            }),
            Ok(Err(error)) => {
                debug!(error = %chain(&error), "the runtime does not tell of disk usage");
                last
            }
            Err(_) => {
                debug!("the runtime does not tell of disk usage in time");
                last
            }
        };
        *kept = Some((Instant::now(), Arc::clone(&disk)));
        disk
    }
}

impl State {
    /// The last snapshot, if it is young and rich enough.
    fn fresh(&self, detail: Detail) -> Option<Arc<Snapshot>> {
        let (at, snapshot) = self.last.as_ref()?;
        let serves = at.elapsed() < MIN_INTERVAL && snapshot.detail >= detail;
        serves.then(|| Arc::clone(snapshot))
    }

    fn take(
        &mut self,
        detail: Detail,
        targets: Vec<PodTarget>,
        runtime_disk: &RuntimeDisk,
    ) -> Result<Arc<Snapshot>, StatsError> {
        let at = Instant::now();
        let snapshot = self
            .survey
            .collect(detail, targets, runtime_disk, Timestamp::now())
            .ok_or(StatsError::Root)?;
        let snapshot = Arc::new(snapshot);
        self.last = Some((at, Arc::clone(&snapshot)));
        Ok(snapshot)
    }
}

#[cfg(test)]
mod tests;
