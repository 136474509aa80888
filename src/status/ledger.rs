//! What is still to be told about which pod. No effects; time is an argument.
//!
//! One entry per pod, latest status wins. An entry is idle, held for a moment
//! in case better news come, queued, in flight (at most one call per pod), or
//! waits for a later try. Entries go with their pods, so the ledger is as large
//! as the node is full.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;
use tokio::time::Instant;

use super::pace::{PATIENCE, Pace, pace};
use super::step::fresher;
use super::{Ending, StatusUpdate};
use crate::apiserver::Backoff;
use crate::pod::{DesiredPod, PodUid};

/// Everything known about telling one pod's status.
#[derive(Debug)]
struct Entry {
    update: StatusUpdate,
    progress: Progress,
    /// The API object as the watch shows it; for a static pod its mirror.
    watched: Option<Arc<Pod>>,
    /// The answer to our last call, until the watch has caught up.
    answered: Option<Arc<Pod>>,
    /// A patch that was accepted and changed nothing, as when the API server
    /// writes a quantity in other words than we do.
    futile: Option<Value>,
    doubt: Doubt,
    backoff: Option<Backoff>,
}

/// Where an entry stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Idle,
    /// There is something to tell that need not be told at once.
    Held {
        until: Instant,
    },
    Queued,
    /// `news`: something came since the call was made.
    InFlight {
        news: bool,
    },
    /// For another try.
    Waiting {
        until: Instant,
    },
}

/// What we must not take for granted about the API object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doubt {
    None,
    /// A write met a conflict: read before the next one.
    Stale,
    /// Deleted, or replaced by another pod: nothing more to tell.
    Over,
}

/// An entry whose turn has come.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    pub(super) uid: PodUid,
    pub(super) update: &'a StatusUpdate,
    pub(super) api: &'a Arc<Pod>,
    pub(super) futile: Option<&'a Value>,
    /// Whether the object must be read before it is written.
    pub(super) must_read: bool,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    entries: BTreeMap<PodUid, Entry>,
    queue: VecDeque<PodUid>,
}

impl Ledger {
    /// Takes a worker's new status.
    pub(super) fn put(&mut self, update: StatusUpdate, now: Instant) {
        let uid = update.pod.uid.clone();
        match self.entries.get_mut(&uid) {
            Some(entry) => entry.update = update,
            None => {
                let entry = Entry {
                    update,
                    progress: Progress::Idle,
                    watched: None,
                    answered: None,
                    futile: None,
                    doubt: Doubt::None,
                    backoff: None,
                };
                self.entries.insert(uid.clone(), entry);
            }
        }
        self.poke(&uid, now);
    }

