//! The loop that keeps observations fresh.
//!
//! | what happens | what follows |
//! |---|---|
//! | a sign | once it is due and no reading shows it: its pod is read |
//! | a sign of an unknown ID | its owner is looked up, then that pod is read |
//! | a stream was (re)opened | a relist at once, and one a moment later |
//! | the relist period is over | a relist |
//! | a relist | the pods that differ from their last reading are read |
//!
//! Readings run side by side and none waits for another, so a call that hangs
//! concerns its own pod only. While nothing happens nothing is done between
//! relists.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::cache::Ticket;
use super::events::{Feed, Heard};
use super::read::{self, ListedPod, Listing};
use super::sign::{Sign, Signs};
use super::{Observations, Observer};
use crate::error::chain;
use crate::pod::{PodName, PodUid};
use crate::runtime::{Metrics, RuntimeError};

/// The runtime takes note of a subscription after it was asked; what happens
/// until then shows in a second relist.
const CONFIRM_AFTER: Duration = Duration::from_secs(1);

/// After a relist that failed.
const RETRY_AFTER: Duration = Duration::from_secs(3);

pub(in crate::runtime) struct ObserveTask {
    pub(in crate::runtime) observations: Arc<Observations>,
    /// To where events are subscribed.
    pub(in crate::runtime) channel: Channel,
    pub(in crate::runtime) relist_period: Duration,
    pub(in crate::runtime) metrics: Metrics,
}

impl ObserveTask {
    /// Observes until shutdown.
    pub(in crate::runtime) async fn run(self, shutdown: CancellationToken) {
        let mut feed = Feed::new(self.channel.clone());
        let mut watch = Watch::new(&self);
        loop {
            let due = tokio::time::sleep_until(watch.next_due());
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                Some(done) = watch.work.next(), if !watch.work.is_empty() => watch.done(done),
                () = due => watch.due(),
                heard = feed.next() => watch.heard(heard),
            }
        }
    }
}

/// The state of the loop.
struct Watch<'a> {
    task: &'a ObserveTask,
    signs: Signs,
    work: FuturesUnordered<BoxFuture<'a, Done>>,
    /// Pods that are being read for a sign.
    reading: BTreeSet<PodUid>,
    listing: bool,
    next_listing: Instant,
    confirm: bool,
    /// Said once, not with every failure.
    told: Told,
    first_look: FirstLook,
}

#[derive(Default)]
struct Told {
    feed_lost: bool,
    listing_failed: bool,
}

/// How far the first full observation has come.
enum FirstLook {
    Unlisted,
    /// Listed; these are still being read.
    Reading(BTreeSet<PodUid>),
    Done,
}

/// A piece of work that ended.
enum Done {
    Listed {
        result: Result<Listing, RuntimeError>,
        ticket: Ticket,
    },
    /// A pod whose list entry had changed.
    Audited(PodUid, Result<(), RuntimeError>),
    /// A pod of which there was a sign.
    Read(PodUid, Result<(), RuntimeError>),
    /// Whose the ID of a sign is.
    Found(String, Result<Option<(PodUid, PodName)>, RuntimeError>),
}

impl<'a> Watch<'a> {
    fn new(task: &'a ObserveTask) -> Self {
        Self {
            task,
            signs: Signs::default(),
            work: FuturesUnordered::new(),
            reading: BTreeSet::new(),
            listing: false,
            next_listing: Instant::now(),
            confirm: false,
            told: Told::default(),
            first_look: FirstLook::Unlisted,
        }
    }

    fn next_due(&self) -> Instant {
        let far = Instant::now() + self.task.relist_period;
        let listing = if self.listing { far } else { self.next_listing };
        self.signs
            .next_due()
            .map_or(listing, |due| due.min(listing))
    }

    fn due(&mut self) {
        let now = Instant::now();
        if !self.listing && self.next_listing <= now {
            self.list(now);
        }
        self.look_for_signs(now);
    }

