//! The book of the node: which pods are here and what they take, and which ones
//! wait to be judged, in which order. No waiting in here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use crate::pod::admission::Claim;
use crate::pod::admission::preempt::Candidate;
use crate::pod::{DesiredPod, Intent, PodUid, resize};
use crate::runtime::KnownPods;

#[derive(Debug, Default)]
pub(super) struct Ledger {
    here: BTreeMap<PodUid, Entry>,
    waiting: BTreeMap<PodUid, Waiting>,
}

/// A pod that is on this node.
#[derive(Debug)]
struct Entry {
    pod: Arc<DesiredPod>,
    claim: Claim,
    stay: Stay,
    /// Pods that make room for this one: it starts when they are gone.
    after: BTreeSet<PodUid>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stay {
    Stays,
    /// It was told to end, to make room.
    Leaves,
}

/// A pod that is to be judged.
#[derive(Debug)]
struct Waiting {
    place: Place,
    pod: Arc<DesiredPod>,
}

/// Static pods first, as they wait for nobody; then the oldest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    rank: Rank,
    created: Option<Timestamp>,
    uid: PodUid,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Static,
    Api,
}

impl Place {
    fn of(pod: &DesiredPod) -> Self {
        let created = pod.pod.metadata.creation_timestamp.as_ref();
        Self {
            rank: if pod.origin.is_static() {
                Rank::Static
            } else {
                Rank::Api
            },
            created: created.map(|time| time.0),
            uid: pod.uid.clone(),
        }
    }
}

/// Where a pod stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is here, or there is nothing to judge.
    Admitted,
    /// It is here as soon as others are gone.
    AfterOthers,
    /// It is the next to be judged.
    Next,
    InQueue,
}

/// Which of the pods that are here count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counted {
    All,
    /// Without those that were told to make room.
    Staying,
}

impl Ledger {
    /// Takes a pod up: into the queue if it has to be judged, straight into the
    /// book if it was here before. Does nothing for one that is known.
    pub(super) fn enlist(&mut self, pod: &Arc<DesiredPod>) {
        if self.here.contains_key(&pod.uid) {
            return;
        }
        match history(pod) {
            History::Over => {}
            History::Here => self.enter(pod, BTreeSet::new()),
            History::New => {
                let waiting = Waiting {
                    place: Place::of(pod),
                    pod: pod.clone(),
                };
                self.waiting.insert(pod.uid.clone(), waiting);
            }
        }
    }

    /// Enters all who wait and whom the runtime has already: they were let in
    /// by an earlier process. Tells whether there were any.
    pub(super) fn adopt(&mut self, known: &KnownPods) -> bool {
        let before = self.waiting.len();
        for (uid, _) in known.iter().flat_map(|known| known.iter()) {
            if let Some(Waiting { pod, .. }) = self.waiting.remove(uid) {
                self.enter(&pod, BTreeSet::new());
            }
        }
        self.waiting.len() != before
    }

    /// Writes a pod down as being here from now on, once `after` are gone. It
    /// takes what it was given so far, if that is known, and not what it wishes.
    pub(super) fn enter(&mut self, pod: &Arc<DesiredPod>, after: BTreeSet<PodUid>) {
        self.waiting.remove(&pod.uid);
        let entry = Entry {
            claim: Claim::of(&resize::recorded(pod).pod),
            pod: pod.clone(),
            stay: Stay::Stays,
            after,
        };
        self.here.insert(pod.uid.clone(), entry);
    }

    /// Follows a pod that is here to what it takes from now on; where it stands
    /// with others stays. Tells whether it takes less of something.
    pub(super) fn resize(&mut self, pod: &Arc<DesiredPod>) -> bool {
        let Some(entry) = self.here.get_mut(&pod.uid) else {
            return false;
        };
        let claim = Claim::of(&pod.pod);
        let before = std::mem::replace(&mut entry.claim, claim);
        entry.pod = pod.clone();
        let less = |(name, amount): (&str, i64)| entry.claim.amount(name) < amount;
        before.amounts().any(less)
    }

    /// Strikes a pod out. Tells whether it was in the book.
    pub(super) fn remove(&mut self, uid: &PodUid) -> bool {
        let waited = self.waiting.remove(uid).is_some();
        self.here.remove(uid).is_some() || waited
    }

    /// Notes that pods were told to make room.
    pub(super) fn tell_to_leave(&mut self, uids: &[PodUid]) {
        for uid in uids {
            if let Some(entry) = self.here.get_mut(uid) {
                entry.stay = Stay::Leaves;
            }
        }
    }

    pub(super) fn standing(&self, uid: &PodUid) -> Standing {
        if let Some(entry) = self.here.get(uid) {
            return if entry
                .after
                .iter()
                .any(|other| self.here.contains_key(other))
            {
                Standing::AfterOthers
            } else {
                Standing::Admitted
            };
        }
        let Some(waiting) = self.waiting.get(uid) else {
            return Standing::Admitted;
        };
        if self
            .waiting
            .values()
            .all(|other| waiting.place <= other.place)
        {
            Standing::Next
        } else {
            Standing::InQueue
        }
    }

    /// What the pods that are here take together.
    pub(super) fn taken(&self, counted: Counted) -> Claim {
        let counts = |entry: &&Entry| counted == Counted::All || entry.stay == Stay::Stays;
        let entries = self.here.values().filter(counts);
        Claim::sum(entries.map(|entry| &entry.claim))
    }

    /// What all but one of the pods that are here take together.
    pub(super) fn taken_by_others(&self, uid: &PodUid) -> Claim {
        let others = self.here.iter().filter(|(other, _)| *other != uid);
        Claim::sum(others.map(|(_, entry)| &entry.claim))
    }

    /// Pods that were told to make room and are not gone yet.
    pub(super) fn leaving(&self) -> BTreeSet<PodUid> {
        let leaving = self.here.iter().filter(|(_, e)| e.stay == Stay::Leaves);
        leaving.map(|(uid, _)| uid.clone()).collect()
    }

    /// Pods that could be told to make room.
    pub(super) fn candidates(&self) -> impl Iterator<Item = Candidate<'_>> {
        let staying = self.here.values().filter(|entry| entry.stay == Stay::Stays);
        staying.map(|entry| Candidate {
            pod: &entry.pod,
            claim: &entry.claim,
        })
    }
}

/// What became of a pod before this process met it.
enum History {
    New,
    /// It was let in: the node may have changed since, which is not its fault.
    Here,
    /// It has ended, or was refused: it takes nothing.
    Over,
}

fn history(pod: &DesiredPod) -> History {
    let status = pod.pod.status.as_ref().filter(|_| !pod.origin.is_static());
    let phase = status.and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return History::Over;
    }
    // The start is told by the node agent alone, for a pod that it let in.
    let started = status.is_some_and(|status| status.start_time.is_some());
    match pod.intent {
        Intent::Run if !started => History::New,
        // One that ends may still have containers.
        Intent::Run | Intent::Terminate(_) => History::Here,
    }
}