    /// Takes what the watches show now. `find` answers an update's API object;
    /// `is_desired` whether its pod may still report.
    pub(super) fn observe<'a>(
        &mut self,
        find: impl Fn(&StatusUpdate) -> Option<&'a Arc<Pod>>,
        is_desired: impl Fn(&PodUid) -> bool,
        now: Instant,
    ) {
        let mut changed = Vec::new();
        self.entries.retain(|uid, entry| {
            let watched = find(&entry.update);
            if watched.is_none() && !is_desired(uid) {
                return false;
            }
            if !same(watched, entry.watched.as_ref()) {
                entry.watch(watched.cloned());
                if !entry.caught_up() {
                    entry.futile = None;
                    changed.push(uid.clone());
                }
            }
            true
        });
        for uid in changed {
            self.poke(&uid, now);
        }
    }

    /// Static pods that nobody wants any more, as `is_desired` tells, and of
    /// which something is left.
    pub(super) fn ending_static_pods(
        &self,
        is_desired: impl Fn(&PodUid) -> bool,
    ) -> Vec<Arc<DesiredPod>> {
        self.entries
            .iter()
            .filter(|(uid, _)| !is_desired(uid))
            .map(|(_, entry)| &entry.update)
            .filter(|update| update.pod.origin.is_static() && update.ending < Ending::Gone)
            .map(|update| update.pod.clone())
            .collect()
    }

    /// Something about this pod is new: its turn comes, at once unless there is
    /// no hurry or its last call failed a moment ago.
    fn poke(&mut self, uid: &PodUid, now: Instant) {
        let Some(entry) = self.entries.get_mut(uid) else {
            return;
        };
        match (&mut entry.progress, pace(&entry.update)) {
            (Progress::Idle, Pace::Unhurried) => {
                let until = now + PATIENCE;
                entry.progress = Progress::Held { until };
            }
            (Progress::Idle | Progress::Held { .. }, Pace::AtOnce) => {
                entry.progress = Progress::Queued;
                self.queue.push_back(uid.clone());
            }
            (Progress::InFlight { news }, _) => *news = true,
            (Progress::Held { .. }, Pace::Unhurried)
            | (Progress::Queued | Progress::Waiting { .. }, _) => {}
        }
    }

    /// The next pod in line that has an API object. It is idle afterwards, or
    /// in flight if [`Ledger::depart`] is called.
    pub(super) fn next_turn(&mut self) -> Option<Turn<'_>> {
        let uid = loop {
            let uid = self.queue.pop_front()?;
            // Forgotten pods leave their place in the queue behind.
            let Some(entry) = self.entries.get_mut(&uid) else {
                continue;
            };
            if entry.progress != Progress::Queued {
                continue;
            }
            entry.progress = Progress::Idle;
            if entry.watched.is_some() && entry.doubt != Doubt::Over {
                break uid;
            }
        };
        let entry = self.entries.get(&uid)?;
        let watched = entry.watched.as_ref()?;
        Some(Turn {
            uid,
            update: &entry.update,
            api: fresher(watched, entry.answered.as_ref()),
            futile: entry.futile.as_ref(),
            must_read: entry.doubt == Doubt::Stale,
        })
    }

    /// A call for this pod was made.
    pub(super) fn depart(&mut self, uid: &PodUid) {
        if let Some(entry) = self.entries.get_mut(uid) {
            entry.progress = Progress::InFlight { news: false };
        }
    }

    /// The patch of an object of version `onto` was accepted, and this is the
    /// object now; look at it again.
    pub(super) fn accepted(
        &mut self,
        uid: &PodUid,
        body: Value,
        onto: Option<&str>,
        api: Pod,
        now: Instant,
    ) {
        if let Some(entry) = self.entries.get_mut(uid) {
            entry.backoff = None;
            let is_changed = api.metadata.resource_version.as_deref() != onto;
            entry.futile = (!is_changed).then_some(body);
        }
        self.read(uid, api, now);
    }

    /// This is the object now; look at it again.
    pub(super) fn read(&mut self, uid: &PodUid, api: Pod, now: Instant) {
        let Some(entry) = self.entries.get_mut(uid) else {
            return;
        };
        let is_other = entry
            .watched
            .as_ref()
            .is_some_and(|watched| watched.metadata.uid != api.metadata.uid);
        if is_other {
            self.over(uid, now);
            return;
        }
        entry.doubt = Doubt::None;
        entry.answered = Some(Arc::new(api));
        entry.caught_up();
        self.land(uid, now);
        self.poke(uid, now);
    }

    /// The object is gone or another's: there is nobody to tell.
    pub(super) fn over(&mut self, uid: &PodUid, now: Instant) {
        if let Some(entry) = self.entries.get_mut(uid) {
            entry.doubt = Doubt::Over;
            entry.answered = None;
        }
        self.land(uid, now);
    }

    /// The call failed for now: try again, not before `pause` if one is given.
    pub(super) fn retry(&mut self, uid: &PodUid, pause: Option<Duration>, now: Instant) {
        if let Some(entry) = self.entries.get_mut(uid) {
            let own = entry.backoff.get_or_insert_with(Backoff::new).next();
            let until = now + own.max(pause.unwrap_or_default());
            entry.progress = Progress::Waiting { until };
        }
    }

    /// The write met somebody else's: read, then decide anew; at once the first
    /// time.
    pub(super) fn conflict(&mut self, uid: &PodUid, now: Instant) {
        if let Some(entry) = self.entries.get_mut(uid) {
            entry.doubt = Doubt::Stale;
            if entry.backoff.is_none() {
                entry.backoff = Some(Backoff::new());
                self.land(uid, now);
                self.poke(uid, now);
            } else {
                self.retry(uid, None, now);
            }
        }
    }

    /// The call failed for good: rest until something is new.
    pub(super) fn refused(&mut self, uid: &PodUid, now: Instant) {
        self.land(uid, now);
    }

    /// No answer at all; first in line when the API server is back.
    pub(super) fn unanswered(&mut self, uid: &PodUid) {
        if let Some(entry) = self.entries.get_mut(uid) {
            entry.progress = Progress::Queued;
            self.queue.push_front(uid.clone());
        }
    }

    fn land(&mut self, uid: &PodUid, now: Instant) {
        if let Some(entry) = self.entries.get_mut(uid) {
            let had_news = entry.progress == Progress::InFlight { news: true };
            entry.progress = Progress::Idle;
            if had_news {
                self.poke(uid, now);
            }
        }
    }

    /// Queues what has waited long enough.
    pub(super) fn wake(&mut self, now: Instant) {
        self.requeue(|entry| entry.progress.due().is_some_and(|until| until <= now));
    }

    /// Queues what waits, due or not: there is no later.
    pub(super) fn hurry(&mut self) {
        self.requeue(|entry| entry.progress.due().is_some());
    }

    /// Looks at everything once more, and trusts the watch alone.
    pub(super) fn audit(&mut self) {
        self.requeue(|entry| {
            let is_idle = entry.progress == Progress::Idle;
            if is_idle {
                entry.answered = None;
            }
            is_idle
        });
    }

    fn requeue(&mut self, mut is_due: impl FnMut(&mut Entry) -> bool) {
        for (uid, entry) in &mut self.entries {
            if is_due(entry) {
                entry.progress = Progress::Queued;
                self.queue.push_back(uid.clone());
            }
        }
    }

    /// When [`Ledger::wake`] has something to do.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        self.entries
            .values()
            .filter_map(|entry| entry.progress.due())
            .min()
    }

    pub(super) fn has_queue(&self) -> bool {
        !self.queue.is_empty()
    }

    pub(super) fn contains(&self, uid: &PodUid) -> bool {
        self.entries.contains_key(uid)
    }
}