    fn heard(&mut self, heard: Heard) {
        match heard {
            Heard::Sign(id, sign) => {
                self.told.feed_lost = false;
                self.signs.note(id, sign, Instant::now());
            }
            Heard::Opened => {
                self.next_listing = Instant::now();
                self.confirm = true;
            }
            Heard::Lost(status) => {
                if !std::mem::replace(&mut self.told.feed_lost, true) {
                    tracing::warn!(
                        error = %chain(&status),
                        "no events from the runtime; relisting until they are back"
                    );
                }
            }
        }
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Listed { result, ticket } => self.listed(result, ticket),
            Done::Audited(uid, result) => {
                report(&uid, &result);
                if result.is_err() {
                    // The audit of it is still open.
                    self.list_within(RETRY_AFTER);
                }
                self.looked_at(&uid);
            }
            Done::Read(uid, result) => {
                // If it failed, its signs come again.
                report(&uid, &result);
                self.reading.remove(&uid);
            }
            Done::Found(id, Ok(None)) => self.signs.settle(&id),
            Done::Found(_, Ok(Some((uid, name)))) => self.read(uid, name),
            Done::Found(id, Err(error)) => {
                tracing::debug!(id, error = %chain(&error), "cannot look up an event's container");
            }
        }
    }

    // === relists ===

    fn list_within(&mut self, delay: Duration) {
        self.next_listing = self.next_listing.min(Instant::now() + delay);
    }

    fn list(&mut self, now: Instant) {
        let confirm = std::mem::take(&mut self.confirm);
        let period = self.task.relist_period;
        self.next_listing = now + if confirm { CONFIRM_AFTER } else { period };
        self.listing = true;
        let ticket = self.task.observations.cache.take_ticket();
        let task = self.task;
        self.work.push(Box::pin(async move {
            let begun = Instant::now();
            let result = read::listing(&task.observations.client).await;
            task.metrics.relist(begun.elapsed());
            Done::Listed { result, ticket }
        }));
    }

    fn listed(&mut self, result: Result<Listing, RuntimeError>, ticket: Ticket) {
        self.listing = false;
        let listing = match result {
            Ok(listing) => listing,
            Err(error) => {
                if !std::mem::replace(&mut self.told.listing_failed, true) {
                    tracing::warn!(error = %chain(&error), "cannot list what runs");
                }
                self.list_within(RETRY_AFTER);
                return;
            }
        };
        self.told.listing_failed = false;
        let cache = &self.task.observations.cache;
        cache.sweep();
        let changed = listing.changed_since(&cache.present());
        if matches!(self.first_look, FirstLook::Unlisted) {
            let uids = changed.iter().map(|listed| listed.uid.clone()).collect();
            self.first_look = FirstLook::Reading(uids);
        }
        for listed in changed {
            self.audit(listed, ticket);
        }
        self.end_first_look();
    }

    fn audit(&mut self, listed: ListedPod, ticket: Ticket) {
        let task = self.task;
        self.work.push(Box::pin(async move {
            let observations = &task.observations;
            let uid = listed.uid.clone();
            let known = observations.cache.known(&uid, &listed.name);
            let pod = read::assemble(&observations.client, listed, &known).await;
            let result = pod.map(|pod| drop(observations.cache.publish(pod, ticket)));
            Done::Audited(uid, result)
        }));
    }

    fn looked_at(&mut self, uid: &PodUid) {
        if let FirstLook::Reading(uids) = &mut self.first_look {
            uids.remove(uid);
        }
        self.end_first_look();
    }

    fn end_first_look(&mut self) {
        if matches!(&self.first_look, FirstLook::Reading(uids) if uids.is_empty()) {
            self.first_look = FirstLook::Done;
            self.task.observations.cache.open();
        }
    }

    // === signs ===

    fn look_for_signs(&mut self, now: Instant) {
        let due = self.signs.due(now);
        if due.is_empty() {
            return;
        }
        let pods = self.task.observations.cache.present();
        for (id, sign) in due {
            let owner = pods.iter().find(|pod| {
                pod.containers.iter().any(|c| c.id.0 == id)
                    || pod.sandboxes.iter().any(|s| s.id.0 == id)
            });
            match owner {
                Some(pod) if sign.is_seen(&id, pod) => self.signs.settle(&id),
                Some(pod) => self.read(pod.uid.clone(), pod.name.clone()),
                // Nobody saw it, and now nobody will.
                None if sign == Sign::Removed => self.signs.settle(&id),
                None => self.find(id),
            }
        }
    }

    fn find(&mut self, id: String) {
        let task = self.task;
        self.work.push(Box::pin(async move {
            let owner = read::owner_of(&task.observations.client, &id).await;
            Done::Found(id, owner)
        }));
    }

    fn read(&mut self, uid: PodUid, name: PodName) {
        if !self.reading.insert(uid.clone()) {
            return;
        }
        let task = self.task;
        self.work.push(Box::pin(async move {
            let result = task.observations.refresh(&uid, &name).await;
            Done::Read(uid, result.map(drop))
        }));
    }
}

fn report(uid: &PodUid, result: &Result<(), RuntimeError>) {
    if let Err(error) = result {
        tracing::warn!(%uid, error = %chain(error), "cannot read a pod from the runtime");
    }
}
