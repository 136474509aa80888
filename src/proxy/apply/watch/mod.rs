//! Notices when somebody else changes our chains.
//!
//! In: nf_tables' events, or the counts of ip_tables' tables. Out: [`Disturbance`]s, one
//! waiting per family at most: what is not yet collected grows wider, never longer.
//!
//! - **nft**: the kernel tells every committed change, and which process made it. A
//!   filter in the kernel drops what our own processes cause ([`own`]), so our largest
//!   restore costs this module two system calls, and it sleeps while nobody else
//!   changes anything. What others change is read from the events' names ([`events`]).
//! - **legacy**: nothing is told. The sizes of the tables are asked for every
//!   [`LEGACY_PERIOD`] ([`legacy`]), which starts no process and reads no rules. A rule
//!   replaced by another of the same size goes unnoticed.

mod events;
mod legacy;
mod own;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex, Notify};
use tokio::time::MissedTickBehavior;

use self::events::Collector;
pub(super) use self::legacy::LegacyCounts;
use self::own::EventSocket;
pub(super) use self::own::OwnRuns;
use crate::proxy::model::{ChainId, Family};

/// How often legacy tables are looked at.
pub const LEGACY_PERIOD: Duration = Duration::from_secs(2);
/// More chains than this at once, and all are to be looked at: naming them would cost
/// more than it spares.
const MOST_CHAINS: usize = 1024;

/// Somebody else has changed what is ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disturbance {
    pub family: Family,
    pub chains: Chains,
    /// The command name of the process that did it, at most 15 characters; the last
    /// one's if there were several. Not known for legacy tables, nor when more was
    /// changed at once than could be read.
    pub by: Option<String>,
    /// Its process ID, as the machine's first PID namespace counts.
    pub pid: Option<u32>,
    /// Who put rules into our chains, as opposed to taking some away; named as in `by`.
    pub writer: Option<String>,
}

/// What was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chains {
    /// These: our chains, and built-in ones that have lost a jump to ours.
    Named(BTreeSet<ChainId>),
    /// It is not known, or too much to say; perhaps nothing of ours.
    All,
}

impl Chains {
    fn merge(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::Named(chains), Self::Named(more)) => chains.extend(more),
            (_, Self::All) => *self = Self::All,
            (Self::All, Self::Named(_)) => {}
        }
        if matches!(self, Self::Named(chains) if chains.len() > MOST_CHAINS) {
            *self = Self::All;
        }
    }
}

/// Why nobody looks after our chains.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    #[error("cannot follow the changes of nf_tables")]
    Events(#[source] io::Error),
    #[error("cannot ask ip_tables for the sizes of its tables")]
    Counts(#[source] io::Error),
}

/// The side of [`Watch`] that hears of disturbances.
#[derive(Debug)]
pub struct Disturbances(Arc<Mailbox>);

impl Disturbances {
    /// The next one; all that happened to a family since its last one is in it.
    /// Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Disturbance {
        loop {
            let heard = self.0.changed.notified();
            if let Some(disturbance) = self.0.take() {
                return disturbance;
            }
            heard.await;
        }
    }
}

/// Disturbances that a test makes up.
#[cfg(test)]
pub(crate) fn channel() -> (impl Fn(Disturbance) + Send, Disturbances) {
    let mailbox = Arc::<Mailbox>::default();
    let disturbances = Disturbances(Arc::clone(&mailbox));
    (move |disturbance| mailbox.put(disturbance), disturbances)
}

/// What waits to be heard.
#[derive(Debug, Default)]
struct Mailbox {
    waiting: std::sync::Mutex<BTreeMap<Family, Disturbance>>,
    changed: Notify,
}

impl Mailbox {
    fn put(&self, disturbance: Disturbance) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match waiting.remove(&disturbance.family) {
            None => waiting.insert(disturbance.family, disturbance),
            Some(mut earlier) => {
                earlier.chains.merge(disturbance.chains);
                earlier.by = disturbance.by.or(earlier.by);
                earlier.pid = disturbance.pid.or(earlier.pid);
                earlier.writer = disturbance.writer.or(earlier.writer);
                waiting.insert(earlier.family, earlier)
            }
        };
        drop(waiting);
        self.changed.notify_one();
    }

    fn take(&self) -> Option<Disturbance> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.pop_first().map(|(_, disturbance)| disturbance)
    }
}

/// A family in legacy mode, and the turn that its processes take.
type LegacyTables = (Family, Arc<Mutex<LegacyCounts>>);

/// Where to look.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) nft: Vec<Family>,
    pub(super) legacy: Vec<LegacyTables>,
}

/// The looking itself.
#[derive(Debug)]
pub struct Watch {
    /// The kernel's events, and the families of which they count.
    nft: Option<(Arc<EventSocket>, Vec<Family>)>,
    legacy: Vec<LegacyTables>,
    mailbox: Arc<Mailbox>,
}

pub(super) fn open(source: Source, own: &OwnRuns) -> Result<(Watch, Disturbances), WatchError> {
    let mailbox = Arc::<Mailbox>::default();
    let nft = if source.nft.is_empty() {
        None
    } else {
        let socket = EventSocket::open().map_err(WatchError::Events)?;
        own.leave_out(&socket).map_err(WatchError::Events)?;
        Some((socket, source.nft))
    };
    let watch = Watch {
        nft,
        legacy: source.legacy,
        mailbox: Arc::clone(&mailbox),
    };
    Ok((watch, Disturbances(mailbox)))
}

impl Watch {
    /// Looks until looking fails; then a new watch can be opened, and what happened in
    /// between is not known.
    pub async fn run(self) -> WatchError {
        let Self {
            nft,
            legacy,
            mailbox,
        } = self;
        let events = async {
            match nft {
                Some((socket, families)) => follow(&socket, &families, &mailbox).await,
                None => std::future::pending().await,
            }
        };
        let counts = async {
            match legacy.as_slice() {
                [] => std::future::pending().await,
                tables => poll(tables, &mailbox).await,
            }
        };
        let failed = tokio::select! {
            failed = events => failed.map_err(WatchError::Events),
            failed = counts => failed.map_err(WatchError::Counts),
        };
        match failed {
            Err(error) => error,
            Ok(never) => match never {},
        }
    }
}

/// Reads the kernel's events.
async fn follow(
    socket: &EventSocket,
    families: &[Family],
    mailbox: &Mailbox,
) -> io::Result<Infallible> {
    let mut collector = Collector::new(families);
    let mut datagram = Vec::new();
    loop {
        let heard = match socket.receive(&mut datagram).await {
            Ok(()) => collector.take(&datagram),
            // The queue ran over: others have changed more than it holds.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => collector.lost(),
            Err(error) => return Err(error),
        };
        for disturbance in heard {
            mailbox.put(disturbance);
        }
    }
}

/// Looks at legacy tables again and again.
async fn poll(tables: &[LegacyTables], mailbox: &Arc<Mailbox>) -> io::Result<Infallible> {
    for (family, counts) in tables {
        counts.lock().await.begin(*family, mailbox)?;
    }
    let mut ticks = tokio::time::interval(LEGACY_PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for (family, counts) in tables {
            // Waits while a process of ours is at work.
            counts.lock().await.check(*family);
        }
    }
}

#[cfg(test)]
mod tests;
