//! The effect of recording: writes what the correlator decided.
//!
//! An event that the API server turns down for now is tried again later while
//! the ones behind it go on. While the API server cannot be reached at all,
//! everything waits in the queue, which drops the newest when it is full.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Event;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::RecorderMetrics;
use super::correlate::{Correlator, Occurrence, Verdict};
use crate::apiserver::{ApiError, Disposition, EventSink};
use crate::error::chain;

/// Tries for one event.
const TRIES: u32 = 12;
/// Pause between two tries of one event.
const PAUSE: Duration = Duration::from_secs(10);
/// Events that may wait for another try; beyond it the oldest is given up.
const LATER: usize = 200;
/// Time that shutdown leaves for events recorded before it.
const FLUSH: Duration = Duration::from_secs(2);

/// The background half of an [`EventRecorder`](super::EventRecorder).
pub struct EventTask {
    occurrences: mpsc::Receiver<Occurrence>,
    sink: Arc<dyn EventSink>,
    correlator: Correlator,
    metrics: RecorderMetrics,
    /// In order of their next try.
    later: VecDeque<Delivery>,
}

/// One event on its way.
struct Delivery {
    event: Event,
    is_repeat: bool,
    tries: u32,
    due: Instant,
}

impl std::fmt::Debug for EventTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventTask").finish_non_exhaustive()
    }
}

impl EventTask {
    pub(super) fn new(
        occurrences: mpsc::Receiver<Occurrence>,
        sink: Arc<dyn EventSink>,
        node_name: Arc<str>,
        metrics: RecorderMetrics,
    ) -> Self {
        Self {
            occurrences,
            sink,
            correlator: Correlator::new(node_name),
            metrics,
            later: VecDeque::new(),
        }
    }

    /// Writes events until shutdown, then what is queued, for a short while.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let due = self.later.front().map(|delivery| delivery.due);
            let delivery = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                () = sleep_until(due) => self.later.pop_front(),
                occurrence = self.occurrences.recv() => match occurrence {
                    Some(occurrence) => self.judge(occurrence),
                    // All recorders are gone.
                    None => break,
                },
            };
            if let Some(delivery) = delivery {
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => break,
                    () = self.deliver(delivery) => {}
                }
            }
        }
        // Time is up for what is left; it was logged when it was recorded.
        let _ = tokio::time::timeout(FLUSH, self.flush()).await;
    }

    async fn flush(&mut self) {
        while let Ok(occurrence) = self.occurrences.try_recv() {
            if let Some(delivery) = self.judge(occurrence)
                && let Err(error) = self.write(&delivery).await
                && error.is_unreachable()
            {
                return;
            }
        }
    }

    fn judge(&mut self, occurrence: Occurrence) -> Option<Delivery> {
        let (event, is_repeat) = match self.correlator.judge(occurrence) {
            Verdict::Create(event) => (event, false),
            Verdict::Repeat(event) => (event, true),
            Verdict::Drop => return None,
        };
        Some(Delivery {
            event,
            is_repeat,
            tries: 0,
            due: Instant::now(),
        })
    }

    /// Writes one event or puts it off; returns late if nothing can be written.
    async fn deliver(&mut self, mut delivery: Delivery) {
        let Err(error) = self.write(&delivery).await else {
            return;
        };
        delivery.tries += 1;
        let pause = match error.disposition() {
            Disposition::Retry(pause) if delivery.tries < TRIES => pause.unwrap_or(PAUSE),
            _ => {
                self.give_up(&delivery, &error);
                return;
            }
        };
        let is_unreachable = error.is_unreachable();
        if is_unreachable {
            tracing::debug!(error = %chain(&error), "events wait for the API server");
        }
        delivery.due = Instant::now() + pause;
        let due = delivery.due;
        self.put_off(delivery, &error);
        if is_unreachable {
            tokio::time::sleep_until(due).await;
        }
    }

    fn put_off(&mut self, delivery: Delivery, error: &ApiError) {
        if self.later.len() >= LATER
            && let Some(oldest) = self.later.pop_front()
        {
            self.give_up(&oldest, error);
        }
        let position = self
            .later
            .partition_point(|other| other.due <= delivery.due);
        self.later.insert(position, delivery);
    }

    fn give_up(&self, delivery: &Delivery, error: &ApiError) {
        self.metrics.undelivered.inc();
        tracing::warn!(
            event = delivery.event.metadata.name.as_deref().unwrap_or_default(),
            tries = delivery.tries,
            error = %chain(error),
            "event given up",
        );
    }

    async fn write(&self, delivery: &Delivery) -> Result<(), ApiError> {
        let event = &delivery.event;
        if delivery.is_repeat {
            match self.patch(event).await {
                // Events live for an hour; this one's object is gone.
                Err(error) if error.disposition() == Disposition::NotFound => {}
                written => return written,
            }
        }
        match self.sink.create(event).await {
            Ok(_) => Ok(()),
            // An earlier try did arrive.
            Err(error) if error.disposition() == Disposition::Conflict => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn patch(&self, event: &Event) -> Result<(), ApiError> {
        let body = json!({
            "count": event.count,
            "lastTimestamp": event.last_timestamp,
            "message": event.message,
        });
        let meta = &event.metadata;
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let name = meta.name.as_deref().unwrap_or_default();
        self.sink.patch(namespace, name, &body).await.map(drop)
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
