//! The answer's body: a log's pieces, as fast as the caller takes them.
//!
//! The stream does nothing while nobody polls it, so a caller who does not read
//! costs one piece, and dropping the stream, as the server does when the caller
//! is gone, ends all of it.
//!
//! ```text
//!  read ──piece──► caller
//!   │ end of the live file            the end of a file that was put aside
//!   ├──────────────► wait ──┐                  │
//!   │   change, or the end  │                  ▼
//!   ◄───────────────────────┘◄──── next file, once nobody writes to this one
//! ```

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use futures::Stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tracing::debug;

use super::changes::{DirectoryChanges, LogChanges};
use super::options::Until;
use super::reader::{Following, LogReader, Reached};
use crate::error::chain;
use crate::pod::{ContainerId, ContainerState, ObservedPod};

#[cfg(test)]
mod tests;

/// The runtime opens a new file, and may write to the old one for a moment yet:
/// for so long after its last sign of life.
const SETTLES: Duration = Duration::from_millis(500);

/// What tells that a container has ended.
pub(super) struct Liveness {
    pub(super) pod: watch::Receiver<Arc<ObservedPod>>,
    pub(super) id: ContainerId,
}

/// A stream's part in what all streams share.
pub(super) struct Turns {
    /// Its place among the callers, as long as it lives.
    pub(super) place: OwnedSemaphorePermit,
    /// How many logs may be read at a time.
    pub(super) readers: Arc<Semaphore>,
}

/// A log on its way to a caller.
pub(super) struct LogStream {
    reader: LogReader,
    until: Until,
    liveness: Liveness,
    changes: LogChanges,
    readers: Arc<Semaphore>,
    _place: OwnedSemaphorePermit,
    /// Made at the first end of the file.
    directory: Option<DirectoryChanges>,
    /// When a file that was put aside may be left, once the next one is there.
    settled: Option<Instant>,
    /// Whether the container was known to have ended before the last reading.
    ended: bool,
}

/// What has to be done after a reading.
enum Next {
    Read,
    Give(Vec<u8>),
    End(Vec<u8>),
}

impl LogStream {
    pub(super) fn new(
        reader: LogReader,
        until: Until,
        liveness: Liveness,
        changes: LogChanges,
        turns: Turns,
    ) -> Self {
        Self {
            reader,
            until,
            liveness,
            changes,
            readers: turns.readers,
            _place: turns.place,
            directory: None,
            settled: None,
            ended: false,
        }
    }

    /// The pieces, in order.
    pub(super) fn pieces(self) -> impl Stream<Item = io::Result<Bytes>> + Send {
        futures::stream::unfold(Some(self), |stream| async move {
            let (piece, rest) = stream?.piece().await?;
            if let Err(error) = &piece {
                debug!(error = %chain(error), "a log could not be read to its end");
            }
            Some((piece, rest))
        })
    }

    async fn piece(mut self) -> Option<(io::Result<Bytes>, Option<Self>)> {
        loop {
            // The reader is away while it reads.
            let (mut this, read) = match self.with_reader(LogReader::read).await {
                Ok(read) => read,
                Err(error) => return Some((Err(error), None)),
            };
            let (piece, reached) = read;
            if !piece.is_empty() {
                // Somebody writes to it yet.
                this.settled = None;
                return Some((Ok(piece.into()), Some(this)));
            }
            let next;
            (this, next) = match this.after(reached).await {
                Ok(after) => after,
                Err(error) => return Some((Err(error), None)),
            };
            match next {
                Next::End(piece) if piece.is_empty() => return None,
                Next::End(piece) => return Some((Ok(piece.into()), None)),
                Next::Give(piece) if !piece.is_empty() => {
                    return Some((Ok(piece.into()), Some(this)));
                }
                Next::Give(_) | Next::Read => self = this,
            }
        }
    }

    async fn after(self, reached: Reached) -> io::Result<(Self, Next)> {
        match (reached, self.until) {
            (Reached::Somewhere, _) => Ok((self, Next::Read)),
            (Reached::Enough, _) | (_, Until::Now) => self.finish(),
            (Reached::Live, Until::Exit) => self.at_live_end().await,
            (Reached::Rotated, Until::Exit) => self.at_rotated_end().await,
        }
    }

    async fn at_live_end(mut self) -> io::Result<(Self, Next)> {
        self.settled = None;
        if self.ended {
            return self.finish();
        }
        self.wait(None).await;
        Ok((self, Next::Read))
    }

    async fn at_rotated_end(self) -> io::Result<(Self, Next)> {
        let (mut this, following) = self.with_reader(|reader| reader.following()).await?;
        let Some(following) = following else {
            if this.ended {
                return this.finish();
            }
            this.wait(None).await;
            return Ok((this, Next::Read));
        };
        let now = Instant::now();
        let nobody_writes = this.ended || following == Following::PutAside;
        let settled = match this.settled {
            Some(settled) if nobody_writes => settled.min(now),
            Some(settled) => settled,
            None if nobody_writes => now,
            None => now + SETTLES,
        };
        if this.settled.replace(settled) != Some(settled) {
            // What was written until now comes first.
            return Ok((this, Next::Read));
        }
        if now < settled {
            this.wait(Some(settled)).await;
            return Ok((this, Next::Read));
        }
        this.settled = None;
        let (this, piece) = this.with_reader(LogReader::advance).await?;
        Ok((this, Next::Give(piece)))
    }

    fn finish(mut self) -> io::Result<(Self, Next)> {
        let last = self.reader.finish();
        Ok((self, Next::End(last)))
    }

    /// Waits until there may be more to read: a change, the container's end, or
    /// `deadline`.
    async fn wait(&mut self, deadline: Option<Instant>) {
        let Some(directory) = &mut self.directory else {
            // What was written before the watch has to be read first.
            self.directory = Some(self.changes.watch(&self.reader.files().directory()));
            return;
        };
        let deadline = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.liveness.end() => self.ended = true,
            () = directory.next() => {}
            () = deadline => {}
        }
    }

    /// Does blocking work with the reader, when it is this stream's turn.
    async fn with_reader<T: Send + 'static>(
        self,
        work: impl FnOnce(&mut LogReader) -> io::Result<T> + Send + 'static,
    ) -> io::Result<(Self, T)> {
        let turn = Arc::clone(&self.readers).acquire_owned().await;
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let mut this = self;
            let result = work(&mut this.reader)?;
            Ok((this, result))
        });
        done.await.map_err(io::Error::other)?
    }
}

impl Liveness {
    /// Resolves when the container does not run any more. Of a pod that has not
    /// been read yet one cannot tell.
    async fn end(&mut self) {
        let id = &self.id;
        let has_ended = |pod: &Arc<ObservedPod>| {
            let is_read = pod.observed_at != jiff::Timestamp::UNIX_EPOCH;
            let runs = pod.containers.iter().any(|container| {
                container.id == *id
                    && matches!(
                        container.state,
                        ContainerState::Running { .. } | ContainerState::Unknown
                    )
            });
            is_read && !runs
        };
        // The sender lives as long as the agent; without it nothing is told.
        let _ = self.pod.wait_for(has_ended).await;
    }
}