impl Progress {
    /// When a wait ends; `None` if time alone brings no turn.
    fn due(self) -> Option<Instant> {
        match self {
            Self::Held { until } | Self::Waiting { until } => Some(until),
            Self::Idle | Self::Queued | Self::InFlight { .. } => None,
        }
    }
}

impl Entry {
    fn watch(&mut self, watched: Option<Arc<Pod>>) {
        let uid = |pod: &Option<Arc<Pod>>| pod.as_ref().and_then(|pod| pod.metadata.uid.clone());
        // A static pod's mirror was replaced: what we knew was of the old one.
        if uid(&watched) != uid(&self.watched) {
            self.doubt = Doubt::None;
            self.answered = None;
        }
        self.watched = watched;
    }

    /// Drops the remembered answer once the watch shows it or something later;
    /// whether what the watch shows is just that answer.
    fn caught_up(&mut self) -> bool {
        let (Some(watched), Some(answered)) = (&self.watched, &self.answered) else {
            return false;
        };
        let is_echo = watched.metadata.resource_version == answered.metadata.resource_version;
        if !Arc::ptr_eq(fresher(watched, Some(answered)), answered) {
            self.answered = None;
        }
        is_echo
    }
}

fn same(one: Option<&Arc<Pod>>, other: Option<&Arc<Pod>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (None, None) => true,
        _ => false,
    }
}
