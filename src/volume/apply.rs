//! [`HostVolumes`]: the [`Volumes`] of this host.
//!
//! Each verb takes the pod's lock, gathers what it needs from the API server
//! and then works on a blocking thread. The lock goes to that thread: a verb
//! that its caller gave up on is still finished, or failed, before the next one
//! on the same pod begins.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::{OwnedMutexGuard, watch};

use super::fetch::Fetcher;
use super::layout::{self, PodLayout};
use super::payload::{Fetched, Needs, fs_group, payload};
use super::plan::{VolumeKind, VolumeSetup, plan};
use super::port::{ContainerFilesRequest, EnvFileRequest, Volumes};
use super::setup::{Prepared, PreparedKind, SetUp};
use super::tokens::TokenCache;
use super::{VolumeError, clean, container_files, env_file, user_namespace};
use crate::apiserver::{Changes, Following, ObjectName, ObjectRefs, Tokens};
use crate::pod::downward;
use crate::pod::facts::ComputeResources;
use crate::pod::inputs::{ContainerFiles, MountedVolumes};
use crate::pod::userns::{IdMapping, IdRange};
use crate::pod::{DesiredPod, PodUid};

/// Tells the time; a fixed one in tests.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What volumes need to know about this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeSettings {
    /// `--root-dir`; pods are in `pods/` below it.
    pub root_dir: PathBuf,
    /// Bounds tmpfs volumes, and is what `resourceFieldRef` shows for a limit
    /// that is not set.
    pub allocatable: ComputeResources,
    /// Where the users of pods with a user namespace are.
    pub id_range: IdRange,
}

/// Volumes below the root directory of this host.
pub struct HostVolumes {
    settings: VolumeSettings,
    fetcher: Fetcher,
    clock: Clock,
    /// One record per pod that was ever asked for and not removed since.
    pods: Mutex<BTreeMap<PodUid, Slot>>,
    /// Held while a block of IDs is chosen, so that no two pods get the same.
    id_choice: Arc<tokio::sync::Mutex<()>>,
}

/// What belongs to one pod.
#[derive(Debug, Clone, Default)]
struct Slot {
    /// Locked for as long as a verb works on the pod.
    record: Arc<tokio::sync::Mutex<Record>>,
    /// Of what its volumes show.
    changes: Changes,
}

/// What is remembered of a pod's volumes. All of it can be lost: a new process
/// begins without.
#[derive(Debug, Default)]
struct Record {
    tokens: TokenCache,
    /// Volumes that show old contents because new ones could not be had.
    stale: BTreeSet<String>,
    /// The objects that its volumes show.
    followed: BTreeMap<ObjectName, Following>,
}

impl HostVolumes {
    #[must_use]
    pub fn new(
        settings: VolumeSettings,
        tokens: Arc<dyn Tokens>,
        objects: Arc<dyn ObjectRefs>,
    ) -> Self {
        Self::with_clock(settings, tokens, objects, Arc::new(Timestamp::now))
    }

    /// Like [`HostVolumes::new`], with another clock than the system's.
    #[must_use]
    pub fn with_clock(
        settings: VolumeSettings,
        tokens: Arc<dyn Tokens>,
        objects: Arc<dyn ObjectRefs>,
        clock: Clock,
    ) -> Self {
        Self {
            settings,
            fetcher: Fetcher { tokens, objects },
            clock,
            pods: Mutex::default(),
            id_choice: Arc::default(),
        }
    }

    fn layout(&self, uid: &PodUid) -> Result<PodLayout, VolumeError> {
        PodLayout::new(&self.settings.root_dir, uid)
    }

    /// Waits until no other verb works on this pod.
    async fn lock(&self, uid: &PodUid) -> OwnedMutexGuard<Record> {
        self.slot(uid).record.lock_owned().await
    }

    fn slot(&self, uid: &PodUid) -> Slot {
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        pods.entry(uid.clone()).or_default().clone()
    }

    /// Drops the record of a pod unless somebody waits for it.
    fn forget(&self, uid: &PodUid) {
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        if pods
            .get(uid)
            .is_some_and(|slot| Arc::strong_count(&slot.record) == 1)
        {
            pods.remove(uid);
        }
    }

