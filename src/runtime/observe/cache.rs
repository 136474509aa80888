//! The latest reading of every pod.
//!
//! The state has it, and watches only pass it on: nothing is told to a watch, nor
//! read from one, under the state's lock. Whoever looks at a watched value keeps
//! the next one waiting, and may ask for another pod, that is for the lock, while
//! it looks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::watch;

use super::super::KnownPods;
use crate::pod::{ObservedPod, PodName, PodUid};

/// All pods ever read that exist or that somebody watches.
#[derive(Default)]
pub(super) struct Cache {
    state: Mutex<State>,
    members: watch::Sender<KnownPods>,
    /// Whose turn it is to tell, so that nothing is told after what is newer;
    /// taken before `state`.
    telling: Mutex<()>,
}

#[derive(Default)]
struct State {
    entries: BTreeMap<PodUid, Entry>,
    /// Counts readings; clocks step back, this does not.
    readings: u64,
}

struct Entry {
    latest: Arc<ObservedPod>,
    /// Of the latest reading; the first is never drawn.
    ticket: Ticket,
    watchers: Arc<watch::Sender<Arc<ObservedPod>>>,
}

/// The place of a reading in the order of readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

impl Cache {
    /// To be taken before the runtime is asked; see [`Cache::publish`].
    pub(super) fn take_ticket(&self) -> Ticket {
        let mut state = self.lock();
        state.readings += 1;
        Ticket(state.readings)
    }

    /// What was last read of a pod.
    pub(super) fn known(&self, uid: &PodUid, name: &PodName) -> Arc<ObservedPod> {
        let state = self.lock();
        state.entries.get(uid).map_or_else(
            || Arc::new(unread(uid, name)),
            |entry| Arc::clone(&entry.latest),
        )
    }

    /// Shows a reading unless one that began later is shown already, and
    /// returns what is shown now. Watchers wake only for new content.
    pub(super) fn publish(&self, pod: ObservedPod, ticket: Ticket) -> Arc<ObservedPod> {
        let _turn = self.turn();
        let (latest, watchers) = self.lock().take_in(pod, ticket);
        watchers.send_if_modified(|shown| {
            // The time of the reading alone is no news.
            let news = shown.sandboxes != latest.sandboxes || shown.containers != latest.containers;
            *shown = Arc::clone(&latest);
            news
        });
        let present = self.lock().present();
        self.tell_members(present);
        latest
    }

    pub(super) fn watch(&self, uid: &PodUid, name: &PodName) -> watch::Receiver<Arc<ObservedPod>> {
        self.lock()
            .entries
            .entry(uid.clone())
            .or_insert_with(|| Entry::new(uid, name))
            .watchers
            .subscribe()
    }

    pub(super) fn members(&self) -> watch::Receiver<KnownPods> {
        self.members.subscribe()
    }

    /// The first full observation is in: from now on members are told.
    pub(super) fn open(&self) {
        let _turn = self.turn();
        if self.members.borrow().is_none() {
            let present = self.lock().present();
            self.members.send_replace(Some(Arc::new(present)));
        }
    }

    /// Every pod of which something was there at its last reading.
    pub(super) fn present(&self) -> Vec<Arc<ObservedPod>> {
        self.lock().readings_of_present().cloned().collect()
    }

    /// Drops pods that are gone and that nobody watches any more.
    pub(super) fn sweep(&self) {
        self.lock().entries.retain(|_, entry| !entry.is_forgotten());
    }

    fn tell_members(&self, present: Vec<(PodUid, PodName)>) {
        self.members.send_if_modified(|members| match members {
            Some(known) => {
                let changed = **known != present;
                if changed {
                    *known = Arc::new(present);
                }
                changed
            }
            None => false,
        });
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.telling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic leaves an entry half-written.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Keeps the reading unless a later one is there; what is the latest now,
    /// and who is to be told.
    fn take_in(
        &mut self,
        pod: ObservedPod,
        ticket: Ticket,
    ) -> (Arc<ObservedPod>, Arc<watch::Sender<Arc<ObservedPod>>>) {
        let uid = pod.uid.clone();
        let entry = self
            .entries
            .entry(uid.clone())
            .or_insert_with(|| Entry::new(&pod.uid, &pod.name));
        if ticket > entry.ticket {
            entry.ticket = ticket;
            entry.latest = Arc::new(pod);
        }
        let told = (Arc::clone(&entry.latest), Arc::clone(&entry.watchers));
        if entry.is_forgotten() {
            self.entries.remove(&uid);
        }
        told
    }

    fn readings_of_present(&self) -> impl Iterator<Item = &Arc<ObservedPod>> {
        let latest = self.entries.values().map(|entry| &entry.latest);
        latest.filter(|pod| !pod.is_absent())
    }

    fn present(&self) -> Vec<(PodUid, PodName)> {
        self.readings_of_present()
            .map(|pod| (pod.uid.clone(), pod.name.clone()))
            .collect()
    }
}

impl Entry {
    fn new(uid: &PodUid, name: &PodName) -> Self {
        let latest = Arc::new(unread(uid, name));
        Self {
            watchers: Arc::new(watch::Sender::new(Arc::clone(&latest))),
            latest,
            ticket: Ticket(0),
        }
    }

    fn is_forgotten(&self) -> bool {
        self.watchers.receiver_count() == 0 && self.latest.is_absent()
    }
}

/// What a watch shows before the first reading: nothing, read long ago.
fn unread(uid: &PodUid, name: &PodName) -> ObservedPod {
    ObservedPod::absent(uid.clone(), name.clone(), Timestamp::UNIX_EPOCH)
}
