//! The latest reading of every pod.

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
    /// Whose turn it is to tell of members; taken before `state`.
    telling: Mutex<()>,
}

#[derive(Default)]
struct State {
    entries: BTreeMap<PodUid, Entry>,
    /// Counts readings; clocks step back, this does not.
    readings: u64,
}

struct Entry {
    shown: watch::Sender<Arc<ObservedPod>>,
    /// Of the reading that is shown; the first is never drawn.
    ticket: Ticket,
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
            |entry| entry.shown.borrow().clone(),
        )
    }

    /// Shows a reading unless one that began later is shown already, and
    /// returns what is shown now. Watchers wake only for new content.
    pub(super) fn publish(&self, pod: ObservedPod, ticket: Ticket) -> Arc<ObservedPod> {
        let mut state = self.lock();
        let entry = state
            .entries
            .entry(pod.uid.clone())
            .or_insert_with(|| Entry::new(&pod.uid, &pod.name));
        if ticket > entry.ticket {
            entry.ticket = ticket;
            entry.show(pod);
        }
        let shown = entry.shown.borrow().clone();
        state.drop_forgotten(&shown.uid);
        drop(state);
        self.update_members();
        shown
    }

    pub(super) fn watch(&self, uid: &PodUid, name: &PodName) -> watch::Receiver<Arc<ObservedPod>> {
        self.lock()
            .entries
            .entry(uid.clone())
            .or_insert_with(|| Entry::new(uid, name))
            .shown
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
        let state = self.lock();
        let shown = state.entries.values().map(|entry| entry.shown.borrow());
        shown
            .filter(|pod| !pod.is_absent())
            .map(|pod| pod.clone())
            .collect()
    }

    /// Drops pods that are gone and that nobody watches any more.
    pub(super) fn sweep(&self) {
        self.lock().entries.retain(|_, entry| !entry.is_forgotten());
    }

    /// Not under the lock of the state: whoever looks at the members' old value
    /// keeps the new one waiting, and may be waiting for that lock itself.
    fn update_members(&self) {
        let _turn = self.turn();
        let present = self.lock().present();
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

    /// Members are gathered and told by one at a time, so that none are told
    /// after newer ones.
    fn turn(&self) -> MutexGuard<'_, ()> {
        self.telling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic leaves an entry half-written.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn present(&self) -> Vec<(PodUid, PodName)> {
        let shown = self.entries.values().map(|entry| entry.shown.borrow());
        shown
            .filter(|pod| !pod.is_absent())
            .map(|pod| (pod.uid.clone(), pod.name.clone()))
            .collect()
    }

    fn drop_forgotten(&mut self, uid: &PodUid) {
        if self.entries.get(uid).is_some_and(Entry::is_forgotten) {
            self.entries.remove(uid);
        }
    }
}

impl Entry {
    fn new(uid: &PodUid, name: &PodName) -> Self {
        Self {
            shown: watch::Sender::new(Arc::new(unread(uid, name))),
            ticket: Ticket(0),
        }
    }

    fn show(&self, pod: ObservedPod) {
        self.shown.send_if_modified(|shown| {
            // The time of the reading alone is no news.
            let news = shown.sandboxes != pod.sandboxes || shown.containers != pod.containers;
            *shown = Arc::new(pod);
            news
        });
    }

    fn is_forgotten(&self) -> bool {
        self.shown.receiver_count() == 0 && self.shown.borrow().is_absent()
    }
}

/// What a watch shows before the first reading: nothing, read long ago.
fn unread(uid: &PodUid, name: &PodName) -> ObservedPod {
    ObservedPod::absent(uid.clone(), name.clone(), Timestamp::UNIX_EPOCH)
}
