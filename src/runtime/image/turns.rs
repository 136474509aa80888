//! Whose pull is next: pods take turns, so that one with twenty images does not
//! keep the others waiting for all of them.
//!
//! Of the pulls that wait, the one goes first whose pod has waited longest since
//! it last had a turn; among its own, and among pods that never had one, the
//! oldest.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::pod::PodName;

/// A number of places, handed out in turns. Clones share them.
#[derive(Clone)]
pub(super) struct Turns(Arc<Mutex<State>>);

struct State {
    free: usize,
    waiting: Vec<Waiting>,
    /// The pods that have places, each as often as it has one.
    running: Vec<PodName>,
    /// When each of the pods above had its last turn, as a count of turns.
    served: BTreeMap<PodName, u64>,
    turns: u64,
}

struct Waiting {
    pod: PodName,
    go: oneshot::Sender<Turn>,
}

/// A place; free again when dropped.
pub(super) struct Turn {
    turns: Turns,
    pod: PodName,
}

impl Turns {
    pub(super) fn new(places: NonZeroUsize) -> Self {
        Self(Arc::new(Mutex::new(State {
            free: places.get(),
            waiting: Vec::new(),
            running: Vec::new(),
            served: BTreeMap::new(),
            turns: 0,
        })))
    }

    /// Waits for a place. Leaving early gives up the place in the queue.
    pub(super) async fn take(&self, pod: &PodName) -> Option<Turn> {
        let gone = {
            let mut state = self.state();
            let (go, gone) = oneshot::channel();
            state.waiting.push(Waiting {
                pod: pod.clone(),
                go,
            });
            gone
        };
        self.hand_out();
        // The sender stays in the queue until it is used.
        gone.await.ok()
    }

    /// How many pulls wait.
    #[cfg(test)]
    fn waiting(&self) -> usize {
        self.state()
            .waiting
            .iter()
            .filter(|waiting| !waiting.go.is_closed())
            .count()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives free places to those who wait. A turn that its waiter no longer
    /// wants is dropped outside of the lock, and comes back by that.
    fn hand_out(&self) {
        loop {
            // In a statement of its own, which lets go of the lock.
            let next = self.state().next();
            let Some(Waiting { pod, go }) = next else {
                return;
            };
            // A failed send returns the turn, whose drop hands it out again.
            let _ = go.send(Turn {
                turns: self.clone(),
                pod,
            });
        }
    }
}

impl State {
    /// Takes a place for the one whose turn it is.
    fn next(&mut self) -> Option<Waiting> {
        self.waiting.retain(|waiting| !waiting.go.is_closed());
        if self.free == 0 {
            return None;
        }
        let served = |pod: &PodName| self.served.get(pod).copied().unwrap_or(0);
        let (index, _) = self
            .waiting
            .iter()
            .enumerate()
            .min_by_key(|(_, waiting)| served(&waiting.pod))?;
        let next = self.waiting.remove(index);
        self.free -= 1;
        self.turns += 1;
        self.served.insert(next.pod.clone(), self.turns);
        self.running.push(next.pod.clone());
        // A pod that wants nothing more is as good as new when it comes again.
        let (waiting, running) = (&self.waiting, &self.running);
        self.served.retain(|pod, _| {
            running.contains(pod) || waiting.iter().any(|waiting| waiting.pod == *pod)
        });
        Some(next)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        {
            let mut state = self.turns.state();
            state.free += 1;
            let place = state.running.iter().position(|pod| *pod == self.pod);
            if let Some(place) = place {
                state.running.swap_remove(place);
            }
        }
        self.turns.hand_out();
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use futures::FutureExt as _;
    use futures::future::BoxFuture;
    use futures::poll;

    use super::*;

    fn pod(name: &str) -> PodName {
        PodName {
            namespace: "ns".into(),
            name: name.into(),
        }
    }

    /// Takes turns for all, and tells in which order they came.
    async fn order(places: usize, asked: &[&str]) -> Vec<String> {
        let turns = Turns::new(NonZeroUsize::new(places).unwrap());
        let mut waiting: Vec<(String, BoxFuture<'static, Option<Turn>>)> = Vec::new();
        let mut held = Vec::new();
        for (index, name) in asked.iter().enumerate() {
            let turns = turns.clone();
            let name = pod(name);
            let label = format!("{}{index}", name.name);
            waiting.push((label, async move { turns.take(&name).await }.boxed()));
        }
        let mut came = Vec::new();
        while !waiting.is_empty() {
            let mut index = 0;
            let before = came.len();
            while index < waiting.len() {
                match poll!(&mut waiting[index].1) {
                    Poll::Ready(turn) => {
                        held.push(turn.expect("a turn"));
                        came.push(waiting.remove(index).0);
                    }
                    Poll::Pending => index += 1,
                }
            }
            assert!(held.len() <= places);
            assert!(came.len() > before || !held.is_empty());
            if !held.is_empty() {
                drop(held.remove(0));
            }
        }
        came
    }

    #[tokio::test]
    async fn pods_take_turns() {
        let came = order(1, &["a", "a", "a", "a", "b", "b", "c"]).await;
        assert_eq!(came, ["a0", "b4", "c6", "a1", "b5", "a2", "a3"]);
    }

    #[tokio::test]
    async fn places_are_never_exceeded_and_all_are_served() {
        let came = order(3, &["a", "a", "a", "a", "a", "b"]).await;
        assert_eq!(came.len(), 6);
        assert!(came.iter().position(|x| x == "b5") <= Some(3), "{came:?}");
    }

    #[tokio::test]
    async fn who_left_is_passed_over() {
        let turns = Turns::new(NonZeroUsize::MIN);
        let first = turns.take(&pod("a")).await.expect("a turn");
        let (b, c) = (pod("b"), pod("c"));
        let mut leaver = turns.take(&b).boxed();
        let mut stayer = turns.take(&c).boxed();
        assert!(poll!(&mut leaver).is_pending());
        assert!(poll!(&mut stayer).is_pending());
        assert_eq!(turns.waiting(), 2);
        drop(leaver);
        drop(first);
        assert!(stayer.await.is_some());
        assert!(turns.take(&pod("d")).now_or_never().flatten().is_some());
    }
}
