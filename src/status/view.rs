//! The newest status of each pod, for those who show it.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::PodStatus;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::StatusHandle;
use crate::pod::{DesiredPods, PodUid};

type Statuses = Arc<BTreeMap<PodUid, Arc<PodStatus>>>;

/// Read handle: statuses as the workers computed them, whether or not the API
/// server has heard of them.
#[derive(Debug, Clone)]
pub struct StatusView {
    statuses: watch::Receiver<Statuses>,
}

impl StatusView {
    /// The status of one pod, if a worker has reported it.
    #[must_use]
    pub fn get(&self, uid: &PodUid) -> Option<Arc<PodStatus>> {
        self.statuses.borrow().get(uid).cloned()
    }

    /// All statuses, and a signal of each change.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<BTreeMap<PodUid, Arc<PodStatus>>>> {
        self.statuses.clone()
    }

    /// All statuses at this moment.
    #[must_use]
    pub fn all(&self) -> Arc<BTreeMap<PodUid, Arc<PodStatus>>> {
        self.statuses.borrow().clone()
    }
}

/// The one writer of a [`StatusView`].
#[derive(Debug)]
pub(super) struct ViewWriter {
    statuses: watch::Sender<Statuses>,
}

impl ViewWriter {
    pub(super) fn new() -> (Self, StatusView) {
        let (writer, reader) = watch::channel(Statuses::default());
        (Self { statuses: writer }, StatusView { statuses: reader })
    }

    pub(super) fn set(&self, uid: PodUid, status: Arc<PodStatus>) {
        self.statuses.send_modify(|statuses| {
            Arc::make_mut(statuses).insert(uid, status);
        });
    }

    pub(super) fn retain(&self, mut is_kept: impl FnMut(&PodUid) -> bool) {
        self.statuses.send_if_modified(|statuses| {
            if statuses.keys().all(&mut is_kept) {
                return false;
            }
            Arc::make_mut(statuses).retain(|uid, _| is_kept(uid));
            true
        });
    }
}

/// Status pipeline of an agent without API server: nothing is sent, the view is
/// kept, and pods that nobody desires any more are forgotten.
#[derive(Debug)]
pub struct StandaloneStatus {
    updates: StatusHandle,
    desired: watch::Receiver<DesiredPods>,
    view: ViewWriter,
}

impl StandaloneStatus {
    #[must_use]
    pub fn new(updates: StatusHandle, desired: watch::Receiver<DesiredPods>) -> (Self, StatusView) {
        let (writer, view) = ViewWriter::new();
        let task = Self {
            updates,
            desired,
            view: writer,
        };
        (task, view)
    }

    /// Drains the updates until shutdown.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                updates = self.updates.take() => {
                    for (uid, update) in updates {
                        self.view.set(uid, update.status);
                    }
                }
                Ok(()) = self.desired.changed() => {}
            }
            let desired = self.desired.borrow().pods.clone();
            self.view.retain(|uid| desired.contains_key(uid));
        }
    }
}
