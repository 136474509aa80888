//! The write end of the status pipeline. Never blocks and never fails: a
//! worker does not care whether the API server is there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::PodStatus;
use tokio::sync::Notify;

use crate::pod::{DesiredPod, PodUid};

/// A pod's status as its worker sees it now.
#[derive(Debug, Clone)]
pub struct StatusUpdate {
    pub pod: Arc<DesiredPod>,
    pub status: Arc<PodStatus>,
    pub ending: Ending,
}

/// How near its end the pod is; decides what may be told to the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    /// Containers run or may run: a terminal phase is held back.
    Live,
    /// No container runs any more: a terminal phase may be told.
    Stopped,
    /// Containers stopped, volumes and cgroup gone: an object with a deletion
    /// timestamp may be deleted for good.
    Gone,
}

/// Clonable handle; one entry per pod, latest wins.
#[derive(Debug, Clone, Default)]
pub struct StatusHandle {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    pending: Mutex<BTreeMap<PodUid, StatusUpdate>>,
    changed: Notify,
}

impl StatusHandle {
    /// Replaces whatever was waiting to be sent for this pod.
    pub fn set(&self, update: StatusUpdate) {
        self.lock().insert(update.pod.uid.clone(), update);
        self.shared.changed.notify_one();
    }

    /// Takes all updates that came since the last call, waiting for one.
    /// Nothing is lost if the future is dropped.
    pub(crate) async fn take(&self) -> BTreeMap<PodUid, StatusUpdate> {
        loop {
            let taken = self.take_now();
            if !taken.is_empty() {
                return taken;
            }
            self.shared.changed.notified().await;
        }
    }

    /// Takes what is there, without waiting.
    pub(super) fn take_now(&self) -> BTreeMap<PodUid, StatusUpdate> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<PodUid, StatusUpdate>> {
        // A panic while holding this lock cannot leave the map half-written.
        self.shared
            .pending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
