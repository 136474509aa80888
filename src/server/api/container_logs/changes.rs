//! Tells followers that something happened to their logs.
//!
//! The kernel grants a user few inotify instances, so all followers share one,
//! with a watch for each directory that somebody follows. In: [`LogChanges::watch`].
//! Out: a [`DirectoryChanges`] each, which also ends the watch when it is dropped.
//! One task reads the events; directories in which much is written are told of
//! in batches. Without inotify followers look for themselves every second.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use inotify::{EventMask, EventOwned, EventStream, Inotify, WatchDescriptor, WatchMask, Watches};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::error::chain;

#[cfg(test)]
mod tests;

/// Enough for some hundred events a reading; the kernel queues the rest.
const BUFFER_BYTES: usize = 16 << 10;
/// Pause between two batches, which bounds how often a follower wakes.
const BATCH: Duration = Duration::from_millis(20);
/// How often followers look for themselves if nobody tells them.
const POLL: Duration = Duration::from_secs(1);
/// And in case the kernel forgot to tell.
const AUDIT: Duration = Duration::from_secs(30);

/// Where followers subscribe. Clonable.
#[derive(Clone)]
pub struct LogChanges {
    shared: Arc<Shared>,
}

/// Reads the events; to be run.
pub struct LogChangesTask {
    shared: Arc<Shared>,
    inotify: Option<Inotify>,
}

struct Shared {
    /// `None`: the kernel refuses inotify.
    watches: Option<Watches>,
    directories: Mutex<HashMap<WatchDescriptor, watch::Sender<()>>>,
}

/// What happens in one directory.
pub(super) struct DirectoryChanges {
    shared: Arc<Shared>,
    /// `None`: nobody tells.
    heard: Option<(WatchDescriptor, watch::Receiver<()>)>,
}

impl LogChanges {
    /// Makes the handle, and the task without which it hears nothing.
    #[must_use]
    pub fn new() -> (Self, LogChangesTask) {
        let inotify = match Inotify::init() {
            Ok(inotify) => Some(inotify),
            Err(error) => {
                warn!(error = %chain(&error), "no inotify: followed logs are looked at every second");
                None
            }
        };
        let shared = Arc::new(Shared {
            watches: inotify.as_ref().map(Inotify::watches),
            directories: Mutex::default(),
        });
        let handle = Self {
            shared: Arc::clone(&shared),
        };
        (handle, LogChangesTask { shared, inotify })
    }

    /// What changes in the directory after this returns will be told.
    pub(super) fn watch(&self, directory: &Path) -> DirectoryChanges {
        let heard = self.shared.add(directory).unwrap_or_else(|error| {
            let directory = directory.display();
            warn!(error = %chain(&error), %directory, "a followed log is looked at every second");
            None
        });
        DirectoryChanges {
            shared: Arc::clone(&self.shared),
            heard,
        }
    }
}

impl LogChangesTask {
    /// Tells until shutdown.
    pub async fn run(self, shutdown: CancellationToken) {
        let stream = match self.inotify {
            None => None,
            Some(inotify) => match inotify.into_event_stream(vec![0; BUFFER_BYTES]) {
                Ok(stream) => Some(stream),
                Err(error) => {
                    warn!(error = %chain(&error), "cannot read inotify's events");
                    None
                }
            },
        };
        let Some(mut stream) = stream else {
            self.shared.lock().clear();
            return shutdown.cancelled().await;
        };
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                first = stream.next() => self.shared.tell(batch(first, &mut stream)),
            }
            tokio::time::sleep(BATCH).await;
        }
    }
}

/// An event and all that are there with it.
fn batch(
    first: Option<io::Result<EventOwned>>,
    stream: &mut EventStream<Vec<u8>>,
) -> Vec<EventOwned> {
    let mut events: Vec<_> = first.into_iter().flatten().collect();
    while let Some(Some(next)) = stream.next().now_or_never() {
        events.extend(next);
    }
    events
}

impl Shared {
    fn add(&self, directory: &Path) -> io::Result<Option<(WatchDescriptor, watch::Receiver<()>)>> {
        let Some(watches) = &self.watches else {
            return Ok(None);
        };
        let mask = WatchMask::MODIFY
            | WatchMask::CREATE
            | WatchMask::MOVE
            | WatchMask::CLOSE_WRITE
            | WatchMask::ONLYDIR;
        // Held over the call, so that nobody removes the watch that it finds.
        let mut directories = self.lock();
        let descriptor = watches.clone().add(directory, mask)?;
        let sender = directories.entry(descriptor.clone()).or_default();
        Ok(Some((descriptor, sender.subscribe())))
    }

    fn tell(&self, events: Vec<EventOwned>) {
        let mut directories = self.lock();
        for event in events {
            if event.mask.contains(EventMask::Q_OVERFLOW) {
                for sender in directories.values() {
                    sender.send_replace(());
                }
            } else if event.mask.contains(EventMask::IGNORED) {
                // The directory is gone; who follows it looks for himself.
                directories.remove(&event.wd);
            } else if let Some(sender) = directories.get(&event.wd) {
                sender.send_replace(());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<WatchDescriptor, watch::Sender<()>>> {
        // Nothing that can panic leaves the map half-written.
        self.directories
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl DirectoryChanges {
    /// Resolves when something happened since the last time, or when it is time
    /// to look anyway.
    pub(super) async fn next(&mut self) {
        let told = match &mut self.heard {
            None => return tokio::time::sleep(POLL).await,
            Some((_, receiver)) => tokio::time::timeout(AUDIT, receiver.changed()).await,
        };
        if let Ok(Err(_)) = told {
            self.heard = None;
        }
    }
}

impl Drop for DirectoryChanges {
    fn drop(&mut self) {
        let Some((descriptor, receiver)) = self.heard.take() else {
            return;
        };
        let mut directories = self.shared.lock();
        drop(receiver);
        let is_last = directories
            .get(&descriptor)
            .is_some_and(|sender| sender.receiver_count() == 0);
        if is_last {
            directories.remove(&descriptor);
            if let Some(watches) = &self.shared.watches {
                // The kernel has ended the watch already if the directory is gone.
                let _ = watches.clone().remove(descriptor);
            }
        }
    }
}