    /// Joins the plan with the contents that were fetched for it.
    fn prepare(
        &self,
        pod: &DesiredPod,
        setups: Vec<VolumeSetup>,
        fetched: &Fetched,
    ) -> Vec<Prepared> {
        let prepare = |VolumeSetup { name, kind }| Prepared {
            name,
            kind: match kind {
                VolumeKind::EmptyDir { medium } => PreparedKind::EmptyDir(medium),
                VolumeKind::HostPath { path, check } => PreparedKind::HostPath { path, check },
                VolumeKind::Files(files) => PreparedKind::Files {
                    kind: files.kind,
                    medium: files.medium,
                    contents: payload(&files, fetched, &pod.pod, &self.settings.allocatable),
                },
            },
        };
        setups.into_iter().map(prepare).collect()
    }
}

#[async_trait]
impl Volumes for HostVolumes {
    async fn ensure(&self, pod: &DesiredPod) -> Result<MountedVolumes, VolumeError> {
        let layout = self.layout(&pod.uid)?;
        let setups = plan(&pod.pod, &self.settings.allocatable)?;
        let mut needs = Needs::default();
        for setup in &setups {
            if let VolumeKind::Files(files) = &setup.kind {
                needs.add(files);
            }
        }
        let Slot { record, changes } = self.slot(&pod.uid);
        let mut record = record.lock_owned().await;
        self.fetcher
            .follow(pod, &needs, &mut record.followed, &changes);
        // Counted before anything is read: what changes later shows as news.
        let heard = changes.count();
        let now = (self.clock)();
        let fetch = self.fetcher.fetch(pod, needs, &mut record.tokens, now);
        let (fetched, token_refresh) = fetch.await;
        let prepared = self.prepare(pod, setups, &fetched);
        let fs_group = fs_group(&pod.pod);
        let mut mounted = blocking(move || {
            let set_up = SetUp {
                layout: &layout,
                fs_group,
                now,
                stale: &mut record.stale,
            };
            set_up.run(prepared)
        })
        .await?;
        let times = [mounted.refresh_at, token_refresh];
        mounted.refresh_at = times.into_iter().flatten().min();
        mounted.changes = heard;
        mounted.shown = downward::shown(&pod.pod);
        Ok(mounted)
    }

    fn changes(&self, uid: &PodUid) -> watch::Receiver<u64> {
        self.slot(uid).changes.subscribe()
    }

    async fn container_files(
        &self,
        request: &ContainerFilesRequest,
    ) -> Result<ContainerFiles, VolumeError> {
        let layout = self.layout(&request.uid)?;
        let record = self.lock(&request.uid).await;
        let request = request.clone();
        blocking(move || {
            let files = container_files::write(&layout, &request);
            drop(record);
            files
        })
        .await
    }

    async fn id_mapping(&self, uid: &PodUid) -> Result<IdMapping, VolumeError> {
        let layout = self.layout(uid)?;
        let VolumeSettings {
            root_dir, id_range, ..
        } = self.settings.clone();
        let record = self.lock(uid).await;
        let choice = self.id_choice.clone().lock_owned().await;
        blocking(move || {
            let mapping = user_namespace::id_mapping(&root_dir, &layout, &id_range);
            drop((choice, record));
            mapping
        })
        .await
    }

    async fn env_file(&self, request: &EnvFileRequest) -> Result<Option<Vec<u8>>, VolumeError> {
        let record = self.lock(&request.uid).await;
        let request = request.clone();
        blocking(move || {
            let bytes = env_file::read(&request);
            drop(record);
            bytes
        })
        .await
    }

    async fn tear_down(&self, uid: &PodUid) -> Result<(), VolumeError> {
        let layout = self.layout(uid)?;
        let mut record = self.lock(uid).await;
        record.tokens.clear();
        record.stale.clear();
        record.followed.clear();
        blocking(move || {
            let done = clean::tear_down(&layout).and_then(|()| user_namespace::release(&layout));
            drop(record);
            done
        })
        .await
    }

    async fn remove_pod_directory(&self, uid: &PodUid) -> Result<(), VolumeError> {
        let layout = self.layout(uid)?;
        let record = self.lock(uid).await;
        blocking(move || {
            let done = clean::remove_pod_directory(&layout);
            drop(record);
            done
        })
        .await?;
        self.forget(uid);
        Ok(())
    }

    async fn pods_on_disk(&self) -> Result<Vec<PodUid>, VolumeError> {
        let pods = layout::pods(&self.settings.root_dir);
        blocking(move || clean::pods_on_disk(&pods)).await
    }
}

/// Runs work on a blocking thread. A panic there goes on here.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, VolumeError> + Send + 'static,
) -> Result<T, VolumeError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(VolumeError::Interrupted),
        },
    }
}
