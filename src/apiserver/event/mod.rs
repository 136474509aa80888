//! Events: what modules record, to the API server.
//!
//! In: [`PodEvent`]s, [`NodeEvent`]s and [`ProxyEvent`]s through a handle that
//! never blocks.
//! Out: Event objects, with repeats counted on the first one, floods of
//! similar ones combined, and spam dropped ([`correlate`]), written in the
//! background ([`deliver`]). Each recorded event is a log line as well.

mod correlate;
mod deliver;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;

use super::{EventSink, NodeEvent, ProxyEvent, ProxyEventAbout};
use crate::pod::{PodEvent, Severity};
use correlate::{Occurrence, Reporter};
pub use deliver::EventTask;

/// Events that may wait for the task: a few for each of several hundred pods.
/// With more than that the oldest news is worth more than the newest.
const QUEUE: usize = 1000;

/// Counts of the recorder.
#[derive(Debug, Clone, Default)]
pub struct RecorderMetrics {
    /// Events that were recorded while the queue was full.
    dropped: Counter,
    /// Events that the API server refused or that ran out of tries.
    undelivered: Counter,
}

impl RecorderMetrics {
    /// Adds the counters to the process's metrics.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "kubelet_events_dropped",
            "Events dropped because the recorder's queue was full",
            self.dropped.clone(),
        );
        registry.register(
            "kubelet_events_undelivered",
            "Events given up after the API server refused them or too many tries",
            self.undelivered.clone(),
        );
    }
}

/// Clonable handle for everyone who has something to tell.
#[derive(Debug, Clone)]
pub struct EventRecorder {
    node_name: Arc<str>,
    /// `None`: events are log lines only.
    queue: Option<mpsc::Sender<Occurrence>>,
    metrics: RecorderMetrics,
}

impl EventRecorder {
    /// A recorder and the task that writes what it records.
    #[must_use]
    pub fn new(node_name: Arc<str>, sink: Arc<dyn EventSink>) -> (Self, EventTask) {
        let (queue, occurrences) = mpsc::channel(QUEUE);
        let metrics = RecorderMetrics::default();
        let task = EventTask::new(occurrences, sink, node_name.clone(), metrics.clone());
        let recorder = Self {
            node_name,
            queue: Some(queue),
            metrics,
        };
        (recorder, task)
    }

    /// For an agent without API server: each event is a log line, no more.
    #[must_use]
    pub fn log_only(node_name: Arc<str>) -> Self {
        Self {
            node_name,
            queue: None,
            metrics: RecorderMetrics::default(),
        }
    }

    #[must_use]
    pub fn metrics(&self) -> &RecorderMetrics {
        &self.metrics
    }

    /// Records an event about a pod or one of its containers.
    pub fn record_pod(&self, event: PodEvent) {
        let field_path = event
            .container
            .as_ref()
            .map(|container| container.field_path());
        self.record(Occurrence {
            regarding: ObjectReference {
                field_path,
                ..reference(&event.pod)
            },
            reporter: Reporter::Kubelet,
            severity: event.severity,
            reason: event.reason.into(),
            message: event.message,
            at: Timestamp::now(),
        });
    }

    /// Records that this node does not take a pod. The reason may name a
    /// resource that only this node has.
    pub fn record_rejection(&self, pod: &Pod, reason: &str, message: String) {
        self.record(Occurrence {
            regarding: reference(pod),
            reporter: Reporter::Kubelet,
            severity: Severity::Warning,
            reason: reason.to_owned().into(),
            message,
            at: Timestamp::now(),
        });
    }

    /// Records an event about this node.
    pub fn record_node(&self, event: NodeEvent) {
        self.record(Occurrence {
            regarding: self.node(),
            reporter: Reporter::Kubelet,
            severity: event.severity,
            reason: event.reason.into(),
            message: event.message,
            at: Timestamp::now(),
        });
    }

    /// Records an event of the service proxy, about a Service or this node.
    pub fn record_proxy(&self, event: ProxyEvent) {
        let regarding = match event.about {
            ProxyEventAbout::Node => self.node(),
            ProxyEventAbout::Service {
                namespace,
                name,
                uid,
            } => ObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Service".into()),
                namespace: Some(namespace),
                name: Some(name),
                uid,
                ..ObjectReference::default()
            },
        };
        self.record(Occurrence {
            regarding,
            reporter: Reporter::KubeProxy {
                action: event.action,
            },
            severity: event.severity,
            reason: event.reason.into(),
            message: event.message,
            at: Timestamp::now(),
        });
    }

    fn node(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Node".into()),
            name: Some(self.node_name.to_string()),
            ..ObjectReference::default()
        }
    }

    fn record(&self, occurrence: Occurrence) {
        log(&occurrence);
        if let Some(queue) = &self.queue
            && queue.try_send(occurrence).is_err()
        {
            self.metrics.dropped.inc();
        }
    }
}

fn reference(pod: &Pod) -> ObjectReference {
    let meta = &pod.metadata;
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

fn log(occurrence: &Occurrence) {
    let regarding = &occurrence.regarding;
    let severity: Severity = occurrence.severity;
    tracing::info!(
        kind = regarding.kind.as_deref().unwrap_or_default(),
        namespace = regarding.namespace.as_deref().unwrap_or_default(),
        name = regarding.name.as_deref().unwrap_or_default(),
        field_path = regarding.field_path.as_deref().unwrap_or_default(),
        severity = severity.as_str(),
        reason = %occurrence.reason,
        "event: {}",
        occurrence.message,
    );
}
